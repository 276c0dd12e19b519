"""The page of limits has every limit, with the default that the code has."""

import ast
import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

from nghttp2py import BaseRequestHandler, HTTP2Client, HTTP2Server
from nghttp2py.asgi import ASGIOptions
from nghttp2py.asgi.config import OPTIONS
from nghttp2py.asyncio import Client, H2Protocol, Timeouts
from nghttp2py.asyncio.quic import serve
from nghttp2py.h2 import H2Configuration
from nghttp2py.h3 import H3Configuration
from nghttp2py.h3.qpack import h3_defaults
from nghttp2py.hpack import DEFLATE_MAX_HEADER_TABLE_SIZE, HDInflater
from nghttp2py.libraries import h2_defaults
from nghttp2py.quic import QuicConfiguration
from nghttp2py.quic.options import default_sizes, default_times
from nghttp2py.static_files import StaticFiles
from nghttp2py.websocket import WebSocketOptions

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "limits.rst").read_text()
ROWS = re.findall(r"^   \* - (.*)\n     - (.*)\n     - ", PAGE, re.M)

# Numbers of a configuration that bound nothing.
NO_LIMITS = {
    *("pad_multiple", "connection_id_length", "max_datagram_size", "initial_rtt"),
    *("max_datagram_frame_size", "original_version", "verify_mode", "max_ack_delay"),
}


def documented(name, section):
    """The default that a section of the page states for a limit."""
    found = re.search(rf"^{section}\n--+\n(.*?)(?=^[^\n]+\n--+$|\Z)", PAGE, re.M | re.S)
    for names, default in re.findall(
        r"^   \* - (.*)\n     - (.*)\n     - ", found[1], re.M
    ):
        if f"``{name}``" in names:
            return default
    raise AssertionError(f"{section} does not have {name}")


def numbers(configuration):
    for field in dataclasses.fields(configuration):
        kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        kinds = set(re.findall(r"\w+", kind))
        if kinds <= {"int", "float", "None"} and field.name not in NO_LIMITS:
            yield field


def value(text):
    """The number of a cell: of "1,000", "(262,144)", "60 s" or "16 KiB"."""
    number, unit = re.match(r"\(?([\d,.]+)( [KM]iB)?", text).groups()
    factor = {None: 1, " KiB": 1 << 10, " MiB": 1 << 20}[unit]
    return float(number.replace(",", "")) * factor


@pytest.mark.parametrize(
    ("configuration", "section"),
    [
        (H2Configuration, "HTTP/2"),
        (H3Configuration, "HTTP/3"),
        (QuicConfiguration, "QUIC"),
        (Timeouts, "Time bounds"),
        (WebSocketOptions, "WebSocket"),
        (ASGIOptions, "ASGI applications"),
    ],
)
def test_every_limit_of_a_configuration_is_on_the_page(configuration, section):
    names = []
    for field in numbers(configuration):
        stated = documented(field.name, section)
        names.append(field.name)
        if field.default is None:
            assert stated.lstrip("\\").startswith("("), field.name
        else:
            assert value(stated) == field.default, field.name
    assert len(names) > 3


@pytest.mark.parametrize(
    ("configuration", "known"),
    [
        (H2Configuration, h2_defaults()),
        (H3Configuration, h3_defaults()),
        (QuicConfiguration, default_sizes() | default_times()),
    ],
)
def test_a_default_that_c_has_is_no_number_in_python(configuration, known):
    (node,) = ast.parse(inspect.getsource(configuration)).body
    read = [
        ast.literal_eval(item.value.slice)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Subscript)
    ]
    assert sorted(read) == sorted(known)


@pytest.mark.parametrize(
    ("function", "name", "row"),
    [
        (HTTP2Server, "backlog", "``backlog``"),
        (StaticFiles, "max_open_files", "``max_open_files`` of ``StaticFiles``"),
        (Client, "connect_timeout", "``connect_timeout`` of clients"),
        (Client, "timeout", "``timeout`` of ``Client``"),
        (HTTP2Client, "timeout", "``timeout`` of ``HTTP2Client``"),
        (Client, "retries", "``retries`` of ``Client``"),
    ],
)
def test_the_default_of_an_argument_is_on_the_page(function, name, row):
    (stated,) = [default for names, default in ROWS if names == row]
    default = inspect.signature(function.__init__).parameters[name].default
    assert value(stated) == default


