"""Every end of a stream or a connection wakes the waiters, with its reason."""

import asyncio
import gc
import socket
import weakref

import pytest
from helpers import GET, GOAWAY, HEADERS, OK, PING, RST_STREAM, data, goaway, rst_stream
from loops import DEADLINE, idle, in_loops, until
from streams import Pair, Raw, silence

from nghttp2py.asyncio import open_connection, start_server
from nghttp2py.errors import (
    ConnectionTerminatedError,
    ErrorCode,
    NoSuchStreamError,
    SendException,
    StreamResetError,
)
from nghttp2py.h2 import H2Configuration, Setting

REQUEST = {":method": "POST", ":path": "/"}
NO_WINDOW = {Setting.INITIAL_WINDOW_SIZE: 0}

# Each call that waits for something of a client's stream.
WAITS = {
    "recv_response": lambda proto, i: proto.recv_response(i),
    "recv_informational": lambda proto, i: proto.recv_informational(i),
    "recv_trailers": lambda proto, i: proto.recv_trailers(i),
    "read_stream": lambda proto, i: proto.read_stream(i),
    "read_stream-1": lambda proto, i: proto.read_stream(i, -1),
    "read_stream9": lambda proto, i: proto.read_stream(i, 9),
    "readline": lambda proto, i: proto._stream(i).reader.readline(),
    "readexactly": lambda proto, i: proto._stream(i).readexactly(9),
    "send_data": lambda proto, i: proto.send_data(i, b"x"),
    "send_body": lambda proto, i: proto.send_body(i, [b"x", b"y"]),
    "drain": lambda proto, i: write_much(proto._stream(i)),
    "wait_closed": lambda proto, i: end_much(proto._stream(i)),
}
# And of the connection.
CONNECTION_WAITS = {
    "start_request": lambda proto: proto.start_request(REQUEST),
    "recv_request": lambda proto: proto.recv_request(),
    "accept_stream": lambda proto: proto.accept_stream(),
    "ping": lambda proto: proto.ping(),
    "wait_functional": lambda proto: proto.wait_functional(),
}


async def write_much(stream):
    stream.write(b"x" * 100000)
    await stream.drain()


async def end_much(stream):
    stream.write(b"x" * 100000)
    stream.write_eof()
    await stream.writer.wait_closed()


async def waiting(raw, wait):
    """Start a request, and a task that waits for something of it."""
    stream_id = await raw.protocol.start_request(REQUEST)
    await raw.frames(HEADERS)
    task = asyncio.ensure_future(wait(raw.protocol, stream_id))
    await idle()
    assert not task.done()
    return stream_id, task


def cause(error):
    return error.__cause__ if isinstance(error, SendException) else error


async def ending(task):
    """Wait for a task that fails; return why."""
    done, _ = await asyncio.wait([task], timeout=DEADLINE)
    assert done, "it waits for ever"
    return cause(task.exception())


@pytest.mark.parametrize("wait", WAITS)
@in_loops
async def test_a_reset_ends_it(wait):
    raw = Raw(peer_settings=NO_WINDOW)
    stream_id, task = await waiting(raw, WAITS[wait])
    raw.feed(rst_stream(stream_id, ErrorCode.REFUSED_STREAM))
    error = await ending(task)
    assert isinstance(error, StreamResetError)
    assert (error.stream_id, error.error_code) == (1, ErrorCode.REFUSED_STREAM)
    assert error.remote and error.unprocessed
    await raw.close()


@pytest.mark.parametrize("wait", WAITS)
@in_loops
async def test_our_own_reset_ends_it(wait):
    raw = Raw(peer_settings=NO_WINDOW)
    stream_id, task = await waiting(raw, WAITS[wait])
    raw.protocol.reset_stream(stream_id)
    error = await ending(task)
    assert isinstance(error, StreamResetError) and not error.remote
    (frame,) = await raw.frames(RST_STREAM)
    assert frame.error_code == ErrorCode.CANCEL
    await raw.close()


@pytest.mark.parametrize("wait", WAITS)
@in_loops
async def test_goaway_ends_streams_that_the_peer_will_not_serve(wait):
    raw = Raw(peer_settings=NO_WINDOW)
    _, task = await waiting(raw, WAITS[wait])
    raw.feed(goaway(0))
    error = await ending(task)
    assert isinstance(error, StreamResetError)
    assert error.remote and error.unprocessed
    with pytest.raises(ConnectionTerminatedError) as info:
        await raw.protocol.start_request(REQUEST)
    assert info.value.remote and info.value.unprocessed
    assert not raw.protocol.is_available
    await raw.close()


