/* SPDX-License-Identifier: Apache-2.0 */
/* From an sk_buff to what the verdicts depend on: addresses, ports, kind.
 *
 * The fragment offset is looked at before anything behind the IP header: a later fragment carries payload where the
 * first one has its ports. An ICMP error is known by the packet that it quotes, so its `sport` and `dport` are those of
 * the quoted one: sent by the receiver of the error, from `sport`.
 */
#pragma once

#include "addresses.h"

#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

/* <linux/icmp.h> drags in the C library's headers. RFC 792, RFC 1812. */
#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_NET_UNREACH 0
#define ICMP_HOST_UNREACH 1
#define ICMP_FRAG_NEEDED 4
#define ICMP_PKT_FILTERED 13

#define AF_INET 2
#define AF_INET6 10
#define MORE_FRAGMENTS 0x2000
#define FRAGMENT_OFFSET 0x1fff
#define ICMPV6_NEIGHBOUR_FIRST 130  /* multicast listener query … redirect: RFC 2710, RFC 4861 */
#define ICMPV6_NEIGHBOUR_LAST 137
#define ICMPV6_LISTENER_REPORT_2 143 /* RFC 3810 */
#define MAX_EXTENSIONS 6

enum kind {
	OTHER,              /* a protocol without ports, or a later fragment */
	WITH_PORTS,
	ECHO_REQUEST,
	ECHO_REPLY,
	ICMP_ERROR,         /* quotes a packet with ports, or an echo request */
	NEIGHBOUR_DISCOVERY,
};

struct echo {
	__be16 id, sequence;
};

struct packet {
	struct address saddr, daddr;
	struct address quoted_saddr, quoted_daddr; /* ICMP_ERROR */
	__u32 transport;    /* offset of the transport header in the frame */
	__u32 end;          /* offset of the packet's end in the frame, as its header says */
	__u32 id;           /* of the datagram, if it is a fragment */
	__u32 fragment_offset; /* bytes */
	__u16 sport, dport; /* host byte order: WITH_PORTS, ICMP_ERROR */
	struct echo echo;   /* ECHO_REQUEST, ECHO_REPLY, ICMP_ERROR that quotes one */
	__u8 family;
	__u8 protocol;
	__u8 quoted_protocol;
	__u8 kind;
	__u8 first_fragment, later_fragment, last_fragment;
	__u8 quotes_echo;
};

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_UDPLITE || protocol == IPPROTO_DCCP;
}

struct network_header {
	struct address saddr, daddr;
	__u32 transport, end, id, fragment_offset;
	__u8 protocol;
	__u8 more_fragments;
	__u8 unused[2];
};

BY_ITSELF int parse_ipv4(struct __sk_buff *skb, __u32 at, struct network_header *header)
{
	struct iphdr ip;
	__u16 fragment;

	if (!header || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return 0;
	fragment = bpf_ntohs(ip.frag_off);
	header->saddr = ipv4_mapped(ip.saddr);
	header->daddr = ipv4_mapped(ip.daddr);
	header->transport = at + ip.ihl * 4;
	header->end = at + bpf_ntohs(ip.tot_len);
	header->id = ip.id;
	header->fragment_offset = (fragment & FRAGMENT_OFFSET) * 8;
	header->more_fragments = (fragment & MORE_FRAGMENTS) != 0;
	header->protocol = ip.protocol;
	return 1;
}

/* Mapped addresses never travel (RFC 4291 has them for hosts' own use): in an IPv6 header they would pass for IPv4. */
BY_ITSELF int parse_ipv6(struct __sk_buff *skb, __u32 at, struct network_header *header)
{
	struct ipv6hdr ip;
	__u8 protocol;

	if (!header || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
		return 0;
	__builtin_memcpy(&header->saddr, &ip.saddr, sizeof(header->saddr));
	__builtin_memcpy(&header->daddr, &ip.daddr, sizeof(header->daddr));
	if (is_ipv4(&header->saddr) || is_ipv4(&header->daddr))
		return 0;
	header->end = at + sizeof(ip) + bpf_ntohs(ip.payload_len);
	header->id = header->fragment_offset = header->more_fragments = 0;
	protocol = ip.nexthdr;
	at += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 extension[8];  /* RFC 8200: next header, length in units of 8 bytes without the first */

		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING && protocol != IPPROTO_DSTOPTS &&
		    protocol != IPPROTO_FRAGMENT)
			break;
		if (header->fragment_offset)
			break;
		if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
			return 0;
		if (protocol == IPPROTO_FRAGMENT) {
			__u16 fragment = extension[2] << 8 | extension[3];

			header->fragment_offset = fragment & ~7u;
			header->more_fragments = fragment & 1;
			__builtin_memcpy(&header->id, extension + 4, sizeof(header->id));
			at += sizeof(extension);
		} else {
			at += (extension[1] + 1) * 8;
		}
		protocol = extension[0];
	}
	header->transport = at;
	header->protocol = protocol;
	return 1;
}

