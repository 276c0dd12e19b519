"""An HTTP/2 proxy: each client's connection is carried over one to the server.

    python examples/sansio_proxy.py 127.0.0.1:8000 [port]

Two connections, a server's and a client's, in one loop around ``selectors``. Who
sends a body gets credit when the other end has taken it, so that little is kept.
"""

import contextlib
import selectors
import socket
import sys
import threading
from collections.abc import Iterable

from nghttp2py.errors import ErrorCode, NGHTTP2Error
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Configuration,
    H2Connection,
    H2Event,
    H2InformationalResponseReceived,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
)

#: The window of a stream bounds what is kept of its body.
CONFIG = H2Configuration(manual_flow_control=True, enable_connect_protocol=False)


class End:
    """A socket with its connection; ``streams`` maps its streams to the other's."""

    other: "End"

    def __init__(self, sock: socket.socket, client_side: bool) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.connection = H2Connection(client_side=client_side, config=CONFIG)
        self.connection.initiate_connection()
        self.out = b""
        self.streams: dict[int, int] = {}
        self.uncredited: dict[int, int] = {}
        self.trailed: set[int] = set()

    def act(self, events: Iterable[H2Event]) -> None:
        """Do to the other end's streams what has happened to this one's."""
        for event in events:
            try:
                self.forward(event)
            except NGHTTP2Error as error:
                # The other end may not take it: its stream is gone, for one.
                stream_id = getattr(event, "stream_id", 0)
                print(f"stream {stream_id}: {error}", file=sys.stderr)
                self.connection.reset_stream(stream_id, ErrorCode.CANCEL)

    def forward(self, event: H2Event) -> None:
        there = self.other.connection
        if isinstance(event, H2RequestReceived):
            asked = there.send_headers(None, event.request.fields)
            self.streams[event.stream_id] = asked
            self.other.streams[asked] = event.stream_id
            return
        here = getattr(event, "stream_id", 0)
        stream_id = self.streams.get(here)
        if stream_id is None:
            return
        if isinstance(event, H2InformationalResponseReceived):
            there.send_informational(stream_id, event.status, event.headers)
        elif isinstance(event, H2ResponseReceived):
            there.send_response_headers(stream_id, event.status, event.headers)
        elif isinstance(event, H2BodyReceived):
            size = len(event.body.data)
            self.uncredited[here] = self.uncredited.get(here, 0) + size
            if here not in self.trailed:
                there.send_body(
                    stream_id, event.body.data, end_stream=not event.body.more
                )
        elif isinstance(event, H2TrailersReceived):
            self.trailed.add(here)
            there.send_trailers(stream_id, event.headers)
        elif isinstance(event, H2StreamReset):
            there.reset_stream(stream_id, event.error_code)
        elif isinstance(event, H2StreamClosed):
            del self.streams[here]
            self.uncredited.pop(here, None)
            self.trailed.discard(here)

    def credit(self) -> None:
        """Give credit for what the other end has sent on."""
        for here, size in list(self.uncredited.items()):
            queued = self.other.connection.queued_body(self.streams[here])
            if size > queued:
                self.connection.acknowledge_received_data(size - queued, here)
                self.uncredited[here] = queued

    def read(self) -> bool:
        """Take what the peer says; return false if it has hung up."""
        data = self.sock.recv(65536)
        if data:
            self.act(self.connection.receive_data(data))
        return bool(data)

    def write(self) -> bool:
        """Say what there is to say; return whether anything was said."""
        if not self.out:
            self.out = self.connection.data_to_send(65536)
            self.act(self.connection.pending_events())
        if not self.out:
            return False
        with contextlib.suppress(BlockingIOError):
            self.out = self.out[self.sock.send(self.out) :]
            return True
        return False


def carry(client: socket.socket, server: socket.socket) -> None:
    """Carry one client's streams until one end is over."""
    ends = [End(client, False), End(server, True)]
    ends[0].other, ends[1].other = reversed(ends)
    with (
        client,
        server,
        selectors.DefaultSelector() as selector,
        contextlib.suppress(ConnectionError),
    ):
        for end in ends:
            selector.register(end.sock, selectors.EVENT_READ, end)
        while True:
            # What one end says may give the other something to say.
            while ends[0].write() | ends[1].write():
                for end in ends:
                    end.credit()
            for end in ends:
                if not end.out and not end.connection.want_read:
                    return
                events = selectors.EVENT_READ
                if end.out:
                    events |= selectors.EVENT_WRITE
                selector.modify(end.sock, events, end)
            for key, events in selector.select():
                if events & selectors.EVENT_READ and not key.data.read():
                    return


def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    own_port = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    with socket.create_server(("127.0.0.1", own_port)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
        while True:
            client, _ = listener.accept()
            try:
                server = socket.create_connection((host, int(port)), timeout=10)
            except OSError as error:
                print(f"{host}:{port}: {error}", file=sys.stderr)
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=carry, args=[client, server], daemon=True).start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
