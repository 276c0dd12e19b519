"""The transports of httpx through real proxies: Debian's Apache and microsocks."""

import asyncio
import shutil

import pytest
from apache import apache
from httpx_clients import MODULES, calling, make_transport, serve, ways
from loops import in_loop
from peers import PEERS, client_tls, free_port, listening

PROXY = """
ProxyRequests on
ProxyVia on
AllowCONNECT 1-65535
<Proxy *>
    Require ip 127.0.0.1
</Proxy>
"""
MICROSOCKS = shutil.which("microsocks") or PEERS / "usr" / "bin" / "microsocks"


async def show(stream):
    """Answer with the version and the fields that a proxy adds."""
    fields = dict(stream.request.headers)
    text = b"%s %s" % (stream.link.version.encode(), fields.get(b"via", b"-"))
    await stream.send_response(200, body=text)


@pytest.fixture(scope="module")
def httpd():
    """Run Apache; give the URLs of its files, and of it as a proxy."""
    with apache({"text": b"text"}, PROXY) as (clear, tls):
        yield f"http://127.0.0.1:{clear}/text", f"https://localhost:{tls}/text"


@pytest.fixture(scope="module")
def socks():
    """Run microsocks; give its URL."""
    port = free_port()
    with listening([MICROSOCKS, "-i", "127.0.0.1", "-p", port], port):
        yield f"socks5://127.0.0.1:{port}"


modules = pytest.mark.parametrize("module", MODULES)


@modules
@ways
@in_loop
async def test_a_forwarding_proxy_gets_requests_of_http(way, module, httpd, paths, tls):
    proxy = httpd[0].removesuffix("/text")
    module = MODULES[module]
    async with (
        serve(show, None, http3=False) as origin,
        calling(way, tls.authority, module, proxy=proxy) as caller,
    ):
        url = origin.replace("https:", "http:")
        response = await caller.get(url)
        assert response.text.startswith("HTTP/1.1 1.1 localhost")
        assert response.http_version == "HTTP/1.1"
        with pytest.raises(module.HTTPStatusError):
            (await caller.get("http://127.0.0.1:1/")).raise_for_status()


@modules
@ways
@in_loop
async def test_a_proxy_connects_requests_of_https(way, module, httpd, paths, tls):
    proxy = httpd[0].removesuffix("/text")
    module = MODULES[module]
    async with (
        serve(show, paths) as origin,
        calling(way, tls.authority, module, proxy=proxy) as caller,
    ):
        for _ in range(2):
            assert (await caller.get(origin)).text == "HTTP/1.1 -"
        with pytest.raises(module.ProxyError):
            await caller.get("https://127.0.0.1:1/")


@modules
@ways
@in_loop
async def test_a_proxy_of_socks_connects_all(way, module, socks, paths, tls):
    module = MODULES[module]
    async with (
        serve(show, paths) as origin,
        serve(show, None, http3=False) as clear,
        calling(way, tls.authority, module, proxy=socks) as caller,
    ):
        assert (await caller.get(origin)).text == "HTTP/1.1 -"
        response = await caller.get(clear.replace("https:", "http:"))
        assert response.text == "HTTP/1.1 -"


@modules
@ways
@in_loop
async def test_mounts_send_some_hosts_through_a_proxy(way, module, httpd, paths, tls):
    proxy = httpd[0].removesuffix("/text")
    mounts = {"all://localhost": make_transport(way, tls.authority, proxy=proxy)}
    options = {"mounts": mounts}
    async with (
        serve(show, paths) as origin,
        calling(way, tls.authority, MODULES[module], options) as caller,
    ):
        assert (await caller.get(origin)).text == "HTTP/2 -"
        through = origin.replace("127.0.0.1", "localhost")
        assert (await caller.get(through)).text == "HTTP/1.1 -"


@ways
@in_loop
async def test_apache_is_asked_over_http2_and_http11(way, httpd):
    context = client_tls()
    async with calling(way, context) as caller:
        response = await caller.get(httpd[1])
        assert (response.http_version, response.text) == ("HTTP/2", "text")
        response = await caller.get(httpd[0])
        assert (response.http_version, response.text) == ("HTTP/1.1", "text")
    async with calling(way, context, http1=False) as caller:
        found = await asyncio.gather(*(caller.get(httpd[0]) for _ in range(50)))
        assert {r.http_version for r in found} == {"HTTP/2"}
    async with calling(way, context, http2=False) as caller:
        assert (await caller.get(httpd[1])).http_version == "HTTP/1.1"
