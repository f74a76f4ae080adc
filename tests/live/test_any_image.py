"""Images nobody here built: pulled from a registry, booted, reached by ssh and HTTPS, whatever is in them or is not."""
from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import registry_rig
from tests.live.rig import Done, Platform, logs, platform, until
from tests.registry_rig import PASSWORD, USER, RegistryRig, layer
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles

SERVER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {INADDR_ANY}, {0}};
    char cwd[200], text[500], all[700], in[4096];
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (void *)&a, sizeof a) || listen(s, 9)) return 3;
    printf("serving as %d\n", getuid()), fflush(stdout);
    for (;;) {
        int c = accept(s, 0, 0);
        if (read(c, in, sizeof in) > 0 && !strncmp(in, "GET /crash", 10)) return 4;
        snprintf(text, sizeof text, "%s uid=%d gid=%d cwd=%s A=%s B=%s\n", argc > 2 ? argv[2] : "-", getuid(), getgid(),
                 getcwd(cwd, sizeof cwd), getenv("A"), getenv("B"));
        int n = snprintf(all, sizeof all, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                         strlen(text), text);
        write(c, all, n), close(c);
    }
}
"""


def compiled(folder: Path, *flags: str) -> bytes:
    source, program = folder / "server.c", folder / "server"
    source.write_text(SERVER)
    subprocess.run(["musl-gcc", "-Os", "-s", "-w", *flags, "-o", program, source], check=True, timeout=60)
    return program.read_bytes()


def tree_of(image: Image, folder: Path) -> bytes:
    """The root file system of an image of ours as one layer."""
    root, packed = folder / f"{image.name}", folder / f"{image.name}.tar"
    root.mkdir()
    subprocess.run(["debugfs", "-R", f"rdump / {root}", image.disk], check=True, capture_output=True, timeout=100)
    with tarfile.open(packed, "w") as tar:
        tar.add(root, ".")
    return packed.read_bytes()


def fill(registry: RegistryRig, debian: Image, systemd: Image) -> None:
    """The five images, as their builders would have made them."""
    with tempfile.TemporaryDirectory() as scratch:
        system, machine = tree_of(debian, Path(scratch)), tree_of(systemd, Path(scratch))
        static, dynamic = compiled(Path(scratch), "-static"), compiled(Path(scratch))
    busybox = Path("/bin/busybox").read_bytes()
    musl = Path("/lib/ld-musl-x86_64.so.1").read_bytes()
    tools = {f"bin/{tool}": "busybox" for tool in ("sh", "ls", "cat", "id", "uname", "echo")}
    small = layer({"bin/busybox": (busybox, 0o755), "lib/ld-musl-x86_64.so.1": (musl, 0o755),
                   "bin/app": (dynamic, 0o755),
                   "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/alpine-release": b"3.20.0\n"}, tools)
    registry.push("debian", [system], {"Cmd": ["bash"]}, tag="12", pack=bytes)
    registry.push("systemd", [machine], {"Cmd": ["/sbin/init"]}, pack=bytes)
    registry.push("alpine", [small], {"Cmd": ["/bin/sh"]}, tag="3.20")
    registry.push("static", [layer({"app": (static, 0o755)})], {"Entrypoint": ["/app", "8000"], "User": "65532:65532"})
    registry.push("server", [layer({"usr/bin/serve": (static, 0o755), "srv/x": b"",
                                    "etc/passwd": b"root:x:0:0::/:\nweb:x:33:44::/srv:\n"})],
                  {"Entrypoint": ["serve"], "Cmd": ["8080", "own"], "Env": ["A=image", "B=image"], "User": "web",
                   "WorkingDir": "/srv", "ExposedPorts": {"8080/tcp": {}}})


@dataclass
class Anywhere:
    """A platform that knows two registries on loopback; one of them wants a name and a password."""

    platform: Platform
    registry: RegistryRig
    private: RegistryRig

    def new(self, name: str, image: str, *more: str) -> Done:
        words = " ".join(("new", "--name", name, "--image", f"{self.registry.host}/{image}", *more))
        return self.platform.lobby(words, seconds=240)

    def at(self, name: str, command: str) -> Done:
        return self.platform.ssh(f"{name}@localhost", command)


@pytest.fixture(scope="session")
def systemd_min(live_data: Path) -> Image:
    """A Debian that boots systemd and has little else."""
    return ImageStore(live_data / "images", recipes=lambda: Path(__file__).parent / "images").ensure("systemd-min")


@pytest.fixture(scope="module")
def anywhere(
    live_data: Path, boot: BootFiles, debian_min: Image, systemd_min: Image, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Anywhere]:
    """Pulled images are kept apart from the images of other tests."""
    live = Path(tempfile.mkdtemp(prefix="pulling-", dir=live_data))
    live.chmod(0o755)
    for kept in ("cache", "images/debian-min"):
        shutil.copytree(
            live_data / kept, live / kept, copy_function=hard_link,
            ignore=shutil.ignore_patterns("debs", ".*", "*.part"),
        )
    home = tmp_path_factory.mktemp("home")
    try:
        with registry_rig.registry(tmp_path_factory.mktemp("registry")) as registry, \
                registry_rig.basic_registry(tmp_path_factory.mktemp("private") / "registry") as private:
            fill(registry, debian_min, systemd_min)
            private.push("app", [layer({"etc/motto": b"for olive alone"})], {})
            options = ("--default-image", "debian-min", "--registries", f"{registry.host},{private.host}",
                       "--containers", "true")
            with platform(live / "data", home, live, *options) as made:
                yield Anywhere(made, registry, private)
    finally:
        shutil.rmtree(live, ignore_errors=True)


def hard_link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("image", "command", "said"), [
    ("debian:12", "dpkg --version", "Debian"),
    ("systemd", "systemctl is-system-running --wait; cat /proc/1/comm", "systemd"),
    ("alpine:3.20", "cat /etc/alpine-release; bin/app 9999 & id -un", "root"),
    ("static", "for n in $(seq 100); do wget -qO- http://127.0.0.1:8000/ && break; sleep 0.1; done",
     "uid=65532 gid=65532 cwd=/ "),
])
def test_it_boots_and_takes_a_command(anywhere: Anywhere, image: str, command: str, said: str) -> None:
    name = "box-" + image.partition(":")[0]
    made = anywhere.new(name, image)
    assert made.status == 0, made.out + made.err + logs(anywhere.platform.data)
    done = anywhere.at(name, command)
    assert said in done.out, (done.out, done.err)
    assert anywhere.platform.lobby(f"rm --now {name}").status == 0


@pytest.mark.timeout(400)
def test_an_entrypoint_answers_over_https_and_comes_back_after_a_crash_and_a_restart(anywhere: Anywhere) -> None:
    assert anywhere.new("serve", "server", "--env", "B=mine").status == 0
    page = "own uid=33 gid=44 cwd=/srv A=image B=mine\n"
    ask = "wget -qO- http://127.0.0.1:8080/"
    until(lambda: anywhere.at("serve", ask).out == page, 60, "the service's answer")
    assert anywhere.platform.lobby("share set-public serve").status == 0
    assert anywhere.platform.curl(anywhere.platform.url("serve.localhost")).out == page
    anywhere.at("serve", ask + "crash")
    until(lambda: anywhere.at("serve", ask).out == page, 60, "the service after a crash")
    log = anywhere.at("serve", "cat /var/log/ussycode-service.log").out
    assert "serving as 33" in log and "ended with 4; it is started again" in log
    assert anywhere.platform.lobby("restart serve", seconds=200).status == 0
    until(lambda: anywhere.at("serve", ask).out == page, 60, "the service after a restart")
    assert anywhere.platform.lobby("image rm " + anywhere.registry.host + "/server").status == 1, "a VM stands on it"
    assert anywhere.platform.lobby("rm --now serve").status == 0


@pytest.mark.timeout(400)
def test_another_command_in_place_of_the_images_own(anywhere: Anywhere) -> None:
    assert anywhere.new("other", "server", "--command", "'serve 8080 \"other words\"'").status == 0
    ask = "wget -qO- http://127.0.0.1:8080/"
    until(lambda: "other words uid=33" in anywhere.at("other", ask).out, 60, "the answer")
    assert anywhere.platform.lobby("rm --now other").status == 0
    assert anywhere.platform.lobby("image rm " + anywhere.registry.host + "/server").status == 0


def test_pulled_images_are_listed_and_removed_with_their_disks(anywhere: Anywhere) -> None:
    name = f"{anywhere.registry.host}/static"
    pulled = anywhere.platform.lobby(f"image pull {name}", seconds=120)
    assert pulled.status == 0 and "is ready" in pulled.out, pulled.err
    assert f"{name}:latest" in anywhere.platform.lobby("image ls").out
    assert anywhere.platform.lobby(f"image rm {name}").status == 0
    assert f"{name}:latest" not in anywhere.platform.lobby("image ls").out
    assert anywhere.platform.lobby(f"image pull {anywhere.registry.host}/nothing").status == 1


@pytest.mark.timeout(300)
def test_a_private_image_boots_for_who_has_its_password_and_nobody_reads_that(anywhere: Anywhere) -> None:
    name, place = f"{anywhere.private.host}/app", anywhere.platform
    refused = place.lobby(f"new --name closed --image {name}", seconds=60)
    assert refused.status == 1 and "has no image app that it gives to everybody" in refused.err, refused
    made = place.lobby(f"new --name opened --image {name} --registry-auth {USER}:{PASSWORD}", seconds=120)
    assert made.status == 0, made.err + logs(place.data)
    assert anywhere.at("opened", "cat /etc/motto").out == "for olive alone"
    assert "private" in place.lobby("image ls").out
    assert place.lobby(f"new --name again --image {name}", seconds=120).status == 0, "who has it needs no password"
    for file in (*place.data.glob("log/*"), *place.data.glob("control/*"), *place.data.glob("images/oci/*/image.json")):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file
    for vm in ("opened", "again"):
        assert place.lobby(f"rm --now {vm}").status == 0


@pytest.mark.timeout(200)
def test_the_same_image_in_a_container(anywhere: Anywhere) -> None:
    made = anywhere.new("light", "server", "--isolation", "container", "--env", "B=mine")
    assert made.status == 0, made.err + logs(anywhere.platform.data)
    ask = "wget -qO- http://127.0.0.1:8080/"
    until(lambda: anywhere.at("light", ask).out == "own uid=33 gid=44 cwd=/srv A=image B=mine\n", 60, "the answer")
    assert anywhere.platform.lobby("rm --now light").status == 0
