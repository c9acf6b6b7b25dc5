/* Makes traffic of every kind that a program can make, and says how much.
 *
 *   traffic KIND key=value ...
 *
 * Keys: to (address), port, bytes, size (of one write or datagram), rate
 * (bytes a second; 0: as fast as it goes), count (connections), if (interface), mac (of injected frames).
 * Prints one line for each process that sent or received: PID PROTOCOL OUT IN,
 * the payload in bytes. The kind `peer` is the other end: it swallows what comes
 * on `port` and sends what it is asked for on `port` + 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/sockios.h>
#include <linux/udp.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

static struct {
	const char *kind, *to, *interface, *mac;
	int port, count;
	long bytes, size, rate;
} o = { .to = "", .interface = "eth0", .mac = "ff:ff:ff:ff:ff:ff", .port = 7000, .bytes = 100000, .count = 1 };

static char buffer[1 << 18];
static struct sockaddr_storage peer;
static socklen_t peer_length;
static int family;

static void fail(const char *what)
{
	fprintf(stderr, "traffic %s: %s: %s\n", o.kind, what, strerror(errno));
	exit(1);
}

static void say(const char *protocol, long out, long in)
{
	char line[128];
	int length = snprintf(line, sizeof line, "%d %s %ld %ld\n", getpid(), protocol, out, in);
	if (write(1, line, length) != length)
		exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Sleeps until `sent` bytes may have been sent. */
static void pace(double start, long sent, long rate)
{
	if (rate <= 0)
		return;
	double wait = start + (double)sent / rate - now();
	if (wait > 0.001)
		usleep(wait * 1e6);
}

static void set_address(const char *host, int port)
{
	memset(&peer, 0, sizeof peer);
	if (strchr(host, ':') || !*host) {
		struct sockaddr_in6 *a = (void *)&peer;
		a->sin6_family = family = AF_INET6;
		a->sin6_port = htons(port);
		if (*host)
			inet_pton(AF_INET6, host, &a->sin6_addr);
		peer_length = sizeof *a;
	} else {
		struct sockaddr_in *a = (void *)&peer;
		a->sin_family = family = AF_INET;
		a->sin_port = htons(port);
		inet_pton(AF_INET, host, &a->sin_addr);
		peer_length = sizeof *a;
	}
}

static int open_socket(int type, int protocol)
{
	int s = socket(family, type, protocol);
	if (s < 0)
		fail("socket");
	return s;
}

static int connected(int type, int protocol)
{
	int s = open_socket(type, protocol);
	if (connect(s, (void *)&peer, peer_length))
		fail("connect");
	return s;
}

static int tcp(void) { return connected(SOCK_STREAM, 0); }

static long smaller(long a, long b) { return a < b ? a : b; }

static void write_all(int s, long bytes)
{
	double start = now();
	for (long sent = 0; sent < bytes;) {
		long n = write(s, buffer, smaller(bytes - sent, o.size));
		if (n <= 0)
			fail("write");
		sent += n;
		pace(start, sent, o.rate);
	}
}

/* Ends the sending half and waits until the other end has read everything. */
static void finish(int s)
{
	char rest[256];
	shutdown(s, SHUT_WR);
	while (read(s, rest, sizeof rest) > 0)
		;
	close(s);
}

static long read_all(int s)
{
	long total = 0, n;
	while ((n = read(s, buffer, sizeof buffer)) > 0)
		total += n;
	return total;
}

/* What the peer is asked to send. */
struct request {
	uint64_t bytes, rate, size;
};

static void ask(int s)
{
	struct request r = { o.bytes, o.rate, o.size };
	if (send(s, &r, sizeof r, 0) != sizeof r)
		fail("ask");
}

/* ---- io_uring without a library ---- */

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	unsigned flags;
};

