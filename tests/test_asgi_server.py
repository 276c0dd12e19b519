"""The server of an ASGI application: where it listens, its start and its end."""

import asyncio
import contextlib
import contextvars
import logging
import os
import re
import signal
import socket
import ssl
import stat
import threading

import pytest
from loops import in_loop, in_loops, pause, until

from nghttp2py.asgi import Config, Server, run, serve, wait_closing
from nghttp2py.asgi import endpoints as endpoints_module
from nghttp2py.asgi import lifespan as lifespan_module
from nghttp2py.asgi import running as running_module
from nghttp2py.asgi import server as server_module
from nghttp2py.asgi.lifespan import Lifespan
from nghttp2py.asyncio import Client
from nghttp2py.asyncio.binding import bind_unix
from nghttp2py.errors import (
    ApplicationError,
    ConfigurationError,
    LifespanError,
    StreamResetError,
)

variable = contextvars.ContextVar("variable", default="unset")


class App:
    """An application that notes what happens, and whose requests a test holds."""

    def __init__(self, startup="complete", hold=False, hold_shutdown=False):
        self.startup = startup
        self.notes = []
        self.hold = hold
        self.hold_shutdown = hold_shutdown
        self.release = asyncio.Event()
        self.background = False

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
        else:
            try:
                await self.answer(scope, send)
            except asyncio.CancelledError:
                self.notes.append("cancelled")
                raise

    async def live(self, scope, receive, send):
        await receive()
        self.notes.append("startup")
        if self.startup == "nothing":
            await asyncio.Event().wait()
        scope["state"]["pool"] = "open"
        variable.set("set at startup")
        await send({"type": f"lifespan.startup.{self.startup}"})
        await receive()
        self.notes.append("shutdown")
        if self.hold_shutdown:
            await asyncio.Event().wait()
        await send({"type": "lifespan.shutdown.complete"})

    async def answer(self, scope, send):
        self.notes.append("request")
        body = f"{scope['http_version']} {scope['scheme']} {variable.get()}".encode()
        assert scope["state"] == {"pool": "open"}
        if self.hold and not self.background:
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        if self.background:
            await self.release.wait()
        self.notes.append("response")


@contextlib.asynccontextmanager
async def running(app, server=None, **options):
    """Run a server in a task until the end of the block; give both."""
    if server is None:
        if not {"bind", "fd"} & set(options):
            options["port"] = 0
        server = Server(Config(app, log_config=None, **options))
    task = asyncio.ensure_future(server.serve())
    try:
        await until(lambda: server.started or task.done())
        yield server, task
    except BaseException:
        server.force_exit = True
        raise
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert not server.started


def port_of(server, index=0):
    return server.servers[index].sockets[0].getsockname()[1]


async def get(url, target="/", headers=(), **options):
    async with Client(url, **options) as client:
        response = await client.get(target, headers=headers)
        return await response.read()


# ---- Where it listens ----


@in_loops
async def test_requests_are_served_between_startup_and_shutdown():
    app = App()
    async with running(app) as (server, _):
        body = await get(f"http://127.0.0.1:{port_of(server)}")
        assert body == b"2 http set at startup"
        assert app.notes == ["startup", "request", "response"]
    assert app.notes[3:] == ["shutdown"]
    assert server.exit_code == 0


