"""What the `exedev` package offers: every public name of its clients, and the command that each method sends."""
from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import exedev
import httpx
from exedev._wire import FLUSH_SCRIPT

ROOTS = ("Client", "VM", "Process")
PROTOCOL = ("__enter__", "__exit__", "__call__")
"""Public in spite of their underscores."""
IN_THE_GUEST = "ssh"
"""The command behind everything that runs inside a VM."""


@dataclass(frozen=True)
class Method:
    """One public method or property, by its dotted name such as `Client.team.vm.ls`."""

    name: str
    call: Any
    property: bool = False


def methods(root: object, name: str) -> Iterator[Method]:
    """Everything public below one object of the package, its groups (`vm.share`) included."""
    for attribute, value in inspect.getmembers_static(type(root)):
        if attribute in PROTOCOL or not attribute.startswith("_"):
            yield Method(f"{name}.{attribute}", value, isinstance(value, property))
    for attribute, value in sorted(vars(root).items()):
        if not attribute.startswith("_") and type(value).__name__.startswith("_"):
            yield from methods(value, f"{name}.{attribute}")


def everything() -> dict[str, Method]:
    """All public methods and properties of the synchronous client, by name."""
    sent: list[str] = []
    vm = fake_client(sent).new(name="demo", wait_until="created")
    roots = (fake_client(sent), vm, vm.spawn("true", name="job"))
    return {m.name: m for name, root in zip(ROOTS, roots, strict=True) for m in methods(root, name)}


def commands() -> dict[str, str]:
    """The first command line that each method sends, by the method's name; empty when it sends none."""
    return {name: _sent(method) for name, method in everything().items() if not method.property}


def _sent(method: Method) -> str:
    sent: list[str] = []
    root = _object(method.name.split("."), sent)
    del sent[:]
    bound = getattr(root, method.name.rpartition(".")[2])
    with suppress(exedev.ExeError, OSError, TypeError, ValueError):  # only what was sent is looked at
        bound(*examples(bound))
    # Several flush the disk first, as well as they can.
    return next((line for line in sent if FLUSH_SCRIPT not in line), "")


def _object(path: Sequence[str], sent: list[str]) -> Any:
    client = fake_client(sent)
    found: Any = client
    if path[0] != "Client":
        found = client.new(name="demo", wait_until="created")
    if path[0] == "Process":
        found = found.spawn("true", name="job")
    for attribute in path[1:-1]:
        found = getattr(found, attribute)
    return found


def examples(bound: Any) -> list[object]:
    """A value for each argument that has no default."""
    hints = get_type_hints(bound)
    return [_example(p.name, hints.get(p.name, str)) for p in inspect.signature(bound).parameters.values()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def _example(name: str, hint: Any) -> object:
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        return _example(name, get_args(hint)[0])
    special = {"local": "/nonexistent", "email": "bob@example.org", "sig": "TERM", "new_name": "shop"}
    return special.get(name, {bool: True, int: 1}.get(hint, "demo"))


PLACE = {"ssh_dest": "demo@localhost", "ssh": "demo@localhost", "https_url": "https://demo.localhost/"}
DOCUMENT = {"vm_name": "demo", "name": "demo", "status": "running", **PLACE}


def fake_client(sent: list[str]) -> exedev.Client:
    """A client whose server answers everything with one VM, and notes the command lines."""
    def answer(request: httpx.Request) -> httpx.Response:
        line = request.content.decode()
        sent.append(line)
        if line.startswith("ssh "):
            # The pid that `spawn` reads.
            body = '{"stdout": "MQ=="}\n{"exit_code": 0}\n'
            return httpx.Response(200, text=body, headers={"Content-Type": "application/x-ndjson"})
        listed = {"vms": [DOCUMENT]} if line.startswith("ls") else DOCUMENT
        return httpx.Response(200, text=json.dumps(listed))

    return exedev.Client("token", http_client=httpx.Client(transport=httpx.MockTransport(answer)))
