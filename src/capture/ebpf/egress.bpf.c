/* Bytes per process and five-tuple, counted where sockets meet IP.
 *
 * cgroup_skb programs at the root of the control groups see each IP packet of
 * each socket in each network namespace, and no forwarded one. They add it to
 * the socket's own entry. Whose it is follows one rule: if the packet leaves
 * inside a system call, the running task is the owner. That alone is right for
 * fork, exec, passed descriptors, accept and fork, sendfile, io_uring. */
#include "maps.h"
#include "packet.h"
#include "process.h"

/* Read-only once loaded: the verifier removes what is switched off. */
static const volatile u32 report_names = 1; /* DNS messages and first payloads */

/* ---- flows outside of the sockets ---- */

static __always_inline struct flow_value *find_flow(u32 epoch, struct flow_key *key)
{
	return epoch & 1 ? bpf_map_lookup_elem(&flows_b, key) : bpf_map_lookup_elem(&flows_a, key);
}

/* Whether an execution may have one more flow in the map that is being filled. */
static __noinline int may_add_flow(u32 half, struct execution *owner)
{
	struct share first = { .epoch = half, .flows = 1 };
	struct share *share;
	if (!owner)
		return 0;
	share = bpf_map_lookup_elem(&shares, owner);
	if (!share) {
		bpf_map_update_elem(&shares, owner, &first, BPF_ANY);
		return 1;
	}
	if (share->epoch != half) {
		share->epoch = half;
		share->flows = 1;
		return 1;
	}
	if (share->flows >= FLOWS_OF_ONE)
		return 0;
	ADD(share->flows, 1);
	return 1;
}

/* Adds to the half that is being filled. No byte is lost when it is full, or
 * when this process has its share of it: the process keeps them, without their
 * destination. */
static __noinline int add_to_flow(struct flow_key *key, struct flow_value *value)
{
	u32 which = EPOCH;
	u64 *epoch = bpf_map_lookup_elem(&statistics, &which);
	if (!key || !value || !epoch)
		return 0;
	u32 half = *(volatile u64 *)epoch;
	struct flow_value *flow = find_flow(half, key);
	if (!flow && may_add_flow(half, &key->owner)) {
		/* After the half was chosen and before it gets the flow: a reader that sees no
		 * new one since it last turned to the other half finds nothing in either. */
		count(FLOWS_ADDED, 1);
		long failed = half & 1 ? bpf_map_update_elem(&flows_b, key, value, BPF_NOEXIST)
				       : bpf_map_update_elem(&flows_a, key, value, BPF_NOEXIST);
		if (!failed)
			return 0;
		flow = find_flow(half, key); /* somebody else was first, or it is full */
	}
	struct counters *to = flow ? &flow->count : NULL;
	if (!to) {
		struct nowhere nowhere = { .owner = key->owner, .netns = value->netns, .protocol = key->protocol,
					   .family = key->family };
		count(FLOWS_FULL, 1);
		to = bpf_map_lookup_elem(&overflow, &nowhere);
		if (!to) {
			struct counters zero = {};
			bpf_map_update_elem(&overflow, &nowhere, &zero, BPF_NOEXIST);
			to = bpf_map_lookup_elem(&overflow, &nowhere);
		}
		if (!to) {
			count(LOST_BYTES, value->count.bytes_out + value->count.bytes_in);
			count(LOST_PACKETS, value->count.packets_out + value->count.packets_in);
			return 0;
		}
	}
	if (value->count.packets_out) {
		ADD(to->bytes_out, value->count.bytes_out);
		ADD(to->packets_out, value->count.packets_out);
		ADD(to->payload_out, value->count.payload_out);
	}
	if (value->count.packets_in) {
		ADD(to->bytes_in, value->count.bytes_in);
		ADD(to->packets_in, value->count.packets_in);
		ADD(to->payload_in, value->count.payload_in);
	}
	return 0;
}

static __always_inline void key_of(struct flow_key *key, struct socket_info *info)
{
	key->cookie = info->cookie;
	key->owner = info->owner;
	__builtin_memcpy(key->remote, info->remote, 16);
	key->remote_port = swap16(info->remote_port_be);
	key->local_port = info->local_port;
	key->protocol = info->protocol;
	key->family = info->family;
	key->zero[0] = key->zero[1] = 0;
}

