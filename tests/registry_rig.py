"""A real registry for tests: Debian's docker-registry on loopback, images built by the suite, tokens of our own."""
from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import socket
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "robot", "s3cret-word"
HASHED = "$2b$04$Mt2T9SjOObtMPCqjW0cda.VFRmDyysPBUDL1/cw1AHS3JeTNJAUZ2"
"""The password as htpasswd keeps it."""
Files = Mapping[str, bytes | str | tuple[bytes, int]]


def layer(files: Files, symlinks: Mapping[str, str] = {}) -> bytes:
    """A plain tar: bytes of a file, `(bytes, mode)`, or an empty string for a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in files.items():
            info = tarfile.TarInfo(name)
            data, info.mode = what if isinstance(what, tuple) else (what, 0o644)
            if data == "":
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data if isinstance(data, bytes) else b""))
        for name, target in symlinks.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


@dataclass
class RegistryRig:
    """One running registry; `user` is whom it wants to be told, empty when it asks for nobody."""

    port: int
    user: str = ""
    token: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """HOST:PORT of its images."""
        return f"127.0.0.1:{self.port}"

    def push(
        self, name: str, layers: Sequence[bytes], config: Mapping[str, Any], *, tag: str = "latest",
        manifest_type: str = MANIFEST, pack: Any = gzip.compress, index: bool = False,
    ) -> str:
        """Put an image into the registry; its digest."""
        packed = [pack(data) for data in layers]
        about = {"architecture": "amd64", "os": "linux", "config": dict(config), "rootfs": {
            "type": "layers", "diff_ids": [sha(data) for data in layers]}}
        blob = json.dumps(about).encode()
        for data in (blob, *packed):
            self.blob(name, data)
        manifest = {"schemaVersion": 2, "mediaType": manifest_type,
                    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(blob),
                               "size": len(blob)},
                    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha(data),
                                "size": len(data)} for data in packed]}
        data = json.dumps(manifest).encode()
        self.manifest(name, sha(data) if index else tag, data, manifest_type)
        if index:
            entry = {"mediaType": manifest_type, "digest": sha(data), "size": len(data)}
            other = dict(entry, platform={"architecture": "arm64", "os": "linux"})
            ours = dict(entry, platform={"architecture": "amd64", "os": "linux"})
            whole = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, ours]}
            self.manifest(name, tag, json.dumps(whole).encode(), INDEX)
        return sha(data)

    def blob(self, name: str, data: bytes) -> None:
        """Upload one blob."""
        begun = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        where = begun.headers["Location"]
        mark = "&" if "?" in where else "?"
        self._ask("PUT", f"{where}{mark}digest={sha(data)}", data, "application/octet-stream")

    def manifest(self, name: str, reference: str, data: bytes, kind: str) -> None:
        """Upload a manifest."""
        self._ask("PUT", f"/v2/{name}/manifests/{reference}", data, kind)

    def _ask(self, method: str, path: str, data: bytes, kind: str = "") -> Any:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        asked = urllib.request.Request(url, data=data, method=method)
        if kind:
            asked.add_header("Content-Type", kind)
        if self.token:
            asked.add_header("Authorization", f"Bearer {self.token}")
        elif self.user:
            asked.add_header("Authorization", basic(USER, PASSWORD))
        return urllib.request.urlopen(asked, timeout=30)


def sha(data: bytes) -> str:
    """A digest as registries write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def basic(user: str, password: str) -> str:
    """A basic Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def registry(folder: Path, auth: str = "", user: str = "") -> Iterator[RegistryRig]:
    """Run docker-registry in `folder`; `auth` is a YAML block, when it is to ask who comes."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: test}}\n{auth}"
    )
    with (folder / "log").open("wb") as log, subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
    ) as process:
        try:
            _until_it_answers(port, folder / "log")
            yield RegistryRig(port, user)
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_it_answers(port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the registry did not start: {log.read_text()}")


@contextmanager
def basic_registry(folder: Path) -> Iterator[RegistryRig]:
    """A registry that wants a name and a password."""
    folder.mkdir(parents=True)
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    with registry(folder, auth, USER) as rig:
        yield rig


@contextmanager
def token_registry(folder: Path) -> Iterator[RegistryRig]:
    """A registry that sends everyone to a token server: anonymous may pull `public/…`, the robot everything."""
    folder.mkdir(parents=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    tokens = TokenServer(key, certificate)
    thread = threading.Thread(target=tokens.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    auth = (
        f"auth: {{token: {{realm: 'http://127.0.0.1:{tokens.server_port}/token', service: test, issuer: test, "
        f"rootcertbundle: {folder}/ca.pem}}}}\n"
    )
    try:
        with registry(folder, auth, USER) as rig:
            rig.token_port = tokens.server_port  # type: ignore[attr-defined]
            rig.token = tokens.token("*", "pull,push", wildcard=True)
            rig.tokens = tokens  # type: ignore[attr-defined]
            yield rig
    finally:
        tokens.shutdown()
        tokens.server_close()
        thread.join(5)


class TokenServer(http.server.ThreadingHTTPServer):
    """Gives signed tokens as Docker Hub does."""

    def __init__(self, key: rsa.RSAPrivateKey, certificate: x509.Certificate) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.key, self.certificate, self.asked = key, certificate, list[str]()

    def token(self, repository: str, actions: str, wildcard: bool = False) -> str:
        """A token for one repository (or, for the rig's own uploads, for each of those it makes)."""
        now = int(time.time())
        repositories = ["public/app", "private/app"] if wildcard else [repository]
        claims = {
            "iss": "test", "sub": USER, "aud": "test", "exp": now + 600, "nbf": now - 60, "iat": now, "jti": str(now),
            "access": [{"type": "repository", "name": one, "actions": actions.split(",")} for one in repositories],
        }
        chain = base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()
        signed = f"{_part({'typ': 'JWT', 'alg': 'RS256', 'x5c': [chain]})}.{_part(claims)}"
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _part(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        known = self.headers.get("Authorization") == basic(USER, PASSWORD)
        scope = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["scope"][0].split(":")[1]
        allowed = known or scope.startswith("public/")
        body = json.dumps({"token": self.server.token(scope if allowed else "nothing/at-all", "pull")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
