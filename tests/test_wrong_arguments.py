"""What a caller gives wrongly is refused where it is given, and named."""

import asyncio
import inspect
import re
import socket
from functools import partial

import click
import pytest
from click.testing import CliRunner
from peers import certificate
from quic_pair import client_configuration, server_configuration

from nghttp2py import BaseRequestHandler, HTTP2Client, HTTP2Server
from nghttp2py.asyncio import (
    Client,
    H2Protocol,
    H2Pump,
    Timeouts,
    open_connection,
    open_unix_connection,
    serve,
    start_server,
    start_unix_server,
)
from nghttp2py.asyncio.connection import H2StreamConnection
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.asyncio.quic import connect
from nghttp2py.cli import main
from nghttp2py.cli.get.exits import Exit
from nghttp2py.h2 import H2Configuration, H2Connection
from nghttp2py.h3 import H3Configuration
from nghttp2py.quic.configuration import QuicConfiguration
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.static_files import StaticFiles

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
            "concurrency must be an int",
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


# ---- Every option of every public class and function ----


async def entered(manager):
    async with manager:
        pass


def connecting(**options):
    options = {"configuration": client_configuration(), **options}
    return entered(connect("127.0.0.1", 9, **options))


def with_quic(make):
    """Make a connection of a configuration: it looks at the values then."""

    def connection(**fields):
        configuration = make()
        for name, value in fields.items():
            setattr(configuration, name, value)
        return QuicConnection(configuration=configuration)

    return connection


async def http3_protocol(**options):
    quic = QuicConnection(configuration=client_configuration())
    return H3Protocol(quic, **options)


#: What is called, and what declares its options.
CALLS = {
    "H2Configuration": (H2Configuration, H2Configuration),
    "H3Configuration": (H3Configuration, H3Configuration),
    "QuicConfiguration": (with_quic(client_configuration), QuicConfiguration),
    "Timeouts": (Timeouts, Timeouts),
    "Client": (partial(Client, ORIGIN), Client),
    "HTTP2Server": (partial(HTTP2Server, ADDRESS, BaseRequestHandler), HTTP2Server),
    "HTTP2Client": (partial(HTTP2Client, ADDRESS), HTTP2Client),
    "H2Protocol": (partial(H2Protocol, True), H2Protocol),
    "H2Pump": (lambda **o: H2Pump(H2Connection(), **o), H2Pump),
    "H3Protocol": (http3_protocol, H3Protocol),
    "H2StreamConnection": (partial(H2Protocol, True), H2StreamConnection),
    "start_server": (partial(start_server, connected, *ADDRESS), start_server),
    "open_connection": (partial(open_connection, *ADDRESS), open_connection),
    "start_unix_server": (
        partial(start_unix_server, connected, "/nowhere/socket"),
        start_unix_server,
    ),
    "open_unix_connection": (
        partial(open_unix_connection, "/nowhere/socket"),
        open_unix_connection,
    ),
    "serve": (partial(serve, *ADDRESS, configuration=server_configuration()), serve),
    "connect": (connecting, connect),
    "StaticFiles": (partial(StaticFiles, "."), StaticFiles),
}

#: Wrong values by the first word of an option's type.
WRONG = {
    "bool": ["yes", 2],
    "int": ["7", 1.5, True, -1],
    "float": ["7", True, float("nan"), -1],
    "str": [7, b"x"],
    "bytes": [7, "x"],
    "list": [7, "x"],
    "Sequence": [7, "x"],
    "dict": [7, [1]],
    "Callable": [7, "x"],
    "HeadersLike": [7, "x"],
}
#: Options of which any object may be given, or that exclude others.
ANY = {
    *("certificate", "private_key", "cadata"),
    *("host", "port", "address", "sock", "path"),
}


def wrong_options():
    for name, (_, declared) in CALLS.items():
        for option in inspect.signature(declared).parameters.values():
            if option.default is option.empty and option.name != "configuration":
                continue
            if option.name in ANY or option.name.startswith("_"):
                continue
            declaration = option.annotation
            if isinstance(declaration, type):
                declaration = declaration.__name__
            declaration = str(declaration).strip("'")
            kind = re.match(r"\w*", declaration).group()
            if kind == "object":
                continue
            values = list(WRONG.get(kind, [7, "x"]))
            if "None" not in declaration and kind != "SSL":
                values.append(None)
            for value in values:
                if option.name == "verify_mode" and value is True:
                    continue  # as dnspython has it
                yield pytest.param(name, option.name, value, id=f"{name}-{option.name}")