static __always_inline int has_counted(struct socket_info *info)
{
	return (info->plain_out | info->plain_in | info->unusual_out | info->unusual_in) != 0;
}

/* Takes what a socket has counted: each byte leaves its entry once. */
static __always_inline void take(struct flow_value *value, struct socket_info *info)
{
	u64 out = TAKE(info->plain_out), in = TAKE(info->plain_in);
	u64 unusual_out = TAKE(info->unusual_out), unusual_in = TAKE(info->unusual_in);
	value->count.payload_out = out & BYTE_MASK;
	value->count.payload_in = in & BYTE_MASK;
	out >>= PACKET_BITS;
	in >>= PACKET_BITS;
	value->count.packets_out = out + (unusual_out >> PACKET_BITS);
	value->count.packets_in = in + (unusual_in >> PACKET_BITS);
	value->count.bytes_out = out * info->header + (unusual_out & BYTE_MASK) + value->count.payload_out;
	value->count.bytes_in = in * info->header + (unusual_in & BYTE_MASK) + value->count.payload_in;
	__builtin_memcpy(value->local, info->local, 16);
	value->netns = info->netns;
	value->opened = info->opened;
	value->state = 0;
	value->zero[0] = value->zero[1] = 0;
}

/* Before the owner or the destination changes, and when the ring is full. */
static __noinline int move_to_flow(struct socket_info *info)
{
	struct flow_key key;
	struct flow_value value;
	if (!info || !has_counted(info))
		return 0;
	key_of(&key, info);
	take(&value, info);
	return add_to_flow(&key, &value);
}

/* ---- owners ---- */