def test_the_defaults_that_objects_tell_are_on_the_page():
    rows = dict(ROWS)
    assert (
        value(rows["``HDInflater.max_header_list_size``"])
        == HDInflater().max_header_list_size
    )
    assert value(rows["``hd_table_bufsize_max``"]) == DEFLATE_MAX_HEADER_TABLE_SIZE
    stated = value(rows["``max_body_size`` of handlers"])
    assert stated == BaseRequestHandler.max_body_size
    protocol = H2Protocol(False)
    assert (
        value(rows["``concurrency`` of streams"])
        == protocol.connection.config.max_concurrent_streams
    )


def test_what_serve_takes_is_on_the_page():
    parameters = inspect.signature(serve).parameters
    assert parameters["max_connections"].default is None
    assert parameters["retry"].default is False
    rows = dict(ROWS)
    assert rows["``max_connections`` of ``serve``"] == "none"
    stated = rows["``max_handshakes`` of ``serve``"]
    assert value(stated) == parameters["max_handshakes"].default
    assert rows["``retry`` of ``serve``"] == "off"


@pytest.mark.parametrize(
    "name",
    [
        *("timeout_lifespan_startup", "timeout_lifespan_shutdown"),
        *("timeout_graceful_shutdown", "timeout_keep_alive"),
        *("timeout_worker_startup", "timeout_worker_healthcheck"),
    ],
)
def test_the_time_bounds_of_applications_are_on_the_page(name):
    stated = dict(ROWS)[f"``{name}`` of ``Config``"]
    assert value(stated) == OPTIONS[name].default


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("window of a stream, tuned", "asyncio.keepalive:MAX_WINDOW"),
        ("``readline``, ``readuntil``", "asyncio.reader:LIMIT"),
        ("finished streams known by number", "asyncio.protocol:_FINISHED_STREAMS"),
        ("1xx responses of a stream", "asyncio.stream_state:MAX_INFORMATIONAL"),
        ("gathered for one write", "asyncio.transfer:WRITE_SIZE"),
        ("origins of a ``Pool``", "asyncio.pool:_MAX_ORIGINS"),
        (
            "origins that share a connection of a ``Pool``",
            "asyncio.pool:_MAX_ORIGINS",
        ),
        (
            "origins of HTTP/1.1 of a transport for httpx",
            "httpx.fallback:_MAX_ORIGINS",
        ),
        ("origins with alternative services", "asyncio.alternatives:MAX_ORIGINS"),
        ("names in a list of files", "listings:MAX_LISTED"),
        ("names on a page of it", "listings:PAGE_SIZE"),
        ("``max_upload`` of ``Site``", "site:MAX_UPLOAD"),
        ("compressed files kept", "static_files:MAX_COMPRESSED"),
        (
            "bytes before the end of a TLS handshake",
            "asyncio.tls_transport:MAX_HANDSHAKE",
        ),
        (
            "PROXY protocol header after its first 16 bytes",
            "asyncio.proxy_protocol:MAX_HEADER",
        ),
        (
            "``timeout_lifespan_startup`` of ``Config``",
            "asgi.lifespan:STARTUP_TIMEOUT",
        ),
        (
            "``timeout_lifespan_shutdown`` of ``Config``",
            "asgi.lifespan:SHUTDOWN_TIMEOUT",
        ),
        ("end of the lifespan after a second SIGINT", "asgi.server:_FORCED"),
        ("end of applications that were cancelled", "asgi.server:_CANCELLED"),
        ("``threads`` of ``wrap_wsgi``", "asgi.wsgi:THREADS"),
        ("PINGs after the client's half was closed", "asyncio.pump:_PROBE_INTERVAL"),
        ("peers whose trust is remembered", "trusted:_KEPT"),
        ("addresses in X-Forwarded-For or Forwarded", "asgi.forwarded:_MOST_ENTRIES"),
        ("answers to KeyUpdate that wait", "asyncio.tls_transport:MAX_ANSWERS"),
        ("connection whose TLS failed", "asyncio.tls_transport:_LINGER"),
        ("before GOAWAY", "asyncio.pump:NOTICE_DELAY"),
        ("silence before GOAWAY", "asyncio.pump:QUIET_TIME"),
        (
            "a request of a connection that is closing",
            "asyncio.listener:LAST_REQUEST_TIME",
        ),
        ("accepted at a time", "asyncio.listener:_ACCEPTS_IN_A_TURN"),
        ("silence after the end", "asyncio.bounds:LINGER_TIME"),
        (
            "end of a client's half after the closing handshake",
            "asgi.websocket:ENDED_TIME",
        ),
        ("octets of a header section", "h1:MAX_HEAD"),
        ("fields of a header section", "h1:MAX_FIELDS"),
        ("octets of a request target", "h1:MAX_TARGET"),
        ("response to a half-closed client", "asyncio.h1_pump:HALF_CLOSED_TIME"),
        (
            "response to a half-closed client, without octets to send ahead",
            "asyncio.h1_pump:UNKNOWN_TIME",
        ),
        ("octets that are sent ahead", "asyncio.h1_pump:PROBE_INTERVAL"),
        ("TCP's probes of an accepted connection", "asyncio.listener:PROBE_AFTER"),
        ("stateless resets", "asyncio.quic_server:MAX_RESETS"),
        ("workers of a ``QuicGroup``", "asyncio.quic_member:MAX_SLOTS"),
        (
            "ids of another worker's unfinished handshakes",
            "asyncio.quic_member:MAX_CLAIMS",
        ),
        (
            "clients whose first packets the supervisor passes on",
            "asyncio.quic_vacancies:MAX_CHOSEN",
        ),
        ("``drain()`` of a stream's writer", "asyncio.quic_protocol:HIGH_WATER"),
        (
            "open requests of an ``H3Protocol`` that is a client",
            "asyncio.h3:_REQUESTS",
        ),
        ("body of an ``H3RequestStream`` that comes in", "asyncio.http3:UNREAD"),
        (
            "body of an ``H3RequestStream`` that goes out",
            "asyncio.http3:STREAM_QUEUE",
        ),
        (
            "body of an ``H3RequestStream`` beyond the peer's credit",
            "asyncio.http3:AHEAD",
        ),
        ("datagrams of an ``H3RequestStream``", "asyncio.h3_stream:_MAX_DATAGRAMS"),
        ("requests that a client abandons", "asyncio.h3:_RESET_BURST"),
        (
            "requests that are sent on after their response",
            "asyncio.h3:_STOP_AFTER",
        ),
        ("bytes of such a request", "asyncio.h3:_DISCARDED"),
        ("events of a qlog trace", "quic.logger:MAX_EVENTS"),
        ("end of a worker after a second SIGINT", "workers.process:_FORCED"),
        ("pause before a worker is started again", "workers.supervisor:_MOST_PAUSE"),
        (
            "bytes of a message between supervisor and worker",
            "workers.channel:_MAX_MESSAGE",
        ),
    ],
)
def test_a_number_that_is_no_setting_is_that_of_the_module(row, place):
    module, name = place.split(":")
    known = getattr(importlib.import_module(f"nghttp2py.{module}"), name)
    assert value(dict(ROWS)[row]) == known


