"""Processes of uid 0 inside a container that try to harm others: on the wire, in other containers, on the host.

The attacker is a program in a container that the agent launched, so behind all its walls: it does what the tests tell
it over a Unix socket in its sandbox. Meanwhile a neighbour talks with the world over a connection as old as the module,
and each attack ends with the proof that this goes on. Whoever might get something of a forged packet is listened to,
and sent a good packet afterwards on the same way: when that has arrived, the forged one would have, too.
"""

import json
import os
import shlex
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, HOST_ADDRESS_6, NIC, WORLD_ADDRESS, WORLD_ADDRESS_6
from tests.kernel import peer
from tests.kernel.frames import (
    BROADCAST,
    ETH_P_ARP,
    ETH_P_IPV6,
    ICMPV6,
    MORE_FRAGMENTS,
    TCP,
    Frame,
    checksum,
    tagged,
)
from tests.kernel.waiting import until

pytestmark = pytest.mark.alone

PORT, NEIGHBOURS_PORT, FOREIGN = 31001, 31011, 7000
WORLD_PORT = 7001
OTHER_MAC = bytes.fromhex("0200000000fd")

PUPPET = """
import json, errno, os, socket, subprocess
server = socket.socket(socket.AF_UNIX)
server.bind("puppet")
server.listen()
while True:
    connection = server.accept()[0]
    with connection, connection.makefile("rw") as stream:
        order = json.loads(stream.readline())
        names = {"os": os, "socket": socket, "subprocess": subprocess}
        try:
            exec(order["program"], names)
            answer = {"result": names.get("result")}
        except OSError as error:
            answer = {"error": errno.errorcode.get(error.errno, str(error))}
        except Exception as error:
            answer = {"error": repr(error)}
        stream.write(json.dumps(answer) + "\\n")
"""
NEIGHBOUR = """
import os, socket, threading
port = int(os.environ["PORT0"])
secret = socket.create_server(("127.0.0.1", 5000))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", port))
def echo():
    while True:
        data, sender = datagrams.recvfrom(65535)
        datagrams.sendto(data, sender)
threading.Thread(target=echo, daemon=True).start()
with socket.create_server(("", port)) as listener:
    connection = listener.accept()[0]
    while data := connection.recv(65535):
        connection.sendall(data)
"""


