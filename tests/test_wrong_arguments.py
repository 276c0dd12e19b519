"""What a caller gives wrongly is refused where it is given, and named."""

import asyncio
from functools import partial

import pytest
from peers import certificate

from nghttp2py import BaseRequestHandler, HTTP2Client, HTTP2Server
from nghttp2py.asyncio import (
    Client,
    H2Protocol,
    Timeouts,
    open_connection,
    serve,
    start_server,
)
from nghttp2py.quic.configuration import QuicConfiguration

ADDRESS = ("127.0.0.1", 0)
ORIGIN = "http://127.0.0.1"


async def connected(protocol):
    raise AssertionError("nothing connects")


# What is called, with what, and what the message has.
SERVERS = [
    ({"limit_connections": "5"}, "limit_connections must be an int, not '5'"),
    ({"config": {}}, "config must be an H2Configuration, not dict"),
    ({"timeouts": 5}, "timeouts must be a Timeouts, not 5"),
    ({"idle_timout": 5}, "idle_timout"),
]
CLIENTS = [
    ({"timeout": "1"}, "timeout must be a number of seconds, not '1'"),
    ({"config": {}}, "config must be an H2Configuration, not dict"),
    ({"timeouts": 5}, "timeouts must be a Timeouts, not 5"),
    ({"timeot": 1}, "timeot"),
]


def refused(call, message):
    """Whether a call, which may give a coroutine, raises TypeError so."""

    async def run():
        with pytest.raises(TypeError, match=message):
            result = call()
            if asyncio.iscoroutine(result):
                await result

    asyncio.run(run())


@pytest.mark.parametrize(("options", "message"), SERVERS)
@pytest.mark.parametrize(
    "server",
    [
        partial(HTTP2Server, ADDRESS, BaseRequestHandler),
        partial(start_server, connected, *ADDRESS),
    ],
    ids=["HTTP2Server", "start_server"],
)
def test_a_server_refuses_a_wrong_option_at_once(server, options, message):
    refused(partial(server, **options), message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(start_server, None, *ADDRESS), "client_connected_cb must be callable"),
        (
            partial(start_server, connected, *ADDRESS, concurrency="3"),
            "max_concurrent_streams must be an int",
        ),
    ],
)
def test_start_server_looks_at_what_only_connections_use(call, message):
    refused(call, message)


@pytest.mark.parametrize(("options", "message"), CLIENTS)
@pytest.mark.parametrize(
    "client",
    [
        partial(Client, ORIGIN),
        partial(HTTP2Client, ADDRESS),
        partial(open_connection, *ADDRESS),
    ],
    ids=["Client", "HTTP2Client", "open_connection"],
)
def test_a_client_refuses_a_wrong_option_at_once(client, options, message):
    refused(partial(client, **options), message)


def test_a_request_with_a_wrong_timeout_is_not_sent():
    client = Client(ORIGIN)
    refused(partial(client.get, "/", timeout="1"), "timeout must be a number")


def test_a_quic_server_refuses_what_is_no_timeouts():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    own = certificate()
    configuration.certificate = own.cert_chain_pems[0].bytes()
    configuration.private_key = own.private_key_pem.bytes()
    refused(
        partial(serve, *ADDRESS, configuration=configuration, timeouts=5),
        "timeouts must be a Timeouts, not 5",
    )


@pytest.mark.parametrize("name", ["", "*", "a*.example", "a b", "xn--\u00fc", "a..b"])
def test_a_certificate_is_for_a_dns_name(name):
    with pytest.raises(ValueError, match="must be a DNS name"):
        QuicConfiguration(is_client=False).load_cert_chain("", server_name=name)


def test_timeouts_that_have_no_bound_are_those_that_say_so():
    assert Timeouts(body=None, response=None, idle=None, keepalive=None)
    for name in ("handshake", "settings", "headers", "close", "min_rate"):
        with pytest.raises(TypeError, match=f"{name} must be a number"):
            Timeouts(**{name: None})


def test_a_client_hands_the_class_of_its_connection_on():
    assert Client(ORIGIN, cls=H2Protocol)
