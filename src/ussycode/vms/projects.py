"""Projects a new VM can begin as: a name, what it serves, and the script that sets it up."""
from __future__ import annotations

from dataclasses import dataclass

_SERVE = """serve() {
  if [ -d /run/systemd/system ]; then
    sudo tee /etc/systemd/system/project.service > /dev/null <<END
[Unit]
Description=$1
After=network.target
[Service]
User=$(id -un)
WorkingDirectory=$PWD
ExecStart=$2
Restart=always
[Install]
WantedBy=multi-user.target
END
    sudo systemctl enable --now project.service
  else
    nohup $2 > project.log 2>&1 < /dev/null &
  fi
}
"""
_STATIC = """mkdir -p ~/project && cd ~/project
[ -e index.html ] || echo "<h1>$(hostname)</h1><p>Change ~/project/index.html.</p>" > index.html
serve 'files of ~/project' "$(command -v python3) -m http.server 8000"
"""
_WSGI = """mkdir -p ~/project && cd ~/project
[ -e app.py ] || cat > app.py <<'END'
from wsgiref.simple_server import make_server


def app(environ, start_response):
    who = environ.get("HTTP_X_USSYCODE_EMAIL") or "nobody signed in"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"hello, {who}\\n".encode()]


make_server("", 8000, app).serve_forever()
END
serve 'the app in ~/project/app.py' "$(command -v python3) $PWD/app.py"
"""


@dataclass(frozen=True)
class Project:
    """What `new --template` knows. It serves on `port`; `script` runs once, at the first boot."""

    name: str
    summary: str
    script: str
    port: int = 8000


PROJECTS = {
    p.name: p for p in (
        Project("static", "a folder of files, ~/project, as a web site", f"#!/bin/sh\nset -e\n{_SERVE}{_STATIC}"),
        Project("wsgi", "a Python web app without dependencies, ~/project/app.py",
                f"#!/bin/sh\nset -e\n{_SERVE}{_WSGI}"),
    )
}


def template(text: str) -> Project:
    """The project of this name."""
    if text not in PROJECTS:
        raise ValueError("there is " + ", ".join(PROJECTS))
    return PROJECTS[text]
