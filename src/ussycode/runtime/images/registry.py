"""A registry over HTTP: manifests and blobs by digest, checked; nothing of it reaches where it may not."""
from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.images.manifest import ACCEPT, BAD_IMAGE, MAX_MANIFEST, Descriptor, Manifest, read_manifest
from ussycode.runtime.images.reference import DIGEST, Reference
from ussycode.runtime.images.registry_auth import Challenge, Credentials, challenge

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 30.0
"""Time for a connection, and time between two bytes."""
SMALL_SECONDS = 60.0
"""Time for a whole manifest or configuration, with all that is asked on the way: a byte now and then is no answer."""
MAX_REDIRECTS = 5
ATTEMPTS = 5
"""Times that one blob is asked for, each going on where the last one broke."""
MAX_RESOLVING = 32
"""Names asked for at once, in threads of their own: a name server that is silent takes none that others need."""
CHUNK = 256 << 10
MAX_TOKEN = 64 << 10

NO_SUCH_REMOTE = ErrorCode(
    "image.not_in_registry", Kind.NOT_FOUND, "{registry} has no image {name} that it gives to {who}",
    hint="check the name; for a private image: --registry-auth USER:PASSWORD",
)
UNREACHABLE = ErrorCode("image.registry_unreachable", Kind.UNAVAILABLE, "the registry {registry} cannot be used: {why}")
FORBIDDEN_PLACE = ErrorCode(
    "image.registry_forbidden", Kind.FORBIDDEN, "the registry {registry} is not one that this platform talks to: {why}",
    hint="the operator lists registries in private places in the setting registries",
)
BROKEN_BLOB = ErrorCode("image.broken_blob", Kind.FAILED, "{registry} sends something else than what it promised")

Seen = Callable[[int], None]
"""Told how many more bytes have arrived."""


_RESOLVING = ThreadPoolExecutor(MAX_RESOLVING, "resolve")


class _Guarded(AbstractResolver):
    """Resolves to public addresses only, unless the host is on the operator's list."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC,
    ) -> list[ResolveResult]:
        """Addresses of `host`; an OSError when any of them is not of the internet."""
        ask = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG,
        )
        infos = await asyncio.get_running_loop().run_in_executor(_RESOLVING, ask)
        found = [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            ) for kind, _, proto, _, address in infos
        ]
        if not _trusts(self._trusted, host, port) and any(not public(one["host"]) for one in found):
            raise OSError(f"{host} is at a private address")
        return found

    async def close(self) -> None:
        """Nothing is held."""


def public(address: str) -> bool:
    """An address of the internet, also behind the ways IPv6 has of wrapping IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


def _trusts(trusted: frozenset[str], host: str, port: int) -> bool:
    return host in trusted or f"{host}:{port}" in trusted


@dataclass(frozen=True)
class Registries:
    """How this platform reaches registries.

    `trusted` are those (HOST or HOST:PORT) that may lie at private addresses; of them the ones on loopback, and
    those in `plain`, are spoken to without TLS.
    """

    trusted: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, listed: Sequence[str]) -> Registries:
        """From the operator's words: HOST[:PORT], with `http://` in front of those without TLS."""
        plain = frozenset(word.removeprefix("http://") for word in listed if word.startswith("http://"))
        return cls(trusted=plain | frozenset(word for word in listed if not word.startswith("http://")), plain=plain)

    @asynccontextmanager
    async def open(self, reference: Reference, given: Credentials | None = None) -> AsyncIterator[Registry]:
        """One registry for one pull."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        connector = aiohttp.TCPConnector(
            resolver=_Guarded(self.trusted), limit=4, ssl=self.tls if self.tls is not None else True,
        )
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ussycode"}, trust_env=False,
        ) as session:
            yield Registry(self, reference, session, given)

    def speaks_plainly(self, host: str, port: int | None) -> bool:
        """Whether http is allowed with that host."""
        name = f"{host}:{port}" if port else host
        loopback = host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
        return {name, host} & self.plain != set() or (loopback and {name, host} & self.trusted != set())

    def require(self, url: str) -> None:
        """Raise FORBIDDEN_PLACE for an address that may not be asked."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme != "https" and not (parts.scheme == "http" and self.speaks_plainly(host, port)):
            raise FORBIDDEN_PLACE(registry=parts.netloc, why="it does not speak https")
        number = port or (443 if parts.scheme == "https" else 80)
        if _is_address(host) and not public(host) and not _trusts(self.trusted, host, number):
            raise FORBIDDEN_PLACE(registry=parts.netloc, why="it is at a private address")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass
