"""Files over HTTP/1.1 in the clear, which the kernel copies to the socket."""

import asyncio
import errno
import gzip
import io
import os

import pytest
from loops import in_loops
from peers import client_tls, server_tls
from test_h1_server import connected, get, serving

from nghttp2py import BaseRequestHandler
from nghttp2py.asgi import ASGIApp
from nghttp2py.static_files import FileRequestHandler, StaticFiles

SIZE = 3_000_001


@pytest.fixture
def site(tmp_path):
    (tmp_path / "large.bin").write_bytes(os.urandom(SIZE))
    (tmp_path / "small.bin").write_bytes(b"small")
    return tmp_path


@pytest.fixture
def sent(monkeypatch):
    """How many octets each call of sendfile() has sent, or its error."""
    calls = []
    kernel = os.sendfile

    def sendfile(*arguments):
        try:
            n = kernel(*arguments)
        except OSError as error:
            calls.append(error)
            raise
        calls.append(n)
        return n

    monkeypatch.setattr(os, "sendfile", sendfile)
    return calls


def total(calls):
    return sum(n for n in calls if isinstance(n, int))


def static_files(site):
    class Files(FileRequestHandler):
        files = StaticFiles(site)

    return Files


def opened_files(site, *, buffering=-1, size=None, after=0):
    """A handler whose body is a file; it tells another length if ``size`` does."""

    class Handler(BaseRequestHandler):
        def on_headers(self):
            path = site / self.path.decode()[1:]
            length = path.stat().st_size - after if size is None else size
            self.file = path.open("rb", buffering)
            self.file.seek(after)
            self.send_response(200, [("content-length", str(length))], self.file)

        def on_close(self, error_code):
            self.file.close()

    return Handler


def paths_of_asgi(site):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        path = site / scope["path"][1:]
        fields = [(b"content-length", b"%d" % path.stat().st_size)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.pathsend", "path": str(path)})

    return ASGIApp(app)


APPS = {
    "static": static_files,
    "file": opened_files,
    "raw": lambda site: opened_files(site, buffering=0),
    "asgi": paths_of_asgi,
}
each_app = pytest.mark.parametrize("make", APPS.values(), ids=APPS)


@each_app
@in_loops
async def test_the_kernel_sends_a_large_file_and_the_connection_goes_on(
    make, site, sent
):
    large = (site / "large.bin").read_bytes()
    async with serving(make(site)) as server, connected(server) as wire:
        await wire.send(get(b"/large.bin") + get(b"/small.bin") + get(b"/large.bin"))
        for expected in large, b"small", large:
            status, _, body = await wire.response()
            assert status == 200
            assert body == expected
    assert total(sent) > SIZE


@in_loops
async def test_a_client_that_reads_late_gets_a_file_in_order(site, sent):
    (site / "huge.bin").write_bytes(os.urandom(1 << 20) * 24)
    async with (
        serving(static_files(site)) as server,
        connected(server, limit=4096) as wire,
    ):
        await wire.send(get(b"/huge.bin"))
        while not any(isinstance(n, OSError) for n in sent):
            await asyncio.sleep(0)
        status, _, body = await wire.response()
    assert status == 200
    assert body == (site / "huge.bin").read_bytes()
    assert isinstance(next(n for n in sent if isinstance(n, OSError)), BlockingIOError)


@in_loops
async def test_a_part_of_a_file_is_sent_by_the_kernel(site, sent):
    async with serving(static_files(site)) as server, connected(server) as wire:
        await wire.send(get(b"/large.bin", b"range: bytes=1000-2000000"))
        status, _, body = await wire.response()
    assert status == 206
    assert body == (site / "large.bin").read_bytes()[1000:2000001]
    assert total(sent)


@in_loops
async def test_a_file_is_sent_from_its_position(site, sent):
    handler = opened_files(site, after=1_000_000)
    async with serving(handler) as server, connected(server) as wire:
        assert (await wire.ask(b"/large.bin"))[1] == (site / "large.bin").read_bytes()[
            1_000_000:
        ]
    assert total(sent)


@in_loops
async def test_a_head_alone_reads_no_file(site, sent):
    async with serving(static_files(site)) as server, connected(server) as wire:
        await wire.send(get(b"/large.bin", method=b"HEAD") + get(b"/small.bin"))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d" % SIZE in head
        assert (await wire.response())[2] == b"small"
    assert not sent


@in_loops
async def test_tls_gets_no_octets_from_the_kernel(site, sent):
    options = {"ssl": server_tls(alpn=("http/1.1",))}
    async with serving(static_files(site), **options) as server:
        context = client_tls()
        context.set_alpn_protocols(["http/1.1"])
        async with connected(server, ssl=context, server_hostname="localhost") as wire:
            assert (await wire.ask(b"/large.bin"))[1] == (
                site / "large.bin"
            ).read_bytes()
    assert not sent


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
@in_loops
async def test_a_file_that_the_kernel_cannot_send_is_read(number, site, monkeypatch):
    def sendfile(*arguments):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "sendfile", sendfile)
    async with serving(static_files(site)) as server, connected(server) as wire:
        assert (await wire.ask(b"/large.bin"))[1] == (site / "large.bin").read_bytes()


