"""What clients can make a server of files hold: descriptors, memory, time."""

import asyncio
import contextlib
import logging
import os
import resource

import pytest
from handlers import exchange_until, serve
from loops import in_loop

from nghttp2py import listings, static_files
from nghttp2py.h2 import H2Configuration
from nghttp2py.static_files import FileRequestHandler, FileSlice, StaticFiles

LARGE = bytes(range(256)) * 400


def open_descriptors(directory):
    """How many files below a directory are open."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(link.startswith(f"{directory}/") for link in links)


def file_handler(files):
    return type("Handler", (FileRequestHandler,), {"files": files})


def read_all(body):
    data = b""
    while piece := body.read(10_000):
        data += piece
    body.close()
    return data


def fill(root, n):
    for i in range(n):
        (root / f"large{i}").write_bytes(LARGE + b"%d" % i)


@pytest.mark.parametrize("different", [1, 300])
@in_loop
async def test_downloads_that_nobody_takes_hold_few_descriptors(tmp_path, different):
    fill(tmp_path, different)
    files = StaticFiles(tmp_path)
    before = open_descriptors(tmp_path)
    clients = [
        serve(file_handler(files), config=H2Configuration(initial_window_size=0))
        for _ in range(12)
    ]
    streams = []
    for client in clients:
        await client.exchange()
        for i in range(100):
            streams.append((client, client.request(f"/large{i % different}")))
        await client.exchange()
    assert open_descriptors(tmp_path) > before
    limit = 1 if different == 1 else static_files.MAX_OPEN_FILES
    assert open_descriptors(tmp_path) - before <= limit
    statuses = [client.response(stream_id).status for client, stream_id in streams]
    assert statuses == [200] * 1200
    # Another client is served nevertheless, and those when they take the bytes.
    other = serve(file_handler(files))
    assert (await other.fetch("/large0")).body == LARGE + b"0"
    client, stream_id = streams[-1]
    client.connection.update_settings({4: 1 << 20})
    response = client.response(stream_id)
    await exchange_until(client, lambda: response.done)
    assert response.body == LARGE + b"%d" % (99 % different)
    for client in clients:
        client.protocol.connection_lost(None)
    other.protocol.connection_lost(None)
    assert open_descriptors(tmp_path) == before


def test_more_bodies_than_open_files_are_read_in_turns(tmp_path):
    fill(tmp_path, 10)
    files = StaticFiles(tmp_path, max_open_files=2)
    before = open_descriptors(tmp_path)
    bodies = [files.respond(b"GET", b"/large%d" % i, []).body for i in range(10)]
    read = [b""] * 10
    while any(pieces := [body.read(50_000) for body in bodies]):
        read = [a + b for a, b in zip(read, pieces, strict=True)]
        assert open_descriptors(tmp_path) - before <= 2
    assert read == [LARGE + b"%d" % i for i in range(10)]
    for body in bodies:
        body.close()
        body.close()
    assert open_descriptors(tmp_path) == before


def test_a_file_replaced_while_it_is_closed_is_not_sent_for_the_first(tmp_path):
    fill(tmp_path, 2)
    files = StaticFiles(tmp_path, max_open_files=1)
    first = files.respond(b"GET", b"/large0", []).body
    second = files.respond(b"GET", b"/large1", []).body
    first.read(10), second.read(10)
    (tmp_path / "other").write_bytes(bytes(len(LARGE) + 1))
    (tmp_path / "other").rename(tmp_path / "large0")
    with pytest.raises(OSError, match="replaced"):
        first.read(10)
    assert second.read(10) == LARGE[10:20]
    third = files.respond(b"GET", b"/large0", []).body
    assert read_all(third) == bytes(len(LARGE) + 1)
    first.close(), second.close()


def test_a_limit_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="max_open_files"):
        StaticFiles(tmp_path, max_open_files=0)


@pytest.fixture
def no_descriptors():
    """A function after whose call the process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []

    def take():
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                return

    yield take
    for fd in taken:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("target", [b"/large0", b"/small", b"/", b"/below/", b"/none"])
def test_without_descriptors_the_answer_is_503(
    tmp_path, no_descriptors, target, caplog
):
    fill(tmp_path, 1)
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "index.html").write_bytes(b"index")
    files = StaticFiles(tmp_path, listing=True)
    no_descriptors()
    for _ in range(100):
        response = files.respond(b"GET", target, [])
        assert response.status == 503
        assert ("retry-after", "5") in response.headers
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Too many open files" in record.getMessage()


