"""`portslice drops`."""

import argparse
import json
import socket
from typing import Any

from portslice.cli.client import Client
from portslice.cli.table import age, table
from portslice.network.reasons import EXPLANATIONS

_PROTOCOLS = {
    int(getattr(socket, name)): name.removeprefix("IPPROTO_").lower()
    for name in dir(socket)
    if name.startswith("IPPROTO_")
}
_REASONS = "\n".join(f"  {reason:<21}{text}" for reason, text in EXPLANATIONS.items())
_EPILOG = f"""\
Packets are refused where they leave a container or reach the host, and counted by reason for the container that sent
or was to get them; what concerns no container counts as the host's. Of each reason the last packet is shown. Counting
begins with the container.

examples:
  portslice drops
  portslice drops web
  portslice drops --json

reasons:
{_REASONS}"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="NAME", nargs="?", help="name or id (default: all containers, and the host)")


def main(options: argparse.Namespace) -> int:
    """Show them."""
    refused = Client(options.socket).drops(options.name)
    if options.json:
        print(json.dumps(refused, indent=2))
        return 0
    if not refused:
        print(f"No packet{f' of {options.name}' if options.name else ''} was refused.")
        return 0
    rows = [(each["container"] or "(host)", each["reason"], each["packets"], *last(each["last"])) for each in refused]
    print(table(("CONTAINER", "REFUSED", "PACKETS", "PROTOCOL", "LAST FROM", "TO", "AGO"), rows))
    print()
    for reason in sorted({each["reason"] for each in refused} & EXPLANATIONS.keys()):
        print(f"{reason}: {EXPLANATIONS[reason]}")
    return 0


def last(packet: dict[str, Any]) -> tuple[str, str, str, str]:
    """Of the last refused packet: protocol, source, destination and age; what is no IP packet has only the last."""
    protocol = _PROTOCOLS.get(packet["protocol"], str(packet["protocol"]))
    if not packet["protocol"]:
        return "-", "-", "-", age(packet["age_secs"])
    source, destination = (_endpoint(packet[end], packet[f"{end}_port"]) for end in ("source", "destination"))
    return protocol, source, destination, age(packet["age_secs"])


def _endpoint(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
