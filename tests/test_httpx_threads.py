"""The transport of ``httpx.Client``: threads, processes, and its end."""

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from httpx_clients import in_thread, serve
from loops import in_loop, until

from nghttp2py.httpx import Transport


class Application:
    def __init__(self):
        self.connections = set()
        self.waiting = 0
        self.errors = []

    async def __call__(self, stream):
        self.connections.add(stream.connection)
        try:
            await self.answer(stream)
        finally:
            if stream.error is not None:
                self.errors.append(stream.error)

    async def answer(self, stream):
        target = stream.request.target
        if target == b"/silence":
            self.waiting += 1
            await asyncio.Event().wait()
        if target == b"/some":
            await stream.start_response({":status": "200"})
            await stream.send_data(b"some")
            await asyncio.Event().wait()
        if target == b"/echo":
            await stream.start_response({":status": "200"})
            async for piece in stream:
                await stream.send_data(piece)
            await stream.end_stream()
            return
        await stream.send_response(200, body=await stream.read() or target)


def threads():
    return [t for t in threading.enumerate() if t.name == "nghttp2py.httpx"]


@in_loop
async def test_threads_share_the_connection_of_a_client(paths, tls):
    app = Application()
    async with serve(app, paths) as origin:

        def ask():
            with (
                httpx.Client(transport=Transport(verify=tls.authority)) as client,
                ThreadPoolExecutor(8) as pool,
            ):
                client.get(origin)
                urls = [f"{origin}/{n}" for n in range(40)]
                return [r.text for r in pool.map(client.get, urls)]

        assert await in_thread(ask) == [f"/{n}" for n in range(40)]
        assert len(app.connections) == 1
    assert not threads()


@in_loop
async def test_a_body_is_made_in_the_thread_that_waits(paths, tls):
    """It may use the same client."""
    async with serve(Application(), paths) as origin:

        def ask():
            used = []
            traced = []

            def body(client):
                used.append(threading.get_ident())
                yield client.get(f"{origin}/inner").content
                yield b" outer"

            def trace(name, info):
                traced.append(threading.get_ident())

            with httpx.Client(transport=Transport(verify=tls.authority)) as client:
                for path in ("/", "/echo"):
                    response = client.post(
                        origin + path,
                        content=body(client),
                        extensions={"trace": trace},
                    )
                    assert response.content == b"/inner outer"
            assert {*used, *traced} == {threading.get_ident()}

        await in_thread(ask)


@in_loop
async def test_a_trace_function_that_raises_stop_iteration_hangs_nothing(paths, tls):
    """A future cannot have that exception."""
    async with serve(Application(), paths) as origin:

        def trace(name, info):
            next(iter(()))

        def ask():
            with httpx.Client(transport=Transport(verify=tls.authority)) as client:
                with pytest.raises(RuntimeError, match="StopIteration") as caught:
                    client.get(origin, extensions={"trace": trace})
                assert isinstance(caught.value.__cause__, StopIteration)
                assert client.get(origin).status_code == 200

        await in_thread(ask)


@in_loop
async def test_an_upload_continues_while_its_response_is_read(paths, tls):
    async with serve(Application(), paths) as origin:

        def ask():
            received = []

            def body():
                for n in range(5):
                    yield b"%d" % n

            with (
                httpx.Client(transport=Transport(verify=tls.authority)) as client,
                client.stream("POST", f"{origin}/echo", content=body()) as response,
            ):
                received += response.iter_bytes()
            return b"".join(received)

        assert await in_thread(ask) == b"01234"


@in_loop
async def test_close_ends_what_is_waited_for_and_the_thread(paths, tls):
    app = Application()
    async with serve(app, paths) as origin:
        transport = Transport(verify=tls.authority)
        client = httpx.Client(transport=transport)
        waiting = asyncio.ensure_future(
            in_thread(lambda: client.get(f"{origin}/silence"))
        )
        await until(lambda: app.waiting)
        await in_thread(transport.close)
        with pytest.raises(httpx.ReadError):
            await waiting
        assert not threads()
        # It can be used again, as httpx's own.
        assert (await in_thread(lambda: client.get(origin))).status_code == 200
        await in_thread(client.close)


def ask_and_drop(origin, authority):
    transport = Transport(verify=authority)
    httpx.Client(transport=transport).get(origin)
    return weakref.ref(transport)


@in_loop
async def test_a_transport_that_is_dropped_ends_its_thread(paths, tls):
    async with serve(Application(), paths) as origin:
        dropped = await in_thread(lambda: ask_and_drop(origin, tls.authority))
        gc.collect()
        assert dropped() is None
        await until(lambda: not threads())


@in_loop
async def test_a_response_that_is_dropped_resets_its_stream(paths, tls):
    app = Application()
    async with serve(app, paths) as origin:
        with httpx.Client(transport=Transport(verify=tls.authority)) as client:

            def ask():
                request = client.build_request("GET", f"{origin}/some")
                client.send(request, stream=True)

            await in_thread(ask)
            gc.collect()
            await until(lambda: app.errors)
            response = await in_thread(lambda: client.get(f"{origin}/path"))
            assert response.text == "/path"


PROGRAM = """
    import os, sys
    import httpx
    from nghttp2py.httpx import Transport

    def say(text):
        sys.stdout.write(text + "\\n")
        sys.stdout.flush()

    origin, authority, http3 = sys.argv[1:]
    client = httpx.Client(transport=Transport(authority, http3=http3 or False))
    try:
        say("asking")
        client.get(origin + "/silence", timeout=None)
    except KeyboardInterrupt:
        say("interrupted")
    # By stream() it would be closed at the end of the interpreter, where CPython 3.13.0
    # crashes in httpx's timedelta().
    held = client.send(client.build_request("GET", origin + "/large"), stream=True)
    child = os.fork()
    say(client.get(origin + "/child" if child == 0 else origin + "/parent").text)
    if child == 0:
        sys.exit()
    say(str(os.waitpid(child, 0)[1]))
    say(client.get(origin + "/parent").text)
    # It ends without closing anything.
"""


@pytest.mark.parametrize("http3", ["", "only"], ids=["HTTP/2", "HTTP/3"])
@in_loop
async def test_a_program_is_interrupted_and_forks_and_exits(http3, paths, tls):
    app = Application()
    async with serve(app, paths) as origin:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(PROGRAM),
            *(origin, tls.authority, http3),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            await until(lambda: app.waiting)
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        except BaseException:
            process.kill()
            raise
        lines = out.decode().split()
        assert lines[:2] == ["asking", "interrupted"]
        assert sorted(lines[2:]) == ["/child", "/parent", "/parent", "0"]
        # Python 3.12 warns of every fork of a process with threads.
        lines = [
            line
            for line in err.decode().splitlines()
            if "fork()" not in line and "child = os.fork()" not in line
        ]
        assert lines == []
        assert process.returncode == 0
        # The interrupted request was cancelled.
        assert app.errors
