"""Two QuicConnections in memory, and a network between them for the tests of QUIC.

Nothing here reads a clock or opens a socket: time is what the test says it is.
"""

from __future__ import annotations

import functools
import heapq
import random

import trustme

from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.connection import QuicConnection

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.2", 4433)


@functools.cache
def authority():
    """The authority that certifies every server of these tests."""
    return trustme.CA()


@functools.cache
def identity(*names):
    """A certificate for names, and its key: PEM, as bytes."""
    issued = authority().issue_cert(*(names or ("localhost", "127.0.0.1", "::1")))
    return (
        b"".join(pem.bytes() for pem in issued.cert_chain_pems),
        issued.private_key_pem.bytes(),
    )


def client_configuration(**fields):
    fields.setdefault("cadata", authority().cert_pem.bytes())
    fields.setdefault("server_name", "localhost")
    fields.setdefault("alpn_protocols", ["test"])
    return QuicConfiguration(is_client=True, **fields)


def server_configuration(**fields):
    if "certificate" not in fields:
        fields["certificate"], fields["private_key"] = identity()
    fields.setdefault("alpn_protocols", ["test"])
    return QuicConfiguration(is_client=False, **fields)


def events_of(quic):
    """All events that wait."""
    return list(iter(quic.next_event, None))


class Network:
    """Carries datagrams between a client and a server, in their own time.

    ``loss``, ``duplication`` and ``reordering`` are chances, for each datagram by
    ``seed``; ``delay`` is in seconds.
    """

    def __init__(
        self,
        client,
        server,
        *,
        delay=0.005,
        loss=0.0,
        duplication=0.0,
        reordering=0.0,
        seed=0,
    ):
        self.client, self.server = client, server
        self.now = 1000.0
        self.client_address = CLIENT
        self.delay, self.loss = delay, loss
        self.duplication, self.reordering = duplication, reordering
        self.random = random.Random(seed)
        self.events = {client: [], server: []}
        self.received = {client: {}, server: {}}
        self.ended = {client: set(), server: set()}
        self.sizes = []
        self.on_event = {}
        # What gives a connection's datagrams: a test may stand between.
        self.senders = {quic: quic.datagrams_to_send for quic in (client, server)}
        self._flying = []
        self._count = 0

    def connect(self):
        self.client.connect(SERVER, self.now)
        return self

    def handshake(self):
        """Connect, and run until all is said."""
        self.connect().run(0.5)
        return self

    def names(self, quic):
        """The names of the events so far."""
        return [type(event).__name__ for event in self.events[quic]]

    def run(self, seconds, until=None):
        """Let time pass; stop early when ``until()`` holds.  Returns whether it did."""
        end = self.now + seconds
        while True:
            for quic in (self.client, self.server):
                self._take_events(quic)
                self._send(quic)
            if until is not None and until():
                return True
            following = [self._flying[0][0]] if self._flying else []
            for quic in (self.client, self.server):
                timer = quic.get_timer()
                if timer is not None:
                    following.append(timer)
            then = max(self.now, min(following, default=end))
            if then >= end:
                self.now = end
                return until is not None and until()
            self.now = then
            while self._flying and self._flying[0][0] <= self.now:
                _, _, receiver, data, address = heapq.heappop(self._flying)
                receiver.receive_datagram(data, address, self.now)
            for quic in (self.client, self.server):
                timer = quic.get_timer()
                if timer is not None and timer <= self.now:
                    quic.handle_timer(self.now)

    def transfer(self, sender, data, stream_id=0):
        """Send all that there is on a stream; return what has come of it."""
        receiver = self.server if sender is self.client else self.client
        sender.send_stream_data(stream_id, data, end_stream=True)
        assert self.run(120, lambda: stream_id in self.ended[receiver])
        return self.received[receiver][stream_id]

    def _take_events(self, quic):
        for event in events_of(quic):
            self.events[quic].append(event)
            # By name: one of the two may be another implementation.
            if type(event).__name__ == "StreamDataReceived":
                received = self.received[quic]
                received.setdefault(event.stream_id, bytearray()).extend(event.data)
                if event.end_stream:
                    self.ended[quic].add(event.stream_id)
            if quic in self.on_event:
                self.on_event[quic](event)

    def _send(self, quic):
        if quic is self.client:
            receiver, address = self.server, self.client_address
        else:
            receiver, address = self.client, SERVER
        for data, destination in self.senders[quic](self.now):
            self.sizes.append(len(data))
            if receiver is self.client and destination != self.client_address:
                continue
            if self.random.random() < self.loss:
                continue
            copies = 2 if self.random.random() < self.duplication else 1
            for _ in range(copies):
                delay = self.delay
                if self.random.random() < self.reordering:
                    delay *= 1 + 3 * self.random.random()
                self._count += 1
                flying = (self.now + delay, self._count, receiver, data, address)
                heapq.heappush(self._flying, flying)


def make_pair(client=None, server=None, **network):
    """A network with two connections; ``client`` and ``server`` are fields of
    their configurations, or those themselves."""
    if not isinstance(client, QuicConfiguration):
        client = client_configuration(**(client or {}))
    if not isinstance(server, QuicConfiguration):
        server = server_configuration(**(server or {}))
    return Network(
        QuicConnection(configuration=client),
        QuicConnection(configuration=server),
        **network,
    )
