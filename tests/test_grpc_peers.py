"""The programs of examples/ for gRPC, with each other and with grpcio."""

import asyncio
import contextlib
import runpy
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from loops import DEADLINE, in_loop
from recipes import EXAMPLES, Page


def same(message):
    """A serializer for messages that are bytes."""
    return message


@contextlib.contextmanager
def example_server():
    """Run the example's server; gives its address."""
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "grpc_server.py", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


class Shout(grpc.GenericRpcHandler):
    """The same service by grpcio."""

    def service(self, details):
        if details.method == "/example.Shout/Once":
            return grpc.unary_unary_rpc_method_handler(self.once, same, same)
        if details.method == "/example.Shout/Each":
            return grpc.stream_stream_rpc_method_handler(self.each, same, same)
        return None

    def once(self, message, context):
        if message == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "on purpose")
        return message.upper()

    def each(self, messages, context):
        for message in messages:
            yield message.upper()


@contextlib.contextmanager
def grpcio_server():
    """Run a server of grpcio; gives its address."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[Shout()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(DEADLINE)


@contextlib.contextmanager
def grpcio_client(address):
    """The two methods of a server, as grpcio's client has them."""
    with grpc.insecure_channel(address) as channel:
        yield (
            channel.unary_unary("/example.Shout/Once", same, same),
            channel.stream_stream("/example.Shout/Each", same, same),
        )


SERVERS = pytest.mark.parametrize(
    "server", [example_server, grpcio_server], ids=["nghttp2py", "grpcio"]
)


@SERVERS
def test_our_client_calls_both_methods(server, tmp_path):
    page = Page("cookbook/grpc", tmp_path)
    with server() as address:
        for lines, answers in [
            ("hello\n", page.find("echo hello")[1]),
            ("one\ntwo\n", "once: ONE\neach: ONE\neach: TWO\n"),
        ]:
            done = subprocess.run(
                [sys.executable, EXAMPLES / "grpc_client.py", address],
                input=lines,
                capture_output=True,
                text=True,
                timeout=3 * DEADLINE,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == answers


@SERVERS
def test_the_client_of_grpcio_calls_both_methods(server):
    with server() as address, grpcio_client(address) as (once, each):
        assert once(b"one", timeout=DEADLINE) == b"ONE"
        large = b"a" * 1_000_000
        assert once(large, timeout=DEADLINE) == large.upper()
        assert list(each(iter([b"a", b"b"]), timeout=DEADLINE)) == [b"A", b"B"]


def test_each_message_is_answered_before_the_next_is_sent():
    answered = threading.Semaphore(1)

    def messages():
        for number in range(10):
            assert answered.acquire(timeout=DEADLINE)
            yield b"message %d" % number

    with example_server() as address, grpcio_client(address) as (_, each):
        for answer in each(messages(), timeout=DEADLINE):
            assert answer.startswith(b"MESSAGE")
            answered.release()


def test_a_method_that_does_not_exist_is_unimplemented():
    with example_server() as address, grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/example.Shout/Never", same, same)
        with pytest.raises(grpc.RpcError) as failed:
            call(b"", timeout=DEADLINE)
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


@in_loop
async def test_a_status_of_grpcio_reaches_our_client():
    example = runpy.run_path(str(EXAMPLES / "grpc_client.py"))
    with grpcio_server() as address:
        async with example["Client"](f"http://{address}") as client:
            for method, message, shown in [
                ("/example.Shout/Once", b"fail", "status 9 on purpose"),
                ("/example.Shout/Never", b"", "status 12"),
            ]:
                with pytest.raises(example["CallError"], match=shown):
                    await asyncio.wait_for(
                        example["unary"](client, method, message), DEADLINE
                    )