class Registry:
    """A registry during one pull: what it told us to authenticate with lives only here."""

    rules: Registries
    reference: Reference
    session: aiohttp.ClientSession
    given: Credentials | None
    _authorization: str = field(default="", repr=False)

    @property
    def _base(self) -> str:
        host, _, port = self.reference.host.partition(":")
        scheme = "http" if self.rules.speaks_plainly(host, int(port) if port else None) else "https"
        return f"{scheme}://{self.reference.host}/v2/{self.reference.repository}/"

    async def manifest(self) -> Manifest:
        """The image for this machine. Raises NO_SUCH_REMOTE, UNREACHABLE, FORBIDDEN_PLACE, BAD_IMAGE, BROKEN_BLOB."""
        name, asked = str(self.reference), self.reference.wanted
        for _ in range(2):
            data = await self._small(f"manifests/{asked}", ACCEPT)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if DIGEST.fullmatch(asked) and digest != asked:
                raise BROKEN_BLOB(registry=self.reference.registry)
            found = read_manifest(name, digest, data)
            if isinstance(found, Manifest):
                return found
            asked = found
        raise BAD_IMAGE(name=name, why="its index leads to another index")

    async def config(self, blob: Descriptor) -> bytes:
        """The configuration, checked."""
        data = await self._small(f"blobs/{blob.digest}", "*/*")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
            raise BROKEN_BLOB(registry=self.reference.registry)
        return data

    async def download(self, blob: Descriptor, to: Path, seen: Seen) -> None:
        """Write a blob to the new file `to`, going on after broken connections. Raises as `manifest` does."""
        hasher = hashlib.sha256()
        with to.open("xb") as file:
            for attempt in range(ATTEMPTS):
                try:
                    await self._append(blob, file, hasher, seen)
                    break
                except (aiohttp.ClientError, TimeoutError, OSError) as wrong:
                    if attempt == ATTEMPTS - 1:
                        raise self._unreachable(wrong) from None
                    await asyncio.sleep(0.2 * 2**attempt)
        if f"sha256:{hasher.hexdigest()}" != blob.digest:
            raise BROKEN_BLOB(registry=self.reference.registry)

    async def _append(self, blob: Descriptor, file: Any, hasher: Any, seen: Seen) -> None:
        """Fetch what is missing of a blob; a server that ignores the range is read over from its beginning."""
        have = file.tell()
        if have == blob.size:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with self._asked(f"blobs/{blob.digest}", headers) as response:
            skip = have if response.status == 200 else 0
            async for chunk in response.content.iter_chunked(CHUNK):
                new, skip = chunk[skip:], max(0, skip - len(chunk))
                if file.tell() + len(new) > blob.size:
                    raise BROKEN_BLOB(registry=self.reference.registry)
                hasher.update(new)
                file.write(new)
                seen(len(new))
        if file.tell() < blob.size:
            raise aiohttp.ClientPayloadError("the connection ended early")

    async def _small(self, path: str, accept: str) -> bytes:
        try:
            async with asyncio.timeout(SMALL_SECONDS), self._asked(path, {"Accept": accept}) as response:
                return await self._bounded(response, MAX_MANIFEST)
        except (aiohttp.ClientError, TimeoutError, OSError) as wrong:
            raise self._unreachable(wrong) from None

    async def _bounded(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        data = b""
        async for chunk in response.content.iter_chunked(CHUNK):
            data += chunk
            if len(data) > most:
                raise BROKEN_BLOB(registry=self.reference.registry)
        return data

    @asynccontextmanager
    async def _asked(self, path: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer; authenticates once when the registry asks for it."""
        url = self._base + path
        async with self._followed(url, headers) as response:
            if response.status != 401:
                yield self._good(response)
                return
            asked = challenge(response.headers.get("WWW-Authenticate", ""))
        self._authorization = await self._authenticate(asked)
        async with self._followed(url, headers) as response:
            yield self._good(response)

    @asynccontextmanager
    async def _followed(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer behind redirects; what authenticates us goes to the registry itself and nowhere else."""
        home = _origin(url)
        for _ in range(MAX_REDIRECTS):
            self.rules.require(url)
            own = {"Authorization": self._authorization} if self._authorization and _origin(url) == home else {}
            async with self.session.get(url, headers={**headers, **own}, allow_redirects=False) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    yield response
                    return
                url = urljoin(url, response.headers.get("Location", ""))
        raise UNREACHABLE(registry=self.reference.registry, why="it redirects without end")

    def _good(self, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
        if response.status in (401, 403, 404):
            who = "this account" if self.given else "everybody"
            raise NO_SUCH_REMOTE(registry=self.reference.registry, name=self.reference.repository, who=who)
        if response.status == 429:
            raise UNREACHABLE(registry=self.reference.registry, why="it asks us to come back later")
        if response.status >= 500:
            raise aiohttp.ClientPayloadError(f"it answers {response.status}")
        if response.status not in (200, 206):
            raise UNREACHABLE(registry=self.reference.registry, why=f"it answers {response.status}")
        return response

    async def _authenticate(self, asked: Challenge) -> str:
        if asked.scheme == "basic" and self.given is not None:
            return self.given.basic()
        url = asked.token_url(self.reference.repository)
        if not url:
            raise NO_SUCH_REMOTE(registry=self.reference.registry, name=self.reference.repository, who="everybody")
        self.rules.require(url)
        headers = {"Authorization": self.given.basic()} if self.given else {}
        async with self.session.get(url, headers=headers, allow_redirects=False) as response:
            data = await self._bounded(self._good(response), MAX_TOKEN)
        return "Bearer " + _token(self.reference, data)

    def _unreachable(self, wrong: BaseException) -> Exception:
        why = "it takes too long to answer" if isinstance(wrong, TimeoutError) else _why(wrong)
        return UNREACHABLE(registry=self.reference.registry, why=why)


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


def _token(reference: Reference, data: bytes) -> str:
    try:
        found = msgspec.json.decode(data, type=_Token)
    except UNREADABLE:
        raise UNREACHABLE(registry=reference.registry, why="it gives no token") from None
    token = found.token or found.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise UNREACHABLE(registry=reference.registry, why="it gives no token")
    return token


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _why(wrong: BaseException) -> str:
    """One short line without control characters: part of it may have come from the other side."""
    text = str(wrong) or type(wrong).__name__
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]
