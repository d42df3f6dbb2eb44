// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// Relays the packets of bound TURN channels where an interface receives them. User space decides and
// writes rows (src/offload); this program does what they say, and leaves to user space whatever they do
// not say: every doubt is a packet that passes up as it came.
//
// A row is a channel of a client: ChannelData from the client goes to the peer without its header, what
// the peer sends goes to the client with one (RFC 8656 sections 12.6, 12.7). Where the peer is a relayed
// address of this server, the other client's row answers, and only a header is exchanged for another.
//
// One core, compiled twice: for tcx (an skb; the kernel finds the neighbour) and for XDP (a frame; the
// neighbour is looked up here). `is_xdp` is a constant in each.

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INLINE static __always_inline
#define SECOND 1000000000ULL
#define BURST SECOND // src/turn/bandwidth.rs
#define LEVELS 3     // allocation, user, all
#define HEADER 4     // of ChannelData
#define AF_INET 2
#define AF_INET6 10
#define LOOPBACK 1                // its index, in every network namespace
#define SKIP_NEIGHBOUR (1U << 2)  // BPF_FIB_LOOKUP_SKIP_NEIGH, younger than some headers
#define DONT_FRAGMENT 0x4000

// Written by the loader before the program is loaded.
volatile const __u64 origin = 0;       // CLOCK_MONOTONIC at the zero of user space's time
volatile const __u8 ttl = 64;          // of what this host sends itself
volatile const __u8 hop_limit = 64;

enum direction { TO_PEER, TO_CLIENT };

// What became of a packet. The order is that of `Outcome` in src/offload/outcome.rs.
enum outcome {
    RELAYED_TO_PEER,
    RELAYED_TO_CLIENT,
    RELAYED_LOCALLY,   // from channel to channel
    OVER_BANDWIDTH,    // dropped, as user space would
    FAILED,            // dropped: the packet could not be resized
    NO_FLOW,           // from here on: passed up
    NOT_PLAIN,         // not a whole UDP packet without options, extensions, VLAN tag
    NO_BEAT,           // user space is not there
    EXPIRED,
    BAD_LENGTH,        // of ChannelData
    NO_CHECKSUM,       // absent, or not filled in yet
    NO_TWIN,           // the other client has no channel to this one
    NO_ROUTE,
    NO_NEIGHBOUR,
    TOO_LARGE,         // for the next hop's MTU
    NO_METER,
    NEIGHBOUR_DUE,     // XDP: this one lets the kernel see whether the neighbour is still there
    OUTCOMES,
    GO_ON = OUTCOMES,
};

// IPv6, or IPv4 mapped into it.
struct address {
    __u32 word[4];
};

struct client_key {
    struct address client, server;
    __be16 client_port, server_port;
    __be16 channel;
    __u16 zero;
};

struct peer_key {
    struct address peer, relay;
    __be16 peer_port, relay_port;
};

// A row. User space writes it before the keys that lead to it and removes these before it writes another
// there, after some seconds; beside that only `expires` changes. Mapped into user space.
struct flow {
    __u64 expires; // nanoseconds since origin; 0: no row
    __u32 generation;
    __be16 channel;
    __u8 peer_is_relay; // of this server: the row serves pairs of channels only
    __u8 zero;
    struct address client, server, relay, peer;
    __be16 client_port, server_port, relay_port, peer_port;
    __u32 meters[LEVELS]; // pairs of words in the map `meters`
    __u32 zero2;
};

// Where packets leave; good until `until`.
struct hop {
    __u64 until;
    __u32 ifindex;
    __u16 mtu;
    __u8 family;   // of `gateway`
    __u8 lookups;
    union {
        __u32 gateway[4]; // tcx: the next hop's address
        struct {          // XDP: the first twelve bytes of the frame
            __u8 destination[ETH_ALEN], source[ETH_ALEN];
        };
    };
};

// A direction of a flow, on one processor: what went there, payload only, and how.
struct way {
    __u64 packets, bytes;
    struct hop hop;
};

