"""The examples of the streams API do what they say."""

import subprocess
import sys
from pathlib import Path

from loops import in_loop
from peers import run

EXAMPLES = Path(__file__).parent.parent / "examples"


@in_loop
async def test_a_greeting_by_numbers():
    output = await run(
        sys.executable, "-X", "dev", "-W", "error", EXAMPLES / "streams_numbers.py"
    )
    assert "Good morning, Ada\n{'letters': '3'}\nthe client has gone" in output
    assert " ms away" in output


@in_loop
async def test_an_echo_and_its_client():
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "streams_server.py", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            url = server.stdout.readline().split()[-1]
            port = url.rstrip("/").rpartition(":")[2]
            output = await run(sys.executable, EXAMPLES / "streams_client.py", port)
            assert "200 3 2 1  6\n200 5 4 3 2 1  10\n" in output
            assert "round trip:" in output
            curl = ["curl", "-sS", "--http2-prior-knowledge"]
            assert await run(*curl, "-d", "hello", url) == "hello"
            assert await run(*curl, url) == "POST something\n"
            server.terminate()
            assert server.wait(10) == 0
        finally:
            server.kill()


@in_loop
async def test_a_client_without_a_server_says_so_in_a_line():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "streams_client.py", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1
