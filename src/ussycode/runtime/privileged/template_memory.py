"""Memory of templates: held by the helper alone, shared by clones copy-on-write, sealed so that nobody can change it.

A write seal is the kernel's own word: no write, no shared mapping, no hole, by anybody, for as long as the memory
lives. A clone whose QEMU was taken over holds the same descriptor as the others, and can do nothing with it.
"""
from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from ussycode.runtime.privileged.protocol import MAX_TEMPLATES, Held

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_NAME = "ussycode-template"
_BLOCK = 512


@dataclass
class TemplateMemory:
    """The memory of each template by its id. Lost with this process; machines made from it keep what they map."""

    _fds: dict[str, int] = field(default_factory=dict)

    def make(self, template: str, mib: int) -> int:
        """A descriptor of fresh memory that is to become `template`. Raises PermissionError when there is no place."""
        if template in self._fds:
            raise PermissionError("there is such a template already")
        if len(self._fds) >= MAX_TEMPLATES:
            raise PermissionError(f"more than {MAX_TEMPLATES} templates are not held")
        fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, mib << 20)
        # Its machine has to be able to open it by name, and is not its owner.
        os.fchmod(fd, 0o666)
        self._fds[template] = fd
        return fd

    def seal(self, template: str) -> None:
        """Close it to every change. Raises OSError while the machine that wrote it still maps it."""
        fcntl.fcntl(self._get(template), fcntl.F_ADD_SEALS, _SEALS)

    def sealed(self, template: str, mib: int) -> int:
        """The descriptor of a sealed template of this size. Raises PermissionError when there is none."""
        fd = self._get(template)
        if not _is_sealed(fd) or os.fstat(fd).st_size != mib << 20:
            raise PermissionError("the template is not ready, or of another size")
        return fd

    def drop(self, template: str) -> None:
        """Let go of it. Idempotent."""
        fd = self._fds.pop(template, None)
        if fd is not None:
            os.close(fd)

    def held(self) -> Iterator[Held]:
        """What there is."""
        for template, fd in self._fds.items():
            yield Held(template, os.fstat(fd).st_blocks * _BLOCK, _is_sealed(fd))

    def _get(self, template: str) -> int:
        fd = self._fds.get(template)
        if fd is None:
            raise PermissionError("there is no such template")
        return fd


def _is_sealed(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
