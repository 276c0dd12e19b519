"""Two of our connections, with everything between them out of order.

QUIC keeps the order within a stream and none across streams.
"""

from collections import defaultdict, deque

from fake_quic import REQUEST, RESPONSE, FakeQuic, StreamDataReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from nghttp2py.h3 import H3Connection
from nghttp2py.h3.events import DataReceived, HeadersReceived

names = st.sampled_from([b"x-a", b"x-b", b"accept", b"etag", b"cookie"])
extra = st.lists(st.tuples(names, st.binary(max_size=8).map(bytes.hex)), max_size=5)
bodies = st.lists(st.binary(max_size=30), max_size=3)


@st.composite
def messages(draw):
    """Fields, pieces of a body, and trailers or none."""
    fields = [(name, value.encode()) for name, value in draw(extra)]
    trailers = draw(st.sampled_from([None, [(b"x-checksum", b"1")]]))
    return fields, draw(bodies), trailers


def send(h3, stream_id, first, message):
    fields, pieces, trailers = message
    last = not pieces and trailers is None
    h3.send_headers(stream_id, first + fields, end_stream=last)
    for i, piece in enumerate(pieces):
        last = i == len(pieces) - 1 and trailers is None
        h3.send_data(stream_id, piece, last)
    if trailers is not None:
        h3.send_headers(stream_id, trailers, end_stream=True)


class Network:
    """Delivers what is sent in any order, but in order within a stream."""

    def __init__(self, data):
        self.data = data
        self.waiting = defaultdict(deque)

    def collect(self, quic, to):
        while quic.queue:
            event = quic.queue.popleft()
            self.waiting[to, event.stream_id].append(event)

    def take(self):
        """Choose a stream, and some of what waits on it."""
        to, stream_id = key = self.data.draw(st.sampled_from(sorted(self.waiting)))
        queue = self.waiting[key]
        event = queue.popleft()
        cut = self.data.draw(st.integers(1, max(len(event.data), 1)))
        if cut < len(event.data):
            queue.appendleft(
                StreamDataReceived(event.data[cut:], event.end_stream, stream_id)
            )
            event = StreamDataReceived(event.data[:cut], False, stream_id)
        if not queue:
            del self.waiting[key]
        return to, event


def received(events, stream_id):
    """What one end saw of a message: sections, body, whether it ended."""
    mine = [event for event in events if event.stream_id == stream_id]
    sections = [e.headers for e in mine if isinstance(e, HeadersReceived)]
    body = b"".join(e.data for e in mine if isinstance(e, DataReceived))
    ended = [event.stream_ended for event in mine]
    assert True not in ended[:-1]
    return sections, body, ended[-1]


def expected(first, message):
    fields, pieces, trailers = message
    sections = [first + fields] + ([trailers] if trailers else [])
    return sections, b"".join(pieces), True


@settings(deadline=None, max_examples=25)
@given(st.data(), st.lists(st.tuples(messages(), messages()), min_size=1, max_size=5))
def test_what_is_sent_is_received_whatever_the_order(data, exchanges):
    quics = {"client": FakeQuic(True), "server": FakeQuic(False)}
    ends = {role: H3Connection(quic) for role, quic in quics.items()}
    seen = {"client": [], "server": []}
    network = Network(data)
    unsent = list(exchanges)
    answered = set()

    while unsent or network.waiting or any(quic.queue for quic in quics.values()):
        if unsent and (not network.waiting or data.draw(st.booleans())):
            stream_id = quics["client"].get_next_available_stream_id()
            send(ends["client"], stream_id, REQUEST, unsent.pop(0)[0])
        network.collect(quics["client"], "server")
        network.collect(quics["server"], "client")
        if not network.waiting:
            continue
        to, event = network.take()
        seen[to] += ends[to].handle_event(event)
        for event in seen["server"]:
            if event.stream_ended and event.stream_id not in answered:
                answered.add(event.stream_id)
                response = exchanges[event.stream_id // 4][1]
                send(ends["server"], event.stream_id, RESPONSE, response)

    for role, quic in quics.items():
        assert quic.closed is None, role
    for i, (request, response) in enumerate(exchanges):
        assert received(seen["server"], 4 * i) == expected(REQUEST, request)
        assert received(seen["client"], 4 * i) == expected(RESPONSE, response)
    assert all(len(h3._stream) == 3 for h3 in ends.values())


@settings(deadline=None, max_examples=200)
@given(
    st.booleans(),
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 3, 4, 6, 7, 11, 14, 15]),
            st.binary(max_size=30),
            st.booleans(),
        ),
        max_size=12,
    ),
)
def test_any_bytes_are_taken(is_client, webtransport, inputs):
    """Whatever comes, nothing is raised, and a closed connection is silent."""
    quic = FakeQuic(is_client)
    h3 = H3Connection(quic, webtransport)
    for stream_id, data, end_stream in inputs:
        was_closed = quic.closed is not None
        events = h3.handle_event(StreamDataReceived(data, end_stream, stream_id))
        if was_closed or quic.closed is not None:
            assert events == []
