"""Files of a directory as responses: what is served, and what never is."""

import os
from email.utils import formatdate

import pytest

from nghttp2py.static_files import (
    FileSlice,
    StaticFiles,
    content_type,
    parse_range,
)

SECRET = b"secret"
TEXT = b"0123456789"


@pytest.fixture
def root(tmp_path):
    """A directory to serve, beside a file that must not be."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "root-secret").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "with index").mkdir()
    (root / ".well-known").mkdir()
    (root / "file.txt").write_bytes(TEXT)
    (root / "below" / "page.html").write_bytes(b"<p>")
    (root / "with index" / "index.html").write_bytes(b"index")
    (root / ".hidden").write_bytes(SECRET)
    (root / ".well-known" / "token").write_bytes(b"token")
    (root / "a&b <c>.txt").write_bytes(b"odd")
    (root / "inside").symlink_to("file.txt")
    (root / "outside").symlink_to("../secret")
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("..")
    (root / "through").symlink_to("up/secret")
    (root / "to-hidden").symlink_to(".hidden")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = dict(response.headers)
        self.body = response.body
        if isinstance(response.body, FileSlice):
            self.body = b""
            while piece := response.body.read(4):
                self.body += piece
            response.body.close()


def ask(root, target, method="GET", listing=False, **headers):
    fields = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in headers.items()
    ]
    files = StaticFiles(root, listing=listing)
    return Answer(files.respond(method.encode(), target.encode(), fields))


def test_a_file_is_served_with_its_type_length_and_validators(root):
    answer = ask(root, "/file.txt?query=ignored")
    assert answer.status == 200
    assert answer.body == TEXT
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "10"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["last-modified"].endswith("GMT")


def test_a_large_file_is_read_as_it_is_sent(root):
    data = bytes(range(256)) * 1000
    (root / "large").write_bytes(data)
    response = StaticFiles(root).respond(b"GET", b"/large", [])
    assert isinstance(response.body, FileSlice)
    assert Answer(response).body == data
    assert response.body.read(1) == b""
    assert ask(root, "/large", range="bytes=1000-99999").body == data[1000:100000]


def test_head_has_the_fields_of_get_and_no_body(root):
    get, head = ask(root, "/file.txt"), ask(root, "/file.txt", "HEAD")
    assert (head.status, head.headers, head.body) == (200, get.headers, None)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_not_allowed(root, method):
    answer = ask(root, "/file.txt", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/below/../../secret",
        "/below/../file.txt",
        "/./file.txt",
        "//file.txt",
        "/below//page.html",
        "/%2e%2e/secret",
        "/%2E./secret",
        "/..%2fsecret",
        "/below%2Fpage.html",
        "/%2e%2e%2fsecret",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/file.txt%00",
        "/file.txt%00.html",
        "/%00",
        "/%c0%ae%c0%ae/secret",
        "/..\\secret",
        "/../root-secret",
        "/%252e%252e/secret",
        "/outside",
        "/absolute",
        "/up/secret",
        "/up/root/file.txt%2f..%2f..%2fsecret",
        "/through",
        "/loop",
        "/fifo",
        "/.hidden",
        "/to-hidden",
        "/missing",
        "/file.txt/",
        "/file.txt/below",
        "/" + "a" * 5000,
        "*",
        "file.txt",
        "http://host/file.txt",
        "",
    ],
)
@pytest.mark.parametrize("listing", [False, True])
def test_nothing_but_the_files_below_the_root_is_served(root, target, listing):
    answer = ask(root, target, listing=listing)
    assert answer.status == 404
    assert answer.body is None


def test_a_link_that_stays_inside_is_followed(root):
    assert ask(root, "/inside").body == TEXT
    assert ask(root, "/inside").headers["content-type"].startswith("text/plain")


def test_a_root_that_is_a_link_is_served(root):
    link = root.parent / "link"
    link.symlink_to(root)
    assert ask(link, "/file.txt").body == TEXT


def test_a_directory_swapped_for_a_link_is_not_followed(root, monkeypatch):
    """Between resolving and opening the tree may change."""
    files = StaticFiles(root)
    resolved = os.path.realpath

    def swap(path, **options):
        answer = resolved(path, **options)
        (root / "below" / "page.html").unlink()
        (root / "below").rmdir()
        (root / "below").symlink_to("..")
        return answer

    (root.parent / "page.html").write_bytes(SECRET)
    monkeypatch.setattr(os.path, "realpath", swap)
    assert files.respond(b"GET", b"/below/page.html", []).status == 404


def test_the_well_known_directory_is_served(root):
    assert ask(root, "/.well-known/token").body == b"token"


def test_escaped_names_are_decoded(root):
    assert ask(root, "/a%26b%20%3Cc%3E.txt").body == b"odd"
    assert ask(root, "/with%20index/").body == b"index"


def test_a_directory_without_its_slash_is_redirected(root):
    answer = ask(root, "/with%20index?q")
    assert answer.status == 301
    assert answer.headers["location"] == "/with%20index/?q"


def test_directories_are_listed_only_if_asked(root):
    assert ask(root, "/").status == 404
    page = ask(root, "/", listing=True)
    assert page.status == 200
    text = page.body.decode()
    assert '<a href="./a%26b%20%3Cc%3E.txt">a&amp;b &lt;c&gt;.txt</a>' in text
    assert '<a href="./below/">below/</a>' in text
    assert ".hidden" not in text
    assert "../" not in text
    assert '<a href="../">' in ask(root, "/below/", listing=True).body.decode()
    assert ask(root, "/", "HEAD", listing=True).body is None


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("bytes=0-3", b"0123"),
        ("bytes=4-", b"456789"),
        ("bytes=-3", b"789"),
        ("bytes=8-99", b"89"),
        ("bytes=-99", TEXT),
        ("Bytes = 9-9", b"9"),
    ],
)
def test_a_range_is_served_as_partial_content(root, value, part):
    answer = ask(root, "/file.txt", range=value)
    assert answer.status == 206
    assert answer.body == part
    assert answer.headers["content-length"] == str(len(part))
    first = TEXT.index(part)
    last = first + len(part) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10"


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_beyond_the_file_is_not_satisfiable(root, value):
    answer = ask(root, "/file.txt", range=value)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "value",
    [
        "bytes=",
        "bytes=-",
        "bytes=3-2",
        "bytes=a-b",
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes",
        "",
        "bytes=+1-2",
        "bytes=\u0660-",
        "bytes=0--1",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_range_that_is_none_is_ignored(root, value):
    assert parse_range(value, 10) is None


def test_ranges_are_for_get_alone(root):
    assert ask(root, "/file.txt", "HEAD", range="bytes=0-1").status == 200


def test_an_empty_file_has_no_satisfiable_range(root):
    (root / "empty").write_bytes(b"")
    assert ask(root, "/empty").body == b""
    assert ask(root, "/empty", range="bytes=0-").status == 416


def test_conditions_are_evaluated_in_the_order_of_rfc_9110(root):
    """RFC 9110, 13.2.2."""
    file = root / "file.txt"
    os.utime(file, (1_000_000_000, 1_000_000_000))
    etag = ask(root, "/file.txt").headers["etag"]
    at, before, after = (formatdate(1_000_000_000 + d, usegmt=True) for d in (0, -9, 9))

    def status(**headers):
        return ask(root, "/file.txt", **headers).status

    assert status(if_none_match=etag) == 304
    assert status(if_none_match=f'"x", W/{etag}') == 304
    assert status(if_none_match="*") == 304
    assert status(if_none_match='"x"') == 200
    assert status(if_modified_since=at) == 304
    assert status(if_modified_since=after) == 304
    assert status(if_modified_since=before) == 200
    assert status(if_modified_since="yesterday") == 200
    assert status(if_none_match='"x"', if_modified_since=after) == 200
    assert status(if_match=etag) == 200
    assert status(if_match=f"W/{etag}") == 412
    assert status(if_match='"x"') == 412
    assert status(if_unmodified_since=before) == 412
    assert status(if_unmodified_since=at) == 200
    assert status(if_match=etag, if_unmodified_since=before) == 200
    assert status(range="bytes=0-1", if_range=etag) == 206
    assert status(range="bytes=0-1", if_range='"x"') == 200
    assert status(range="bytes=0-1", if_range=at) == 206
    assert status(range="bytes=0-1", if_range=after) == 200
    not_modified = ask(root, "/file.txt", if_none_match=etag)
    assert not_modified.body is None
    assert set(not_modified.headers) == {"etag", "last-modified"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.PNG", "image/png"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/gzip"),
        ("a.html.gz", "application/gzip"),
        ("a.unknown", "application/octet-stream"),
        ("Makefile", "application/octet-stream"),
    ],
)
def test_the_type_follows_from_the_name(name, kind):
    assert content_type(name) == kind


def test_a_file_that_becomes_shorter_is_an_error(root):
    (root / "file.txt").write_bytes(bytes(200_000))
    body = StaticFiles(root).respond(b"GET", b"/file.txt", []).body
    assert body.read(1000) == bytes(1000)
    os.truncate(root / "file.txt", 2000)
    assert body.read(5000) == bytes(1000)
    with pytest.raises(OSError, match="shorter"):
        body.read(5000)
    body.close()


def test_no_file_is_left_open(root):
    before = set(os.listdir("/proc/self/fd"))
    for target in ("/file.txt", "/", "/missing", "/fifo", "/outside", "/below"):
        for method in ("GET", "HEAD", "POST"):
            ask(root, target, method)
            ask(root, target, method, listing=True, range="bytes=99-")
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_root_must_be_a_directory(root):
    with pytest.raises(NotADirectoryError):
        StaticFiles(root / "file.txt")
    with pytest.raises(FileNotFoundError):
        StaticFiles(root / "missing")
