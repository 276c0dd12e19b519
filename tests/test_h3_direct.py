"""The direct way between our QUIC and our HTTP/3, beside the way by methods."""

import copy
import dataclasses
import gc
import itertools
import pickle
import random
import sys

import pytest
from fake_quic import REQUEST, RESPONSE
from quic_pair import CLIENT, SERVER, client_configuration, server_configuration
from test_h3_memory import growth

from nghttp2py.h3 import H3_ALPN, H3Connection, QPACKEncoder
from nghttp2py.h3.connection import FrameType, encode_frame
from nghttp2py.h3.events import DatagramReceived, DataReceived, HeadersReceived
from nghttp2py.link import QuicLink
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import DatagramFrameReceived, StreamDataReceived


class ByMethods(QuicConnection):
    """A subclass might have changed any method: HTTP/3 calls the methods."""


class Pair:
    """A client and a server in memory, with HTTP/3 on both."""

    def __init__(self, quic=QuicConnection, *, copies=False, **fields):
        fields = {
            "alpn_protocols": H3_ALPN,
            "max_datagram_frame_size": 65536,
            **fields,
        }
        self.now = 0.0
        self.copies = copies
        self.client_quic = quic(configuration=client_configuration(**fields))
        self.server_quic = quic(configuration=server_configuration(**fields))
        self.client_quic.connect(SERVER, now=self.now)
        for _ in range(4):
            self.carry()
        for end in (self.client_quic, self.server_quic):
            while end.next_event() is not None:
                pass
        self.client = H3Connection(self.client_quic, True)
        self.server = H3Connection(self.server_quic, True)
        assert self.run() == ([], [])

    def carry(self):
        for sender, receiver, address in (
            (self.client_quic, self.server_quic, CLIENT),
            (self.server_quic, self.client_quic, SERVER),
        ):
            self.now += 0.01
            for data, _ in sender.datagrams_to_send(now=self.now):
                receiver.receive_datagram(data, address, now=self.now)

    def events_of(self, quic):
        while (event := quic.next_event()) is not None:
            if self.copies:
                # What a program makes itself is no loan.
                values = [getattr(event, name) for name in type(event).__match_args__]
                yield type(event)(*values)
            else:
                yield event

    def run(self, times=3):
        """Exchange packets; return the events of HTTP/3, of client and server."""
        seen = ([], [])
        for _ in range(times):
            self.carry()
            for events, h3, quic in zip(
                seen,
                (self.client, self.server),
                (self.client_quic, self.server_quic),
                strict=True,
            ):
                for event in self.events_of(quic):
                    events += h3.handle_event(event)
        return seen

    def stream_event(self, data=b"x" * 3000):
        """What the server gets when the client sends a request with this body."""
        stream_id = self.client_quic.get_next_available_stream_id()
        self.client.send_headers(stream_id, REQUEST)
        self.client.send_data(stream_id, data, True)
        self.carry()
        self.carry()
        for event in iter(self.server_quic.next_event, None):
            if event.stream_id == stream_id:
                return event
            self.server.handle_event(event)
        raise AssertionError("the request has not come")


def request_on_the_wire(body):
    """A request that refers to no dynamic table."""
    return encode_frame(
        FrameType.HEADERS, QPACKEncoder().encode(0, REQUEST)
    ) + encode_frame(FrameType.DATA, body)


def conversation(pair, seed):
    """Say many things by chance; return all that both ends saw."""
    chance = random.Random(seed)
    seen = []
    for _ in range(12):
        stream_id = pair.client_quic.get_next_available_stream_id()
        pair.client.send_headers(stream_id, REQUEST)
        for _ in range(chance.randrange(4)):
            size = chance.choice([0, 1, 200, 256, 257, 5000, 40000])
            pair.client.send_data(stream_id, chance.randbytes(size), False)
        if chance.random() < 0.2:
            pair.client_quic.reset_stream(stream_id, 0x10C)
        else:
            pair.client.send_data(stream_id, bytearray(b"end"), True)
        for size in chance.sample([0, 1, 900], 2):
            pair.client.send_datagram(stream_id, chance.randbytes(size))
        seen.append(pair.run(chance.randrange(1, 3)))
        if chance.random() < 0.7 and pair.server_quic.stream_can_send(stream_id):
            pair.server.send_headers(stream_id, RESPONSE)
            pair.server.send_data(stream_id, chance.randbytes(20000), True)
    seen.append(pair.run(10))
    return [by_stream(events) for events in zip(*seen, strict=True)]