/* Sockets that only receive, and listeners. */
SEC("cgroup/sock_create") int on_create(struct bpf_sock *sk)
{
	struct socket_info info = {};
	struct task_struct *task = bpf_get_current_task_btf();
	execution_of(&info.owner, task);
	ensure_reported(&info.owner);
	info.netns = namespace_of_task(task);
	info.cookie = bpf_get_socket_cookie(sk);
	bpf_sk_storage_get(&sockets, sk, &info, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

__noinline int create_entry(struct __sk_buff *skb, struct execution *owner)
{
	struct socket_info info = {};
	struct bpf_sock *sk = skb->sk;
	if (!sk || !owner)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	info.owner = *owner;
	info.netns = namespace_of_task(bpf_get_current_task_btf());
	info.cookie = bpf_get_socket_cookie(skb);
	bpf_sk_storage_get(&sockets, sk, &info, BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

/* Whether the running task is who the entry says it is. */
static __always_inline int is_owner(struct socket_info *info)
{
	struct task_struct *task = bpf_get_current_task_btf();
	return info->owner.tgid == (u32)task->tgid && info->owner.exec == task->self_exec_id;
}

/* If the running task is not the socket's owner: does it send this packet?
 *
 * UDP, ping and raw sockets only ever send inside a system call. TCP also
 * sends from the soft interrupt (clocked by ACKs, or by timers), but never
 * while a task holds the socket's lock. */
__noinline int take_over(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_info *info;
	struct execution id;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->state == TCP_LISTEN)
		return 0;
	/* Every socket of a process got its entry when it was created or when
	 * Egret started. One without belongs to the kernel (resets, ICMP
	 * errors, tunnels, NFS), or is a subflow of an MPTCP socket. */
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (info && is_owner(info))
		return 0;
	if (sk->protocol == IPPROTO_TCP) {
		struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
		if (!tcp || !((struct sock *)tcp)->sk_lock.owned)
			return 0;
		if (!info && !(field_exists(tcp->is_mptcp) && tcp->is_mptcp))
			return 0;
	} else if (!info || (sk->type != SOCK_DGRAM && sk->type != SOCK_RAW)) {
		return 0;
	}
	execution_of(&id, bpf_get_current_task_btf());
	if (!id.tgid)
		return 0;
	ensure_reported(&id);
	if (!info) {
		create_entry(skb, &id);
		return 0;
	}
	if (info->flags & HAS_TUPLE)
		move_to_flow(info);
	info->owner = id;
	return 0;
}

/* ---- names ---- */

/* Reserved in the ring, never in scratch memory of the processor: the egress
 * program runs in process context, and a soft interrupt may run the ingress
 * program in the middle of it. */
#define REPORT_PAYLOAD(record_type, capacity)                                                      \
	do {                                                                                       \
		struct record_type *record = bpf_ringbuf_reserve(&events, sizeof *record, 0);      \
		if (!record) {                                                                     \
			count(RING_FULL, 1);                                                       \
			return;                                                                    \
		}                                                                                  \
		record->head.kind = kind;                                                          \
		record->head.size = sizeof *record;                                                \
		record->head.time = bpf_ktime_get_boot_ns();                                       \
		record->head.key.cookie = cookie;                                                  \
		record->head.key.owner = *owner;                                                   \
		__builtin_memcpy(record->head.key.remote, h->remote, 16);                          \
		record->head.key.remote_port = h->remote_port;                                     \
		record->head.key.local_port = h->local_port;                                       \
		record->head.key.protocol = h->protocol;                                           \
		record->head.key.family = h->family;                                               \
		record->head.key.zero[0] = record->head.key.zero[1] = 0;                           \
		__builtin_memcpy(record->head.local, h->local, 16);                                \
		record->head.netns = netns;                                                        \
		record->head.length = length;                                                      \
		record->head.outgoing = outgoing;                                                  \
		record->head.sequence = h->sequence;                                               \
		/* 1 to capacity, in a form that every verifier follows. */                        \
		u32 last = length - 1;                                                             \
		barrier_var(last);                                                                 \
		last &= (capacity) - 1;                                                            \
		if (bpf_skb_load_bytes(skb, h->length, record->data, last + 1)) {                  \
			bpf_ringbuf_discard(record, 0);                                            \
			return;                                                                    \
		}                                                                                  \
		bpf_ringbuf_submit(record, ring_flags());                                          \
	} while (0)

static __always_inline void report_payload(struct __sk_buff *skb, u32 kind, struct execution *owner, u64 cookie,
					   u32 netns, struct headers *h, int outgoing)
{
	u32 length = skb->len;
	if (length <= h->length)
		return;
	length -= h->length;
	barrier_var(length);
	/* A flood of datagrams to port 53 must not push out processes and
	 * final counters, which are not said again. */
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > RING_SIZE / 4) {
		count(NAMES_SKIPPED, 1);
		return;
	}
	if (length <= 512) {
		REPORT_PAYLOAD(short_payload_record, 512);
	} else {
		if (length > 2048)
			length = 2048;
		REPORT_PAYLOAD(payload_record, 2048);
	}
}

#define PORT_DNS 53
#define PORT_DNS_BE 0x3500
#define PORT_QUIC_BE 0xbb01

/* Whether a connection begins with a TLS ClientHello that goes on in the next
 * segment: a record of a handshake, and in it a message longer than this payload. */
static __always_inline int hello_goes_on(struct __sk_buff *skb, struct headers *h)
{
	u8 b[9];
	u32 length = skb->len - h->length;
	if (length < 9)
		return !bpf_skb_load_bytes(skb, h->length, b, 1) && b[0] == 22;
	if (bpf_skb_load_bytes(skb, h->length, b, 9))
		return 0;
	return b[0] == 22 && b[5] == 1 && ((u32)b[6] << 16 | b[7] << 8 | b[8]) + 9 > length;
}

__noinline int name_of(struct __sk_buff *skb, int outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_info *info;
	struct headers h;
	u32 kind = FIRST;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!info || parse(skb, &h, outgoing) || skb->len <= h.length)
		return 0;
	if (h.remote_port == PORT_DNS)
		kind = DNS;
	else if (h.protocol == IPPROTO_TCP)
		info->flags += info->flags & PAYLOADS || hello_goes_on(skb, &h) ? PAYLOAD : PAYLOADS;
	else
		info->flags += (info->flags & PAYLOADS) + PAYLOAD < QUIC_PAYLOADS ? PAYLOAD : PAYLOADS - (info->flags & PAYLOADS);
	report_payload(skb, kind, &info->owner, info->cookie, info->netns, &h, outgoing);
	return 0;
}

/* ---- counting ---- */

/* Further peers of an unconnected socket, raw sockets, listeners, sockets of
 * the kernel. */
__noinline int count_flow(struct __sk_buff *skb, int outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct flow_key key = {};
	struct flow_value value = {};
	struct headers h;
	struct socket_info *info;
	u64 length = skb->len, payload;
	u32 segments = skb->gso_segs;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (parse(skb, &h, outgoing))
		return 0;
	payload = length > h.length ? length - h.length : 0;
	/* A packet that will be segmented has one header here and one for each
	 * segment on the wire. */
	if (segments > 1)
		length += (u64)(segments - 1) * h.length;
	else
		segments = 1;
	key.cookie = bpf_get_socket_cookie(skb);
	key.protocol = h.protocol;
	key.family = h.family;
	key.local_port = h.local_port;
	__builtin_memcpy(value.local, h.local, 16);
	value.opened = outgoing ? OPENED_HERE : OPENED_THERE;
	if (info) {
		key.owner = info->owner;
		value.netns = info->netns;
	} else {
		count(UNOWNED_PACKETS, 1);
	}
	/* The handshakes of a listener are one flow without a peer: a flood of
	 * made-up peers would fill the map. */
	if (!(sk->state == TCP_LISTEN && h.protocol == IPPROTO_TCP)) {
		__builtin_memcpy(key.remote, h.remote, 16);
		key.remote_port = h.remote_port;
	}
	if (outgoing) {
		value.count.bytes_out = length;
		value.count.packets_out = segments;
		value.count.payload_out = payload;
	} else {
		value.count.bytes_in = length;
		value.count.packets_in = segments;
		value.count.payload_in = payload;
	}
	if (report_names && h.remote_port == PORT_DNS)
		report_payload(skb, DNS, &key.owner, key.cookie, value.netns, &h, outgoing);
	add_to_flow(&key, &value);
	return 0;
}

/* A socket's first packet, or its first to this peer: remember both ends.
 * Returns 1 if the entry serves one of several peers. */
__noinline int remember_tuple(struct __sk_buff *skb, int outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_info *info;
	struct headers h;
	u64 cookie;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!info || parse(skb, &h, outgoing))
		return 0;
	if (info->flags & HAS_TUPLE)
		move_to_flow(info);
	cookie = bpf_get_socket_cookie(skb);
	if (h.protocol != IPPROTO_TCP)
		info->opened = outgoing ? OPENED_HERE : OPENED_THERE;
	else if (sk->state == TCP_SYN_SENT)
		info->opened = OPENED_HERE;
	else if (info->cookie && info->cookie != cookie)
		info->opened = OPENED_THERE; /* the entry is a clone of a listener's */
	info->cookie = cookie;
	info->protocol = h.protocol;
	info->family = h.family;
	__builtin_memcpy(info->local, h.local, 16);
	if (!sk->dst_port) {
		/* The kernel keeps a raw socket's protocol where others have their port. */
		info->local_port = h.local_port;
		__builtin_memcpy(info->remote, h.remote, 16);
		info->remote_port_be = swap16(h.remote_port);
		info->flags = HAS_TUPLE | UNCONNECTED;
		return 1;
	}
	info->local_port = sk->src_port;
	info->remote_port_be = sk->dst_port;
	if (h.family == 4) {
		info->remote[0] = sk->dst_ip4;
		info->remote[1] = info->remote[2] = info->remote[3] = 0;
	} else {
		info->remote[0] = sk->dst_ip6[0];
		info->remote[1] = sk->dst_ip6[1];
		info->remote[2] = sk->dst_ip6[2];
		info->remote[3] = sk->dst_ip6[3];
	}
	info->flags = HAS_TUPLE;
	return 0;
}