@pytest.mark.parametrize("wait", WAITS)
@in_loops
async def test_loss_of_the_connection_ends_it(wait):
    raw = Raw(peer_settings=NO_WINDOW)
    _, task = await waiting(raw, WAITS[wait])
    raw.protocol.connection_lost(ConnectionResetError("gone"))
    error = await ending(task)
    assert isinstance(error, ConnectionTerminatedError)
    assert isinstance(error, ConnectionError)
    assert error.remote and "gone" in error.reason


@pytest.mark.parametrize("wait", CONNECTION_WAITS)
@pytest.mark.parametrize("how", ["lost", "closed", "aborted"])
@in_loops
async def test_the_end_of_the_connection_ends_what_waits_for_it(wait, how):
    raw = Raw(
        peer_settings={Setting.MAX_CONCURRENT_STREAMS: 0}, functional_timeout=0.02
    )
    await silence(raw.protocol)
    task = asyncio.ensure_future(CONNECTION_WAITS[wait](raw.protocol))
    await idle()
    assert not task.done()
    if how == "lost":
        raw.protocol.connection_lost(None)
    elif how == "closed":
        raw.protocol.close_connection()
    else:
        raw.protocol.abort()
    error = await ending(task)
    assert isinstance(error, ConnectionTerminatedError)
    assert error.remote == (how == "lost")
    assert error.unprocessed == (wait == "start_request")
    with pytest.raises(ConnectionTerminatedError):
        await CONNECTION_WAITS[wait](raw.protocol)
    await raw.protocol.wait_closed()


@pytest.mark.parametrize("how", ["lost", "aborted", "goaway"])
@in_loops
async def test_a_request_that_waits_for_the_transport_was_not_sent(how):
    raw = Raw(peer_settings={Setting.MAX_CONCURRENT_STREAMS: 0})
    raw.protocol.pause_writing()
    task = asyncio.ensure_future(raw.protocol.start_request(REQUEST))
    await idle()
    if how == "lost":
        raw.protocol.connection_lost(None)
    elif how == "aborted":
        raw.protocol.abort()
    else:
        raw.feed(goaway(0))
        raw.protocol.resume_writing()
    error = await ending(task)
    assert isinstance(error, ConnectionTerminatedError)
    assert error.unprocessed
    await raw.close()


@pytest.mark.parametrize("wait", WAITS)
@in_loops
async def test_a_cancelled_wait_leaves_the_stream_as_it_is(wait):
    raw = Raw(peer_settings=NO_WINDOW)
    stream_id, task = await waiting(raw, WAITS[wait])
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    stream = raw.protocol._stream(stream_id)
    assert not stream._waiting and not raw.protocol._link.blocked
    if wait == "send_body":
        # Half a message is of no use to anyone.
        assert (await raw.frames(RST_STREAM))[0].error_code == ErrorCode.CANCEL
    else:
        raw.feed(raw.headers(stream_id, OK), data(stream_id, b"more"))
        assert await raw.protocol.recv_response(stream_id) == [(":status", "200")]
        assert await raw.protocol.read_stream(stream_id) == b"more"
    await raw.close()


@in_loops
async def test_a_fault_of_the_peer_is_told_with_its_code():
    raw = Raw(peer_settings=NO_WINDOW)
    _, task = await waiting(raw, WAITS["recv_response"])
    raw.feed(data(0, b"no stream"))
    error = await ending(task)
    assert isinstance(error, ConnectionTerminatedError)
    assert not error.remote
    assert error.error_code == ErrorCode.PROTOCOL_ERROR
    assert error.reason
    await raw.protocol.wait_closed()


@in_loops
async def test_unacknowledged_settings_end_what_waits():
    raw = Raw(settings_timeout=0.05)
    _, task = await waiting(raw, WAITS["recv_response"])
    raw.protocol.update_settings({Setting.INITIAL_WINDOW_SIZE: 1})
    error = await ending(task)
    assert isinstance(error, ConnectionTerminatedError) and not error.remote
    assert error.error_code == ErrorCode.SETTINGS_TIMEOUT
    (frame,) = await raw.frames(GOAWAY)
    assert frame.error_code == ErrorCode.SETTINGS_TIMEOUT
    await raw.protocol.wait_closed()


@in_loops
async def test_a_silent_peer_ends_it_if_it_is_kept_alive():
    raw = Raw(keepalive_interval=0.01, keepalive_timeout=0.02)
    stream_id = await raw.protocol.start_request(REQUEST)
    task = asyncio.ensure_future(raw.protocol.recv_response(stream_id))
    assert await raw.frames(PING)
    error = await ending(task)
    assert isinstance(error, ConnectionTerminatedError) and "PING" in error.reason
    await raw.protocol.wait_closed()


