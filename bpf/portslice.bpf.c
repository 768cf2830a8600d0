// SPDX-License-Identifier: Apache-2.0
/* The packet's way: five classifiers on clsact hooks that deliver by port what shares one address.
 *
 *   the wire ──> host_ingress ──────────────────────────────┐  (each NIC, ingress)
 *   a host process ──> host_loopback ───────────────────────┤  (host's lo, ingress)
 *                                                           v
 *   a container's process ──> container_loopback ──> container_egress ──> another container, the host, the wire
 *                             (lo inside, egress)    (host end of the veth, ingress)
 *   container_ingress (NIC inside, ingress) hands what came over ::1 to the loopback inside.
 *
 * One array, port_owner, answers whose a port is, whatever the protocol and however many containers there are. On the
 * way in the destination port chooses the container; on the way out the source port must belong to the sender. What
 * nobody owns is the host's. The containers hold the host's addresses themselves, so nothing is rewritten. ICMP errors
 * belong to who sent the packet that they quote, echo replies to who asked.
 *
 * On the host's hooks "not ours" is TC_ACT_UNSPEC: filters of others (or of a second agent) still get the packet.
 */
#include "answer.h"
#include "arp.h"
#include "echo.h"
#include "fragments.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL"; /* the socket look-ups are offered to GPL-compatible programs only */

#define NEIGHBOUR_LIMIT 32      /* in a second; net.ipv4.neigh.default.gc_thresh3 is 1,024 */

static __always_inline struct config *host_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline __u32 owner_of(__u16 port)
{
	__u32 key = port;
	__u64 *slot = bpf_map_lookup_elem(&port_owner, &key);

	return slot ? *slot : HOST;
}

static __always_inline struct slot *slot_of(__u32 slot)
{
	return bpf_map_lookup_elem(&slots, &slot);
}

/* Into the container: past the host end's queues, as if its own NIC had received it, or through them if there is a
 * limit to keep. A whole datagram longer than the NIC inside may receive (from the host's loopback, whose MTU is larger)
 * would be lost on the veth, so it goes past them. */
