"""No method of the package is forgotten: each works and a test shows it, or is refused as the page says."""
from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import exedev
import pytest

from scripts import sdk
from tests.conformance.conftest import Desk
from tests.conformance.driven import Driven
from tests.conformance.surface import everything, examples

ROWS = {row.method: row for row in sdk.rows()}
REFUSED = sorted(name for name, row in ROWS.items() if row.why)


def modules() -> list[ModuleType]:
    found = sorted(Path(__file__).parent.glob("test_*.py"))
    return [importlib.import_module(f"tests.conformance.{path.stem}") for path in found]


def covered() -> set[str]:
    """What the tests of this folder say they cover; each has to make it work, which its desk checks."""
    tests = [value for module in modules() for name, value in vars(module).items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in getattr(test, "pytestmark", ()) if mark.name == "covers"]
    return {name for mark in marks for name in mark.args}


def test_every_method_that_works_here_is_covered_by_a_test() -> None:
    properties = {name for name, method in everything().items() if method.property}
    works = {name for name, row in ROWS.items() if not row.why}
    assert covered() == works | properties


def test_both_clients_offer_the_same() -> None:
    for name in ("Client", "VM", "Process"):
        plain = {m.replace("__enter__", "__aenter__").replace("__exit__", "__aexit__") for m in own(name)}
        assert {m.replace("aclose", "close") for m in own("Async" + name)} == plain


def own(name: str) -> set[str]:
    kept = ("__enter__", "__exit__", "__aenter__", "__aexit__")
    return {m for m, _ in inspect.getmembers_static(getattr(exedev, name)) if m in kept or not m.startswith("_")}


def test_what_is_not_here_is_refused_with_a_sentence(desk: Desk) -> None:
    exe = desk.client()
    vm = exe.new(name="demo", wait_until="created")
    for name in REFUSED:
        with pytest.raises(exedev.APIError) as refused:
            called(exe, vm, name)
        assert refused.value.status in (403, 404, 422), name
        sentence = str(refused.value)
        assert ROWS[name].why in sentence or ROWS[name].why in (sdk.NOT_BUILT, sdk.NO_ADDRESS.get(name)), sentence


def called(exe: Driven, vm: Driven, name: str) -> object:
    root, *path = name.removesuffix(".__call__").split(".")
    bound = {"Client": exe, "VM": vm}[root]
    for attribute in path:
        bound = getattr(bound, attribute)
    return bound(*examples(everything()[name].call)[1:])