@in_loops
async def test_a_peer_that_answers_is_kept_alive():
    raw = Raw(keepalive_interval=0.005, keepalive_timeout=5)
    for _ in range(3):
        (frame,) = await raw.frames(PING)
        raw.feed(bytes([0, 0, 8, PING, 1, 0, 0, 0, 0]) + frame.payload)
    assert raw.protocol.is_available
    await raw.close()


@in_loops
async def test_an_idle_connection_is_closed():
    raw = Raw(idle_timeout=0.02)
    assert await raw.frames(GOAWAY)
    await raw.protocol.wait_closed()


@in_loops
async def test_what_came_before_a_reset_can_be_read():
    raw = Raw()
    stream_id = await raw.protocol.start_request(REQUEST, end_stream=True)
    raw.feed(raw.headers(stream_id, OK), data(stream_id, b"half"), rst_stream(1, 2))
    assert await raw.protocol.recv_response(stream_id) == [(":status", "200")]
    with pytest.raises(StreamResetError):
        await raw.protocol.read_stream(stream_id, -1)
    assert await raw.protocol.read_stream(stream_id, 4) == b"half"
    with pytest.raises(StreamResetError):
        await raw.protocol.read_stream(stream_id, 1)
    await raw.close()


@in_loops
async def test_a_reset_after_a_whole_response_harms_only_the_upload():
    """RFC 9113, 8.1: the server may stop an upload that it needs no more."""
    raw = Raw(peer_settings=NO_WINDOW)
    stream_id, task = await waiting(raw, WAITS["send_data"])
    raw.feed(
        raw.headers(stream_id, OK),
        data(stream_id, b"whole", end_stream=True),
        rst_stream(stream_id, ErrorCode.NO_ERROR),
    )
    assert isinstance(await ending(task), StreamResetError)
    assert await raw.protocol.recv_response(stream_id) == [(":status", "200")]
    assert await raw.protocol.read_stream(stream_id, -1) == b"whole"
    assert await raw.protocol.recv_trailers(stream_id) == {}
    await raw.close()


@in_loops
async def test_streams_that_goaway_spares_go_on():
    """aioh2 closed the transport at once."""
    raw = Raw()
    stream_id = await raw.protocol.start_request(REQUEST, end_stream=True)
    raw.feed(goaway(stream_id))
    raw.feed(raw.headers(stream_id, OK), data(stream_id, b"x", end_stream=True))
    assert await raw.protocol.recv_response(stream_id) == [(":status", "200")]
    assert await raw.protocol.read_stream(stream_id, -1) == b"x"
    await raw.protocol.wait_closed()


@in_loops
async def test_calls_after_the_end_say_that_it_is_the_end():
    raw = Raw()
    await raw.close()
    for call in (
        raw.protocol.start_request(REQUEST),
        raw.protocol.recv_request(),
        raw.protocol.recv_response(1),
        raw.protocol.read_stream(1),
        raw.protocol.ping(),
    ):
        with pytest.raises(ConnectionTerminatedError):
            await call
    with pytest.raises(SendException):
        await raw.protocol.send_data(1, b"x")
    raw.protocol.close()
    raw.protocol.close_connection()
    raw.protocol.abort()


@in_loops
async def test_closed_streams_that_nobody_asks_for_are_bounded():
    raw = Raw(client_side=False, concurrency=3)
    for n in range(20):
        stream_id = 2 * n + 1
        raw.feed(raw.headers(stream_id, GET), data(stream_id, b"x", end_stream=True))
        await raw.protocol.recv_request()
        await raw.protocol.start_response(stream_id, OK, end_stream=True)
        raw.protocol.flush()
    assert not raw.protocol.stream_count
    assert len(raw.protocol._finished) == 3
    assert await raw.protocol.read_stream(39, -1) == b"x"
    with pytest.raises(NoSuchStreamError):
        await raw.protocol.read_stream(1, -1)
    await raw.close()


@in_loops
async def test_stream_objects_are_not_kept():
    async with Pair() as pair:
        stream = await pair.client.open_stream(REQUEST, end_stream=True)
        served = await pair.server.accept_stream()
        await served.send_response(200, body=b"x")
        assert await stream.read() == b"x"
        await until(
            lambda: not pair.client.stream_count and not pair.server.stream_count
        )
        assert not pair.client._finished and not pair.server._finished
        gone = weakref.ref(stream)
        del stream
        gc.collect()
        assert gone() is None


