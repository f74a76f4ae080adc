"""A VM that sleeps is started by who visits it while they wait, and not by anybody else; its sizes change."""
from __future__ import annotations

import json
import re
import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from tests.live.rig import Platform, until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def place(lived: Platform) -> Iterator[Platform]:
    assert lived.lobby("new --name sleeper --wake", seconds=120).status == 0
    serve = "echo awake > index.html; (setsid python3 -m http.server 8000 >/dev/null 2>&1 </dev/null &)"
    assert lived.ssh("sleeper@localhost", serve).status == 0
    assert lived.lobby("share", "set-public", "sleeper").status == 0
    until(lambda: "awake" in lived.curl(lived.url("sleeper.localhost")).out, 60, "the page")
    yield lived
    assert lived.lobby("rm sleeper --now", seconds=60).status == 0


def test_a_paused_vm_wakes_by_https_and_the_answer_says_how_long_it_took(place: Platform) -> None:
    before = place.ssh("sleeper@localhost", "cat /proc/sys/kernel/random/boot_id").out
    assert place.lobby("pause sleeper", seconds=60).status == 0
    got = place.curl("-D", "-", place.url("sleeper.localhost"), seconds=60).out
    told = re.search(r"(?i)server-timing: wake;dur=(\d+)", got)
    assert "awake" in got and told is not None and 0 < int(told[1]) < 60_000, got
    assert place.ssh("sleeper@localhost", "cat /proc/sys/kernel/random/boot_id").out == before, "it did not boot"
    assert "wake;dur" not in place.curl("-D", "-", place.url("sleeper.localhost")).out, "nobody waits twice"


def test_paused_or_stopped_it_wakes_by_ssh(place: Platform) -> None:
    for verb in ("pause", "stop"):
        assert place.lobby(verb, "sleeper", seconds=60).status == 0
        assert place.ssh("sleeper@localhost", "echo up", seconds=90).out == "up\n", verb


def test_a_mail_wakes_it_and_lies_in_the_mailbox_of_its_user(place: Platform) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.org", "any@sleeper.localhost", "hello"
    mail.set_content("grüße\n")
    assert sent(place, mail) == 550
    assert place.lobby("share receive-email sleeper on").status == 0
    assert place.lobby("stop sleeper", seconds=60).status == 0
    assert sent(place, mail) == 250
    look = "whoami; cd ~/Maildir/new; stat -c '%U %a' *; head -n 1 *; grep -c grüße *; ls ~/Maildir/tmp | wc -l"
    user, owner, first, found, drafts = place.ssh("sleeper@localhost", look, seconds=90).out.splitlines()
    assert (owner, first, found, drafts) == (f"{user} 600", "Delivered-To: any@sleeper.localhost", "1", "0")
    assert place.lobby("share receive-email sleeper off").status == 0
    assert sent(place, mail) == 550


def sent(place: Platform, mail: EmailMessage) -> int:
    """The code of the reply to a mail, sent over a connection whose certificate counts."""
    trusting = ssl.create_default_context(cafile=str(place.home / "root.pem"))
    with smtplib.SMTP("127.0.0.1", place.ports["mail"], timeout=120) as client:
        client._host = "localhost"  # type: ignore[attr-defined]
        client.starttls(context=trusting)
        try:
            client.send_message(mail, mail_options=["BODY=8BITMIME"])
        except smtplib.SMTPRecipientsRefused as refused:
            (code, _), = refused.recipients.values()
            return int(code)
    return 250


def test_one_that_is_not_to_be_woken_sleeps_on(place: Platform) -> None:
    assert place.lobby("wake sleeper off").status == 0
    assert place.lobby("pause sleeper", seconds=60).status == 0
    assert "paused" in place.ssh("sleeper@localhost", "true").err
    assert "awake" not in place.curl(place.url("sleeper.localhost"), seconds=60).out
    assert place.lobby("wake sleeper on").status == 0
    assert place.lobby("resume sleeper", seconds=60).status == 0


def test_memory_and_cpus_are_what_was_asked_after_a_restart(place: Platform) -> None:
    assert place.lobby("resize sleeper --memory 768M --cpu 2").status == 0
    assert place.lobby("restart sleeper", seconds=90).status == 0
    said = place.ssh("sleeper@localhost", "nproc; awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo").out.split()
    assert said[0] == "2" and int(said[1]) > 640, said


def test_doctor_takes_nothing_that_is_used_for_a_leftover(place: Platform) -> None:
    checks = {check["name"]: check for check in json.loads(place.ussycode("doctor", "--json").out)}
    assert checks["left"]["ok"], checks["left"]
