/* SPDX-License-Identifier: Apache-2.0 */
/* The book of refusals, and the allowances behind some of them. */
#pragma once

#include "packet.h"

#include <linux/pkt_cls.h>

static __always_inline int refuse(__u32 slot, enum reason reason, const struct packet *packet)
{
	struct drops *book = bpf_map_lookup_elem(&drops, &slot);

	if (book && reason < REASONS) {
		struct sample *last = &book->last[reason];

		__sync_fetch_and_add(&book->count[reason], 1);
		last->time_ns = bpf_ktime_get_boot_ns();
		if (packet) {
			last->saddr = packet->saddr;
			last->daddr = packet->daddr;
			last->sport = packet->sport;
			last->dport = packet->dport;
			last->protocol = packet->protocol;
		}
	}
	return TC_ACT_SHOT;
}

/* What a container may spend a second of something that all share. */
enum allowance {
	ECHO_PER_SECOND,
	NEIGHBOURS_PER_SECOND,
	ALLOWANCES,
};

struct spending {
	__u64 second[ALLOWANCES];
	__u32 spent[ALLOWANCES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct spending);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} spending SEC(".maps");

/* False: more than `limit` in this second. Two processors may both spend the last one; that is close enough. */
static __always_inline int spend(__u32 slot, enum allowance what, __u32 limit)
{
	struct spending *book = bpf_map_lookup_elem(&spending, &slot);
	__u64 second = bpf_ktime_get_ns() >> 30;

	if (!book || what >= ALLOWANCES)
		return 0;
	if (book->second[what] != second) {
		book->second[what] = second;
		book->spent[what] = 0;
	}
	if (book->spent[what] >= limit)
		return 0;
	__sync_fetch_and_add(&book->spent[what], 1);
	return 1;
}
