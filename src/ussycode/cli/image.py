"""`ussycode image`: build and list images."""
from __future__ import annotations

import argparse

from ussycode.base.clock import rfc3339
from ussycode.cli import prepare
from ussycode.cmdline.render import PLAIN, table
from ussycode.config import Config
from ussycode.runtime.images.store import ImageStore


def image(config: Config, asked: argparse.Namespace) -> int:
    """Build one image, list what is ready, or move to a newer guest kernel."""
    if asked.what == "kernel":
        return _kernel(config)
    store = ImageStore(config.data_dir / "images")
    if asked.what == "ls":
        rows = [
            [i.name, i.digest[:12], f"{i.size >> 20} MiB", rfc3339(i.created), str(i.packages)] for i in store.list()
        ]
        print(table(["NAME", "DIGEST", "SIZE", "BUILT", "PACKAGES"], rows, PLAIN) if rows else "no images yet")
        return 0
    prepare.require_root()
    config.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    made = store.build(asked.name or config.default_image, prepare.Progress(lambda text: print(text, flush=True)))
    print(f"built {made.name} {made.digest[:12]}")
    return 0


def _kernel(config: Config) -> int:
    from ussycode.runtime.kernel import fetch_kernel

    prepare.require_root()
    cache = config.data_dir / "cache"
    had = fetch_kernel(cache)
    found = fetch_kernel(cache, update=True)
    if found == had:
        print(f"{found.version} is the newest guest kernel that apt knows: apt-get update asks for more")
    else:
        print(f"{had.version} -> {found.version}: machines that start after the next `ussycode up` boot it")
    return 0
