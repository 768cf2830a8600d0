/* SPDX-License-Identifier: Apache-2.0 */
/* The host answers a container's ARP requests for everybody (proxy ARP, RFC 1027), since all that the container sends goes
 * by the host anyway. A container needs no answer itself, its one neighbour being fixed; programs such as arping ask.
 * Whatever else it says by ARP is refused: about addresses a container has no say.
 */
#pragma once

#include "refuse.h"

/* <linux/if_arp.h> drags in the C library's headers. RFC 826, RFC 5494. */
#define ARPHRD_ETHER 1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY 2

struct arp {                    /* RFC 826, for Ethernet and IPv4 */
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed));

/* Turn a question into its answer. False: it is none. */
static __always_inline int answer_arp(struct __sk_buff *skb, const __u8 *mac)
{
	struct address sender, target;
	struct arp arp;
	__be32 asked;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) || arp.operation != bpf_htons(ARPOP_REQUEST) ||
	    arp.hardware != bpf_htons(ARPHRD_ETHER) || arp.protocol != bpf_htons(ETH_P_IP))
		return 0;
	sender = ipv4_mapped(arp.sender);
	target = ipv4_mapped(arp.target);
	if (!is_own(&sender) || is_local(&target) || !is_unicast(&target))
		return 0;
	asked = arp.target;
	arp.operation = bpf_htons(ARPOP_REPLY);
	arp.target = arp.sender;
	__builtin_memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
	arp.sender = asked;
	__builtin_memcpy(arp.sender_mac, mac, ETH_ALEN);
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &arp, sizeof(arp), 0) &&
	       !bpf_skb_store_bytes(skb, 0, arp.target_mac, ETH_ALEN, 0) &&
	       !bpf_skb_store_bytes(skb, ETH_ALEN, mac, ETH_ALEN, 0);
}
