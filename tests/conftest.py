"""Options of the whole suite and what all of it shares."""
from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.name_server import NameServer, name_server


def pytest_configure() -> None:
    # Started in the background by a shell, the suite would hand down an ignored SIGINT, and no test could interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    """A name server whose zone `test` can be changed."""
    with name_server(tmp_path_factory.mktemp("named")) as made:
        yield made
