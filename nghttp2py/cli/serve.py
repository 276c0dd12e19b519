"""``nghttp2py serve``: the files of a directory over HTTP/2 and HTTP/3."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nghttp2py.asyncio.event_loop import run
from nghttp2py.server import HTTP2Server
from nghttp2py.static_files import FileRequestHandler, StaticFiles

if TYPE_CHECKING:
    from nghttp2py.cli.http3_server import HTTP3Server
    from nghttp2py.quic import QuicConfiguration

__all__ = ["Site", "command", "make_tls"]


# Ports that are tried before none is said to be free for TCP and UDP.
_ATTEMPTS = 16

# Seconds for which a client may remember that there is HTTP/3 (RFC 7838, 3.1).
_ALT_SVC_AGE = 3600


def _make_quic(cert: Path, key: Path | None) -> QuicConfiguration:
    try:
        from nghttp2py.cli import http3_server
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    try:
        return http3_server.make_configuration(cert, key)
    except (OSError, ValueError) as error:
        raise _bad_certificate(cert, key, error) from None


def make_tls(cert: Path, key: Path | None) -> ssl.SSLContext:
    """Make the context of a server.  Raises ClickException."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An encrypted key must not make a server wait at a prompt.
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise _bad_certificate(cert, key, error) from None
    return context


def _bad_certificate(
    cert: Path, key: Path | None, error: Exception
) -> click.ClickException:
    names = f"--cert {cert}" if key is None else f"--cert {cert} and --key {key}"
    return click.ClickException(f"no certificate with its key in {names}: {error}")


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _url(scheme: str, host: str, port: int) -> str:
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{port}/"


def _check_host(_: object, __: object, host: str) -> str:
    # Empty, as of a variable that is not set, it would be all interfaces.
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

    With --cert over HTTPS; without it in the clear, to clients that know that
    HTTP/2 is spoken (curl --http2-prior-knowledge).

    Files whose names begin with a dot, and what symbolic links lead to outside
    of DIRECTORY, are not served.
    """
    if key is not None and cert is None:
        raise click.UsageError("--key needs --cert")
    if http3 and cert is None:
        raise click.UsageError("--http3 needs --cert: HTTP/3 is always encrypted")
    context = None if cert is None else make_tls(cert, key)
    if port is None:
        port = 8080 if context is None else 8443
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not quiet:
        logging.getLogger("nghttp2py.access").setLevel(logging.INFO)

    files = StaticFiles(directory, listing=listing)
    configuration = _make_quic(cert, key) if http3 and cert else None
    site = Site(files, host, port, context, configuration)
    try:
        run(site.serve())
    except OSError as error:
        # The number's own text: strerror may name the address once more.
        reason = error.strerror or str(error)
        if error.errno is not None and not isinstance(error, socket.gaierror):
            reason = os.strerror(error.errno)
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {reason}"
        ) from None


class Site:
    """The servers of a directory: of HTTP/2, and with ``quic`` of HTTP/3."""

    def __init__(
        self,
        files: StaticFiles,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        quic: QuicConfiguration | None,
    ) -> None:
        self.files = files
        self.host = host
        self.port = port
        self.tls = tls
        self.quic = quic

    async def serve(self) -> None:
        """Serve until a signal comes, then stop gracefully."""
        http3 = None
        if self.quic is None:
            http2 = await self.start_http2(self.port)
        else:
            http2, http3 = await self.start_both(self.quic)

        stopping = False

        def stop() -> None:
            nonlocal stopping
            # The first time gracefully, the second time at once.
            http2.stop()
            if http3 is not None:
                if stopping:
                    http3.abort()
                else:
                    http3.close()
            stopping = True

        port = http2.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        # Before the line that tells others that they may send them.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        scheme = "http" if self.tls is None else "https"
        click.echo(f"Serving on {_url(scheme, self.host, port)} (Ctrl-C ends it)")
        await http2.serve()
        if http3 is not None:
            await http3.wait_closed()

    async def start_http2(self, port: int, *headers: tuple[str, str]) -> HTTP2Server:
        """Start the server of HTTP/2, which adds ``headers`` to its responses."""
        handler = type(
            "Handler",
            (FileRequestHandler,),
            {"files": self.files, "response_headers": list(headers)},
        )
        server = HTTP2Server((self.host, port), handler, ssl=self.tls)
        await server.start()
        return server

    async def start_both(
        self, configuration: QuicConfiguration
    ) -> tuple[HTTP2Server, HTTP3Server]:
        """Start both on one port, which TCP and UDP may not both have free."""
        from nghttp2py.cli.http3_server import HTTP3Server

        attempts = 1 if self.port else _ATTEMPTS
        while True:
            attempts -= 1
            http3 = HTTP3Server(self.files, configuration)
            http2 = None
            try:
                port = await http3.listen(self.host, self.port)
                http2 = await self.start_http2(
                    port, ("alt-svc", f'h3=":{port}"; ma={_ALT_SVC_AGE}')
                )
                # A name may stand for several addresses; the first has been taken.
                for address in [s.getsockname() for s in http2.sockets]:
                    if address[:2] not in http3.addresses:
                        await http3.listen(*address[:2])
                return http2, http3
            except OSError:
                await http3.wait_closed()
                if http2 is not None:
                    http2.close()
                    await http2.wait_closed()
                if not attempts:
                    raise
