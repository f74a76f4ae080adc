"""HAProxy in front: HTTP/1.1 and 2 with the operator's certificates; every request goes to the edge over one socket."""
from __future__ import annotations

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
{binds}	# Set, not added: what a client sent under these names is gone.
	http-request set-header X-Forwarded-For %[src]
	http-request set-header X-Forwarded-Proto {scheme}
	default_backend edge
"""
BACKEND = """backend edge
	server edge unix@{edge} pool-purge-delay 30s
"""


def configuration(config: Config, edge: Path, certificates: str = CERTIFICATES) -> str:
    """The whole of haproxy.cfg. It names no VM and never changes while the settings do not."""
    secure = _binds(config, config.https_port, f" ssl crt {certificates} alpn h2,http/1.1")
    parts = [
        GLOBAL.format(group=config.front_group), DEFAULTS,
        FRONTEND.format(name="https", binds=secure, scheme="https"),
        FRONTEND.format(name="http", binds=_binds(config, config.http_port, ""), scheme="http"),
        BACKEND.format(edge=edge),
    ]
    return "\n".join(parts).replace("\t", "    ")


def _binds(config: Config, port: int, rest: str) -> str:
    return "".join(f"\tbind {_address(a)}:{port}{' v6only' if ':' in a else ''}{rest}\n" for a in config.listen)


def _address(address: str) -> str:
    return f"[{address}]" if ":" in address else address
