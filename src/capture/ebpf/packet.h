/* How much, and between whom: the headers of one packet. */
#pragma once
#include "maps.h"

struct headers {
	u32 remote[4], local[4];
	u16 remote_port, local_port;
	u8 protocol, family;
	u16 length; /* up to the payload */
	u32 sequence; /* of TCP */
};

/* The whole truth, by copies; for the first packet of a socket and for those
 * that the short way below does not understand. */
static __always_inline int parse(struct __sk_buff *skb, struct headers *h, int outgoing)
{
	u32 at;
	__builtin_memset(h, 0, sizeof *h);
	if (skb->protocol == ETH_P_IP_BE) {
		u8 b[20];
		u32 from, to;
		if (bpf_skb_load_bytes(skb, 0, b, 20))
			return -1;
		h->family = 4;
		h->protocol = b[9];
		at = (b[0] & 15) * 4;
		__builtin_memcpy(&from, b + 12, 4);
		__builtin_memcpy(&to, b + 16, 4);
		h->remote[0] = outgoing ? to : from;
		h->local[0] = outgoing ? from : to;
	} else {
		u8 b[40];
		if (bpf_skb_load_bytes(skb, 0, b, 40))
			return -1;
		h->family = 6;
		h->protocol = b[6];
		at = 40;
		__builtin_memcpy(h->remote, b + (outgoing ? 24 : 8), 16);
		__builtin_memcpy(h->local, b + (outgoing ? 8 : 24), 16);
		for (int i = 0; i < 4 && (h->protocol == 0 || h->protocol == 43 || h->protocol == 60); i++) {
			u8 x[2];
			if (bpf_skb_load_bytes(skb, at, x, 2))
				break;
			h->protocol = x[0];
			at += (x[1] + 1) * 8;
		}
	}
	h->length = at;
	if (h->protocol == IPPROTO_TCP || h->protocol == IPPROTO_UDP || h->protocol == IPPROTO_SCTP ||
	    h->protocol == IPPROTO_UDPLITE) {
		u8 p[14];
		if (h->protocol == IPPROTO_TCP) {
			if (bpf_skb_load_bytes(skb, at, p, 14))
				return 0;
			h->length = at + (p[12] >> 4) * 4;
			h->sequence = (u32)p[4] << 24 | p[5] << 16 | p[6] << 8 | p[7];
		} else {
			if (bpf_skb_load_bytes(skb, at, p, 4))
				return 0;
			h->length = at + (h->protocol == IPPROTO_SCTP ? 12 : 8);
		}
		u16 from = p[0] << 8 | p[1], to = p[2] << 8 | p[3];
		h->remote_port = outgoing ? to : from;
		h->local_port = outgoing ? from : to;
	} else if (h->protocol == IPPROTO_ICMP || h->protocol == IPPROTO_ICMPV6) {
		h->length = at + 8;
	}
	return 0;
}

/* The short way: the length of the headers and where the peer's address and
 * port are, read in place; `common` leaves what is neither TCP nor UDP. */
struct peer {
	u32 headers;
	u16 port;    /* in network byte order; 0 where the protocol has none */
	u8 protocol;
	u8 v6;
	u8 whole;    /* the port is known: address, port and protocol say who the peer is */
	u8 *address;
};

static __always_inline int find_peer(struct __sk_buff *skb, struct peer *peer, int outgoing, int common)
{
	u8 *data = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end, *p;
	u32 at, protocol;
	peer->whole = 0;
	peer->port = 0;
	if (skb->protocol == ETH_P_IP_BE) {
		if (data + 20 > end)
			return -1;
		at = (data[0] & 15) << 2;
		protocol = data[9];
		peer->v6 = 0;
		peer->address = data + (outgoing ? 16 : 12);
	} else {
		if (data + 40 > end)
			return -1;
		at = 40;
		protocol = data[6];
		peer->v6 = 1;
		peer->address = data + (outgoing ? 24 : 8);
		/* Others may be headers that go before the transport's. */
		if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_ICMPV6)
			return -1;
	}
	if (common && protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return -1;
	peer->protocol = protocol;
	p = data + at;
	if (protocol == IPPROTO_TCP) {
		if (p + 14 > end)
			return -1;
		peer->headers = at + ((p[12] >> 4) << 2);
	} else if (protocol == IPPROTO_UDP) {
		if (p + 4 > end)
			return -1;
		peer->headers = at + 8;
		peer->port = *(u16 *)(p + (outgoing ? 2 : 0));
		peer->whole = 1;
	} else if (protocol == IPPROTO_SCTP) {
		peer->headers = at + 12;
	} else if (protocol == IPPROTO_UDPLITE) {
		peer->headers = at + 8;
	} else {
		peer->headers = at + (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? 8 : 0);
		peer->whole = 1;
	}
	return 0;
}
