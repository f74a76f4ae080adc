"""One module for each schema change, listed in order; every one has `revision` and `upgrade()`."""
from __future__ import annotations

from types import ModuleType

from ussycode.base.migrations.versions import v0001_accounts_and_vms

ORDER: tuple[ModuleType, ...] = (v0001_accounts_and_vms,)