__noinline u32 headers_length(struct __sk_buff *skb)
{
	struct headers h;
	return parse(skb, &h, 1) ? 0 : h.length;
}

/* A packet whose headers are not as long as those of most. What most have is
 * said by the first that can: the handshake of TCP has options of its own. */
static __noinline int add_unusual(struct socket_info *info, u64 headers, u64 payload, int outgoing, u32 usual)
{
	u32 shape;
	if (!info)
		return 0;
	shape = info->shape;
	if (!(shape >> 16) && usual)
		__sync_val_compare_and_swap(&info->shape, shape, shape | usual << 16);
	if (outgoing) {
		ADD(info->unusual_out, headers);
		ADD(info->plain_out, payload);
	} else {
		ADD(info->unusual_in, headers);
		ADD(info->plain_in, payload);
	}
	return 0;
}

/* Whether the entry has the peer of a packet of a socket that is not connected. */
static __always_inline int has_peer(struct socket_info *info, struct peer *peer)
{
	u32 *a = (u32 *)peer->address;
	if (!peer->whole || !(info->flags & UNCONNECTED) || info->remote_port_be != peer->port)
		return 0;
	return info->remote[0] == a[0] && (!peer->v6 || (info->remote[3] == a[3] && info->remote[2] == a[2] &&
							 info->remote[1] == a[1]));
}

