"""The page of ``make run`` in Chromium: it goes on by HTTP/3, and all of it works."""

import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from devtools import browser
from loops import in_loop

HELLO = Path(__file__).parent.parent / "examples" / "hello.py"


@contextmanager
def hello():
    """The example; gives its URL, and the options of Chromium that it prints."""
    with subprocess.Popen(
        [sys.executable, "-u", HELLO, "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            url = process.stdout.readline().split()[1]
            process.stdout.readline()
            *_, trust, quic, last = process.stdout.readline().split()
            assert last == url
            yield url, trust, quic
        finally:
            process.terminate()
    assert process.returncode == 0


async def press(page, button, pattern):
    """Press a button; return what its card says at the end."""
    await page.run(f"document.getElementById('{button}').click()")
    return await page.text(f"{button}-said", pattern)


@in_loop
async def test_the_page_goes_on_by_http3_and_its_buttons_work(tmp_path):
    with hello() as (url, *options):
        async with browser(url, tmp_path, *options) as page:
            story = await page.text("story", "in use|stays")
            assert story.startswith("The page came by HTTP/2. alt-svc told of HTTP/3")
            assert await page.text("now", ".") == "HTTP/3"
            many = await press(page, "many", "ms|rror")
            assert re.match(r"100 answers by HTTP/3 in \d+ ms", many)
            upload = await press(page, "upload", "/s|rror|failed")
            assert upload.startswith("16.0 MB by HTTP/3")
            socket = await press(page, "socket", "ms|rror|failed")
            assert re.match(r"20 echoes by HTTP/[23]", socket)
            clock = await press(page, "clock", "5 of 5|rror|early")
            assert clock.startswith("Event 5 of 5 by HTTP/3")
            # The activity shows it, and numbers that go up.
            await page.text("log", "/clock")
            await page.text("requests", r"^1\d\d$")
            assert await page.run("document.getElementById('hint').hidden")
            for width in (390, 800, 1400):
                await page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=900,
                    deviceScaleFactor=1,
                    mobile=width == 390,
                )
                root = "document.documentElement"
                assert await page.run(f"{root}.scrollWidth <= {root}.clientWidth")


@in_loop
async def test_a_browser_that_stays_with_http2_is_told_how_to_go_on(tmp_path):
    with hello() as (url, trust, quic):
        async with browser(url, tmp_path, trust) as page:
            story = await page.text("story", "in use|stays")
            assert story == "The page came by HTTP/2; this browser stays with it."
            command = await page.text("command", "chromium")
            assert trust in command and quic in command and url in command
            assert not await page.run("document.getElementById('hint').hidden")
