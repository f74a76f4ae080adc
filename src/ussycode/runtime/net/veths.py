"""A container's link: the host's end is named and ruled like a tap, the other end is the container's eth0."""
from __future__ import annotations

from ussycode.runtime.instance import GATEWAY, GATEWAY6, Instance
from ussycode.runtime.net import taps


def connect(instance: Instance, number: int, pid: int, *, ipv6: bool) -> None:
    """Give the network namespace of process `pid` its eth0, addressed and routed on both sides. Root only.

    It vanishes with that namespace. The container itself has no right to change any of it.
    """
    name, address, address6 = instance.tap(number), instance.address(number), instance.address6(number)
    taps.remove(name)  # of an earlier life, whose namespace the kernel is still taking down
    taps.run("ip", "-batch", "-", text=(
        f"link add {name} type veth peer name eth0 address {instance.mac(number)} netns {pid}\n"
    ))
    taps.run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-", text=(
        "link set dev lo up\n"
        "link set dev eth0 up\n"
        f"addr add {address}/32 dev eth0\n"
        f"route add {GATEWAY} dev eth0\n"
        f"route add default via {GATEWAY}\n"
    ))
    taps.configure(name, address, address6 if ipv6 else "")
    if ipv6:
        taps.run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-6", "-batch", "-", text=(
            f"addr add {address6}/128 dev eth0 nodad\nroute add default via {GATEWAY6} dev eth0\n"
        ))


