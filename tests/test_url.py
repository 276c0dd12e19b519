"""URLs, authorities, and zones of IPv6 addresses (RFC 3986, RFC 6874)."""

import socket

import pytest
from loops import in_loop
from peers import Echo

from nghttp2py.asyncio import Client, open_connection
from nghttp2py.asyncio.url import make_authority, split_url
from nghttp2py.client import BaseResponseHandler, HTTP2Client
from nghttp2py.server import HTTP2Server


@pytest.mark.parametrize(
    ("url", "host", "authority"),
    [
        ("http://[fe80::1%25eth0]/", "fe80::1%eth0", "[fe80::1]"),
        ("http://[fe80::1%25eth0]:8080/", "fe80::1%eth0", "[fe80::1]:8080"),
        ("https://[FE80::1%25En0]/", "fe80::1%En0", "[fe80::1]"),
        # RFC 6874, 3: a bare "%" is taken as well.
        ("http://[fe80::1%eth0]/", "fe80::1%eth0", "[fe80::1]"),
        ("http://[::1]:80/", "::1", "[::1]"),
    ],
)
def test_a_zone_is_for_the_socket_and_not_for_the_authority(url, host, authority):
    parts = split_url(url)
    assert parts.host == host
    assert parts.authority == authority


def test_a_server_of_a_link_local_address_has_an_authority_without_zone():
    assert make_authority("http", "fe80::1%eth0", 8080) == "[fe80::1]:8080"


@pytest.mark.parametrize(
    "url", ["http://[fe80::1%25a%2fb]/", "http://[fe80::1%25a b]/", "http://[x%25y]/"]
)
def test_a_zone_that_is_none_is_refused(url):
    with pytest.raises(ValueError):
        split_url(url)


@pytest.mark.parametrize(
    "url", ["http://h", "http://h:/", "http://h:80", "http://H:080/"]
)
def test_a_port_that_is_empty_or_the_schemes_own_makes_no_difference(url):
    assert split_url(url).authority == "h"
    assert Client(url)._make_fields("GET", "http://h/x", (), None)[2] == (
        b":authority",
        b"h",
    )
    assert Client("http://h")._make_fields("GET", url, (), None)[2][1] == b"h"


@in_loop
async def test_clients_connect_to_an_address_with_a_zone():
    """The C library takes names of interfaces for link-local addresses only."""
    name = str(socket.if_nametoindex("lo"))
    async with HTTP2Server(("::1", 0), Echo) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://[::1%25{name}]:{port}") as client:
            response = await client.get("/")
            assert response.headers["x-host"] == f"[::1]:{port}"
            assert await response.read() == b"/"
        connection = await open_connection(f"::1%{name}", port)
        async with connection:
            stream = await connection.open_stream(
                {":method": "GET", ":path": "/"}, end_stream=True
            )
            fields = dict((await stream.response()).headers)
            assert fields[b"x-host"] == f"[::1]:{port}".encode()
        handler = BaseResponseHandler()
        async with HTTP2Client((f"::1%{name}", port)) as http2:
            http2.send_request(handler=handler)
        assert dict(handler.headers)[b"x-host"] == f"[::1]:{port}".encode()
