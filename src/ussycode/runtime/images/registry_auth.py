"""What a registry asks for before it gives: basic credentials, or a bearer token from the place it names."""
from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

_PARAMETER = re.compile(r'([A-Za-z]+)="([^"]{0,2000})"')
MAX_CHALLENGE = 8000


@dataclass(frozen=True)
class Credentials:
    """Of one registry, for one pull. Never stored, never shown."""

    user: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def credentials(text: str) -> Credentials:
    """USER:PASSWORD. Raises ValueError."""
    user, colon, password = text.partition(":")
    if not colon or not user or not password or not text.isprintable():
        raise ValueError("write USER:PASSWORD")
    return Credentials(user, password)


@dataclass(frozen=True)
class Challenge:
    """The WWW-Authenticate header of a refusal."""

    scheme: str
    parameters: Mapping[str, str]

    def token_url(self, repository: str) -> str:
        """Where a token for pulling `repository` is had; empty when the header names no such place."""
        realm = self.parameters.get("realm", "")
        parts = urlsplit(realm)
        if self.scheme != "bearer" or parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            return ""
        service = self.parameters.get("service", "")
        asked = {"service": service, "scope": f"repository:{repository}:pull"}
        return realm + ("&" if parts.query else "?") + urlencode({k: v for k, v in asked.items() if v})


def challenge(header: str) -> Challenge:
    """A parsed WWW-Authenticate header."""
    scheme, _, rest = header[:MAX_CHALLENGE].partition(" ")
    return Challenge(scheme.lower(), {key.lower(): value for key, value in _PARAMETER.findall(rest)})