@in_loop
async def test_it_listens_at_several_addresses(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "socket"
    binds = ["127.0.0.1:0", "localhost:0", f"unix:{path}"]
    async with running(App(), bind=binds) as (server, _):
        (http_server,) = server.servers
        for sock in http_server.sockets:
            if sock.family == socket.AF_INET:
                port = sock.getsockname()[1]
                assert await get(f"http://127.0.0.1:{port}")
                assert f"http://127.0.0.1:{port} by HTTP/1.1, HTTP/2 (" in caplog.text
        async with Client("http://localhost", path=str(path)) as client:
            assert (await client.get("/")).status == 200
        assert f"listening on unix:{path} (http)" in caplog.text
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert not path.exists()


@in_loop
async def test_tls_has_http3_on_its_port_and_plain_http_has_another(tls, paths):
    app = App()
    async with running(
        app,
        ssl_certfile=paths[0],
        ssl_keyfile=paths[1],
        insecure_bind=["127.0.0.1:0"],
    ) as (server, _):
        port = port_of(server)
        url = f"https://127.0.0.1:{port}"
        async with Client(url, ssl=tls.client) as client:
            response = await client.get("/")
            assert await response.read() == b"2 https set at startup"
            assert dict(response.headers)["alt-svc"] == f'h3=":{port}"'
        body = await get(url, ssl=tls.client, http3="only")
        assert body == b"3 https set at startup"
        plain = f"http://127.0.0.1:{port_of(server, 1)}"
        assert await get(plain) == b"2 http set at startup"


async def get_by_http1(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("http3", [False, "only"])
@in_loop
async def test_clients_must_have_a_certificate_if_it_is_required(tls, paths, http3):
    options = {
        "ssl_certfile": paths[0],
        "ssl_keyfile": paths[1],
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": tls.authority,
    }
    async with running(App(), **options) as (server, _):
        url = f"https://127.0.0.1:{port_of(server)}"
        if not http3:
            assert await get(url, ssl=tls.client)
        without = ssl.create_default_context(cafile=tls.authority)
        with pytest.raises(OSError):
            await get(url, ssl=without, http3=http3)


@pytest.mark.parametrize("http1", [True, False])
@in_loop
async def test_http1_is_served_on_the_same_port_unless_it_is_switched_off(
    http1, caplog
):
    caplog.set_level(logging.INFO)
    async with running(App(), http1=http1) as (server, _):
        response = await get_by_http1(port_of(server))
        assert (b"HTTP/1.1 200" in response) is http1
        assert await get(f"http://127.0.0.1:{port_of(server)}")
    assert ("by HTTP/1.1, HTTP/2 (" in caplog.text) is http1


@in_loop
async def test_http3_can_be_switched_off(tls, paths):
    options = {"ssl_certfile": paths[0], "ssl_keyfile": paths[1], "http3": False}
    async with running(App(), **options) as (server, _):
        sockets = server.servers[0].sockets
        assert [each.type for each in sockets] == [socket.SOCK_STREAM]
        async with Client(
            f"https://127.0.0.1:{port_of(server)}", ssl=tls.client
        ) as client:
            assert "alt-svc" not in dict((await client.get("/")).headers)


@in_loop
async def test_it_listens_on_a_descriptor_which_stays_open():
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        async with running(App(), fd=given.fileno()):
            assert await get(f"http://127.0.0.1:{given.getsockname()[1]}")
        assert given.getsockname()


@in_loop
async def test_it_listens_on_sockets_of_the_program():
    given = socket.socket()
    given.bind(("127.0.0.1", 0))
    port = given.getsockname()[1]
    server = Server(Config(App(), log_config=None))
    task = asyncio.ensure_future(server.serve(sockets=[given]))
    await until(lambda: server.started)
    assert await get(f"http://127.0.0.1:{port}")
    server.should_exit = True
    await task
    assert given.fileno() == -1


@in_loop
async def test_an_address_in_use_is_found_before_the_application_starts():
    app = App()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(Config(app, port=port, log_config=None))
        with pytest.raises(OSError, match="cannot bind to"):
            await server.serve()
    assert app.notes == []
    assert not server.started


@in_loop
async def test_a_certificate_that_cannot_be_used_is_named(tmp_path):
    certfile = tmp_path / "cert.pem"
    certfile.write_text("nothing")
    server = Server(Config(App(), port=0, ssl_certfile=certfile, log_config=None))
    with pytest.raises(ConfigurationError, match="there is no certificate in"):
        await server.serve()


@in_loop
async def test_a_server_ends_with_its_terminal(monkeypatch):
    """SIGHUP also comes when a terminal is closed: then there is none any more."""
    terminal = True
    monkeypatch.setattr("nghttp2py.asgi.server.has_terminal", lambda: terminal)
    for handler, ends in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
        monkeypatch.setattr("signal.signal", lambda *_, before=handler: before)
        server = Server(Config(App(), ssl_certfile="cert.pem"))
        terminal = True
        with server.catch_signals():
            server.handle_hangup(signal.SIGHUP, None)
            assert not server.should_exit
            terminal = False
            server.handle_hangup(signal.SIGHUP, None)
            assert server.should_exit is ends


@in_loop
async def test_a_descriptor_that_is_no_socket_is_named(tmp_path):
    with (tmp_path / "file").open("w") as file:
        server = Server(Config(App(), fd=file.fileno(), log_config=None))
        with pytest.raises(OSError, match=f"on descriptor {file.fileno()}"):
            await server.serve()


@in_loop
async def test_fields_are_added_to_responses():
    options = {"headers": [("x-added", "1")], "server_header": False}
    async with running(App(), date_header=False, **options) as (server, _):
        async with Client(f"http://127.0.0.1:{port_of(server)}") as client:
            headers = dict((await client.get("/")).headers)
        assert headers["x-added"] == "1"
        assert "server" not in headers and "date" not in headers


@in_loop
async def test_trusted_proxies_are_heeded():
    app = App()
    seen = []

    async def noting(scope, receive, send):
        if scope["type"] == "http":
            seen.append((scope["client"], scope["scheme"]))
        await app(scope, receive, send)

    fields = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"}
    for trusted in "127.0.0.1", "10.0.0.0/8":
        async with running(noting, forwarded_allow_ips=trusted) as (server, _):
            await get(f"http://127.0.0.1:{port_of(server)}", headers=fields)
    assert seen[0] == (("192.0.2.1", 0), "https")
    assert seen[1][0][0] == "127.0.0.1" and seen[1][1] == "http"


@in_loop
async def test_metrics_have_a_port_of_their_own(caplog):
    caplog.set_level(logging.INFO)
    async with running(App(), metrics_port=0) as (server, _):
        await get(f"http://127.0.0.1:{port_of(server)}")
        url = re.search(r"metrics are at (\S+)/metrics", caplog.text)[1]
        metrics = await get(url, target="/metrics")
        assert b'nghttp2py_requests_total{method="GET",status="200"' in metrics
    with pytest.raises(OSError):
        await get(url)


# ---- Start ----


@pytest.mark.parametrize("lifespan", ["auto", "on"])
@in_loop
async def test_a_failed_startup_ends_it_with_exit_code_3(lifespan, caplog):
    app = App(startup="failed")
    server = Server(Config(app, port=0, lifespan=lifespan, log_config=None))
    await server.serve()
    assert (server.started, server.exit_code) == (False, 3)
    assert "the application has failed to start" in caplog.text
    assert app.notes == ["startup"]


@in_loop
async def test_a_server_that_is_told_to_exit_while_it_starts_does_not_start():
    app = App(startup="nothing")
    server = Server(Config(app, port=0, log_config=None))
    task = asyncio.ensure_future(server.serve())
    await until(lambda: app.notes)
    server.should_exit = True
    await task
    assert (server.started, server.exit_code) == (False, 0)


@pytest.mark.parametrize("reset", [False, True])
@in_loop
async def test_requests_see_the_context_of_the_lifespan_unless_it_is_reset(reset):
    variable.set("set by the program")
    async with running(App(), reset_contextvars=reset) as (server, _):
        body = await get(f"http://127.0.0.1:{port_of(server)}")
    assert body.endswith(b"unset" if reset else b"set at startup")


@in_loop
async def test_startup_and_shutdown_are_the_halves_of_serve():
    app = App()
    server = Server(Config(app, port=0, log_config=None))
    await server.startup()
    assert server.started
    assert await get(f"http://127.0.0.1:{port_of(server)}")
    with pytest.raises(RuntimeError, match="started before"):
        await server.startup()
    await server.shutdown()
    await server.shutdown()
    assert app.notes == ["startup", "request", "response", "shutdown"]


# ---- End ----


@in_loop
async def test_a_request_ends_before_the_application_is_stopped():
    app = App(hold=True)
    async with running(app) as (server, task):
        port = port_of(server)
        async with Client(f"http://127.0.0.1:{port}") as client:
            asking = asyncio.ensure_future(client.get("/"))
            await until(lambda: "request" in app.notes)
            server.should_exit = True
            await until(lambda: not server.started)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)
            app.release.set()
            assert await (await asking).read() == b"2 http set at startup"
        await task
    assert app.notes == ["startup", "request", "response", "shutdown"]


@pytest.mark.parametrize("http3", [False, "only"])
@in_loop
async def test_many_requests_over_tls_end_before_the_application_is_stopped(
    tls, paths, http3
):
    app = App(hold=True)
    options = {"ssl_certfile": paths[0], "ssl_keyfile": paths[1]}
    async with running(app, **options) as (server, task):
        url = f"https://127.0.0.1:{port_of(server)}"
        async with Client(url, ssl=tls.client, http3=http3) as client:
            asking = [asyncio.ensure_future(client.get("/")) for _ in range(50)]
            await until(lambda: app.notes.count("request") == 50)
            server.should_exit = True
            await until(lambda: not server.started)
            app.release.set()
            for response in asking:
                assert (await (await response).read()).startswith(
                    b"3" if http3 else b"2"
                )
        await task
    assert app.notes.count("response") == 50
    assert app.notes[-1] == "shutdown"


@in_loop
async def test_a_request_over_http1_ends_before_the_application_is_stopped():
    app = App(hold=True)
    async with running(app) as (server, task):
        asking = asyncio.ensure_future(get_by_http1(port_of(server)))
        await until(lambda: "request" in app.notes)
        server.should_exit = True
        await until(lambda: not server.started)
        app.release.set()
        assert (await asking).startswith(b"HTTP/1.1 200")
        await task
    assert app.notes == ["startup", "request", "response", "shutdown"]


@in_loop
async def test_a_background_task_ends_before_the_application_is_stopped():
    app = App(hold=True)
    app.background = True
    async with running(app) as (server, task):
        assert await get(f"http://127.0.0.1:{port_of(server)}")
        server.should_exit = True
        await until(lambda: not server.started)
        assert not task.done()
        app.release.set()
        await task
    assert app.notes == ["startup", "request", "response", "shutdown"]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("lifespan", ["on", "off"])
@in_loop
async def test_an_application_waits_for_the_moment_when_its_server_stops(
    lifespan, reset
):
    """In requests, which may end then, and in the lifespan; not for another server."""
    begun = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await wait_closing()
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
            return
        begun.append(scope["path"])
        await wait_closing()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"closing"})

    options = {"lifespan": lifespan, "reset_contextvars": reset}
    async with (
        running(app, **options) as (other, _),
        running(app, **options) as (server, task),
    ):
        later, asking = [
            asyncio.ensure_future(get(f"http://127.0.0.1:{port_of(each)}"))
            for each in (other, server)
        ]
        await until(lambda: len(begun) == 2)
        server.should_exit = True
        assert await asking == b"closing"
        await task
        assert not later.done()
        other.should_exit = True
        assert await later == b"closing"


