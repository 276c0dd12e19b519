"""``nghttp2py get`` beside curl, line by line, on Debian's nginx and Apache, and on our
own server."""

import subprocess

import peers
import pytest
from apache import apache
from get_site import get, site
from peers import authority, certificate, free_port, program

NGINX = """
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
APACHE = """
SetOutputFilter DEFLATE
Redirect permanent /moved /text
Redirect gone /gone
ErrorDocument 410 "it is gone"
LimitRequestBody 1000
"""
FILES = {"text": b"some text\n" * 100, "data": bytes(range(256)) * 1000}
# What is the same in two answers at different moments.
VARIABLES = (
    *("http_code", "http_version", "size_download", "content_type", "num_redirects"),
    *("remote_ip", "exitcode", "method", "redirect_url", "num_connects", "size_header"),
)
TEMPLATE = "\n".join(f"{name}=%{{{name}}}" for name in VARIABLES)


@pytest.fixture(scope="module")
def authority_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    root = tmp_path_factory.mktemp("nginx")
    (root / "site").mkdir()
    for name, data in FILES.items():
        (root / "site" / name).write_bytes(data)
    certificate().private_key_pem.write_to_path(root / "key.pem")
    certificate().cert_chain_pems[0].write_to_path(root / "cert.pem")
    clear, tls = free_port(), free_port()
    settings = NGINX.format(root=root, clear=clear, tls=tls)
    with peers.nginx(root, clear, settings):
        yield {"clear": f"http://127.0.0.1:{clear}", "tls": f"https://localhost:{tls}"}


@pytest.fixture(scope="module")
def httpd():
    with apache(FILES, APACHE) as (clear, tls):
        yield {"clear": f"http://127.0.0.1:{clear}", "tls": f"https://localhost:{tls}"}


@pytest.fixture(scope="module")
def own():
    with site() as running:
        yield running.http


def without_date(output):
    lines = output.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.lower().startswith(b"date:"))


REQUESTS = [
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
    ["{url}/text", "{url}/gone"],
    ["-H", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "{url}/text"],
    ["-I", "-L", "{url}/moved"],
    ["-r", "-5", "{url}/data"],
    ["-w", "%header{{server}} %{{scheme}} %{{urlnum}}", "{url}/text", "{url}/data"],
    ["-A", "", "-e", "", "{url}/text"],
    ["-u", "user:pass", "-f", "{url}/missing"],
    ["-D", "-", "{url}/text"],
    ["--connect-to", "::127.0.0.1:1", "{url}/text"],
]
UPLOADS = [
    ["-d", "a=1", "{url}/text"],
    ["-H", "Expect:", "-T", "{file}", "{url}/text"],
]
OPTIONS = pytest.mark.parametrize("options", REQUESTS + UPLOADS, ids=" ".join)
# Apache resets the stream of a body that it does not read, and curl 7.88 then loses the
# response at times.
READING = pytest.mark.parametrize("options", REQUESTS, ids=" ".join)
WHERE = pytest.mark.parametrize("where", ["clear", "tls"])


@WHERE
@OPTIONS
def test_nginx_is_asked_as_by_curl(nginx, authority_file, tmp_path, where, options):
    compare(authority_file, tmp_path, options, nginx[where])


@WHERE
@READING
def test_apache_is_asked_as_by_curl(httpd, authority_file, tmp_path, where, options):
    compare(authority_file, tmp_path, options, httpd[where])


@READING
def test_apache_is_asked_in_http2_without_tls_as_by_curl(
    httpd, authority_file, tmp_path, options
):
    # curl 7.88 takes a second request to such a connection for one of HTTP/0.9.
    options = [option for option in options if option != "-L"]
    del options[[each[:5] == "{url}" for each in options].index(True) + 1 :]
    options = ["--http2-prior-knowledge", *options]
    compare(authority_file, tmp_path, options, httpd["clear"])


@OPTIONS
def test_apache_is_asked_in_http11_over_tls_as_by_curl(
    httpd, authority_file, tmp_path, options
):
    compare(authority_file, tmp_path, ["--http1.1", *options], httpd["tls"])


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
def test_our_server_is_asked_as_by_curl(own, authority_file, tmp_path, options):
    # Each has its own default of these.
    compare(authority_file, tmp_path, ["-A", "agent", *options], own)


def compare(authority_file, directory, options, url):
    """Status, fields, body, variables and exit code are those of curl."""
    upload = directory / "upload"
    upload.write_bytes(b"to upload\n" * 20)
    options = [option.format(url=url, file=upload) for option in options]
    options = ["-s", "--cacert", authority_file, "-w", TEMPLATE, *options]
    curl = subprocess.run(
        [program("curl"), *options], capture_output=True, timeout=peers.DEADLINE
    )
    done = get(*options)
    assert without_date(done.stdout) == without_date(curl.stdout)
    assert done.returncode == curl.returncode