static void ring_open(struct ring *r, unsigned flags)
{
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 100 };
	r->fd = syscall(SYS_io_uring_setup, 8, &p);
	if (r->fd < 0)
		fail("io_uring_setup");
	size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *s = mmap(0, sq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	char *c = mmap(0, cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(0, p.sq_entries * sizeof *r->sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		       IORING_OFF_SQES);
	if (s == MAP_FAILED || c == MAP_FAILED || r->sqes == MAP_FAILED)
		fail("mmap");
	r->sq_tail = (void *)(s + p.sq_off.tail);
	r->sq_mask = (void *)(s + p.sq_off.ring_mask);
	r->sq_array = (void *)(s + p.sq_off.array);
	r->sq_flags = (void *)(s + p.sq_off.flags);
	r->cq_head = (void *)(c + p.cq_off.head);
	r->cq_tail = (void *)(c + p.cq_off.tail);
	r->cq_mask = (void *)(c + p.cq_off.ring_mask);
	r->cqes = (void *)(c + p.cq_off.cqes);
	r->flags = flags;
}

/* One operation, begun and waited for. */
static int ring_do(struct ring *r, int operation, int fd, void *data, unsigned length, int flags)
{
	unsigned tail = *r->sq_tail, at = tail & *r->sq_mask, wake = 0;
	struct io_uring_sqe *e = &r->sqes[at];
	memset(e, 0, sizeof *e);
	e->opcode = operation;
	e->fd = fd;
	e->addr = (unsigned long)data;
	e->len = length;
	e->msg_flags = flags;
	r->sq_array[at] = at;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (r->flags & IORING_SETUP_SQPOLL) {
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(r->sq_flags, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP)
			wake = IORING_ENTER_SQ_WAKEUP;
	}
	while (*r->cq_head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE))
		if (syscall(SYS_io_uring_enter, r->fd, r->flags & IORING_SETUP_SQPOLL ? 0 : 1, 1,
			    IORING_ENTER_GETEVENTS | wake, 0, 0) < 0 && errno != EINTR)
			fail("io_uring_enter");
	int result = r->cqes[*r->cq_head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
	return result;
}

static void ring_send(unsigned flags)
{
	struct ring r;
	ring_open(&r, flags);
	int s = tcp();
	double start = now();
	for (long sent = 0; sent < o.bytes;) {
		int n = ring_do(&r, IORING_OP_SEND, s, buffer, smaller(o.bytes - sent, o.size), MSG_WAITALL);
		if (n <= 0)
			fail("send by io_uring");
		sent += n;
		pace(start, sent, o.rate);
	}
	finish(s);
	say("tcp", o.bytes, 0);
}

static void ring_receive(void)
{
	struct ring r;
	long total = 0;
	int n;
	ring_open(&r, 0);
	int s = tcp();
	ask(s);
	while ((n = ring_do(&r, IORING_OP_RECV, s, buffer, sizeof buffer, 0)) > 0)
		total += n;
	say("tcp", sizeof(struct request), total);
}

/* ---- datagrams ---- */

static void datagrams(int s, int with_address, const char *protocol)
{
	double start = now();
	long sent = 0;
	while (sent < o.bytes) {
		long n = with_address ? sendto(s, buffer, o.size, 0, (void *)&peer, peer_length)
				      : send(s, buffer, o.size, 0);
		if (n < 0 && (errno == ECONNREFUSED || errno == ENOBUFS))
			continue;
		if (n <= 0)
			fail("send");
		sent += n;
		pace(start, sent, o.rate);
	}
	say(protocol, sent, 0);
}

static void datagrams_in_batches(void)
{
	enum { BATCH = 16 };
	struct mmsghdr headers[BATCH];
	struct iovec part = { buffer, o.size };
	int s = open_socket(SOCK_DGRAM, 0);
	double start = now();
	long sent = 0;
	memset(headers, 0, sizeof headers);
	for (int i = 0; i < BATCH; i++) {
		headers[i].msg_hdr.msg_iov = &part;
		headers[i].msg_hdr.msg_iovlen = 1;
		headers[i].msg_hdr.msg_name = &peer;
		headers[i].msg_hdr.msg_namelen = peer_length;
	}
	while (sent < o.bytes) {
		int n = sendmmsg(s, headers, BATCH, 0);
		if (n <= 0)
			fail("sendmmsg");
		sent += n * o.size;
		pace(start, sent, o.rate);
	}
	say("udp", sent, 0);
}

/* Datagrams from the peer until it has been quiet for a second. */
static void datagrams_in(int batches)
{
	enum { BATCH = 16 };
	static char parts[BATCH][2048];
	struct mmsghdr headers[BATCH];
	struct iovec vectors[BATCH];
	struct timeval patience = { 1, 0 };
	int s = connected(SOCK_DGRAM, 0), large = 8 << 20;
	long total = 0, n;
	setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	ask(s);
	if (!batches) {
		while ((n = recv(s, buffer, sizeof buffer, 0)) > 0)
			total += n;
	} else {
		memset(headers, 0, sizeof headers);
		for (int i = 0; i < BATCH; i++) {
			vectors[i] = (struct iovec){ parts[i], sizeof parts[i] };
			headers[i].msg_hdr.msg_iov = &vectors[i];
			headers[i].msg_hdr.msg_iovlen = 1;
		}
		while ((n = recvmmsg(s, headers, BATCH, MSG_WAITFORONE, NULL)) > 0)
			for (int i = 0; i < n; i++)
				total += headers[i].msg_len;
	}
	say("udp", sizeof(struct request), total);
}

static unsigned short checksum(const void *data, int length)
{
	const unsigned short *words = data;
	unsigned sum = 0;
	for (int i = 0; i < length / 2; i++)
		sum += words[i];
	sum = (sum >> 16) + (sum & 0xffff);
	return ~(sum + (sum >> 16));
}

/* Echo requests; `type` is SOCK_RAW or SOCK_DGRAM. `bytes` is their payload. */
static void ping(int type)
{
	struct icmphdr *h = (void *)buffer;
	long sent = 0;
	int sequence = 0;
	double start = now();
	if (type == SOCK_DGRAM) {
		int f = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY);
		if (f < 0 || write(f, "0 100", 5) != 5)
			fail("ping_group_range");
		close(f);
	}
	int s = open_socket(type, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (family == AF_INET)
		((struct sockaddr_in *)&peer)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&peer)->sin6_port = 0;
	while (sent < o.bytes) {
		memset(h, 0, sizeof *h);
		h->type = family == AF_INET ? ICMP_ECHO : 128;
		h->un.echo.id = htons(77);
		h->un.echo.sequence = htons(sequence++);
		if (family == AF_INET)
			h->checksum = checksum(buffer, 8 + o.size);
		if (sendto(s, buffer, 8 + o.size, 0, (void *)&peer, peer_length) != 8 + o.size)
			fail("sendto");
		sent += o.size;
		pace(start, sent, o.rate);
	}
	say("icmp", sent, 0);
}

