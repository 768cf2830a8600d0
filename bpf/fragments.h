/* SPDX-License-Identifier: Apache-2.0 */
/* Later fragments carry no ports: they follow the way of the first one, which is remembered by the IP header's own
 * key of a datagram (RFC 791: source, destination, protocol, identification).
 *
 * All containers share the host's address and number their datagrams independently, so the key also holds where the
 * fragment was seen: an interface on the host; inside a container, where every loopback has the same index, the socket.
 */
#pragma once

#include "packet.h"

struct datagram {
	__u64 seen_at;
	__be32 saddr, daddr;
	__be16 id;
	__u16 protocol;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct datagram);
	__type(value, __u32);   /* target: a slot, HOST or WORLD */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} fragments SEC(".maps");

static __always_inline struct datagram datagram_of(const struct packet *packet, __u64 seen_at)
{
	struct datagram key = {
		.seen_at = seen_at,
		.saddr = packet->ip.saddr,
		.daddr = packet->ip.daddr,
		.id = packet->ip.id,
		.protocol = packet->ip.protocol,
	};

	return key;
}

static __always_inline void remember(const struct packet *packet, __u64 seen_at, __u32 target)
{
	struct datagram key;

	if (!packet->first_fragment)
		return;
	key = datagram_of(packet, seen_at);
	bpf_map_update_elem(&fragments, &key, &target, BPF_ANY);
}

static __always_inline __u32 *recall(const struct packet *packet, __u64 seen_at)
{
	struct datagram key = datagram_of(packet, seen_at);

	return bpf_map_lookup_elem(&fragments, &key);
}