def by_stream(lists):
    """Return the events of each stream, and the datagrams; a body is one event.

    Where packets, and so pieces of a body, end differs between connections: ngtcp2
    skips packet numbers at random (RFC 9000, 21.4), which changes their length.
    """
    seen = {}
    for event in itertools.chain.from_iterable(lists):
        events = seen.setdefault((type(event) is DatagramReceived, event.stream_id), [])
        if events and type(event) is DataReceived is type(events[-1]):
            assert not events[-1].stream_ended
            data = events.pop().data + event.data
            event = dataclasses.replace(event, data=data)
        events.append(event)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_all_ways_give_the_same_events(seed):
    direct = conversation(Pair(), seed)
    assert direct == conversation(Pair(ByMethods), seed)
    assert direct == conversation(Pair(copies=True), seed)
    _, server = direct
    assert {type(events[0]) for events in server.values()} >= {
        HeadersReceived,
        DatagramReceived,
    }


@pytest.mark.parametrize("quic", [QuicConnection, ByMethods])
def test_a_request_that_comes_byte_by_byte(quic):
    pair = Pair(quic)
    wire = request_on_the_wire(b"body" * 10)
    events = []
    for i in range(len(wire)):
        pair.client_quic.send_stream_data(0, wire[i : i + 1], i == len(wire) - 1)
        events += pair.run(1)[1]
    assert events[0] == HeadersReceived(REQUEST, 0, False)
    assert b"".join(event.data for event in events[1:]) == b"body" * 10
    assert events[-1].stream_ended


@pytest.mark.parametrize("quic", [QuicConnection, ByMethods])
@pytest.mark.parametrize("urgency", [0, 3, 7])
def test_what_all_streams_depend_on_overtakes_a_body(quic, urgency):
    pair = Pair(quic)
    pair.client.send_headers(0, REQUEST, True)
    pair.run()
    pair.server.send_headers(0, RESPONSE)
    pair.server.send_data(0, bytes(10_000_000), True)
    pair.server_quic.set_stream_priority(0, urgency)
    pair.run(1)
    pair.server.send_goaway()
    pair.carry()
    came = {event.stream_id for event in pair.events_of(pair.client_quic)}
    assert pair.server._local_control_stream_id in came


def test_a_connection_is_not_an_adapter_of_the_layer_above():
    assert QuicConnection.__mro__ == (QuicConnection, object)
    with pytest.raises(TypeError, match="abstract"):
        QuicLink()


def test_a_subclass_may_override_what_serves_a_stream_first():
    first = []

    class Telling(QuicConnection):
        def set_stream_critical(self, stream_id):
            first.append(stream_id)
            super().set_stream_critical(stream_id)

    Pair(Telling)
    assert sorted(first) == [2, 3, 6, 7, 10, 11]


def test_the_data_of_an_event_are_there_before_and_after_it_was_handled():
    pair, other = Pair(), Pair()
    event = pair.stream_event()
    before = other.stream_event()
    data = before.data
    assert type(data) is bytes
    assert data is before.data
    assert pair.server.handle_event(event) == other.server.handle_event(before)
    assert event.data == data
    assert event == before


def test_an_event_that_is_kept_keeps_its_data():
    pair = Pair()
    kept = []
    for i in range(40):
        event = pair.stream_event(bytes([i]) * (200 * i))
        kept.append((i, event))
        while (more := pair.server_quic.next_event()) is not None:
            kept.append((i, more))
    del pair
    gc.collect()
    for i in range(40):
        data = b"".join(event.data for j, event in kept if i == j)
        assert data.endswith(bytes([i]) * (200 * i))


def test_a_small_event_that_is_kept_does_not_keep_what_came_with_it():
    pair = Pair(max_data=1 << 24, max_stream_data=1 << 24)
    kept = []

    def keep_one():
        # What came before is of other streams.
        pair.client_quic.send_stream_data(0, bytes(10000))
        pair.client_quic.send_stream_data(4, b"x")
        for _ in range(3):
            pair.carry()
        for event in iter(pair.server_quic.next_event, None):
            if event.stream_id == 4:
                kept.append(event)

    assert growth(keep_one, 200, 500) < 1_500_000
    assert len(kept) > 500
    assert b"".join(event.data for event in kept) == b"x" * 700


def test_an_event_can_be_changed_before_it_is_handled():
    pair = Pair()
    event = pair.stream_event()
    event.data = request_on_the_wire(b"other")
    event.end_stream = True
    events = pair.server.handle_event(event)
    assert events == [
        HeadersReceived(REQUEST, 0, False),
        DataReceived(b"other", 0, True),
    ]


