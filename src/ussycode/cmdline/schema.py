"""JSON Schemas read off what views say they answer."""
from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from ussycode.cmdline.spec import Command

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def reply(command: Command) -> dict[str, Any]:
    """The schema of a command's document; empty for one that answers with a stream, or never."""
    kinds = [kind for view in _views(command.view) for kind in _kinds(view)]
    return of(kinds, command.name) if kinds else {}


def of(kinds: list[Any], title: str) -> dict[str, Any]:
    """The schema of a document that is one of `kinds`. Members that are not named are not allowed."""
    refs, parts = msgspec.json.schema_components(kinds)
    for part in parts.values():
        if "properties" in part:
            part["additionalProperties"] = False
    body = {"anyOf": list(refs)} if len(refs) > 1 else refs[0]
    return {"$schema": DIALECT, "title": title, **body, "$defs": parts}


def _views(view: Any) -> Iterator[Any]:
    for one in typing.get_args(view) if isinstance(view, types.UnionType) else (view,):
        if hasattr(one, "document"):
            yield one


def _kinds(view: Any) -> tuple[Any, ...]:
    answered = typing.get_type_hints(view.document)["return"]
    return typing.get_args(answered) if isinstance(answered, types.UnionType) else (answered,)
