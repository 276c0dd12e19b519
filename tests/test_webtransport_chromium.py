"""The recipe for WebTransport: its server with its client, and with a browser."""

import contextlib
import re
import subprocess
import sys

import pytest
from devtools import browser
from loops import DEADLINE, in_loop
from recipes import EXAMPLES, Page


@pytest.fixture
def recipe(tmp_path):
    """The page, and a certificate that its command has made."""
    page = Page("cookbook/webtransport", tmp_path)
    page.run("openssl")
    return page


@contextlib.contextmanager
def serving(directory):
    """Run the example's server; gives the URL of its page."""
    with subprocess.Popen(
        [
            sys.executable,
            EXAMPLES / "webtransport_server.py",
            "cert.pem",
            "key.pem",
            "0",
        ],
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_both_messages_come_back_to_our_client(recipe):
    with serving(recipe.directory) as url:
        recipe.port = re.search(r":(\d+)/", url)[1]
        recipe.run("python examples/webtransport_client.py")
        done = subprocess.run(
            [
                *(sys.executable, EXAMPLES / "webtransport_client.py", "cert.pem"),
                f"https://127.0.0.1:{recipe.port}/nothing",
            ],
            cwd=recipe.directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 1 and "the session is refused: 404" in done.stderr


@in_loop
async def test_both_messages_come_back_to_a_page_of_a_browser(recipe, tmp_path):
    with serving(recipe.directory) as url:
        async with browser(url, tmp_path / "profile") as page:
            assert await page.text("datagram", ".") == "Hello, datagram"
            assert await page.text("stream", ".") == "Hello, stream"
            assert await page.text("error", "^$") == ""