/* A raw socket with a protocol of nobody's, with or without its own IP header. */
static void raw(int own_header)
{
	int s = open_socket(SOCK_RAW, own_header ? IPPROTO_RAW : 253);
	int head = own_header ? 20 : 0;
	double start = now();
	if (own_header) {
		struct iphdr *h = (void *)buffer;
		h->version = 4;
		h->ihl = 5;
		h->ttl = 64;
		h->protocol = 253;
		h->daddr = ((struct sockaddr_in *)&peer)->sin_addr.s_addr;
	}
	((struct sockaddr_in *)&peer)->sin_port = 0;
	long sent = 0;
	while (sent < o.bytes) {
		if (sendto(s, buffer, head + o.size, 0, (void *)&peer, peer_length) < 0)
			fail("sendto");
		sent += o.size;
		pace(start, sent, o.rate);
	}
	say("raw", sent, 0);
}

/* Whole frames past the IP stack: UDP datagrams in IPv4 in Ethernet. */
static void inject(void)
{
	int s = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_halen = 6, .sll_protocol = htons(ETH_P_IP) };
	unsigned char *frame = (void *)buffer;
	struct iphdr *ip = (void *)(frame + 14);
	unsigned short *udp = (void *)(frame + 34);
	double start = now();
	if (s < 0)
		fail("packet socket");
	to.sll_ifindex = if_nametoindex(o.interface);
	if (sscanf(o.mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", frame, frame + 1, frame + 2, frame + 3, frame + 4, frame + 5) != 6)
		fail("mac");
	memcpy(to.sll_addr, frame, 6);
	memset(frame + 6, 2, 6);
	frame[12] = 8;
	frame[13] = 0;
	*ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
			      .tot_len = htons(28 + o.size), .saddr = htonl(0xc6336464),
			      .daddr = ((struct sockaddr_in *)&peer)->sin_addr.s_addr };
	ip->check = checksum(ip, 20);
	udp[0] = htons(40000);
	udp[1] = htons(o.port);
	udp[2] = htons(8 + o.size);
	udp[3] = 0;
	long sent = 0;
	while (sent < o.bytes) {
		if (sendto(s, frame, 42 + o.size, 0, (void *)&to, sizeof to) < 0) {
			if (errno == ENOBUFS)
				continue;
			fail("sendto");
		}
		sent += o.size;
		pace(start, sent, o.rate);
	}
	say("packet", sent, 0);
}

