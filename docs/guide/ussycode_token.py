"""Makes tokens with your own SSH key. Needs Python 3.9 and ssh-keygen; the key may be in an agent or a security key.

    from ussycode_token import signed    # or: python3 ussycode_token.py ~/.ssh/id_ed25519 your.host '{"cmds": ["ls"]}'
    token = signed("~/.ssh/id_ed25519", "your.host", {"cmds": ["ls"], "exp": 2000000000})
"""
import base64
import json
import pathlib
import subprocess
import sys


def signed(key, place, payload):
    """A token for `place`: the platform's domain for commands, or NAME.DOMAIN for the address of one VM."""
    said = payload if isinstance(payload, str) else json.dumps(payload)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(pathlib.Path(key).expanduser()), "-n", f"v0@{place}"]
    lines = subprocess.run(command, input=said.encode(), stdout=subprocess.PIPE, check=True).stdout.split()
    armour = b"".join(lines[lines.index(b"SIGNATURE-----") + 1 : lines.index(b"-----END")])
    return f"usy0.{_text(said.encode())}.{_text(base64.b64decode(armour))}"


def _text(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


if __name__ == "__main__":
    print(signed(*sys.argv[1:4]))
