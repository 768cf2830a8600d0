"""Why a packet was refused, in words: one line for each name in portslice.network.dataplane.REASONS.

Apart from the maps, so that a command explains them without loading what only the agent needs.
"""

EXPLANATIONS = {
    "foreign_port": "the sender does not own the source port",
    "foreign_source": "the source address is not the host's, or is a loopback one on its way out",
    "not_unicast": "to a broadcast or multicast address",
    "unknown_fragment": "a later fragment of a datagram whose first one was not seen",
    "protocol": "IPv4 without ports, so that it is nobody's",
    "not_ipv4": "ARP, IPv6 and others: a container's neighbours are fixed",
    "malformed": "shorter than its headers say",
    "martian_source": "from the wire, but with a loopback, multicast or the host's own address as source",
    "martian_destination": "from the wire to a loopback address",
}
