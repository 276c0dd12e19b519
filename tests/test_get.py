"""``nghttp2py get`` as a tool of every day: its options mean what they mean in curl."""

import base64
import contextlib
import http.cookiejar
import json
import os
import re
import socket
import stat
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import click
import pytest
from get_site import DATA, TEXT, get, site
from peers import authority, free_port

from nghttp2py.asyncio.url import split_url
from nghttp2py.cli.get.dialing import Routes, parse_proxy
from nghttp2py.cli.get.exits import Exit, TransferError
from nghttp2py.cli.get.model import Peer, Record, Request
from nghttp2py.cli.get.options import command
from nghttp2py.cli.get.writeout import Outcome, format_outcome, make_values

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def clear():
    with site() as server:
        yield server


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    with site(tmp_path_factory.mktemp("site")) as server:
        yield server


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return path


@pytest.fixture(params=["1.1", "2", "3"])
def version(request):
    return request.param


@pytest.fixture
def fetch(version, clear, secure, ca):
    """Runs the command over a version of HTTP; the first argument is a path."""

    def run(path, *options, **more):
        url = clear.http if version == "1.1" else secure.https
        option = {"1.1": "--http1.1", "2": "--http2", "3": "--http3-only"}[version]
        return get(option, "--cacert", ca, *options, f"{url}{path}", **more)

    return run


# ---- Over every version ----


def test_the_version_is_the_one_that_was_asked_for(fetch, version):
    done = fetch("/text", "-w", "%{http_version} %{http_code} %{size_download}")
    assert done.stdout == TEXT + f"{version} 200 {len(TEXT)}".encode()


def test_the_head_is_written_as_by_curl(fetch, version):
    head, _, body = fetch("/text", "-i").stdout.partition(b"\r\n\r\n")
    assert head.splitlines()[0].split() == [b"HTTP/" + version.encode(), b"200"] + (
        [b"OK"] if version == "1.1" else []
    )
    assert b"content-type: text/plain" in head.splitlines()
    assert body == TEXT


def test_head_prints_the_fields_only(fetch):
    done = fetch("/text", "-I")
    assert "content-type: text/plain\r\n" in done.text
    assert done.stdout.endswith(b"\r\n\r\n")


def test_bodies_are_uploaded(fetch, tmp_path):
    (tmp_path / "file").write_bytes(b"a\r\nb\0c\n")
    done = fetch("/echo", "-d", "x=1", "-d", f"@{tmp_path / 'file'}").json
    assert (done["method"], done["body"]) == ("POST", "x=1&abc")
    assert ["content-type", "application/x-www-form-urlencoded"] in done["fields"]
    done = fetch("/echo", "--data-binary", f"@{tmp_path / 'file'}").json
    assert done["body"] == "a\r\nb\0c\n"
    done = fetch("/up/", "-T", tmp_path / "file", "-w", "%{url_effective}")
    assert done.stdout.endswith(b"/up/file")
    done = fetch("/echo", "-T", "-", input=b"piped").json
    assert (done["method"], done["body"]) == ("PUT", "piped")


def test_informational_responses_and_trailers_are_shown(fetch):
    early = fetch("/early", "-i").text
    assert re.match(r"HTTP/\S+ 103 .*\r\nlink: </a.css>\r\n\r\nHTTP/\S+ 200 ", early)
    te = ("-H", "TE: trailers")  # without, a server of HTTP/1.1 sends none
    assert fetch("/trailers", "-i", *te).stdout.endswith(b"body\nx-end: 1\r\n\r\n")
    done = fetch("/trailers", *te, "-w", "%header{x-end}")
    assert done.stdout == b"body\n1"


def test_a_compressed_response_is_decoded_if_it_was_asked_for(fetch):
    assert fetch("/gzip", "--compressed").stdout == TEXT
    assert fetch("/gzip").stdout[:2] == b"\x1f\x8b"
    fields = fetch("/echo", "--compressed").json["fields"]
    assert any(n == "accept-encoding" and "gzip" in v for n, v in fields)


