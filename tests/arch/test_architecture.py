"""If these failed, the layout would have started to rot: dead modules, bypasses, prints."""
from __future__ import annotations

import re
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))



def test_every_module_is_reachable_from_the_program() -> None:
    graph = grimp.build_graph("ussycode", cache_dir=None)
    reached = {"ussycode", "ussycode.__main__", *graph.find_upstream_modules("ussycode.__main__")}
    # Verbs are imported by name when they run, so that one verb does not pay for another.
    for verb in re.findall(r'"(ussycode\.cli\.\w+):', (ROOT / "src/ussycode/cli/main.py").read_text()):
        reached |= {verb, *graph.find_upstream_modules(verb)}
    reached |= {"ussycode.cli.roles", *graph.find_upstream_modules("ussycode.cli.roles")}
    dead = {m for m in graph.modules if m not in reached}
    packages = {m for m in dead if any(r.startswith(m + ".") for r in reached)}
    assert dead - packages == set()


def test_nothing_prints_but_the_operators_verbs() -> None:
    said = [p for p in SOURCES if re.search(r"^\s*print\(", p.read_text(), re.M) and "cli" not in p.parts]
    assert said == []


def test_only_the_clock_reads_the_clock() -> None:
    asks = re.compile(r"\btime\.time\(|datetime\.now\(|utcnow\(")
    readers = [p.relative_to(ROOT) for p in SOURCES if asks.search(p.read_text()) and p.name != "clock.py"]
    assert readers == []


def test_no_file_names_a_registry_or_this_workplace() -> None:
    suspicious = re.compile(r"https?://[\w.-]*(pypi|pythonhosted|npmjs|deb\.debian|snapshot\.debian)[\w.-]*")
    tracked = [p for folder in ("src", "docs", "guest", "images", "scripts", "bench", "requirements") for p in
               (ROOT / folder).rglob("*") if p.is_file() and p.suffix not in (".pyc", ".raw")]
    assert [p for p in tracked if suspicious.search(p.read_text(errors="replace"))] == []
