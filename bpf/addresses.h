/* SPDX-License-Identifier: Apache-2.0 */
/* Whose an address is. Both families are compared as IPv6 addresses, so that no program asks which one it has. */
#pragma once

#include "maps.h"

#include <bpf/bpf_endian.h>

#define MAPPED bpf_htonl(0xffff)    /* third word of an IPv4 address */

static __always_inline struct address ipv4_mapped(__be32 ipv4)
{
	return (struct address){ .word = { 0, 0, MAPPED, ipv4 } };
}

static __always_inline int is_ipv4(const struct address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == MAPPED;
}

static __always_inline int is_same(const struct address *one, const struct address *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1] && one->word[2] == other->word[2] &&
	       one->word[3] == other->word[3];
}

/* 127.0.0.0/8 and ::1 */
static __always_inline int is_loopback(const struct address *address)
{
	if (is_ipv4(address))
		return (address->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !address->word[0] && !address->word[1] && !address->word[2] && address->word[3] == bpf_htonl(1);
}

static __always_inline int is_of_kind(const struct address *address, enum address_kind kind)
{
	__u8 *known = bpf_map_lookup_elem(&host_addresses, address);

	return known && *known == kind;
}

/* Multicast: ff00::/8; with reserved and the limited broadcast address 224.0.0.0 and above. */
static __always_inline int is_unicast(const struct address *address)
{
	if (is_ipv4(address))
		return bpf_ntohl(address->word[3]) < 0xe0000000 && !is_of_kind(address, BROADCAST);
	return (address->word[0] & bpf_htonl(0xff000000)) != bpf_htonl(0xff000000);
}

static __always_inline int is_own(const struct address *address)
{
	return is_of_kind(address, OWN);
}

static __always_inline int is_local(const struct address *address)
{
	return is_loopback(address) || is_own(address);
}
