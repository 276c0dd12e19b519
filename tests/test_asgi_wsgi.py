"""WSGI applications: bodies in pieces, the rules of PEP 3333, clients that leave."""

import asyncio
import sys
import threading
from wsgiref.validate import validator

import h11
import pytest
from asgi_servers import everywhere, serving
from loops import in_loop, until

from nghttp2py.asgi.loading import load_application
from nghttp2py.asgi.wsgi import ClientDisconnected, wrap_wsgi
from nghttp2py.errors import ApplicationError, StreamResetError

TEXT = [("Content-Type", "text/plain")]


def answer(function):
    """An application that answers with what ``function`` makes of the environment."""

    def app(environ, start_response):
        body = function(environ)
        start_response("200 OK", TEXT)
        return [body]

    return app


async def ask(app, path=b"/", headers=(), body=None, version="HTTP/2", **options):
    async with serving(version, wrap_wsgi(app), **options) as peer:
        method = b"GET" if body is None else b"POST"
        return await peer.fetch(path, method, headers, body)


@everywhere
async def test_an_application_is_asked_and_answers(version):
    @validator
    def app(environ, start_response):
        body = environ["wsgi.input"].read(-1)
        kind = environ["wsgi.url_scheme"], environ["SERVER_PROTOCOL"]
        start_response("201 Created", [*TEXT, ("X-Kind", " ".join(kind))])
        return iter([b"got ", body, b"", b"."])

    response = await ask(app, body=b"something", version=version)
    assert (response.status, response.body) == (201, b"got something.")
    scheme = b"https" if version == "HTTP/3" else b"http"
    assert response.value(b"x-kind") == scheme + b" HTTP/" + version[5:].encode()


@in_loop
async def test_the_environment_has_path_query_and_fields():
    seen = {}

    def app(environ):
        seen.update(environ)
        return b""

    await ask(
        answer(app),
        b"/in/caf%C3%A9?q=caf\xc3\xa9&b=%20",
        headers=[(b"x-a", b"1"), (b"x-a", b"2"), (b"x_a", b"3"), (b"proxy", b"evil")],
        root_path="/in",
        root_path_mode="set",
    )
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/in", "/caf\xc3\xa9")
    assert seen["QUERY_STRING"] == "q=caf%C3%A9&b=%20"
    assert seen["HTTP_X_A"] == "1,2"
    assert "HTTP_PROXY" not in seen
    assert seen["wsgi.errors"] is sys.stderr
    assert seen["REMOTE_ADDR"] == "127.0.0.1"


@in_loop
async def test_a_body_is_read_in_pieces_and_lines():
    def read(environ):
        body = environ["wsgi.input"]
        parts = [body.read(3), body.readline(), body.readline(2), *body.readlines(4)]
        return repr([*parts, *body, body.read(), body.readlines()]).encode()

    response = await ask(answer(read), body=b"abcd\nefgh\nij\nkl\nm")
    assert eval(response.body) == [
        *(b"abc", b"d\n", b"ef", b"gh\n", b"ij\n", b"kl\n", b"m", b"", [])
    ]


@everywhere
async def test_a_response_is_sent_piece_by_piece(version):
    go = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"first"
        assert go.wait(10)
        yield b"second"

    async with serving(version, wrap_wsgi(app)) as peer:
        stream = await peer.open()
        await stream.response()
        assert await stream.read(5) == b"first"
        go.set()
        assert await stream.read() == b"second"


@in_loop
async def test_write_sends_before_the_body_that_is_returned():
    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        write(b"a")
        write(b"b")
        return [b"c"]

    assert (await ask(app)).body == b"abc"


# ---- start_response ----


@in_loop
async def test_headers_may_be_replaced_until_they_are_sent():
    def app(environ, start_response):
        start_response("200 OK", [*TEXT, ("X-Old", "1")])
        try:
            raise ValueError("on purpose")
        except ValueError:
            start_response("503 Sorry", TEXT, sys.exc_info())
        return [b"sorry"]

    response = await ask(app)
    assert (response.status, response.body) == (503, b"sorry")
    assert response.value(b"x-old") is None


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
@in_loop
async def test_an_empty_body_has_headers(pieces):
    def app(environ, start_response):
        start_response("204 No Content", [])
        return pieces

    assert (await ask(app))[0] == 204


@in_loop
async def test_a_status_needs_no_reason():
    def app(environ, start_response):
        start_response("404", TEXT)
        return [b""]

    assert (await ask(app)).status == 404