@dataclass
class Ground:
    node: Node
    attacker: dict[str, Any]
    neighbour: dict[str, Any]
    taps: list[socket.socket]
    """What arrives on the wire, at the neighbour's NIC, and on the host's loopback."""
    conversation: socket.socket
    datagrams: socket.socket
    mac: bytes
    sent: set[bytes] = field(default_factory=set)
    """All datagrams to the neighbour."""

    def do(self, program: str) -> Any:
        """What the attacker's program left in `result`, or the name of the error that ended it."""
        directory = os.open(self.attacker["sandbox"], os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(peer.TIMEOUT_SECS)
                client.connect(f"/proc/self/fd/{directory}/puppet")  # the path itself is too long for a socket
                client.sendall(json.dumps({"program": program}).encode() + b"\n")
                with client.makefile() as stream:
                    answer = json.loads(stream.readline())
        finally:
            os.close(directory)
        return answer.get("error", answer.get("result"))

    def send_frames(self, *frames: bytes, times: int = 1) -> None:
        """From the attacker, by packet(7)."""
        assert self.do(f"""
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
    link.bind(("{NIC}", 0))
    for _ in range({times}):
        for frame in {[frame.hex() for frame in frames]}:
            link.send(bytes.fromhex(frame))
result = "sent"
""") == "sent"  # fmt: skip

    def send_raw(self, protocol: int, target: str, *packets: bytes) -> None:
        """From the attacker, by raw(7) without a header of the kernel's."""
        assert self.do(f"""
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    for packet in {[packet.hex() for packet in packets]}:
        raw.sendto(bytes.fromhex(packet), ("{target}", 0))
result = "sent"
""") == "sent"  # fmt: skip

    def drops(self) -> dict[str, int]:
        return self.node.drops("attacker")

    def others_are_well(self) -> None:
        """The old connection and the neighbour's service go on, and get nothing that is not theirs."""
        data = os.urandom(500)
        self.conversation.sendall(data)
        received = b""
        while len(received) < len(data):
            part = self.conversation.recv(65535)
            assert part
            received += part
        assert received == data
        self.neighbour_answers(500)

    def neighbour_answers(self, size: int) -> None:
        """A datagram there and back. One that a busy machine loses is sent again."""
        data = os.urandom(size)
        self.sent.add(data)

        def is_answered() -> bool:
            self.datagrams.sendto(data, (HOST_ADDRESS, NEIGHBOURS_PORT))
            with suppress(TimeoutError):
                while (answer := self.datagrams.recv(65535)) != data:
                    assert answer in self.sent, "else it is late"
                return True
            return False

        self.datagrams.settimeout(3)
        until(is_answered, "answer")

    def arrived(self) -> list[bytes]:
        """All frames that anybody has got since the last call, up to a good packet of the attacker's to each."""
        frames = []
        for tap, frame in zip(self.taps, self._good(), strict=True):
            self.send_frames(bytes(frame))
            frames += peer.sniff_until(tap, frame.payload)[:-1]
        return frames

    def _good(self) -> list[Frame]:
        good = replace(GOOD, mac=self.mac)
        targets = ((WORLD_ADDRESS, WORLD_PORT), (HOST_ADDRESS, NEIGHBOURS_PORT + 1), (HOST_ADDRESS, FOREIGN))
        return [replace(good, destination=to, destination_port=port, payload=os.urandom(32)) for to, port in targets]


@pytest.fixture(scope="module")
def ground(shared_node: Node) -> Iterator[Ground]:
    bed = shared_node.bed
    attacker = shared_node.launch("attacker", sys.executable, "-c", PUPPET, ports="31000-31009")
    neighbour = shared_node.launch("neighbour", sys.executable, "-c", NEIGHBOUR, ports="31011-31019")
    until(lambda: Path(attacker["sandbox"], "puppet").exists(), "the attacker")
    inside = shared_node.namespace(neighbour)
    until(lambda: f":{NEIGHBOURS_PORT} " in bed.run(inside, "ss", "-lntH").stdout, "the neighbour")
    with ExitStack() as stack:
        taps = [
            stack.enter_context(peer.open_link(namespace, interface))
            for namespace, interface in ((bed.world, "world"), (inside, NIC), (bed.host, "lo"))
        ]
        address = (HOST_ADDRESS, NEIGHBOURS_PORT)
        (link,) = json.loads(bed.run(bed.host, "ip", "-json", "link", "show", NIC).stdout)
        yield Ground(
            shared_node,
            attacker,
            neighbour,
            taps,
            stack.enter_context(peer.open_socket(bed.world, "tcp", connect=address)),
            stack.enter_context(peer.open_socket(bed.world, "udp")),
            bytes.fromhex(link["address"].replace(":", "")),
        )


@pytest.fixture(autouse=True)
def unharmed(ground: Ground) -> Iterator[None]:
    ground.others_are_well()
    yield
    ground.others_are_well()


GOOD = Frame(HOST_ADDRESS, WORLD_ADDRESS, PORT, WORLD_PORT)


# Frames


def _arp(kind: int, address: str, mac: bytes) -> bytes:
    """A claim to an address, as a reply or (kind 1) a gratuitous request."""
    addresses = mac + IPv4Address(address).packed + BROADCAST + IPv4Address(WORLD_ADDRESS).packed
    return BROADCAST + mac + struct.pack("!HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, kind) + addresses


def _icmp6(kind: int, body: bytes) -> bytes:
    """An ICMPv6 message to all nodes of the link; its checksum is right."""
    source, target = IPv6Address("fe80::bad").packed, IPv6Address("ff02::1").packed
    message = struct.pack("!BBH", kind, 0, 0) + body
    sum_ = checksum(source + target + struct.pack("!I3xB", len(message), ICMPV6) + message)
    message = message[:2] + struct.pack("!H", sum_) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + source + target
    return bytes.fromhex("333300000001") + OTHER_MAC + struct.pack("!H", ETH_P_IPV6) + header + message


TOKEN = os.urandom(16)
_TARGET_MAC = bytes((2, 1)) + OTHER_MAC
_PREFIX = bytes((3, 4, 64, 0xC0)) + struct.pack("!III", 3600, 3600, 0) + IPv6Address("2001:db8:bad::").packed
FORGED = replace(GOOD, payload=TOKEN, identification=0xBAD1, mac_source=OTHER_MAC)
FORGED_6 = replace(FORGED, source=HOST_ADDRESS_6, destination=WORLD_ADDRESS_6)

ANSWERED = ""  # by the host, to nobody but who sent it

# Frames, and the reason that they are refused for; None: any.
FRAMES: dict[str, tuple[str | None, bytes]] = {
    "a host's port": ("foreign_port", bytes(replace(FORGED, source_port=22))),
    "a neighbour's port": ("foreign_port", bytes(replace(FORGED, source_port=NEIGHBOURS_PORT))),
    "a neighbour's port by TCP": ("foreign_port", bytes(replace(FORGED, source_port=NEIGHBOURS_PORT, protocol=TCP))),
    "a neighbour's port to itself": (
        "foreign_port",
        bytes(replace(FORGED, source_port=NEIGHBOURS_PORT, destination=HOST_ADDRESS, destination_port=NEIGHBOURS_PORT)),
    ),
    "a foreign address": ("foreign_source", bytes(replace(FORGED, source="8.8.8.8"))),
    "the world's address to a neighbour": (
        "foreign_source",
        bytes(replace(FORGED, source=WORLD_ADDRESS, destination=HOST_ADDRESS, destination_port=NEIGHBOURS_PORT)),
    ),
    "a broadcast": ("not_unicast", bytes(replace(FORGED, destination="10.77.0.255", mac=BROADCAST))),
    "a foreign port in a fragment": (
        "foreign_port",
        bytes(replace(FORGED, source_port=FOREIGN, fragment=MORE_FRAGMENTS)),
    ),
    "a later fragment without a first": ("unknown_fragment", bytes(replace(FORGED, fragment=185, identification=99))),
    "an ARP reply for the host": ("neighbour", _arp(2, HOST_ADDRESS, OTHER_MAC)),
    "an ARP reply for the world": ("neighbour", _arp(2, WORLD_ADDRESS, OTHER_MAC)),
    "a gratuitous ARP request": (ANSWERED, _arp(1, HOST_ADDRESS, OTHER_MAC)),
    "a VLAN tag": ("not_ip", tagged(bytes(FORGED))),
    "two VLAN tags": ("not_ip", tagged(tagged(bytes(FORGED)))),
    "a neighbour advertisement": (None, _icmp6(136, struct.pack("!I", 0x20000000) + bytes(16) + _TARGET_MAC)),
    "a router advertisement": (None, _icmp6(134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + _PREFIX)),
    "an ICMPv6 redirect": (None, _icmp6(137, bytes(4) + bytes(32) + _TARGET_MAC)),
    "a foreign port by IPv6": ("foreign_port", bytes(replace(FORGED_6, source_port=FOREIGN))),
    "a neighbour's port by IPv6": ("foreign_port", bytes(replace(FORGED_6, source_port=NEIGHBOURS_PORT, protocol=TCP))),
    "a foreign IPv6 address": ("foreign_source", bytes(replace(FORGED_6, source="2001:db8::bad"))),
    "half an IPv6 header": ("malformed", bytes(FORGED_6)[:34]),
    "no header at all": (None, bytes(FORGED)[:14] + b"\x45"),
    "half an IP header": (None, bytes(FORGED)[:24]),
    "half of its ports": ("malformed", bytes(FORGED)[:36]),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_forged_frame_reaches_nobody(ground: Ground, name: str) -> None:
    reason, frame = FRAMES[name]
    # A destination MAC address of nobody's, and the one that the container itself would write.
    variants = [frame, ground.mac + frame[6:]] if frame[:6] == bytes(6) else [frame]
    before = ground.drops()
    ground.arrived()
    ground.send_frames(*variants)
    arrived = ground.arrived()
    marks = [TOKEN, OTHER_MAC, *([frame[14:30]] if len(frame) >= 30 else [])]
    assert [each for each in arrived if len(each) < 30 or any(mark in each for mark in marks)] == []
    after = ground.drops()
    if reason is None:
        assert sum(after.values()) >= sum(before.values()) + len(variants)
    elif reason != ANSWERED:
        assert after.get(reason, 0) >= before.get(reason, 0) + len(variants)


@pytest.mark.parametrize("field", ["source", "destination"])
def test_forged_mac_addresses_do_not_leave(ground: Ground, field: str) -> None:
    """A packet from an own port is sent, but with the MAC addresses that the host gives it."""
    forged = replace(FORGED, mac=ground.mac) if field == "source" else replace(FORGED, mac=OTHER_MAC)
    ground.arrived()
    ground.send_frames(bytes(forged))
    (sent,) = [frame for frame in ground.arrived() if TOKEN in frame]
    assert OTHER_MAC not in sent
    assert sent[6:12] == ground.mac


# Sockets

SENDERS = {
    "UDP": f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", {{port}}))
s.sendto(bytes.fromhex("{TOKEN.hex()}"), ("{{target}}", {{target_port}}))
s.close()
""",
    "TCP": """
s = socket.socket()
s.bind(("", {port}))
s.setblocking(False)
s.connect_ex(("{target}", {target_port}))
s.close()
""",
}


@pytest.mark.parametrize("protocol", SENDERS)
@pytest.mark.parametrize("port", [22, NEIGHBOURS_PORT, FOREIGN])
def test_an_ordinary_socket_sends_from_own_ports_only(ground: Ground, protocol: str, port: int) -> None:
    ground.arrived()
    before = ground.drops().get("foreign_port", 0)
    assert ground.do(SENDERS[protocol].format(port=port, target=WORLD_ADDRESS, target_port=WORLD_PORT)) is None
    until(lambda: ground.drops().get("foreign_port", 0) > before, "foreign_port")
    marks = (TOKEN, struct.pack("!HH", port, WORLD_PORT))
    assert [frame for frame in ground.arrived() if any(mark in frame for mark in marks)] == []


RAW = {
    "a foreign port": ("foreign_port", replace(FORGED, source_port=FOREIGN)),
    "a neighbour's port by TCP": ("foreign_port", replace(FORGED, source_port=NEIGHBOURS_PORT, protocol=TCP)),
    "a foreign address": ("foreign_source", replace(FORGED, source="8.8.8.8")),
    "a neighbour of the world's": ("foreign_source", replace(FORGED, source="10.77.0.9")),
    "a protocol without ports": ("protocol", replace(FORGED, protocol=47)),
}


@pytest.mark.parametrize("name", RAW)
def test_a_raw_socket_is_checked_like_others(ground: Ground, name: str) -> None:
    reason, frame = RAW[name]
    ground.arrived()
    before = ground.drops().get(reason, 0)
    ground.send_raw(255, WORLD_ADDRESS, bytes(frame)[14:])
    until(lambda: ground.drops().get(reason, 0) > before, reason)
    assert [each for each in ground.arrived() if TOKEN in each] == []


# ICMP: an error may only speak of a packet that was sent to one of the sender's own ports, and no echo reply leaves
# that nobody asked for.


def _icmp(kind: int, code: int, body: bytes) -> bytes:
    message = struct.pack("!BBH", kind, code, 0) + body
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


_INNER = Frame(WORLD_ADDRESS, HOST_ADDRESS, WORLD_PORT, NEIGHBOURS_PORT, payload=TOKEN)
ICMP = {
    "port unreachable for the neighbour's conversation": _icmp(3, 3, bytes(4) + bytes(_INNER)[14:]),
    "host unreachable, of a host's port": _icmp(3, 1, bytes(4) + bytes(replace(_INNER, destination_port=22))[14:]),
    "too big, for the neighbour's path": _icmp(3, 4, struct.pack("!HH", 0, 576) + bytes(_INNER)[14:]),
    "redirect": _icmp(5, 1, IPv4Address("10.77.0.9").packed + bytes(_INNER)[14:]),
    "time exceeded, TCP": _icmp(11, 0, bytes(4) + bytes(replace(_INNER, protocol=TCP))[14:]),
    "an error about a packet to somebody else": _icmp(
        3, 3, bytes(4) + bytes(replace(_INNER, destination="8.8.8.8", destination_port=PORT))[14:]
    ),
    "an error that holds no packet": _icmp(3, 3, bytes(4)),
    "an echo reply that nobody asked for": _icmp(0, 0, struct.pack("!HH", 7, 7) + TOKEN),
    "a router advertisement": _icmp(9, 0, struct.pack("!BBH", 1, 2, 1800) + bytes((10, 77, 0, 2)) + bytes(4)),
    "a timestamp request": _icmp(13, 0, struct.pack("!HH", 7, 7) + bytes(12)),
}


@pytest.mark.parametrize("target", [WORLD_ADDRESS, HOST_ADDRESS])
@pytest.mark.parametrize("name", ICMP)
def test_a_forged_icmp_message_reaches_nobody(ground: Ground, name: str, target: str) -> None:
    packet = bytes(replace(GOOD, protocol=1, destination=target, source_port=0, payload=ICMP[name]))[14:]
    ground.arrived()
    before = sum(ground.drops().values())
    link = ground.mac + ground.mac + b"\x08\x00"
    ground.send_frames(link + packet)
    until(lambda: sum(ground.drops().values()) > before, "drop")
    assert [each for each in ground.arrived() if ICMP[name] in each] == []


# Floods: what all share on the host (memory for fragments, echoes, neighbours) is not one container's.

FLOOD = """
import itertools
pid = os.fork()
if pid == 0:
    import signal
    signal.alarm(60)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("{nic}", 0))
        for number in itertools.count():
            for frame in make(number):
                try:
                    link.send(frame)
                except OSError:  # its queue is full
                    pass
result = pid
"""
FRAMES_OF_A_FLOOD = """
import struct

def total(data):
    value = sum(word for (word,) in struct.iter_unpack("!H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return ~value & 0xFFFF

def ip(destination, protocol, body, identification=1, fragment=0):
    address = lambda text: bytes(map(int, text.split(".")))
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), identification, fragment, 64, protocol, 0,
        address("{source}"), address(destination))
    header = header[:10] + struct.pack("!H", total(header)) + header[12:]
    return bytes.fromhex("{mac}") * 2 + bytes((8, 0)) + header + body

def fragments(number):
    udp = struct.pack("!HHHH", {port}, {neighbours_port}, 2000, 0) + bytes(1000)
    yield ip("{source}", 17, udp, number % 65536, 0x2000)

def echoes(number):
    message = struct.pack("!BBHHH", 8, 0, 0, number // 65536 % 65536, number % 65536)
    yield ip("{world}", 1, message[:2] + struct.pack("!H", total(message)) + message[4:])

def neighbours(number):
    yield ip("10.79.%d.%d" % (number // 250 % 250, 1 + number % 250), 17, struct.pack("!HHHH", {port}, 9, 8, 0))
"""


@contextmanager
def flooding(ground: Ground, kind: str, reason: str) -> Iterator[None]:
    """The attacker sends what it can, from before the block, when its share is used up, to its end."""
    facts = {"nic": NIC, "source": HOST_ADDRESS, "world": WORLD_ADDRESS, "mac": ground.mac.hex(), "port": PORT,
             "neighbours_port": NEIGHBOURS_PORT}  # fmt: skip
    before = ground.drops().get(reason, 0)
    pid = ground.do((FRAMES_OF_A_FLOOD + f"\nmake = {kind}\n" + FLOOD).format(**facts))
    assert isinstance(pid, int), pid
    try:
        until(lambda: ground.drops().get(reason, 0) >= before + 1000, f"1,000 times {reason}")
        yield
        assert ground.do(f"result = os.waitpid({pid}, os.WNOHANG)[0]") == 0, "it went on all the time"
    finally:
        ground.do(f"os.kill({pid}, 9); os.waitpid({pid}, 0)")


def test_first_fragments_do_not_spoil_others_datagrams(ground: Ground) -> None:
    with flooding(ground, "fragments", "incomplete_datagrams"):
        for _ in range(5):
            ground.neighbour_answers(60000)
        ground.others_are_well()


def test_echo_requests_do_not_take_others_answers(ground: Ground) -> None:
    inside = ground.node.namespace(ground.neighbour)
    with flooding(ground, "echoes", "echo_rate"):
        ping = ground.node.bed.run(inside, "ping", "-c5", "-i0.1", "-W10", WORLD_ADDRESS, check=False)
        assert " 0% packet loss" in ping.stdout
        ground.others_are_well()


def test_unknown_neighbours_do_not_fill_the_hosts_table(ground: Ground) -> None:
    bed, stranger = ground.node.bed, "10.77.0.50"
    bed.run(bed.host, *f"ip route add 10.79.0.0/16 dev {NIC}".split())
    bed.run(bed.world, *f"ip address add {stranger}/24 dev world".split())
    try:
        with flooding(ground, "neighbours", "neighbour_rate"):
            table = bed.run(bed.host, "ip", "neighbour", "show", "nud", "all").stdout.splitlines()
            limit = int(Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3").read_text())
            assert any(line.startswith("10.79.") for line in table), "else nothing was tried"
            assert len(table) < limit / 2
            assert not any(line.startswith(stranger) for line in table)
            with (
                peer.listen(bed.world, "tcp", (stranger, WORLD_PORT)) as listener,
                peer.open_socket(ground.node.namespace(ground.neighbour), "tcp") as client,
            ):
                peer.talk_tcp(listener, client, (stranger, WORLD_PORT), 1000)
            ground.others_are_well()
    finally:
        bed.run(bed.host, *f"ip route delete 10.79.0.0/16 dev {NIC}".split())
        bed.run(bed.world, *f"ip address delete {stranger}/24 dev world".split())


# What it has, and what it may do with it

SHELL = {
    "delete its queue": "tc qdisc delete dev {nic} root",
    "replace its queue": "tc qdisc replace dev {nic} root pfifo",
    "shorten its queue": "ip link set dev {nic} txqueuelen 1",
    "add a queue": "tc qdisc add dev {nic} clsact",
    "larger packets": "ip link set dev {nic} gso_max_size 65536",
    "another MTU": "ip link set dev {nic} mtu 9000",
    "take the link down": "ip link set {nic} down",
    "rename the link": "ip link set {nic} name other",
    "another MAC address": "ip link set {nic} address 02:00:00:00:00:09",
    "promiscuous": "ip link set {nic} promisc on",
    "move the link away": "ip link set {nic} netns 1",
    "an address": "ip address add 10.77.0.9/24 dev {nic}",
    "an IPv6 address": "ip -6 address add fe80::9/64 dev {nic}",
    "a route": "ip route add 10.9.0.0/16 dev {nic}",
    "a rule": "ip rule add from all table 7",
    "a neighbour": "ip neighbour add 10.77.0.9 lladdr 02:00:00:00:00:09 dev {nic}",
    "a dummy": "ip link add type dummy",
    "a veth pair": "ip link add own0 type veth peer name own1",
    "a VLAN": "ip link add link {nic} name own7 type vlan id 7",
    "a macvlan": "ip link add link {nic} name own8 type macvlan",
    "a bridge": "ip link add type bridge",
    "a tunnel": "ip tuntap add own9 mode tap",
    "remove a program": "tc filter delete dev lo egress",
    "offloads": "ethtool -K {nic} tso off gso off",
    "its local ports": "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range",
    "forwarding": "echo 1 >/proc/sys/net/ipv4/ip_forward",
    "an unprivileged start": "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start",
    "reach the kernel's pattern of cores": "echo '|/bin/true' >/proc/sys/kernel/core_pattern",
    "the helper for modules": "echo /bin/true >/proc/sys/kernel/modprobe",
    "the helper for hotplug": "echo /bin/true >/sys/kernel/uevent_helper",
    "sysrq": "echo h >/proc/sysrq-trigger",
    "a disk": "mknod disk b 7 0 && head -c 1 disk",
    "the memory": "mknod memory c 1 1 && head -c 1 memory",
    "the log": "echo forged >/dev/kmsg || (mknod log c 1 11 && echo forged >log)",
    "a loop device": "head -c 1 /dev/loop0 || head -c 1 /dev/vda || head -c 1 /dev/sda",
    "enter the host's network": "nsenter --net=/proc/1/ns/net --target 1 true",
    "enter the host's mounts": "nsenter --mount --target 1 true",
    "enter the host's PIDs": "nsenter --pid --target 1 true",
    "a mount": "mount -t tmpfs none /mnt",
    "a bind mount": "mount --bind /etc /mnt",
    "a remount": "mount -o remount,rw /sys",
    "unmount": "umount -l /sys || umount -l /dev || umount -l /proc/sys",
    "pinned maps": "mount -t bpf none /mnt || ls /sys/fs/bpf/*",
    "cgroups": "mkdir /sys/fs/cgroup/own || mount -t cgroup2 none /mnt",
    "the whole machine's host name": "hostname forged",
    "the clock": 'date -s "$(date)"',
    "priority": "nice -n -5 true 2>&1 | grep -q denied && false || chrt --fifo 1 true",
    "the neighbour's private service": "nc -zw1 127.0.0.1 5000",
    "the agent's socket": "nc -zU {socket}",
    "the agent's socket by another root": "nc -zU /proc/1/root{socket} || nc -zU /proc/self/root{socket}",
    "the agent by TCP": "curl -sS --fail -d '{{\"command\": [\"true\"]}}' http://127.0.0.1:5051/portslice/v1/containers",
    "an abstract socket of the host's": "grep -q @portslice-test-abstract /proc/net/unix",
    # By name: a process of its own may have the number.
    "a process of the host's": r"tr '\0' ' ' </proc/{pid}/cmdline | grep -q '[-]m portslice agent'",
    "the neighbour's process": "grep -l neighbour /proc/[0-9]*/environ",
    "the supervisor's files": "ls /proc/1/task/1/root/{runtime}/containers",
}


@pytest.fixture(scope="module")
def abstract() -> Iterator[None]:
    """A service of the host's without a path."""
    with socket.socket(socket.AF_UNIX) as service:
        service.bind("\0portslice-test-abstract")
        service.listen()
        assert "@portslice-test-abstract" in Path("/proc/net/unix").read_text()
        yield


@pytest.mark.usefixtures("abstract")
@pytest.mark.parametrize("prefix", ["", "unshare -Un --", "unshare -U --"])
def test_what_root_inside_cannot_do(ground: Ground, prefix: str) -> None:
    """All in one go; each attempt is a shell of its own, also in a user namespace of the attacker's."""
    assert ground.node.process is not None
    facts = {"nic": NIC, "socket": ground.node.socket, "runtime": ground.node.runtime,
             "pid": ground.node.process.pid}  # fmt: skip
    commands = {name: command.format(**facts) for name, command in SHELL.items()}
    before = state(ground)
    program = f"""
import subprocess
result = {{name: subprocess.run({shlex.split(prefix)} + ["sh", "-c", command], capture_output=True).returncode
          for name, command in {commands}.items()}}
"""
    statuses = ground.do(program)
    assert set(statuses) == set(SHELL)
    assert sorted(name for name, status in statuses.items() if status in (0, 127)) == [], "127: not even tried"
    assert state(ground) == before


def state(ground: Ground) -> list[str]:
    """What of the attacker's network and of the host could have been changed."""
    bed, inside = ground.node.bed, ground.node.namespace(ground.attacker)
    commands = ("ip -o link", "ip -o address", "ip route show table all", "ip rule", "tc qdisc",
                "tc filter show dev lo egress",
                "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_forward")  # fmt: skip
    found = [bed.run(inside, *command.split()).stdout for command in commands]
    files = ("core_pattern", "modprobe", "hostname")
    paths = [Path("/proc/sys/kernel", name) for name in files]
    return found + [path.read_text() for path in paths if path.exists()]


def test_private_services_are_there_for_their_own_only(ground: Ground) -> None:
    """What the attacker could not reach: on the loopback of the neighbour something listens."""
    look = ("nc", "-zw1", "127.0.0.1", "5000")
    node = ground.node
    assert node.bed.run(node.namespace(ground.neighbour), *look, check=False).returncode == 0
    assert node.bed.run(node.namespace(ground.attacker), *look, check=False).returncode != 0
    assert node.bed.run(node.bed.host, *look, check=False).returncode != 0


@pytest.mark.parametrize("command", ["BPF_MAP_CREATE", "BPF_PROG_LOAD"])
def test_bpf_is_refused(ground: Ground, command: str) -> None:
    """What the host's root may do; some kinds of maps and programs are for everybody, where the host says so."""
    program = f"""
import ctypes, os, platform
system_call = {{"x86_64": 321, "aarch64": 280}}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
code = (ctypes.c_uint64 * 2)(0xb7, 0x95)  # r0 = 0; exit
text = ctypes.create_string_buffer(b"GPL")
addresses = [part for pointer in (code, text) for part in divmod(ctypes.addressof(pointer), 1 << 32)[::-1]]
number, words = {{
    "BPF_MAP_CREATE": (0, (9, 4, 4, 4)),  # an LRU hash
    "BPF_PROG_LOAD": (5, (3, 2, *addresses)),  # a classifier
}}["{command}"]
attribute = (ctypes.c_uint32 * 32)(*words)
descriptor = libc.syscall(system_call, number, attribute, 128)
if descriptor < 0:
    raise OSError(ctypes.get_errno(), "bpf")
os.close(descriptor)
"""
    exec(program, {})
    assert ground.do(program) == "EPERM"


def test_nothing_of_the_machine_is_writable(ground: Ground) -> None:
    """Every file below /proc, but for processes, and below /sys, opened to write and closed again."""
    opened = ground.do("""
result = []
for top in ("/proc", "/sys"):
    for path, directories, files in os.walk(top):
        if path == "/proc":
            directories[:] = [d for d in directories if not d.isdigit() and d not in ("self", "thread-self")]
        for name in files:
            full = os.path.join(path, name)
            if os.path.islink(full):
                continue
            try:
                os.close(os.open(full, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
            result.append(full)
""")
    assert opened == []
