"""``nghttp2py serve``: the files of a directory over HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from pathlib import Path

import click

from nghttp2py.server import HTTP2Server
from nghttp2py.static_files import FileRequestHandler, StaticFiles

__all__ = ["command"]


def _make_tls(cert: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An encrypted key must not make a server wait at a prompt.
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        names = cert if key is None else f"{cert} and {key}"
        raise click.ClickException(
            f"no certificate with its key in {names}: {error}"
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _url(scheme: str, host: str, port: int) -> str:
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{port}/"


@click.command("serve")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address.")
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
@click.option("--listing", is_flag=True, help="Show lists of files in directories.")
@click.option("-q", "--quiet", is_flag=True, help="Log no requests.")
def command(
    directory: Path,
    host: str,
    port: int | None,
    cert: Path | None,
    key: Path | None,
    listing: bool,
    quiet: bool,
) -> None:
    """Serve the files of DIRECTORY over HTTP/2, until Ctrl-C.

    With --cert over HTTPS; without it in the clear, to clients that know that
    HTTP/2 is spoken (curl --http2-prior-knowledge).

    Files whose names begin with a dot, and what symbolic links lead to outside
    of DIRECTORY, are not served.
    """
    if key is not None and cert is None:
        raise click.UsageError("--key needs --cert")
    context = None if cert is None else _make_tls(cert, key)
    scheme = "http" if context is None else "https"
    if port is None:
        port = 8080 if context is None else 8443
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not quiet:
        logging.getLogger("nghttp2py.access").setLevel(logging.INFO)

    files = StaticFiles(directory, listing=listing)
    handler = type("Handler", (FileRequestHandler,), {"files": files})
    server = HTTP2Server((host, port), handler, ssl=context)
    try:
        asyncio.run(_serve(server, scheme, host))
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {error.strerror or error}"
        ) from None


async def _serve(server: HTTP2Server, scheme: str, host: str) -> None:
    await server.start()
    loop = asyncio.get_running_loop()
    # Before the line that tells others that they may send them.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.close)
    port = server.sockets[0].getsockname()[1]
    click.echo(f"Serving on {_url(scheme, host, port)} (Ctrl-C ends it)")
    await server.serve()
