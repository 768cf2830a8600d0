/* SPDX-License-Identifier: Apache-2.0 */
/* From an sk_buff to addresses and ports, and the book of refusals. */
#pragma once

#include "maps.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>

#define MORE_FRAGMENTS 0x2000
#define FRAGMENT_OFFSET 0x1fff

struct packet {
	struct iphdr ip;
	__u16 sport, dport;     /* host byte order; valid if has_ports */
	__u8 has_ports;
	__u8 first_fragment, later_fragment;
};

static __always_inline int is_loopback(__be32 address)
{
	return (address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline int is_of_kind(__be32 address, enum address_kind kind)
{
	__u8 *known = bpf_map_lookup_elem(&local_addresses, &address);

	return known && *known == kind;
}

/* Multicast, reserved and the limited broadcast address are 224.0.0.0 and above. */
static __always_inline int is_unicast(__be32 address)
{
	return bpf_ntohl(address) < 0xe0000000 && !is_of_kind(address, BROADCAST);
}

static __always_inline int is_own(__be32 address)
{
	return is_of_kind(address, OWN);
}

static __always_inline int is_local(__be32 address)
{
	return is_loopback(address) || is_own(address);
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

/* False: the packet is shorter than its headers say. The fragment offset is looked at before the ports: a later
 * fragment carries payload where the first one has ports. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *packet)
{
	__u16 fragment;
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &packet->ip, sizeof(packet->ip)) || packet->ip.ihl < 5)
		return 0;
	fragment = bpf_ntohs(packet->ip.frag_off);
	packet->later_fragment = (fragment & FRAGMENT_OFFSET) != 0;
	packet->first_fragment = !packet->later_fragment && (fragment & MORE_FRAGMENTS);
	packet->has_ports = 0;
	packet->sport = packet->dport = 0;
	if (packet->later_fragment)
		return 1;
	switch (packet->ip.protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		break;
	default:
		return 1;
	}
	if (bpf_skb_load_bytes(skb, ETH_HLEN + packet->ip.ihl * 4, ports, sizeof(ports)))
		return 0;
	packet->sport = bpf_ntohs(ports[0]);
	packet->dport = bpf_ntohs(ports[1]);
	packet->has_ports = 1;
	return 1;
}

static __always_inline int refuse(__u32 slot, enum reason reason, const struct packet *packet)
{
	struct drops *book = bpf_map_lookup_elem(&drops, &slot);

	if (book && reason < REASONS) {
		struct sample *last = &book->last[reason];

		__sync_fetch_and_add(&book->count[reason], 1);
		last->time_ns = bpf_ktime_get_boot_ns();
		if (packet) {
			last->saddr = packet->ip.saddr;
			last->daddr = packet->ip.daddr;
			last->sport = packet->sport;
			last->dport = packet->dport;
			last->protocol = packet->ip.protocol;
		}
	}
	return TC_ACT_SHOT;
}
