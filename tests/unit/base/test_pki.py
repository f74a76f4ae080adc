"""The local CA: who it can speak for, and for how long."""
from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ussycode.base.clock import ManualClock
from ussycode.base.errors import Failure
from ussycode.base.pki import Authority, Issuer, Leaf, open_authority

NOW = 1_800_000_000.0


def verify(root: bytes, leaf: Leaf, name: str, at: float = NOW) -> None:
    """Raises VerificationError unless a client that trusts `root` accepts `leaf` for `name`."""
    own, *others = x509.load_pem_x509_certificates(leaf.chain)
    builder = PolicyBuilder().store(Store(x509.load_pem_x509_certificates(root)))
    verifier = builder.time(dt.datetime.fromtimestamp(at, dt.UTC)).build_server_verifier(x509.DNSName(name))
    verifier.verify(own, others)


def test_clients_accept_exact_names_under_the_domain() -> None:
    authority = Authority.make(ManualClock(NOW))
    issuer = Issuer(authority.intermediate("ussy.test"), ManualClock(NOW))
    for name in ("ussy.test", "demo.ussy.test", "3000--demo.ussy.test", f"{'a' * 53}.ussy.test"):
        verify(authority.root_pem, issuer.leaf(name), name)


def test_a_stolen_intermediate_cannot_speak_for_other_names() -> None:
    authority = Authority.make(ManualClock(NOW))
    thief = Issuer(authority.intermediate("ussy.test"), ManualClock(NOW))
    with pytest.raises(VerificationError):
        verify(authority.root_pem, thief.leaf("bank.example"), "bank.example")


def test_leaves_live_thirty_days_and_bear_a_slow_clock() -> None:
    issuer = Issuer(Authority.make(ManualClock(NOW)).intermediate("ussy.test"), ManualClock(NOW))
    leaf = issuer.leaf("demo.ussy.test")
    certificate = x509.load_pem_x509_certificates(leaf.chain)[0]
    assert certificate.not_valid_before_utc.timestamp() == NOW - 300
    assert leaf.expires == certificate.not_valid_after_utc.timestamp() == NOW + 30 * 86400


def test_no_leaf_outlives_its_intermediate() -> None:
    clock = ManualClock(NOW)
    intermediate = Authority.make(clock).intermediate("ussy.test")
    clock.advance(360 * 86400)
    assert Issuer(intermediate, clock).leaf("demo.ussy.test").expires == NOW + 365 * 86400


def test_the_authority_is_kept(tmp_path: Path) -> None:
    first = open_authority(tmp_path / "ca", ManualClock(NOW))
    again = open_authority(tmp_path / "ca", ManualClock(NOW))
    assert first.root_pem == again.root_pem and first.key_pem() == again.key_pem()
    assert stat.S_IMODE((tmp_path / "ca" / "root.key").stat().st_mode) == 0o600


def test_half_an_authority_is_never_replaced_in_silence(tmp_path: Path) -> None:
    open_authority(tmp_path, ManualClock(NOW))
    (tmp_path / "root.key").unlink()
    with pytest.raises(Failure, match="cannot be read"):
        open_authority(tmp_path, ManualClock(NOW))


def test_foreign_halves_are_noticed(tmp_path: Path) -> None:
    open_authority(tmp_path, ManualClock(NOW))
    (tmp_path / "root.pem").write_bytes(Authority.make(ManualClock(NOW)).root_pem)
    with pytest.raises(Failure, match="do not belong together"):
        open_authority(tmp_path, ManualClock(NOW))
