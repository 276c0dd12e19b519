"""Over aioquic's QUIC and ours, client and server in memory."""

import ssl
from importlib import import_module

import pytest
from fake_quic import REQUEST, RESPONSE

from nghttp2py.h3 import H3_ALPN, H3Connection
from nghttp2py.h3.connection import ErrorCode, FrameType, encode_frame
from nghttp2py.h3.events import (
    DatagramReceived,
    HeadersReceived,
    PushPromiseReceived,
    WebTransportStreamDataReceived,
)

CLIENT_ADDRESS = ("192.0.2.1", 1234)
SERVER_ADDRESS = ("192.0.2.2", 443)


class QuicPair:
    """Client and server of one QUIC in memory, our H3Connection on each."""

    def __init__(self, package, certificate, key, webtransport=False, direct=True):
        configuration = import_module(f"{package}.quic.configuration")
        connection = import_module(f"{package}.quic.connection")
        QuicConfiguration = configuration.QuicConfiguration
        QuicConnection = connection.QuicConnection
        if not direct:
            # HTTP/3 calls the methods of a subclass, which might be changed.
            QuicConnection = type("Subclass", (QuicConnection,), {})
        options = {"alpn_protocols": H3_ALPN, "max_datagram_frame_size": 65536}
        client = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **options)
        server = QuicConfiguration(
            is_client=False, certificate=certificate, private_key=key, **options
        )
        self.now = 0.0
        self.closed = None
        self.client_quic = QuicConnection(configuration=client)
        self.client_quic.connect(SERVER_ADDRESS, now=self.now)
        self.server_quic = QuicConnection(
            configuration=server,
            original_destination_connection_id=(
                self.client_quic.original_destination_connection_id
            ),
        )
        for _ in range(3):
            self.exchange()
        self.client = H3Connection(self.client_quic, webtransport)
        self.server = H3Connection(self.server_quic, webtransport)
        assert self.run() == ([], [])

    def exchange(self):
        for sender, receiver, address in (
            (self.client_quic, self.server_quic, CLIENT_ADDRESS),
            (self.server_quic, self.client_quic, SERVER_ADDRESS),
        ):
            self.now += 0.01
            for data, _ in sender.datagrams_to_send(now=self.now):
                receiver.receive_datagram(data, address, now=self.now)

    def run(self):
        """Exchange packets; return what the client and the server then see."""
        seen = []
        for _ in range(3):
            self.exchange()
        for h3, quic in (
            (self.client, self.client_quic),
            (self.server, self.server_quic),
        ):
            events = []
            while (event := quic.next_event()) is not None:
                if type(event).__name__ == "ConnectionTerminated":
                    self.closed = (event.error_code, event.reason_phrase)
                events += h3.handle_event(event)
            seen.append(events)
        return tuple(seen)


@pytest.fixture(scope="module")
def certificate():
    import trustme
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    issued = trustme.CA().issue_cert("a.example")
    return (
        load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()),
        load_pem_private_key(issued.private_key_pem.bytes(), None),
    )


@pytest.fixture(params=["aioquic", "nghttp2py", "a subclass"])
def pair(request, certificate):
    package = "nghttp2py" if request.param == "a subclass" else request.param
    direct = request.param == package
    return QuicPair(package, *certificate, webtransport=True, direct=direct)


def test_requests_over_quic(pair):
    for i in range(3):
        stream_id = pair.client_quic.get_next_available_stream_id()
        assert stream_id == 4 * i
        pair.client.send_headers(stream_id, REQUEST)
        pair.client.send_data(stream_id, b"x" * 5000, True)
        _, events = pair.run()
        assert events[0] == HeadersReceived(REQUEST, stream_id, False)
        assert b"".join(event.data for event in events[1:]) == b"x" * 5000
        assert events[-1].stream_ended
        pair.server.send_headers(stream_id, RESPONSE, end_stream=True)
        assert pair.run()[0] == [HeadersReceived(RESPONSE, stream_id, True)]


def test_a_push_over_quic(pair):
    pair.client.send_headers(0, REQUEST, end_stream=True)
    pair.run()
    push_stream_id = pair.server.send_push_promise(0, REQUEST)
    pair.server.send_headers(push_stream_id, RESPONSE, end_stream=True)
    events, _ = pair.run()
    assert PushPromiseReceived(REQUEST, 0, 0) in events
    assert HeadersReceived(RESPONSE, push_stream_id, True, 0) in events


def test_webtransport_over_quic(pair):
    connect = [(b":method", b"CONNECT"), (b":protocol", b"webtransport"), *REQUEST[1:]]
    pair.client.send_headers(0, connect)
    pair.run()
    pair.server.send_headers(0, [(b":status", b"200")])
    pair.run()
    bidi = pair.client.create_webtransport_stream(0)
    pair.client_quic.send_stream_data(bidi, b"ping", end_stream=True)
    uni = pair.server.create_webtransport_stream(0, is_unidirectional=True)
    pair.server_quic.send_stream_data(uni, b"note", end_stream=True)
    pair.client.send_datagram(0, b"gram")
    to_client, to_server = pair.run()
    assert to_client == [WebTransportStreamDataReceived(b"note", uni, True, 0)]
    assert WebTransportStreamDataReceived(b"ping", bidi, True, 0) in to_server
    assert DatagramReceived(b"gram", 0) in to_server
    pair.server_quic.send_stream_data(bidi, b"pong", end_stream=True)
    to_client, _ = pair.run()
    assert to_client == [WebTransportStreamDataReceived(b"pong", bidi, True, 0)]


def test_a_broken_rule_closes_the_quic_connection(pair):
    pair.client_quic.send_stream_data(0, encode_frame(FrameType.DATA, b""))
    pair.run()
    pair.run()
    # It is told when the draining is over (RFC 9000, 10.2.2).
    pair.now += 60
    pair.client_quic.handle_timer(now=pair.now)
    pair.run()
    assert pair.closed == (
        ErrorCode.H3_FRAME_UNEXPECTED,
        "DATA frame is not allowed in this state",
    )


def test_resets_reach_the_peer(pair):
    pair.client.send_headers(0, REQUEST)
    pair.run()
    pair.client_quic.reset_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
    pair.client_quic.stop_stream(0, ErrorCode.H3_REQUEST_CANCELLED)
    pair.run()
    assert 0 not in pair.server._stream
