"""A real Chromium, driven over its debugging protocol; it trusts the platform's root because we import it."""
from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

WORDS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "about:blank",
)


@dataclass
class Tab:
    """One page of the browser; `complaints` collects what it logged, such as blocked scripts."""

    socket: ClientConnection
    number: int = 0
    complaints: list[str] = field(default_factory=list)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One request of the protocol and its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            said = json.loads(self.socket.recv(timeout=20))
            if said.get("method") == "Log.entryAdded":
                self.complaints.append(said["params"]["entry"]["text"])
            if said.get("id") == self.number:
                if said.get("error", {}).get("message") == "Inspected target navigated or closed":
                    return {"result": {}}  # asked of a page that was just left: no answer, as of one not there yet
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address, as typed into the address bar."""
        self.ask("Page.navigate", url=url)

    def until(self, script: str, seconds: float = 20) -> Any:
        """First true value of an expression, asked again while pages load."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(f"(() => {{ try {{ return {script} }} catch (e) {{ return null }} }})()")):
            assert time.monotonic() < deadline, f"{script}\nis not true of {self.run('location.href')}:\n" \
                f"{self.run('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def picture(self, file: Path) -> None:
        """A PNG of the page."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(root: Path) -> Iterator[Tab]:
    """A fresh browser that trusts the root certificate in `root`."""
    home = Path(tempfile.mkdtemp(prefix="ussycode-browser-"))
    nss = home / ".pki" / "nssdb"
    nss.mkdir(parents=True)
    for words in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "ussycode", "-i", str(root)]):
        subprocess.run(["certutil", "-d", f"sql:{nss}", *words], check=True, timeout=30)
    program = subprocess.Popen(
        ["chromium", *WORDS[:-1], f"--user-data-dir={home / 'data'}", WORDS[-1]], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=dict(os.environ, HOME=str(home)), start_new_session=True,
    )
    try:
        with connect(_page(home / "data" / "DevToolsActivePort"), max_size=None) as socket:
            tab = Tab(socket)
            for domain in ("Page", "Runtime", "Log"):
                tab.ask(f"{domain}.enable")
            yield tab
    finally:
        os.killpg(program.pid, 9)
        program.wait(10)
        shutil.rmtree(home, ignore_errors=True)


def _page(file: Path) -> str:
    deadline = time.monotonic() + 30
    while not (file.exists() and "\n" in file.read_text()):
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
    import urllib.request

    port = file.read_text().split("\n")[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
        pages = json.load(answer)
    return next(str(p["webSocketDebuggerUrl"]) for p in pages if p["type"] == "page")
