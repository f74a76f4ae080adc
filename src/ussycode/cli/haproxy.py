"""HAProxy in front: HTTP/1.1 and 2 with the operator's certificates; every request goes to the edge over one socket."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ussycode.config import Config

CERTIFICATES = "/etc/haproxy/certs/"
"""Where the generated configuration looks for PEM files, each a chain with its key, unless told otherwise."""
GLOBAL = """global
	# No chroot: the edge's socket is opened after it would take effect.
	user haproxy
	group {group}
	log /dev/log local0
	maxconn 8192
	hard-stop-after 1h
	ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
	# Room for a whole head of 32 KiB, as the edge takes it.
	tune.bufsize 34816
	tune.http.maxhdr 128
"""
DEFAULTS = """defaults
	mode http
	log global
	option dontlognull
	# The edge writes the access log; HAProxy tells of what never reached it.
	option dontlog-normal
	# The first byte of an event stream at once: without this it waits 200 ms.
	option http-no-delay
	http-reuse always
	timeout http-request 10s
	timeout http-keep-alive 75s
	timeout connect 5s
	timeout client 330s
	timeout server 660s
	timeout tunnel 7d
	timeout client-fin 30s
"""
FRONTEND = """frontend {name}
{binds}{limits}	# Set, not added: what a client sent under these names is gone.
	http-request set-header X-Forwarded-For %[src]
	http-request set-header X-Forwarded-Proto {scheme}
	http-request set-header X-Forwarded-Port {port}
	default_backend edge
"""
EXEMPT = "	acl exempt src {networks}\n"
LIMITS = """	# Counted for one address in all frontends. The edge counts requests itself.
	tcp-request connection track-sc0 src,ipmask(32,64) table addresses
"""
TOO_MANY = (
    "\thttp-request return status 429 content-type text/plain string \"too many connections\" hdr Retry-After 5"
    " if {{ {count}(0) gt {limit} }}{unless}\n"
)
ADDRESSES = """backend addresses
	stick-table type ipv6 size 100k expire 60s store conn_cur,conn_rate(10s)
"""
BACKEND = """backend edge
	server edge unix@{edge} pool-purge-delay 30s
"""


def configuration(config: Config, edge: Path, certificates: str = CERTIFICATES) -> str:
    """The whole of haproxy.cfg. It names no VM and never changes while the settings do not."""
    tls = f" ssl crt {certificates} alpn h2,http/1.1"
    own, plain = _binds(config, [str(config.https_port)], tls), _binds(config, [str(config.http_port)], "")
    limits = _limits(config)
    parts = [
        GLOBAL.format(group=config.front_group), DEFAULTS,
        FRONTEND.format(name="https", binds=own, limits=limits, scheme="https", port=config.https_port),
        FRONTEND.format(name="http", binds=plain, limits=limits, scheme="http", port=config.https_port),
    ]
    if config.alternate_ports is not None:
        # The port that was connected to is the VM's; the edge refuses a request whose Host names another.
        others = _binds(config, _ranges(config.alternate_listeners), tls)
        parts.append(FRONTEND.format(name="alternate", binds=others, limits=limits, scheme="https", port="%[dst_port]"))
    parts += [ADDRESSES] if limits else []
    return "\n".join([*parts, BACKEND.format(edge=edge)]).replace("\t", "    ")


def _limits(config: Config) -> str:
    """How many connections one address may have, and make in ten seconds: HAProxy answers what is more itself."""
    wanted = {"sc_conn_cur": config.limit_connections, "sc_conn_rate": 10 * config.limit_handshakes}
    if not any(wanted.values()):
        return ""
    exempt = EXEMPT.format(networks=" ".join(config.limit_exempt)) if config.limit_exempt else ""
    unless = " !exempt" if exempt else ""
    return LIMITS + exempt + "".join(
        TOO_MANY.format(count=count, limit=limit, unless=unless) for count, limit in wanted.items() if limit
    )


def _binds(config: Config, ports: Sequence[str], rest: str) -> str:
    return "".join(
        f"\tbind {_address(a)}:{port}{' v6only' if ':' in a else ''}{rest}\n" for a in config.listen for port in ports
    )


def _ranges(ports: Sequence[int]) -> list[str]:
    """Ascending numbers as `FIRST-LAST` words."""
    words: list[list[int]] = []
    for port in ports:
        if words and words[-1][1] == port - 1:
            words[-1][1] = port
        else:
            words.append([port, port])
    return [f"{first}-{last}" for first, last in words]


def _address(address: str) -> str:
    return f"[{address}]" if ":" in address else address
