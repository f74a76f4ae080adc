"""Makes what live tests boot before they run, so that no test's time holds a build: `python -m tests.live.prepare`."""
from __future__ import annotations

from tests.live.conftest import data_folder
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.kernel import boot_files

IMAGES = ("debian-min", "ussyuntu")


def say(stage: str, part: float) -> None:
    """One line for each stage of a build."""
    print(f"  {stage} ({part:.0%})", flush=True)


def main() -> None:
    """Kernel, initrd and images; moments when they are there."""
    folder = data_folder()
    boot_files(folder / "cache", say)
    for name in IMAGES:
        ImageStore(folder / "images").ensure(name, say)


if __name__ == "__main__":
    main()