@in_loops
async def test_close_lets_streams_finish():
    async with Pair() as pair:
        stream = await pair.client.open_stream(REQUEST, end_stream=True)
        served = await pair.server.accept_stream()
        pair.server.close()
        await until(lambda: not pair.client.is_available)
        await served.send_response(200, body=b"to the end")
        assert await stream.read() == b"to the end"
        await pair.client.wait_closed()
        await pair.server.wait_closed()


@in_loops
async def test_close_breaks_off_what_does_not_finish_in_time():
    async with Pair(server={"close_timeout": 0.02}) as pair:
        stream = await pair.client.open_stream(REQUEST, end_stream=True)
        served = await pair.server.accept_stream()
        pair.server.close()
        with pytest.raises(ConnectionTerminatedError):
            await served.read()
            await pair.server.recv_request()
        with pytest.raises((ConnectionTerminatedError, StreamResetError)):
            await stream.response()


@in_loops
async def test_leaving_a_stream_resets_what_is_not_finished():
    async with Pair() as pair:
        async with await pair.client.open_stream(REQUEST) as stream:
            served = await pair.server.accept_stream()
        with pytest.raises(StreamResetError) as info:
            await served.read()
        assert info.value.error_code == ErrorCode.CANCEL and info.value.remote
        assert stream.error is not None


@in_loops
async def test_leaving_a_stream_does_not_wait_for_the_rest_of_its_request():
    raw = Raw()
    async with await raw.protocol.open_stream(REQUEST) as stream:
        stream.write(b"x" * 100000)  # more than the server takes
        stream.write_eof()
        raw.feed(raw.headers(1, [(":status", "200")]), data(1, b"part"))
    (reset,) = await raw.frames(RST_STREAM)
    assert (reset.stream_id, reset.error_code) == (1, ErrorCode.CANCEL)
    assert raw.protocol.open_streams == 0
    await raw.close()


@in_loops
async def test_leaving_a_served_stream_keeps_the_response():
    async with Pair() as pair:
        stream = await pair.client.open_stream(REQUEST)  # its body never ends
        async with await pair.server.accept_stream() as served:
            await served.send_response(413, body=b"too large")
        assert (await stream.response()).status == 413
        assert await stream.read() == b"too large"
        await until(lambda: stream.closed)
        with pytest.raises(SendException):
            await stream.send_data(b"more")


@in_loops
async def test_a_stream_of_a_handler_that_fails_late_is_reset_and_logged(caplog):
    async def handler(stream):
        await stream.start_response({":status": "200"})
        raise RuntimeError("mine")

    async with Pair(lambda proto: proto.serve_streams(handler)) as pair:
        stream = await pair.client.open_stream(REQUEST)
        with pytest.raises(StreamResetError) as info:
            await stream.read()
        assert info.value.error_code == ErrorCode.INTERNAL_ERROR
        assert pair.client.is_available
    assert "mine" in caplog.text


@in_loops
async def test_the_handler_of_a_stream_is_cancelled_with_it():
    events = []

    async def handler(stream):
        events.append("began")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async with Pair(lambda proto: proto.serve_streams(handler)) as pair:
        stream = await pair.client.open_stream(REQUEST)
        await until(lambda: events == ["began"])
        stream.reset()
        await until(lambda: events == ["began", "cancelled"])
        assert pair.client.is_available


@in_loops
async def test_a_connection_that_takes_too_long_times_out():
    # A server that never answers the TLS handshake.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(TimeoutError, match=f"127.0.0.1:{port}"):
            await open_connection("127.0.0.1", port, ssl=True, connect_timeout=0.02)


@in_loops
async def test_a_refused_connection_is_an_oserror():
    server = await start_server(list, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError):
        await open_connection("127.0.0.1", port)


@in_loops
async def test_a_client_that_leaves_with_an_exception_does_not_wait():
    async with Pair() as pair:
        with pytest.raises(ValueError):
            async with pair.client:
                await pair.client.start_request(REQUEST)
                raise ValueError
        await pair.server.wait_closed()


@in_loops
async def test_many_resets_leave_nothing():
    async with Pair(server={"config": H2Configuration(max_provoked_resets=10)}) as pair:
        for _ in range(50):
            stream = await pair.client.open_stream(REQUEST)
            stream.reset()
        await pair.client.ping()
        assert pair.client.open_streams == 0 and not pair.client.stream_count
        assert not pair.server.stream_count and not pair.server._arrived
