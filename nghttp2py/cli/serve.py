"""``nghttp2py serve``: the files of a directory over HTTP/1.1, HTTP/2 and HTTP/3."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nghttp2py.asyncio.certificates import LoadedTLS, TLSOptions, load_tls
from nghttp2py.asyncio.event_loop import run
from nghttp2py.asyncio.server import Server, make_server_quic
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.cli.serve_log import AccessFormatter
from nghttp2py.local_certificate import LocalCertificate, local_certificate
from nghttp2py.server import IDLE_TIMEOUT
from nghttp2py.site import MAX_UPLOAD, Site

if TYPE_CHECKING:
    from nghttp2py.quic import QuicConfiguration

__all__ = ["command"]

# Hosts that stand for all interfaces, and for each the families with an address of the
# documentation's networks (RFC 5737, RFC 3849), to which no route need be.
_IPV4 = (socket.AF_INET, "192.0.2.1")
_ANY = {"0.0.0.0": [_IPV4], "::": [_IPV4, (socket.AF_INET6, "2001:db8::1")]}


def _load_tls(cert: Path, key: Path | None) -> LoadedTLS:
    """Read the certificate of the server.  Raises ClickException."""
    try:
        return load_tls(TLSOptions([(cert, key)]))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _make_local(hosts: list[str]) -> LocalCertificate:
    """Return the certificate of this machine.  Raises ClickException."""
    try:
        return local_certificate(hosts)
    except ImportError:
        raise click.ClickException(
            "the cryptography package is needed to make a certificate: install "
            "'nghttp2py[cli]', or use --cert or --no-tls"
        ) from None
    except OSError as error:
        raise click.ClickException(
            f"cannot keep a certificate in {error.filename}: {error.strerror}; "
            "use --cert or --no-tls"
        ) from None


def _make_quic(tls: LoadedTLS, *, required: bool) -> QuicConfiguration | None:
    """Return the configuration of HTTP/3; ``None`` if the build has it not."""
    try:
        from nghttp2py.asyncio.quic_server import check_server_configuration

        configuration = make_server_quic(tls, Timeouts(idle=IDLE_TIMEOUT))
        check_server_configuration(configuration)
    except (ImportError, ValueError) as error:
        if isinstance(error, ImportError) and not required:
            return None
        raise click.ClickException(str(error)) from None
    return configuration


def _url(scheme: str, host: str, port: int) -> str:
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{port}/"


def _reachable(host: str) -> list[str]:
    """Return the hosts of URLs that lead to a server at ``host``."""
    if host not in _ANY:
        return [host]
    found = ["localhost"]
    for family, there in _ANY[host]:
        # No packet is sent: the system tells from which address it would be.
        with (
            contextlib.suppress(OSError),
            socket.socket(family, socket.SOCK_DGRAM) as sock,
        ):
            sock.connect((there, 9))
            found.append(sock.getsockname()[0])
    return list(dict.fromkeys(found))


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_host(_: object, __: object, host: str) -> str:
    # An empty host, as from an unset variable, would mean all interfaces.
    if not host:
        raise click.BadParameter("'' is no host: all interfaces are '::'")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise click.BadParameter(f"{host!r} is no host: {error}") from None
    return host


def _check_auth(_: object, __: object, auth: str | None) -> str | None:
    # RFC 7617, 2: the first colon ends the user's name.
    if auth is not None and ":" not in auth:
        raise click.BadParameter(f"{auth!r} is not USER:PASSWORD")
    return auth


def _shorten(path: Path) -> str:
    """Return a path as a shell reads it, with ~ for the home directory."""
    with contextlib.suppress(ValueError, RuntimeError):
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def chromium_command(url: str, fingerprint: str) -> str:
    """Return the command by which Chromium uses HTTP/3 with a certificate of ours.

    Otherwise it does so with certificates of public authorities only.
    """
    place = url.removeprefix("https://").rstrip("/")
    return (
        "chromium --user-data-dir=$(mktemp -d) "
        f"--ignore-certificate-errors-spki-list={fingerprint} "
        f"--origin-to-force-quic-on={place} {url}"
    )


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)


def _show_code(url: str) -> None:
    """Draw a QR code of a URL, for telephones; a no-op without segno."""
    try:
        import segno
    except ImportError:
        return
    segno.make(url, micro=False).terminal(compact=True)


def _configure_log(quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if not quiet:
        access = logging.getLogger("nghttp2py.access")
        access.setLevel(logging.INFO)
        if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            lines = logging.StreamHandler()
            lines.setFormatter(AccessFormatter())
            access.addHandler(lines)
            access.propagate = False


@click.command("serve")
@click.argument(
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
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
    help="Port; 0 takes any that is free.  [default: 8443, without TLS 8080]",
)
@click.option(
    "--cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file with the certificate chain.  [default: a self-signed one, kept]",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM file with its key, if --cert has it not.",
)
@click.option(
    "--no-tls", is_flag=True, help="Serve HTTP/1.1 and HTTP/2 without encryption."
)
@click.option(
    "--http3/--no-http3",
    default=None,
    help="Serve HTTP/3 on the same port of UDP.  [default: with TLS]",
)
@click.option(
    "--listing/--no-listing",
    default=True,
    show_default=True,
    help="Show lists of files in directories without index.html.",
)
@click.option(
    "--spa",
    is_flag=True,
    help="Answer with /index.html where a browser asks for a page that is not there.",
)
@click.option("--cors", is_flag=True, help="Let pages of all origins read the files.")
@click.option(
    "--cache",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Let clients keep files.  [default: they ask each time]",
)
@click.option(
    "--compress/--no-compress",
    default=True,
    show_default=True,
    help="Send FILE.br, .zst or .gz for FILE, and compress text by gzip.",
)
@click.option(
    "--upload",
    is_flag=True,
    help="Store files that clients PUT, or drop on a list; replace none.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(1),
    default=MAX_UPLOAD >> 20,
    show_default=True,
    metavar="MIB",
    help="The largest file to store.",
)
@click.option(
    "--auth",
    metavar="USER:PASSWORD",
    envvar="NGHTTP2PY_SERVE_AUTH",
    callback=_check_auth,
    help="Ask for a password; $NGHTTP2PY_SERVE_AUTH hides it from other users.",
)
@click.option(
    "--qr/--no-qr",
    default=None,
    help="Show a QR code of the URL.  [default: on a terminal, unless on loopback]",
)
@click.option("-q", "--quiet", is_flag=True, help="Log no requests.")
def command(
    directory: Path,
    host: str,
    port: int | None,
    cert: Path | None,
    key: Path | None,
    no_tls: bool,
    http3: bool | None,
    listing: bool,
    spa: bool,
    cors: bool,
    cache: int | None,
    compress: bool,
    upload: bool,
    max_upload: int,
    auth: str | None,
    qr: bool | None,
    quiet: bool,
) -> None:
    """Serve the files of DIRECTORY, or of this one, until Ctrl-C.

    HTTP/1.1, HTTP/2 and HTTP/3 are served on one port.  Without --cert the certificate
    is a self-signed one, which is made once and kept.

    Files whose names begin with a dot, and targets of symbolic links outside of
    DIRECTORY, are not served.
    """
    if key is not None and cert is None:
        raise click.UsageError("--key needs --cert")
    if no_tls and cert is not None:
        raise click.UsageError("--no-tls and --cert exclude each other")
    if no_tls and http3:
        raise click.UsageError("--http3 needs TLS: HTTP/3 is always encrypted")
    if qr and find_spec("segno") is None:
        raise click.ClickException(
            "--qr needs the segno package: pip install 'nghttp2py[qr]'"
        )
    hosts = _reachable(host)
    local = None
    if cert is None and not no_tls:
        local = _make_local(hosts)
        cert, key = local.certificate, local.key
    tls = None if cert is None else _load_tls(cert, key)
    quic = None
    if tls is not None and http3 is not False:
        quic = _make_quic(tls, required=bool(http3))
    if port is None:
        port = 8080 if tls is None else 8443
    _configure_log(quiet)
    site = Site(
        directory,
        listing=listing,
        spa=spa,
        cors=cors,
        cache=cache,
        compress=compress,
        max_upload=max_upload << 20 if upload else None,
        auth=auth,
    )
    server = Server(site.handler(), (host, port), ssl=tls, http3=quic or False)
    scheme = "http" if tls is None else "https"

    def announce(port: int) -> None:
        first, *others = [_url(scheme, name, port) for name in hosts]
        click.echo(f"Serving on {first} (Ctrl-C ends it)")
        for url in others:
            click.echo(f"       and {url}")
        versions = "HTTP/1.1, HTTP/2 and HTTP/3" if quic else "HTTP/1.1 and HTTP/2"
        if local is None:
            click.echo(f"by {versions}")
        else:
            where = _shorten(local.certificate)
            click.echo(f"by {versions}, with the self-signed certificate {where}")
        if local is not None and quic is not None and not quiet:
            command = chromium_command(first, local.fingerprint)
            click.echo(f"HTTP/3 in Chromium: {command}")
        loopback = _is_loopback(host)
        if auth and tls is None and not loopback:
            _warn("without TLS the password is sent in the clear")
        if spa and not (directory / "index.html").is_file():
            _warn(
                f"there is no index.html in {directory.resolve()}, with which --spa "
                "answers"
            )
        if qr and loopback:
            _warn(
                "--qr shows a telephone an address that only this machine has: "
                "--host 0.0.0.0 serves on all of its addresses"
            )
        if qr or (qr is None and not loopback and sys.stdout.isatty()):
            _show_code((others or [first])[0])

    async def serve() -> None:
        await server.start()
        loop = asyncio.get_running_loop()
        # Set before the line that announces the server: signals may follow it at once.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        announce(server.sockets[0].getsockname()[1])
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