/* Whether the entry has the peer that a socket is connected to. */
static __always_inline int has_connection(struct socket_info *info, struct bpf_sock *sk, int v6)
{
	if (info->remote_port_be != sk->dst_port)
		return 0;
	if (!v6) {
		u32 address = sk->dst_ip4;
		/* A load of both kinds would be of a moved pointer to a socket, which is refused. */
		barrier_var(address);
		return info->remote[0] == address;
	}
	return info->remote[3] == sk->dst_ip6[3] && info->remote[2] == sk->dst_ip6[2] &&
	       info->remote[1] == sk->dst_ip6[1] && info->remote[0] == sk->dst_ip6[0];
}

static __always_inline void add_usual(struct socket_info *info, u32 segments, u32 payload, int outgoing)
{
	u64 one = ((u64)segments << PACKET_BITS) + payload;
	u64 before = outgoing ? ADD(info->plain_out, one) : ADD(info->plain_in, one);
	/* Half of what the word can hold, for nobody reads it. */
	if (before >> 63)
		move_to_flow(info);
}

/* Reports a payload that may tell a name. */
static __always_inline void report_name(struct __sk_buff *skb, struct socket_info *info, int outgoing)
{
	if (info->remote_port_be == PORT_DNS_BE ||
	    (outgoing && (info->flags & PAYLOADS) != PAYLOADS && info->opened != OPENED_THERE &&
	     (info->protocol == IPPROTO_TCP ||
	      (info->protocol == IPPROTO_UDP && info->remote_port_be == PORT_QUIC_BE))))
		name_of(skb, outgoing);
}

/* A packet of any kind; returns 1 if it does not belong to the socket's entry. */
__noinline int account_any(struct __sk_buff *skb, int outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_info *info;
	struct peer peer;
	u64 length = skb->len, payload;
	u32 segments = skb->gso_segs;
	int ours = 0;
	if (!sk)
		return 0;
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!info)
		return 1;
	if (find_peer(skb, &peer, outgoing, 0)) {
		peer.headers = headers_length(skb);
		peer.whole = 0;
	}
	if (sk->dst_port) {
		int v6 = skb->protocol != ETH_P_IP_BE;
		if (info->family != (v6 ? 6 : 4) || !has_connection(info, sk, v6))
			remember_tuple(skb, outgoing);
	} else {
		if (peer.whole)
			ours = has_peer(info, &peer) && info->protocol == peer.protocol &&
			       info->family == (peer.v6 ? 6 : 4);
		/* The entry of an unconnected socket serves one peer at a time. */
		if (peer.whole && !ours && !has_counted(info))
			ours = remember_tuple(skb, outgoing);
		if (!ours)
			return 1;
	}
	payload = length > peer.headers ? length - peer.headers : 0;
	if (segments > 1)
		length += (u64)(segments - 1) * peer.headers;
	else
		segments = 1;
	if (info->header == peer.headers && length >= peer.headers) {
		add_usual(info, segments, payload, outgoing);
	} else {
		u32 usual = info->protocol != IPPROTO_TCP || sk->state == TCP_ESTABLISHED ? peer.headers : 0;
		u64 headers = ((u64)segments << PACKET_BITS) + (length - payload);
		add_unusual(info, headers, payload, outgoing, usual);
	}
	if (report_names && payload)
		report_name(skb, info, outgoing);
	return 0;
}

