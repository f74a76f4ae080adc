"""What commands answer about a real VM fits the committed schemas, member by member."""
from __future__ import annotations

import json

import pytest

from tests.live.rig import Platform
from tests.schemas import check
from ussycode.catalog import TREE
from ussycode.cmdline.lex import split

pytestmark = pytest.mark.timeout(400)
LINES = (
    "new --name shaped --env A=1 --tag prod --comment 'a real one'", "ls", "ls -l shaped", "why shaped", "stat shaped",
    "comment shaped other", "tag shaped web", "share show shaped", "share port shaped", "share port shaped 3000",
    "share set-public shaped", "share set-private shaped", "snapshot create shaped first", "snapshot ls shaped",
    "resize shaped --disk 6G --memory 640M", "snapshot restore shaped first", "snapshot rm shaped first",
    "restart shaped", "cp shaped twin", "rename twin other", "stop other", "start other", "wake shaped on",
    "egress shaped integrations", "rm other nothere", "trash ls", "trash restore other", "rm other", "trash empty",
    "rm --now shaped", "whoami", "quota", "doctor", "image ls", "known-hosts", "ssh-config", "browser",
)


def test_each_answer_about_a_real_vm_fits_its_schema(lived: Platform) -> None:
    for line in LINES:
        done = lived.lobby(f"{line} --json", seconds=120)
        assert done.status == (1 if "nothere" in line else 0), (line, done.out, done.err)
        check(TREE.find(split(line))[0].name, json.loads(done.out))


def test_a_real_failure_fits_the_schema_of_failures(lived: Platform) -> None:
    done = lived.lobby("restart nothere --json")
    check("error", json.loads(done.out))
    assert done.status == 1
