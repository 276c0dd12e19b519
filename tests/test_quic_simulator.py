"""Transfers over a network that loses, repeats, reorders and moves: they complete,
or the connection ends; nothing hangs.  Every run is told by its seed."""

import hashlib
import os
import random

import pytest
from quic_pair import Network, client_configuration, make_pair, server_configuration

from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import StreamDataReceived


def digest(data):
    return hashlib.sha256(data).digest()


def transfer(network, size, seed, seconds=300):
    """Send ``size`` bytes up, have them sent back, and compare."""
    data = random.Random(seed).randbytes(size)
    client, server = network.client, network.server

    def echo(event):
        if isinstance(event, StreamDataReceived):
            server.send_stream_data(event.stream_id, event.data, event.end_stream)

    network.on_event[server] = echo
    network.connect()
    client.send_stream_data(0, data, end_stream=True)
    done = network.run(
        seconds,
        lambda: (
            0 in network.ended[client]
            or "ConnectionTerminated" in network.names(client)[-1:]
        ),
    )
    assert done, f"seed {seed} hangs"
    if 0 in network.ended[client]:
        assert digest(network.received[client][0]) == digest(data), f"seed {seed}"
        return True
    return False


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_a_transfer_survives_loss(loss, seed):
    assert transfer(make_pair(loss=loss, seed=seed), 100_000, seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_transfer_survives_a_hostile_network(seed):
    network = make_pair(
        loss=0.1, duplication=0.2, reordering=0.5, delay=0.03, seed=seed
    )
    assert transfer(network, 50_000, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_transfer_survives_changes_of_address(seed):
    network = make_pair(loss=0.02, seed=seed)
    rng = random.Random(seed)
    run = network.run

    def wandering(seconds, until=None):
        end = network.now + seconds
        while network.now < end:
            if run(rng.uniform(0.3, 0.6), until):
                return True
            if network.client.handshake_complete:
                network.client_address = ("192.0.2.1", rng.randrange(1024, 65536))
        return False

    network.run = wandering
    assert transfer(network, 200_000, seed)


@pytest.mark.parametrize("algorithm", ["reno", "cubic", "bbr"])
def test_every_congestion_control_works(algorithm):
    fields = {"congestion_control_algorithm": algorithm}
    assert transfer(make_pair(fields, fields, loss=0.01), 300_000, 1)


@pytest.mark.parametrize("size", [1200, 1350, 1452, 9000])
def test_datagrams_are_as_large_as_is_allowed(size):
    fields = {"max_datagram_size": size}
    network = make_pair(fields, fields)
    assert transfer(network, 100_000, 1)
    assert max(network.sizes) == size


def test_larger_datagrams_are_found():
    fields = {"probe_datagram_size": True}
    network = make_pair(fields, fields)
    assert transfer(network, 300_000, 1)
    assert 1400 < max(network.sizes) <= 1500


# What may happen while a connection lives: each gets the network and its random
# numbers.


def move(network, rng):
    # Before the handshake is confirmed no address may change (RFC 9000, 9).
    if network.names(network.client).count("PingAcknowledged"):
        network.client_address = (f"192.0.2.{rng.randrange(1, 250)}", 5000)
        network.client.send_ping(rng.randrange(1 << 64))


def leap(network, rng):
    """Both clocks run back, or leap over timers."""
    network.now += rng.uniform(-3, 3)


def update_keys(network, rng):
    rng.choice([network.client, network.server]).request_key_update()


def ping(network, rng):
    rng.choice([network.client, network.server]).send_ping(rng.randrange(1 << 64))


def send_datagrams(network, rng):
    for _ in range(rng.randrange(20)):
        rng.choice([network.client, network.server]).send_datagram_frame(bytes(900))


def abandon_stream(network, rng):
    quic = rng.choice([network.client, network.server])
    stream_id = quic.get_next_available_stream_id()
    quic.send_stream_data(stream_id, rng.randbytes(rng.randrange(5000)))
    network.run(rng.uniform(0, 0.1))
    rng.choice([quic.reset_stream, quic.stop_stream])(stream_id, 7)


def shrink(network, rng):
    network.loss = min(0.3, network.loss + 0.1)


ACTIONS = [move, leap, update_keys, ping, send_datagrams, abandon_stream, shrink]


def hostile_transfer(network, seed):
    """Send on several streams, have it sent back, and compare; meanwhile anything
    may happen.  Returns whether all came back; only silence may end it before."""
    rng = random.Random(seed)
    client, server = network.client, network.server
    sent = {}

    def echo(event):
        # Only what is to come back: not the streams that are abandoned.
        if isinstance(event, StreamDataReceived) and event.stream_id in sent:
            server.send_stream_data(event.stream_id, event.data, event.end_stream)

    network.on_event[server] = echo
    network.connect()
    for _ in range(rng.randrange(1, 5)):
        stream_id = client.get_next_available_stream_id()
        sent[stream_id] = rng.randbytes(rng.randrange(8000))
        client.send_stream_data(stream_id, sent[stream_id], end_stream=True)
    client.send_ping(1)

    def over():
        return (
            sent.keys() <= network.ended[client]
            or "ConnectionTerminated" in network.names(client)[-1:]
        )

    for _ in range(rng.randrange(8)):
        if network.run(rng.uniform(0, 10 * network.delay), over):
            break
        rng.choice(ACTIONS)(network, rng)
    assert network.run(600, over), f"seed {seed} hangs"
    if sent.keys() <= network.ended[client]:
        for stream_id, data in sent.items():
            back = network.received[client][stream_id]
            assert digest(back) == digest(data), f"seed {seed}"
        return True
    reason = network.events[client][-1].reason_phrase
    assert reason == "Idle timeout", f"seed {seed} ends: {reason}"
    return False


def test_many_seeds_with_small_transfers():
    """Two configurations for each algorithm, so that most of the time goes to
    packets.  NGHTTP2PY_SEEDS=FIRST:COUNT chooses others, and how many."""
    first, _, count = os.environ.get("NGHTTP2PY_SEEDS", "0:300").partition(":")
    pairs = []
    for algorithm in ("reno", "cubic", "bbr"):
        fields = {
            "congestion_control_algorithm": algorithm,
            "idle_timeout": 20.0,
            "max_datagram_frame_size": 1200,
            "max_stream_data": 6000,
        }
        pairs.append((client_configuration(**fields), server_configuration(**fields)))
    finished = 0
    for seed in range(int(first), int(first) + int(count or 1)):
        rng = random.Random(seed)
        client, server = pairs[seed % len(pairs)]
        network = Network(
            QuicConnection(configuration=client),
            QuicConnection(configuration=server),
            loss=rng.uniform(0, 0.3),
            duplication=rng.uniform(0, 0.3),
            reordering=rng.uniform(0, 1),
            delay=rng.uniform(0.001, 0.1),
            seed=seed,
        )
        finished += hostile_transfer(network, seed)
    # The others found the network silent for longer than their timeout.
    assert finished >= 0.95 * int(count or 1)


def test_garbage_from_the_peers_address_is_ignored():
    network = make_pair().handshake()
    rng = random.Random(5)
    for _ in range(2000):
        data = rng.randbytes(rng.randrange(0, 1500))
        network.server.receive_datagram(data, network.client_address, network.now)
        network.client.receive_datagram(data, network.client_address, network.now)
    network.client.send_stream_data(0, b"well", end_stream=True)
    assert network.run(5, lambda: 0 in network.ended[network.server])


def test_damaged_packets_are_ignored():
    network = make_pair().handshake()
    rng = random.Random(6)
    for quic in (network.client, network.server):
        send = quic.datagrams_to_send

        def damaged(now, send=send):
            for data, addr in send(now):
                bits = bytearray(data)
                if rng.random() < 0.3:
                    bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
                yield bytes(bits), addr

        network.senders[quic] = damaged
    data = rng.randbytes(100_000)
    network.client.send_stream_data(0, data, end_stream=True)
    assert network.run(60, lambda: 0 in network.ended[network.server])
    assert network.received[network.server][0] == data
