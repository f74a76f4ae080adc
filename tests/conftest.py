"""Options of the whole suite, what all of it shares, and what runs beside what when it has two processes."""
from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.name_server import NameServer, name_server

HERE = Path(__file__).parent
GUESTS = frozenset({"live", "conformance"})
"""Folders whose tests boot guests: those share a host and stand in line, in one process."""


def pytest_configure() -> None:
    # Started in the background by a shell, the suite would hand down an ignored SIGINT, and no test could interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write golden files instead of comparing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        where = item.path.relative_to(HERE)
        item.add_marker(pytest.mark.xdist_group("guests" if where.parts[0] in GUESTS else str(where)))


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    """A name server whose zone `test` can be changed."""
    with name_server(tmp_path_factory.mktemp("named")) as made:
        yield made