def test_what_breaks_off_is_an_error(fetch, version, tmp_path):
    done = fetch("/broken", "-o", tmp_path / "out")
    assert done.returncode == {"1.1": 18, "2": 92, "3": 92}[version], done
    assert (tmp_path / "out").read_bytes() == b"only this"
    done = fetch("/reset", "-o", tmp_path / "out")
    assert done.returncode == {"1.1": 52, "2": 92, "3": 92}[version], done


def test_time_is_bounded(fetch):
    for option in ("-m", "--timeout"):
        done = fetch("/silent", option, "0.2")
        assert (done.returncode, done.stdout) == (28, b"")
        assert "0.2 s" in done.errors


def test_several_urls_share_a_connection(fetch, clear, secure, version):
    base = clear.http if version == "1.1" else secure.https
    done = fetch(
        "/text", *(f"{base}/status/{n}" for n in (200, 201)), "-w", "%{num_connects}\n"
    )
    assert done.stdout.startswith(b"status 200\n1\nstatus 201\n0\n" + TEXT + b"0\n")


def test_urls_are_requested_in_parallel(fetch, clear, secure, version):
    base = clear.http if version == "1.1" else secure.https
    done = fetch("/silent", f"{base}/text", "-Z", "-m", "0.4", "-w", "%{http_code},")
    assert done.stdout == TEXT + b"200,000,"


# ---- Requests ----


def test_requests_over_http1_share_a_connection(clear):
    done = get("--http1.1", "-v", "-n", "8", f"{clear.http}/data")
    assert done.returncode == 0
    assert done.errors.count("* Connected to") == 1


def test_fields_are_added_replaced_and_removed(clear, tmp_path):
    (tmp_path / "fields").write_text("X-File: 1\n\nX-More: 2\n")
    options = ("-H", "X-Own: value", "-H", "Accept:", "-H", "X-Empty;")
    done = get(*options, "-H", f"@{tmp_path / 'fields'}", f"{clear.http}/echo").json
    fields = dict(done["fields"])
    assert fields["x-own"] == "value" and fields["x-empty"] == ""
    assert (fields["x-file"], fields["x-more"]) == ("1", "2")
    assert "accept" not in fields
    assert get(f"{clear.http}/echo").json["fields"][-1] == ["accept", "*/*"]


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_host_is_what_is_given(clear, option):
    done = get(option, "-H", "Host: other.example", f"{clear.http}/echo").json
    assert done["host"] == "other.example"


def test_users_agents_and_referers_are_sent(clear):
    options = ("-u", "user:pass", "-A", "agent", "-e", "http://from.example/")
    fields = dict(get(*options, f"{clear.http}/echo").json["fields"])
    basic = base64.b64encode(b"user:pass").decode()
    assert fields["authorization"] == f"Basic {basic}"
    assert (fields["user-agent"], fields["referer"]) == (
        "agent",
        "http://from.example/",
    )
    url = clear.http.replace("http://", "http://user:p%61ss@")
    fields = dict(get(f"{url}/echo", "-A", "").json["fields"])
    assert fields["authorization"] == f"Basic {basic}"
    assert "user-agent" not in fields
    fields = dict(get("--oauth2-bearer", "t", f"{clear.http}/echo").json["fields"])
    assert fields["authorization"] == "Bearer t"
    done = get("-u", "user", f"{clear.http}/echo", input=b"pass\n")
    assert basic in done.text


def test_json_and_forms_are_sent(clear, tmp_path):
    done = get("--json", '{"a":', "--json", "1}", f"{clear.http}/echo").json
    assert done["body"] == '{"a":1}'
    fields = dict(done["fields"])
    assert (fields["content-type"], fields["accept"]) == ("application/json",) * 2
    (tmp_path / "a.txt").write_text("text")
    done = get(
        *("-F", "name=value", "-F", f"file=@{tmp_path / 'a.txt'}"),
        f"{clear.http}/echo",
    ).json
    boundary = dict(done["fields"])["content-type"].partition("boundary=")[2]
    assert done["body"] == (
        f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nvalue\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        'filename="a.txt"\r\nContent-Type: text/plain\r\n\r\ntext\r\n'
        f"--{boundary}--\r\n"
    )


