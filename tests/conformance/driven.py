"""The package's clients as tests drive them: both flavours by one spelling, every answer held against its type."""
from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, get_args, get_type_hints, is_typeddict

import exedev
import httpx
import msgspec

SECONDS = 170.0
"""Longest wait for one call."""


class Loop:
    """An event loop in a thread of its own, for the asynchronous client and whatever it talks to."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, made: Coroutine[Any, Any, Any], seconds: float = SECONDS) -> Any:
        """The result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(made, self.loop).result(seconds)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Driven:
    """An object of the package, of either flavour, used as the synchronous one is.

    What returns normally is noted in `seen` by its dotted name, such as `VM.share.add`.
    """

    def __init__(self, inner: Any, name: str, loop: Loop, seen: set[str]) -> None:
        self._inner, self._name, self._loop, self._seen = inner, name, loop, seen

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        name = f"{self._name}.{attribute}"
        # The asynchronous client closes with `aclose`; all else has one name.
        value = getattr(self._inner, attribute if hasattr(self._inner, attribute) else f"a{attribute}")
        if inspect.ismethod(value) or inspect.isfunction(value):
            return self._driving(value, name)
        if type(value).__name__.startswith("_"):
            return Driven(value, name, self._loop, self._seen)
        self._seen.add(name)
        return self._wrapped(value)

    def __setattr__(self, attribute: str, value: object) -> None:
        assert attribute.startswith("_"), attribute
        object.__setattr__(self, attribute, value)

    def __call__(self, *args: Any) -> Any:
        return self._driving(self._inner, f"{self._name}.__call__")(*args)

    def __enter__(self) -> Driven:
        self._either("__enter__")
        return self

    def __exit__(self, *why: object) -> None:
        self._either("__exit__", *why)

    def __repr__(self) -> str:
        return repr(self._inner)

    def _either(self, name: str, *args: object) -> None:
        kind = name if hasattr(type(self._inner), name) else "__a" + name[2:]
        self._settled(getattr(self._inner, kind)(*args))
        self._seen.add(f"{self._name}.{name}")

    def _driving(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            plain = [a._inner if isinstance(a, Driven) else a for a in args]
            made = self._settled(function(*plain, **options))
            require_shape(function, made)
            self._seen.add(name)
            return self._wrapped(made)

        return call

    def _settled(self, made: Any) -> Any:
        return self._loop.run(_awaited(made)) if inspect.isawaitable(made) else made

    def _wrapped(self, made: Any) -> Any:
        if isinstance(made, list):
            return [self._wrapped(one) for one in made]
        kind = type(made).__name__.removeprefix("Async")
        known = isinstance(made, exedev.VM | exedev.AsyncVM | exedev.Process | exedev.AsyncProcess)
        return Driven(made, kind, self._loop, self._seen) if known else made


async def _awaited(made: Any) -> Any:
    return await made


def require_shape(function: Callable[..., Any], document: Any) -> None:
    """Fail unless the document is of the type that the package says the function returns."""
    said = get_type_hints(inspect.unwrap(function)).get("return")
    kinds = [k for k in (get_args(said) or (said,)) if is_typeddict(k)]
    wrong: list[str] = []
    for kind in kinds:
        try:
            msgspec.convert(document, kind)
            return
        except msgspec.ValidationError as error:
            wrong.append(f"{kind.__name__}: {error}")
    assert not wrong, (wrong, document)


@contextmanager
def client(
    flavour: str, loop: Loop, seen: set[str], token: str, base_url: str, http: dict[str, Any], **options: Any,
) -> Iterator[Driven]:
    """A client of `flavour` `sync` or `async`, closed afterwards; `http` are settings of the HTTP client."""
    if flavour == "sync":
        with httpx.Client(**http) as web:
            yield Driven(exedev.Client(token, base_url=base_url, http_client=web, **options), "Client", loop, seen)
        return
    web_async = httpx.AsyncClient(**http)
    made = exedev.AsyncClient(token, base_url=base_url, http_client=web_async, **options)
    try:
        yield Driven(made, "Client", loop, seen)
    finally:
        loop.run(web_async.aclose())
