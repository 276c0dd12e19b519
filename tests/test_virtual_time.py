"""The event loop of tests whose clock jumps to the next timer."""

import asyncio

import pytest
from loops import in_virtual_time, until
from virtual_time import VirtualTime, pass_time


@in_virtual_time
async def test_timers_run_in_their_order_at_their_times():
    loop = asyncio.get_running_loop()
    begun = loop.time()
    ran = []
    for seconds in (3600, 0.001, 60):
        loop.call_later(seconds, lambda s=seconds: ran.append((s, loop.time() - begun)))
    await until(lambda: len(ran) == 3)
    assert ran == [(s, pytest.approx(s)) for s in (0.001, 60, 3600)]
    assert loop.time() - begun == 3600


@in_virtual_time
async def test_the_clock_stands_while_a_socket_or_a_thread_works():
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def echo(reader, writer):
        writer.write(await reader.read(9))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"ping")
        assert await asyncio.wait_for(reader.read(), 0.001) == b"ping"
        writer.close()
    work = asyncio.to_thread(sum, range(1_000_000))
    assert await asyncio.wait_for(work, 0.001)
    assert loop.time() == begun


def test_a_condition_that_raises_fails_its_test():
    @in_virtual_time
    async def never():
        await until(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        never()


def test_what_does_not_happen_fails_in_real_time():
    loop = VirtualTime()
    loop.deadline = 0
    try:
        with pytest.raises(TimeoutError, match="more than 0 seconds"):
            loop.run_forever()
    finally:
        loop.close()


def test_time_passes_in_virtual_time_only():
    with pytest.raises(AssertionError):
        asyncio.run(pass_time(1))
