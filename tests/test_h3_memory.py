"""Connections come and go, and leave nothing behind."""

import gc
import os
import subprocess
import sys
from pathlib import Path

from fake_quic import REQUEST, RESPONSE, Pair

from nghttp2py.h3 import H3Connection, QPACKDecoder, QPACKEncoder


def resident():
    """Bytes of this process in memory: what Python does not see counts, too."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(what, warmup, rounds):
    """How many bytes more there are after ``rounds`` calls."""
    for _ in range(warmup):
        what()
    gc.collect()
    before = resident()
    for _ in range(rounds):
        what()
    gc.collect()
    return resident() - before


def exchange(pair):
    stream_id, _ = pair.request()
    pair.server.send_headers(stream_id, RESPONSE)
    pair.server.send_data(stream_id, b"x" * 1000, True)
    assert pair.to_client()[-1].stream_ended


def test_connections_leave_nothing_behind():
    # A connection takes about 30 kB: a leak of one in ten would show.
    assert growth(lambda: exchange(Pair()), 200, 500) < 1_500_000


def test_a_long_connection_does_not_grow():
    pair = Pair()
    assert growth(lambda: exchange(pair), 1000, 4000) < 1_500_000
    assert len(pair.server._stream) == 3


def test_changing_names_do_not_pile_up():
    encoder, decoder = QPACKEncoder(), QPACKDecoder()
    encoder.apply_settings(4096, 16)
    numbers = iter(range(1 << 30))

    def code():
        number = next(numbers)
        for _ in range(2):
            section = encoder.encode(0, [(b"x-%d" % number, b"v" * 100)])
            decoder.receive_data(encoder.data_to_send())
            decoder.decode(0, section)
            encoder.receive_data(decoder.data_to_send())

    assert growth(code, 2000, 10000) < 1_500_000


ORDERS = """
import gc, itertools
from fake_quic import REQUEST, Pair
from nghttp2py.h3 import QPACKDecoder, QPACKEncoder

for order in itertools.permutations(range(3)):
    pair = Pair()
    things = [pair.request([*REQUEST, (b"x-name", b"value")])[1], pair.client, pair]
    del pair
    for i in order:
        things[i] = None
    gc.collect()

encoder, decoder = QPACKEncoder(), QPACKDecoder()
encoder.apply_settings(4096, 16)
for _ in range(3):
    section = encoder.encode(0, [(b"x-name", b"value")])
    decoder.receive_data(encoder.data_to_send())
    fields = decoder.decode(0, section)
del decoder, encoder
gc.collect()
assert fields == [(b"x-name", b"value")]
"""


def test_objects_may_go_in_any_order():
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", ORDERS],
        env={**os.environ, "PYTHONMALLOC": "debug"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_connection_in_a_cycle_is_collected():
    class Looped(H3Connection):
        """Its instances have a dict, and so may be in a cycle."""

    pair = Pair()
    looped = Looped(pair.client_quic)
    looped.itself = looped
    looped.send_headers(0, REQUEST)
    del looped
    gc.collect()
    assert not any(type(item) is Looped for item in gc.get_objects())
