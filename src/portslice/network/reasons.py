"""Why a packet was refused, in words: one line for each name in portslice.network.dataplane.REASONS.

Apart from the maps, so that a command explains them without loading what only the agent needs.
"""

EXPLANATIONS = {
    "foreign_port": "the sender does not own the source port",
    "foreign_source": "the source address is not the host's, or is a loopback one on its way out",
    "not_unicast": "to a broadcast or multicast address",
    "unknown_fragment": "a later fragment of a datagram whose first one was not seen before it",
    "protocol": "a protocol without ports, so that it is nobody's",
    "not_ip": "neither IPv4 nor IPv6, or with a VLAN tag",
    "malformed": "shorter than its headers say",
    "martian_source": "from the wire, but with a loopback, multicast or the host's own address as source",
    "martian_destination": "from the wire to a loopback address",
    "neighbour": "ARP, neighbour or router discovery: a container's neighbours are fixed",
    "foreign_icmp": "an ICMP error about no packet to the sender's ports, or an echo reply",
    "echo_clash": "another container awaits the answer to an equal echo request; ping again",
    "echo_rate": "more than 1,000 echo requests in a second",
    "neighbour_rate": "more than 32 packets in a second to neighbours that the host does not know yet",
    "incomplete_datagrams": "512 fragments of unfinished datagrams lie with this host; wait half a minute",
    "too_big": "longer than the MTU of the way out; the sender was told the MTU",
    "unroutable": "the host has no route; unless it is a blackhole, the sender was told",
    "host_loopback": "to a service on the host's loopback, which --no-host_loopback closes",
}