def test_the_command_line_need_not_be_of_utf8(clear):
    """Python has such bytes as surrogates (PEP 383)."""
    done = get("--data-urlencode", "n\udcff=1", f"{clear.http}/echo").json
    assert done["body"] == "n\xff=1"
    done = get("-F", "n\udcff=\udcfe", f"{clear.http}/echo").json
    assert 'name="n\xff"\r\n\r\n\xfe\r\n' in done["body"]


def test_invalid_urls_are_no_tracebacks(clear):
    done = get("-w", "%{url.host}.%{http_code}", "http://[::1")
    assert (done.returncode, done.text) == (3, ".000")
    done = get("-x", "http://[::1", clear.http)
    assert done.returncode == 2 and "is not the URL of a proxy" in done.errors
    done = get(clear.http, env={"http_proxy": "http://[::1"})
    assert done.returncode == 5 and "is not the URL of a proxy" in done.errors


def test_data_can_be_encoded_and_go_to_the_query(clear):
    data = ("--data-urlencode", "q=a b&c", "--data-urlencode", "=x/y")
    assert get(*data, f"{clear.http}/echo").json["body"] == "q=a+b%26c&x%2Fy"
    done = get("-G", *data, "-d", "n=1", f"{clear.http}/echo?z#f").json
    assert (done["method"], done["body"]) == ("GET", "")
    assert done["path"] == "/echo?z&n=1&q=a+b%26c&x%2Fy"


def test_ranges_and_resumed_downloads(clear, tmp_path):
    out = tmp_path / "out"
    assert get("-r", "10-19", f"{clear.http}/data").stdout == DATA[10:20]
    out.write_bytes(DATA[:1000])
    done = get("-C", "-", "-o", out, "-w", "%{http_code}", f"{clear.http}/data")
    assert (done.returncode, done.stdout) == (0, b"206")
    assert out.read_bytes() == DATA
    assert get("-C", "-", "-o", out, f"{clear.http}/data").returncode == 0
    assert out.read_bytes() == DATA
    out.write_bytes(b"plain")
    done = get("-C", "-", "-o", out, f"{clear.http}/text")
    assert (done.returncode, out.read_bytes()) == (33, b"plain")


@pytest.mark.parametrize("about", ["bytes 0-9/20", "lines 5-9/10", ""])
def test_another_part_than_the_one_asked_for_is_not_appended(clear, about, tmp_path):
    out = tmp_path / "out"
    out.write_bytes(b"start")
    done = get("-C", "-", "-o", out, f"{clear.http}/part?{quote(about)}")
    assert (done.returncode, out.read_bytes()) == (33, b"start")
    assert (
        get("-C", "-", "-o", out, f"{clear.http}/part?bytes%205-9/10").returncode == 0
    )
    assert out.read_bytes() == b"startparts"


# ---- Redirects ----


def test_redirects_are_followed_if_they_are_asked_for(clear):
    done = get(f"{clear.http}/redirect/302", "-w", "%{http_code} %{redirect_url}")
    assert done.text == f"moved\n302 {clear.http}/echo"
    done = get(
        *("-L", f"{clear.http}/redirect/302/3", "-o", os.devnull),
        *("-w", "%{http_code} %{num_redirects} %{url_effective}"),
    )
    assert done.text == f"200 3 {clear.http}/echo"
    heads = get("-sSL", "-I", f"{clear.http}/redirect/301").text
    assert re.findall(r"^HTTP/1.1 (\d+)", heads, re.M) == ["301", "200"]
    done = get("-L", "--max-redirs", "2", f"{clear.http}/redirect/302/3")
    assert (done.returncode, done.stdout) == (47, b"")
    done = get("-L", f"{clear.http}/redirect/302?to=ftp://example.org/")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("status", "method"),
    [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")],
)
def test_a_redirected_post_becomes_get_or_stays(clear, status, method):
    done = get("-L", "-d", "a=1", f"{clear.http}/redirect/{status}").json
    assert (done["method"], done["body"]) == (method, "a=1" if method == "POST" else "")
    kept = get("-L", "-X", "PUT", "-d", "a=1", f"{clear.http}/redirect/{status}").json
    assert kept["method"] == "PUT"


