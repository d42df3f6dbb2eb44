"""The same traffic through a server that relays in the kernel and through ones that do not, by each way of reading and
writing datagrams: what leaves is the same, packet by packet, and keeps its order."""

import os
import random
import socket
import struct

from lab import DATA, NUMBER, Client, Pair, Server, attributes, channel_data, check, left, wait

SEED, ROUNDS, BURST = 8656, 12, 8
EXPEDITED = 0xB8
IP_RECVTTL = 12
# By family: what tells type of service and hop limit of what is sent and of what comes, and the largest payload in a packet.
MARKS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS, (socket.IP_RECVTOS, IP_RECVTTL), 1472),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, (socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT), 1452),
}


class Way:
    """From one socket to another: datagrams of one kind, so that they all take the same path and keep their order."""

    def __init__(self, name, sizes, send, receiver, read=lambda datagram: datagram, in_kernel=True):
        self.name, self.sizes, self.send, self.receiver, self.read, self.in_kernel = name, sizes, send, receiver, read, in_kernel
        self.sent, self.arrived = [], []

    def receive_one(self):
        """One datagram, with all that the network said about it."""
        datagram, ancillary, _, sender = self.receiver.recvmsg(4096, 256)
        said = sorted((level, kind, int.from_bytes(value, "little")) for level, kind, value in ancillary)
        self.arrived.append((self.read(datagram), sender[0], said))


def ways(network, is_v6):
    """Each kind of traffic both ways, by pairs of their own."""
    family = "IPv6" if is_v6 else "IPv4"
    most = MARKS[socket.AF_INET6 if is_v6 else socket.AF_INET][3]
    channel = lambda pair, behind: lambda payload: pair.client.channel(NUMBER, payload, behind(payload))
    nothing, padding = lambda _: b"", lambda payload: b"\xEE" * (-len(payload) % 4)

    def pair_of(name, up, down, behind=nothing, to_peer=True, to_client=True):
        pair = Pair(network, is_v6)
        yield Way(f"{family} {name} to the peer", up, channel(pair, behind), pair.peer, in_kernel=to_peer)
        yield Way(f"{family} {name} to the client", down, lambda payload: pair.peer.sendto(payload, pair.client.relayed),
                  pair.client.socket, unframed, in_kernel=to_client)

    yield from pair_of("packets", range(0, 1201), range(0, 1201))
    yield from pair_of("padded packets", range(0, 1201), range(0, 1201), padding)
    yield from pair_of("oddly padded packets", range(0, 1201), range(0, 1201), lambda _: b"\xEE" * 4, to_peer=False)
    # The same bytes are a channel's header more to the client, and do not fit any more.
    yield from pair_of("full packets", [most - 4], [most], to_client=False)
    yield from pair_of("fragments", range(1600, 3000), range(1600, 3000), to_peer=False, to_client=False)
    yield from indications(network, is_v6, family)
    yield from between(network, is_v6, family)


def indications(network, is_v6, family):
    pair = Pair(network, is_v6)
    other = network.socket("peer", family=pair.peer.family)
    other.bind((pair.peer_address[0], 0))
    yield Way(f"{family} Send indications", range(0, 1201), lambda payload: pair.client.indicate(pair.peer_address, payload),
              pair.peer, in_kernel=False)
    yield Way(f"{family} Data indications", range(0, 1201), lambda payload: other.sendto(payload, pair.client.relayed),
              pair.client.socket, lambda datagram: attributes(datagram)[DATA], in_kernel=False)


def between(network, is_v6, family):
    one, two = Client(network, is_v6), Client(network, is_v6)
    one.bind(NUMBER, two.relayed)
    two.bind(NUMBER, one.relayed)
    for name, sender, receiver in (("one", one, two), ("the other", two, one)):
        yield Way(f"{family} from {name} client", range(0, 1201), lambda payload, sender=sender: sender.channel(NUMBER, payload),
                  receiver.socket, unframed)


def unframed(datagram):
    check(datagram == channel_data(NUMBER, datagram[4:]), f"{datagram[:8].hex()} is no whole ChannelData")
    return datagram[4:]


def mark(way):
    """Has the socket tell what arrives beside the payload, and say what it sends."""
    level, service, wanted, _ = MARKS[way.receiver.family]
    way.receiver.setsockopt(level, service, EXPEDITED)
    for option in wanted:
        way.receiver.setsockopt(level, option, 1)
    way.receiver.settimeout(60)


def carry(network, offload, backend):
    """What arrived, by way, at a server of that kind."""
    server = Server(network, offload, backend=backend)
    all_ways = [way for is_v6 in (False, True) for way in ways(network, is_v6)]
    for way in all_ways:
        mark(way)
    warm_up(server, all_ways, offload != "off")
    random.seed(SEED)
    before = server.metrics()
    for _ in range(ROUNDS):
        for way in all_ways * BURST:
            payload = random.randbytes(random.choice(way.sizes))
            way.sent.append(payload)
            way.send(payload)
        for way in all_ways * BURST:
            way.receive_one()
    after = server.metrics()
    grown = lambda name: sum(after[key] - before[key] for key in after if key.startswith(name))
    may_be_late = left(after) - left(before)
    if offload != "off":
        most = sum(way.in_kernel for way in all_ways) * ROUNDS * BURST
        found = grown("turnkey_offload_packets_total")
        check(most - may_be_late <= found <= most, f"{found:.0f} packets in the kernel instead of {most}")
        check(may_be_late < most / 50, f"{may_be_late:.0f} passed up")
    server.stop()
    in_order(all_ways, may_be_late)
    return {way.name: sorted(way.arrived, key=repr) for way in all_ways}


def in_order(all_ways, may_be_late):
    """Of each way nothing is lost, and nothing has overtaken but what the kernel left to the process."""
    late = 0
    for way in all_ways:
        arrived = [payload for payload, _, _ in way.arrived]
        check(sorted(arrived) == sorted(way.sent), f"{way.name}: what arrives is not what was sent")
        late += arrived != way.sent
    check(late <= may_be_late, f"{late} ways are out of order")


def warm_up(server, all_ways, is_offloaded):
    """Until neighbours are known and the kernel relays what it can."""

    def stands_still():
        before = server.datagrams()
        for way in all_ways:
            if way.in_kernel:
                way.send(b"warm")
                way.receive_one()
        return not is_offloaded or server.datagrams() == before

    for way in all_ways:
        way.send(b"warm")
        way.receive_one()
    wait(stands_still, "packets are offloaded")
    for way in all_ways:
        way.arrived.clear()


def equal(network, mode):
    """What leaves is the same with and without the kernel's help, and with either backend of the worker."""
    # One processor: on several even a socket's own packets may overtake each other.
    os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})
    plain = carry(network, "off", "linux")
    same(plain, carry(network, mode, "auto"), f"offload = {mode}")
    # It is not told what the packets say beside their payload.
    bare = lambda found: {name: [packet[:2] for packet in arrived] for name, arrived in found.items()}
    same(bare(plain), bare(carry(network, "off", "portable")), "backend = portable")


def same(one, other, how):
    for name, arrived in one.items():
        differing = next((pair for pair in zip(arrived, other[name]) if pair[0] != pair[1]), None)
        check(differing is None, f"{name}: not the same with {how}: {str(differing)[:300]}")