@in_loop
async def test_outside_of_a_server_an_application_waits_for_ever():
    waiting = asyncio.ensure_future(wait_closing())
    await pause()
    assert not waiting.done()
    waiting.cancel()


@in_loop
async def test_a_request_that_does_not_end_is_cancelled_at_the_deadline():
    app = App(hold=True)
    async with running(app, timeout_graceful_shutdown=0.1) as (server, task):
        asking = asyncio.ensure_future(get(f"http://127.0.0.1:{port_of(server)}"))
        await until(lambda: "request" in app.notes)
        server.should_exit = True
        with pytest.raises((StreamResetError, OSError)):
            await asking
        await task
    assert app.notes == ["startup", "request", "cancelled", "shutdown"]


@in_loop
async def test_a_forced_exit_does_not_wait_for_requests_but_stops_the_application():
    app = App(hold=True)
    async with running(app) as (server, task):
        asking = asyncio.ensure_future(get(f"http://127.0.0.1:{port_of(server)}"))
        await until(lambda: "request" in app.notes)
        server.should_exit = True
        await until(lambda: not server.started)
        server.force_exit = True
        await task
        with pytest.raises((StreamResetError, OSError)):
            await asking
    assert app.notes == ["startup", "request", "cancelled", "shutdown"]


@in_loop
async def test_a_forced_exit_bounds_the_stop_of_the_application(monkeypatch, caplog):
    monkeypatch.setattr(server_module, "_FORCED", 0.05)
    app = App(hold_shutdown=True)
    async with running(app) as (server, task):
        server.should_exit = True
        await until(lambda: "shutdown" in app.notes)
        server.force_exit = True
        await task
    assert "the application has not stopped: its lifespan is cancelled" in caplog.text