def test_secrets_do_not_go_to_another_origin(clear):
    secrets = ("-u", "user:pass", "-b", "a=1", "-H", "Cookie: b=2")
    with site() as other:
        url = f"{clear.http}/redirect/302?to={other.http}/echo"
        fields = dict(get("-L", *secrets, url).json["fields"])
        assert not {"authorization", "cookie"} & set(fields)
        fields = dict(get("--location-trusted", *secrets, url).json["fields"])
        assert {"authorization", "cookie"} <= set(fields)
    fields = dict(get("-L", *secrets, f"{clear.http}/redirect/302").json["fields"])
    assert {"authorization", "cookie"} <= set(fields)


def test_another_origin_does_not_get_the_host_that_was_given(clear):
    with site() as other:
        url = f"{clear.http}/redirect/302?to={other.http}/echo"
        done = get("-L", "-H", "Host: example.org", url).json
        assert done["host"] == f"127.0.0.1:{other.port}"


def test_the_referer_follows_redirects(clear):
    url = f"{clear.http}/redirect/302"
    fields = dict(get("-L", "-e", ";auto", url).json["fields"])
    assert fields["referer"] == url


# ---- Cookies ----


def test_cookies_are_read_kept_and_written(clear, tmp_path):
    jar = tmp_path / "jar"
    url = f"{clear.http}/cookies"
    text = "a=1;Max-Age=1000&b=2;HttpOnly&c=3;Path=/other"
    assert get("-c", jar, f"{url}?{text}").returncode == 0
    assert stat.S_IMODE(jar.stat().st_mode) == 0o600
    lines = [line.split("\t") for line in jar.read_text().splitlines() if "\t" in line]
    assert {(line[0], line[2], line[5], line[6]) for line in lines} == {
        ("127.0.0.1", "/", "a", "1"),
        ("#HttpOnly_127.0.0.1", "/", "b", "2"),
        ("127.0.0.1", "/other", "c", "3"),
    }
    assert [line[4] for line in lines if line[5] == "b"] == ["0"]
    assert get("-b", jar, url).text == "a=1; b=2\n"
    assert get("-b", jar, "-j", url).text == "a=1\n"
    assert get("-b", "x=1; y=2", "-b", "z=3", url).text == "x=1; y=2; z=3\n"
    assert get("-b", tmp_path / "none", url).text == "\n"


def test_cookies_of_the_first_response_go_with_the_next_request(clear):
    url = f"{clear.http}/cookies"
    assert get("-b", "", f"{url}?a=1", url).text == "\na=1\n"
    assert get(f"{url}?a=1", url).text == "\n\n"
    # A name of this machine has no dot.
    local = url.replace("127.0.0.1", "localhost")
    assert get("-4", "-b", "", f"{local}?a=1", local).text == "\na=1\n"


def test_a_cookie_file_is_the_one_of_curl_and_python(clear, tmp_path):
    jar = tmp_path / "jar"
    get("-c", jar, f"{clear.http}/cookies?a=1;Max-Age=1000")
    known = http.cookiejar.MozillaCookieJar(jar)
    known.load()
    assert [(c.name, c.value, c.domain) for c in known] == [("a", "1", "127.0.0.1")]
    jar.write_text(
        "127.0.0.1\tFALSE\t/\tFALSE\t0\tlive\t1\n"
        "127.0.0.1\tFALSE\t/\tFALSE\t1000\tdead\t1\n"
        "127.0.0.1\tFALSE\t/\tTRUE\t0\tsecure\t1\n"
        "other.example\tFALSE\t/\tFALSE\t0\tother\t1\nno cookie\n"
    )
    assert get("-b", jar, f"{clear.http}/cookies").text == "live=1\n"


# ---- Output ----


