#!/usr/bin/env python3
"""QUIC without HTTP: what is written on a stream comes back.

    python examples/quic_echo.py --certificate cert.pem --private-key key.pem

It serves, and connects twice: the second time the session is resumed, and the
request travels with the first packets.  The client trusts the certificate, which
must be for localhost.
"""

import argparse
import asyncio
from typing import cast

from nghttp2py.asyncio import QuicConnectionProtocol, connect, serve
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.events import HandshakeCompleted, QuicEvent
from nghttp2py.quic.tls import SessionTicket

tasks: set[asyncio.Task[None]] = set()


def stream_handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a stream that the client has opened."""
    task = asyncio.create_task(echo(reader, writer))
    tasks.add(task)  # asyncio itself keeps none
    task.add_done_callback(tasks.discard)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()  # no faster than the client reads
    writer.write_eof()


class Client(QuicConnectionProtocol):
    """Remembers how the handshake went."""

    handshake: HandshakeCompleted | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.handshake = event
        super().quic_event_received(event)  # for the readers of streams


async def main(options: argparse.Namespace) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    configuration.load_cert_chain(options.certificate, options.private_key)
    server = await serve(
        "localhost",
        0,
        configuration=configuration,
        stream_handler=stream_handler,
        session_ticket_handler=lambda ticket: None,  # tickets, please
    )
    port = server.sockets[0].getsockname()[1]

    configuration = QuicConfiguration(alpn_protocols=["echo"])
    configuration.load_verify_locations(options.certificate)
    tickets: asyncio.Queue[SessionTicket] = asyncio.Queue()
    for _ in range(2):
        async with connect(
            "localhost",
            port,
            configuration=configuration,
            create_protocol=Client,
            session_ticket_handler=tickets.put_nowait,
            wait_connected=False,  # what is written first may be early data
        ) as protocol:
            client = cast(Client, protocol)
            reader, writer = await client.create_stream()
            writer.write(b"hello")
            writer.write_eof()
            print((await reader.read()).decode(), client.handshake)
            configuration.session_ticket = await tickets.get()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--certificate", required=True, metavar="FILE")
    parser.add_argument("--private-key", required=True, metavar="FILE")
    asyncio.run(main(parser.parse_args()))
