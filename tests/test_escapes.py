"""Bytes of the peer do not act in terminals, logs and exception texts."""

import io

import pytest
from helpers import GET, OK, RawPeer
from loops import in_loop

from nghttp2py.errors import (
    ConnectionTerminatedError,
    StreamResetError,
    printable,
)
from nghttp2py.h2 import H2StreamReset
from nghttp2py.hpack import HDTableEntry, print_hd_table

HOSTILE = "\x1b]0;owned\x07\r\n\x9b31m\u202e"


@pytest.mark.parametrize("value", [HOSTILE, HOSTILE.encode(), b"\xff\x1b", "\ud800"])
def test_printable_leaves_no_control_character(value):
    assert printable(value).isprintable()


def test_printable_leaves_text_as_it_is():
    assert printable("gr\u00fc\u00df dich".encode()) == "gr\u00fc\u00df dich"


@pytest.mark.parametrize("client_side", [False, True])
def test_the_reason_of_a_refused_field_is_printable(client_side):
    peer = RawPeer(client_side=client_side)
    fields = OK if client_side else GET
    if client_side:
        peer.connection.send_request("GET", "/", authority="test")
        peer.read()
    peer.send(peer.headers(1, (*fields, (b"x-a", HOSTILE.encode())), end_stream=True))
    (reset,) = peer.of(H2StreamReset)
    assert "x-a" in reset.reason and reset.reason.isprintable()


@pytest.mark.parametrize(
    "error",
    [
        StreamResetError(1, 8, remote=True, reason=HOSTILE),
        ConnectionTerminatedError(8, remote=True, reason=HOSTILE),
    ],
)
def test_reasons_of_exceptions_are_printable(error):
    assert "owned" in str(error)
    assert str(error).isprintable() and error.reason.isprintable()


def test_a_printed_table_has_no_control_characters():
    value = HOSTILE.encode()
    entry = HDTableEntry(b"x-a", 3, value, len(value), False)
    out = io.StringIO()
    print_hd_table([entry], file=out)
    assert out.getvalue().rstrip("\n").isprintable()


@in_loop
async def test_the_reason_of_a_quic_connections_end_is_printable():
    from nghttp2py.asyncio.quic_protocol import QuicConnectionProtocol
    from nghttp2py.quic import QuicConfiguration, QuicConnection
    from nghttp2py.quic.events import ConnectionTerminated

    protocol = QuicConnectionProtocol(
        QuicConnection(configuration=QuicConfiguration(alpn_protocols=["x"]))
    )
    protocol._handle_termination(
        ConnectionTerminated(error_code=1, frame_type=None, reason_phrase=HOSTILE)
    )
    with pytest.raises(ConnectionError) as caught:
        await protocol.ping()
    assert "owned" in str(caught.value) and str(caught.value).isprintable()