@in_loop
async def test_a_server_that_is_cancelled_ends_gracefully():
    app = App(hold=True)
    async with running(app) as (server, task):
        asking = asyncio.ensure_future(get(f"http://127.0.0.1:{port_of(server)}"))
        await until(lambda: "request" in app.notes)
        task.cancel()
        await until(lambda: not server.started)
        app.release.set()
        assert await asking
        with pytest.raises(asyncio.CancelledError):
            await task
        assert app.notes == ["startup", "request", "response", "shutdown"]


@in_loop
async def test_another_thread_may_stop_it():
    async with running(App()) as (server, task):
        thread = threading.Thread(target=setattr, args=[server, "should_exit", True])
        thread.start()
        await task
        thread.join()


# ---- Signals ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@in_loops
async def test_a_signal_stops_it_and_its_handler_is_restored(number):
    before = signal.getsignal(number)
    app = App()
    async with running(app) as (_, task):
        assert signal.getsignal(number) != before
        os.kill(os.getpid(), number)
        await task
    assert signal.getsignal(number) is before
    assert app.notes == ["startup", "shutdown"]


@in_loop
async def test_only_a_second_sigint_forces_the_end():
    server = Server(Config(App()))
    server.handle_exit(signal.SIGTERM, None)
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    @in_loop
    async def main():
        async with running(App()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert seen == [before]


# ---- serve() and run() ----


@in_loop
async def test_serve_ends_when_its_trigger_does(caplog):
    caplog.set_level(logging.INFO)
    app, stop = App(), asyncio.Event()
    config = Config(port=0, log_config=None)
    before = signal.getsignal(signal.SIGTERM)
    task = asyncio.ensure_future(serve(app, config, shutdown_trigger=stop.wait))
    await until(lambda: "listening on" in caplog.text)
    assert signal.getsignal(signal.SIGTERM) is before
    stop.set()
    await task
    assert app.notes == ["startup", "shutdown"]
    assert config.app is None


@in_loop
async def test_serve_raises_what_its_trigger_raises():
    async def trigger():
        raise LookupError("over")

    config = Config(port=0, log_config=None)
    with pytest.raises(LookupError, match="over"):
        await serve(App(), config, shutdown_trigger=trigger)


@in_loop
async def test_serve_raises_for_a_failed_startup():
    with pytest.raises(LifespanError):
        await serve(App(startup="failed"), Config(port=0, log_config=None))


@in_loop
async def test_serve_raises_for_what_is_no_application():
    with pytest.raises(ApplicationError, match="there is no module"):
        await serve("no_such_module:app", Config(port=0, log_config=None))


@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])
def test_run_ends_with_a_signal(loop, caplog):
    app = App()
    loops = []

    async def stopping(scope, receive, send):
        loops.append(type(asyncio.get_running_loop()).__module__)
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().call_later(
                0.05, os.kill, os.getpid(), signal.SIGTERM
            )
        await app(scope, receive, send)

    run(stopping, port=0, loop=loop, log_config=None)
    assert app.notes == ["startup", "shutdown"]
    assert loops[0].startswith("asyncio" if loop == "asyncio" else "uvloop")


