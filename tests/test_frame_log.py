"""The frames of connections on the logger ``nghttp2py.frames``, of both versions."""

import logging
import re

import pytest
from exchanges import both_versions, exchanging
from loops import DEADLINE, in_loop, until
from streams import Raw

from nghttp2py import HDDeflater
from nghttp2py.asyncio import frame_log
from nghttp2py.frames import Described, FrameDecoder
from nghttp2py.h2 import H2Configuration, H2Connection

LOGGER = "nghttp2py.frames"
PEER = r"(127\.0\.0\.1|\[::ffff:127\.0\.0\.1\]):\d+"
SECRETS = [(b"authorization", b"Basic secret"), (b"cookie", b"a=secret")]


async def answer(app, request):
    headers = [(b"set-cookie", b"b=secret"), (b"x-a", b"\x7f".hex().encode())]
    await request.respond(203, headers, b"body", trailers=[(b"x-end", b"c")])


def lines_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == LOGGER]


@both_versions
@in_loop
async def test_each_frame_is_a_line_with_the_address_of_the_peer(version, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    async with exchanging(version, "coroutine", answer) as (_, ends):
        status, body, trailers = await ends.fetch(b"/path", headers=SECRETS)
        assert (status, body) == (203, b"body") and trailers
        await ends.shut_down(DEADLINE)
    lines = lines_of(caplog)
    # Both ends are here: each frame is sent by one and received by the other.
    for way in "recv", "send":
        for pattern in (
            r"SETTINGS\b.*: [A-Z0-9_]+ \d+",
            r"HEADERS stream \d+, \d+ bytes.*: :method GET; .*:path /path",
            r"HEADERS stream \d+, \d+ bytes.*: :status 203; .*x-a 7f",
            r"HEADERS stream \d+, \d+ bytes.*: x-end c$",
            r"DATA stream \d+, 4 bytes",
            r"GOAWAY\b",
        ):
            wanted = re.compile(rf"{PEER} {way} {pattern}")
            assert any(wanted.match(line) for line in lines), (way, pattern, lines)
    assert any("authorization (12 characters)" in line for line in lines)
    assert not any("secret" in line for line in lines)


@both_versions
@in_loop
async def test_without_the_level_there_are_no_frames(version, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    async with exchanging(version, "handler", answer) as (_, ends):
        assert (await ends.fetch())[0] == 203
    assert not lines_of(caplog)


@in_loop
async def test_a_log_that_begins_later_has_the_connections_from_then_on(caplog):
    async with exchanging("HTTP/2", "handler", answer) as (_, ends):
        await ends.fetch()
        caplog.set_level(logging.DEBUG, LOGGER)
        await ends.fetch()
        assert not lines_of(caplog)


@in_loop
async def test_a_frame_that_cannot_be_decoded_is_a_line_and_ends_as_without_it(caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    raw = Raw(client_side=False)
    raw.feed(b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\xff")
    await until(lambda: raw.transport.is_closing() or raw.protocol.is_closing)
    assert any("header block 1 bytes, not decoded" in line for line in lines_of(caplog))
    await raw.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_are_found_whatever_the_pieces_are(size):
    client = H2Connection(client_side=True)
    client.initiate_connection()
    client.send_request("POST", "/", authority=b"a", end_stream=False)
    client.send_body(1, b"\x1b[31m" * 100, end_stream=True)
    data = client.data_to_send()
    decoder = FrameDecoder(client_side=True)
    found = [
        frame
        for i in range(0, len(data), size)
        for frame in decoder.feed("send", data[i : i + size])
    ]
    names = [frame.name for frame in found]
    assert names[0] == "SETTINGS" and names[-2:] == ["HEADERS", "DATA"]
    assert (":method", "POST") in found[-2].details
    assert found[-1].flags == ["END_STREAM"] and not found[-1].details


def test_settings_after_a_block_that_was_not_decoded_are_described():
    """The decoder bounds header lists, whatever the bound of the connection is."""
    fields = [(b"x-%d" % i, bytes([97 + i]) * 60_000) for i in range(2)]
    block = HDDeflater().deflate(fields)
    decoder = FrameDecoder(client_side=False)
    data = len(block).to_bytes(3, "big") + b"\x01\x04\x00\x00\x00\x01" + block
    (head,) = decoder.feed("send", data)
    assert "not decoded" in head.details[0][1]
    client = H2Connection(
        client_side=True, config=H2Configuration(header_table_size=8192)
    )
    client.initiate_connection()
    first, *_ = decoder.feed("recv", client.data_to_send())
    assert ("HEADER_TABLE_SIZE", "8192") in first.details


def test_the_text_of_a_peer_cannot_act_in_a_terminal():
    client = H2Connection(client_side=True)
    client.initiate_connection()
    client.close_connection()
    data = client.data_to_send() + (
        b"\x00\x00\x0e\x07\x00\x00\x00\x00\x00" + bytes(8) + b"\x1b[31mx"
    )
    *_, last = FrameDecoder(client_side=True).feed("send", data)
    assert last.name == "GOAWAY"
    assert dict(last.details)["debug data"] == "\\x1b[31mx"


@pytest.mark.parametrize("name", ["Authorization", "COOKIE", " Set-Cookie"])
def test_a_secret_whose_name_breaks_the_rules_is_left_out(name, caplog):
    caplog.set_level(logging.DEBUG, LOGGER)
    frame_log.log_frame("-", "recv", Described("HEADERS", "", [(name, "secret")], []))
    assert lines_of(caplog) == [f"- recv HEADERS: {name} (6 characters)"]


def test_a_peer_without_an_address_is_a_dash():
    assert frame_log.describe_peer(None) == "-"
