"""Two connections under random calls, legal and not, and random cuts of the wire.

No byte of a body is lost, doubled or out of order; each message ends once; the end
of a stream is the last that is told of it; windows come back; nothing but our own
exceptions comes out.
"""

import contextlib
from collections import defaultdict

from helpers import body_of, exchange
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
)

from nghttp2py.errors import ErrorCode, NGHTTP2Error
from nghttp2py.h2 import (
    H2BodyFailed,
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2ConnectionClosed,
    H2PushedStreamReceived,
    H2RequestReceived,
    H2StreamClosed,
    H2StreamReset,
)

CLIENT, SERVER = 0, 1
GET = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/"),
    (b":authority", b"h"),
]
sides = st.sampled_from([CLIENT, SERVER])
sizes = st.one_of(st.integers(0, 100), st.integers(0, 100000))


class Half:
    """What one end has handed over on a stream, and what the other has got."""

    def __init__(self):
        self.given = bytearray()
        self.got = bytearray()
        self.began = False
        self.ended = False  # by the sender's call
        self.ends_told = 0


class Wires(RuleBasedStateMachine):
    """A client and a server, with bytes on the way between them."""

    streams = Bundle("streams")

    def __init__(self):
        super().__init__()
        self.manual = [False, False]
        self.counter = 0

    def start(self, manual_client, manual_server, window, limit, pad):
        self.manual = [manual_client, manual_server]
        configs = [
            H2Configuration(
                manual_flow_control=manual,
                initial_window_size=window,
                max_concurrent_streams=limit,
                enable_push=client,
                pad_multiple=pad,
                max_body_queue=50000,
            )
            for client, manual in ((True, manual_client), (False, manual_server))
        ]
        self.ends = [
            H2Connection(client_side=True, config=configs[0]),
            H2Connection(config=configs[1]),
        ]
        for end in self.ends:
            end.initiate_connection()
        self.wire = [bytearray(), bytearray()]  # what each end has written
        self.halves = defaultdict(Half)  # (sender, stream)
        self.told = [defaultdict(list), defaultdict(list)]
        self.unread = [defaultdict(int), defaultdict(int)]
        self.disturbed = set()  # streams that anybody has reset
        self.over = False

    # ---- What is told ----

    def take(self, side, events):
        for event in events:
            assert not isinstance(event, H2ConnectionClosed), event
            assert not isinstance(event, H2BodyFailed), event
            stream_id = getattr(event, "stream_id", 0)
            if stream_id == 0:
                continue
            log = self.told[side][stream_id]
            assert H2StreamClosed not in log or type(event).__name__ in (
                "H2WindowUpdated",
                "H2PriorityUpdated",
            ), f"{event} after the end of the stream"
            log.append(type(event))
            if isinstance(event, H2PushedStreamReceived):
                self.told[side][stream_id].clear()
            if isinstance(event, H2RequestReceived):
                self.halves[SERVER, stream_id].began = False
            if isinstance(event, H2StreamReset):
                self.disturbed.add(stream_id)
            if isinstance(event, H2BodyReceived):
                half = self.halves[1 - side, stream_id]
                half.got += event.body.data
                assert half.ends_told == 0
                assert half.given.startswith(half.got)
                half.ends_told += not event.body.more
                if half.ends_told and stream_id not in self.disturbed:
                    assert half.ended
                    assert half.got == half.given
                self.unread[side][stream_id] += len(event.body.data)

    # ---- The wire ----

    @rule(
        side=sides, limit=st.one_of(st.none(), st.integers(1, 70000)), cut=st.booleans()
    )
    def write(self, side, limit, cut):
        end = self.ends[side]
        if cut:
            self.wire[side] += b"".join(end.data_to_send_vectored(limit))
        else:
            self.wire[side] += end.data_to_send(limit)
        self.take(side, end.pending_events())

    @rule(side=sides, n=st.one_of(st.integers(1, 20), st.integers(1, 100000)))
    def deliver(self, side, n):
        data = bytes(self.wire[side][:n])
        del self.wire[side][:n]
        self.take(1 - side, self.ends[1 - side].receive_data(data))

    # ---- Calls that are right, if they come at the right time ----

    def call(self, function, *args, **kwargs):
        """Call what may be refused, with our own exceptions only."""
        try:
            return True, function(*args, **kwargs)
        except NGHTTP2Error:
            return False, None

    @rule(target=streams, body=st.booleans())
    def request(self, body):
        ok, stream_id = self.call(
            self.ends[CLIENT].send_request,
            "POST",
            "/",
            authority="h",
            end_stream=not body,
        )
        if not ok:
            return 0
        half = self.halves[CLIENT, stream_id]
        half.began = True
        half.ended = not body
        return stream_id

    @rule(target=streams, parent=streams)
    def push(self, parent):
        ok, stream_id = self.call(self.ends[SERVER].push_stream, parent, GET)
        return stream_id if ok else 0

    @rule(stream_id=streams, end_stream=st.booleans())
    def respond(self, stream_id, end_stream):
        ok, _ = self.call(
            self.ends[SERVER].send_response_headers,
            stream_id,
            200,
            [],
            end_stream=end_stream,
        )
        if ok:
            self.halves[SERVER, stream_id].ended = end_stream

    @rule(stream_id=streams)
    def inform(self, stream_id):
        self.call(self.ends[SERVER].send_informational, stream_id, 103)

    def piece(self, n):
        self.counter += 1
        return (self.counter.to_bytes(4, "big") * (n // 4 + 1))[:n]

    @rule(side=sides, stream_id=streams, n=sizes, end=st.booleans())
    def data(self, side, stream_id, n, end):
        piece = self.piece(n)
        ok, taken = self.call(
            self.ends[side].send_data, stream_id, piece, end_stream=end
        )
        if ok:
            half = self.halves[side, stream_id]
            half.given += piece[:taken]
            half.ended = end and taken == n

    @rule(
        side=sides,
        stream_id=streams,
        n=sizes,
        end=st.booleans(),
        pulled=st.booleans(),
        trailers=st.booleans(),
    )
    def body(self, side, stream_id, n, end, pulled, trailers):
        piece = self.piece(n)
        body = iter([piece[:7], piece[7:]]) if pulled else piece
        fields = [("t", "v")] if trailers and end else None
        ok, _ = self.call(
            self.ends[side].send_body, stream_id, body, trailers=fields, end_stream=end
        )
        if ok:
            half = self.halves[side, stream_id]
            half.given += piece
            half.ended = end

    @rule(side=sides, stream_id=streams, trailers=st.booleans())
    def finish(self, side, stream_id, trailers):
        end = self.ends[side]
        if trailers:
            ok, _ = self.call(end.send_trailers, stream_id, [("t", "v")])
        else:
            ok, _ = self.call(end.end_stream, stream_id)
        if ok:
            self.halves[side, stream_id].ended = True

    @rule(side=sides, stream_id=streams, after=st.booleans())
    def reset(self, side, stream_id, after):
        ok, _ = self.call(
            self.ends[side].reset_stream,
            stream_id,
            ErrorCode.CANCEL,
            after_flush=after,
        )
        if ok:
            self.disturbed.add(stream_id)

    @rule(side=sides, stream_id=streams, part=st.integers(1, 4))
    def acknowledge(self, side, stream_id, part):
        if self.manual[side] and self.unread[side][stream_id]:
            n = max(1, self.unread[side][stream_id] // part)
            ok, _ = self.call(self.ends[side].acknowledge_received_data, n, stream_id)
            assert ok
            self.unread[side][stream_id] -= n

    @rule(side=sides)
    def ping(self, side):
        self.ends[side].ping(b"12345678")

    @rule(side=sides, window=st.integers(0, 200000))
    def change_window(self, side, window):
        self.ends[side].update_settings({4: window})

    # ---- Calls that are wrong ----

    @rule(
        side=sides,
        name=st.sampled_from(
            [
                "send_response_headers",
                "send_informational",
                "send_trailers",
                "send_data",
                "send_body",
                "push_stream",
                "acknowledge_received_data",
                "increment_flow_control_window",
                "notify_drained",
                "set_priority",
                "local_flow_control_window",
                "stream_ended",
                "receive_data",
            ]
        ),
        args=st.lists(
            st.one_of(
                st.integers(-(2**33), 2**33),
                st.none(),
                st.text(max_size=3),
                st.just([(":bad", "\n")]),
            ),
            max_size=3,
        ),
    )
    def nonsense(self, side, name, args):
        if name == "receive_data" and args and isinstance(args[0], bytes):
            return
        if name in ("send_data", "send_body", "send_trailers", "stream_ended") and (
            args and isinstance(args[0], int) and args[0] > 0
        ):
            # It might be a right call on a stream that is there.
            args[0] = -args[0]
        if name == "increment_flow_control_window":
            args = [-1]
        with contextlib.suppress(NGHTTP2Error, TypeError, ValueError):
            getattr(self.ends[side], name)(*args)

    @invariant()
    def counts_are_sane(self):
        for end in self.ends:
            assert end.queued_body() >= 0
            assert end.queued_requests <= end.active_stream_count
            assert not end.is_closed

    # ---- The end ----

    def settle(self):
        while True:
            for side in (CLIENT, SERVER):
                self.write(side, None, False)
            if not any(self.wire):
                return
            for side in (CLIENT, SERVER):
                self.deliver(side, 10**9)
                for stream_id, n in list(self.unread[side].items()):
                    if self.manual[side] and n:
                        self.ends[side].acknowledge_received_data(n, stream_id)
                        self.unread[side][stream_id] = 0

    def compare_windows(self):
        """What the server grants is what the client believes to have."""
        client, server = self.ends
        stream_id = client.send_request("POST", "/", authority="h", end_stream=False)
        assert (
            client.local_flow_control_window(stream_id)
            == server.remote_flow_control_window()
        )
        # It was never sent: nothing is to be told of it but its end.
        client.reset_stream(stream_id)
        client.data_to_send()
        client.pending_events()

    def teardown(self):
        if not hasattr(self, "ends"):
            return
        for end in self.ends:
            end.update_settings({4: 65535})
        self.settle()
        # With open windows nothing is stuck but what waits for the stream limit.
        waiting = self.ends[CLIENT].queued_requests
        assert self.ends[SERVER].queued_body() == 0
        assert waiting or self.ends[CLIENT].queued_body() == 0
        for (side, stream_id), half in self.halves.items():
            if stream_id in self.disturbed or not stream_id:
                continue
            if side == SERVER or not waiting:
                assert half.got == half.given
                assert half.ends_told == half.ended
        for stream_id in {stream_id for _, stream_id in self.halves} - {0}:
            self.call(self.ends[CLIENT].reset_stream, stream_id)
            self.disturbed.add(stream_id)
        self.settle()
        for stream_id in range(2, 200, 2):
            self.call(self.ends[SERVER].reset_stream, stream_id)
            self.disturbed.add(stream_id)
        self.settle()
        self.compare_windows()
        for end in self.ends:
            assert end.active_stream_count == 0
            assert end.queued_body() == 0
            assert end.queued_requests == 0
            assert end.remote_flow_control_window() > 65535 // 2
            events = end.receive_eof()
            assert [type(event) for event in events] == [H2ConnectionClosed]


class Plain(Wires):
    def __init__(self):
        super().__init__()
        self.start(False, False, 65535, 100, 0)


class Tight(Wires):
    """Small windows, few streams, padding, credit by hand."""

    def __init__(self):
        super().__init__()
        self.start(True, True, 300, 2, 40)


class Mixed(Wires):
    def __init__(self):
        super().__init__()
        self.start(True, False, 20000, 5, 0)


STATEFUL = settings(
    max_examples=25,
    stateful_step_count=50,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPlain = Plain.TestCase
TestTight = Tight.TestCase
TestMixed = Mixed.TestCase
for case in (TestPlain, TestTight, TestMixed):
    case.settings = STATEFUL


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300),
    client_side=st.booleans(),
    preface=st.booleans(),
    cut=st.integers(1, 50),
)
def test_random_bytes_do_no_harm(data, client_side, preface, cut):
    connection = H2Connection(client_side=client_side)
    connection.initiate_connection()
    if client_side:
        connection.send_request("GET", "/", authority="h")
    connection.data_to_send()
    if preface:
        if not client_side:
            connection.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        connection.receive_data(b"\0\0\0\4\0\0\0\0\0")
    for i in range(0, len(data), cut):
        connection.receive_data(data[i : i + cut])
    connection.data_to_send()
    connection.pending_events()
    events = connection.receive_eof()
    assert connection.active_stream_count == 0
    assert not events or isinstance(events[-1], H2ConnectionClosed)


frames = st.tuples(
    st.integers(0, 12),
    st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x25, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 7]),
    st.one_of(
        st.binary(max_size=20),
        st.just(b"\x82\x86\x84\x41\x01h"),
        st.just(b"\0\0\0\2\x82\x86\x84\x41\x01h"),
        st.just(b"\x88"),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    wire=st.lists(frames, max_size=30), client_side=st.booleans(), push=st.booleans()
)
def test_random_frames_do_no_harm(wire, client_side, push):
    from helpers import RawPeer, frame

    peer = RawPeer(
        client_side=client_side,
        config=H2Configuration(enable_push=push, receive_extension_frames=True),
    )
    if client_side:
        for _ in range(3):
            peer.connection.send_request("POST", "/", authority="h", end_stream=False)
        peer.read()
    for kind, flags, stream_id, payload in wire:
        events = peer.feed(frame(kind, flags, stream_id, payload))
        for event in events:
            if isinstance(event, H2RequestReceived):
                peer.connection.send_response_headers(event.stream_id, 200, [])
                peer.connection.send_body(event.stream_id, b"x" * 10)
        peer.read()
    closed = [e.stream_id for e in peer.events if isinstance(e, H2StreamClosed)]
    assert len(closed) == len(set(closed))
    peer.connection.receive_eof()
    assert peer.connection.active_stream_count == 0


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=3000), max_size=20),
    cut=st.integers(1, 5000),
    limit=st.one_of(st.none(), st.integers(1, 20000)),
)
def test_any_pieces_make_the_same_body(pieces, cut, limit):
    client, server = H2Connection(client_side=True), H2Connection()
    client.initiate_connection()
    server.initiate_connection()
    stream_id = client.send_request("POST", "/", authority="h", end_stream=False)
    client.send_body(stream_id, iter(pieces))
    _, events = exchange(client, server, chunk=cut, limit=limit)
    assert body_of(events, stream_id) == b"".join(pieces)
