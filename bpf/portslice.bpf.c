// SPDX-License-Identifier: Apache-2.0
/* The packet's way: four classifiers on clsact hooks that deliver by port what shares one address.
 *
 *   the wire ──> host_ingress ──────────────────────────────┐  (NIC, ingress)
 *   a host process ──> host_loopback ───────────────────────┤  (host's lo, ingress)
 *                                                           v
 *   a container's process ──> container_loopback ──> container_egress ──> another container, the host, the wire
 *                             (lo inside, egress)    (host end of the veth, ingress)
 *
 * One array, port_owner, answers whose a port is, whatever the protocol and however many containers there are. On the
 * way in the destination port chooses the container; on the way out the source port must belong to the sender. What
 * nobody owns is the host's. The containers hold the host's address themselves, so nothing is rewritten.
 *
 * On the host's hooks "not ours" is TC_ACT_UNSPEC: filters of others (or of a second agent) still get the packet.
 */
#include "fragments.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL"; /* the socket look-ups are offered to GPL-compatible programs only */

/* Into the container: past the host end's queues, as if its own NIC had received it, or through them if there is a
 * limit to keep. A whole datagram longer than the NIC inside may receive (from the host's loopback, whose MTU is larger)
 * would be lost on the veth, so it goes past them. */
static __always_inline int deliver(struct __sk_buff *skb, __u32 slot)
{
	__u32 zero = 0;
	struct slot *container = slot_of(slot);
	struct config *host = bpf_map_lookup_elem(&config, &zero);

	if (!container || !container->ifindex || !host)
		return TC_ACT_UNSPEC;
	if (container->shaped && (skb->gso_segs > 1 || skb->len <= host->container_mtu + ETH_HLEN)) {
		/* The veth looks at the address anew: a frame of another NIC or a loopback carries a different one. */
		if (bpf_skb_store_bytes(skb, 0, host->container_mac, sizeof(host->container_mac), 0))
			return TC_ACT_SHOT;
		return bpf_redirect(container->ifindex, 0);
	}
	/* A frame from a loopback carries no MAC address and would count as somebody else's. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(container->ifindex, 0);
}

SEC("tc")
int host_ingress(struct __sk_buff *skb)
{
	struct packet packet;
	__u32 slot, *known;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST)
		return TC_ACT_UNSPEC;
	if (!parse(skb, &packet))
		return TC_ACT_UNSPEC;   /* the host's stack counts it */
	if (is_loopback(packet.ip.daddr))
		return refuse(HOST, MARTIAN_DESTINATION, &packet);
	if (is_local(packet.ip.saddr) || !is_unicast(packet.ip.saddr))
		return refuse(packet.has_ports ? owner_of(packet.dport) : HOST, MARTIAN_SOURCE, &packet);
	if (packet.later_fragment) {
		known = recall(&packet, skb->ifindex);
		return known ? deliver(skb, *known) : TC_ACT_UNSPEC;
	}
	slot = packet.has_ports ? owner_of(packet.dport) : HOST;
	if (slot == HOST)
		return TC_ACT_UNSPEC;
	if (skb->pkt_type != PACKET_HOST || !is_unicast(packet.ip.daddr))
		return refuse(slot, NOT_UNICAST, &packet);
	if (!is_own(packet.ip.daddr))
		return TC_ACT_UNSPEC;   /* the host forwards it for somebody */
	remember(&packet, skb->ifindex, slot);
	return deliver(skb, slot);
}

SEC("tc")
int host_loopback(struct __sk_buff *skb)
{
	struct packet packet;
	__u32 slot, *known;

	if (skb->protocol != bpf_htons(ETH_P_IP) || !parse(skb, &packet) || !is_local(packet.ip.daddr))
		return TC_ACT_UNSPEC;
	if (packet.later_fragment) {
		known = recall(&packet, skb->ifindex);
		return known ? deliver(skb, *known) : TC_ACT_UNSPEC;
	}
	slot = packet.has_ports ? owner_of(packet.dport) : HOST;
	if (slot == HOST)
		return TC_ACT_UNSPEC;
	remember(&packet, skb->ifindex, slot);
	return deliver(skb, slot);
}

