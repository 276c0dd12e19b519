"""What ``nghttp2py serve`` does beyond sending files, with a client in memory."""

import base64
import gzip
import os

import pytest
from handlers import exchange_until, serve
from loops import in_loop

from nghttp2py import listings, site
from nghttp2py.h2 import H2Configuration
from nghttp2py.site import Site
from nghttp2py.static_files import accepted_codings

HTML = [("accept", "text/html,*/*")]
TEXT = b"a line of text\n" * 1000


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "index.html").write_text("<p>index")
    (root / "text.txt").write_bytes(TEXT)
    (root / "below" / "file").write_bytes(b"0123456789")
    (root / "out").symlink_to("../outside")
    (root / "dangling").symlink_to("../outside/new")
    return root


def client_of(root, **options):
    return serve(
        Site(root, **options).handler(),
        config=H2Configuration(initial_window_size=1 << 20),
    )


async def put(client, path, body, **options):
    return await client.fetch(path, method="PUT", body=body, **options)


# ---- Passwords ----


def basic(text, scheme="Basic"):
    token = base64.b64encode(text.encode()).decode()
    return [("authorization", f"{scheme} {token}")]


@in_loop
async def test_nothing_is_sent_without_the_password(root):
    client = client_of(root, auth="me:a:b", max_upload=100)
    for path in "/text.txt", "/none", "/below/", "/below/new":
        for method in "GET", "HEAD", "PUT":
            for headers in (
                [],
                basic("me:a"),
                basic("me:a:b", "Bearer"),
                basic("x"),
                [("authorization", "Basic !")],
                [("authorization", "Basic")],
            ):
                refused = await client.fetch(path, method=method, headers=headers)
                assert (refused.status, refused.body) == (401, b"")
                challenge = dict(refused.headers)[b"www-authenticate"]
                assert challenge.startswith(b"Basic realm=")
    assert not (root / "below" / "new").exists()
    for scheme in "Basic", "basic":
        allowed = await client.fetch("/text.txt", headers=basic("me:a:b", scheme))
        assert allowed.body == TEXT


# ---- Pages of errors, of one application, of other origins ----


@in_loop
async def test_a_browser_gets_a_page_for_an_error(root):
    client = client_of(root)
    page = await client.fetch("/<none>", headers=HTML)
    assert page.status == 404 and b"<h1>Not Found</h1>" in page.body
    assert b"content-security-policy" in dict(page.headers)
    other = await client.fetch("/none")
    assert (other.status, other.body) == (404, b"")
    head = await client.fetch("/none", method="HEAD", headers=HTML)
    assert head.body == b""
    assert dict(head.headers)[b"content-length"] == b"%d" % len(page.body)


@in_loop
async def test_an_application_of_one_page_has_all_paths(root):
    client = client_of(root, spa=True)
    for path in "/users/7", "/none":
        page = await client.fetch(path, headers=HTML)
        assert (page.status, page.body) == (200, b"<p>index")
    assert (await client.fetch("/script.js")).status == 404
    assert (await client.fetch("/none", method="POST", headers=HTML)).status == 405
    assert (await client.fetch("/below/file", headers=HTML)).body == b"0123456789"
    (root / "index.html").write_bytes(TEXT)
    compressed = [*HTML, ("accept-encoding", "gzip")]
    page = await client.fetch("/none", headers=compressed)
    assert (page.status, gzip.decompress(page.body)) == (200, TEXT)
    assert dict(page.headers)[b"cache-control"] == b"no-cache"
    (root / "index.html").unlink()
    assert (await client.fetch("/none", headers=HTML)).status == 404


@in_loop
async def test_other_origins_may_read_if_they_are_allowed_to(root):
    headers = dict((await client_of(root).fetch("/text.txt")).headers)
    assert b"access-control-allow-origin" not in headers
    client = client_of(root, cors=True, auth="a:b", max_upload=10)
    preflight = await client.fetch("/text.txt", method="OPTIONS")
    fields = dict(preflight.headers)
    assert preflight.status == 204
    assert fields[b"access-control-allow-origin"] == b"*"
    # A page of another origin must not store files.
    assert fields[b"access-control-allow-methods"] == b"GET, HEAD"
    for path in "/text.txt", "/none":
        answer = await client.fetch(path, headers=basic("a:b"))
        assert dict(answer.headers)[b"access-control-allow-origin"] == b"*"


@pytest.mark.parametrize(
    ("cache", "value"), [(None, b"no-cache"), (0, b"max-age=0"), (60, b"max-age=60")]
)
@in_loop
async def test_clients_keep_files_for_as_long_as_they_are_told(root, cache, value):
    client = client_of(root, cache=cache)
    answer = await client.fetch("/text.txt")
    assert dict(answer.headers)[b"cache-control"] == value
    unchanged = [("if-none-match", dict(answer.headers)[b"etag"])]
    again = await client.fetch("/text.txt", headers=unchanged)
    assert again.status == 304
    assert dict(again.headers)[b"cache-control"] == value
    # A list, whose entries may change at any time, and an error are not kept.
    assert (
        dict((await client.fetch("/below/")).headers)[b"cache-control"] == b"no-cache"
    )
    assert b"cache-control" not in dict((await client.fetch("/none")).headers)