def test_files_are_named_by_the_url_or_the_server(clear, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = clear.http
    done = get("-O", f"{base}/text?q", "-o", "b", f"{base}/status/200", f"{base}/text")
    assert (done.returncode, done.stdout) == (0, TEXT)
    assert ((tmp_path / "text").read_bytes(), (tmp_path / "b").read_text()) == (
        TEXT,
        "status 200\n",
    )
    done = get("-O", f"{base}/")
    assert (done.returncode, "no file name" in done.errors) == (23, True)
    get("-O", "--output-dir", "new/dir", "--create-dirs", f"{base}/text")
    assert (tmp_path / "new" / "dir" / "text").exists()
    assert get("-O", "--output-dir", "missing", f"{base}/text").returncode == 23
    get("-o", "b", "--no-clobber", f"{base}/text")
    assert (tmp_path / "b.1").read_bytes() == TEXT


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("report.txt", "report.txt"),
        ("../../evil", "evil"),
        ("a/b", "b"),
        (".hidden", "named"),
        ("..", "named"),
        ("a\x1bb", "named"),
    ],
)
def test_a_server_names_a_file_of_the_directory(
    clear, tmp_path, monkeypatch, given, name
):
    monkeypatch.chdir(tmp_path)
    query = base64.b64encode(given.encode()).decode()
    done = get("-OJ", f"{clear.http}/named?{query}")
    assert (done.returncode, os.listdir(tmp_path)) == (0, [name])
    again = get("-OJ", f"{clear.http}/named?{query}")
    assert again.returncode == 23  # it overwrites no file


def test_statuses_fail_only_if_asked_to(clear, tmp_path):
    url = f"{clear.http}/status/404"
    assert get(url)[:2] == (0, b"status 404\n")
    done = get("-f", url)
    assert done == (22, b"", b"Error: the server answered 404 Not Found\n")
    assert get("-fs", url) == (22, b"", b"")
    assert get("-fsS", url).errors == done.errors
    assert get("--fail-with-body", url)[:2] == (22, b"status 404\n")
    get("-f", "-o", tmp_path / "out", url)
    assert not (tmp_path / "out").exists()


def test_heads_go_to_a_file(clear, tmp_path):
    get("-sL", "-D", tmp_path / "head", f"{clear.http}/redirect/302")
    lines = (tmp_path / "head").read_text().splitlines()
    assert [line for line in lines if line.startswith("HTTP/")] == [
        "HTTP/1.1 302 Found",
        "HTTP/1.1 200 OK",
    ]
    get("-D", tmp_path / "head", f"{clear.http}/text")
    assert (tmp_path / "head").read_text().count("HTTP/1.1") == 1


def test_a_full_disk_is_a_write_error(clear):
    done = get("-o", "/dev/full", f"{clear.http}/data")
    assert done.returncode == 23
    assert "cannot be written" in done.errors


def test_write_out_knows_curl_s_variables(clear, tmp_path):
    (tmp_path / "format").write_text("%{method}\\t%{scheme}\\n%{stderr}%{urlnum}")
    done = get("-o", os.devnull, "-w", f"@{tmp_path / 'format'}", f"{clear.http}/text")
    assert done[1:] == (b"GET\tHTTP\n", b"0")
    names = ("remote_ip", "remote_port", "content_type", "exitcode", "errormsg")
    template = " ".join(f"%{{{name}}}" for name in names) + "%%"
    done = get("-o", os.devnull, "-w", template, f"{clear.http}/text")
    assert done.text == f"127.0.0.1 {clear.port} text/plain 0 %"
    done = get("-o", os.devnull, "-w", "%{json}", f"{clear.http}/text").json
    assert (done["http_code"], done["size_download"]) == (200, len(TEXT))
    order = ("namelookup", "connect", "pretransfer", "starttransfer", "total")
    times = [done[f"time_{name}"] for name in order]
    assert times == sorted(times) and times[0] > 0
    done = get("-o", os.devnull, "-w", "%{header_json}", f"{clear.http}/text").json
    assert done["content-type"] == ["text/plain"]
    done = get("-s", "-w", "%{onerror}%{exitcode}", f"http://127.0.0.1:{free_port()}/")
    assert done.text == "7"
    assert get("-w", "%{onerror}x", f"{clear.http}/text").stdout == TEXT
    assert "no variable 'nonsense'" in get("-w", "%{nonsense}", clear.http).errors