@pytest.mark.parametrize(
    ("app", "code", "sentence"),
    [
        (App(startup="failed"), 3, "the application has failed to start"),
        ("no_such_module:app", 3, "there is no module 'no_such_module'"),
    ],
)
def test_run_exits_with_a_code_for_what_failed(app, code, sentence, caplog):
    with pytest.raises(SystemExit) as caught:
        run(app, port=0, log_config=None)
    assert caught.value.code == code
    assert sentence in caplog.text


def test_a_number_of_processes_that_is_none_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    with pytest.raises(SystemExit):
        run(App(startup="failed"), port=0, log_config=None)
    assert "$WEB_CONCURRENCY is 'auto'" in caplog.text


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_application_may_exit(loop, tmp_path, caplog):
    path = str(tmp_path / "socket")
    tasks = []

    async def ask():
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            while True:
                with contextlib.suppress(OSError):  # it does not listen yet
                    await loop.sock_connect(sock, path)
                    break
                await pause()
            await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await loop.sock_recv(sock, 1)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            raise SystemExit(5)
        await receive()
        tasks.append(asyncio.ensure_future(ask()))
        await send({"type": "lifespan.startup.complete"})
        await receive()

    with pytest.raises(SystemExit) as caught:
        run(app, uds=path, loop=loop, log_config=None)
    assert caught.value.code == 5