def test_wrong_settings_are_refused(root):
    for wrong in {"cache": -1}, {"max_upload": 0}, {"auth": "password"}:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Site(root, **wrong)


# ---- Compression ----


@in_loop
async def test_text_is_compressed_for_who_accepts_it(root):
    client = client_of(root)
    plain = await client.fetch("/text.txt")
    assert plain.body == TEXT
    coded = await client.fetch("/text.txt", headers=[("accept-encoding", "br, gzip")])
    fields = dict(coded.headers)
    assert gzip.decompress(coded.body) == TEXT
    assert fields[b"content-encoding"] == b"gzip"
    assert fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert fields[b"vary"] == dict(plain.headers)[b"vary"] == b"accept-encoding"
    assert fields[b"etag"] != dict(plain.headers)[b"etag"]
    head = await client.fetch(
        "/text.txt", method="HEAD", headers=[("accept-encoding", "gzip")]
    )
    assert dict(head.headers)[b"content-length"] == fields[b"content-length"]
    unchanged = [("accept-encoding", "gzip"), ("if-none-match", fields[b"etag"])]
    assert (await client.fetch("/text.txt", headers=unchanged)).status == 304
    part = [("accept-encoding", "gzip"), ("range", "bytes=0-3")]
    assert (await client.fetch("/text.txt", headers=part)).body == TEXT[:4]
    # What is small, or no text, stays as it is.
    (root / "picture.png").write_bytes(TEXT)
    for path in "/below/file", "/picture.png":
        answer = await client.fetch(path, headers=[("accept-encoding", "gzip")])
        assert b"content-encoding" not in dict(answer.headers)


@in_loop
async def test_a_compressed_file_beside_the_plain_one_is_sent(root):
    client = client_of(root)
    for suffix in "gz", "zst", "br":
        (root / f"text.txt.{suffix}").write_bytes(suffix.encode())
    for accepted, body, coding in (
        ("gzip", b"gz", b"gzip"),
        ("gzip, deflate, br, zstd", b"br", b"br"),
        ("zstd, br;q=0", b"zst", b"zstd"),
        ("gzip;q=0.000", TEXT, None),
        ("identity", TEXT, None),
    ):
        answer = await client.fetch(
            "/text.txt", headers=[("accept-encoding", accepted)]
        )
        assert answer.body == body
        assert dict(answer.headers).get(b"content-encoding") == coding
    # One that is older than the plain file is not the same.
    os.utime(root / "text.txt.br", (1, 1))
    answer = await client.fetch("/text.txt", headers=[("accept-encoding", "br")])
    assert answer.body == TEXT
    # Nor does a link lead outside.
    (root / "text.txt.br").unlink()
    (root.parent / "secret.br").write_bytes(b"secret")
    (root / "text.txt.br").symlink_to("../secret.br")
    answer = await client.fetch("/text.txt", headers=[("accept-encoding", "br")])
    assert answer.body == TEXT
    plain = client_of(root, compress=False)
    answer = await plain.fetch("/text.txt", headers=[("accept-encoding", "gzip")])
    assert answer.body == TEXT


def test_the_codings_that_a_client_accepts():
    assert accepted_codings("gzip;q=0.5, BR , zstd; q=0.0,x;q=0") == {"gzip", "br"}
    assert accepted_codings(None) == {""}


# ---- Uploads ----


@in_loop
async def test_a_file_is_stored_and_replaces_none(root):
    client = client_of(root, max_upload=1 << 20)
    body = bytes(range(256)) * 1000
    stored = await put(client, "/below/a%20new%20one", body)
    assert stored.status == 201
    assert dict(stored.headers)[b"location"] == b"/below/a%20new%20one"
    assert (root / "below" / "a new one").read_bytes() == body
    assert (await client.fetch("/below/a%20new%20one")).body == body
    assert (await put(client, "/below/a%20new%20one", b"other")).status == 409
    assert (root / "below" / "a new one").read_bytes() == body
    named = await put(client, b"/r\xc3\xa9sum\xc3\xa9?x", b"")
    assert dict(named.headers)[b"location"] == b"/r%C3%A9sum%C3%A9"
    assert (await put(client, "/empty", b"")).status == 201
    assert (root / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../new", 404),
        ("/%2e%2e/new", 404),
        ("/below/..%2f..%2fnew", 404),
        ("/out/new", 404),
        ("/dangling", 409),
        ("/.hidden", 404),
        ("/below/.ssh/keys", 404),
        ("/none/new", 404),
        ("/text.txt/new", 404),
        ("/below/", 404),
        ("/below", 409),
        ("/", 404),
        ("/a%00b", 404),
        ("/" + "a" * 300, 404),
    ],
)
@in_loop
async def test_nothing_is_stored_elsewhere(root, path, status):
    def everything():
        return sorted(str(path) for path in root.parent.rglob("*"))

    before = everything()
    client = client_of(root, max_upload=100)
    assert (await put(client, path, b"data")).status == status
    assert everything() == before


