"""If these failed, an operator's typo would be ignored or reported one at a time."""
from __future__ import annotations

from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.config import SETTINGS, load


def test_options_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    file = tmp_path / "u.toml"
    file.write_text('ssh_port = 2001\nhttps_port = 2002\nhttp_port = 2003\nlisten = ["127.0.0.1"]\n')
    config = load({"ssh_port": "3001"}, {"USSYCODE_SSH_PORT": "1", "USSYCODE_HTTPS_PORT": "3002"}, file)
    assert (config.ssh_port, config.https_port, config.http_port) == (3001, 3002, 2003)
    assert config.listen == ("127.0.0.1",)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "u.toml"
    file.write_text('colour = "red"\nssh_port = 0\n')
    with pytest.raises(Failure) as failure:
        load({"domain": "Not A Domain"}, {"USSYCODE_SPEED": "fast", "USSYCODE_HTTPS_PORT": "x"}, file)
    for part in ("colour", "ssh_port", "domain", "USSYCODE_SPEED", "https_port"):
        assert part in failure.value.sentence


def test_two_listeners_on_one_port_are_refused() -> None:
    with pytest.raises(Failure, match="port 2222"):
        load({"https_port": "2222"}, {})


def test_localhost_listens_on_loopback_and_registers_anyone_other_domains_do_neither() -> None:
    local, public = load({}, {}), load({"domain": "vm.example.org"}, {})
    assert local.listen == ("127.0.0.1", "::1") and local.registration == "open"
    assert "0.0.0.0" in public.listen and public.registration == "invite"


def test_settings_survive_being_written_and_read() -> None:
    config = load({"tls_cert": "/a", "tls_key": "/b", "log_json": "false"}, {})
    assert load(config.texts(), {}) == config


def test_every_setting_has_help() -> None:
    assert all(len(s.help) > 10 for s in SETTINGS)


def test_alternate_ports_leave_the_platforms_own_alone() -> None:
    config = load({"alternate_ports": "3000-9999", "ssh_port": "3022"}, {})
    assert len(config.alternate_listeners) == 7000 - 4
    assert not {3022, 8443, 8080, 9464} & set(config.alternate_listeners)
    assert config.host_url("demo.localhost:3456") == "https://demo.localhost:3456/"
    assert load(config.texts(), {}) == config
    assert load({"alternate_ports": "3456"}, {}).alternate_listeners == [3456]


@pytest.mark.parametrize("text", ["2999-4000", "3000-10000", "5000-4000", "3000-", "http", "3000-4000-5000"])
def test_alternate_ports_outside_of_the_range_are_refused(text: str) -> None:
    with pytest.raises(Failure, match="from 3000 to 9999"):
        load({"alternate_ports": text}, {})