def twice(environ, start_response):
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)
    return [b"x"]


def never(environ, start_response):
    return [b"x"]


def no_status(environ, start_response):
    start_response("OK", TEXT)
    return [b"x"]


def fails(environ, start_response):
    raise LookupError("on purpose")


def fails_before_the_first_piece(environ, start_response):
    start_response("200 OK", TEXT)
    raise LookupError("on purpose")
    yield b"x"


@pytest.mark.parametrize(
    "app", [twice, never, no_status, fails, fails_before_the_first_piece]
)
@in_loop
async def test_a_mistake_before_the_headers_is_an_error_500(app, caplog):
    assert (await ask(app)).status == 500
    assert "Traceback" in caplog.text


@everywhere
async def test_a_failure_in_the_body_is_no_good_end(version, caplog):
    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"part"
        try:
            raise LookupError("on purpose")
        except LookupError:
            start_response("500 Late", TEXT, sys.exc_info())

    async with serving(version, wrap_wsgi(app)) as peer:
        stream = await peer.open()
        await stream.response()
        with pytest.raises((StreamResetError, h11.RemoteProtocolError)):
            await stream.read()
        await until(lambda: peer.log)
    assert not peer.log[0].complete
    assert "on purpose" in caplog.text


# ---- Clients that leave ----


@everywhere
async def test_a_client_that_leaves_its_upload_is_no_whole_body(version):
    raised = []
    begun = threading.Event()

    def app(environ, start_response):
        begun.set()
        try:
            environ["wsgi.input"].read(-1)
        except OSError as error:
            raised.append(error)
            raise
        raise AssertionError("a short body was taken as a whole one")

    async with serving(version, wrap_wsgi(app)) as peer:
        stream = await peer.open(method=b"POST", end=False)
        await stream.send_data(b"part")
        await until(begun.is_set)
        stream.reset()
        await until(lambda: raised)
    assert isinstance(raised[0], ClientDisconnected)


@everywhere
async def test_threads_are_free_when_their_clients_have_left(version):
    """More clients leave than there are threads, in the middle of endless responses."""
    closed = []

    def endless(environ, start_response):
        start_response("200 OK", TEXT)
        try:
            if environ["PATH_INFO"] == "/end":
                yield b"end"
                return
            while True:
                yield bytes(65536)
        finally:
            closed.append(environ["PATH_INFO"])

    app = wrap_wsgi(endless, threads=2)
    async with serving(version, app, disconnect_grace=0.05) as peer:
        for _ in range(5):
            stream = await peer.open()
            await stream.response()
            await stream.read(100)
            stream.reset()
        await until(lambda: len(closed) == 5)
        assert (await peer.fetch(b"/end")).body == b"end"


@in_loop
async def test_no_more_requests_run_at_once_than_there_are_threads():
    running, most, go = [0], [0], threading.Event()
    lock = threading.Lock()

    def app(environ, start_response):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert go.wait(10)
        with lock:
            running[0] -= 1
        start_response("200 OK", TEXT)
        return [b"good"]

    async with serving("HTTP/2", wrap_wsgi(app, threads=3)) as peer:
        asked = [asyncio.ensure_future(peer.fetch()) for _ in range(8)]
        await until(lambda: running[0] == 3)
        go.set()
        assert [(await each).body for each in asked] == [b"good"] * 8
    assert most[0] == 3


# ---- The lifespan, WebSocket, and the package ----


@in_loop
async def test_the_lifespan_is_answered():
    messages = asyncio.Queue()
    sent = []
    for kind in ("startup", "shutdown"):
        messages.put_nowait({"type": f"lifespan.{kind}"})

    async def send(message):
        sent.append(message["type"])

    await wrap_wsgi(fails)({"type": "lifespan"}, messages.get, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("threads", [0, -1, 1.5, None, True])
def test_threads_are_a_number(threads):
    with pytest.raises((TypeError, ValueError), match="threads"):
        wrap_wsgi(fails, threads)


def test_an_application_is_callable():
    with pytest.raises(TypeError, match="app"):
        wrap_wsgi("app")


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ApplicationError, match=r"nghttp2py\[asgi\]"):
        wrap_wsgi(fails)


def test_an_application_of_wsgi_is_found_by_its_arguments():
    for options in ({}, {"interface": "wsgi"}):
        assert callable(load_application(fails, **options))
