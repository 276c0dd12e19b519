#!/usr/bin/env python3
"""A gRPC server without protobuf: a unary call, and a bidirectional stream.

    python examples/grpc_server.py [port]

/example.Shout/Once answers a message with the same in upper case.
/example.Shout/Each answers each message of a stream so, as it comes.
"""

import asyncio
import signal
import struct
import sys
from collections.abc import AsyncIterator

from nghttp2py.asyncio import Server, Stream

# Status codes of gRPC.
OK, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 0, 3, 12, 13
# The longest message that is read.
LIMIT = 4 << 20


class CallError(Exception):
    """Ends a call with a status of gRPC."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def pack(message: bytes) -> bytes:
    """Return a message with its prefix: not compressed, its length."""
    return struct.pack("!BI", 0, len(message)) + message


async def messages(stream: Stream) -> AsyncIterator[bytes]:
    """Iterate over the messages of a request as they come."""
    while prefix := await stream.read(5):
        if len(prefix) < 5:
            prefix += await stream.readexactly(5 - len(prefix))
        compressed, length = struct.unpack("!BI", prefix)
        if compressed or length > LIMIT:
            raise CallError(INVALID_ARGUMENT, "compressed, or too large")
        yield await stream.readexactly(length)


async def once(stream: Stream) -> AsyncIterator[bytes]:
    """Answer the only message."""
    received = [message async for message in messages(stream)]
    if len(received) != 1:
        raise CallError(INVALID_ARGUMENT, "one message is wanted")
    yield received[0].upper()


async def each(stream: Stream) -> AsyncIterator[bytes]:
    """Answer each message at once."""
    async for message in messages(stream):
        yield message.upper()


METHODS = {b"/example.Shout/Once": once, b"/example.Shout/Each": each}


async def app(stream: Stream) -> None:
    """Answer one call."""
    assert stream.request is not None  # a server's stream has one
    method = METHODS.get(stream.request.target)
    if stream.fields.get("content-type", "").partition("+")[0] != "application/grpc":
        await stream.send_response(415)
        return
    await stream.start_response({":status": "200", "content-type": "application/grpc"})
    code, text = OK, ""
    try:
        if method is None:
            raise CallError(UNIMPLEMENTED, "there is no such method")
        async for message in method(stream):
            await stream.send_data(pack(message))
    except CallError as error:
        code, text = error.code, str(error)
    except asyncio.IncompleteReadError:
        code, text = INTERNAL, "the last message is incomplete"
    await stream.send_trailers({"grpc-status": str(code), "grpc-message": text})


async def main(port: str = "50051") -> None:
    """Serve until a signal."""
    async with Server(app, ("127.0.0.1", int(port))) as server:
        print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
