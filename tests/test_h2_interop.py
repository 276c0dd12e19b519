"""Every kind of message with PyPI's h2 as the other end, in both roles."""

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from helpers import CHUNKS, GET, OK, POST, body_of, chunks, ends_of

from nghttp2py.errors import ErrorCode
from nghttp2py.h2 import (
    H2AlternativeServiceReceived,
    H2Configuration,
    H2Connection,
    H2GoAway,
    H2InformationalResponseReceived,
    H2PingAcknowledged,
    H2PushedStreamReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2SettingsReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    Setting,
)

BODY = bytes(range(256)) * 1000


class Pair:
    """Our connection and one of h2's, which credits what it gets."""

    def __init__(self, *, client_side, chunk=None, config=None):
        self.ours = H2Connection(client_side=client_side, config=config)
        self.theirs = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=not client_side, header_encoding=None)
        )
        self.chunk = chunk
        self.events = []
        self.their_events = []
        self.ours.initiate_connection()
        self.theirs.initiate_connection()
        self.unsent = {}
        self.pump()
        self.events.clear()
        self.their_events.clear()

    def send_theirs(self, stream_id, body):
        """Send a body through h2, piece by piece as its windows open."""
        self.unsent[stream_id] = body
        self.feed_theirs()

    def feed_theirs(self):
        for stream_id, body in list(self.unsent.items()):
            while True:
                n = min(
                    self.theirs.local_flow_control_window(stream_id),
                    self.theirs.max_outbound_frame_size,
                    len(body),
                )
                if not n and body:
                    break
                end = n == len(body)
                self.theirs.send_data(stream_id, body[:n], end_stream=end)
                body = body[n:]
                if end:
                    del self.unsent[stream_id]
                    break
            if stream_id in self.unsent:
                self.unsent[stream_id] = body

    def pump(self):
        while True:
            ours, theirs = self.ours.data_to_send(), self.theirs.data_to_send()
            self.events += self.ours.pending_events()
            if not ours and not theirs:
                return
            for piece in chunks(theirs, self.chunk):
                self.events += self.ours.receive_data(piece)
            for piece in chunks(ours, self.chunk):
                for event in self.theirs.receive_data(piece):
                    self.their_events.append(event)
                    if isinstance(event, h2.events.DataReceived):
                        self.theirs.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
            self.feed_theirs()

    def theirs_of(self, kind):
        return [event for event in self.their_events if isinstance(event, kind)]

    def their_body(self):
        return b"".join(e.data for e in self.theirs_of(h2.events.DataReceived))

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(params=CHUNKS)
def server(request):
    """Our server with h2's client."""
    return Pair(client_side=False, chunk=request.param)


@pytest.fixture(params=CHUNKS)
def client(request):
    """Our client with h2's server."""
    return Pair(client_side=True, chunk=request.param)


def ask(pair, method="GET", end_stream=True, headers=()):
    """Send a request of ours and have it arrive."""
    stream_id = pair.ours.send_request(
        method, "/", headers, authority="h", end_stream=end_stream
    )
    pair.pump()
    return stream_id


def test_our_server_answers_their_get(server):
    server.theirs.send_headers(1, [*GET, (b"x", b"\xff")], end_stream=True)
    server.pump()
    (request,) = server.of(H2RequestReceived)
    assert request.request.headers == ((b"host", b"example.org"), (b"x", b"\xff"))
    server.ours.send_response_headers(1, 200, [("y", b"\xfe")])
    server.ours.send_body(1, BODY)
    server.pump()
    (response,) = server.theirs_of(h2.events.ResponseReceived)
    assert list(response.headers) == [(b":status", b"200"), (b"y", b"\xfe")]
    assert server.their_body() == BODY
    assert len(server.theirs_of(h2.events.StreamEnded)) == 1
    assert H2StreamClosed(1, 0) in server.events


def test_our_server_takes_their_upload_with_trailers(server):
    server.theirs.send_headers(1, POST)
    server.send_theirs(1, b"")
    server.theirs.send_headers(3, POST)
    server.theirs.send_data(3, b"abc")
    server.theirs.send_headers(3, [(b"t", b"v")], end_stream=True)
    server.pump()
    assert body_of(server.events, 1) == b""
    assert body_of(server.events, 3) == b"abc"
    assert H2TrailersReceived(3, ((b"t", b"v"),)) in server.events
    assert ends_of(server.events, 1) == ends_of(server.events, 3) == 1


def test_our_server_takes_their_large_upload():
    server = Pair(client_side=False)
    server.theirs.send_headers(1, POST)
    server.send_theirs(1, BODY)
    server.pump()
    assert body_of(server.events, 1) == BODY
    assert ends_of(server.events, 1) == 1


