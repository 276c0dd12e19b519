"""``nghttp2py get`` against servers that mean harm."""

import contextlib
import socket
import threading
import time

import pytest
from get_site import get, site
from loops import DEADLINE


@contextlib.contextmanager
def hostile(answer):
    """Serve one connection in a thread: ``answer`` gets its socket, once it has asked.

    It ends when the client has gone.
    """

    def serve():
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            answer(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
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