@pytest.mark.parametrize(("name", "option", "value"), list(wrong_options()))
def test_each_wrong_option_is_refused_by_its_name_and_value(name, option, value):
    call, _ = CALLS[name]

    async def run():
        result = call(**{option: value})
        if inspect.isawaitable(result):
            await result

    # aioquic's tests expect OverflowError of a local_port that is none.
    with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
        asyncio.run(run())
    message = str(caught.value)
    assert option in message
    assert repr(value) in message or type(value).__name__ in message


# ---- Where to connect and to listen ----


ADDRESSED = {
    "start_server": lambda host, port: start_server(connected, host, port),
    "open_connection": lambda host, port: open_connection(host, port),
    "serve": lambda host, port: serve(host, port, configuration=server_configuration()),
    "connect": lambda host, port: entered(
        connect(host, port, configuration=client_configuration())
    ),
    "HTTP2Server": lambda host, port: HTTP2Server((host, port), BaseRequestHandler),
    "HTTP2Client": lambda host, port: HTTP2Client((host, port)),
}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("host", value) for value in (7, b"x", "a..b", "a\0b", "x" * 64, object())),
        *(("port", value) for value in ("7", -1, 65536, 1.5, True)),
    ],
)
@pytest.mark.parametrize("name", ADDRESSED)
def test_a_wrong_address_is_refused_by_name_and_value(name, option, value):
    async def run():
        arguments = {"host": "127.0.0.1", "port": 9, option: value}
        result = ADDRESSED[name](**arguments)
        if inspect.isawaitable(result):
            await result

    with pytest.raises((TypeError, ValueError)) as caught:
        asyncio.run(run())
    message = str(caught.value)
    assert option in message
    assert repr(value) in message or type(value).__name__ in message


@pytest.mark.parametrize("value", [7, "x", socket.socket(type=socket.SOCK_DGRAM)])
@pytest.mark.parametrize(
    "call",
    [
        partial(start_server, connected),
        partial(start_unix_server, connected),
        open_connection,
        open_unix_connection,
        partial(HTTP2Server, None, BaseRequestHandler),
    ],
)
def test_a_wrong_socket_is_refused_by_its_name(call, value):
    async def run():
        result = call(sock=value)
        if inspect.isawaitable(result):
            await result

    with pytest.raises((TypeError, ValueError), match="sock must be a") as caught:
        asyncio.run(run())
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [7, 1.5, "", "a\0b"])
@pytest.mark.parametrize(
    "call",
    [
        partial(start_unix_server, connected),
        open_unix_connection,
        HTTP2Client,
        lambda path: HTTP2Server(path, BaseRequestHandler),
    ],
)
def test_a_wrong_path_is_refused_by_its_name_and_value(call, value):
    async def run():
        result = call(value)
        if inspect.isawaitable(result):
            await result

    with pytest.raises((TypeError, ValueError), match=r"(path|address) must") as caught:
        asyncio.run(run())
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["x", b"x", b""])
@pytest.mark.parametrize("option", ["certificate", "private_key", "cadata"])
def test_what_is_no_pem_is_refused_by_its_name(option, value):
    client = option == "cadata"
    configuration = client_configuration() if client else server_configuration()
    setattr(configuration, option, value)
    with pytest.raises(ValueError, match=f"{option} must be PEM"):
        QuicConnection(
            configuration=configuration,
            original_destination_connection_id=None if client else bytes(8),
        )


@pytest.mark.parametrize("option", ["certificate", "private_key"])
def test_pem_that_is_malformed_is_refused_by_its_name(option):
    configuration = server_configuration()
    pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    setattr(configuration, option, pem)
    with pytest.raises(ValueError, match=option):
        QuicConnection(
            configuration=configuration, original_destination_connection_id=bytes(8)
        )


def test_a_secret_is_not_shown():
    secret = b"0123456789abcdef" * 4
    with pytest.raises(TypeError) as caught:
        QuicConnection(configuration=client_configuration(server_name=secret))
    assert str(caught.value) == "server_name must be a str, not bytes"


# ---- Every option of every command ----


def commands(group, *names):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


