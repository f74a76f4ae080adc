"""One module for each schema change, listed in order; every one has `revision` and `upgrade()`."""
from __future__ import annotations

from types import ModuleType

from ussycode.base.migrations.versions import (
    v0001_accounts_and_vms,
    v0002_lifecycle,
    v0003_sharing,
    v0004_emails,
    v0005_tokens,
    v0006_domains,
    v0007_images,
    v0009_first_boots,
    v0010_warnings,
    v0013_signing,
    v0014_domains,
    v0015_passkeys,
    v0016_domain_certificates,
    v0017_grants,
    v0018_acme_accounts,
    v0019_requests,
    v0020_visitors,
    v0021_mailboxes,
)

ORDER: tuple[ModuleType, ...] = (
    v0001_accounts_and_vms, v0002_lifecycle, v0003_sharing, v0004_emails, v0005_tokens, v0006_domains, v0007_images,
    v0009_first_boots, v0010_warnings, v0013_signing, v0014_domains, v0015_passkeys, v0016_domain_certificates,
    v0017_grants, v0018_acme_accounts, v0019_requests, v0020_visitors, v0021_mailboxes,
)