struct ways {
    struct way of[2];
};

struct control {
    __u64 beat;          // when user space was last seen, nanoseconds since origin
    __u64 rates[LEVELS]; // bytes a second, 0 for no limit
};

// The loader sets the sizes. A value is slot | generation << 32, so that it is read in one piece.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct client_key);
    __type(value, __u64);
} by_client SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct peer_key);
    __type(value, __u64);
} by_peer SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct flow);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct ways);
} traffic SEC(".maps");

// Two words a pair, by direction: the time at which a token bucket is full again.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} meters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct control);
} control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, OUTCOMES);
    __type(key, __u32);
    __type(value, __u64);
} outcomes SEC(".maps");

// Interfaces that XDP may send through: those it is attached to, others drop silently.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, __u8);
} exits SEC(".maps");

// What the bytes of a packet say.
struct packet {
    bool v6;
    __u8 tos;
    __be16 sport, dport;
    __be16 udp_len; // as it stands there
    __sum16 check;
    __u16 room;  // bytes behind the UDP header
    __u32 frame; // bytes that the frame has
    __u32 ends;  // bytes that it should have
    __be16 head[2]; // the first four bytes behind the UDP header
    struct address src, dst;
};

// What is to leave.
struct sending {
    struct address src, dst;
    __be16 sport, dport;
    __be16 channel; // 0: none
    __u16 payload;
    __u32 padding; // what is behind the payload and does not leave, as in the last four bytes
    bool strips;   // what came has a ChannelData header
    struct way *way;
};

INLINE __u32 l3_len(const struct packet *p) { return p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr); }

// From the UDP header on.
INLINE __u32 udp_len(const struct sending *s)
{
    return sizeof(struct udphdr) + (s->channel ? HEADER : 0) + s->payload;
}

// -- One's complement (RFC 1071, RFC 1624) ------------------------------------------------------------

INLINE __u16 fold(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

INLINE __u64 sum_of(const __u32 *words, int count)
{
    __u64 sum = 0;
#pragma unroll
    for (int i = 0; i < count; i++)
        sum += words[i];
    return sum;
}

// The sum of an address; the prefix of a mapped one is not on the wire.
INLINE __u64 sum_of_address(const struct address *a, bool v6) { return v6 ? sum_of(a->word, 4) : a->word[3]; }

INLINE __u64 ports(__be16 a, __be16 b) { return (__u64)a + b; }

// Addresses and length as they go into a UDP checksum.
INLINE __u64 pseudo(const struct address *src, const struct address *dst, bool v6, __be16 len)
{
    return sum_of_address(src, v6) + sum_of_address(dst, v6) + len + bpf_htons(IPPROTO_UDP);
}

// -- Reading --------------------------------------------------------------------------------------

INLINE void map_address(struct address *a, __be32 v4) { *a = (struct address){{0, 0, bpf_htonl(0xffff), v4}}; }

INLINE bool same(const struct address *a, const struct address *b)
{
    return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
             (a->word[3] ^ b->word[3]));
}

INLINE bool read_ipv4(struct packet *p, void *at, void *end)
{
    struct iphdr *ip = at;
    if ((void *)(ip + 1) > end || *(__u8 *)at != 0x45 || ip->protocol != IPPROTO_UDP)
        return false;
    if (ip->frag_off & ~bpf_htons(DONT_FRAGMENT) || fold(sum_of(at, 5)) != 0xffff)
        return false;
    map_address(&p->src, ip->saddr);
    map_address(&p->dst, ip->daddr);
    p->tos = ip->tos;
    p->ends = ETH_HLEN + bpf_ntohs(ip->tot_len);
    return true;
}