/* From a container's veth to where the target says. */
static __always_inline int send_on(struct __sk_buff *skb, const struct slot *sender, __u32 target)
{
	__u32 zero = 0;
	struct config *host = bpf_map_lookup_elem(&config, &zero);

	if (!host)
		return TC_ACT_SHOT;
	if (target == WORLD) {
		skb->priority = sender->priority;
		return bpf_redirect_neigh(host->nic, NULL, 0, 0);
	}
	if (target != HOST)
		return deliver(skb, target);
	/* Received by lo as one of its own, or its stack takes the frame for somebody else's. */
	if (bpf_skb_store_bytes(skb, 0, host->loopback_mac, sizeof(host->loopback_mac), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(host->loopback, BPF_F_INGRESS);
}

SEC("tc")
int container_egress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, target, *known;
	__u32 *sender = bpf_map_lookup_elem(&slot_by_ifindex, &ifindex);
	struct slot *container;
	struct packet packet;

	if (!sender)
		return TC_ACT_SHOT;     /* the attachment is being made or undone */
	container = slot_of(*sender);
	if (!container)
		return TC_ACT_SHOT;
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present)
		return refuse(*sender, NOT_IPV4, NULL);
	if (!parse(skb, &packet))
		return refuse(*sender, MALFORMED, NULL);
	/* bpf_redirect_neigh drops a frame to a group address, whatever the IP address: here it is counted. */
	if (skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST || !is_unicast(packet.ip.daddr))
		return refuse(*sender, NOT_UNICAST, &packet);
	if (!is_own(packet.ip.saddr) && !(is_loopback(packet.ip.saddr) && is_local(packet.ip.daddr)))
		return refuse(*sender, FOREIGN_SOURCE, &packet);
	if (packet.later_fragment) {
		known = recall(&packet, ifindex);
		return known ? send_on(skb, container, *known) : refuse(*sender, UNKNOWN_FRAGMENT, &packet);
	}
	if (!packet.has_ports)
		return refuse(*sender, PROTOCOL, &packet);
	if (owner_of(packet.sport) != *sender)
		return refuse(*sender, FOREIGN_PORT, &packet);
	target = is_local(packet.ip.daddr) ? owner_of(packet.dport) : WORLD;
	remember(&packet, ifindex, target);
	return send_on(skb, container, target);
}

/* Does a socket in this namespace wait for the packet? */
static __always_inline int has_receiver(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {
		.ipv4.saddr = packet->ip.saddr,
		.ipv4.daddr = packet->ip.daddr,
		.ipv4.sport = bpf_htons(packet->sport),
		.ipv4.dport = bpf_htons(packet->dport),
	};
	struct bpf_sock *socket;

	if (packet->ip.protocol == IPPROTO_TCP)
		socket = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

/* What something inside waits for stays inside; everything else that the container addresses to "this host" is for
 * the host or another container and leaves through the NIC inside, so that it is shaped and checked like the rest. */
SEC("tc")
int container_loopback(struct __sk_buff *skb)
{
	struct packet packet;
	__u64 socket;
	__u32 *known;

	if (skb->protocol != bpf_htons(ETH_P_IP) || !parse(skb, &packet))
		return TC_ACT_UNSPEC;
	if (packet.later_fragment) {
		known = recall(&packet, bpf_get_socket_cookie(skb));
		return known ? bpf_redirect(*known, 0) : TC_ACT_UNSPEC;
	}
	if (!packet.has_ports || packet.ip.protocol == IPPROTO_SCTP || has_receiver(skb, &packet))
		return TC_ACT_UNSPEC;
	socket = bpf_get_socket_cookie(skb);
	remember(&packet, socket, CONTAINER_NIC);
	return bpf_redirect(CONTAINER_NIC, 0);
}