/* ---- one socket, several processes ---- */

static void pass_descriptor(int over, int s)
{
	char one = 1, control[CMSG_SPACE(sizeof s)] = { 0 };
	struct iovec part = { &one, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof s);
	memcpy(CMSG_DATA(c), &s, sizeof s);
	if (sendmsg(over, &message, 0) < 0)
		fail("sendmsg");
}

static int take_descriptor(int over)
{
	char one, control[64];
	int s;
	struct iovec part = { &one, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (recvmsg(over, &message, 0) < 0)
		fail("recvmsg");
	memcpy(&s, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof s);
	return s;
}

/* Nothing of the parent waits in the send queue when the child begins: those
 * bytes would leave in the child's system call. */
static void drain_queue(int s)
{
	int waiting;
	do {
		usleep(2000);
		if (ioctl(s, SIOCOUTQ, &waiting))
			fail("SIOCOUTQ");
	} while (waiting);
}

static void child_sends(void)
{
	int s = tcp();
	write_all(s, o.bytes);
	drain_queue(s);
	say("tcp", o.bytes, 0);
	if (!fork()) {
		write_all(s, 2 * o.bytes);
		say("tcp", 2 * o.bytes, 0);
		finish(s);
		_exit(0);
	}
	close(s);
	wait(0);
}

static void child_answers(void)
{
	int l = open_socket(SOCK_STREAM, 0), one = 1;
	char request[100];
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(l, (void *)&peer, peer_length) || listen(l, 5))
		fail("listen");
	say("listening", 0, 0);
	int s = accept(l, 0, 0);
	if (!fork()) {
		long in = read(s, request, sizeof request);
		write_all(s, o.bytes);
		say("tcp", o.bytes, in);
		finish(s);
		_exit(0);
	}
	close(s);
	wait(0);
}

static void passed(void)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		fail("socketpair");
	if (!fork()) {
		int s = take_descriptor(pair[1]);
		write_all(s, o.bytes);
		say("tcp", o.bytes, 0);
		finish(s);
		_exit(0);
	}
	int s = tcp();
	pass_descriptor(pair[0], s);
	close(s);
	wait(0);
}

static void executes(char **arguments)
{
	int s = tcp();
	char number[16], *next[16] = { "second-name", "continue" };
	int n = 2;
	write_all(s, o.bytes);
	drain_queue(s);
	say("tcp", o.bytes, 0);
	for (char **a = arguments; *a && n < 14; a++)
		next[n++] = *a;
	snprintf(number, sizeof number, "%d", s);
	char fd[32];
	snprintf(fd, sizeof fd, "fd=%s", number);
	next[n++] = fd;
	execv("/proc/self/exe", next);
	fail("execv");
}