def test_write_out_escapes_for_the_terminal_that_it_goes_to(monkeypatch):
    request = Request("GET", "http://example.org/", [], None)
    record = Record(request)
    record.fields = [(b"x-title", b"a\xc2\x9b31m")]
    record.peer = Peer()
    outcome = Outcome([record], request.url, 0, Exit.OK, "", 0, "", 0, 0.0, False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    template = "%header{x-title}%{stderr}%header{x-title}"
    assert format_outcome(template, outcome) == [
        ("stdout", "a\x9b31m"),
        ("stderr", r"a\x9b31m"),
    ]


def test_verbose_lines_are_those_of_curl_and_escaped(clear):
    done = get("-v", f"{clear.http}/controls")
    lines = done.errors.splitlines()
    assert f"*   Trying 127.0.0.1:{clear.port}..." in lines
    assert "> GET /controls HTTP/1.1" in lines
    assert f"> Host: 127.0.0.1:{clear.port}" in lines
    assert "< HTTP/1.1 200 OK" in lines
    assert "< x-title: a\\x9b31m" in lines
    assert done.errors.replace("\n", "").isprintable()


def test_a_har_file_has_all_requests(clear, tmp_path):
    har = tmp_path / "har.json"
    get(
        *("--har", har, "-L", "-b", "a=1", "-d", "x=1"),
        *(f"{clear.http}/redirect/307", f"{clear.http}/data?q=1&r="),
    )
    assert stat.S_IMODE(har.stat().st_mode) == 0o600
    log = json.loads(har.read_text())["log"]
    assert (log["version"], log["creator"]["name"]) == ("1.2", "nghttp2py")
    first, second, third = log["entries"]
    assert first["request"]["method"] == "POST"
    assert first["request"]["postData"]["text"] == "x=1"
    assert first["request"]["cookies"] == [{"name": "a", "value": "1"}]
    assert first["response"]["status"] == 307
    assert first["response"]["redirectURL"] == "/echo"
    assert second["response"]["content"]["mimeType"] == "application/json"
    assert json.loads(second["response"]["content"]["text"])["body"] == "x=1"
    assert third["request"]["queryString"] == [
        {"name": "q", "value": "1"},
        {"name": "r", "value": ""},
    ]
    assert base64.b64decode(third["response"]["content"]["text"]) == DATA
    assert first["connection"] == second["connection"]
    timings = first["timings"]
    assert timings["dns"] >= 0 and timings["ssl"] == -1
    assert second["timings"]["connect"] == -1
    for entry in log["entries"]:
        parts = [v for k, v in entry["timings"].items() if k != "ssl" and v > 0]
        assert entry["time"] == pytest.approx(sum(parts), abs=0.01)
        assert re.fullmatch(r"\d{4}-.*Z", entry["startedDateTime"])


# ---- Routes ----


def test_hosts_are_resolved_and_redirected_as_stated(clear, secure, ca):
    port = clear.port
    for option in (
        f"--resolve=some.example:{port}:127.0.0.1",
        f"--resolve=*:{port}:127.0.0.1",
        f"--connect-to=some.example:{port}:127.0.0.1:{port}",
        "--connect-to=::127.0.0.1:",
    ):
        done = get(option, f"http://some.example:{port}/echo")
        assert done.json["host"] == f"some.example:{port}"
    for version in ("--http2", "--http3-only"):
        done = get(
            *(version, "--cacert", ca, "-w", "%{remote_ip}", "-o", os.devnull),
            f"--connect-to=localhost:1:127.0.0.1:{secure.port}",
            "https://localhost:1/text",
        )
        assert done.text == "127.0.0.1", done
    done = get("-6", f"{clear.http}/text")
    assert done.returncode == 6
    assert get("-4", f"http://localhost:{port}/text").stdout == TEXT


def test_a_unix_socket_can_be_asked(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        with site(sock=sock):
            for option in ("--http1.1", "--http2"):
                done = get("--unix-socket", path, option, "http://some.example/echo")
                assert done.json["host"] == "some.example"
    done = get("--unix-socket", path + "2", "http://some.example/")
    assert done.returncode == 7


@pytest.fixture
def proxy():
    """A proxy of HTTP for one connection; what it has received is in ``seen``."""

    class Proxy:
        seen = b""
        answer = b"HTTP/1.1 200 Connected\r\n\r\n"

    def carry(source, target):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def serve():
        client, _ = server.accept()
        with client:
            while b"\r\n\r\n" not in proxy.seen:
                proxy.seen += client.recv(65536)
            client.sendall(proxy.answer)
            if proxy.seen.startswith(b"CONNECT") and b" 200 " in proxy.answer:
                host, port = proxy.seen.split()[1].decode().rsplit(":", 1)
                with socket.create_connection((host, int(port))) as other:
                    back = threading.Thread(target=carry, args=(other, client))
                    back.start()
                    carry(client, other)
                    back.join()

    proxy = Proxy()
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy.url = f"http://127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        yield proxy
        thread.join()


def test_https_goes_through_a_proxy_by_connect(proxy, secure, ca):
    done = get(
        *("-x", proxy.url, "-U", "me:secret", "--cacert", ca),
        *(f"{secure.https}/text", "-w", "%{http_version} %{http_connect}"),
    )
    assert done.stdout == TEXT + b"2 200"
    assert proxy.seen.startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % secure.port)
    assert base64.b64encode(b"me:secret") in proxy.seen


def test_http_is_asked_of_a_proxy(proxy):
    proxy.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    proxied = {"http_proxy": proxy.url}
    done = get("http://some.example/path", env=proxied)
    assert done.stdout == b"ok"
    assert proxy.seen.startswith(b"GET http://some.example/path HTTP/1.1\r\nHost: some")


def test_a_proxy_that_refuses_is_an_error(proxy, secure):
    proxy.answer = b"HTTP/1.1 407 Who are you\r\n\r\n"
    done = get("-x", proxy.url, f"{secure.https}/text", "-w", "%{http_connect}")
    assert (done.returncode, done.stdout) == (56, b"407")
    assert "the proxy answered CONNECT with 407" in done.errors


def test_some_hosts_need_no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org, .local")
    routes = Routes(proxy="proxy:3128")
    for host, is_proxied in (
        ("www.example.org", False),
        ("example.org", False),
        ("a.local", False),
        ("example.com", True),
    ):
        found = routes.find_proxy(split_url(f"http://{host}/"))
        assert (found is not None) == is_proxied
    assert parse_proxy("u:p@proxy").port == 1080
    with pytest.raises(TransferError, match="socks5"):
        parse_proxy("socks5://proxy:1")


# ---- Repetition and errors ----


def test_transient_failures_are_retried(clear):
    clear.handler.failures = 0
    done = get("--retry", "3", "--retry-delay", "0.01", f"{clear.http}/flaky?2")
    assert (done.returncode, done.stdout) == (0, b"well\n")
    assert done.errors.count("Warning: the server answered 503") == 2
    clear.handler.failures = 0
    done = get("-f", "--retry", "1", "--retry-delay", "0.01", f"{clear.http}/flaky?5")
    assert done.returncode == 22
    done = get("--retry", "2", "--retry-delay", "0.01", f"{clear.http}/status/404")
    assert (done.errors, done.stdout) == ("", b"status 404\n")
    url = f"http://127.0.0.1:{free_port()}/"
    options = ("--retry", "2", "--retry-delay", "0.01")
    assert get(*options, url).errors.count("Warning") == 0
    done = get(*options, "--retry-connrefused", url)
    assert (done.returncode, done.errors.count("Warning")) == (7, 2)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["http://"], 3),
        (["http://127.0.0.1:99999/"], 3),
        (["http://[::1/"], 3),
        (["gopher://example.org/"], 1),
        (["http://name.invalid/"], 6),
        (["-x", "name.invalid", "http://example.org/"], 5),
        (["-x", "socks4://127.0.0.1", "http://example.org/"], 2),
        ([], 2),
        (["--http2", "--http1.1", "http://127.0.0.1/"], 2),
        (["-d", "a", "-T", __file__, "http://127.0.0.1/"], 2),
        (["-T", "missing", "http://127.0.0.1/"], 26),
        (["-d", "@missing", "http://127.0.0.1/"], 26),
        (["-C", "x", "http://127.0.0.1/"], 2),
        (["--resolve", "nonsense", "http://127.0.0.1/"], 2),
        (["--connect-to", "a:b", "http://127.0.0.1/"], 2),
        (["-H", "a: b\nc: d", "http://127.0.0.1/"], 2),
        (["-H", "Connection: a\r\nb", "http://127.0.0.1/"], 2),
    ],
)
def test_what_is_wrong_has_curl_s_code(arguments, code):
    done = get(*arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert "Traceback" not in done.errors


def raw(answer):
    """Answer one connection with these bytes, once its request has come."""

    @contextlib.contextmanager
    def run():
        def serve():
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=serve)
            thread.start()
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
            thread.join()

    return run()