def test_our_server_sends_everything_they_know(server):
    server.theirs.send_headers(1, GET, end_stream=True)
    server.pump()
    promised = server.ours.push_stream(1, GET)
    server.ours.send_informational(1, 103, [("link", "</a>")])
    server.ours.send_response_headers(1, 200, [])
    server.ours.send_body(1, b"abc", trailers=[("t", "v")])
    server.ours.send_response_headers(promised, 200, [])
    server.ours.send_body(promised, b"pushed")
    server.ours.advertise_alternative_service(b"h2", b"https://h")
    server.ours.ping(b"12345678")
    server.pump()
    (informational,) = server.theirs_of(h2.events.InformationalResponseReceived)
    assert dict(informational.headers)[b":status"] == b"103"
    (pushed,) = server.theirs_of(h2.events.PushedStreamReceived)
    assert (pushed.parent_stream_id, pushed.pushed_stream_id) == (1, promised)
    (trailers,) = server.theirs_of(h2.events.TrailersReceived)
    assert list(trailers.headers) == [(b"t", b"v")]
    assert len(server.theirs_of(h2.events.StreamEnded)) == 2
    assert server.theirs_of(h2.events.AlternativeServiceAvailable)
    assert H2PingAcknowledged(b"12345678") in server.events
    assert server.ours.active_stream_count == 0


def test_resets_pass_in_both_directions(server):
    for stream_id in (1, 3):
        server.theirs.send_headers(stream_id, POST)
    server.pump()
    server.theirs.reset_stream(1, ErrorCode.CANCEL)
    server.ours.reset_stream(3, ErrorCode.REFUSED_STREAM)
    server.pump()
    assert H2StreamReset(1, ErrorCode.CANCEL, True) in server.events
    (reset,) = server.theirs_of(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (3, ErrorCode.REFUSED_STREAM)


def test_settings_pass_in_both_directions(server):
    server.theirs.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 99})
    server.ours.update_settings({Setting.MAX_CONCURRENT_STREAMS: 9})
    server.pump()
    assert H2SettingsReceived({4: 99}) in server.events
    assert server.ours.settings_unacknowledged == 0
    assert server.theirs.remote_settings.max_concurrent_streams == 9
    assert server.theirs_of(h2.events.SettingsAcknowledged)


def test_a_goaway_of_theirs_is_told(server):
    server.theirs.close_connection(ErrorCode.ENHANCE_YOUR_CALM, b"why")
    server.pump()
    assert H2GoAway(0, ErrorCode.ENHANCE_YOUR_CALM) in server.events


def test_a_goaway_of_ours_is_understood(server):
    server.ours.terminate(ErrorCode.ENHANCE_YOUR_CALM)
    server.pump()
    (end,) = server.theirs_of(h2.events.ConnectionTerminated)
    assert end.error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_our_client_asks_their_server(client):
    stream_id = ask(client, headers=[("Cookie", "a=1"), ("cookie", "b=2")])
    (request,) = client.theirs_of(h2.events.RequestReceived)
    fields = list(request.headers)
    assert fields[0] == (b":method", b"GET")
    assert fields[-1] == (b"cookie", b"a=1; b=2")
    client.theirs.send_headers(stream_id, [(b":status", b"103")])
    client.theirs.send_headers(stream_id, OK)
    client.theirs.send_data(stream_id, b"abc")
    client.theirs.send_headers(stream_id, [(b"t", b"v")], end_stream=True)
    client.pump()
    assert client.of(H2InformationalResponseReceived)
    assert client.of(H2ResponseReceived) == [H2ResponseReceived(stream_id, 200, ())]
    assert body_of(client.events, stream_id) == b"abc"
    assert H2TrailersReceived(stream_id, ((b"t", b"v"),)) in client.events
    assert client.events[-1] == H2StreamClosed(stream_id, 0)


def test_our_client_uploads(client):
    stream_id = ask(client, "POST", end_stream=False)
    client.ours.send_body(stream_id, iter([BODY[:9], BODY[9:]]), trailers=[("t", "v")])
    client.pump()
    assert client.their_body() == BODY
    (trailers,) = client.theirs_of(h2.events.TrailersReceived)
    assert list(trailers.headers) == [(b"t", b"v")]


def test_our_client_downloads():
    client = Pair(client_side=True)
    stream_id = ask(client)
    client.theirs.send_headers(stream_id, OK)
    client.send_theirs(stream_id, BODY)
    client.pump()
    assert body_of(client.events, stream_id) == BODY


def test_our_client_takes_their_push():
    client = Pair(client_side=True, config=H2Configuration(enable_push=True))
    stream_id = ask(client)
    client.theirs.push_stream(stream_id, 2, GET)
    client.theirs.send_headers(2, OK)
    client.theirs.send_data(2, b"pushed", end_stream=True)
    client.theirs.send_headers(stream_id, OK, end_stream=True)
    client.pump()
    (pushed,) = client.of(H2PushedStreamReceived)
    assert (pushed.stream_id, pushed.parent_stream_id) == (2, stream_id)
    assert body_of(client.events, 2) == b"pushed"
    assert client.ours.active_stream_count == 0


