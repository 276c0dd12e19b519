"""``nghttp2py get`` against servers that mean harm."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from get_site import get, site
from loops import DEADLINE
from peers import certificate

from nghttp2py.cli.get.cookies import Cookies

OTHERS = "127.0.0.1\tFALSE\t/\tFALSE\t0\tplanted\t1"


@contextlib.contextmanager
def hostile(answer, context=None):
    """Serve one connection in a thread: ``answer`` gets its socket, once it has asked.

    It ends when the client has gone.
    """

    def serve():
        client, _ = server.accept()
        if context is not None:
            client = context.wrap_socket(client, server_side=True)
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            answer(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        thread = threading.Thread(target=serve)
        thread.start()
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"
        thread.join(DEADLINE)
        assert not thread.is_alive()


def drip(client):
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    client.settimeout(0.1)
    for _ in range(50):
        client.sendall(b"a")
        with contextlib.suppress(TimeoutError):
            client.recv(1)


def test_a_body_that_drips_does_not_outlive_max_time():
    with hostile(drip) as url:
        begin = time.monotonic()
        done = get("-m", "0.5", url)
        assert time.monotonic() - begin < 2.5
    assert done.returncode == 28


def test_the_rest_of_a_body_is_not_awaited_for_long():
    with hostile(drip) as url:
        begin = time.monotonic()
        done = get("-f", "-C", "10", url)  # it sends no part
        assert time.monotonic() - begin < 3.5
    assert done.returncode == 33


def test_a_file_that_becomes_shorter_ends_its_upload(tmp_path):
    """Its server waits for the rest that was announced."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(50_000_000)

    def answer(client):
        os.truncate(path, 10)
        while client.recv(65536):
            pass

    with hostile(answer) as url:
        done = get("-m", "60", "-T", path, f"{url}file")
    assert done.returncode == 26
    assert "its length has changed" in done.errors


def test_a_server_that_does_not_end_tls_is_left(tmp_path):
    path = tmp_path / "cert.pem"
    certificate().private_key_and_cert_chain_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    def answer(client):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        done.wait(DEADLINE)

    done = threading.Event()
    with hostile(answer, context) as url:
        begin = time.monotonic()
        found = get("-k", url)
        assert time.monotonic() - begin < 5
        done.set()
    assert (found.returncode, found.stdout) == (0, b"ok")


def test_informational_responses_have_a_bound():
    def flood(client):
        for _ in range(200):
            client.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with hostile(flood) as url:
        done = get(url)
    assert done.returncode == 56
    assert "informational" in done.errors


@pytest.mark.parametrize("user", ["x:y@", "@", "x@"])
def test_a_location_with_a_user_gets_no_other_secret(user):
    """A server must not make another host the one that credentials are for."""
    with site() as first, site() as other:
        to = other.http.replace("http://", f"http://{user}")
        fields = dict(
            get(
                *("-L", "-b", "a=1", "-H", "Cookie: b=2", "-H", "Authorization: c"),
                f"{first.http}/redirect/302?to={to}/echo",
            ).json["fields"]
        )
    assert "cookie" not in fields
    assert fields["authorization"].startswith("Basic ")  # that of the location


def test_credentials_of_a_location_stay_there():
    with site() as first, site() as other:
        to = other.http.replace("http://", "http://x:y@")
        back = f"{to}/redirect/302?to={first.http}/echo"
        options = ("-L", "-u", "user:pass")
        kept = dict(get(*options, f"{first.http}/echo").json["fields"])
        fields = dict(
            get(*options, f"{first.http}/redirect/302?to={back}").json["fields"]
        )
    assert fields["authorization"] == kept["authorization"]


@pytest.mark.parametrize("end", [b"\x85", b"\x1c", b"\x1e", b"\xe2\x80\xa8"])
def test_a_cookie_s_value_plants_no_other_cookie(tmp_path, end):
    jar = tmp_path / "jar"
    line = OTHERS.replace("127.0.0.1", "other.example").encode()

    def answer(client):
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nset-cookie: a=1"
        client.sendall(head + end + line + b"; path=/\r\n\r\n")

    with hostile(answer) as url:
        assert get("-c", jar, url).returncode == 0
    cookies = Cookies(keep=False)
    cookies.load(jar)
    assert cookies.find("http://other.example/", given=False) is None


@pytest.mark.parametrize(
    ("server", "cookie", "asked"),
    [
        ("127.0.0.1", "a=1; Domain=0.0.1", "127.5.0.0.1"),
        ("10.1.0.1", "a=1; Domain=.0.1", "127.2.0.1"),
        ("127.0.0.1", "a=1; Domain=.0.0.1", "126.0.0.1"),
        ("example.org", "a=1", "www.example.org"),
        ("printer", "a=1; Domain=.local", "localhost"),
        ("printer.local", "a=1; Domain=local", "nas.local"),
        ("a.example.org", "a=1; Domain=b.example.org", "b.example.org"),
        ("a.example.org", "a=1; Domain=org", "example.org"),
    ],
)
def test_cookies_are_for_no_other_host(server, cookie, asked):
    cookies = Cookies(keep=True)
    cookies.received(f"http://{server}/", [(b"set-cookie", cookie.encode())])
    assert cookies.find(f"http://{asked}/", given=False) is None


@pytest.mark.parametrize(
    ("server", "cookie", "asked"),
    [
        ("127.0.0.1", "a=1; Domain=127.0.0.1", "127.0.0.1"),
        ("[::1]:8443", "a=1", "[::1]:8443"),
        ("a.example.org", "a=1; Domain=example.org", "b.example.org"),
        ("localhost", "a=1", "localhost:80"),
    ],
)
def test_cookies_are_for_their_own_host(server, cookie, asked):
    cookies = Cookies(keep=True)
    cookies.received(f"http://{server}/", [(b"set-cookie", cookie.encode())])
    assert cookies.find(f"http://{asked}/", given=False) == "a=1"


@pytest.mark.parametrize("option", ["-D", "-c"])
def test_heads_and_cookies_do_not_act_in_a_terminal(option, monkeypatch):
    def answer(client):
        client.sendall(
            b"HTTP/1.1 200 \x1b[31mOK\r\ncontent-length: 0\r\n"
            b"x: \x1b]0;title\x07\r\nset-cookie: a=\x9b31m\r\n\r\n"
        )

    master, slave = os.openpty()
    with hostile(answer) as url:
        done = subprocess.run(
            [sys.executable, "-m", "nghttp2py", "get", option, "-", url],
            stdout=slave,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
        )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal hangs up
        while piece := os.read(master, 65536):
            shown += piece
    os.close(master)
    assert done.returncode == 0, done
    assert b"9b31m" in shown
    assert not {0x1B, 0x07} & set(shown) and b"\xc2\x9b" not in shown, shown