@pytest.mark.parametrize(
    "name", ["settings", "headers", "body", "response", "idle", "keepalive"]
)
def test_the_time_bounds_of_http3_are_on_the_page(name):
    stated = dict(ROWS)[f"``{name}`` of ``H3Protocol``"]
    assert value(stated) == getattr(Timeouts(), name)


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (
            "SETTINGS, ORIGIN, a capsule",
            ["MAX_SETTINGS_LEN", "MAX_ORIGIN_LEN", "MAX_CAPSULE"],
        ),
        ("PRIORITY_UPDATE", ["MAX_PRIORITY_LEN"]),
        ("early WebTransport streams, datagrams", ["MAX_WAITING"]),
        ("ClientHello, with a ``session_ticket_fetcher``", ["MAX_HELLO"]),
        ("early data that a server takes", ["REPLAY_SLOTS"]),
        ("chains of certificates that are remembered", ["NGP_TLS_CHAINS"]),
        ("how long a verified chain is remembered", ["NGP_TLS_CHAIN_TIME"]),
        ("connection ids", ["ACTIVE_CID_LIMIT"]),
        ("freed blocks of a size that a thread keeps", ["NGP_POOL_KEPT"]),
    ],
)
def test_a_number_that_is_no_setting_is_that_of_the_c_code(row, names):
    sources = "\n".join(path.read_text() for path in (ROOT / "src_c").glob("*.[ch]"))
    for name in names:
        (known,) = re.findall(rf"^#define {name} (.+)$", sources, re.M)
        product = re.fullmatch(r"\(?(\d+)(?: \* (\d+))?\)?", known)
        first, second = product.groups("1")
        assert value(dict(ROWS)[row]) == int(first) * int(second), name
