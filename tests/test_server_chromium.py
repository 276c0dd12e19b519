"""HTTP2Server with a browser: Chromium, headless."""

import pytest
from loops import in_loop
from peers import run

from nghttp2py.asyncio import start_server
from nghttp2py.server import BaseRequestHandler, HTTP2Server

# The script writes into the document what the style sheet has made of it, and
# what protocol the browser says it was fetched by.
PAGE = """<!doctype html>
<link rel="stylesheet" href="/style.css">
<body>
<script>
addEventListener("load", () => {
  const page = performance.getEntriesByType("navigation")[0];
  document.body.textContent =
    getComputedStyle(document.body).color + " by " + page.nextHopProtocol;
});
</script>
"""


async def dump_dom(url, directory):
    """Return the page as Chromium has it when it has loaded."""
    return await run(
        "chromium",
        "--headless",
        "--no-sandbox",  # which root cannot have
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--ignore-certificate-errors",
        f"--user-data-dir={directory}",
        "--dump-dom",
        url,
    )


@pytest.mark.parametrize("push", [False, True])
@in_loop
async def test_chromium_renders_a_page_and_its_style(tls, tmp_path, push):
    asked = []

    class Site(BaseRequestHandler):
        def on_headers(self):
            asked.append((self.path, self.push_enabled))
            if self.path == b"/":
                if push:
                    # Chromium takes none: the program need not know.
                    self.push("/style.css", body="body { color: red }")
                self.send_response(200, {"content-type": "text/html"}, PAGE)
            elif self.path == b"/style.css":
                self.send_response(
                    200, {"content-type": "text/css"}, "body { color: rgb(1, 2, 3) }"
                )
            else:
                self.send_response(404)

    async with HTTP2Server(("127.0.0.1", 0), Site, ssl=tls.server) as server:
        port = server.sockets[0].getsockname()[1]
        document = await dump_dom(f"https://localhost:{port}/", tmp_path)
    assert "rgb(1, 2, 3) by h2" in document
    assert (b"/", False) in asked and (b"/style.css", False) in asked


UPLOADS = """<!doctype html>
<body>
<script>
for (const n of [1, 4, 16]) {
  const request = new XMLHttpRequest();
  request.open("POST", "/upload", false);
  request.send(new Uint8Array(n << 20));
  document.body.append(`${request.status} ${request.responseText}, `);
}
</script>
"""


class Refusing(BaseRequestHandler):
    def on_headers(self):
        if self.path == b"/":
            self.send_response(200, {"content-type": "text/html"}, UPLOADS)
        else:
            self.send_response(413, body="too large")


async def refuse(stream):
    if stream.request.target == b"/":
        body = UPLOADS.encode()
        await stream.send_response(200, {"content-type": "text/html"}, body)
    else:
        await stream.send_response(413, body=b"too large")


@pytest.mark.parametrize("kind", ["handler", "coroutine"])
@in_loop
async def test_chromium_takes_a_response_that_refuses_its_upload(tls, tmp_path, kind):
    """RFC 9113, 8.1: RST_STREAM with NO_ERROR follows the response."""
    if kind == "handler":
        server = HTTP2Server(("127.0.0.1", 0), Refusing, ssl=tls.server)
        await server.start()
    else:
        server = await start_server(
            lambda protocol: protocol.serve_streams(refuse),
            "127.0.0.1",
            0,
            ssl=tls.server,
        )
    async with server:
        port = server.sockets[0].getsockname()[1]
        document = await dump_dom(f"https://localhost:{port}/", tmp_path)
    assert "413 too large, " * 3 in document
