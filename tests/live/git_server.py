"""git's own smart HTTP backend in a guest, at /cgi-bin/git/REPOSITORY below ~/srv; notes what each request brought."""
import json
import os
from http.server import CGIHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOME = Path.home()


class Handler(CGIHTTPRequestHandler):
    """One request."""

    have_fork = False  # a program of its own for each, so that threads are safe

    def parse_request(self) -> bool:
        """Read the head, and keep it."""
        good = super().parse_request()
        if good:
            with open(HOME / "seen", "a") as log:
                log.write(json.dumps(self.headers.items()) + "\n")
        return good


program = HOME / "cgi-bin" / "git"
program.parent.mkdir(exist_ok=True)
program.write_text("#!/bin/sh\nexec git http-backend\n")
program.chmod(0o755)
os.environ |= {"GIT_PROJECT_ROOT": str(HOME / "srv"), "GIT_HTTP_EXPORT_ALL": "1"}
os.chdir(HOME)
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