def test_our_client_hears_of_alternative_services(client):
    client.theirs.advertise_alternative_service(b"h2", origin=b"h")
    client.pump()
    assert client.of(H2AlternativeServiceReceived) == [
        H2AlternativeServiceReceived(0, b"h", b"h2")
    ]


def test_padding_is_understood_on_both_ends(client):
    stream_id = ask(client, "POST", end_stream=False)
    client.ours.send_body(stream_id, b"x")
    client.theirs.send_headers(stream_id, OK)
    client.theirs.send_data(stream_id, b"abc", end_stream=True, pad_length=100)
    client.pump()
    assert body_of(client.events, stream_id) == b"abc"


def test_our_padding_is_understood():
    config = H2Configuration(pad_multiple=128)
    client = Pair(client_side=True, config=config)
    stream_id = ask(client, "POST", end_stream=False)
    client.ours.send_body(stream_id, BODY)
    client.pump()
    assert client.their_body() == BODY


def test_an_upgrade_of_theirs_is_taken():
    theirs = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding=None)
    )
    ours = H2Connection()
    ours.initiate_upgrade_connection(theirs.initiate_upgrade_connection())
    ours.send_response_headers(1, 200, [], end_stream=True)
    ours.receive_data(theirs.data_to_send())
    events = theirs.receive_data(ours.data_to_send())
    assert any(isinstance(e, h2.events.ResponseReceived) for e in events)


def test_an_upgrade_of_ours_is_taken():
    theirs = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding=None)
    )
    ours = H2Connection(client_side=True)
    theirs.initiate_upgrade_connection(ours.initiate_upgrade_connection())
    theirs.send_headers(1, OK, end_stream=True)
    theirs.receive_data(ours.data_to_send())
    events = ours.receive_data(theirs.data_to_send())
    assert H2ResponseReceived(1, 200, ()) in events


def test_many_streams_at_once():
    server = Pair(client_side=False)
    ids = range(1, 200, 2)
    for stream_id in ids:
        server.theirs.send_headers(stream_id, POST)
        server.send_theirs(stream_id, BODY[: stream_id * 20])
    server.pump()
    for stream_id in ids:
        assert body_of(server.events, stream_id) == BODY[: stream_id * 20]
        server.ours.send_response_headers(stream_id, 200, [])
        server.ours.send_body(stream_id, BODY[: stream_id * 10])
    server.pump()
    assert len(server.theirs_of(h2.events.StreamEnded)) == len(ids)
    assert server.ours.active_stream_count == 0


CONNECT = [(b":method", b"CONNECT"), (b":authority", b"example.org:443")]
WEBSOCKET = [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")]


@pytest.mark.parametrize("fields", [CONNECT, WEBSOCKET], ids=["plain", "extended"])
def test_their_tunnel_ends_at_our_server(server, fields):
    # h2 takes CONNECT without :path for a mistake.
    server.theirs.config.validate_outbound_headers = False
    server.theirs.send_headers(1, fields)
    server.pump()
    kind = H2WebSocketRequest if fields is WEBSOCKET else H2RequestReceived
    (event,) = server.of(kind)
    assert event.request.method == b"CONNECT"
    server.ours.send_response_headers(1, 200, [])
    server.ours.send_body(1, BODY)
    server.send_theirs(1, BODY)
    server.pump()
    assert body_of(server.events, 1) == server.their_body() == BODY


@pytest.mark.parametrize("protocol", [None, "websocket"])
def test_our_tunnel_ends_at_their_server(protocol):
    pair = Pair(client_side=True)
    pair.theirs.config.validate_inbound_headers = False
    pair.theirs.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    pair.pump()
    if protocol:
        stream_id = pair.ours.send_request(
            "CONNECT", "/", authority="h", protocol=protocol, end_stream=False
        )
    else:
        stream_id = pair.ours.send_request("CONNECT", "h:443", end_stream=False)
    pair.pump()
    (request,) = pair.theirs_of(h2.events.RequestReceived)
    assert (b":protocol" in dict(request.headers)) == bool(protocol)
    pair.theirs.send_headers(stream_id, OK)
    pair.send_theirs(stream_id, BODY)
    pair.ours.send_body(stream_id, BODY)
    pair.pump()
    assert body_of(pair.events, stream_id) == pair.their_body() == BODY


def test_their_priorities_change_nothing(server):
    server.theirs.send_headers(
        1, GET, end_stream=True, priority_weight=200, priority_exclusive=True
    )
    server.theirs.prioritize(1, weight=5, depends_on=0)
    server.theirs.prioritize(7, weight=5, depends_on=1)
    server.pump()
    assert len(server.of(H2RequestReceived)) == 1
    server.ours.send_response_headers(1, 204, [], end_stream=True)
    server.pump()
    assert ends_of(server.events, 1) == 1
    assert not server.of(H2StreamReset)