INLINE bool read_ipv6(struct packet *p, void *at, void *end)
{
    struct ipv6hdr *ip = at;
    if ((void *)(ip + 1) > end || ip->version != 6 || ip->nexthdr != IPPROTO_UDP)
        return false;
    __builtin_memcpy(&p->src, &ip->saddr, sizeof p->src);
    __builtin_memcpy(&p->dst, &ip->daddr, sizeof p->dst);
    p->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
    p->ends = ETH_HLEN + sizeof *ip + bpf_ntohs(ip->payload_len);
    p->v6 = true;
    return true;
}

// Whether it is a UDP packet that could be somebody's.
INLINE bool read(struct packet *p, void *data, void *end)
{
    struct ethhdr *eth = data;
    if ((void *)(eth + 1) > end)
        return false;
    if (eth->h_proto == bpf_htons(ETH_P_IP) ? !read_ipv4(p, eth + 1, end)
                                            : eth->h_proto != bpf_htons(ETH_P_IPV6) || !read_ipv6(p, eth + 1, end))
        return false;
    struct udphdr *udp = (void *)(eth + 1) + l3_len(p);
    if ((void *)(udp + 1) > end)
        return false;
    __u32 len = bpf_ntohs(udp->len);
    if (len < sizeof *udp || p->ends != ETH_HLEN + l3_len(p) + len || p->ends > p->frame)
        return false;
    p->sport = udp->source;
    p->dport = udp->dest;
    p->udp_len = udp->len;
    p->check = udp->check;
    p->room = len - sizeof *udp;
    __be16 *head = (void *)(udp + 1);
    if (p->room >= HEADER) {
        if ((void *)(head + 2) > end)
            return false;
        p->head[0] = head[0];
        p->head[1] = head[1];
    }
    return true;
}

// -- Rows -----------------------------------------------------------------------------------------

INLINE struct flow *flow_at(const __u64 *found, __u32 *slot)
{
    if (!found)
        return NULL;
    __u64 value = *(volatile const __u64 *)found;
    *slot = value;
    struct flow *flow = bpf_map_lookup_elem(&flows, slot);
    return flow && flow->generation == value >> 32 ? flow : NULL;
}

// The row of a channel. An entry of a hash may become another's while it is read, so the row has to agree.
INLINE struct flow *flow_of_client(const struct packet *p, __u32 *slot)
{
    struct client_key key = {p->src, p->dst, p->sport, p->dport, p->head[0], 0};
    struct flow *flow = flow_at(bpf_map_lookup_elem(&by_client, &key), slot);
    if (!flow || !same(&flow->client, &p->src) || !same(&flow->server, &p->dst) || flow->client_port != p->sport ||
        flow->server_port != p->dport || flow->channel != p->head[0])
        return NULL;
    return flow;
}

INLINE struct flow *flow_of_peer(const struct address *peer, __be16 peer_port, const struct address *relay,
                                 __be16 relay_port, __u32 *slot)
{
    struct peer_key key = {*peer, *relay, peer_port, relay_port};
    struct flow *flow = flow_at(bpf_map_lookup_elem(&by_peer, &key), slot);
    if (!flow || !same(&flow->peer, peer) || !same(&flow->relay, relay) || flow->peer_port != peer_port ||
        flow->relay_port != relay_port)
        return NULL;
    return flow;
}

INLINE bool is_live(const struct flow *flow, __u64 now) { return now < *(volatile const __u64 *)&flow->expires; }

// -- Bandwidth (src/turn/bandwidth.rs, with the same words) ---------------------------------------------

INLINE __u64 *meter(const struct flow *flow, int level, enum direction direction)
{
    __u32 index = flow->meters[level] * 2 + direction;
    return bpf_map_lookup_elem(&meters, &index);
}

// Puts the time at which the bucket is full again off. Whoever loses the race too often adds only.
INLINE void take(__u64 *full, __u64 now, __u64 cost)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __u64 old = *(volatile __u64 *)full;
        if (__sync_val_compare_and_swap(full, old, (old > now ? old : now) + cost) == old)
            return;
    }
    __sync_fetch_and_add(full, cost);
}

