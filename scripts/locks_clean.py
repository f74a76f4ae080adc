"""Fails when a lock file names a host, lacks a hash, or holds a direct dependency back."""
from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

problems = []
project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for name in ("run", "dev", "fuzz"):
    text = Path(f"requirements/{name}.txt").read_text()
    if re.search(r"https?://", text):
        problems.append(f"requirements/{name}.txt names a host")
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", text, re.M))
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    problems += [f"{e.split()[0]} has no hash" for e in entries if "--hash=sha256:" not in e]
    for wish in project["dependencies"] if name != "fuzz" else ():
        package, floor = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", wish).groups()
        have = pinned.get(re.sub(r"[._]", "-", package.lower())) or pinned.get(package.lower())
        if have is None or tuple(map(int, re.findall(r"\d+", have))) < tuple(map(int, floor.split("."))):
            problems.append(f"requirements/{name}.txt has {package} {have}, wanted {wish}")
print("\n".join(problems) or "lock files: pinned, hashed, no host")
sys.exit(bool(problems))
