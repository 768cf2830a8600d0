/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs and the agent share.
 *
 * What the agent reads and writes often is an mmapable array: memory, without a system call a port or a counter. Array
 * elements are padded to 8 bytes; the layouts are mirrored in src/portslice/network/dataplane.py.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* A function that the verifier checks by itself, once, and not anew for every path that leads to it: the programs would
 * be too much for it (kernel 6.1). What a pointer points to must have been initialised. */
#define BY_ITSELF __attribute__((noinline))

#define PORTS 65536
#define SLOTS 4096          /* 65,536 ports in blocks of the smallest size, 16 */
#define HOST 0              /* the slot of the host: owner of every port that no container owns */
#define WORLD 0xffffffffu   /* as a target: out of the host, by its routes */
#define CONTAINER_NIC 2     /* interface index of the NIC inside every container: asked for at its creation */
#define CONTAINER_LOOPBACK 1

/* Why a packet was refused. The names are repeated in dataplane.py; append only: counters outlive an agent's update. */
enum reason {
	FOREIGN_PORT,       /* source port outside the sender's slice */
	FOREIGN_SOURCE,     /* source address is not the host's, or a loopback source leaving the host */
	NOT_UNICAST,        /* to a broadcast or multicast address */
	UNKNOWN_FRAGMENT,   /* later fragment of a datagram whose first one was not seen before */
	PROTOCOL,           /* a protocol without ports */
	NOT_IP,             /* neither IPv4 nor IPv6, or with a VLAN tag */
	MALFORMED,          /* shorter than its headers say */
	MARTIAN_SOURCE,     /* from the wire with a loopback, multicast or own source address */
	MARTIAN_DESTINATION,/* from the wire to a loopback address */
	NEIGHBOUR,          /* ARP, neighbour and router discovery, multicast listener reports */
	FOREIGN_ICMP,       /* an ICMP error about no packet to the sender's ports, or an answer that nobody asked for */
	ECHO_CLASH,         /* another container awaits the answer to an equal echo request */
	ECHO_RATE,          /* more than ECHO_LIMIT requests in a second */
	NEIGHBOUR_RATE,     /* more than NEIGHBOUR_LIMIT new neighbours in a second */
	INCOMPLETE_DATAGRAMS,/* more unfinished fragments with this host than INCOMPLETE_MAX */
	TOO_BIG,            /* longer than the route's MTU; the sender was told */
	UNROUTABLE,         /* the host has no route; the sender was told */
	HOST_LOOPBACK,      /* to a service on the host's loopback, which is closed to containers */
	REASONS = 32,
};

struct address {
	__be32 word[4];     /* IPv6, or IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2) */
};

struct sample {
	__u64 time_ns;      /* bpf_ktime_get_boot_ns */
	struct address saddr, daddr;
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

/* struct config.flags */
#define WITH_IPV6 1u
#define HOST_LOOPBACK_CLOSED 2u

struct config {
	__u32 flags;
	__u32 loopback;     /* interface index on the host */
	__u8 loopback_mac[6];
	__u8 container_mac[6]; /* of the NIC inside every container */
	__u32 container_mtu;   /* likewise */
	__u8 examined_mac[6];  /* source of the frames on the host's loopback that container_egress of this agent has
				* examined: nothing is left to find out */
	__u8 unused[2];
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

/* The host's addresses to their kind; loopback ones are known by their prefix. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} host_addresses SEC(".maps");

/* Slots by interface, for packets whose ports do not name their sender. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} slot_by_ifindex SEC(".maps");
