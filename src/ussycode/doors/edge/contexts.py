"""Server contexts of TLS from certificates in files or in memory."""
from __future__ import annotations

import os
import ssl


def context_of(chain: bytes, key: bytes) -> ssl.SSLContext:
    """A server context from PEM, through a file in memory: `ssl` takes certificates from files only."""
    fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, key + chain)
        return with_files(f"/proc/self/fd/{fd}", None)
    finally:
        os.close(fd)


def with_files(chain: str, key: str | None) -> ssl.SSLContext:
    """A server context from a PEM chain and its key; without `key` the chain's file holds both."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(chain, key)
    return context
