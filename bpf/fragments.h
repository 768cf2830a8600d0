/* SPDX-License-Identifier: Apache-2.0 */
/* Later fragments carry no ports: they follow the way of the first one, which is remembered by the IP header's own key
 * of a datagram (RFC 791, RFC 8200: source, destination, protocol, identification).
 *
 * Three memories, so that nobody's fragments push out another's:
 *
 *   from the wire and from the host's processes   one LRU, by interface
 *   from a container                              a few places per slot; identifications are consecutive, so the place
 *                                                 is their remainder
 *   on a container's loopback                     with the sending socket
 *
 * The memory of a container also knows how much of a datagram was sent, because what is left unfinished lies in the
 * receiver's reassembly queue for half a minute, and the queue is everybody's: with the host and other containers a
 * container may leave only so much at once.
 */
#pragma once

#include "refuse.h"

#define UNKNOWN 0xfffffffeu     /* as a target: later fragments came before the first */

struct datagram {
	struct address saddr, daddr;
	__u32 seen_at;      /* interface */
	__u32 id;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct datagram);
	__type(value, __u32);   /* target: a slot, HOST or UNKNOWN */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} datagrams SEC(".maps");

static __always_inline struct datagram datagram_of(const struct __sk_buff *skb, const struct packet *packet)
{
	return (struct datagram){
		.saddr = packet->saddr,
		.daddr = packet->daddr,
		.seen_at = skb->ifindex,
		.id = packet->id,
		.protocol = packet->protocol,
	};
}

/* The target of a datagram's first fragment. Later ones that came before it went to the host and are lost. */
static __always_inline void remember(const struct __sk_buff *skb, const struct packet *packet, __u32 target)
{
	struct datagram key;
	__u32 *known;

	if (!packet->first_fragment)
		return;
	key = datagram_of(skb, packet);
	known = bpf_map_lookup_elem(&datagrams, &key);
	if (known && *known == UNKNOWN && target != HOST)
		refuse(target, UNKNOWN_FRAGMENT, packet);
	bpf_map_update_elem(&datagrams, &key, &target, BPF_ANY);
}

/* The target of a later fragment; HOST if it is not known. */
static __always_inline __u32 recall(const struct __sk_buff *skb, const struct packet *packet)
{
	struct datagram key = datagram_of(skb, packet);
	__u32 *known = bpf_map_lookup_elem(&datagrams, &key);
	__u32 unknown = UNKNOWN;

	if (!known) {
		bpf_map_update_elem(&datagrams, &key, &unknown, BPF_ANY);
		return HOST;
	}
	return *known == UNKNOWN ? HOST : *known;
}

/* A container's */

#define SENT_DATAGRAMS 32       /* that a container may have under way at once; a power of two */
#define INCOMPLETE_MAX 512      /* fragments in INCOMPLETE_SECONDS, a quarter of net.ipv4.ipfrag_high_thresh */
#define INCOMPLETE_SECONDS 30   /* net.ipv4.ipfrag_time */

struct sent_datagram {
	struct address daddr;
	__u32 id;
	__u32 target;
	__u32 sent, total;  /* bytes; the total is known by the last fragment */
	__u32 fragments;
	__u8 protocol;
	__u8 used;
	__u8 unused[2];
};

struct sent_datagrams {
	__u64 since;        /* second from which `incomplete` counts */
	__u64 incomplete;   /* fragments of unfinished datagrams to this host */
	struct sent_datagram datagram[SENT_DATAGRAMS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct sent_datagrams);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sent_datagrams SEC(".maps");

static __always_inline struct sent_datagram *place_of(struct sent_datagrams *book, const struct packet *packet)
{
	/* As a number: IPv4's is 16 bits long. */
	__u32 id = packet->family == AF_INET ? bpf_ntohs(packet->id) : bpf_ntohl(packet->id);

	return &book->datagram[id % SENT_DATAGRAMS];
}

/* False: the container has left too much unfinished with this host. */
static __always_inline int may_go_on(struct sent_datagrams *book, struct sent_datagram *sent,
				     const struct packet *packet)
{
	__u64 now = bpf_ktime_get_ns() / 1000000000ull;
	__u32 length = packet->end > packet->transport ? packet->end - packet->transport : 0;

	if (sent->target == WORLD)
		return 1;
	if ((__s64)(now - book->since) >= INCOMPLETE_SECONDS) {
		book->since = now;
		book->incomplete = 0;
	}
	if (book->incomplete >= INCOMPLETE_MAX)
		return 0;
	__sync_fetch_and_add(&book->incomplete, 1);
	sent->fragments++;
	sent->sent += length;
	if (packet->last_fragment)
		sent->total = packet->fragment_offset + length;
	if (sent->total && sent->sent >= sent->total)
		book->incomplete -= book->incomplete < sent->fragments ? book->incomplete : sent->fragments;
	return 1;
}

/* A container's packet leaves for `target`. False: it is a first fragment, and too much is unfinished. */
static __always_inline int begin_datagram(__u32 slot, const struct packet *packet, __u32 target)
{
	struct sent_datagrams *book;
	struct sent_datagram *sent;

	if (!packet->first_fragment)
		return 1;
	book = bpf_map_lookup_elem(&sent_datagrams, &slot);
	if (!book)
		return 0;
	sent = place_of(book, packet);
	*sent = (struct sent_datagram){
		.daddr = packet->daddr,
		.id = packet->id,
		.target = target,
		.protocol = packet->protocol,
		.used = 1,
	};
	return may_go_on(book, sent, packet);
}

/* The target of a container's later fragment, or why it is refused. */
static __always_inline int continue_datagram(__u32 slot, const struct packet *packet, __u32 *target,
					     enum reason *refusal)
{
	struct sent_datagrams *book = bpf_map_lookup_elem(&sent_datagrams, &slot);
	struct sent_datagram *sent;

	*refusal = UNKNOWN_FRAGMENT;
	if (!book)
		return 0;
	sent = place_of(book, packet);
	if (!sent->used || sent->id != packet->id || sent->protocol != packet->protocol ||
	    !is_same(&sent->daddr, &packet->daddr))
		return 0;
	*refusal = INCOMPLETE_DATAGRAMS;
	*target = sent->target;
	return may_go_on(book, sent, packet);
}

/* On a container's loopback */

#define SOCKET_DATAGRAMS 4

struct socket_datagrams {
	struct {
		struct address daddr;
		__u32 id;
		__u32 leaves;   /* through the NIC */
	} datagram[SOCKET_DATAGRAMS];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_datagrams);
} socket_datagrams SEC(".maps");

static __always_inline struct socket_datagrams *socket_book(struct __sk_buff *skb, __u64 flags)
{
	struct bpf_sock *socket = skb->sk;

	if (!socket)
		return NULL;
	socket = bpf_sk_fullsock(socket);
	return socket ? bpf_sk_storage_get(&socket_datagrams, socket, NULL, flags) : NULL;
}
