"""HTTP/3 over loopback for tests: a client and a server of ours, and a raw client."""

from __future__ import annotations

import contextlib

from loops import pause
from quic_pair import client_configuration, server_configuration

from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import QuicConnectionProtocol, connect, serve
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic.events import StopSendingReceived, StreamDataReceived, StreamReset


def request(path=b"/", method=b"GET"):
    return [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path),
    ]


OK = [(b":status", b"200")]


class Server:
    """Runs ``handler`` for each request; keeps the protocols that it has made."""

    def __init__(self, handler, **options):
        self.handler = handler
        self.options = options
        self.protocols = []

    def make(self, *args, **options):
        protocol = H3Protocol(
            *args, request_handler=self.handler, **self.options, **options
        )
        self.protocols.append(protocol)
        return protocol


@contextlib.asynccontextmanager
async def serving(handler, *, fields=None, **options):
    """A server whose requests ``handler`` answers: its ``Server``, and its port."""
    ends = Server(handler, **options)
    server = await serve(
        "127.0.0.1",
        0,
        configuration=server_configuration(alpn_protocols=H3_ALPN, **(fields or {})),
        create_protocol=ends.make,
    )
    ends.server = server
    try:
        yield ends, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for protocol in ends.protocols:
            await protocol.wait_closed()


@contextlib.asynccontextmanager
async def pair(handler, create_protocol=H3Protocol, *, fields=None, **options):
    """A client whose requests ``handler`` answers, and the server."""
    async with (
        serving(handler, fields=fields, **options) as (ends, port),
        connect(
            "127.0.0.1",
            port,
            configuration=client_configuration(
                alpn_protocols=H3_ALPN, **(fields or {})
            ),
            create_protocol=create_protocol,
        ) as client,
    ):
        yield client, ends


async def whole(stream):
    return b"".join([piece async for piece in stream])


# ---- Frames by hand ----

#: The section of ``request(method=b"POST")``, in terms of QPACK's static table.
POST = b"\x00\x00\xd4\xd7\xc1\x50\x09localhost"
GET = b"\x00\x00\xd1\xd7\xc1\x50\x09localhost"
SETTINGS = b"\x00\x04\x00"


def headers_frame(section=GET):
    return b"\x01" + bytes([len(section)]) + section


def data_frame(data):
    assert len(data) < 64
    return b"\x00" + bytes([len(data)]) + data


class RawClient(QuicConnectionProtocol):
    """Sends what it is told to, and keeps what comes."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.received = {}
        self.ended = {}
        self.resets = {}
        self.stops = {}
        self.order = []
        self.deaf = False
        # While this is true, what arrives is dropped: nothing is acknowledged.
        self.unplugged = False

    def runs_received(self, runs):
        if not self.unplugged:
            super().runs_received(runs)

    def _process_events(self):
        if not self.deaf:
            super()._process_events()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                self.ended[event.stream_id] = True
                self.order.append(f"end {event.stream_id}")
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, StopSendingReceived):
            self.stops[event.stream_id] = event.error_code
            self.order.append(f"stop {event.stream_id}")

    def send(self, stream_id, data, end_stream=False):
        self._quic.send_stream_data(stream_id, data, end_stream)
        self.transmit()

    def reset(self, stream_id, code=0x10C):
        self._quic.reset_stream(stream_id, code)
        self._quic.stop_stream(stream_id, code)
        self.transmit()

    async def ping_until(self, condition):
        """PING, which must not keep anything alive, until ``condition()`` holds."""
        while not condition():
            with contextlib.suppress(ConnectionError):
                await self.ping()
            await pause()

    @property
    def over(self):
        """With which code the server has closed the connection, if it has."""
        return None if self._terminated is None else self._terminated.error_code


@contextlib.asynccontextmanager
async def raw_client(port, *, settings=SETTINGS, **fields):
    """A client that sends SETTINGS, and then what a test tells it to."""
    async with connect(
        "127.0.0.1",
        port,
        configuration=client_configuration(alpn_protocols=H3_ALPN, **fields),
        create_protocol=RawClient,
    ) as client:
        if settings:
            client.send(2, settings)
        yield client


@contextlib.asynccontextmanager
async def raw_pair(handler, *, fields=None, timeouts=None, **client_fields):
    """A raw client whose requests ``handler`` answers, and the server.

    ``fields`` are of the server's configuration, ``client_fields`` of the client's.
    """
    options = {} if timeouts is None else {"timeouts": timeouts}
    async with (
        serving(handler, fields=fields, **options) as (ends, port),
        raw_client(port, **client_fields) as client,
    ):
        yield client, ends
