"""``nghttp2py serve``: the files of a directory over HTTP/2 and HTTP/3."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nghttp2py.asyncio.certificates import LoadedTLS, TLSOptions, load_tls
from nghttp2py.asyncio.event_loop import run
from nghttp2py.asyncio.server import Server, make_server_quic
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.server import IDLE_TIMEOUT
from nghttp2py.static_files import FileRequestHandler, StaticFiles

if TYPE_CHECKING:
    from nghttp2py.quic import QuicConfiguration

__all__ = ["command"]

# Seconds for which a client may cache that there is HTTP/3 (RFC 7838, 3.1).
_ALT_SVC_AGE = 3600


def _load_tls(cert: Path, key: Path | None) -> LoadedTLS:
    """Read the certificate of the server.  Raises ClickException."""
    try:
        return load_tls(TLSOptions([(cert, key)]))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _make_quic(tls: LoadedTLS) -> QuicConfiguration:
    try:
        # Not every build has QUIC.
        from nghttp2py.asyncio.quic_server import check_server_configuration

        configuration = make_server_quic(tls, Timeouts(idle=IDLE_TIMEOUT))
        # Request bodies are not read, so they need no large window.
        configuration.max_stream_data = 65536
        check_server_configuration(configuration)
    except (ImportError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    return configuration


def _url(scheme: str, host: str, port: int) -> str:
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{port}/"


def _check_host(_: object, __: object, host: str) -> str:
    # An empty host, as from an unset variable, would mean all interfaces.
    if not host:
        raise click.BadParameter("'' is no host: all interfaces are '::'")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise click.BadParameter(f"{host!r} is no host: {error}") from None
    return host


@click.command("serve")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    callback=_check_host,
    help="Address; :: is all of IPv6 and IPv4.",
)
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    help="Port; 0 takes any that is free.  [default: 8443, in the clear 8080]",
)
@click.option(
    "--cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file with the certificate chain: serve HTTPS.",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file with its key, if --cert has it not.",
)
@click.option(
    "--http3",
    is_flag=True,
    help="Serve HTTP/3 too, on the same port of UDP, and advertise it.",
)
@click.option("--listing", is_flag=True, help="Show lists of files in directories.")
@click.option("-q", "--quiet", is_flag=True, help="Log no requests.")
def command(
    directory: Path,
    host: str,
    port: int | None,
    cert: Path | None,
    key: Path | None,
    http3: bool,
    listing: bool,
    quiet: bool,
) -> None:
    """Serve the files of DIRECTORY over HTTP/2 and HTTP/3, until Ctrl-C.

    With --cert it serves HTTPS; without, HTTP/2 in the clear, to clients with prior
    knowledge (curl --http2-prior-knowledge).

    Files whose names begin with a dot, and targets of symbolic links outside of
    DIRECTORY, are not served.
    """
    if key is not None and cert is None:
        raise click.UsageError("--key needs --cert")
    if http3 and cert is None:
        raise click.UsageError("--http3 needs --cert: HTTP/3 is always encrypted")
    tls = None if cert is None else _load_tls(cert, key)
    if port is None:
        port = 8080 if tls is None else 8443
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not quiet:
        logging.getLogger("nghttp2py.access").setLevel(logging.INFO)

    headers: list[tuple[str, str]] = []
    handler = type(
        "Handler",
        (FileRequestHandler,),
        {
            "files": StaticFiles(directory, listing=listing),
            "response_headers": headers,
        },
    )
    quic = _make_quic(tls) if http3 and tls else None
    server = Server(handler, (host, port), ssl=tls, http3=quic or False)
    scheme = "http" if tls is None else "https"

    async def serve() -> None:
        await server.start()
        port = server.sockets[0].getsockname()[1]
        if quic is not None:
            headers.append(("alt-svc", f'h3=":{port}"; ma={_ALT_SVC_AGE}'))
        loop = asyncio.get_running_loop()
        # Set before the line that announces the server: signals may follow it at once.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        click.echo(f"Serving on {_url(scheme, host, port)} (Ctrl-C ends it)")
        await server.serve()

    try:
        run(serve())
    except OSError as error:
        # The text of errno: strerror may repeat the address.
        reason = error.strerror or str(error)
        if error.errno is not None and not isinstance(error, socket.gaierror):
            reason = os.strerror(error.errno)
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {reason}"
        ) from None
