/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs and the agent share.
 *
 * All maps but `fragments` are mmapable arrays: the agent reads and writes them as memory, without a system call a port
 * or a counter. Array elements are padded to 8 bytes; the layouts are mirrored in src/portslice/network/dataplane.py.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PORTS 65536
#define SLOTS 4096          /* 65,536 ports in blocks of the smallest size, 16 */
#define HOST 0              /* the slot of the host: owner of every port that no container owns */
#define WORLD 0xffffffffu   /* as a target: out of the host's NIC */
#define CONTAINER_NIC 2     /* interface index of the NIC inside every container: asked for at its creation */

/* Why a packet was refused. The names are repeated in dataplane.py; append only: counters outlive an agent's update. */
enum reason {
	FOREIGN_PORT,       /* source port outside the sender's slice */
	FOREIGN_SOURCE,     /* source address is not the host's, or a loopback source leaving the host */
	NOT_UNICAST,        /* to a broadcast or multicast address */
	UNKNOWN_FRAGMENT,   /* later fragment of a datagram whose first one was not seen */
	PROTOCOL,           /* IPv4, but a protocol without ports */
	NOT_IPV4,           /* ARP, IPv6 and others: a container's neighbours are fixed */
	MALFORMED,          /* shorter than its headers say */
	MARTIAN_SOURCE,     /* from the wire with a loopback, multicast or own source address */
	MARTIAN_DESTINATION,/* from the wire to a loopback address */
	REASONS = 16,
};

struct sample {
	__u64 time_ns;      /* bpf_ktime_get_boot_ns */
	__be32 saddr, daddr;
	__u16 sport, dport; /* host byte order, 0 if the packet has none */
	__u8 protocol;
	__u8 unused[3];
};

struct drops {
	__u64 count[REASONS];
	struct sample last[REASONS];
};

struct slot {
	__u32 ifindex;      /* host end of the container's veth; 0: the slot is free */
	__u32 priority;     /* skb->priority on the NIC: class id of the container's flow, or 0 */
	__u32 shaped;       /* not 0: what it receives passes the queues of the host end */
	__u32 unused;
};

struct config {
	__u32 nic, loopback;/* interface indexes on the host */
	__u8 loopback_mac[6];
	__u8 container_mac[6]; /* of the NIC inside every container */
	__u32 container_mtu;   /* likewise */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u64);  /* slot; 8 bytes, so that the agent's stores are whole */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} port_owner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct drops);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drops SEC(".maps");

/* What an address is to the host; mirrored in dataplane.py. */
enum address_kind {
	OWN = 1,
	BROADCAST = 2,      /* of a network that the host is on */
};

/* IPv4 addresses (network byte order) to their kind; loopback ones are known by their prefix. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __be32);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} local_addresses SEC(".maps");

/* Slots by interface, for packets whose ports do not name their sender. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} slot_by_ifindex SEC(".maps");