/* ---- executables without a file ---- */

static void without_file(char **arguments, int memory)
{
	char path[64], *next[16] = { "[kworker/0:1]", "tcp" }, data[1 << 16];
	int n = 2, from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), to;
	long got;
	if (memory) {
		to = memfd_create("hidden", MFD_CLOEXEC);
	} else {
		snprintf(path, sizeof path, "/tmp/egret-gone-%d", getpid());
		to = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
	}
	while ((got = read(from, data, sizeof data)) > 0)
		if (write(to, data, got) != got)
			fail("copy");
	for (char **a = arguments; *a && n < 15; a++)
		next[n++] = *a;
	if (memory) {
		fexecve(to, next, environ);
	} else {
		close(to);
		int file = open(path, O_RDONLY | O_CLOEXEC);
		unlink(path);
		fexecve(file, next, environ);
	}
	fail("fexecve");
}

/* ---- the other end ---- */

struct job {
	int socket;
	struct sockaddr_in6 to; /* datagrams: where to */
	struct request wanted;
	uint64_t sent;
	double start;
	int active, datagrams;
};

static void serve(void)
{
	enum { JOBS = 256 };
	static struct job jobs[JOBS];
	static char is_source[65536];
	struct epoll_event event = { .events = EPOLLIN }, events[64];
	int one = 1, large = 16 << 20, e = epoll_create1(0), l[2], u[2], sctp;
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(o.port + i) };
		l[i] = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_MPTCP);
		if (l[i] < 0)
			l[i] = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
		u[i] = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		setsockopt(l[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		setsockopt(u[i], SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
		if (bind(l[i], (void *)&a, sizeof a) || bind(u[i], (void *)&a, sizeof a) || listen(l[i], 4096))
			fail("bind");
		event.data.fd = l[i];
		epoll_ctl(e, EPOLL_CTL_ADD, l[i], &event);
		event.data.fd = u[i];
		epoll_ctl(e, EPOLL_CTL_ADD, u[i], &event);
	}
	/* Where the kernel has SCTP: a source of it too. */
	sctp = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_SCTP);
	if (sctp >= 0) {
		struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(o.port + 1) };
		if (bind(sctp, (void *)&a, sizeof a) || listen(sctp, 16))
			fail("bind");
		event.data.fd = sctp;
		epoll_ctl(e, EPOLL_CTL_ADD, sctp, &event);
	}
	signal(SIGPIPE, SIG_IGN);
	say("listening", 0, 0);
	for (;;) {
		int busy = 0;
		for (int j = 0; j < JOBS; j++) {
			struct job *job = &jobs[j];
			if (!job->active)
				continue;
			busy = 1;
			for (int turn = 0; turn < 16; turn++) {
				if (job->wanted.rate && now() < job->start + (double)job->sent / job->wanted.rate)
					break;
				long n = smaller(job->wanted.bytes - job->sent, job->wanted.size);
				if (job->datagrams)
					n = sendto(job->socket, buffer, n, 0, (void *)&job->to, sizeof job->to);
				else
					n = send(job->socket, buffer, n, MSG_DONTWAIT);
				if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
					break;
				if (n > 0)
					job->sent += n;
				if (n <= 0 || job->sent >= job->wanted.bytes) {
					job->active = 0;
					if (!job->datagrams)
						close(job->socket);
					break;
				}
			}
		}
		int ready = epoll_wait(e, events, 64, busy ? 1 : 200);
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			if (fd == l[0] || fd == l[1] || fd == sctp) {
				int s = accept4(fd, 0, 0, SOCK_NONBLOCK);
				if (s < 0)
					continue;
				is_source[s] = fd != l[0];
				event.data.fd = s;
				epoll_ctl(e, EPOLL_CTL_ADD, s, &event);
				continue;
			}
			struct job job = { .socket = fd, .start = now(), .active = 1, .datagrams = fd == u[1] };
			socklen_t length = sizeof job.to;
			if (fd == u[1]) {
				if (recvfrom(fd, &job.wanted, sizeof job.wanted, 0, (void *)&job.to, &length) != sizeof job.wanted)
					continue;
			} else {
				long n = recv(fd, buffer, sizeof buffer, 0);
				if (n < 0 && errno == EAGAIN)
					continue;
				if (n <= 0 && fd != u[0]) {
					close(fd);
					continue;
				}
				if (fd == u[0] || !is_source[fd] || n != sizeof job.wanted)
					continue;
				memcpy(&job.wanted, buffer, sizeof job.wanted);
				epoll_ctl(e, EPOLL_CTL_DEL, fd, NULL);
			}
			for (int j = 0; j < JOBS; j++)
				if (!jobs[j].active) {
					jobs[j] = job;
					break;
				}
		}
	}
}

