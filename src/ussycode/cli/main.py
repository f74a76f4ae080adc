"""Reads the operator's command line and runs one verb."""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ussycode.base.errors import Failure
from ussycode.cli.haproxy import CERTIFICATES
from ussycode.config import SETTINGS, Config, load

Verb = Callable[[Config, argparse.Namespace], int]
CONFIG_FILE = Path("/etc/ussycode/ussycode.toml")
"""Read when it exists and neither --config nor USSYCODE_CONFIG names another file."""


def run(words: Sequence[str]) -> int:
    """Exit status of one operator command: 0 done, 1 failed, 2 wrong usage."""
    asked = parser().parse_args(words)
    try:
        verb: Verb = asked.verb
        return verb(_config(asked), asked)
    except Failure as failure:
        print(f"error: {failure.sentence}", file=sys.stderr)
        if failure.hint:
            print(f"hint: {failure.hint}", file=sys.stderr)
        return failure.kind.exit_code
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The whole grammar; every setting is an option of every verb."""
    top = argparse.ArgumentParser("ussycode", description="Persistent Linux VMs over SSH and HTTPS, self-hosted.")
    verbs = top.add_subparsers(metavar="VERB", required=True)
    up = _verb(verbs, "up", "run the platform", "ussycode.cli.up:up")
    up.add_argument("--detach", action="store_true", help="return when it is ready, and leave it running")
    _verb(verbs, "down", "stop the platform and its VMs; disks stay", "ussycode.cli.down:down")
    status = _verb(verbs, "status", "pid, ports, state and VMs", "ussycode.cli.status:status")
    status.add_argument("--json", action="store_true", help="one JSON document")
    doctor = _verb(verbs, "doctor", "check everything the platform needs", "ussycode.cli.doctor:doctor")
    doctor.add_argument("--json", action="store_true", help="one JSON document")
    _verb(verbs, "ca", "print the root certificate to trust", "ussycode.cli.ca:ca")
    outbox = _verb(verbs, "outbox", "print the platform's mails", "ussycode.cli.outbox:outbox")
    outbox.add_argument("--json", action="store_true", help="one JSON document")
    _verb(verbs, "reload", "replace the edge processes; open connections go on", "ussycode.cli.reload:reload")
    front = _verb(verbs, "front", "print a configuration for a proxy of yours in front", "ussycode.cli.front:front")
    front.add_argument("which", choices=("caddy", "haproxy"))
    front.add_argument("--certificates", default=CERTIFICATES, metavar="PATH",
                       help=f"PEM file, or folder of them, for haproxy; {CERTIFICATES}")
    image = _verb(verbs, "image", "build and list images, update the guest kernel", "ussycode.cli.image:image")
    image.add_argument("what", choices=("build", "ls", "kernel"))
    image.add_argument("name", nargs="?", default="", help="which image to build; the default one when omitted")
    _dev_proxy(verbs)
    for role in ("helper", "control", "edge"):
        inner = verbs.add_parser("_" + role)
        inner.add_argument("fd", type=int)
        inner.set_defaults(verb=_lazy("ussycode.cli.roles:" + role), inner=True)
    return top


def _verb(verbs: argparse._SubParsersAction, name: str, text: str, where: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    made.add_argument("--config", default="", help="TOML file with settings")
    for setting in SETTINGS:
        made.add_argument(setting.option, dest=setting.name, default=None, metavar="X", help=setting.help)
    made.set_defaults(verb=_lazy(where), inner=False)
    return made


def _dev_proxy(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    text = "stand in for the platform in front of an app that you write, with one person signed in"
    proxy: argparse.ArgumentParser = verbs.add_parser("dev-proxy", help=text, description=text, allow_abbrev=False)
    proxy.add_argument("--user", required=True, metavar="ADDRESS", help="e-mail address of the person")
    proxy.add_argument("--port", required=True, type=int, help="port of the app on this computer")
    proxy.add_argument("--on", type=int, default=8080, metavar="PORT", help="port to open; 8080, or 0 for any")
    proxy.set_defaults(verb=_lazy("ussycode.cli.dev_proxy:dev_proxy"), inner=True)


def _lazy(where: str) -> Verb:
    # Verbs are imported when they run: `ussycode ca` must not pay for the SSH server's import.
    def call(config: Config, asked: argparse.Namespace) -> int:
        import importlib

        module, _, name = where.partition(":")
        verb: Verb = getattr(importlib.import_module(module), name)
        return verb(config, asked)

    return call


def _config(asked: argparse.Namespace) -> Config:
    if asked.inner:
        return load({}, {})
    options = {s.name: value for s in SETTINGS if (value := getattr(asked, s.name)) is not None}
    if "data_dir" in options:
        options["data_dir"] = str(Path(options["data_dir"]).absolute())
    named = asked.config or os.environ.get("USSYCODE_CONFIG", "")
    file = Path(named) if named else CONFIG_FILE if CONFIG_FILE.exists() else None
    return load(options, os.environ, file)