// Goes on when all three have room, and is counted by all three only then.
INLINE enum outcome charge(const struct control *c, const struct flow *flow, enum direction direction, __u64 bytes,
                           __u64 now)
{
    __u64 *full[LEVELS] = {}, cost[LEVELS];
#pragma unroll
    for (int i = 0; i < LEVELS; i++) {
        __u64 rate = *(volatile const __u64 *)&c->rates[i];
        if (!rate)
            continue;
        full[i] = meter(flow, i, direction);
        if (!full[i])
            return NO_METER;
        if (*(volatile __u64 *)full[i] >= now + BURST)
            return OVER_BANDWIDTH;
        cost[i] = (bytes * SECOND + rate - 1) / rate;
    }
#pragma unroll
    for (int i = 0; i < LEVELS; i++)
        if (full[i])
            take(full[i], now, cost[i]);
    return GO_ON;
}

// -- The next hop -----------------------------------------------------------------------------------

// Asks for the route as this host's own sockets would, so it is looked up as from the loopback interface.
INLINE enum outcome look_up(void *ctx, const struct packet *p, const struct sending *s, __u16 len, struct hop *hop,
                            __u64 now, const bool is_xdp)
{
    struct bpf_fib_lookup fib = {
        .family = p->v6 ? AF_INET6 : AF_INET,
        .l4_protocol = IPPROTO_UDP,
        .sport = s->sport,
        .dport = s->dport,
        .tot_len = len,
        .ifindex = LOOPBACK,
    };
    if (p->v6) {
        __builtin_memcpy(fib.ipv6_src, &s->src, sizeof s->src);
        __builtin_memcpy(fib.ipv6_dst, &s->dst, sizeof s->dst);
    } else {
        fib.ipv4_src = s->src.word[3];
        fib.ipv4_dst = s->dst.word[3];
    }
    switch (bpf_fib_lookup(ctx, &fib, sizeof fib, is_xdp ? 0 : SKIP_NEIGHBOUR)) {
    case BPF_FIB_LKUP_RET_SUCCESS:
        break;
    case BPF_FIB_LKUP_RET_NO_NEIGH:
        return NO_NEIGHBOUR;
    case BPF_FIB_LKUP_RET_FRAG_NEEDED:
        return TOO_LARGE;
    default:
        return NO_ROUTE;
    }
    if (is_xdp && !bpf_map_lookup_elem(&exits, &fib.ifindex))
        return NO_ROUTE;
    hop->ifindex = fib.ifindex;
    hop->mtu = fib.mtu_result;
    hop->family = fib.family;
    if (is_xdp) {
        __builtin_memcpy(hop->destination, fib.dmac, ETH_ALEN);
        __builtin_memcpy(hop->source, fib.smac, ETH_ALEN);
    } else {
        __builtin_memcpy(hop->gateway, fib.ipv6_dst, sizeof hop->gateway);
    }
    hop->until = now + SECOND;
    // Frames that XDP sends do not make the kernel look after the neighbour, packets of user space do.
    return is_xdp && ++hop->lookups % 4 == 0 ? NEIGHBOUR_DUE : GO_ON;
}

INLINE enum outcome find_hop(void *ctx, const struct packet *p, const struct sending *s, __u64 now, const bool is_xdp)
{
    struct hop *hop = &s->way->hop;
    __u32 len = l3_len(p) + udp_len(s);
    if (len > 0xffff)
        return TOO_LARGE;
    if (hop->until <= now) {
        enum outcome outcome = look_up(ctx, p, s, len, hop, now, is_xdp);
        if (outcome != GO_ON)
            return outcome;
    }
    return len > hop->mtu ? TOO_LARGE : GO_ON;
}

// -- Writing ----------------------------------------------------------------------------------------

struct head {
    struct udphdr udp;
    __be16 channel[2];
} __attribute__((packed));

struct headers4 {
    struct iphdr ip;
    struct head rest;
} __attribute__((packed));

struct headers6 {
    struct ipv6hdr ip;
    struct head rest;
} __attribute__((packed));

