"""The HTTP/3 programs of examples/ speak with each other."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def server(certificates, tmp_path_factory):
    """The example's URL, and the file of the authority that vouches for it."""
    _, issued, _, authority = certificates
    directory = tmp_path_factory.mktemp("http3")
    issued.private_key_pem.write_to_path(str(directory / "key.pem"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(directory / "cert.pem"), append=True)
    program = subprocess.Popen(
        [
            sys.executable,
            EXAMPLES / "http3_server.py",
            "--port=0",
            "--host=127.0.0.1",
            f"--certificate={directory / 'cert.pem'}",
            f"--private-key={directory / 'key.pem'}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        url = program.stdout.readline().strip()
        assert url.startswith("https://127.0.0.1:"), program.stderr.read()
        yield url, authority
        program.terminate()
        assert program.stderr.read() == ""


def fetch(server, *arguments):
    url, authority = server
    paths = [a if a.startswith("-") else url + a for a in arguments]
    return subprocess.run(
        [
            sys.executable,
            EXAMPLES / "http3_client.py",
            f"--ca-certs={authority}",
            *paths,
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )


def test_a_page_comes_with_its_style(server):
    done = fetch(server, "")
    assert b"Hello, HTTP/3" in done.stdout
    assert b"pushed: /style.css" in done.stderr
    assert b"200 https://" in done.stderr


def test_many_bodies_on_one_connection(server):
    done = fetch(server, "10", "300000", "0", "style.css")
    assert len(done.stdout) == 10 + 300000 + len(b"p { font: 2rem system-ui }\n")


def test_what_is_posted_comes_back(server):
    done = fetch(server, "--data=some text", "echo")
    assert done.stdout == b"some text"


def test_what_is_not_there(server):
    done = fetch(server, "nowhere")
    assert b"404" in done.stderr
