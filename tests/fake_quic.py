"""What stands in for a QUIC connection: it keeps what it is told to send."""

from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace

from nghttp2py.h3.connection import H3Connection

REQUEST = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/"),
]
RESPONSE = [(b":status", b"200"), (b"content-type", b"text/plain")]


@dataclass
class StreamDataReceived:
    data: bytes
    end_stream: bool
    stream_id: int


@dataclass
class DatagramFrameReceived:
    data: bytes


@dataclass
class StreamReset:
    error_code: int
    stream_id: int


@dataclass
class StopSendingReceived:
    error_code: int
    stream_id: int


class FakeQuic:
    """One end; ``queue`` holds the events that the peer's QUIC would report."""

    def __init__(self, is_client, *, datagrams=True, logger=None):
        self.configuration = SimpleNamespace(is_client=is_client)
        self._quic_logger = logger
        self._remote_max_datagram_frame_size = 65536 if datagrams else None
        self.queue = deque()
        self.closed = None
        self._next = {False: 0 if is_client else 1, True: 2 if is_client else 3}

    def get_next_available_stream_id(self, is_unidirectional=False):
        stream_id = self._next[is_unidirectional]
        self._next[is_unidirectional] += 4
        return stream_id

    def send_stream_data(self, stream_id, data, end_stream=False):
        self.queue.append(StreamDataReceived(data, end_stream, stream_id))

    def send_datagram_frame(self, data):
        self.queue.append(DatagramFrameReceived(data))

    def reset_stream(self, stream_id, error_code):
        self.queue.append(StreamReset(error_code, stream_id))

    def stop_stream(self, stream_id, error_code):
        self.queue.append(StopSendingReceived(error_code, stream_id))

    def close(self, error_code=0, frame_type=None, reason_phrase=""):
        self.closed = (error_code, reason_phrase)

    def sent(self, stream_id):
        """The bytes sent on one stream that were not delivered."""
        return b"".join(
            event.data
            for event in self.queue
            if isinstance(event, StreamDataReceived) and event.stream_id == stream_id
        )


def pieces(event, chunk):
    """Split stream data into events of at most ``chunk`` bytes, the end apart."""
    if chunk is None or not isinstance(event, StreamDataReceived):
        yield event
        return
    for i in range(0, len(event.data), chunk):
        yield StreamDataReceived(event.data[i : i + chunk], False, event.stream_id)
    if event.end_stream:
        yield StreamDataReceived(b"", True, event.stream_id)


def deliver(quic, h3, chunk=None):
    """Hand all that ``quic`` sent to ``h3``; return the events."""
    events = []
    while quic.queue:
        for piece in pieces(quic.queue.popleft(), chunk):
            events += h3.handle_event(piece)
    return events


class Pair:
    """A client and a server, with what both say first delivered."""

    def __init__(self, *, chunk=None, webtransport=False, config=None, **options):
        self.chunk = chunk
        self.client_quic = FakeQuic(True, **options)
        self.server_quic = FakeQuic(False, **options)
        self.client = H3Connection(self.client_quic, webtransport, config=config)
        self.server = H3Connection(self.server_quic, webtransport, config=config)
        self.first = (self.to_client(), self.to_server())
        self.to_client()

    def to_server(self):
        return deliver(self.client_quic, self.server, self.chunk)

    def to_client(self):
        return deliver(self.server_quic, self.client, self.chunk)

    def request(self, headers=REQUEST, end_stream=True):
        """Open a request; return its stream and what the server sees."""
        stream_id = self.client_quic.get_next_available_stream_id()
        self.client.send_headers(stream_id, headers, end_stream)
        return stream_id, self.to_server()

    def assert_open(self):
        assert self.client_quic.closed is None
        assert self.server_quic.closed is None
