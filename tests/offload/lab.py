"""Three network namespaces in a row, client - server - peer, a TURN client whose sockets are in them, and its peer.

Checksum offload is off at the outer ends: a veth would leave the checksums of UDP unfinished, and such packets are none of
the kernel program's business.
"""

import atexit
import contextlib
import ctypes
import hashlib
import hmac
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent.parent
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
USER, PASSWORD = "alice", "wonderland"
COOKIE = 0x2112A442
# The channel of a pair.
NUMBER = 0x4001
ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND, SEND = 3, 4, 8, 9, 6
LIFETIME, PEER, DATA, RELAYED, FAMILY, TRANSPORT, CHANNEL = 0x0D, 0x12, 0x13, 0x16, 0x17, 0x19, 0x0C


def sh(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Network:
    """client 10.77.1.2 - 10.77.1.1 server 10.77.2.1 - 10.77.2.2 peer, and the same in fd77::/16."""

    CLIENT, LISTENER, RELAY, PEER = "10.77.1.2", "10.77.1.1", "10.77.2.1", "10.77.2.2"
    CLIENT6, LISTENER6, RELAY6, PEER6 = "fd77:1::2", "fd77:1::1", "fd77:2::1", "fd77:2::2"

    def __init__(self):
        self.spaces = {role: f"turnkey-offload-{os.getpid()}-{role}" for role in ("client", "server", "peer")}
        atexit.register(self.remove)
        for space in self.spaces.values():
            sh("ip", "netns", "add", space)
            sh("ip", "-n", space, "link", "set", "lo", "up")
        self.link("client", "1")
        self.link("peer", "2")
        self.run("server", "sysctl", "-qw", "net.ipv6.conf.lo.forwarding=1")
        for space, subnet in (("client", "2"), ("peer", "1")):
            via = {"client": "1", "peer": "2"}[space]
            sh("ip", "-n", self.spaces[space], "route", "add", f"10.77.{subnet}.0/24", "via", f"10.77.{via}.1")
            sh("ip", "-n", self.spaces[space], "route", "add", f"fd77:{subnet}::/32", "via", f"fd77:{via}::1")

    def link(self, role, subnet):
        server, other = self.spaces["server"], self.spaces[role]
        sh("ip", "link", "add", f"to-{role}", "netns", server, "type", "veth", "peer", "name", "eth0", "netns", other)
        for space, device, host in ((server, f"to-{role}", 1), (other, "eth0", 2)):
            sh("ip", "-n", space, "addr", "add", f"10.77.{subnet}.{host}/24", "dev", device)
            sh("ip", "-n", space, "addr", "add", f"fd77:{subnet}::{host}/32", "dev", device, "nodad")
            sh("ip", "-n", space, "link", "set", device, "up")
        self.run(role, "ethtool", "-K", "eth0", "tx", "off")

    def run(self, role, *command):
        return sh("ip", "netns", "exec", self.spaces[role], *command)

    def remove(self):
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    def socket(self, role, kind=socket.SOCK_DGRAM, family=socket.AF_INET):
        """A socket that lives in that namespace."""
        with open("/proc/self/ns/net") as home, open(f"/run/netns/{self.spaces[role]}") as there:
            enter(there)
            try:
                return socket.socket(family, kind)
            finally:
                enter(home)


def enter(space):
    if LIBC.setns(space.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Server:
    """turnkey in the middle namespace."""

    def __init__(self, network, offload, quota="", backend="auto"):
        self.network, self.directory = network, tempfile.TemporaryDirectory(prefix="turnkey-offload-")
        binary = os.environ.get("TURNKEY_BIN", str(HOME / "target/release/turnkey"))
        home = Path(self.directory.name)
        (home / "turnkey.toml").write_text(f"""
[relay]
listen = ["udp://{network.LISTENER}:3478", "udp://[{network.LISTENER6}]:3478"]
public_address = ["{network.RELAY}", "{network.RELAY6}"]
offload = "{offload}"
backend = "{backend}"
[credentials]
users = {{ {USER} = "{PASSWORD}" }}
[peers]
allow = ["10.77.0.0/16", "fd77::/16"]
[quota]
{quota}
[http]
listen = []
[admin]
listen = "127.0.0.1:9641"
""")
        self.log_file = home / "log"
        command = ["ip", "netns", "exec", network.spaces["server"], binary, "serve", "--config", str(home / "turnkey.toml"),
                   "--state-dir", str(home / "state")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TURNKEY_")}
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        atexit.register(self.kill)
        wait(lambda: re.search(r"\bready\b", self.log()) or self.process.poll() is not None, "the server starts")
        if self.process.poll() is not None:
            raise SystemExit(f"the server does not start:\n{self.log()}")

    def log(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log_file.read_text(errors="replace"))

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=60) != 0 or "panicked" in self.log():
            raise AssertionError(f"it ended badly:\n{self.log()}")

    def metrics(self):
        """Everything on /metrics, by name and labels."""
        with contextlib.closing(self.network.socket("server", socket.SOCK_STREAM)) as connection:
            connection.settimeout(10)
            connection.connect(("127.0.0.1", 9641))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            page = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return {name: float(value) for name, value in re.findall(r"^(turnkey_\S+) (\S+)$", page, re.MULTILINE)}

    def datagrams(self):
        """What the process itself has read, but for what the kernel leaves to it now and then of the packets that it relays."""
        metrics = self.metrics()
        return metrics["turnkey_received_datagrams_total"] - left(metrics)


def left(metrics):
    """Packets of flows that passed up although nothing is wrong with them: with XDP one every few seconds, so that the kernel
    looks after its neighbours, and one in 65,536 whose checksum happens to look as if it were yet to be filled in."""
    return sum(metrics.get(f'turnkey_offload_passed_total{{reason="{reason}"}}', 0) for reason in ("neighbour_due", "no_checksum"))


def wait(is_so, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in {seconds} s: not true that {what}")
        time.sleep(0.02)
    return found


def check(is_so, what):
    if not is_so:
        raise AssertionError(what)


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def attributes(message):
    """Of a STUN message, by type."""
    found, at = {}, 20
    while at + 4 <= len(message):
        kind, length = struct.unpack("!HH", message[at:at + 4])
        found[kind] = message[at + 4:at + 4 + length]
        at += 4 + length + -length % 4
    return found


def xored(address, transaction):
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, address[0])
    mask = struct.pack("!I", COOKIE) + transaction
    host = bytes(a ^ b for a, b in zip(packed, mask))
    return struct.pack("!BBH", 0, 2 if len(packed) == 16 else 1, address[1] ^ COOKIE >> 16) + host


def unxored(value, transaction):
    mask = struct.pack("!I", COOKIE) + transaction
    host = bytes(a ^ b for a, b in zip(value[4:], mask))
    text = socket.inet_ntop(socket.AF_INET if len(host) == 4 else socket.AF_INET6, host)
    return text, struct.unpack("!H", value[2:4])[0] ^ COOKIE >> 16


def channel_data(number, payload):
    return struct.pack("!HH", number, len(payload)) + payload


class Client:
    """A client over UDP with an allocation, signing as RFC 8489 §9.2 says."""

    def __init__(self, network, is_v6=False):
        family = socket.AF_INET6 if is_v6 else socket.AF_INET
        self.socket = network.socket("client", family=family)
        self.socket.settimeout(1)
        self.socket.bind((network.CLIENT6 if is_v6 else network.CLIENT, 0))
        self.server = (network.LISTENER6 if is_v6 else network.LISTENER, 3478)
        self.realm = self.nonce = None
        self.request(ALLOCATE, [], expect=0x113)
        answer, transaction = self.request(ALLOCATE, [(TRANSPORT, b"\x11\0\0\0")] + [(FAMILY, b"\2\0\0\0")] * is_v6)
        self.relayed = unxored(answer[RELAYED], transaction)

    def request(self, method, asked, expect=0x100):
        """Asks until it is answered; the answer's attributes."""
        transaction = os.urandom(12)
        filled = [(kind, xored(value, transaction) if kind == PEER else value) for kind, value in asked]
        body = b"".join(attribute(kind, value) for kind, value in filled)
        if self.nonce:
            body += attribute(6, USER.encode()) + attribute(0x14, self.realm) + attribute(0x15, self.nonce)
            key = hashlib.md5(f"{USER}:{self.realm.decode()}:{PASSWORD}".encode()).digest()
            header = struct.pack("!HHI", method, len(body) + 24, COOKIE) + transaction
            body += attribute(8, hmac.new(key, header + body, hashlib.sha1).digest())
        message = struct.pack("!HHI", method, len(body), COOKIE) + transaction + body
        answer = wait(lambda: self.exchange(message, transaction), f"method {method} is answered")
        kind, found = struct.unpack("!H", answer[:2])[0], attributes(answer)
        self.realm, self.nonce = found.get(0x14, self.realm), found.get(0x15, self.nonce)
        error = found.get(9)
        code = error and error[2] * 100 + error[3]
        if code == 401 and expect == 0x113:
            return found, transaction
        if code == 438:
            return self.request(method, asked, expect)
        if kind & 0x110 != 0x100:
            raise AssertionError(f"method {method}: error {code}")
        return found, transaction

    def exchange(self, message, transaction):
        self.socket.sendto(message, self.server)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            try:
                answer = self.socket.recv(2048)
            except TimeoutError:
                return None
            if answer[8:20] == transaction:
                return answer
        return None

    def bind(self, number, peer):
        self.request(CHANNEL_BIND, [(CHANNEL, struct.pack("!HH", number, 0)), (PEER, peer)])

    def permit(self, peer):
        self.request(CREATE_PERMISSION, [(PEER, peer)])

    def refresh(self, seconds):
        self.request(REFRESH, [(LIFETIME, struct.pack("!I", seconds))])

    def channel(self, number, payload, behind=b""):
        self.socket.sendto(channel_data(number, payload) + behind, self.server)

    def indicate(self, peer, payload):
        """A Send indication: never offloaded."""
        transaction = os.urandom(12)
        body = attribute(PEER, xored(peer, transaction)) + attribute(DATA, payload)
        self.socket.sendto(struct.pack("!HHI", 0x10 | SEND, len(body), COOKIE) + transaction + body, self.server)


class Pair:
    """A client with a channel to a peer, which has a socket of its own."""

    def __init__(self, network, is_v6=False):
        self.client = Client(network, is_v6)
        address = network.PEER6 if is_v6 else network.PEER
        self.peer = network.socket("peer", family=self.client.socket.family)
        self.peer.bind((address, 0))
        self.peer_address = self.peer.getsockname()[:2]
        self.client.bind(NUMBER, self.peer_address)

    def exchange(self, payloads):
        """Sends each payload both ways; what did not arrive as it was sent, in words."""
        for start in range(0, len(payloads), 32):
            some = payloads[start:start + 32]
            for payload in some:
                self.client.channel(NUMBER, payload)
                self.peer.sendto(payload, self.client.relayed)
            arrived, back = receive(self.peer, len(some)), receive(self.client.socket, len(some))
            if sorted(data for data, _ in arrived) != sorted(some) or {sender[:2] for _, sender in arrived} - {self.client.relayed}:
                return f"{len(arrived)} of {len(some)} to the peer"
            if sorted(data for data, _ in back) != sorted(channel_data(NUMBER, payload) for payload in some):
                return f"{len(back)} of {len(some)} to the client"
        return None

    def send(self):
        """One packet each way."""
        self.client.channel(NUMBER, b"to the peer")
        self.peer.sendto(b"to the client", self.client.relayed)

    def passes(self):
        """Both get through."""
        self.send()
        return len(receive(self.peer, 1)) == len(receive(self.client.socket, 1)) == 1

    def is_dead(self):
        """Neither does."""
        self.send()
        return drain(self.peer) == drain(self.client.socket) == []

    def warm_up(self, server):
        """Until the kernel relays both ways: the first packets find the neighbours."""

        def is_offloaded():
            before = server.datagrams()
            check(self.passes(), "a packet is lost")
            return server.datagrams() == before

        wait(is_offloaded, "packets are offloaded")


def drain(receiver, seconds=0.3):
    """Everything that comes until nothing has for this long."""
    receiver.settimeout(seconds)
    found = []
    while True:
        try:
            found.append(receiver.recvfrom(4096))
        except TimeoutError:
            receiver.settimeout(1)
            return found


def receive(receiver, count):
    """So many datagrams, and how many there are when a busy machine has had all the time it may need."""
    receiver.settimeout(5)
    found = []
    try:
        while len(found) < count:
            found.append(receiver.recvfrom(4096))
    except TimeoutError:
        pass
    receiver.settimeout(1)
    return found
