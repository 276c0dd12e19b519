"""The recipes of the cookbook."""

import asyncio
import subprocess
import sys
from pathlib import Path

from loops import DEADLINE, in_loop
from peers import Echo, free_port

from nghttp2py import HTTP2Server

EXAMPLES = Path(__file__).parent.parent / "examples"


@in_loop
async def test_a_thousand_paths_are_fetched_over_one_connection():
    paths = [f"/{i}" for i in range(1000)]
    async with HTTP2Server(("127.0.0.1", 0), Echo) as server:
        port = server.sockets[0].getsockname()[1]
        process = await run_with(
            "\n".join(["", *paths]), EXAMPLES / "crawl.py", f"http://127.0.0.1:{port}"
        )
        assert server.counts.accepted == 1
    assert sorted(process.splitlines()) == sorted(
        f"200 {path}: {len(path)} bytes" for path in paths
    )


def test_a_crawler_ends_if_there_is_no_server():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "crawl.py", f"http://127.0.0.1:{free_port()}"],
        input="/a\n/b\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "crawl.py: " in done.stderr and "Traceback" not in done.stderr


async def run_with(text, *command):
    """Run a program with a text as its input; return its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate(text.encode())
    assert process.returncode == 0
    return output.decode()