// The UDP and ChannelData headers. The checksum is the old one without what goes and with what comes, so
// one that was wrong stays wrong.
INLINE void fill_head(struct head *h, const struct packet *p, const struct sending *s)
{
    __be16 len = bpf_htons(udp_len(s));
    __u64 gone = pseudo(&p->src, &p->dst, p->v6, p->udp_len) + ports(p->sport, p->dport) + p->udp_len;
    __u64 come = pseudo(&s->src, &s->dst, p->v6, len) + ports(s->sport, s->dport) + len;
    if (s->strips)
        gone += (__u64)p->head[0] + p->head[1] + s->padding;
    if (s->channel)
        come += (__u64)s->channel + bpf_htons(s->payload);
    __u16 check = ~fold(come + (__u16)~p->check + (__u16)~fold(gone));
    *h = (struct head){
        .udp = {.source = s->sport, .dest = s->dport, .len = len, .check = check ?: 0xffff},
        .channel = {s->channel, bpf_htons(s->payload)},
    };
}

INLINE void fill_ipv4(struct headers4 *h, const struct packet *p, const struct sending *s)
{
    h->ip = (struct iphdr){
        .version = 4,
        .ihl = 5,
        .tos = p->tos,
        .tot_len = bpf_htons(sizeof h->ip + udp_len(s)),
        .id = bpf_get_prandom_u32(),
        .ttl = ttl,
        .protocol = IPPROTO_UDP,
        .saddr = s->src.word[3],
        .daddr = s->dst.word[3],
    };
    h->ip.check = ~fold(sum_of((__u32 *)h, 5));
    fill_head(&h->rest, p, s);
}

INLINE void fill_ipv6(struct headers6 *h, const struct packet *p, const struct sending *s)
{
    h->ip = (struct ipv6hdr){
        .version = 6,
        .priority = p->tos >> 4,
        .flow_lbl = {p->tos << 4},
        .payload_len = bpf_htons(udp_len(s)),
        .nexthdr = IPPROTO_UDP,
        .hop_limit = hop_limit,
    };
    __builtin_memcpy(&h->ip.saddr, &s->src, sizeof s->src);
    __builtin_memcpy(&h->ip.daddr, &s->dst, sizeof s->dst);
    fill_head(&h->rest, p, s);
}

// Makes the frame as long as what is to leave; the bytes that a header goes into are behind that of IP.
INLINE bool resize(void *ctx, const struct packet *p, const struct sending *s, const bool is_xdp)
{
    __u32 end = s->strips ? ETH_HLEN + l3_len(p) + sizeof(struct udphdr) + HEADER + s->payload : p->ends;
    if (end != p->frame && (is_xdp ? bpf_xdp_adjust_tail(ctx, (int)(end - p->frame)) : bpf_skb_change_tail(ctx, end, 0)))
        return false;
    int grow = (s->channel ? HEADER : 0) - (s->strips ? HEADER : 0);
    if (!grow)
        return true;
    if (is_xdp)
        return !bpf_xdp_adjust_head(ctx, -grow);
    return !bpf_skb_adjust_room(ctx, grow, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET);
}

// Writes behind the Ethernet header; in a frame also that.
INLINE bool put(void *ctx, const struct packet *p, const struct sending *s, const void *headers, const __u32 len,
                const bool is_xdp)
{
    if (!is_xdp)
        return !bpf_skb_store_bytes(ctx, ETH_HLEN, headers, len, BPF_F_RECOMPUTE_CSUM);
    struct xdp_md *xdp = ctx;
    struct ethhdr *eth = (void *)(long)xdp->data;
    if ((void *)(eth + 1) + len > (void *)(long)xdp->data_end)
        return false;
    __builtin_memcpy(eth->h_dest, s->way->hop.destination, ETH_ALEN);
    __builtin_memcpy(eth->h_source, s->way->hop.source, ETH_ALEN);
    eth->h_proto = p->v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
    __builtin_memcpy(eth + 1, headers, len);
    return true;
}

