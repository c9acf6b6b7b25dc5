/* Everything the programs remember. */
#pragma once
#include "records.h"

/* What a socket knows of itself. It lives inside the kernel's own socket, so
 * that counting costs no look-up in a table and needs no upper bound.
 *
 * What a packet needs is in the first 56 octets, which with the kernel's own
 * 8 before them are one line of the cache. */
struct socket_info {
	struct execution owner;
	u32 remote[4];
	/* Most packets of a socket have headers of one length. Such a packet
	 * costs one addition: packets are the upper 24 bits of a word, and
	 * bytes of payload the lower 40. The rest adds its packets and bytes of
	 * headers to a second word, and its payload to the first. */
	u64 plain_out, plain_in;
	union {
		struct {
			u8 protocol, family;
			u16 header; /* set once, see add_unusual; 0: not yet known */
		};
		u32 shape;
	};
	u16 remote_port_be;
	u8 flags, opened;

	u64 unusual_out, unusual_in;
	u64 cookie;
	u32 netns;
	u32 local[4];
	u16 local_port;
};
#define SHAPE(protocol, family, header) ((u32)(header) << 16 | (u32)(family) << 8 | (protocol))
#define PACKET_BITS 40
#define BYTE_MASK ((1ull << PACKET_BITS) - 1)

/* socket_info.flags */
#define HAS_TUPLE 1    /* both ends are known */
#define UNCONNECTED 2  /* they are those of one of several peers */
#define PAYLOAD 4      /* one payload was reported: this and the next two bits count them */
#define PAYLOADS 28    /* no more are reported: they tell no name, or enough were */
#define QUIC_PAYLOADS 12 /* a client's first flight: the key share alone can fill one datagram */

/* Accepted sockets inherit their listener's entry (BPF_F_CLONE). The clone
 * copies counters too: a listener must never count in its own entry. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, s32);
	__type(value, struct socket_info);
} sockets SEC(".maps");

/* Flows that have no socket entry of their own: further peers of an
 * unconnected socket, listeners, the kernel's sockets, former owners. Two
 * maps: the programs fill one while the other is read and emptied. */
#define FLOWS 65536
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows_a SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows_b SEC(".maps");

/* What each execution has in the map that is being filled: whoever sends to
 * ever new destinations loses its own, and nobody else's. */
#define FLOWS_OF_ONE (FLOWS / 2)
struct share {
	u64 epoch, flows;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct execution);
	__type(value, struct share);
} shares SEC(".maps");

/* Bytes of processes for which the flow map had no room: the process is kept,
 * the destination is given up. Never emptied, so it holds totals. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nowhere);
	__type(value, struct counters);
} overflow SEC(".maps");

/* Executions that were reported, and how far. */
#define KNOWN_AS_ANCESTOR 1
#define KNOWN_AS_OWNER 2
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct execution);
	__type(value, u32);
} reported SEC(".maps");

/* Arguments of each execution, taken at its exec, while they can be read:
 * nobody may read another process's memory later, when it is an ancestor. */
struct arguments {
	u32 length, total;
	char text[ANCESTOR_ARGS];
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct execution);
	__type(value, struct arguments);
} arguments_of SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct arguments);
} no_arguments SEC(".maps");

#define RING_SIZE (4u << 20)
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_SIZE);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STATISTICS);
	__type(key, u32);
	__type(value, u64);
} statistics SEC(".maps");

#define ADD(to, value) __sync_fetch_and_add(&(to), (value))
#define TAKE(from) __sync_lock_test_and_set(&(from), 0)

static __always_inline void count(u32 which, u64 by)
{
	u64 *p = bpf_map_lookup_elem(&statistics, &which);
	if (p)
		ADD(*p, by);
}

/* The reader sleeps until its tick unless much is waiting: waking it for each
 * record would cost more than the record. */
static const volatile u32 wake_at = 262144;
static __always_inline u64 ring_flags(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > wake_at ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}
