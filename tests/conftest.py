"""Options of the whole suite."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.name_server import NameServer, name_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    """A name server whose zone `test` can be changed."""
    with name_server(tmp_path_factory.mktemp("named")) as made:
        yield made