INLINE bool write(void *ctx, const struct packet *p, const struct sending *s, const bool is_xdp)
{
    if (!resize(ctx, p, s, is_xdp))
        return false;
    if (p->v6) {
        struct headers6 h;
        fill_ipv6(&h, p, s);
        return s->channel ? put(ctx, p, s, &h, sizeof h, is_xdp) : put(ctx, p, s, &h, sizeof h - HEADER, is_xdp);
    }
    struct headers4 h;
    fill_ipv4(&h, p, s);
    return s->channel ? put(ctx, p, s, &h, sizeof h, is_xdp) : put(ctx, p, s, &h, sizeof h - HEADER, is_xdp);
}

// -- Deciding ---------------------------------------------------------------------------------------

INLINE void to_client(struct sending *s, const struct flow *flow)
{
    s->src = flow->server;
    s->dst = flow->client;
    s->sport = flow->server_port;
    s->dport = flow->client_port;
    s->channel = flow->channel;
}

INLINE void to_peer(struct sending *s, const struct flow *flow)
{
    s->src = flow->relay;
    s->dst = flow->peer;
    s->sport = flow->relay_port;
    s->dport = flow->peer_port;
    s->channel = 0;
}

// The length of ChannelData's payload, and what is behind it: nothing, or zero to three bytes up to the next
// multiple of four (RFC 8656 section 12.5). User space takes more; a packet like that is not worth a path.
INLINE bool read_channel_data(void *ctx, const struct packet *p, struct sending *s, const bool is_xdp)
{
    __u32 whole = HEADER + bpf_ntohs(p->head[1]);
    s->payload = whole - HEADER;
    s->strips = true;
    if (whole == p->room)
        return true;
    __u32 padding = p->room - whole;
    if (whole > p->room || padding > 3 || p->room % 4)
        return false;
    __u32 last;
    if (is_xdp ? bpf_xdp_load_bytes(ctx, p->ends - 4, &last, 4) : bpf_skb_load_bytes(ctx, p->ends - 4, &last, 4))
        return false;
    s->padding = bpf_ntohl(bpf_ntohl(last) & ((1U << 8 * (padding & 3)) - 1));
    return true;
}

// Where the packet of `flow` goes: all of `s` but what `read_channel_data` fills.
INLINE enum outcome aim(struct sending *s, const struct flow *flow, __u32 slot, enum direction direction,
                        struct flow **twin, __u64 now)
{
    __u32 twin_slot = slot;
    if (direction == TO_CLIENT) {
        to_client(s, flow);
    } else if (!flow->peer_is_relay) {
        to_peer(s, flow);
    } else {
        *twin = flow_of_peer(&flow->relay, flow->relay_port, &flow->peer, flow->peer_port, &twin_slot);
        if (!*twin || !(*twin)->peer_is_relay)
            return NO_TWIN;
        if (!is_live(*twin, now))
            return EXPIRED;
        to_client(s, *twin);
    }
    struct ways *ways = bpf_map_lookup_elem(&traffic, &twin_slot);
    if (!ways)
        return NO_FLOW;
    s->way = &ways->of[*twin ? TO_CLIENT : direction];
    return GO_ON;
}

INLINE enum outcome charge_both(const struct control *c, const struct flow *flow, const struct flow *twin,
                                enum direction direction, __u64 bytes, __u64 now)
{
    enum outcome outcome = charge(c, flow, direction, bytes, now);
    return outcome == GO_ON && twin ? charge(c, twin, TO_CLIENT, bytes, now) : outcome;
}

INLINE void count(struct way *way, __u16 bytes)
{
    way->packets++;
    way->bytes += bytes;
}