def test_files_of_ours_are_closed_before_the_answer_is_503(tmp_path, no_descriptors):
    fill(tmp_path, 5)
    files = StaticFiles(tmp_path)
    bodies = [files.respond(b"GET", b"/large%d" % i, []).body for i in range(4)]
    no_descriptors()
    bodies.append(files.respond(b"GET", b"/large4", []).body)
    assert isinstance(bodies[-1], FileSlice)
    for i, body in enumerate(bodies):
        assert read_all(body) == LARGE + b"%d" % i


# ---- Lists of files ----


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A directory of 1,200 files, and the number of lists that were made of it."""
    for i in range(1200):
        (tmp_path / f"{i:04}.txt").touch()
    (tmp_path / "zoo").mkdir()
    os.utime(tmp_path, (1, 1))
    made = []
    build = StaticFiles._build

    def count(self, listing):
        made.append(listing.view.page)
        return build(self, listing)

    monkeypatch.setattr(StaticFiles, "_build", count)
    return tmp_path, made


def test_a_list_has_pages(many):
    root, _ = many
    files = StaticFiles(root, listing=True)
    pages = [
        files.respond(b"GET", b"/?page=%d" % number, []).body.decode()
        for number in (1, 2, 3)
    ]
    names = [f"{i:04}.txt" for i in range(1200)]
    for number, page in enumerate(pages):
        part = ["zoo/", *names][number * 500 : number * 500 + 500]
        assert [name for name in ["zoo/", *names] if f">{name}<" in page] == part
        assert f"Page {number + 1} of 3" in page
    assert '<a href="?page=2">Next</a>' in pages[0]
    assert '<a href="?page=1">Previous</a>' in pages[1]
    assert "Next" not in pages[2]
    for query in b"", b"?page=0", b"?page=x", b"?x=1&page=1", b"?page=-1":
        assert files.respond(b"GET", b"/" + query, []).body.decode() == pages[0]
    for query in b"?page=4", b"?page=999999999":
        assert files.respond(b"GET", b"/" + query, []).status == 404


def test_a_list_is_bounded(many, monkeypatch):
    root, _ = many
    monkeypatch.setattr(listings, "MAX_LISTED", 1000)
    files = StaticFiles(root, listing=True)
    page = files.respond(b"GET", b"/?page=2", []).body.decode()
    assert "Page 2 of 2" in page and "more than 1000 files" in page


@in_loop
async def test_a_list_is_made_once_for_all_who_ask(many):
    root, made = many
    files = StaticFiles(root, listing=True)
    client = serve(
        file_handler(files), config=H2Configuration(initial_window_size=1 << 20)
    )
    responses = [client.response(client.request("/")) for _ in range(20)]
    await exchange_until(client, lambda: all(r.done for r in responses))
    assert {r.status for r in responses} == {200}
    assert len({r.body for r in responses}) == 1
    assert made == [1]
    # The directory was not changed meanwhile: the page is kept.
    assert (await client.fetch("/")).body == responses[0].body
    assert (await client.fetch("/", method="HEAD")).body == b""
    assert made == [1]
    # It is changed: the next one is made anew, and as it changed just now not kept.
    (root / "new").touch()
    for _ in range(2):
        assert b">new<" in (await client.fetch("/?page=3")).body
    assert made == [1, 3, 3]


@in_loop
async def test_a_client_that_leaves_takes_no_list_from_the_others(many):
    root, made = many
    client = serve(file_handler(StaticFiles(root, listing=True)))
    first, second = client.request("/"), client.request("/")
    client.protocol.data_received(client.connection.data_to_send())
    client.connection.reset_stream(first, 8)
    response = client.response(second)
    await exchange_until(client, lambda: response.done)
    assert response.status == 200 and made == [1]


@in_loop
async def test_the_loop_turns_while_a_list_is_made(many, monkeypatch):
    """The list waits for a turn of the loop: in the loop it would wait for ever."""
    root, _ = many
    loop = asyncio.get_running_loop()
    build = StaticFiles._build

    async def nothing():
        pass

    def wait(self, listing):
        asyncio.run_coroutine_threadsafe(nothing(), loop).result(10)
        return build(self, listing)

    monkeypatch.setattr(StaticFiles, "_build", wait)
    client = serve(file_handler(StaticFiles(root, listing=True)))
    assert (await client.fetch("/")).status == 200


@in_loop
async def test_a_directory_that_vanishes_before_it_is_listed_is_not_found(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "below").mkdir()
    build = StaticFiles._build

    def vanish(self, listing):
        (tmp_path / "below").rmdir()
        return build(self, listing)

    monkeypatch.setattr(StaticFiles, "_build", vanish)
    client = serve(file_handler(StaticFiles(tmp_path, listing=True)))
    assert (await client.fetch("/below/")).status == 404
    assert caplog.records == []
