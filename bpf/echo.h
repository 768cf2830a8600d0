/* SPDX-License-Identifier: Apache-2.0 */
/* Who asked? An echo reply names no port, so requests are remembered as they leave: by peer, id and sequence number
 * (RFC 792, RFC 4443). Two containers may choose the same three; the second has to wait until the first one's answer
 * can no longer be on its way, so that no reply ever reaches another than who asked.
 */
#pragma once

#include "refuse.h"

#define ECHO_CLASH_NS 2000000000ll
#define ECHO_LIFE_NS 60000000000ll
#define ECHO_LIMIT 1000         /* requests of a container a second: the memory is everybody's */

struct echo_key {
	struct address peer;
	struct echo echo;
};

struct asker {
	__u64 time_ns;
	__u32 slot;
	__u32 ifindex;  /* of the asker's veth: the slot may have another container by now */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct echo_key);
	__type(value, struct asker);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} echo_askers SEC(".maps");

/* Nanoseconds since the request; another processor's clock may be a little ahead, so they may be negative. */
static __always_inline __s64 age_of(const struct asker *asker, __u64 now)
{
	return now - asker->time_ns;
}

/* Is the container still there that asked? */
static __always_inline int is_there(const struct asker *asker)
{
	struct slot *container = bpf_map_lookup_elem(&slots, &asker->slot);

	return container && container->ifindex == asker->ifindex;
}

/* A request leaves. False: it may not, for this reason. */
static __always_inline int ask(__u32 slot, __u32 ifindex, const struct packet *packet, enum reason *refusal)
{
	struct echo_key key = { .peer = packet->daddr, .echo = packet->echo };
	struct asker asker = { .time_ns = bpf_ktime_get_ns(), .slot = slot, .ifindex = ifindex };
	struct asker *other = bpf_map_lookup_elem(&echo_askers, &key);

	if (other && other->ifindex != ifindex && age_of(other, asker.time_ns) < ECHO_CLASH_NS && is_there(other)) {
		*refusal = ECHO_CLASH;
		return 0;
	}
	if (!spend(slot, ECHO_PER_SECOND, ECHO_LIMIT)) {
		*refusal = ECHO_RATE;
		return 0;
	}
	bpf_map_update_elem(&echo_askers, &key, &asker, BPF_ANY);
	return 1;
}

/* The slot that asked `peer`; HOST if none did. */
static __always_inline __u32 asker_of(const struct address *peer, const struct echo *echo)
{
	struct echo_key key = { .peer = *peer, .echo = *echo };
	struct asker *asker = bpf_map_lookup_elem(&echo_askers, &key);

	if (!asker || age_of(asker, bpf_ktime_get_ns()) >= ECHO_LIFE_NS || !is_there(asker))
		return HOST;
	return asker->slot;
}
