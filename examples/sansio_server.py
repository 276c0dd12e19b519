"""An HTTP/2 server with blocking sockets, one thread for each connection.

    python examples/sansio_server.py [port]

It speaks HTTP/2 from the first byte ("prior knowledge"), without TLS:

    curl --http2-prior-knowledge http://127.0.0.1:8000/
"""

import contextlib
import socket
import sys
import threading

from nghttp2py.errors import StreamClosedError
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Connection,
    H2Event,
    H2RequestReceived,
    H2StreamClosed,
    RequestReceived,
)

# A request that has not come in whole, and how much of its body there is.
Requests = dict[int, tuple[RequestReceived, int]]


def answer(
    connection: H2Connection, stream_id: int, request: RequestReceived, size: int
) -> None:
    """Answer a whole request: say what it was."""
    text = b"%s %s, %d bytes\n" % (request.method, request.target, size)
    length = 0 if request.method == b"HEAD" else len(text)
    connection.send_response_headers(
        stream_id,
        200,
        [("content-type", "text/plain"), ("content-length", str(len(text)))],
    )
    connection.send_body(stream_id, text[:length])


def handle(connection: H2Connection, event: H2Event, requests: Requests) -> None:
    """Act on one event."""
    if isinstance(event, H2RequestReceived):
        requests[event.stream_id] = (event.request, 0)
    elif isinstance(event, H2BodyReceived) and event.stream_id in requests:
        request, size = requests[event.stream_id]
        size += len(event.body.data)
        requests[event.stream_id] = (request, size)
        if not event.body.more:
            # The client may have gone from the stream in what came with it.
            with contextlib.suppress(StreamClosedError):
                answer(connection, event.stream_id, request, size)
    elif isinstance(event, H2StreamClosed):
        requests.pop(event.stream_id, None)


def serve_client(client: socket.socket) -> None:
    """Carry bytes between a socket and a connection until it is over."""
    connection = H2Connection()
    connection.initiate_connection()
    requests: Requests = {}
    # A client that hangs up in the middle is no error of ours.
    with client, contextlib.suppress(ConnectionError):
        while True:
            # Sending may produce events and events something to send.
            while data := connection.data_to_send(65536):
                client.sendall(data)
                for event in connection.pending_events():
                    handle(connection, event, requests)
            if not connection.want_read:
                return
            data = client.recv(65536)
            if not data:
                return
            for event in connection.receive_data(data):
                handle(connection, event, requests)


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with socket.create_server(("127.0.0.1", port)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve_client, args=[client], daemon=True).start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
