"""The Model Context Protocol: every command is a tool, behind the same tokens and the same dispatch."""
from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ussycode.access import decide as scope
from ussycode.access.facts import Caller
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.catalog import TREE, declined
from ussycode.cmdline import lex
from ussycode.cmdline.render import failure_document
from ussycode.cmdline.schema import reply
from ussycode.cmdline.spec import Command, Param
from ussycode.dispatch import Outcome
from ussycode.doors.web import body
from ussycode.doors.web.asked import Asked
from ussycode.doors.web.exec import ExecDoor, bearer, json_response, refusal
from ussycode.doors.web.stays import ENDED
from ussycode.doors.web.stream import run_whole
from ussycode.ports import Attach

VERSIONS = ("2025-06-18", "2025-03-26")
"""Protocol revisions that are spoken, newest first."""
MAX_OUTPUT = 1 << 20
"""Bytes of a VM command's output that a tool answers with; the rest is dropped and the answer says so."""
NOT_POST = ErrorCode("mcp.not_post", Kind.BAD_REQUEST, "this endpoint takes POST and keeps no stream open")
PARSE, INVALID, NO_METHOD, BAD_PARAMS = -32700, -32600, -32601, -32602
"""Error codes of JSON-RPC 2.0."""
LEFT_OUT = frozenset({"exit", "help", "complete", "export"})
"""Commands that make no sense to a model: it has the schemas, no session to leave, and no use for a disk."""
TOOLS = {
    command.name.replace(" ", "_"): command for command in TREE.commands
    if command.name not in LEFT_OUT and command not in declined.ALL
}
"""Commands by the name of their tool."""