static __always_inline int deliver(struct __sk_buff *skb, __u32 slot)
{
	struct slot *container = slot_of(slot);
	struct config *host = host_config();

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

/* Whose a packet is that arrives at the host. */
static __always_inline __u32 receiver_of(const struct packet *packet)
{
	switch (packet->kind) {
	case WITH_PORTS:
		return owner_of(packet->dport);
	case ECHO_REPLY:
		return asker_of(&packet->saddr, &packet->echo);
	case ICMP_ERROR:
		if (!is_local(&packet->quoted_saddr))
			return HOST;
		return packet->quotes_echo ? asker_of(&packet->quoted_daddr, &packet->echo) : owner_of(packet->sport);
	}
	return HOST;
}

/* IP that we may look at? */
static __always_inline int is_ours(const struct __sk_buff *skb)
{
	struct config *host = host_config();

	return is_ip(skb) && !skb->vlan_present && host &&
	       (skb->protocol != bpf_htons(ETH_P_IPV6) || host->flags & WITH_IPV6);
}

SEC("tc")
int host_ingress(struct __sk_buff *skb)
{
	struct packet packet = {};
	__u32 slot;

	if (skb->pkt_type == PACKET_OTHERHOST || !is_ours(skb))
		return TC_ACT_UNSPEC;
	if (!parse(skb, &packet))
		return TC_ACT_UNSPEC;   /* the host's stack counts it */
	if (is_loopback(&packet.daddr))
		return refuse(HOST, MARTIAN_DESTINATION, &packet);
	if (is_local(&packet.saddr) || !is_unicast(&packet.saddr))
		return refuse(receiver_of(&packet), MARTIAN_SOURCE, &packet);
	if (packet.later_fragment) {
		slot = recall(skb, &packet);
		return slot == HOST ? TC_ACT_UNSPEC : deliver(skb, slot);
	}
	slot = receiver_of(&packet);
	if (slot != HOST && (skb->pkt_type != PACKET_HOST || !is_unicast(&packet.daddr)))
		return refuse(slot, NOT_UNICAST, &packet);
	if (!is_own(&packet.daddr))
		return TC_ACT_UNSPEC;   /* the host forwards it for somebody */
	remember(skb, &packet, slot);
	return slot == HOST ? TC_ACT_UNSPEC : deliver(skb, slot);
}

static __always_inline int was_examined(struct __sk_buff *skb)
{
	struct config *host = host_config();
	__u8 mac[ETH_ALEN];

	if (!host || bpf_skb_load_bytes(skb, ETH_ALEN, mac, sizeof(mac)))
		return 0;
	for (int i = 0; i < ETH_ALEN; i++)
		if (mac[i] != host->examined_mac[i])
			return 0;
	return 1;
}

SEC("tc")
int host_loopback(struct __sk_buff *skb)
{
	struct packet packet = {};
	__u32 slot;

	if (!is_ours(skb) || was_examined(skb) || !parse(skb, &packet) || !is_local(&packet.daddr))
		return TC_ACT_UNSPEC;
	if (packet.later_fragment) {
		slot = recall(skb, &packet);
	} else {
		slot = receiver_of(&packet);
		remember(skb, &packet, slot);
	}
	return slot == HOST ? TC_ACT_UNSPEC : deliver(skb, slot);
}

/* The socket in this namespace that would receive a packet of these addresses and ports. */
static __always_inline struct bpf_sock *socket_for(struct __sk_buff *skb, __u8 family, __u8 protocol,
						   const struct address *saddr, __u16 sport,
						   const struct address *daddr, __u16 dport)
{
	struct bpf_sock_tuple tuple = {};

	if (family == AF_INET) {
		tuple.ipv4.saddr = saddr->word[3];
		tuple.ipv4.daddr = daddr->word[3];
		tuple.ipv4.sport = bpf_htons(sport);
		tuple.ipv4.dport = bpf_htons(dport);
		if (protocol == IPPROTO_TCP)
			return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
		return bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, saddr, sizeof(*saddr));
	__builtin_memcpy(tuple.ipv6.daddr, daddr, sizeof(*daddr));
	tuple.ipv6.sport = bpf_htons(sport);
	tuple.ipv6.dport = bpf_htons(dport);
	if (protocol == IPPROTO_TCP)
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	return bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

static __always_inline int has_look_up(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

/* Is a packet to the host's loopback part of a conversation that the host began? A listening or unconnected socket is a
 * service; so is, for the closed loopback, every one of a protocol that cannot be looked up. */
BY_ITSELF int is_reply(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *socket;
	int reply = 0;

	if (!packet)
		return 0;
	if (packet->kind == ICMP_ERROR || packet->kind == ECHO_REQUEST)
		return 1;
	if (packet->protocol == IPPROTO_TCP) {
		socket = socket_for(skb, packet->family, IPPROTO_TCP, &packet->saddr, packet->sport, &packet->daddr,
				    packet->dport);
		if (socket) {
			reply = socket->state != BPF_TCP_LISTEN;
			bpf_sk_release(socket);
		}
	} else if (packet->protocol == IPPROTO_UDP) {
		socket = socket_for(skb, packet->family, IPPROTO_UDP, &packet->saddr, packet->sport, &packet->daddr,
				    packet->dport);
		if (socket) {
			reply = socket->dst_port != 0;
			bpf_sk_release(socket);
		}
	}
	return reply;
}

/* Length of the packet on the wire behind its Ethernet header: of one segment, if it will be cut into some. */
static __always_inline __u32 wire_length(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 header = 8;
	__u8 offset;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	if (packet->protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, packet->transport + 12, &offset, 1))
		header = (offset >> 4) * 4;
	return packet->transport - ETH_HLEN + header + skb->gso_size;
}

/* Refuse a packet and tell its sender, if an ICMP error may answer it. */
static __always_inline int tell(struct __sk_buff *skb, const struct packet *packet, __u32 sender, enum reason reason,
				__u8 type, __u8 code, __u32 information)
{
	refuse(sender, reason, packet);
	return answer(skb, packet, type, code, information) ? deliver(skb, sender) : TC_ACT_SHOT;
}

/* To the world, by the host's routes and rules, out of whatever interface they say. */
static __always_inline int send_out(struct __sk_buff *skb, const struct packet *packet, __u32 sender,
				    const struct slot *container)
{
	struct bpf_redir_neigh hop = {};
	struct bpf_fib_lookup route = {
		.family = packet->family,
		.l4_protocol = packet->protocol,
		.sport = bpf_htons(packet->kind == WITH_PORTS ? packet->sport : 0),
		.dport = bpf_htons(packet->kind == WITH_PORTS ? packet->dport : 0),
		.tot_len = wire_length(skb, packet),
		.ifindex = skb->ifindex,
	};
	int ipv4 = packet->family == AF_INET, unknown_neighbour = 0;
	__u8 unreachable = ipv4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH;

	if (ipv4) {
		route.ipv4_src = packet->saddr.word[3];
		route.ipv4_dst = packet->daddr.word[3];
	} else {
		__builtin_memcpy(route.ipv6_src, &packet->saddr, sizeof(packet->saddr));
		__builtin_memcpy(route.ipv6_dst, &packet->daddr, sizeof(packet->daddr));
	}
	switch (bpf_fib_lookup(skb, &route, sizeof(route), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		/* A neighbour that has to be asked for takes a place in a table that is everybody's. */
		if (!spend(sender, NEIGHBOURS_PER_SECOND, NEIGHBOUR_LIMIT))
			return refuse(sender, NEIGHBOUR_RATE, packet);
		unknown_neighbour = 1;
		break;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return refuse(sender, UNROUTABLE, packet);      /* RTN_BLACKHOLE is silent */
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return tell(skb, packet, sender, TOO_BIG, ipv4 ? ICMP_DEST_UNREACH : ICMPV6_PKT_TOOBIG,
			    ipv4 ? ICMP_FRAG_NEEDED : 0, route.mtu_result);
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return tell(skb, packet, sender, UNROUTABLE, unreachable,
			    ipv4 ? ICMP_PKT_FILTERED : ICMPV6_ADM_PROHIBITED, 0);
	case BPF_FIB_LKUP_RET_UNREACHABLE:
		return tell(skb, packet, sender, UNROUTABLE, unreachable,
			    ipv4 ? ICMP_HOST_UNREACH : ICMPV6_ADDR_UNREACH, 0);
	default:
		return tell(skb, packet, sender, UNROUTABLE, unreachable, ipv4 ? ICMP_NET_UNREACH : ICMPV6_NOROUTE, 0);
	}
	skb->priority = container->priority;
	/* The stack tells the sender if the neighbour does not answer, but only of a packet that is the host's own (icmp_send)
	 * and has a route with it, which it has if the next hop is left to be found once more. */
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	if (unknown_neighbour)
		return bpf_redirect_neigh(route.ifindex, NULL, 0, 0);
	hop.nh_family = route.family;
	__builtin_memcpy(hop.ipv6_nh, route.ipv6_dst, sizeof(hop.ipv6_nh));
	return bpf_redirect_neigh(route.ifindex, &hop, sizeof(hop), 0);
}

/* To the host's own stack, received by lo as one of its own, or the stack takes the frame for somebody else's. */
static __always_inline int send_to_host(struct __sk_buff *skb)
{
	struct config *host = host_config();

	if (!host || bpf_skb_store_bytes(skb, 0, host->loopback_mac, sizeof(host->loopback_mac), 0) ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, host->examined_mac, sizeof(host->examined_mac), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(host->loopback, BPF_F_INGRESS);
}

/* Where a container's packet may go; false: nowhere, for this reason. */
static __always_inline int target_of(const struct packet *packet, __u32 sender, __u32 ifindex, __u32 *target,
				     enum reason *refusal)
{
	int local = is_local(&packet->daddr);

	switch (packet->kind) {
	case WITH_PORTS:
		*refusal = FOREIGN_PORT;
		*target = local ? owner_of(packet->dport) : WORLD;
		return owner_of(packet->sport) == sender;
	case ECHO_REQUEST:
		*target = local ? HOST : WORLD;
		return ask(sender, ifindex, packet, refusal);
	case ICMP_ERROR:
		*refusal = FOREIGN_ICMP;
		*target = local ? owner_of(packet->sport) : WORLD;
		return !packet->quotes_echo && is_same(&packet->quoted_saddr, &packet->daddr) &&
		       is_local(&packet->quoted_daddr) && owner_of(packet->dport) == sender;
	case ECHO_REPLY:
		*refusal = FOREIGN_ICMP;
		return 0;
	case NEIGHBOUR_DISCOVERY:
		*refusal = NEIGHBOUR;
		return 0;
	}
	*refusal = PROTOCOL;
	return 0;
}

SEC("tc")
int container_egress(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, target = HOST, slot;
	__u32 *sender = bpf_map_lookup_elem(&slot_by_ifindex, &ifindex);
	struct config *host = host_config();
	enum reason refusal = PROTOCOL;
	struct slot *container;
	struct packet packet = {};

	if (!sender || !host)
		return TC_ACT_SHOT;     /* the attachment is being made or undone */
	slot = *sender;
	container = slot_of(slot);
	if (!container)
		return TC_ACT_SHOT;
	if (skb->vlan_present)
		return refuse(slot, NOT_IP, NULL);
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return answer_arp(skb, host->container_mac) ? deliver(skb, slot) : refuse(slot, NEIGHBOUR, NULL);
	if (!is_ip(skb))
		return refuse(slot, NOT_IP, NULL);
	if (!parse(skb, &packet))
		return refuse(slot, MALFORMED, NULL);
	if (packet.kind == NEIGHBOUR_DISCOVERY)
		return refuse(slot, NEIGHBOUR, &packet);
	/* bpf_redirect_neigh drops a frame to a group address, whatever the IP address: here it is counted. */
	if (skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST || !is_unicast(&packet.daddr))
		return refuse(slot, NOT_UNICAST, &packet);
	if (!is_own(&packet.saddr) && !(is_loopback(&packet.saddr) && is_local(&packet.daddr)))
		return refuse(slot, FOREIGN_SOURCE, &packet);
	if (packet.later_fragment) {
		if (!continue_datagram(slot, &packet, &target, &refusal))
			return refuse(slot, refusal, &packet);
	} else {
		if (!target_of(&packet, slot, ifindex, &target, &refusal))
			return refuse(slot, refusal, &packet);
		if (target == HOST && host->flags & HOST_LOOPBACK_CLOSED && is_loopback(&packet.daddr) &&
		    !is_reply(skb, &packet))
			return refuse(slot, HOST_LOOPBACK, &packet);
		if (!begin_datagram(slot, &packet, target))
			return refuse(slot, INCOMPLETE_DATAGRAMS, &packet);
	}
	if (target == WORLD)
		return send_out(skb, &packet, slot, container);
	return target == HOST ? send_to_host(skb) : deliver(skb, target);
}

static __always_inline int is_syn(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 flags;

	return !bpf_skb_load_bytes(skb, packet->transport + 13, &flags, 1) && (flags & 0x12) == 0x02;
}

/* Is a packet on the loopback inside for somebody inside? */
BY_ITSELF int stays_inside(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *socket;
	__u32 sender;

	if (!packet)
		return 1;
	switch (packet->kind) {
	case WITH_PORTS:
		sender = owner_of(packet->sport);
		if (!has_look_up(packet->protocol))     /* by the ports alone: its own, or of a private conversation */
			return sender == HOST || sender == owner_of(packet->dport);
		socket = socket_for(skb, packet->family, packet->protocol, &packet->saddr, packet->sport,
				    &packet->daddr, packet->dport);
		/* A private port's answer whose receiver has gone: nobody outside waits for it. */
		if (!socket)
			return packet->protocol == IPPROTO_TCP && sender == HOST && !is_syn(skb, packet);
		break;
	case ICMP_ERROR:        /* for the sender of what it quotes */
		if (packet->quotes_echo || !has_look_up(packet->quoted_protocol))
			return packet->quotes_echo;
		socket = socket_for(skb, packet->family, packet->quoted_protocol, &packet->quoted_daddr, packet->dport,
				    &packet->quoted_saddr, packet->sport);
		if (!socket)
			return 0;
		break;
	default:                /* echo: the container answers for its addresses itself */
		return 1;
	}
	bpf_sk_release(socket);
	return 1;
}

/* What something inside waits for stays inside; everything else that the container addresses to "this host" is for
 * the host or another container and leaves through the NIC inside, so that it is shaped and checked like the rest. */
SEC("tc")
int container_loopback(struct __sk_buff *skb)
{
	struct socket_datagrams *book;
	struct packet packet = {};
	__u32 place, leaves;

	if (!is_ip(skb) || !parse(skb, &packet))
		return TC_ACT_UNSPEC;
	place = packet.id >> 24 ^ packet.id >> 8;       /* whichever byte order it has, its fast bits are in there */
	if (packet.later_fragment) {
		book = socket_book(skb, 0);
		if (!book)
			return TC_ACT_UNSPEC;
		for (int i = 0; i < SOCKET_DATAGRAMS; i++)
			if (book->datagram[i].id == packet.id && book->datagram[i].leaves &&
			    is_same(&book->datagram[i].daddr, &packet.daddr))
				return bpf_redirect(CONTAINER_NIC, 0);
		return TC_ACT_UNSPEC;
	}
	leaves = !stays_inside(skb, &packet);
	if (packet.first_fragment) {
		book = socket_book(skb, BPF_SK_STORAGE_GET_F_CREATE);
		if (book) {
			place %= SOCKET_DATAGRAMS;
			book->datagram[place].daddr = packet.daddr;
			book->datagram[place].id = packet.id;
			book->datagram[place].leaves = leaves;
		}
	}
	return leaves ? bpf_redirect(CONTAINER_NIC, 0) : TC_ACT_UNSPEC;
}

/* IPv6 takes ::1 from a loopback only (RFC 4291, 2.5.3), so what came over it from outside is handed to the one inside. */
SEC("tc")
int container_ingress(struct __sk_buff *skb)
{
	static const __u8 no_mac[ETH_ALEN];
	struct ipv6hdr ip;
	struct address saddr, daddr;

	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return TC_ACT_UNSPEC;
	__builtin_memcpy(&saddr, &ip.saddr, sizeof(saddr));
	__builtin_memcpy(&daddr, &ip.daddr, sizeof(daddr));
	if (!is_loopback(&saddr) && !is_loopback(&daddr))
		return TC_ACT_UNSPEC;
	if (bpf_skb_store_bytes(skb, 0, no_mac, sizeof(no_mac), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(CONTAINER_LOOPBACK, BPF_F_INGRESS);
}
