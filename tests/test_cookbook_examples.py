"""The recipes of the cookbook."""

import asyncio
import runpy
import subprocess
import sys
from pathlib import Path

from loops import DEADLINE, in_loop
from peers import Echo, free_port, run

from nghttp2py import HTTP2Server

EXAMPLES = Path(__file__).parent.parent / "examples"
CURL = ["curl", "-sS", "--http2-prior-knowledge"]


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


@in_loop
async def test_events_end_when_the_server_stops():
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "events.py", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            url = server.stdout.readline().strip()
            with subprocess.Popen(
                [*CURL, "--no-buffer", url + "events"],
                stdout=subprocess.PIPE,
                text=True,
            ) as client:
                assert client.stdout.readline() == 'data: {"number": 1}\n'
                server.terminate()
                rest = client.stdout.read()
                assert rest.endswith("event: end\ndata: the server stops\n\n")
                assert client.wait() == 0
            assert server.wait() == 0
        finally:
            server.kill()


@in_loop
async def test_an_upload_that_is_too_large_is_refused(tmp_path):
    example = runpy.run_path(str(EXAMPLES / "events.py"))
    server = example["Server"](example["app"], ("127.0.0.1", 0))
    (tmp_path / "good").write_bytes(bytes(example["LIMIT"]))
    (tmp_path / "large").write_bytes(bytes(example["LIMIT"] + 1))
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/upload"
        stored = await run(*CURL, "-T", str(tmp_path / "good"), url)
        assert stored == "1048576 bytes\n"
        for chunked in [], ["-H", "content-length:"]:
            large = await run(*CURL, *chunked, "-T", str(tmp_path / "large"), url)
            assert large == "more than 1048576 bytes\n"
        assert "404" in await run(*CURL, "-i", url + "/none")