/* ---- many ---- */

/* Holds `count` UDP sockets, each connected and used once, until the input ends. */
static void hold(void)
{
	struct rlimit most;
	if (getrlimit(RLIMIT_NOFILE, &most))
		fail("getrlimit");
	most.rlim_cur = most.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &most))
		fail("setrlimit");
	for (int i = 0; i < o.count; i++) {
		int s = open_socket(SOCK_DGRAM, 0);
		/* An address has 28,000 ports to give: each process takes one of its own. */
		if (family == AF_INET && ((struct sockaddr_in *)&peer)->sin_addr.s_addr == htonl(INADDR_LOOPBACK)) {
			struct sockaddr_in own = {.sin_family = AF_INET};
			own.sin_addr.s_addr = htonl(0x7f800000 | (getpid() & 0x3fffff));
			if (bind(s, (void *)&own, sizeof own))
				fail("bind");
		}
		if (connect(s, (void *)&peer, peer_length))
			fail("connect");
		if (send(s, buffer, 10, 0) != 10 && errno != ECONNREFUSED)
			fail("send");
	}
	say("udp", 10L * o.count, 0);
	while (read(0, buffer, 1) > 0)
		;
}

static void connections(int at_once)
{
	int *s = calloc(o.count, sizeof *s);
	long each = o.bytes;
	for (int i = 0; i < o.count; i++) {
		s[i] = tcp();
		if (!at_once) {
			write_all(s[i], each);
			finish(s[i]);
		}
	}
	if (at_once) {
		long left = each;
		while (left > 0) {
			long n = smaller(left, o.size);
			for (int i = 0; i < o.count; i++)
				for (long done = 0; done < n;) {
					long k = write(s[i], buffer, n - done);
					if (k <= 0)
						fail("write");
					done += k;
				}
			left -= n;
		}
		for (int i = 0; i < o.count; i++)
			finish(s[i]);
	}
	say("tcp", each * o.count, 0);
}

/* Starts `count` short processes of this program, eight at a time. */
static void spawn(char **arguments)
{
	int running = 0, status;
	for (int i = 0; i < o.count; i++) {
		char bytes[32], *next[16] = { (char *)o.kind, i % 2 ? "tcp-exit" : "udp" };
		int n = 2;
		for (char **a = arguments; *a && n < 14; a++)
			next[n++] = *a;
		snprintf(bytes, sizeof bytes, "bytes=%d", 1024 + i * 7919 % 64512);
		next[n++] = bytes;
		if (running == 8 && wait(&status) > 0)
			running--;
		pid_t pid;
		if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, next, environ))
			fail("posix_spawn");
		running++;
	}
	while (wait(&status) > 0)
		if (status)
			exit(1);
}

