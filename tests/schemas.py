"""The committed JSON Schemas, and checking documents against them."""
from __future__ import annotations

import functools
import json
from pathlib import Path

import jsonschema

SCHEMAS = Path(__file__).parents[1] / "docs" / "reference" / "schemas"


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Checks documents of one command, or `error`."""
    schema = json.loads((SCHEMAS / f"{name.replace(' ', '-')}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check(name: str, document: object) -> None:
    """Fails with the first thing in `document` that the schema of command `name` does not allow."""
    plain = json.loads(json.dumps(document))
    wrong = next(validator(name).iter_errors(plain), None)
    assert wrong is None, f"{name}: {wrong.json_path if wrong else ''}: {wrong.message if wrong else ''}"
