"""Servers that flood a client with pushes: the connection ends, and nothing else."""

import asyncio
import contextlib
import logging
import struct

import hpack
import pytest
from helpers import (
    END_HEADERS,
    GET,
    OK,
    PUSH_PROMISE,
    data,
    frame,
    ping,
    rst_stream,
    settings,
    settings_ack,
)
from loops import in_loop, until

from nghttp2py import BaseResponseHandler, HTTP2Client
from nghttp2py.asyncio import open_connection
from nghttp2py.errors import NGHTTP2Error
from nghttp2py.h2 import H2Configuration

CONFIG = H2Configuration(enable_push=True)


def flood(*kinds):
    """Preface, and 400 promises, each with the frames of ``kinds`` after it."""
    encoder = hpack.Encoder()
    frames = [settings(), settings_ack()]
    for promised in range(2, 802, 2):
        block = struct.pack(">I", promised) + encoder.encode(list(GET))
        frames.append(frame(PUSH_PROMISE, END_HEADERS, 1, block))
        if "answer" in kinds:
            frames.append(frame(1, END_HEADERS, promised, encoder.encode(list(OK))))
            frames.append(data(promised, b"x" * 100, end_stream="end" in kinds))
        if "reset" in kinds:
            frames.append(rst_stream(promised))
    return b"".join(frames)


FLOODS = [
    flood(),
    flood("reset"),
    flood("answer"),
    flood("answer", "end"),
    flood("answer", "reset"),
]


class Flooding:
    """A server that answers the first request by a flood.

    ``over`` is set when the client has answered a PING after it, or has gone.
    """

    def __init__(self, frames):
        self.frames = frames
        self.writers = []
        self.over = asyncio.Event()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *exc_info):
        self.server.close()
        for writer in self.writers:
            writer.close()

    async def serve(self, reader, writer):
        self.writers.append(writer)
        received = b""
        # The preface, SETTINGS, and the request's HEADERS.
        while b"\x01\x05\x00\x00\x00\x01" not in received:
            received += await reader.read(65536)
        writer.write(self.frames + ping(b"the last"))
        with contextlib.suppress(ConnectionError):
            while read := await reader.read(65536):
                received += read
                if ping(b"the last", ack=True) in received:
                    self.over.set()
        self.over.set()
        writer.close()


def complaints(caplog):
    return [r for r in caplog.records if r.levelno > logging.INFO]


@pytest.mark.parametrize("frames", FLOODS)
@in_loop
async def test_a_connection_survives_or_ends_without_a_traceback(frames, caplog):
    async with Flooding(frames) as server:
        protocol = await open_connection(*server.address, config=CONFIG)
        stream_id = await protocol.start_request([*GET], end_stream=True)
        waiting = asyncio.ensure_future(protocol.recv_response(stream_id))
        await server.over.wait()
        protocol.abort()
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), NGHTTP2Error)
    assert complaints(caplog) == []


@pytest.mark.parametrize("frames", FLOODS)
@in_loop
async def test_a_client_with_handlers_is_closed_without_a_traceback(frames, caplog):
    codes = []

    class Handler(BaseResponseHandler):
        def on_close(self, error_code):
            codes.append(error_code)

    async with Flooding(frames) as server:
        client = HTTP2Client(server.address, config=CONFIG)
        await client.connect()
        client.send_request("GET", f"http://{server.address[0]}/", handler=Handler())
        await server.over.wait()
        client.close()
    # The server is gone now, with what the client has waited for.
    await until(lambda: codes)
    assert complaints(caplog) == []