@in_loop
async def test_a_file_that_is_too_large_is_not_stored(root):
    client = client_of(root, max_upload=100)
    before = sorted(os.listdir(root))
    announced = [("content-length", "101")]
    assert (await put(client, "/new", b"a" * 101, headers=announced)).status == 413
    assert (await put(client, "/new", b"a" * 101)).status == 413
    assert sorted(os.listdir(root)) == before
    assert (await put(client, "/new", b"a" * 100)).status == 201


@in_loop
async def test_an_upload_that_breaks_off_leaves_nothing(root):
    client = client_of(root, max_upload=100)
    before = sorted(os.listdir(root))
    stream = client.request("/new", method="PUT", end_stream=False)
    client.connection.send_data(stream, b"part")
    await exchange_until(client, lambda: sorted(os.listdir(root)) != before)
    client.connection.reset_stream(stream, 8)
    await exchange_until(client, lambda: sorted(os.listdir(root)) == before)
    client.protocol.connection_lost(None)


@in_loop
async def test_uploads_at_a_time_have_a_bound(root, monkeypatch):
    monkeypatch.setattr(site, "MAX_UPLOADS", 2)
    client = client_of(root, max_upload=100)
    before = sorted(os.listdir(root))
    streams = [
        client.request(f"/new{n}", method="PUT", end_stream=False) for n in range(2)
    ]
    refused = await put(client, "/new", b"data")
    assert refused.status == 503
    assert dict(refused.headers)[b"retry-after"]
    assert (await client.fetch("/text.txt")).body == TEXT
    for stream in streams:
        client.connection.reset_stream(stream, 8)
    await exchange_until(client, lambda: sorted(os.listdir(root)) == before)
    for _ in range(3):
        assert (await put(client, "/out/new", b"data")).status == 404
        assert (await put(client, "/large", b"a" * 101)).status == 413
    for n in range(3):
        assert (await put(client, f"/new{n}", b"data")).status == 201


@in_loop
async def test_a_full_disk_is_told_to_the_client(root, monkeypatch):
    client = client_of(root, max_upload=100)
    before = sorted(os.listdir(root))

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(site.os, "write", full)
    assert (await put(client, "/new", b"data")).status == 507
    assert sorted(os.listdir(root)) == before


@in_loop
async def test_nothing_is_stored_unless_that_is_asked_for(root):
    assert (await put(client_of(root), "/new", b"data")).status == 405
    assert not (root / "new").exists()


# ---- Lists of files ----


@pytest.fixture
def listed(tmp_path):
    for name, size, date in (("b", 10, 3), ("A", 2000, 1), ("c", 300, 2)):
        (tmp_path / name).write_bytes(b"x" * size)
        os.utime(tmp_path / name, (date * 86400,) * 2)
    (tmp_path / "z").mkdir()
    return tmp_path


def names_of(root, query=b"", **options):
    fd = os.open(root, os.O_RDONLY)
    try:
        view = listings.View.of(query)
        return listings.list_directory(fd, ["x"], view, **options)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("query", "order"),
    [
        (b"", "z/ A b c"),
        (b"order=desc", "z/ c b A"),
        (b"sort=size", "z/ b c A"),
        (b"sort=size&order=desc", "z/ A c b"),
        (b"sort=date", "z/ A c b"),
        (b"sort=date&order=desc", "z/ b c A"),
        (b"q=B", "b"),
        (b"sort=none&order=none&page=-1&x", "z/ A b c"),
    ],
)
def test_a_list_is_sorted_and_filtered_as_its_query_says(listed, query, order):
    page = names_of(listed, query)
    names = order.split()
    places = [page.index(f">{name}</a>") for name in names]
    assert places == sorted(places)
    assert page.count("data-name=") == len(names)


def test_a_list_has_sizes_dates_and_where_it_is(listed):
    page = names_of(listed, b"q=%3Cscript%3E")
    assert 'value="&lt;script&gt;"' in page and "No such files." in page
    page = names_of(listed)
    assert "2.0 kB" in page and "10 B" in page and "1970-01-02 00:00" in page
    assert '<a href="../">Files</a> / <a href="./">x</a>' in page
    assert 'href="?sort=size&amp;order=desc"' in page
    assert 'aria-sort="ascending"' in page
    assert 'id="drop"' not in page
    assert 'id="drop"' in names_of(listed, upload=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_499, "99.5 kB"),
        (100_000, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_a_size_is_short(size, text):
    assert listings.format_size(size) == text