class RpcError(Exception):
    """A request that JSON-RPC itself refuses."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class McpDoor:
    """Answers `/mcp` (streamable HTTP, no sessions: each request is whole and carries its token)."""

    def __init__(self, exec_door: ExecDoor) -> None:
        self._exec = exec_door

    async def answer(self, request: Request, asked: Asked) -> Response:
        """The response to one message; 202 without a body for a notification."""
        if request.method != "POST":
            return refusal(NOT_POST(), asked.request_id, status=405)
        try:
            token = bearer(request)
            caller = await self._exec.tokens.verify(token)
            raw = await body.read(request, lex.MAX_LINE)
        except Failure as failure:
            return refusal(failure, asked.request_id)
        try:
            message = _message(raw)
        except RpcError as error:
            return _error(None, error)
        if "id" not in message:
            return Response(None, 202)
        try:
            result = await self._do(message, caller, asked, token)
        except RpcError as error:
            return _error(message["id"], error)
        return json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async def _do(self, message: Mapping[str, Any], caller: Caller, asked: Asked, token: str) -> object:
        given = message.get("params") or {}
        if not isinstance(given, dict):
            raise RpcError(BAD_PARAMS, "params is an object")
        match message["method"]:
            case "initialize":
                return _welcome(given)
            case "ping":
                return {}
            case "tools/list":
                return {"tools": [_tool(name, c) for name, c in TOOLS.items() if scope.names(caller, c.name)]}
            case "tools/call":
                return await self._call(given, caller, asked, token)
        raise RpcError(NO_METHOD, f"no method is called {message['method']!r}")

    async def _call(self, given: Mapping[str, Any], caller: Caller, asked: Asked, token: str) -> object:
        command = TOOLS.get(str(given.get("name")))
        if command is None:
            raise RpcError(BAD_PARAMS, f"no tool is called {given.get('name')!r}")
        words = words_of(command, given.get("arguments", {}))
        try:
            outcome = await self._exec.execute(caller, words, asked.request_id, "mcp")
            return await self._result(outcome, token)
        except Failure as failure:
            return _failed(failure, asked.request_id)

    async def _result(self, outcome: Outcome, token: str) -> object:
        if outcome.failure is not None:
            raise outcome.failure
        if outcome.attach is not None:
            return _said(await self._whole(outcome.attach, token))
        assert outcome.view is not None
        return _said(outcome.view.document())

    async def _whole(self, where: Attach, token: str) -> dict[str, object]:
        running = asyncio.create_task(run_whole(self._exec.app, where, MAX_OUTPUT))
        try:
            if await self._exec.stays.wait(where, token, {running}):
                raise ENDED()
            return await running
        finally:
            running.cancel()


def words_of(command: Command, arguments: Any) -> tuple[str, ...]:
    """The command line that `arguments` mean, as words. Raises RpcError for one that is not declared."""
    if not isinstance(arguments, dict):
        raise RpcError(BAD_PARAMS, "arguments is an object")
    params = {p.name: p for p in command.params}
    if unknown := sorted(map(str, arguments.keys() - params.keys())):
        known = ", ".join(params) or "none"
        raise RpcError(BAD_PARAMS, f"{command.name} has no argument {unknown[0]}; it has: {known}")
    flags = [w for name, value in arguments.items() for w in _flags(params[name], value)]
    positional = [w for p in command.params if p.kind in ("word", "rest") for w in _texts(p, arguments.get(p.name))]
    verbatim = any(p.kind == "rest" for p in command.params)
    return (*command.path, *flags, *([] if verbatim else ["--"]), *positional)


def _flags(param: Param, value: Any) -> list[str]:
    if param.kind == "switch":
        return [f"{param.flag}={str(bool(value)).lower()}"]
    return [f"{param.flag}={text}" for text in _texts(param, value)] if param.kind == "flag" else []


def _texts(param: Param, value: Any) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if any(isinstance(v, dict | list) for v in values) or (len(values) > 1 and not param.many):
        raise RpcError(BAD_PARAMS, f"{param.name} takes {'texts' if param.many else 'one text'}")
    return [str(v) for v in values]


def _tool(name: str, command: Command) -> dict[str, object]:
    answered = _object(reply(command))
    return {
        "name": name, "title": command.name, "description": f"{command.summary}\n{command.details}".strip(),
        "inputSchema": {
            "type": "object", "properties": {p.name: _schema(p) for p in command.params},
            "required": [p.name for p in command.params if p.required], "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": command.reads_only, "destructiveHint": command.path[0] == "rm"},
    } | ({"outputSchema": answered} if answered else {})


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    """The same as a schema whose outermost level says that it is an object, as the protocol wants it."""
    return {**schema, "type": "object"} if schema else {}


def _schema(param: Param) -> dict[str, object]:
    if param.kind == "switch":
        return {"type": "boolean", "description": param.help}
    one: dict[str, object] = {"type": ["string", "number"]}
    kind = {"type": "array", "items": one} if param.many else one
    return {**kind, "description": param.help}


def _welcome(given: Mapping[str, Any]) -> object:
    wanted = given.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {"listChanged": False}}, "serverInfo": {"name": "ussycode", "version": "1"},
        "instructions": "Each tool is a command of the platform. `new` makes a Linux VM; `ssh` runs a command in one.",
    }


def _message(raw: bytes) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(raw)
    except UNREADABLE as why:
        raise RpcError(PARSE, f"not JSON: {why}") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise RpcError(INVALID, "not one JSON-RPC request")
    return message


def _said(document: object) -> object:
    text = msgspec.json.encode(document).decode()
    made: dict[str, object] = {"content": [{"type": "text", "text": text}], "isError": False}
    return made | ({"structuredContent": document} if isinstance(document, dict) else {})


def _failed(failure: Failure, request_id: str) -> object:
    document = failure_document(failure, request_id, rich=True)
    return {"content": [{"type": "text", "text": msgspec.json.encode(document).decode()}], "isError": True,
            "structuredContent": document}


def _error(number: object, error: RpcError) -> Response:
    said = {"code": error.code, "message": str(error)}
    return json_response({"jsonrpc": "2.0", "id": number, "error": said}, 400 if error.code == PARSE else 200)