static __always_inline int load_ports(struct __sk_buff *skb, __u32 at, struct packet *packet)
{
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return 0;
	packet->sport = bpf_ntohs(ports[0]);
	packet->dport = bpf_ntohs(ports[1]);
	return 1;
}

/* What an ICMP error quotes begins `at`. One that quotes nothing that we could deliver stays OTHER. */
static __always_inline int parse_quote(struct __sk_buff *skb, __u32 at, struct packet *packet)
{
	struct network_header quoted = {};
	__u8 icmp[8];   /* type, code, checksum, id, sequence */
	int whole = packet->family == AF_INET ? parse_ipv4(skb, at, &quoted) : parse_ipv6(skb, at, &quoted);

	if (!whole)
		return 0;
	if (quoted.fragment_offset)
		return 1;
	packet->quoted_saddr = quoted.saddr;
	packet->quoted_daddr = quoted.daddr;
	packet->quoted_protocol = quoted.protocol;
	if (has_ports(quoted.protocol)) {
		packet->kind = ICMP_ERROR;
		return load_ports(skb, quoted.transport, packet);
	}
	if (quoted.protocol != packet->protocol)
		return 1;
	if (bpf_skb_load_bytes(skb, quoted.transport, icmp, sizeof(icmp)))
		return 0;
	if (icmp[0] != (packet->family == AF_INET ? ICMP_ECHO : ICMPV6_ECHO_REQUEST))
		return 1;
	__builtin_memcpy(&packet->echo, icmp + 4, sizeof(packet->echo));
	packet->quotes_echo = 1;
	packet->kind = ICMP_ERROR;
	return 1;
}

static __always_inline int parse_icmp(struct __sk_buff *skb, struct packet *packet)
{
	__u8 icmp[8];

	if (bpf_skb_load_bytes(skb, packet->transport, icmp, sizeof(icmp)))
		return 0;
	__builtin_memcpy(&packet->echo, icmp + 4, sizeof(packet->echo));
	if (packet->family == AF_INET) {
		switch (icmp[0]) {
		case ICMP_ECHO:
			packet->kind = ECHO_REQUEST;
			return 1;
		case ICMP_ECHOREPLY:
			packet->kind = ECHO_REPLY;
			return 1;
		case ICMP_DEST_UNREACH:
		case ICMP_SOURCE_QUENCH:
		case ICMP_TIME_EXCEEDED:
		case ICMP_PARAMETERPROB:
			return parse_quote(skb, packet->transport + sizeof(icmp), packet);
		}
		return 1;
	}
	if (icmp[0] == ICMPV6_ECHO_REQUEST)
		packet->kind = ECHO_REQUEST;
	else if (icmp[0] == ICMPV6_ECHO_REPLY)
		packet->kind = ECHO_REPLY;
	else if ((icmp[0] >= ICMPV6_NEIGHBOUR_FIRST && icmp[0] <= ICMPV6_NEIGHBOUR_LAST) ||
		 icmp[0] == ICMPV6_LISTENER_REPORT_2)
		packet->kind = NEIGHBOUR_DISCOVERY;
	else if (icmp[0] >= ICMPV6_DEST_UNREACH && icmp[0] <= ICMPV6_PARAMPROB)
		return parse_quote(skb, packet->transport + sizeof(icmp), packet);
	return 1;
}

static __always_inline int is_ip(const struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6);
}

/* False: the packet is shorter than its headers say, or no IP. `packet` has to be all zeros. */
BY_ITSELF int parse(struct __sk_buff *skb, struct packet *packet)
{
	struct network_header header = {};
	int whole;

	if (!packet)
		return 0;
	packet->family = skb->protocol == bpf_htons(ETH_P_IP) ? AF_INET : AF_INET6;
	whole = packet->family == AF_INET ? parse_ipv4(skb, ETH_HLEN, &header) : parse_ipv6(skb, ETH_HLEN, &header);
	if (!whole)
		return 0;
	packet->saddr = header.saddr;
	packet->daddr = header.daddr;
	packet->transport = header.transport;
	packet->end = header.end;
	packet->id = header.id;
	packet->fragment_offset = header.fragment_offset;
	packet->protocol = header.protocol;
	packet->later_fragment = header.fragment_offset != 0;
	packet->first_fragment = !packet->later_fragment && header.more_fragments;
	packet->last_fragment = packet->later_fragment && !header.more_fragments;
	if (packet->later_fragment)
		return 1;
	if (has_ports(packet->protocol)) {
		packet->kind = WITH_PORTS;
		return load_ports(skb, packet->transport, packet);
	}
	if (packet->protocol == (packet->family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return parse_icmp(skb, packet);
	return 1;
}
