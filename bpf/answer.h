/* SPDX-License-Identifier: Apache-2.0 */
/* The host's word to a container whose packet it cannot send on: an ICMP error, as a router's (RFC 1812, RFC 4443).
 *
 * The packet itself is cut down to what an error quotes and rewritten where it lies: Ethernet, IP, ICMP, quote. It comes
 * from the host's address, which is the container's own too; inside, accept_local lets it in.
 */
#pragma once

#include "refuse.h"

#define QUOTED_TRANSPORT 8      /* bytes behind the quoted IP header; the ports are among them */
#define MAX_QUOTE (60 + QUOTED_TRANSPORT)
#define TTL 64

struct icmp_error {
	__u8 type, code;
	__be16 checksum;
	__be32 information;     /* MTU */
};

struct ipv4_answer {
	struct iphdr ip;
	struct icmp_error icmp;
};

struct ipv6_answer {
	struct ipv6hdr ip;
	struct icmp_error icmp;
};

struct ipv6_pseudo_header {     /* RFC 8200, 8.1 */
	struct address saddr, daddr;
	__be32 length, next;
};

static __always_inline __be16 folded(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* False: there is nobody to tell, or no way to. */
BY_ITSELF int answer_ipv4(struct __sk_buff *skb, __u32 header_length, __u32 type_and_code, __u32 information)
{
	__u8 quote[MAX_QUOTE] = {};
	struct ipv4_answer answer = {};
	struct iphdr ip;
	__u32 length = (header_length & 0x3c) + QUOTED_TRANSPORT;
	__s64 sum;

	if (length < sizeof(ip) + QUOTED_TRANSPORT || length > MAX_QUOTE)
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, quote, length))
		return 0;
	__builtin_memcpy(&ip, quote, sizeof(ip));
	answer.ip.version = 4;
	answer.ip.ihl = sizeof(ip) / 4;
	answer.ip.ttl = TTL;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.tot_len = bpf_htons(sizeof(answer) + length);
	answer.ip.saddr = answer.ip.daddr = ip.saddr;
	answer.ip.check = folded(bpf_csum_diff(NULL, 0, (void *)&answer.ip, sizeof(answer.ip), 0));
	answer.icmp.type = type_and_code >> 8;
	answer.icmp.code = type_and_code;
	answer.icmp.information = bpf_htonl(information);
	sum = bpf_csum_diff(NULL, 0, (void *)&answer.icmp, sizeof(answer.icmp), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)quote, length, sum);
	answer.icmp.checksum = folded(sum);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(answer) + length, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(answer), quote, length, 0))
		return 0;
	return 1;
}

BY_ITSELF int answer_ipv6(struct __sk_buff *skb, __u32 type_and_code, __u32 information)
{
	__u8 quote[sizeof(struct ipv6hdr) + QUOTED_TRANSPORT];
	struct ipv6_pseudo_header pseudo = {};
	struct ipv6_answer answer = {};
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, quote, sizeof(quote)))
		return 0;
	answer.ip.version = 6;
	answer.ip.payload_len = bpf_htons(sizeof(answer.icmp) + sizeof(quote));
	answer.ip.nexthdr = IPPROTO_ICMPV6;
	answer.ip.hop_limit = TTL;
	__builtin_memcpy(&answer.ip.saddr, quote + 8, sizeof(answer.ip.saddr));
	answer.ip.daddr = answer.ip.saddr;
	answer.icmp.type = type_and_code >> 8;
	answer.icmp.code = type_and_code;
	answer.icmp.information = bpf_htonl(information);
	__builtin_memcpy(&pseudo.saddr, quote + 8, sizeof(pseudo.saddr));
	pseudo.daddr = pseudo.saddr;
	pseudo.length = bpf_htonl(sizeof(answer.icmp) + sizeof(quote));
	pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, (void *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)&answer.icmp, sizeof(answer.icmp), sum);
	sum = bpf_csum_diff(NULL, 0, (void *)quote, sizeof(quote), sum);
	answer.icmp.checksum = folded(sum);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(answer) + sizeof(quote), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(answer), quote, sizeof(quote), 0))
		return 0;
	return 1;
}

/* Turn the packet into an error about itself. No error answers a later fragment, or an ICMP error (RFC 1122, 3.2.2). */
static __always_inline int answer(struct __sk_buff *skb, const struct packet *packet, __u8 type, __u8 code,
				  __u32 information)
{
	if (packet->kind != WITH_PORTS && packet->kind != ECHO_REQUEST)
		return 0;
	if (packet->family == AF_INET)
		return answer_ipv4(skb, packet->transport - ETH_HLEN, type << 8 | code, information);
	return answer_ipv6(skb, type << 8 | code, information);
}
