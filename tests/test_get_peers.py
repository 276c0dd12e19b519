"""``nghttp2py get`` beside curl, line by line, on Debian's nginx and our own server."""

import subprocess

import peers
import pytest
from get_site import get, site
from peers import authority, certificate, free_port, program

SETTINGS = """
    server {{
        listen 127.0.0.1:{clear};
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {root}/cert.pem;
        ssl_certificate_key {root}/key.pem;
        root {root}/site;
        gzip on;
        gzip_types text/plain;
        location /moved {{ return 301 /text; }}
        location /gone {{ return 410 "it is gone"; }}
        location /drop {{ return 444; }}
    }}
"""
# What is the same in two answers at different moments.
VARIABLES = (
    *("http_code", "http_version", "size_download", "content_type", "num_redirects"),
    *("remote_ip", "exitcode", "method", "redirect_url", "num_connects", "size_header"),
)
TEMPLATE = "\n".join(f"{name}=%{{{name}}}" for name in VARIABLES)


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    root = tmp_path_factory.mktemp("nginx")
    (root / "site").mkdir()
    (root / "site" / "text").write_text("some text\n" * 100)
    (root / "site" / "data").write_bytes(bytes(range(256)) * 1000)
    certificate().private_key_pem.write_to_path(root / "key.pem")
    certificate().cert_chain_pems[0].write_to_path(root / "cert.pem")
    authority().cert_pem.write_to_path(root / "ca.pem")
    clear, tls = free_port(), free_port()
    settings = SETTINGS.format(root=root, clear=clear, tls=tls)
    with peers.nginx(root, clear, settings), site() as own:
        yield {
            "clear": f"http://127.0.0.1:{clear}",
            "tls": f"https://localhost:{tls}",
            "own": own.http,
            "ca": str(root / "ca.pem"),
        }


def without_date(output):
    lines = output.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.lower().startswith(b"date:"))


@pytest.mark.parametrize("where", ["clear", "tls"])
@pytest.mark.parametrize(
    "options",
    [
        ["{url}/text"],
        ["-i", "{url}/text"],
        ["-I", "{url}/text"],
        ["{url}/missing"],
        ["-f", "{url}/missing"],
        ["-i", "-f", "{url}/gone"],
        ["{url}/moved"],
        ["-L", "-i", "{url}/moved"],
        ["-L", "--max-redirs", "0", "{url}/moved"],
        ["--compressed", "{url}/text"],
        ["-r", "0-9", "{url}/data"],
        ["-r", "999999-", "{url}/data"],
        ["-C", "100", "{url}/data"],
        ["-X", "DELETE", "{url}/text"],
        ["-d", "a=1", "{url}/text"],
        ["{url}/text", "{url}/gone"],
    ],
    ids=" ".join,
)
def test_nginx_is_asked_as_by_curl(urls, where, options):
    compare(urls, [option.format(url=urls[where]) for option in options])


@pytest.mark.parametrize(
    "options",
    [
        ["-d", "a=1", "-d", "b", "{url}/echo"],
        ["-u", "user:pass", "-H", "X-A: 1", "-H", "X-B;", "-e", "r", "{url}/echo"],
        ["-G", "--data-urlencode", "q=a b&c", "{url}/echo"],
        ["-L", "-d", "a=1", "{url}/redirect/302"],
        ["-L", "-d", "a=1", "{url}/redirect/307"],
        ["-b", "a=1; b=2", "{url}/cookies"],
        ["-i", "{url}/early"],
        ["-f", "{url}/status/503"],
        ["{url}/reset"],
        ["{url}/broken"],
    ],
    ids=" ".join,
)
def test_our_server_is_asked_as_by_curl(urls, options):
    # Each has its own default of these.
    fields = ["-A", "agent"]
    compare(urls, [*fields, *(option.format(url=urls["own"]) for option in options)])


def compare(urls, options):
    """Status, fields, body, variables and exit code are those of curl."""
    options = ["-s", "--cacert", urls["ca"], "-w", TEMPLATE, *options]
    curl = subprocess.run(
        [program("curl"), *options], capture_output=True, timeout=peers.DEADLINE
    )
    done = get(*options)
    assert without_date(done.stdout) == without_date(curl.stdout)
    assert done.returncode == curl.returncode
