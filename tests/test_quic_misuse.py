"""No order of public calls, with no values, may end the process.

ngtcp2 asserts what it expects of its caller; we check all of it before.  The
calls run in processes of their own, so that an abort is a failure of one test.
"""

import contextlib
import dataclasses
import random

import pytest
from misuse import (
    ADDRESSES,
    ALLOWED,
    BYTES,
    NUMBERS,
    ODD,
    TIMES,
    run_in_a_process,
    use,
)


def misuse(seed):
    """Call anything, in any state, for a while."""
    from quic_pair import make_pair

    rng = random.Random(seed)
    fields = rng.choice([{}, {"max_datagram_frame_size": 65536}])
    network = make_pair(fields, fields, loss=rng.choice([0, 0.2]), seed=seed)
    client, server = network.client, network.server

    def number():
        return rng.choice(rng.choice([NUMBERS, NUMBERS, ODD]))

    def data():
        return rng.choice(rng.choice([BYTES, BYTES, BYTES, ODD]))

    def time():
        if rng.random() < 0.7:
            return max(0.0, network.now + rng.uniform(-5, 1))
        return rng.choice(rng.choice([TIMES, ODD]))

    def stream_id():
        return rng.randrange(40) if rng.random() < 0.7 else number()

    def address():
        return rng.choice(ADDRESSES)

    calls = [
        lambda q: q.connect(address(), time()),
        lambda q: q.receive_datagram(data(), address(), time()),
        lambda q: q.receive_datagram(
            rng.randbytes(rng.randrange(1500)), address(), time(), ecn=number()
        ),
        lambda q: q.receive_run(
            rng.randbytes(rng.randrange(5000)),
            address(),
            time(),
            segment=rng.choice([number(), 1200]),
        ),
        lambda q: q.receive_run(data(), address(), time(), segment=data(), ecn=2),
        lambda q: q.runs_to_send(time()),
        lambda q: q.datagrams_to_send(time()),
        lambda q: q.datagrams_to_send(time(), ecn=number()),
        lambda q: q.handle_timer(time()),
        lambda q: q.send_new_token(data()),
        lambda q: q.get_timer(),
        lambda q: q.next_event(),
        lambda q: q.send_stream_data(stream_id(), data(), rng.random() < 0.1),
        lambda q: q.send_stream_data(stream_id(), data(), number()),
        lambda q: q.send_stream_data(q.get_next_available_stream_id(), data()),
        lambda q: q.send_stream_data(q.get_next_available_stream_id(True), data()),
        lambda q: q.reset_stream(stream_id(), number()),
        lambda q: q.stop_stream(stream_id(), number()),
        lambda q: q.pause_reading(stream_id()),
        lambda q: q.resume_reading(stream_id()),
        lambda q: q.set_stream_critical(stream_id()),
        lambda q: q.set_stream_priority(stream_id(), number(), number()),
        lambda q: q.set_stream_priority(stream_id(), rng.randrange(8), False),
        lambda q: q.send_datagram_frame(data()),
        lambda q: q.send_ping(number()),
        lambda q: q.request_key_update(),
        lambda q: q.change_connection_id(),
        lambda q: q.queued_data(stream_id()),
        lambda q: q.unsent_data(stream_id()),
        lambda q: q.send_credit(rng.choice([None, stream_id()])),
        lambda q: q.stream_can_send(stream_id()),
        lambda q: (q.host_cid, q.version, q.stats, q.closed, q.peer_certificates),
        lambda q: (q.get_peer_address(), q.original_destination_connection_id),
    ]

    def closing(quic):
        quic.close(number(), number(), rng.choice(["", "r" * 5000]))

    begun = rng.random() < 0.2
    for step in range(400):
        quic = rng.choice([client, server])
        call = closing if rng.random() < 0.003 else rng.choice(calls)
        # What is no address, or no text, has not the attributes of one.
        with contextlib.suppress(*ALLOWED, AttributeError):
            call(quic)
        if not begun and step == 20:
            begun = True
            with contextlib.suppress(RuntimeError):
                network.connect()
        if step % 5 == 0:
            network.run(rng.uniform(0, 0.3))


def configurations(seed):
    """Make connections of configurations of which several fields make no sense."""
    from quic_pair import client_configuration, server_configuration

    rng = random.Random(seed)
    values = [*NUMBERS, *BYTES, *ODD, *TIMES, "reno", "bbr", ["h3"], [b"\0" * 300], [1]]
    for _ in range(300):
        configuration = rng.choice([client_configuration, server_configuration])()
        names = [field.name for field in dataclasses.fields(configuration)]
        for name in rng.sample(names, rng.choice([1, 1, 1, 2, 3])):
            setattr(configuration, name, rng.choice(values))
        use(configuration)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_order_of_calls_ends_the_process(first):
    run_in_a_process(__name__, f"for s in range({first}, {first + 10}): m.misuse(s)")


@pytest.mark.parametrize("seed", range(3))
def test_no_configuration_ends_the_process(seed):
    run_in_a_process(__name__, f"m.configurations({seed})")