int main(int count, char **arguments)
{
	int fd = -1;
	o.kind = count > 1 ? arguments[1] : "";
	for (int i = 2; i < count; i++) {
		char *value = strchr(arguments[i], '=');
		if (!value)
			continue;
		value++;
		switch (arguments[i][0]) {
		case 't': o.to = value; break;
		case 'p': o.port = atoi(value); break;
		case 'b': o.bytes = atol(value); break;
		case 's': o.size = atol(value); break;
		case 'r': o.rate = atol(value); break;
		case 'c': o.count = atoi(value); break;
		case 'i': o.interface = value; break;
		case 'm': o.mac = value; break;
		case 'f': fd = atoi(value); break;
		}
	}
	set_address(o.to, o.port);
	const char *k = o.kind;
	if (!o.size)
		o.size = strstr(k, "udp") || strstr(k, "mmsg") || strstr(k, "ping") || !strcmp(k, "raw") ||
			 !strcmp(k, "own-header") || !strcmp(k, "inject") ? 1000 : 32768;

	if (!strcmp(k, "peer")) serve();
	else if (!strcmp(k, "tcp")) { int s = tcp(); write_all(s, o.bytes); finish(s); say("tcp", o.bytes, 0); }
	else if (!strcmp(k, "http")) {
		const char *request = "POST / HTTP/1.1\r\nHost: upload.example.org\r\nContent-Length: 1000\r\n\r\n";
		int s = tcp();
		if (write(s, request, strlen(request)) != (long)strlen(request)) fail("write");
		write_all(s, 1000);
		finish(s);
		say("tcp", strlen(request) + 1000, 0);
	}
	else if (!strcmp(k, "tcp-exit")) { int s = tcp(); write_all(s, o.bytes); say("tcp", o.bytes, 0); _exit(0); }
	else if (!strcmp(k, "tcp-in")) { int s = tcp(); ask(s); say("tcp", sizeof(struct request), read_all(s)); }
	else if (!strcmp(k, "mptcp")) { int s = connected(SOCK_STREAM, IPPROTO_MPTCP); write_all(s, o.bytes); finish(s); say("tcp", o.bytes, 0); }
	else if (!strcmp(k, "sctp-in")) { int s = connected(SOCK_STREAM, IPPROTO_SCTP); ask(s); say("sctp", sizeof(struct request), read_all(s)); }
	else if (!strcmp(k, "udp")) datagrams(connected(SOCK_DGRAM, 0), 0, "udp");
	else if (!strcmp(k, "udp-unconnected")) datagrams(open_socket(SOCK_DGRAM, 0), 1, "udp");
	else if (!strcmp(k, "udp-large")) { o.size = 8000; datagrams(open_socket(SOCK_DGRAM, 0), 1, "udp"); }
	else if (!strcmp(k, "udp-segment")) {
		int s = connected(SOCK_DGRAM, 0), segment = 1000;
		if (setsockopt(s, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment)) fail("UDP_SEGMENT");
		o.size = 20500;
		datagrams(s, 0, "udp");
	}
	else if (!strcmp(k, "udp-again")) {
		int s = open_socket(SOCK_DGRAM, 0);
		long sent = 0;
		for (int i = 0; i < 5; i++) {
			set_address(o.to, o.port + i);
			if (connect(s, (void *)&peer, peer_length)) fail("connect");
			for (int j = 0; j < 10; j++) sent += send(s, buffer, 1000, 0) > 0 ? 1000 : 0;
		}
		say("udp", sent, 0);
	}
	else if (!strcmp(k, "destinations")) {
		int s = open_socket(SOCK_DGRAM, 0);
		long sent = 0;
		for (int i = 0; i < o.count; i++) {
			((struct sockaddr_in *)&peer)->sin_addr.s_addr = htonl(0x7f010000 + i);
			((struct sockaddr_in *)&peer)->sin_port = htons(9);
			if (sendto(s, buffer, o.size, 0, (void *)&peer, peer_length) == o.size || errno == ECONNREFUSED) sent += o.size;
		}
		say("udp", sent, 0);
	}
	else if (!strcmp(k, "udp-in")) datagrams_in(0);
	else if (!strcmp(k, "recvmmsg")) datagrams_in(1);
	else if (!strcmp(k, "sendmmsg")) datagrams_in_batches();
	else if (!strcmp(k, "sendfile")) {
		int f = memfd_create("file", 0), s = tcp();
		double start = now();
		if (ftruncate(f, o.bytes)) fail("ftruncate");
		for (long sent = 0; sent < o.bytes;) {
			long n = sendfile(s, f, NULL, smaller(o.bytes - sent, o.size));
			if (n <= 0) fail("sendfile");
			sent += n;
			pace(start, sent, o.rate);
		}
		finish(s);
		say("tcp", o.bytes, 0);
	}
	else if (!strcmp(k, "splice")) {
		int p[2], s = tcp();
		if (pipe(p)) fail("pipe");
		for (long sent = 0; sent < o.bytes;) {
			long n = write(p[1], buffer, smaller(o.bytes - sent, o.size));
			for (long done = 0; done < n;) {
				long m = splice(p[0], 0, s, 0, n - done, 0);
				if (m <= 0) fail("splice");
				done += m;
			}
			sent += n;
		}
		finish(s);
		say("tcp", o.bytes, 0);
	}
	else if (!strcmp(k, "splice-in")) {
		int p[2], s = tcp(), nowhere = open("/dev/null", O_WRONLY);
		long total = 0, n;
		if (pipe(p)) fail("pipe");
		ask(s);
		while ((n = splice(s, 0, p[1], 0, 65536, 0)) > 0) {
			total += n;
			while (n > 0) {
				long m = splice(p[0], 0, nowhere, 0, n, 0);
				if (m <= 0) fail("splice");
				n -= m;
			}
		}
		say("tcp", sizeof(struct request), total);
	}
	else if (!strcmp(k, "zerocopy")) {
		int s = tcp(), one = 1;
		long sent = 0;
		if (setsockopt(s, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one)) fail("SO_ZEROCOPY");
		while (sent < o.bytes) {
			long n = send(s, buffer, smaller(o.bytes - sent, o.size), MSG_ZEROCOPY);
			if (n < 0 && errno == ENOBUFS) {
				char control[512];
				struct msghdr done = { .msg_control = control, .msg_controllen = sizeof control };
				recvmsg(s, &done, MSG_ERRQUEUE);
				continue;
			}
			if (n < 0) fail("send");
			sent += n;
		}
		drain_queue(s);
		finish(s);
		say("tcp", sent, 0);
	}
	else if (!strcmp(k, "uring")) ring_send(0);
	else if (!strcmp(k, "sqpoll")) ring_send(IORING_SETUP_SQPOLL);
	else if (!strcmp(k, "uring-in")) ring_receive();
	else if (!strcmp(k, "ping")) ping(SOCK_RAW);
	else if (!strcmp(k, "ping-socket")) ping(SOCK_DGRAM);
	else if (!strcmp(k, "raw")) raw(0);
	else if (!strcmp(k, "own-header")) raw(1);
	else if (!strcmp(k, "inject")) inject();
	else if (!strcmp(k, "child-sends")) child_sends();
	else if (!strcmp(k, "child-answers")) child_answers();
	else if (!strcmp(k, "passed")) passed();
	else if (!strcmp(k, "execs")) executes(arguments + 2);
	else if (!strcmp(k, "continue")) { write_all(fd, 3 * o.bytes); say("tcp", 3 * o.bytes, 0); finish(fd); }
	else if (!strcmp(k, "memfd")) without_file(arguments + 2, 1);
	else if (!strcmp(k, "deleted")) without_file(arguments + 2, 0);
	else if (!strcmp(k, "one-by-one")) connections(0);
	else if (!strcmp(k, "at-once")) connections(1);
	else if (!strcmp(k, "hold")) hold();
	else if (!strcmp(k, "spawn")) spawn(arguments + 2);
	else { fprintf(stderr, "traffic: no such kind: %s\n", k); return 2; }
	return 0;
}
