"""Settings: one table, three spellings (option, USSYCODE_*, a TOML line), all problems reported at once."""
from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.secrets import Secret

BAD_CONFIG = ErrorCode(
    "config.bad", Kind.USAGE, "the settings cannot be used: {problems}",
    hint="every setting is listed in docs/reference/settings.md",
)


@dataclass(frozen=True)
class Setting:
    """One setting. `parse` turns its text into the value and raises ValueError with a sentence."""

    name: str
    parse: Callable[[str], Any]
    default: str
    help: str

    @property
    def env(self) -> str:
        """`USSYCODE_DATA_DIR`."""
        return "USSYCODE_" + self.name.upper()

    @property
    def option(self) -> str:
        """`--data-dir`."""
        return "--" + self.name.replace("_", "-")


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _domain(text: str) -> str:
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if not re.fullmatch(rf"{label}(\.{label})*", text) or len(text) > 190:
        raise ValueError("a domain is lower-case labels joined by dots")
    return text


def _path(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("write an absolute path")
    return Path(text)


def _maybe_path(text: str) -> Path | None:
    return _path(text) if text else None


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError("say " + " or ".join(words))
        return text

    return parse


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_address(part.strip())) for part in text.split(",") if part.strip())


def _name_servers(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for one in found:
        address, mark, port = one.partition("#")
        ipaddress.ip_address(address)
        if mark:
            _port(port)
    return found


def _networks(text: str) -> tuple[str, ...]:
    return tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(",") if part.strip())


