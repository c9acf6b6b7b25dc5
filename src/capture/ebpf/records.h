/* What passes between the kernel and Egret: keys, counters, records.
 * `record.rs` says the same in Rust and its tests compare the sizes. */
#pragma once
#include "mini.h"

/* One execution of one process: an exec makes a new one with the same pid. */
struct execution {
	u64 start; /* nanoseconds from boot to the start of the process */
	u32 tgid;  /* in the initial pid namespace; 0: the kernel itself */
	u32 exec;  /* the kernel's count of execs */
};

struct flow_key {
	u64 cookie; /* the socket's own number; the same as in sock_diag */
	struct execution owner;
	u32 remote[4];
	u16 remote_port, local_port;
	u8 protocol, family, zero[2];
};

/* Traffic whose destination was given up. */
struct nowhere {
	struct execution owner;
	u32 netns;
	u8 protocol, family, zero[2];
};

struct counters {
	u64 bytes_out, bytes_in; /* IP header and payload on the wire, after segmentation */
	u64 packets_out, packets_in;
	u64 payload_out, payload_in; /* behind the transport header */
};

enum opened { OPENED_UNKNOWN, OPENED_HERE, OPENED_THERE };

struct flow_value {
	struct counters count;
	u32 local[4];
	u32 netns;
	u8 opened, state, zero[2];
};

enum kind { PROCESS = 1, ANCESTOR, EXIT, FLOW, CLOSE, DNS, FIRST };

struct flow_record {
	u32 kind, size;
	u64 time;
	struct flow_key key;
	struct flow_value value;
};

struct close_record {
	struct flow_record flow;
	u64 tcp_sent, tcp_acked, tcp_received, tcp_retransmitted;
};

/* The beginning of one packet's payload. */
struct payload_header {
	u32 kind, size;
	u64 time;
	struct flow_key key;
	u32 local[4];
	u32 netns;
	u32 length;
	u32 outgoing;
	u32 sequence; /* of TCP */
};
struct payload_record { struct payload_header head; u8 data[2048]; };
struct short_payload_record { struct payload_header head; u8 data[512]; };

#define ANCESTORS 6
#define PATH_SIZE 1024
#define NAME_SIZE 256
#define CWD_SIZE 512
#define CGROUP_SIZE 512
#define CGROUP_NAME 128
#define ARGS_SIZE 1024
#define ANCESTOR_ARGS 256

/* A path or a control group, its names from the leaf up, each with its NUL. */
struct exe {
	u64 inode;
	u32 links;  /* 0: the file was removed, or never had a name (memfd) */
	u32 length; /* of `path` */
	u32 cut;    /* 1: the path goes further up than was read */
	u32 zero;
	char path[PATH_SIZE + NAME_SIZE];
};

struct process_record {
	u32 kind, size;
	u64 time;
	struct execution id;
	u32 uid, gid, login_uid, netns;
	u64 cgroup;
	u32 args_length, args_total;
	u32 cwd_length, cgroup_length;
	char comm[16];
	struct execution ancestors[ANCESTORS];
	struct exe exe;
	char cwd[CWD_SIZE + NAME_SIZE];
	char cgroup_path[CGROUP_SIZE + CGROUP_NAME];
	char args[ARGS_SIZE];
};

struct ancestor_record {
	u32 kind, size;
	u64 time;
	struct execution id;
	u32 args_length, args_known;
	char comm[16];
	struct exe exe;
	char args[ANCESTOR_ARGS];
};

struct exit_record {
	u32 kind, size;
	u64 time;
	struct execution id;
	u32 code, zero;
};

struct seed_record {
	struct execution id;
	u64 cookie;
};

/* Numbers that only grow, and the switch between the two flow maps. */
enum statistic {
	LOST_BYTES,
	LOST_PACKETS,
	RING_FULL,
	FLOWS_FULL,
	NAMES_SKIPPED,
	UNOWNED_PACKETS,
	EPOCH,
	FLOWS_ADDED, /* flows that were to be put in a map, there or not */
	STATISTICS,
};
