"""A real application in a browser: Chromium, headless, over each version."""

import asyncio
import base64
import contextlib
import hashlib
import os
import signal

import pytest
from asgi_apps import (
    django_site,
    fastapi_site,
    flask_site,
    quart_site,
    starlette_site,
)
from asgi_servers import body, hello, read_all, start
from asgi_sites import serving_site
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from loops import in_loop, until
from quic_pair import identity

from nghttp2py.asgi.wsgi import wrap_wsgi

#: Seconds that Chromium may take to start and run a page on a loaded machine.
DEADLINE = 45

UPLOAD = bytes(i * i >> 8 & 0xFF for i in range(3 << 20))

# Options of Chromium for each version.  Over HTTP/2 it uses RFC 8441 by itself; RFC
# 9220 is behind a switch.
VERSIONS = {
    "http/1.1": ["--disable-http2", "--disable-quic"],
    "h2": ["--disable-quic"],
    "h3": ["--enable-features=EnableWebsocketsOverHttp3"],
}


def fingerprint():
    """The digest of the certificate's key, for Chromium's option to trust it."""
    certificate = x509.load_pem_x509_certificate(identity()[0])
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


@contextlib.asynccontextmanager
async def chromium(directory, url, *options):
    process = await asyncio.create_subprocess_exec(
        *("chromium", "--headless", "--disable-gpu", "--disable-dev-shm-usage"),
        "--no-sandbox",  # which root cannot have
        *("--disable-background-networking", "--disable-component-update"),
        f"--user-data-dir={directory / 'profile'}",
        "--host-resolver-rules=MAP localhost 127.0.0.1, MAP *.localhost 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={fingerprint()}",
        "--remote-debugging-port=0",  # or it exits when the page has loaded
        *options,
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # With all the processes that it has started.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.parametrize("version", list(VERSIONS))
@in_loop
async def test_a_page_streams_events_and_websockets_come(version, tmp_path):
    files = tmp_path / "static"
    files.mkdir()
    (files / "style.css").write_text("body { color: rgb(1, 2, 3) }")
    app = starlette_site.make_app(files)
    options = list(VERSIONS[version])
    async with serving_site(app, tmp_path, disconnect_grace=0.1) as site:
        if version == "h3":
            options.append(f"--origin-to-force-quic-on=localhost:{site.port}")
        async with chromium(tmp_path, f"{site.origin}/?echo", *options):
            report = await asyncio.wait_for(app.seen.reports.get(), DEADLINE)
            # EventSource has closed it.
            await until(lambda: app.seen.sources == [1, 1])
    assert report == {
        "color": "rgb(1, 2, 3)",
        "events": ["event 0", "event 1", "event 2"],
        "stream": len(starlette_site.PIECE) * starlette_site.PIECES,
        "upload": {"size": 3 << 20, "sha256": hashlib.sha256(UPLOAD).hexdigest()},
        "protocol": version,
        "echo": ["text", "more", 1000, "done"],
    }


# Every framework has a host of its own, and a page of this file, whose script asks the
# framework's application and then goes to the next page.
PAGE = """<!DOCTYPE html><script type=module>
const digest = "%(digest)s";
const octets = Uint8Array.from({length: 3 << 20}, (_, i) => (i * i >> 8) & 255);
const file = new File([octets], "file.bin");
const text = async (path, options) => (await fetch(path, options)).text();
const json = async (path, options) => (await fetch(path, options)).json();
const form = (parts) => {
  const data = new FormData();
  for (const [name, value] of Object.entries(parts)) data.append(name, value);
  return {method: "POST", body: data};
};
const check = (name, ok) => { if (!ok) throw new Error(name); };
const lines = Array.from({length: 100}, (_, i) => i + "\\n").join("");
try {
  %(script)s
  const used = performance.getEntriesByType("resource").map((e) => e.nextHopProtocol);
  await fetch("/report", {method: "POST", body: [...new Set(used)].join()});
  if ("%(next)s") location = "https://%(next)s.localhost:%(port)d/page";
} catch (error) {
  await fetch("/report", {method: "POST", body: String(error)});
}
</script>"""

SCRIPTS = {
    "fastapi": """
  const item = {name: "a", price: 1.5};
  const options = {method: "POST", body: JSON.stringify(item),
    headers: {"content-type": "application/json"}};
  const response = await fetch("/items", options);
  check("items", response.status == 201 && (await response.json()).name == "a");
  check("missing", (await fetch("/missing")).status == 404);
  check("rows", (await text("/rows")).split("\\n").length == 1001);
  const upload = await json("/upload", form({title: "t", file}));
  check("upload", upload.sha256 == digest && upload.name == "file.bin");
  check("thread", (await json("/sync/7")).square == 49);
""",
    "django": """
  await json("/count");
  check("session", (await json("/count")).count == 2);
  check("upload", (await json("/upload", form({file}))).sha256 == digest);
  check("stream", await text("/stream") == lines);
  const login = await text("/admin/login/");
  const token = /csrfmiddlewaretoken" value="(\\w+)"/.exec(login)[1];
  const admin = await fetch("/admin/login/?next=/admin/", form(
    {csrfmiddlewaretoken: token, username: "admin", password: "password"}));
  check("admin", admin.url.endsWith("/admin/") &&
    (await admin.text()).includes("Site administration"));
  check("css", (await text("/static/admin/css/base.css")).length > 1000);
""",
    "quart": """
  const upload = await json("/sha256", {method: "POST", body: file});
  check("upload", upload.sha256 == digest);
  check("stream", await text("/stream") == lines);
  await json("/count");
  check("session", (await json("/count")).count == 2);
""",
    "flask": """
  const hello = await json("/hello?name=%%C3%%A4", {headers: {"x-agent": "me"}});
  check("hello", hello.name == "\\u00e4" && hello.secure && hello.agent == "me");
  const upload = await json("/upload", form({title: "t", file}));
  check("upload", upload.sha256 == digest && upload.title == "t");
  check("stream", await text("/stream") == lines);
  await json("/count");
  check("session", (await json("/count")).count == 2);
""",
}


class Hosts:
    """Serves each application at a host of its name, and their pages."""

    def __init__(self, django_app):
        self.apps = {
            "fastapi": fastapi_site.make_app(),
            "django": django_app,
            "quart": quart_site.make_app(),
            "flask": wrap_wsgi(flask_site.make_app()),
        }
        self.reports = asyncio.Queue()

    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        name = dict(scope["headers"])[b"host"].decode().partition(".")[0]
        if scope["path"] == "/page":
            await self.send_page(name, scope["server"][1], send)
        elif scope["path"] == "/report":
            report = (await read_all(receive)).decode()
            await hello(scope, receive, send)
            self.reports.put_nowait((name, report))
        else:
            await self.apps[name](scope, receive, send)

    async def send_page(self, name, port, send):
        names = [*self.apps, ""]
        values = {"digest": hashlib.sha256(UPLOAD).hexdigest(), "port": port}
        values["next"] = names[names.index(name) + 1]
        page = PAGE % {**values, "script": SCRIPTS[name].replace("%%", "%")}
        await send(start(200, [(b"content-type", b"text/html; charset=utf-8")]))
        await send(body(page.encode()))


@pytest.fixture
def django_app():
    return django_site.make_app()  # not in an event loop


@pytest.mark.parametrize("version", ["h2", "h3"])
@in_loop
async def test_applications_of_every_framework_are_asked(version, django_app, tmp_path):
    hosts = Hosts(django_app)
    options = list(VERSIONS[version])
    async with serving_site(hosts, tmp_path) as site:
        if version == "h3":
            origins = [f"{name}.localhost:{site.port}" for name in hosts.apps]
            options.append(f"--origin-to-force-quic-on={','.join(origins)}")
        url = f"https://fastapi.localhost:{site.port}/page"
        async with chromium(tmp_path, url, *options):
            for name in hosts.apps:
                report = await asyncio.wait_for(hosts.reports.get(), DEADLINE)
                assert report == (name, version)