def _registries(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if any(not re.fullmatch(r"(http://)?[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?", part) for part in found):
        raise ValueError("write HOST or HOST:PORT, with http:// in front of those without TLS")
    return found


def _url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise ValueError("write a http:// or https:// address")
    return text


def _alternate(text: str) -> range | None:
    if not text:
        return None
    first, dash, last = text.partition("-")
    ends = (first, last if dash else first)
    if not all(end.isdigit() and 3000 <= int(end) <= 9999 for end in ends) or int(ends[0]) > int(ends[1]):
        raise ValueError("write FIRST-LAST, from 3000 to 9999")
    return range(int(ends[0]), int(ends[1]) + 1)


def _word(text: str) -> str:
    if text and not re.fullmatch(r"[!-~]{1,254}", text):
        raise ValueError("write it without spaces")
    return text


def _group(text: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", text):
        raise ValueError("a group is lower-case letters, digits, - and _")
    return text


def _bool(text: str) -> bool:
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("say true or false")
    return text in ("true", "1", "yes")


@dataclass(frozen=True)
class Config:
    """Every setting, read once at the start and never changed."""

    data_dir: Path
    domain: str
    listen: tuple[str, ...]
    ssh_port: int
    https_port: int
    http_port: int
    metrics_port: int
    runtime: str
    accel: str
    containers: bool
    registration: str
    default_image: str
    edge_processes: int
    edge_retire: int
    boot_timeout: int
    template_mib: int
    spares: int
    exec_rate: int
    tls_cert: Path | None
    tls_key: Path | None
    alternate_ports: range | None
    limit_requests: int
    limit_connections: int
    limit_handshakes: int
    limit_account: int
    limit_exempt: tuple[str, ...]
    front: str
    front_group: str
    acme_directory: str
    acme_email: str
    acme_root: Path | None
    admin_keys: Path | None
    registries: tuple[str, ...]
    otlp_endpoint: str
    log_json: bool
    smtp_host: str
    smtp_port: int
    smtp_security: str
    smtp_user: str
    smtp_password: Secret
    mail_from: str
    mail_port: int
    net_mbit: int
    net_packets: int
    net_connections: int
    net_tracked: int
    net_integrations: tuple[str, ...]
    net_ipv6: bool
    dns_resolver: tuple[str, ...]
    public_addresses: tuple[str, ...]
    dns_port: int

    @property
    def alternate_listeners(self) -> list[int]:
        """Ports of `alternate_ports` that the platform does not need for itself, ascending."""
        return [port for port in self.alternate_ports or () if self.listens_at(port)]

    def listens_at(self, port: int) -> bool:
        """Whether `port` is an alternate one."""
        own = (self.ssh_port, self.https_port, self.http_port, self.metrics_port, self.dns_port, self.mail_port)
        return self.alternate_ports is not None and port in self.alternate_ports and port not in own

    @property
    def on_loopback(self) -> bool:
        """The domain that only this machine can reach."""
        return self.domain == "localhost" or self.domain.endswith(".localhost")

    def host_url(self, host: str) -> str:
        """`https://HOST/`, with the port when it is not 443; `host` may name an alternate port itself."""
        port = "" if self.https_port == 443 or ":" in host else f":{self.https_port}"
        return f"https://{host}{port}/"

    @property
    def sender(self) -> str:
        """Address that the platform's mails come from."""
        return self.mail_from or f"ussycode@{self.domain}"

    def texts(self) -> dict[str, str]:
        """Every setting as text; `load` reads it back."""
        return {s.name: _text_of(getattr(self, s.name)) for s in SETTINGS}

    def vm_host(self, name: str) -> str:
        """Host name of a VM."""
        return f"{name}.{self.domain}"

    @property
    def delegation_zone(self) -> str:
        """Zone below the domain whose names hold what certificate authorities ask for."""
        return f"acme.{self.domain}"

    def ssh_command(self, user: str = "") -> str:
        """`ssh -p 2222 demo@localhost`, without `-p` when the port is 22."""
        port = "" if self.ssh_port == 22 else f"-p {self.ssh_port} "
        return f"ssh {port}{user}@{self.domain}" if user else f"ssh {port}{self.domain}"


SETTINGS: tuple[Setting, ...] = (
    Setting("data_dir", _path, "/var/lib/ussycode", "where disks, images, keys and the database live"),
    Setting("domain", _domain, "localhost", "VMs are NAME.DOMAIN; the lobby and the API are DOMAIN"),
    Setting("listen", _addresses, "", "addresses to listen on; empty: loopback for localhost, else all"),
    Setting("ssh_port", _port, "2222", "port of the SSH door"),
    Setting("https_port", _port, "8443", "port of the HTTPS edge"),
    Setting("http_port", _port, "8080", "port that redirects to HTTPS"),
    Setting("metrics_port", _port, "9464", "operator port on 127.0.0.1 with /metrics"),
    Setting("runtime", _one_of("qemu", "fake"), "qemu", "what runs VMs; fake runs none, for development"),
    Setting("accel", _one_of("auto", "kvm", "tcg"), "auto", "auto probes KVM by a bounded boot"),
    Setting("containers", _bool, "false", "allow new --isolation container: quicker, with a weaker wall than a VM"),
    Setting("registration", _one_of("auto", "open", "invite", "closed"), "auto",
            "who may register; auto: open on loopback, elsewhere who was invited by e-mail"),
    Setting("default_image", str, "ussyuntu", "image of `new` without --image"),
    Setting("edge_processes", _count(1, 64), "1", "HTTPS edge processes, one per core at most"),
    Setting("edge_retire", _count(0, 86_400), "600",
            "seconds that open WebSockets and streams of a replaced edge process go on"),
    Setting("boot_timeout", _count(5, 600), "90", "seconds a VM may take to answer"),
    Setting("template_mib", _count(0, 1_048_576), "1024", "MiB of memory for templates, from which `new` copies a "
            "VM that has booted already; 0: every VM boots"),
    Setting("spares", _count(0, 64), "2", "VMs of the usual image and size that stand by for `new`, as long as the "
            "host has 1 GiB of memory free; they need templates. 0: none"),
    Setting("exec_rate", _count(1, 1_000_000), "6000", "POST /exec calls a minute for one key"),
    Setting("tls_cert", _maybe_path, "", "PEM chain to serve instead of the local CA's"),
    Setting("tls_key", _maybe_path, "", "PEM key of tls_cert"),
    Setting("alternate_ports", _alternate, "",
            "ports that listen too, each for the same port of every VM, such as 3000-9999; empty: none"),
    Setting("limit_requests", _count(0, 1_000_000), "200",
            "requests per second of one address to one edge process, five times that at once; 0: no limit"),
    Setting("limit_connections", _count(0, 1_000_000), "256", "connections of one address at once; 0: no limit"),
    Setting("limit_handshakes", _count(0, 1_000_000), "50", "new connections per second of one address; 0: no limit"),
    Setting("limit_account", _count(0, 1_000_000), "200",
            "requests per second to VMs in the name of one account; 0: no limit"),
    Setting("limit_exempt", _networks, "127.0.0.0/8,::1/128", "networks without limits by address; comma-separated"),
    Setting("front", _one_of("none", "caddy", "own"), "none",
            "what ends TLS: none, the edge itself; caddy, run by the platform; own, yours (see `ussycode front`)"),
    Setting("front_group", _group, "haproxy", "group of your own front: its processes are believed about addresses"),
    Setting("acme_directory", _url, "", "ACME server of the caddy in front; empty: Let's Encrypt"),
    Setting("acme_email", _word, "", "address that the ACME server may write to; empty: none"),
    Setting("acme_root", _maybe_path, "", "PEM certificate to trust an ACME server of your own by"),
    Setting("admin_keys", _maybe_path, "", "file of SSH public keys that register as admin; empty: the operator's own"),
    Setting("registries", _registries, "",
            "registries at private addresses that images may come from; http:// in front: without TLS"),
    Setting("otlp_endpoint", _url, "", "OTLP/HTTP collector for spans; empty: none"),
    Setting("log_json", _bool, "true", "log lines as JSON"),
    Setting("smtp_host", str, "", "relay for the platform's own mail; empty: mails are kept for `ussycode outbox`"),
    Setting("smtp_port", _port, "587", "port of the relay"),
    Setting("smtp_security", _one_of("starttls", "tls", "none"), "starttls", "how the relay is spoken to"),
    Setting("smtp_user", str, "", "account at the relay; empty: none"),
    Setting("smtp_password", Secret, "", "password of that account"),
    Setting("mail_from", str, "", "address that mails come from; empty: ussycode@DOMAIN"),
    Setting("mail_port", _count(0, 65535), "2525", "port that takes mail for VMs; 0: none"),
    Setting("net_mbit", _count(1, 1_000_000), "1000", "megabits per second of one VM to the internet, and back"),
    Setting("net_packets", _count(100, 10_000_000), "50000", "frames per second that one VM may send"),
    Setting("net_connections", _count(1, 1_000_000), "200", "new connections per second of one VM"),
    Setting("net_tracked", _count(16, 1_000_000), "2048", "connections of one VM at once"),
    Setting("net_integrations", _networks, "", "networks that every VM may reach, also private ones and with "
            "egress integrations; comma-separated"),
    Setting("net_ipv6", _bool, "true", "give VMs IPv6 when this host has it"),
    Setting("dns_resolver", _name_servers, "", 
            "DNS servers that are asked about VMs' domains, ADDRESS or ADDRESS#PORT; empty: those of this host"),
    Setting("public_addresses", _addresses, "",
            "addresses that a VM's domain may have instead of leading here by name; empty: those that DOMAIN has"),
    Setting("dns_port", _count(0, 65535), "0", "port of the name server for acme.DOMAIN, with which certificates for "
            "wildcards are ordered from the ACME server; 0: none"),
)
assert [s.name for s in SETTINGS] == [f.name for f in fields(Config)]


def load(options: Mapping[str, str], environ: Mapping[str, str], file: Path | None = None) -> Config:
    """The settings from options over environment over TOML file over defaults.

    Raises BAD_CONFIG naming every unknown setting and every bad value at once.
    """
    problems: list[str] = []
    texts = {s.name: s.default for s in SETTINGS}
    texts |= _from_file(file, problems)
    texts |= _from_environ(environ, problems)
    texts |= options
    values = {s.name: _value(s, texts[s.name], problems) for s in SETTINGS}
    problems += _together(values) if not problems else []
    if problems:
        raise BAD_CONFIG(problems="; ".join(problems))
    local = values["domain"] == "localhost" or values["domain"].endswith(".localhost")
    if not values["listen"]:
        values["listen"] = ("127.0.0.1", "::1") if local else ("0.0.0.0", "::")  # noqa: S104
    if values["registration"] == "auto":
        # A public name on loopback stands behind a proxy: that is not only this machine.
        alone = local and all(ipaddress.ip_address(a).is_loopback for a in values["listen"])
        values["registration"] = "open" if alone else "invite"
    return Config(**values)


def _from_file(file: Path | None, problems: list[str]) -> dict[str, str]:
    if file is None:
        return {}
    try:
        table = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as why:
        problems.append(f"{file}: {why}")
        return {}
    known = {s.name for s in SETTINGS}
    problems += [f"{file}: no setting is called {name}" for name in table if name not in known]
    return {name: _text_of(value) for name, value in table.items() if name in known}


def _text_of(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, range):
        return f"{value[0]}-{value[-1]}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    known = {s.env: s.name for s in SETTINGS}
    ours = {name: text for name, text in environ.items() if name.startswith("USSYCODE_") and name != "USSYCODE_CONFIG"}
    problems += [f"no setting is called {name}" for name in ours if name not in known]
    return {known[name]: text for name, text in ours.items() if name in known}


def _value(setting: Setting, text: str, problems: list[str]) -> Any:
    try:
        return setting.parse(text)
    except ValueError as why:
        problems.append(f"{setting.name} = {text!r}: {why}")
        return None


def _together(values: Mapping[str, Any]) -> list[str]:
    ports = [values[f"{n}_port"] for n in ("ssh", "https", "http", "metrics")]
    ports += [port for port in (values["dns_port"], values["mail_port"]) if port]
    doubled = {p for p in ports if ports.count(p) > 1}
    problems = [f"port {p} is given to two listeners" for p in sorted(doubled)]
    if (values["tls_cert"] is None) != (values["tls_key"] is None):
        problems.append("tls_cert and tls_key belong together")
    if values["alternate_ports"] is not None and values["front"] == "caddy":
        problems.append("alternate_ports do not exist behind front = caddy: PORT--NAME addresses do")
    return problems