def test_run_leaves_an_application_that_ignores_its_cancellation(monkeypatch, caplog):
    monkeypatch.setattr(lifespan_module, "_GRACE", 0.05)
    monkeypatch.setattr(running_module, "_DROPPED", 0.05)
    left = []

    async def stubborn(scope, receive, send):
        left.append(asyncio.current_task())
        await receive()
        await send({"type": "lifespan.startup.complete"})
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    # It returns: asyncio.run() would wait for the task.
    run(stubborn, port=0, log_config=None, timeout_lifespan_shutdown=0.05)
    assert "the application goes on although it was cancelled" in caplog.text
    assert not left[0].done()


def test_run_names_an_option_that_it_does_not_have():
    with pytest.raises(TypeError, match="'certfile': use ssl_certfile"):
        run(App(), certfile="cert.pem")


def test_the_lifespan_has_the_limits_of_the_configuration():
    names = "startup_timeout", "shutdown_timeout"
    defaults = Lifespan.__init__.__kwdefaults__
    for name in names:
        assert getattr(Config(), f"timeout_lifespan_{name[:-8]}") == defaults[name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "workers is 2: a Server is one process"),
        ({"reload": True}, "reload is True: a Server is one process"),
        ({"quic_lb_server_id": "0017"}, "quic_lb_server_id are for run()"),
    ],
)
@in_loop
async def test_options_of_the_supervisor_are_refused_without_one(options, message):
    async def app(scope, receive, send):
        raise AssertionError("it is not started")

    with pytest.raises(ConfigurationError, match=re.escape(message)):
        await Server(Config(app, **options)).startup()


@in_loop
async def test_a_link_in_the_place_of_a_path_does_not_change_its_target(
    tmp_path, monkeypatch
):
    """Another user of the directory could put it there."""
    target = tmp_path / "target"
    target.touch(0o600)
    path = tmp_path / "socket"

    def replaced(name):
        found = bind_unix(name)
        path.unlink()
        path.symlink_to(target)
        return found

    async def app(scope, receive, send):
        raise AssertionError("it is not started")

    monkeypatch.setattr(endpoints_module, "bind_unix", replaced)
    endpoints = endpoints_module.Endpoints()
    await endpoints.bind(Config(app, uds=str(path)))
    endpoints.close()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
