#!/usr/bin/env python3
"""A greeting, by stream numbers as aioh2 has them; both ends in one program.

python examples/streams_numbers.py
"""

import asyncio

from nghttp2py.asyncio import H2Protocol, open_connection, start_server


async def greet(server: H2Protocol) -> None:
    """Answer the requests of one connection, one after the other."""
    try:
        while True:
            number, headers = await server.recv_request()
            print(dict(headers)[":path"], "was asked for")
            await server.start_response(number, {":status": "200"})
            # The response begins before the request has ended.
            await server.send_data(number, b"Good morning, ")
            name = await server.read_stream(number, -1)
            await server.send_data(number, name)
            await server.send_trailers(number, {"letters": str(len(name))})
    except asyncio.CancelledError:
        print("the client has gone")


async def main() -> None:
    listening = await start_server(greet, "127.0.0.1", 0, concurrency=3)
    port = listening.sockets[0].getsockname()[1]
    client = await open_connection("127.0.0.1", port, functional_timeout=0.1)

    await asyncio.sleep(0.2)  # long enough to wonder whether the server is there
    seconds = await client.wait_functional()
    if seconds is not None:
        print(f"it is, {seconds * 1000:.1f} ms away")

    number = await client.start_request({":method": "POST", ":path": "/greet"})
    await client.send_data(number, b"Ada", end_stream=True)
    print(dict(await client.recv_response(number))[":status"])
    print((await client.read_stream(number, -1)).decode())
    print(dict(await client.recv_trailers(number)))

    client.close_connection()
    listening.close()
    await listening.wait_closed()


asyncio.run(main())
