"""An HTTP/2 client with a blocking socket: several requests on one connection.

    python examples/sansio_client.py http://127.0.0.1:8000/one http://127.0.0.1:8000/two

All URLs are of one server. With https, TLS must agree on "h2" (ALPN).
"""

import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from nghttp2py.errors import error_code_name
from nghttp2py.h2 import (
    H2BodyReceived,
    H2Connection,
    H2ConnectionClosed,
    H2ResponseReceived,
    H2StreamClosed,
)

PORTS = {"http": 80, "https": 443}


@dataclass
class Response:
    url: str
    status: int | None = None
    body: bytearray = field(default_factory=bytearray)
    error_code: int = 0  # what the stream has ended with


def connect(url: SplitResult) -> socket.socket:
    """Open a socket to the server of a URL."""
    assert url.hostname is not None
    port = url.port or PORTS[url.scheme]
    raw = socket.create_connection((url.hostname, port))
    if url.scheme == "http":
        return raw
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    secure = context.wrap_socket(raw, server_hostname=url.hostname)
    if secure.selected_alpn_protocol() != "h2":
        raise SystemExit(f"{url.hostname} does not speak HTTP/2")
    return secure


def fetch(sock: socket.socket, urls: list[SplitResult]) -> Iterator[Response]:
    """Ask for all URLs at once; yield the responses as they end."""
    connection = H2Connection(client_side=True)
    connection.initiate_connection()
    waiting: dict[int, Response] = {}
    for url in urls:
        target = url.path or "/"
        if url.query:
            target += "?" + url.query
        stream_id = connection.send_request(
            "GET", target, scheme=url.scheme, authority=url.netloc
        )
        waiting[stream_id] = Response(url.geturl())
    while waiting:
        sock.sendall(connection.data_to_send())
        data = sock.recv(65536)
        for event in (
            connection.receive_data(data) if data else connection.receive_eof()
        ):
            match event:
                case H2ResponseReceived(stream_id, status, _):
                    waiting[stream_id].status = status
                case H2BodyReceived(stream_id, body):
                    waiting[stream_id].body += body.data
                case H2StreamClosed(stream_id, error_code):
                    waiting[stream_id].error_code = error_code
                    yield waiting.pop(stream_id)
                case H2ConnectionClosed(error_code, _, reason) if error_code:
                    name = error_code_name(error_code)
                    print(f"connection: {name} {reason}", file=sys.stderr)
    if connection.want_read:
        connection.close_connection()
        sock.sendall(connection.data_to_send())


def main() -> None:
    urls = [urlsplit(argument) for argument in sys.argv[1:]]
    servers = {(url.scheme, url.netloc) for url in urls}
    if len(servers) != 1 or urls[0].scheme not in PORTS:
        raise SystemExit("give http or https URLs of one server")
    failed = False
    with connect(urls[0]) as sock:
        for response in fetch(sock, urls):
            if response.error_code:
                failed = True
                name = error_code_name(response.error_code)
                print(f"{response.url}: {name}", file=sys.stderr)
                continue
            size = len(response.body)
            print(f"{response.url}: {response.status}, {size} bytes", flush=True)
            sys.stdout.buffer.write(response.body)
            sys.stdout.flush()
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from None