#: Wrong values of what takes any text, and of what needs more than its type says.
WRONG_TEXT = {
    "urls": ["ftp://x/", "http://x:99999/", "http://a..b/", "http://[x/"],
    "more_urls": [],  # the same
    "method": ["", "G T", "CONNECT"],
    "headers": [
        "no colon",
        ": x",
        "a b: c",
        "a: b\nc",
        "host: a b",
    ],
    **{key: ["@missing"] for key in ("data", "binary", "write_out")},
    **{key: ["@missing"] for key in ("urlencode", "json")},
    **{key: [] for key in ("raw", "user", "no_proxy", "unix", "output_dir")},
    **{key: ["a\nb"] for key in ("user_agent", "referer", "bearer", "byte_range")},
    "cookies": ["a=b\nc"],
    "form": ["x", "@missing"],
    "upload": ["missing"],
    "resume": ["x", "-1"],
    "outputs": ["."],
    "resolve": ["x", "x:y:1", "x:1:"],
    "connect_to": ["x", "a:b:c:d"],
    "proxy": ["socks5://x"],
    "proxy_user": [],
    "timeout": ["nan", "inf", "-inf"],
    "host": ["", "a..b", "x" * 64],
    "auth": ["me"],
}


def wrong_values(parameter):
    kind = parameter.type
    if isinstance(kind, click.types.IntRange | click.types.FloatRange):
        yield from ["x", "", str(kind.min - 1)]
        if kind.max is not None:
            yield str(kind.max + 1)
        if kind.min_open:
            yield str(kind.min)
    elif isinstance(kind, click.Choice):
        yield "x"
    elif isinstance(kind, click.Path | click.File):
        # What does not exist, or is a directory where a file is meant.
        yield "missing/file"
        if not getattr(kind, "dir_okay", False):
            yield "."
    else:
        assert parameter.name in WRONG_TEXT, parameter
    yield from WRONG_TEXT.get(parameter.name, ())


def command_lines():
    for names, command in commands(main):
        if names == ("run",):
            continue  # its options are fields of Config: see test_asgi_config
        needed = {
            p.name: "." if p.name == "directory" else "https://127.0.0.1:9/"
            for p in command.params
            if isinstance(p, click.Argument) and (p.required or p.name == "urls")
        }
        for parameter in command.params:
            if getattr(parameter, "is_flag", False) or getattr(
                parameter, "count", False
            ):
                continue
            for value in wrong_values(parameter):
                rest = {n: v for n, v in needed.items() if n != parameter.name}
                option = isinstance(parameter, click.Option)
                given = [f"{parameter.opts[-1]}={value}"] if option else ["--", value]
                if (*names, parameter.name) == ("get", "key"):
                    given = ["--cert=text", *given]  # a key alone is refused
                yield pytest.param(
                    *(names, [*rest.values(), *given], parameter, value),
                    id=f"{'-'.join(names)}-{parameter.name}-{value[:9]!r}",
                )


@pytest.mark.parametrize(("names", "line", "parameter", "value"), list(command_lines()))
def test_a_command_refuses_a_wrong_option_by_its_name_and_value(
    names, line, parameter, value, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [*names, *line])
    # get has curl's codes for a file that it cannot read.
    files = (Exit.READ, Exit.OWN_CERTIFICATE, Exit.AUTHORITIES)
    assert done.exit_code in (1, 2, 3, *(files if "get" in names else ()))
    assert isinstance(done.exception, SystemExit), done.exception
    text = done.output.splitlines()[-1]
    assert text.startswith("Error: ")
    # A message about a URL begins with it; an argument goes by its metavar.
    named = parameter.opts if isinstance(parameter, click.Option) else [parameter.name]
    assert parameter.name == "urls" or any(
        name.upper() in text.upper() for name in named
    )
    assert value in text or repr(value) in text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("get --cacert=text https://127.0.0.1:9/", "--cacert text: a certificate"),
        ("get --cert=text https://127.0.0.1:9/", "--cert text: a certificate"),
        ("get --cert=text --key=text https://127.0.0.1:9/", "--key text: a cert"),
        ("get --key=text https://127.0.0.1:9/", "--key needs --cert"),
        ("get --http3 http://127.0.0.1:9/", "--http3 needs a URL"),
        ("serve . --cert=text", "there is no certificate in 'text'"),
        ("serve . --cert=text --key=text", "there is no certificate in 'text'"),
        ("serve . --key=text", "--key needs --cert"),
        ("serve . --no-tls --http3", "--http3 needs TLS"),
    ],
)
def test_a_command_refuses_files_that_are_no_certificates(
    line, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("text")
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code in (1, 2, 3, 58, 77)
    assert isinstance(done.exception, SystemExit), done.exception
    assert sentence in done.output.splitlines()[-1]


def test_the_password_of_a_url_is_not_shown():
    for url in (
        "https://u:secret@x/",
        "https://u:secret@x:99999/",
        "https://u:secret@[x/",
    ):
        done = CliRunner().invoke(main, ["get", url])
        assert done.exit_code in (3, 6) and "secret" not in done.output