/* Nearly every packet is like the one before on its socket: to or from the
 * same peer, with headers as long. Such a packet touches one line of its entry. */
static __always_inline void account(struct __sk_buff *skb, int outgoing)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_info *info;
	struct peer peer;
	u32 length = skb->len, segments = skb->gso_segs;
	if (!sk)
		return;
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!info || find_peer(skb, &peer, outgoing, 1) || length < peer.headers ||
	    info->shape != SHAPE(peer.protocol, peer.v6 ? 6 : 4, peer.headers) ||
	    !(sk->dst_port ? has_connection(info, sk, peer.v6) : has_peer(info, &peer))) {
		if (outgoing)
			take_over(skb);
		if (account_any(skb, outgoing))
			count_flow(skb, outgoing);
		return;
	}
	if (outgoing && !is_owner(info))
		take_over(skb);
	length -= peer.headers;
	add_usual(info, segments ? segments : 1, length, outgoing);
	if (report_names && length)
		report_name(skb, info, outgoing);
}

SEC("cgroup_skb/egress") int on_egress(struct __sk_buff *skb)
{
	account(skb, 1);
	return 1;
}

SEC("cgroup_skb/ingress") int on_ingress(struct __sk_buff *skb)
{
	account(skb, 0);
	return 1;
}

/* ---- the end of a socket: its final counters ---- */

static __always_inline void closed(struct socket_info *info, struct tcp_sock *tcp)
{
	if (!info || !(info->flags & HAS_TUPLE))
		return;
	struct close_record *record = bpf_ringbuf_reserve(&events, sizeof *record, 0);
	if (!record) {
		count(RING_FULL, 1);
		move_to_flow(info);
		return;
	}
	record->flow.kind = CLOSE;
	record->flow.size = sizeof *record;
	record->flow.time = bpf_ktime_get_boot_ns();
	key_of(&record->flow.key, info);
	take(&record->flow.value, info);
	record->tcp_sent = record->tcp_acked = record->tcp_received = record->tcp_retransmitted = 0;
	if (tcp) {
		KREAD(record->tcp_sent, tcp->bytes_sent);
		KREAD(record->tcp_acked, tcp->bytes_acked);
		KREAD(record->tcp_received, tcp->bytes_received);
		KREAD(record->tcp_retransmitted, tcp->bytes_retrans);
	}
	bpf_ringbuf_submit(record, ring_flags());
}

/* Not at close(): data and FIN still follow then. */
SEC("tp_btf/tcp_destroy_sock") int on_tcp_destroy(u64 *context)
{
	struct sock *sk = (void *)context[0];
	closed(bpf_sk_storage_get(&sockets, sk, 0, 0), (void *)sk);
	return 0;
}

SEC("cgroup/sock_release") int on_release(struct bpf_sock *sk)
{
	if (sk->protocol != IPPROTO_TCP)
		closed(bpf_sk_storage_get(&sockets, sk, 0, 0), NULL);
	return 1;
}

/* ---- reading: live sockets are emptied by reading this iterator ---- */

SEC("iter/bpf_sk_storage_map") int drain(struct bpf_iter__bpf_sk_storage_map *context)
{
	struct sock *sk = context->sk;
	struct socket_info *seen = context->value, *info;
	struct flow_record record;
	/* An idle socket costs this look at its entry. */
	if (!sk || !seen || !has_counted(seen))
		return 0;
	info = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!info)
		return 0;
	__builtin_memset(&record, 0, sizeof record);
	record.kind = FLOW;
	record.size = sizeof record;
	record.time = bpf_ktime_get_boot_ns();
	key_of(&record.key, info);
	take(&record.value, info);
	record.value.state = sk->__sk_common.skc_state;
	/* When the reader's buffer is full the write fails. What was taken goes
	 * to the flows, which are read after the sockets: giving it back could
	 * give it to another owner. */
	if (bpf_seq_write(context->meta->seq, &record, sizeof record))
		add_to_flow(&record.key, &record.value);
	return 0;
}

