"""The shell function of the guide makes tokens that work, with nothing but ssh-keygen, base64 and tr."""
from __future__ import annotations

import subprocess
from pathlib import Path

from tests.product.web_world import web_world

SCRIPT = Path(__file__).parents[2] / "docs/guide/token.sh"


async def test_the_guide_s_function_makes_a_token(tmp_path: Path) -> None:
    async with web_world(tmp_path) as place:
        command = f'. {SCRIPT}; ussycode_token {place.alice.file} localhost \'{{"cmds":["whoami"],"exp":2000000000}}\''
        done = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, check=True, timeout=20)
        got = await place.exec("whoami", done.stdout.strip())
        assert got.json["handle"] == "alice"
        assert (await place.exec("ls", done.stdout.strip())).status == 403