class MeddlingTrace:
    """Asks for the event's data, and has more come in, while it is handled."""

    def __init__(self, pair):
        self.pair = pair
        self.event = None

    def __getattr__(self, name):
        return lambda **values: values

    def log_event(self, **values):
        if self.event is not None:
            assert self.event.data.endswith(b"x" * 2000)
            del self.event
            self.event = None
            for _ in range(3):
                self.pair.client_quic.send_stream_data(2, bytes(1000))
                self.pair.carry()


def test_what_happens_while_an_event_is_handled_does_not_harm_its_bytes():
    pair = Pair()
    trace = MeddlingTrace(pair)
    # It is read when the H3Connection is made.
    quic = QuicConnection(
        configuration=server_configuration(
            alpn_protocols=H3_ALPN, quic_logger=MeddlingLogger(trace)
        )
    )
    pair.server_quic = quic
    pair.client_quic = QuicConnection(
        configuration=client_configuration(alpn_protocols=H3_ALPN)
    )
    pair.client_quic.connect(SERVER, now=pair.now)
    for _ in range(4):
        pair.carry()
    pair.client, pair.server = H3Connection(pair.client_quic), H3Connection(quic)
    pair.run()
    trace.event = pair.stream_event(b"y" * 600 + b"x" * 2000)
    wanted = [
        HeadersReceived(REQUEST, 0, False),
        DataReceived(b"y" * 600 + b"x" * 2000, 0, True),
    ]
    assert pair.server.handle_event(trace.event)[:2] == wanted
    assert trace.event is None


class MeddlingLogger:
    def __init__(self, trace):
        self.trace = trace

    def start_trace(self, **values):
        return self.trace

    def end_trace(self, trace):
        pass


def test_bodies_are_not_copied_and_given_back():
    pair = Pair()
    body = b"b" * 100000
    references = sys.getrefcount(body)
    pair.client.send_headers(0, REQUEST)
    pair.client.send_data(0, body, True)
    assert sys.getrefcount(body) == references + 1
    _, events = pair.run(20)
    assert b"".join(event.data for event in events[1:]) == body
    assert sys.getrefcount(body) == references


def test_a_long_connection_does_not_grow():
    pair = Pair()
    kept = []

    def exchange():
        event = pair.stream_event(b"x" * 20000)
        pair.server.handle_event(event)
        pair.server.send_headers(event.stream_id, RESPONSE)
        pair.server.send_data(event.stream_id, b"y" * 5000, True)
        pair.run()
        # One event in its first form, one that gave its data.
        kept[:] = [event, kept[0] if kept else event]
        assert kept[1].data

    assert growth(exchange, 300, 700) < 1_500_000


@pytest.mark.parametrize("quic", [QuicConnection, ByMethods])
def test_errors_are_those_of_the_methods(quic):
    pair = Pair(quic)
    pair.client.send_headers(0, REQUEST)
    pair.client_quic.send_stream_data(0, b"", True)
    with pytest.raises(RuntimeError, match="after its end"):
        pair.client.send_data(0, b"late", False)
    pair.client.send_headers(4, REQUEST)
    pair.client_quic.reset_stream(4, 0x10C)
    with pytest.raises(RuntimeError, match="was reset"):
        pair.client.send_data(4, b"late" * 1000, False)


@pytest.mark.parametrize("kind", [StreamDataReceived, DatagramFrameReceived])
def test_events_with_data_are_dataclasses(kind):
    values = (b"abc", True, 4)[: len(kind.__match_args__)]
    event = kind(*values)
    names = [field.name for field in dataclasses.fields(event)]
    assert names == list(kind.__match_args__)
    assert event == kind(**dict(zip(names, values, strict=True)))
    assert event != kind(b"abd", *values[1:])
    assert event != values
    assert repr(event).startswith(f"{kind.__name__}(data=b'abc'")
    assert dataclasses.replace(event, data=b"") == kind(b"", *values[1:])
    with pytest.raises(TypeError):
        hash(event)
    match event:
        case kind(data=b"abc"):
            pass
        case _:
            raise AssertionError


@pytest.mark.parametrize(
    "take", [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))]
)
def test_an_event_that_borrows_can_be_copied_and_pickled(take):
    pair = Pair()
    pair.client_quic.send_stream_data(0, bytes(5000), end_stream=True)
    pair.carry()
    events = []
    while (event := pair.server_quic.next_event()) is not None:
        events.append(event)
    taken = [take(event) for event in events]
    del pair
    gc.collect()
    assert taken == events
    assert b"".join(event.data for event in taken) == bytes(5000)
    assert taken[-1].end_stream
