"""The options of ``nghttp2py get``, with curl's names and meanings."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nghttp2py.cli.get.dialing import Routes
from nghttp2py.cli.get.job import Job
from nghttp2py.cli.get.origins import TLS, Versions
from nghttp2py.cli.get.output import REMOTE_NAME
from nghttp2py.cli.get.parsing import (
    join_data,
    make_form,
    parse_connect_to,
    parse_file,
    parse_headers,
    parse_method,
    parse_offset,
    parse_output,
    parse_proxy_url,
    parse_resolve,
    parse_timeout,
    parse_value,
    parse_values,
    read_text,
    read_upload,
)
from nghttp2py.cli.get.run import run_job

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_SECONDS: dict[str, Any] = {
    "type": click.FloatRange(min=0, min_open=True),
    "metavar": "SECONDS",
    "callback": parse_timeout,
}
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_NO_LINES = logging.NullHandler()


class _Kind(click.types.StringParamType):
    """Keeps with a text by which option it was given."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return (self._kind, value)


def _flag(*names: str, help: str) -> Callable[[F], F]:
    return click.option(*names, is_flag=True, help=help)


def _data(*names: str, kind: str, help: str) -> Callable[[F], F]:
    return click.option(
        *names, kind, multiple=True, type=_Kind(kind), metavar="DATA", help=help
    )