@pytest.mark.parametrize("make", [static_files, opened_files])
@in_loops
async def test_a_file_that_becomes_shorter_breaks_the_response_off(
    make, site, monkeypatch, caplog
):
    kernel = os.sendfile
    path = site / "large.bin"

    def sendfile(out, file, start, n):
        if start:
            os.truncate(path, start)
        return kernel(out, file, start, n)

    monkeypatch.setattr(os, "sendfile", sendfile)
    async with serving(make(site)) as server, connected(server) as wire:
        await wire.send(get(b"/large.bin"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.response()
    assert "the body of stream 1 failed" in caplog.text


@in_loops
async def test_a_file_that_is_longer_than_its_length_breaks_the_connection_off(
    site, sent, caplog
):
    handler = opened_files(site, size=1_000_000)
    async with serving(handler) as server, connected(server) as wire:
        await wire.send(get(b"/large.bin"))
        await wire.reader.readuntil(b"\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.reader.readexactly(1_000_001)
    assert total(sent)
    assert "the body of stream 1 failed" in caplog.text


@pytest.mark.parametrize("answer", [-2, -1, 1 << 40, 1 << 70, None, "1"])
@in_loops
async def test_a_body_that_tells_a_number_it_cannot_have_sent_breaks_off(
    answer, caplog
):
    class Body:
        def read(self, n):
            return bytes(n)

        def send_to(self, fd, n):
            return answer

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.send_response(200, [("content-length", str(SIZE))], Body())

    async with serving(Handler) as server, connected(server) as wire:
        await wire.send(get())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.response()
    assert f"send_to was asked for 262144 octets and returned {answer!r}" in caplog.text


@each_app
@in_loops
async def test_a_client_that_goes_in_the_middle_disturbs_nobody(make, site, sent):
    async with serving(make(site)) as server:
        async with connected(server, limit=4096) as wire:
            await wire.send(get(b"/large.bin"))
            await wire.reader.readuntil(b"\r\n\r\n")
            wire.writer.transport.abort()
        async with connected(server) as wire:
            assert len((await wire.ask(b"/large.bin"))[1]) == SIZE


@in_loops
async def test_a_client_that_has_closed_its_half_gets_its_file(site):
    async with serving(static_files(site)) as server, connected(server) as wire:
        await wire.send(get(b"/large.bin"))
        wire.writer.write_eof()
        assert (await wire.response())[2] == (site / "large.bin").read_bytes()


@in_loops
async def test_a_reader_of_gzip_sends_what_it_decodes(site, sent):
    """Its descriptor is that of the compressed file."""
    content = bytes(SIZE)
    (site / "large.gz").write_bytes(gzip.compress(content))

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.file = io.BufferedReader(gzip.GzipFile(site / "large.gz"))
            self.send_response(200, [("content-length", str(SIZE))], self.file)

        def on_close(self, error_code):
            self.file.close()

    async with serving(Handler) as server, connected(server) as wire:
        assert (await wire.ask())[1] == content
    assert not sent


@in_loops
async def test_a_pipe_is_read(sent):
    class Handler(BaseRequestHandler):
        def on_headers(self):
            reader, writer = os.pipe()
            os.write(writer, bytes(1000))
            os.close(writer)
            self.file = io.FileIO(reader)
            self.send_response(200, [("content-length", "1000")], self.file)

        def on_close(self, error_code):
            self.file.close()

    async with serving(Handler) as server, connected(server) as wire:
        assert (await wire.ask())[1] == bytes(1000)
    assert not sent


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH])
@in_loops
async def test_an_error_of_the_connection_is_left_to_the_transport(
    number, site, monkeypatch, caplog
):
    def sendfile(*arguments):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "sendfile", sendfile)
    async with serving(static_files(site)) as server, connected(server) as wire:
        assert (await wire.ask(b"/large.bin"))[1] == (site / "large.bin").read_bytes()
    assert "failed" not in caplog.text


@in_loops
async def test_a_reader_that_changes_what_it_wraps_is_read(site, sent):
    class Upper:
        def __init__(self, file):
            self.file = file

        def read(self, n):
            return self.file.read(n).upper()

        def __getattr__(self, name):
            return getattr(self.file, name)

    class Handler(static_files(site)):
        def send_file(self, response):
            response = response._replace(body=Upper(response.body))
            self._file = response.body
            super().send_file(response)

    async with serving(Handler) as server, connected(server) as wire:
        assert (await wire.ask(b"/large.bin"))[1] == (
            site / "large.bin"
        ).read_bytes().upper()
    assert not sent