@pytest.mark.parametrize(
    ("answer", "code", "body"),
    [
        (b"", 52, b""),
        (b"nonsense\r\n\r\n", 1, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Le", 56, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 18, b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            18,
            b"abc",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", 0, b"to the end"),
        (b"HTTP/1.0 200\r\n\r\n", 0, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 0, b""),
    ],
)
def test_what_servers_of_http1_answer(answer, code, body):
    with raw(answer) as url:
        done = get(url)
    assert done[:2] == (code, body), done


def test_times_of_each_step_are_shown(secure, ca):
    shown = get("-t", "--cacert", ca, f"{secure.https}/text").errors
    titles, row = shown.splitlines()
    assert titles.split() == [
        *("#", "sent", "DNS", "TCP", "TLS", "response", "end", "status", "bytes"),
    ]
    assert row.count(" ms") == 6


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--cacert", "{missing}"], 77),
        (["--cacert", "{empty}"], 77),
        (["--cacert", "{ca}", "-E", "{missing}"], 58),
        (["--cacert", "{ca}", "-E", "{ca}", "--key", "{missing}"], 58),
        (["--cacert", "{ca}", "-T", "{missing}"], 26),
        (["--cacert", "{ca}", "-F", "a=@{missing}"], 26),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_read_has_curls_code(
    secure, ca, version, options, code, tmp_path
):
    (tmp_path / "empty").write_bytes(b"")
    names = {"ca": ca, "missing": tmp_path / "no", "empty": tmp_path / "empty"}
    option = {"1.1": "--http1.1", "2": "--http2", "3": "--http3-only"}[version]
    options = [text.format(**names) for text in options]
    done = get(option, *options, f"{secure.https}/text")
    assert done.returncode == code
    assert done.errors.startswith("Error: ") and done.errors.count("\n") == 1


def test_the_page_names_every_option():
    page = (ROOT / "docs" / "cli.rst").read_text()
    page = page[: page.index("serve\n-----")]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for name in parameter.opts:
                assert f"``{name}``" in page, name


def test_the_page_names_every_exit_code():
    page = (ROOT / "docs" / "cli.rst").read_text()
    table = page[page.index("Exit status\n") : page.index("serve\n-----")]
    codes = re.findall(r"^   \* - ([\d, ]+)$", table, re.M)
    named = {int(code) for codes in codes for code in codes.split(",")}
    assert named == set(map(int, Exit))


def test_the_page_names_every_variable():
    page = (ROOT / "docs" / "cli.rst").read_text()
    about = page[page.index("Variables of") : page.index("Exit status\n")]
    outcome = Outcome([], "http://a/", 0, Exit.OK, "", 0, "", 0, 0.0, False)
    for name in make_values(outcome):
        assert name in about, name
