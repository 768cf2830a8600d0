"""What runs in the demo's containers; a program of its own, which needs nothing but the standard library.

services.py echo                    answers every datagram on $PORT0 with itself
services.py trespass SINK PORT...   waits for a connection on $PORT0, then uses ports that are not its own:
                                    listens on each PORT, sends DATAGRAMS from each to SINK (ADDRESS:PORT), and as
                                    many from its own ports for comparison; answers with the latter as JSON, and
                                    keeps listening
"""

import json
import os
import socket
import sys

DATAGRAMS = 10
PROBES = 50  # ports that the kernel is asked to choose


def echo() -> None:
    """Answer until killed."""
    with _udp(int(os.environ["PORT0"])) as service:
        while True:
            data, sender = service.recvfrom(2048)
            service.sendto(data, sender)


def trespass(sink: str, foreign: list[int]) -> None:
    """Answer one connection, then wait to be killed."""
    address, _, port = sink.rpartition(":")
    own = int(os.environ["PORT0"])
    with socket.create_server(("", own)) as listener:
        connection, _peer = listener.accept()
        sockets = [_udp(number) for number in foreign]
        chosen = [_udp(0) for _ in range(PROBES)]
        senders = [*sockets, _udp(own), chosen[0]]
        for _ in range(DATAGRAMS):
            for each in senders:
                each.sendto(b"mine?", (address, int(port)))
        ports = [each.getsockname()[1] for each in chosen]
        with connection:
            connection.sendall(json.dumps({"own": [own, ports[0]], "chosen": ports}).encode())
        listener.accept()  # nobody comes: the sockets stay open


def _udp(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", port))
    return made


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo()
    else:
        trespass(sys.argv[2], [int(port) for port in sys.argv[3:]])
