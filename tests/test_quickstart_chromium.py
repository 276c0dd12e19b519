"""The commands of the quickstart, one after the other, as they stand there."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from loops import in_loop
from peers import free_port, run, wait_for_port

from nghttp2py.local_certificate import local_certificate

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "quickstart.rst").read_text()
HEADLESS = (
    "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --dump-dom "
)


def sessions():
    """Each command with what it prints."""
    for found in re.finditer(r"^   \$ (.*)\n((?:   (?!\$).*\n)*)", PAGE, re.M):
        yield found[1], found[2].replace("   ", "")


@asynccontextmanager
async def started(command, directory, port):
    with subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            await asyncio.to_thread(wait_for_port, port, process)
            yield
        finally:
            process.terminate()


@in_loop
async def test_the_commands_of_the_quickstart_do_what_it_says(tmp_path, monkeypatch):
    """But for the ports, which may be taken here."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    program = re.search(r"code-block:: python\n\n((?:   .*\n|\n)+)", PAGE)[1]
    (tmp_path / "hello.py").write_text(re.sub(r"^   ", "", program, flags=re.M))
    plain, secure = free_port(), free_port()

    def moved(command):
        command = command.replace("8000", str(plain)).replace("8443", str(secure))
        return (
            command.replace("app", f"app --port {plain}")
            * (command.endswith("hello:app"))
            or command
        )

    async def shown(command):
        return await run("sh", "-c", f"cd {tmp_path} && {moved(command)}")

    serve, http1, http2, make, serve_all, get, browse = sessions()
    async with started(moved(serve[0]), tmp_path, plain):
        for command, output in (http1, http2):
            assert await shown(command) == output
    assert await shown(make[0]) == ""
    made = (tmp_path / "made").read_text().splitlines()
    assert made == [str(part) for part in local_certificate()]
    async with started(moved(serve_all[0]), tmp_path, secure):
        assert await shown(get[0]) == get[1]
        page = await shown(browse[0].replace("chromium ", HEADLESS))
    assert "Hello over HTTP/3!" in page
