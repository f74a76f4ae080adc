"""`ussycode ca`: the root certificate that browsers must trust."""
from __future__ import annotations

import argparse

from ussycode.base.clock import SystemClock
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.pki import open_authority
from ussycode.config import Config

NO_CA = ErrorCode(
    "ca.none", Kind.NOT_FOUND, "there is no local certificate authority in {data}", hint="ussycode up makes one"
)


def ca(config: Config, _asked: argparse.Namespace) -> int:
    """Print the root certificate as PEM. Its key never leaves the machine."""
    if not (config.data_dir / "ca").is_dir():
        raise NO_CA(data=config.data_dir)
    print(open_authority(config.data_dir / "ca", SystemClock()).root_pem.decode(), end="")
    return 0
