"""Run inside a fresh machine by its login user: one line for every clause of the contract that does not hold."""
import os
import pwd
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

CONTRACT = tomllib.loads(Path("/etc/ussycode/contract.toml").read_text())
SAYS_VERSION = {"go": ["go", "version"]}


def said(*words: str) -> str:
    """What a program says; empty when it cannot be run."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def numbers(text: str) -> tuple[int, ...]:
    """The first version in a text."""
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def problems() -> list[str]:
    """All of them."""
    found = [f"program {name} is missing" for name in CONTRACT["programs"] if shutil.which(name) is None]
    for name in CONTRACT["installed"]:
        if "install ok installed" not in said("dpkg", "-s", name):
            found.append(f"package {name} is not installed")
    for name, least in CONTRACT["versions"].items():
        have = said(*SAYS_VERSION.get(name, [name, "--version"]))
        if numbers(have) < numbers(least):
            found.append(f"{name} is {have[:60]!r}, not {least} or later")
    return [*found, *of_user(CONTRACT["user"]), *of_system(CONTRACT["system"])]


def of_user(user: dict[str, object]) -> list[str]:
    me, groups = pwd.getpwuid(os.getuid()), said("id", "-Gn").split()
    checks = {
        "name and uid": (me.pw_name, me.pw_uid) == (user["name"], user["uid"]),
        "shell": me.pw_shell == user["shell"],
        "groups": set(user["groups"]) <= set(groups),
        "sudo without a password": said("sudo", "-n", "id", "-u") == "0",
        "lingering": "Linger=yes" in said("loginctl", "show-user", me.pw_name, "-p", "Linger"),
        "services of its own": said("systemctl", "--user", "is-system-running") == "running",
        "a home of its own": Path.home().stat().st_uid == me.pw_uid,
    }
    return [f"the user: {what}" for what, holds in checks.items() if not holds]


def of_system(system: dict[str, object]) -> list[str]:
    ready, done = (int(said("systemctl", "show", unit, "-p", "ActiveEnterTimestampMonotonic", "--value") or 0)
                   for unit in ("ssh.socket", system["target"]))
    failed = said("systemctl", "--failed", "--plain", "--no-legend").splitlines()
    journals = said("sudo", "journalctl", "--header")
    checks = {
        "state": said("systemctl", "is-system-running") == system["state"],
        f"failed units {failed}": len(failed) == system["failed_units"],
        "target": said("systemctl", "get-default") == system["target"],
        f"ports {ports()}": ports() == system["ports"],
        "a journal that stays": f"File path: {system['journal']}" in journals,
        f"sshd before the rest: {ready} and {done} us": 0 < ready < done,
        f"a cold boot in time: {done} us": done < system["cold_boot_seconds"] * 1e6,
        "an id of its own": re.fullmatch("[0-9a-f]{32}\n", Path("/etc/machine-id").read_text()) is not None,
    }
    for unit in system["enabled"]:
        checks[f"{unit} is enabled"] = said("systemctl", "is-enabled", unit) == "enabled"
    for unit in system["disabled"]:
        checks[f"{unit} is disabled"] = said("systemctl", "is-enabled", unit) == "disabled"
    for file in system["files"]:
        checks[f"{file} is there"] = Path(file).stat().st_size > 0
    return [f"the system: {what}" for what, holds in checks.items() if not holds]


def ports() -> list[int]:
    listening = said("ss", "-Htln").splitlines()
    return sorted({int(line.split()[3].rpartition(":")[2]) for line in listening})


print("\n".join(problems()) or "the contract holds")