def _all(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Apply several decorators, the first outermost."""

    def apply(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


_REQUEST = _all(
    click.option(
        "-X",
        "--request",
        "--method",
        "method",
        callback=parse_method,
        metavar="METHOD",
        help="Method.  [default: GET, with data POST, with -T PUT, with -I HEAD]",
    ),
    click.option(
        "-H",
        "--header",
        "headers",
        multiple=True,
        callback=parse_headers,
        metavar="FIELD",
        help="Field, as 'name: value'; 'name:' removes one of ours, 'name;' is empty, "
        "@FILE reads them.",
    ),
    _data(
        "-d",
        "--data",
        "--data-ascii",
        kind="data",
        help="Send this form data; "
        "@FILE reads it without line ends.  Several are joined by &.",
    ),
    _data("--data-binary", kind="binary", help="The same, but files as they are."),
    _data("--data-raw", kind="raw", help="The same, but @ has no meaning."),
    _data(
        "--data-urlencode",
        kind="urlencode",
        help="The same, percent-encoded: [name]=text, or [name]@FILE.",
    ),
    _data("--json", kind="json", help="Send this as application/json."),
    click.option(
        "-F",
        "--form",
        "form",
        multiple=True,
        metavar="NAME=VALUE",
        help="Part of multipart/form-data; NAME=@FILE uploads a file.",
    ),
    click.option(
        "-T",
        "--upload-file",
        "upload",
        metavar="FILE",
        help="Send this file by PUT; - is standard input.",
    ),
    _flag("-G", "--get", "as_query", help="Add the data to the query."),
    _flag("-I", "--head", help="Send HEAD, and print the header section."),
    click.option("-u", "--user", metavar="USER:PASSWORD", help="Authenticate (Basic)."),
    click.option(
        "--oauth2-bearer",
        "bearer",
        callback=parse_value,
        metavar="TOKEN",
        help="Authenticate by a token (Bearer).",
    ),
    click.option(
        "-A",
        "--user-agent",
        callback=parse_value,
        metavar="TEXT",
        help="The user-agent field.",
    ),
    click.option(
        "-e",
        "--referer",
        callback=parse_value,
        metavar="URL",
        help="The referer field; with ;auto that of redirects follows.",
    ),
    click.option(
        "-b",
        "--cookie",
        "cookies",
        multiple=True,
        callback=parse_values,
        metavar="DATA|FILE",
        help="Cookies, as 'name=value; ...', or a file of them.",
    ),
    click.option(
        "-c",
        "--cookie-jar",
        type=_FILE,
        callback=parse_file,
        metavar="FILE",
        help="Write all cookies to this file at the end.",
    ),
    _flag(
        "-j",
        "--junk-session-cookies",
        "no_session",
        help="Read no cookies of a session from files.",
    ),
    click.option(
        "-r",
        "--range",
        "byte_range",
        callback=parse_value,
        metavar="RANGE",
        help="Ask for these bytes, as 0-499.",
    ),
    click.option(
        "-C",
        "--continue-at",
        "resume",
        callback=parse_offset,
        metavar="OFFSET",
        help="Continue a download; - means at the end of the file.",
    ),
    _flag("--compressed", help="Ask for a compressed response, and decode it."),
)

_ROUTE = _all(
    _flag("-L", "--location", "follow", help="Follow redirects."),
    _flag("--location-trusted", help="The same, and send credentials to other hosts."),
    click.option(
        "--max-redirs",
        "max_redirects",
        type=click.IntRange(-1),
        default=50,
        show_default=True,
        metavar="N",
        help="Follow so many; -1: any number.",
    ),
    _flag("--http3", help="Try HTTP/3 first, and HTTP/2 or HTTP/1.1 soon after it."),
    _flag("--http3-only", help="Use only HTTP/3."),
    _flag("--http2", help="Prefer HTTP/2, also for http://."),
    _flag("--http2-prior-knowledge", "http2_only", help="Use only HTTP/2."),
    _flag("--http1.1", "http11", help="Use only HTTP/1.1."),
    click.option(
        "-x",
        "--proxy",
        callback=parse_proxy_url,
        metavar="URL",
        help="Use this proxy of HTTP.",
    ),
    click.option(
        "-U",
        "--proxy-user",
        metavar="USER:PASSWORD",
        help="Authenticate to the proxy (Basic).",
    ),
    click.option(
        "--noproxy",
        "no_proxy",
        metavar="HOSTS",
        help="Use no proxy for these hosts, separated by commas.",
    ),
    _flag("-p", "--proxytunnel", "tunnel", help="Use CONNECT for http://, too."),
    click.option(
        "--resolve",
        multiple=True,
        callback=parse_resolve,
        metavar="HOST:PORT:ADDRESS",
        help="Use this address for a host.",
    ),
    click.option(
        "--connect-to",
        multiple=True,
        callback=parse_connect_to,
        metavar="HOST1:PORT1:HOST2:PORT2",
        help="Connect to HOST2:PORT2 instead of HOST1:PORT1.",
    ),
    click.option("--unix-socket", "unix", metavar="PATH", help="Connect to this."),
    _flag("-4", "--ipv4", help="Use only IPv4."),
    _flag("-6", "--ipv6", help="Use only IPv6."),
    _flag("-k", "--insecure", help="Trust any certificate."),
    click.option(
        "--cacert", type=_FILE, help="Trust the certificates of this PEM file."
    ),
    click.option(
        "-E", "--cert", type=_FILE, help="PEM file with the client's certificate."
    ),
    click.option("--key", type=_FILE, help="PEM file with its key."),
)

_OUTPUT = _all(
    click.option(
        "-o",
        "--output",
        "outputs",
        multiple=True,
        callback=parse_output,
        metavar="FILE",
        help="Write the body to this file; - is standard output, even a terminal.  "
        "The first is for the first URL, and so on.",
    ),
    click.option(
        "-O",
        "--remote-name",
        "outputs",
        multiple=True,
        is_flag=True,
        flag_value=REMOTE_NAME,
        help="Write it to a file with the last part of the URL as its name.",
    ),
    _flag("--remote-name-all", "remote_names", help="The same for all URLs."),
    _flag(
        "-J",
        "--remote-header-name",
        "named_by_server",
        help="With -O: take the name from content-disposition.",
    ),
    click.option(
        "--output-dir",
        "output_dir",
        metavar="DIR",
        help="Write files to this directory.",
    ),
    _flag("--create-dirs", "make_directories", help="Make missing directories."),
    _flag(
        "--no-clobber",
        "keep_existing",
        help="Do not overwrite files: add a number to the name.",
    ),
    _flag(
        "-i",
        "--include",
        "--show-headers",
        "include",
        help="Print status and fields too.",
    ),
    click.option(
        "-D",
        "--dump-header",
        type=_FILE,
        callback=parse_file,
        metavar="FILE",
        help="Write status and fields to this file.",
    ),
    _flag("-f", "--fail", help="Fail for statuses from 400, without output."),
    _flag("--fail-with-body", help="Fail for statuses from 400, after the output."),
    _flag("-s", "--silent", help="Print no progress and no errors."),
    _flag("-S", "--show-error", help="Print errors though -s is given."),
    click.option(
        "-w",
        "--write-out",
        callback=read_text,
        metavar="FORMAT",
        help="Print this at the end, with variables as %{http_code}.",
    ),
    click.option(
        "--har",
        type=_FILE,
        callback=parse_file,
        metavar="FILE",
        help="Write all requests and responses to this file (HAR 1.2).",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        help="Print what happens, to stderr; -vv prints all frames, too.",
    ),
    _flag("--frames", help="Print all frames, to stderr."),
    _flag("-t", "--timing", help="Print when what came, to stderr."),
    _flag(
        "-N", "--no-buffer", "_no_buffer", help="Of no effect: nothing is kept back."
    ),
    _flag("-g", "--globoff", "_globoff", help="Of no effect: URLs have no patterns."),
)

_REPETITION = _all(
    click.option(
        "-n",
        "--requests",
        "count",
        type=click.IntRange(1, 1_000_000),
        default=1,
        show_default=True,
        help="Send so many at once, on one connection; bodies are only counted.",
    ),
    _flag("-Z", "--parallel", help="Request all URLs at once."),
    click.option(
        "--parallel-max",
        type=click.IntRange(1, 300),
        default=50,
        show_default=True,
        help="With -Z: so many at once.",
    ),
    _flag("--fail-early", help="Stop at the first URL that fails."),
    click.option(
        "--timeout",
        default=60.0,
        show_default=True,
        **_SECONDS,
        help="For the response, and each next piece of its body.",
    ),
    click.option("-m", "--max-time", **_SECONDS, help="For each URL as a whole."),
    click.option("--connect-timeout", **_SECONDS, help="To connect."),
    click.option(
        "--retry",
        "retries",
        type=click.IntRange(0, 1000),
        default=0,
        help="Send again so often after a timeout, 408, 429, 500 and 502 to 504.",
    ),
    click.option(
        "--retry-delay",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Wait so long.  [default: 1, 2, 4, ...]",
    ),
    click.option(
        "--retry-max-time",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Retry no longer than that.",
    ),
    _flag(
        "--retry-connrefused", "retry_refused", help="Retry refused connections, too."
    ),
    _flag("--retry-all-errors", "retry_all", help="Retry after any error."),
)


@click.command("get")
@click.argument("urls", metavar="URL...", nargs=-1)
@click.option("--url", "more_urls", multiple=True, help="A URL.")
@_REQUEST
@_ROUTE
@_OUTPUT
@_REPETITION
def command(**given: Any) -> None:
    """Send requests over HTTP/1.1, HTTP/2 or HTTP/3 and print the responses' bodies.

    A URL without http:// or https:// means http://.  Options have the names and the
    meanings that they have in curl, and the exit status is curl's.
    """
    job = _make_job(given)
    # The command reports errors itself, so the library's log lines are not shown.
    logging.getLogger("nghttp2py").addHandler(_NO_LINES)
    sys.exit(asyncio.run(run_job(job)))


def _make_job(given: dict[str, Any]) -> Job:
    """Make the job of the options; raise click's exceptions for what is wrong."""
    urls = [*given.pop("urls"), *given.pop("more_urls")]
    if not urls:
        raise click.UsageError("give a URL")
    del given["_no_buffer"], given["_globoff"]
    versions = _make_versions(given, urls)
    tls = TLS(*(given.pop(name) for name in ("insecure", "cacert", "cert", "key")))
    if tls.key is not None and tls.cert is None:
        raise click.UsageError("--key needs --cert")
    routes = _make_routes(given)
    body = _make_body(given)
    user = given.pop("user")
    directory = given.pop("output_dir")
    if user is not None and ":" not in user:
        password = click.prompt(
            f"Password of {user}",
            hide_input=True,
            err=True,
            default="",
            show_default=False,
        )
        user = f"{user}:{password}"
    trusts = given.pop("location_trusted")
    verbosity = given.pop("verbose")
    count = given["count"]
    return Job(
        urls=urls,
        outputs=list(given.pop("outputs")),
        versions=versions,
        tls=tls,
        routes=routes,
        **body,
        user=user,
        directory=None if directory is None else Path(directory),
        trusts_locations=trusts,
        follow=given.pop("follow") or trusts,
        max_time=given.pop("max_time"),
        verbose=verbosity > 0,
        frames=given.pop("frames") or verbosity > 1,
        timing=given.pop("timing") or count > 1,
        parallel_most=given.pop("parallel_max"),
        **given,
    )


def _make_versions(given: dict[str, Any], urls: list[str]) -> Versions:
    wanted = {
        name: given.pop(name)
        for name in ("http3", "http3_only", "http2", "http2_only", "http11")
    }
    if sum(map(bool, wanted.values())) > 1:
        raise click.UsageError("give one version of HTTP")
    for name, option in (("http3", "--http3"), ("http3_only", "--http3-only")):
        if wanted[name] and not all(_is_secure(url) for url in urls):
            raise click.UsageError(f"{option} needs a URL that begins with https://")
    if wanted["http3_only"]:
        return Versions(http1=False, http2=False, http3="only")
    if wanted["http2_only"]:
        return Versions(http1=False, http2_first=True)
    if wanted["http11"]:
        return Versions(http2=False)
    # Frames, and many requests on a connection, are of HTTP/2.
    first = wanted["http2"] or given["count"] > 1 or given["frames"]
    return Versions(
        http2_first=first or given["verbose"] > 1, http3=bool(wanted["http3"])
    )


def _is_secure(url: str) -> bool:
    return url.lower().startswith("https://")


def _make_routes(given: dict[str, Any]) -> Routes:
    ipv4, ipv6 = given.pop("ipv4"), given.pop("ipv6")
    family = socket.AF_INET if ipv4 else socket.AF_INET6 if ipv6 else 0
    names = (
        *("resolve", "connect_to", "proxy", "proxy_user", "no_proxy", "tunnel"),
        *("unix", "connect_timeout"),
    )
    return Routes(family=int(family), **{name: given.pop(name) for name in names})


def _make_body(given: dict[str, Any]) -> dict[str, Any]:
    """Return what the options about the body mean for the job."""
    kinds = ("data", "binary", "raw", "urlencode", "json")
    pieces = [piece for kind in kinds for piece in given.pop(kind)]
    form, upload, as_query = (given.pop(n) for n in ("form", "upload", "as_query"))
    if sum(map(bool, (pieces, form, upload))) > 1:
        raise click.UsageError("give one kind of body: data, -F or -T")
    if given["head"] and (form or (pieces and not as_query)):
        raise click.UsageError("-I sends no body")
    found: dict[str, Any] = {}
    if as_query:
        data = join_data(pieces)
        if isinstance(data, Path):
            data = data.read_bytes()
        found["query"] = data.decode("utf-8", "surrogateescape")
    elif pieces:
        found["body"] = join_data(pieces)
        found["content_type"] = _FORM
        if any(kind == "json" for kind, _ in pieces):
            found["content_type"] = found["accept"] = _JSON
    elif form:
        found["body"], found["content_type"] = make_form(form)
    elif upload:
        found["body"] = read_upload(upload)
        found["is_upload"] = True
    return found
