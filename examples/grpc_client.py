#!/usr/bin/env python3
"""A gRPC client without protobuf: a unary call, and a bidirectional stream.

    python examples/grpc_client.py 127.0.0.1:50051 < lines

The first line is sent to /example.Shout/Once, then all lines to /example.Shout/Each,
each when the answer to the one before has come.
"""

import asyncio
import struct
import sys
from collections.abc import AsyncIterator, Iterable

from nghttp2py.asyncio import Client, Response
from nghttp2py.errors import NGHTTP2Error

HEADERS = {"content-type": "application/grpc", "te": "trailers"}


class CallError(Exception):
    """The server has ended a call with a status that is not OK."""


def pack(message: bytes) -> bytes:
    """Return a message with its prefix: not compressed, its length."""
    return struct.pack("!BI", 0, len(message)) + message


async def messages(response: Response) -> AsyncIterator[bytes]:
    """Iterate over the messages of a response; raise unless its status is OK."""
    if response.status != 200:
        raise CallError(f"HTTP status {response.status}")
    data = bytearray()
    async for piece in response:
        data += piece
        while len(data) >= 5:
            compressed, length = struct.unpack_from("!BI", data)
            if compressed:
                raise CallError("a message is compressed")
            if len(data) < 5 + length:
                break
            yield bytes(data[5 : 5 + length])
            del data[: 5 + length]
    # Of a response without messages they may be among the header fields.
    fields = await response.trailers() or response.headers
    if fields.get("grpc-status") != "0":
        text = fields.get("grpc-message", "")
        raise CallError(f"status {fields.get('grpc-status')} {text}".rstrip())


async def unary(client: Client, method: str, message: bytes) -> bytes:
    """Send a message; return the answer."""
    async with await client.post(method, pack(message), headers=HEADERS) as response:
        answers = [answer async for answer in messages(response)]
    if len(answers) != 1:
        raise CallError(f"{len(answers)} answers")
    return answers[0]


async def stream(
    client: Client, method: str, requests: Iterable[bytes]
) -> AsyncIterator[bytes]:
    """Send messages, each when the last one was answered; yield the answers."""
    turn = asyncio.Semaphore(1)

    async def body() -> AsyncIterator[bytes]:
        for message in requests:
            await turn.acquire()
            yield pack(message)

    # The body is sent while the response is read.
    async with await client.post(method, body(), headers=HEADERS) as response:
        async for message in messages(response):
            yield message
            turn.release()


async def main(address: str) -> None:
    """Call both methods with the lines of standard input."""
    lines = [line.strip().encode() for line in sys.stdin]
    async with Client(f"http://{address}") as client:
        print("once:", (await unary(client, "/example.Shout/Once", lines[0])).decode())
        async for answer in stream(client, "/example.Shout/Each", lines):
            print("each:", answer.decode(), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: grpc_client.py host:port < lines")
    try:
        asyncio.run(main(sys.argv[1]))
    except (OSError, NGHTTP2Error, CallError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