INLINE enum outcome relay(void *ctx, const struct packet *p, struct sending *s, const bool is_xdp)
{
    __u32 slot = 0, zero = 0;
    struct flow *flow = NULL, *twin = NULL;
    enum direction direction = TO_CLIENT;

    if (p->room >= HEADER && (*(__u8 *)p->head & 0xc0) == 0x40 && (flow = flow_of_client(p, &slot)))
        direction = TO_PEER;
    else if (!(flow = flow_of_peer(&p->src, p->sport, &p->dst, p->dport, &slot)) || flow->peer_is_relay)
        return NO_FLOW;

    struct control *c = bpf_map_lookup_elem(&control, &zero);
    __u64 now = bpf_ktime_get_coarse_ns() - origin;
    if (!c || now > *(volatile __u64 *)&c->beat + SECOND)
        return NO_BEAT;
    if (!is_live(flow, now))
        return EXPIRED;
    if (!p->check || p->check == fold(pseudo(&p->src, &p->dst, p->v6, p->udp_len)))
        return NO_CHECKSUM;
    if (direction == TO_PEER && !read_channel_data(ctx, p, s, is_xdp))
        return BAD_LENGTH;

    enum outcome outcome = aim(s, flow, slot, direction, &twin, now);
    if (outcome == GO_ON)
        outcome = find_hop(ctx, p, s, now, is_xdp);
    if (outcome == GO_ON)
        outcome = charge_both(c, flow, twin, direction, s->payload, now);
    if (outcome != GO_ON)
        return outcome;
    if (!write(ctx, p, s, is_xdp))
        return FAILED;

    count(s->way, s->payload);
    if (!twin)
        return direction == TO_PEER ? RELAYED_TO_PEER : RELAYED_TO_CLIENT;
    struct ways *ways = bpf_map_lookup_elem(&traffic, &slot);
    if (ways)
        count(&ways->of[TO_PEER], s->payload);
    return RELAYED_LOCALLY;
}

// What becomes of the packet, counted.
INLINE enum outcome run(void *ctx, struct packet *p, struct sending *s, void *data, void *end, const bool is_xdp)
{
    __u32 outcome = NOT_PLAIN;
    if (read(p, data, end)) {
        s->payload = p->room;
        outcome = relay(ctx, p, s, is_xdp);
    }
    __u64 *counter = bpf_map_lookup_elem(&outcomes, &outcome);
    if (counter)
        ++*counter;
    return outcome;
}

SEC("classifier")
int turn_tc(struct __sk_buff *skb)
{
    const __u32 headers = ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct udphdr) + HEADER;
    struct packet p = {.frame = skb->len};
    struct sending s = {};
    // Several packets in one, somebody else's, or tagged.
    if (skb->gso_size || skb->pkt_type != 0 || skb->vlan_present)
        return TC_ACT_UNSPEC;
    if (skb->data + headers > skb->data_end && skb->data + skb->len > skb->data_end)
        bpf_skb_pull_data(skb, skb->len < headers ? skb->len : headers);

    enum outcome outcome = run(skb, &p, &s, (void *)(long)skb->data, (void *)(long)skb->data_end, false);
    if (outcome > FAILED || !s.way)
        return TC_ACT_UNSPEC;
    if (outcome > RELAYED_LOCALLY)
        return TC_ACT_SHOT;
    struct bpf_redir_neigh next = {.nh_family = s.way->hop.family};
    __builtin_memcpy(next.ipv6_nh, s.way->hop.gateway, sizeof next.ipv6_nh);
    return bpf_redirect_neigh(s.way->hop.ifindex, &next, sizeof next, 0);
}

SEC("xdp")
int turn_xdp(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
    struct packet p = {.frame = end - data};
    struct sending s = {};
    enum outcome outcome = data + 1 > end || *(__u8 *)data & 1 ? NOT_PLAIN : run(xdp, &p, &s, data, end, true);
    if (outcome > FAILED || !s.way)
        return XDP_PASS;
    if (outcome > RELAYED_LOCALLY)
        return XDP_DROP;
    return s.way->hop.ifindex == xdp->ingress_ifindex ? XDP_TX : bpf_redirect(s.way->hop.ifindex, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
