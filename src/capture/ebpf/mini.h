/* What the programs need of the kernel, and nothing else: no vmlinux.h, no
 * libbpf, so that clang alone compiles them.
 *
 * Three parts: structures whose layout is part of the user-space interface,
 * the helpers (their numbers are part of it too), and the few fields of the
 * kernel's own structures, whose offsets the loader fits to the running kernel
 * with its type information (CO-RE). */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
/* Keeps a masked value in its register: kernels up to 6.1 lose the range of a
 * value that the compiler has spilled or whose mask it thought needless. */
#define barrier_var(v) asm volatile("" : "+r"(v))

#define ETH_P_IP_BE 0x0008
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_LISTEN 10
#define PF_KTHREAD 0x00200000

static __always_inline u16 swap16(u16 x) { return __builtin_bswap16(x); }

/* ---- structures of the user-space interface ---- */

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};
#define BPF_F_NO_PREALLOC 1u
#define BPF_F_CLONE (1u << 9)
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_SK_STORAGE_GET_F_CREATE 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0

struct bpf_sock {
	u32 bound_dev_if, family, type, protocol, mark, priority;
	u32 src_ip4;
	u32 src_ip6[4];
	u32 src_port; /* host byte order */
	u16 dst_port; /* network byte order */
	u16 unused;
	u32 dst_ip4;
	u32 dst_ip6[4];
	u32 state;
	s32 rx_queue_mapping;
};

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	u32 ingress_ifindex, ifindex, tc_index;
	u32 cb[5];
	u32 hash, tc_classid, data, data_end, napi_id, family;
	u32 remote_ip4, local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port, local_port, data_meta;
	union { void *flow_keys; } __attribute__((aligned(8)));
	u64 tstamp;
	u32 wire_len, gso_segs;
	union { struct bpf_sock *sk; } __attribute__((aligned(8)));
	u32 gso_size;
};

/* ---- helpers ---- */

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 length) = (void *)26;
static u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)95;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, u64 flags) = (void *)107;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_seq_write)(void *seq, const void *data, u32 length) = (void *)127;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static u64 (*bpf_ringbuf_query)(void *ring, u64 what) = (void *)134;
static struct tcp_sock *(*bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static void *(*bpf_sock_from_file)(void *file) = (void *)162;

/* ---- structures of the kernel, relocated when the programs are loaded ---- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common { u32 inum; };
struct net { struct ns_common ns; };
typedef struct { struct net *net; } possible_net_t;
struct sock_common {
	u16 skc_family;
	volatile u8 skc_state;
	possible_net_t skc_net;
};
typedef struct { int owned; } socket_lock_t;
struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	u16 sk_protocol;
	u16 sk_type;
};
struct tcp_sock {
	u64 bytes_sent, bytes_acked, bytes_received, bytes_retrans;
	u8 is_mptcp;
};
struct socket { struct sock *sk; };
struct qstr { const unsigned char *name; };
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};
struct inode {
	u32 i_nlink;
	unsigned long i_ino;
};
struct vfsmount { struct dentry *mnt_root; };
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file { struct path f_path; };
struct fs_struct { struct path pwd; };
struct mm_struct {
	unsigned long arg_start, arg_end;
	struct file *exe_file;
};
typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;
struct cred {
	kuid_t euid;
	kgid_t egid;
};
struct nsproxy { struct net *net_ns; };
struct kernfs_node {
	const char *name;
	struct kernfs_node *__parent;
	u64 id;
};
struct kernfs_node___before_6_15 { struct kernfs_node *parent; };
struct cgroup { struct kernfs_node *kn; };
struct css_set { struct cgroup *dfl_cgrp; };
struct task_struct {
	u32 flags;
	int pid, tgid;
	int exit_code;
	struct task_struct *real_parent, *group_leader;
	u64 start_boottime;
	char comm[16];
	const struct cred *cred;
	kuid_t loginuid;
	struct nsproxy *nsproxy;
	struct fs_struct *fs;
	struct mm_struct *mm;
	struct css_set *cgroups;
	u32 self_exec_id;
};
struct bpf_iter_meta { void *seq; };
struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct sock *sk;
	void *value;
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct file *file;
};
#pragma clang attribute pop

#define field_offset(type, member) __builtin_preserve_field_info(((type *)0)->member, 0)
#define field_exists(access) __builtin_preserve_field_info(access, 2)
/* Reads one field of a kernel structure. It relocates every access inside it,
 * also one to a structure of our own: copy those to a local first. */
#define KREAD(to, field) bpf_probe_read_kernel(&(to), sizeof(to), __builtin_preserve_access_index(&(field)))