/* ---- start: sockets that are older than Egret, in every namespace ---- */

SEC("iter/task_file") int seed(struct bpf_iter__task_file *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;
	struct socket_info info = {};
	if (!task || !file)
		return 0;
	struct socket *socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = socket->sk;
	if (!sk)
		return 0;
	u16 family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (bpf_sk_storage_get(&sockets, sk, 0, 0))
		return 0;
	execution_of(&info.owner, task);
	info.netns = namespace_of_socket(sk);
	info.cookie = bpf_get_socket_cookie(sk);
	/* A write that fails for want of room is tried again with this socket. */
	struct seed_record record = { .id = info.owner, .cookie = info.cookie };
	if (bpf_seq_write(context->meta->seq, &record, sizeof record))
		return 0;
	bpf_sk_storage_get(&sockets, sk, &info, BPF_SK_STORAGE_GET_F_CREATE);
	return 0;
}

/* ---- processes ---- */

SEC("tp_btf/sched_process_exec") int on_exec(u64 *context)
{
	struct task_struct *task = (void *)context[0];
	struct arguments *none, *arguments;
	struct mm_struct *mm = NULL;
	unsigned long from = 0, to = 0;
	struct execution id;
	u32 zero = 0;
	u64 length;

	execution_of(&id, task);
	none = bpf_map_lookup_elem(&no_arguments, &zero);
	if (!none)
		return 0;
	bpf_map_update_elem(&arguments_of, &id, none, BPF_ANY);
	arguments = bpf_map_lookup_elem(&arguments_of, &id);
	KREAD(mm, task->mm);
	if (!arguments || !mm)
		return 0;
	KREAD(from, mm->arg_start);
	KREAD(to, mm->arg_end);
	length = to - from;
	if (!from || to <= from)
		return 0;
	arguments->total = length;
	if (length > ANCESTOR_ARGS - 1)
		length = ANCESTOR_ARGS - 1;
	barrier_var(length);
	if (bpf_probe_read_user(arguments->text, length & (ANCESTOR_ARGS - 1), (void *)from) == 0)
		arguments->length = length;
	return 0;
}

SEC("tp_btf/sched_process_exit") int on_exit(u64 *context)
{
	struct task_struct *task = (void *)context[0];
	struct execution id;
	u32 *known;
	if (task->pid != task->tgid)
		return 0;
	execution_of(&id, task);
	known = bpf_map_lookup_elem(&reported, &id);
	if (!known)
		return 0;
	bpf_map_delete_elem(&reported, &id);
	struct exit_record *record = bpf_ringbuf_reserve(&events, sizeof *record, 0);
	if (!record) {
		count(RING_FULL, 1);
		return 0;
	}
	record->kind = EXIT;
	record->size = sizeof *record;
	record->time = bpf_ktime_get_boot_ns();
	record->id = id;
	record->code = task->exit_code;
	record->zero = 0;
	bpf_ringbuf_submit(record, ring_flags());
	return 0;
}

/* ---- packet sockets pass beside IP: their frames are counted by process ---- */

/* Linux 6.3 and later. */
SEC("tp_btf/sock_send_length") int on_send(u64 *context)
{
	struct sock *sk = (void *)context[0];
	s64 length = (int)context[1];
	struct flow_key key = {};
	struct flow_value value = {};
	if (sk->__sk_common.skc_family != AF_PACKET || length <= 0)
		return 0;
	execution_of(&key.owner, bpf_get_current_task_btf());
	ensure_reported(&key.owner);
	key.family = AF_PACKET;
	key.protocol = 255;
	key.cookie = bpf_get_socket_cookie(sk);
	if (sk->sk_type == SOCK_RAW && length > 14)
		length -= 14; /* the Ethernet header is not IP's */
	value.count.bytes_out = value.count.payload_out = length;
	value.count.packets_out = 1;
	value.netns = namespace_of_socket(sk);
	value.opened = OPENED_HERE;
	add_to_flow(&key, &value);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
