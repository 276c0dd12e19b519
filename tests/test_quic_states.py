"""Every public method of a QUIC connection, in every state, with any value.

The methods and their parameters are found by introspection: a new method is
covered, and one with a parameter of a new name fails until it has values here.
The calls run in processes of their own, so that an abort is a failure of one test.
"""

import asyncio
import contextlib
import inspect
import itertools
import logging
import random
import warnings

import pytest
from misuse import (
    ADDRESSES,
    ALLOWED,
    BYTES,
    NUMBERS,
    ODD,
    TIMES,
    Refusing,
    run_in_a_process,
    use,
)

ANY = [*ODD, Refusing(), b"", b"x", -1, 0, 1, 1 << 80]
FLAGS = [True, False, 2]
VALUES = {
    "addr": ADDRESSES,
    "data": BYTES,
    "ecn": [*NUMBERS, *FLAGS],
    "end_stream": FLAGS,
    "error_code": NUMBERS,
    "frame_type": NUMBERS,
    "incremental": FLAGS,
    "is_unidirectional": FLAGS,
    "length": NUMBERS,
    "now": [*TIMES, *NUMBERS],
    "reason_phrase": ["", "r" * 5000, "\0", "\udc80", "\U0001f600" * 100],
    "seconds": [None, 0.001, *TIMES, *NUMBERS],
    "segment": NUMBERS,
    "stream_id": [*range(16), *NUMBERS],
    "token": BYTES,
    "uid": NUMBERS,
    "urgency": NUMBERS,
}


def sane(network):
    """A value for each parameter with which a call does something."""
    return {
        "addr": ("192.0.2.1", 50000), "data": b"d" * 100, "ecn": 0,
        "end_stream": False, "error_code": 7, "frame_type": None,
        "incremental": False, "is_unidirectional": False, "length": 1200,
        "now": network.now, "reason_phrase": "why", "seconds": 5.0, "segment": 10,
        "stream_id": 0, "token": b"token", "uid": 1, "urgency": 3,
    }  # fmt: skip


# ---- States: each gets a network, the connection in question, and its peer.


def connecting(network, quic, peer):
    network.connect()
    network.client.datagrams_to_send(network.now)


def first_flight_arrived(network, quic, peer):
    network.connect().run(0.007)


def second_flight_arrived(network, quic, peer):
    network.connect().run(0.012)


def established(network, quic, peer):
    network.handshake()


def busy(network, quic, peer):
    """Streams in every state, and more than the windows take."""
    network.handshake()
    for side, other in ((quic, peer), (peer, quic)):
        for number, size in enumerate([100, 3_000_000, 0, 5000]):
            stream_id = side.get_next_available_stream_id(number == 2)
            side.send_stream_data(stream_id, bytes(size), end_stream=number == 3)
        side.send_datagram_frame(bytes(100))
        side.send_ping(1)
        network.run(0.02)
        other.pause_reading(stream_id)
    quic.reset_stream(quic.get_next_available_stream_id(), 1)
    peer.stop_stream(quic.get_next_available_stream_id() - 8, 1)
    quic.request_key_update()
    quic.change_connection_id()
    network.run(0.007)


def moved(network, quic, peer):
    """The client has another address, which is not validated."""
    network.handshake()
    network.client_address = ("192.0.2.9", 9)
    network.client.send_ping(1)
    network.run(0.007)


def about_to_close(network, quic, peer):
    network.handshake()
    quic.close(7)


def closing(network, quic, peer):
    network.handshake()
    quic.close(7)
    quic.datagrams_to_send(network.now)


def abandoned(network, quic, peer):
    network.handshake()
    quic.send_stream_data(quic.get_next_available_stream_id(), b"lost" * 1000)
    quic.abandon()


def closed_at_once(network, quic, peer):
    """Before anything was sent or received."""
    quic.close(7)


def closed_in_the_handshake(network, quic, peer):
    network.connect().run(0.007)
    quic.close(7)
    quic.datagrams_to_send(network.now)


def draining(network, quic, peer):
    network.handshake()
    peer.close(7)
    network.run(0.012)


def over(network, quic, peer):
    network.handshake()
    quic.close(7)
    network.run(10)


def idle(network, quic, peer):
    """It timed out, and its events were not read."""
    network.handshake()
    network.now += 1000
    quic.handle_timer(network.now)


def refused(network, quic, peer):
    """There is no common protocol: TLS fails."""
    network.client.connect(("192.0.2.2", 4433), network.now)
    for _ in range(2):
        for side, other in (
            (network.client, network.server),
            (network.server, network.client),
        ):
            for data, _ in side.datagrams_to_send(network.now):
                other.receive_datagram(data, ("192.0.2.2", 4433), network.now)


def untouched(network, quic, peer):
    pass


STATES = [
    untouched, connecting, first_flight_arrived, second_flight_arrived, established,
    busy, moved, about_to_close, closing, abandoned, closed_at_once,
    closed_in_the_handshake, draining, over, idle, refused,
]  # fmt: skip


# ---- Calls


def methods():
    """Name and parameters of every public method."""
    from nghttp2py.quic.connection import QuicConnection

    for name in [n for n in dir(QuicConnection) if n[0] != "_"]:
        if callable(getattr(QuicConnection, name)):
            parameters = inspect.signature(getattr(QuicConnection, name)).parameters
            yield name, [p for p in parameters.values() if p.name != "self"]


def attempt(quic, name, parameters, values, allowed=ALLOWED):
    """Call a method; only what a caller's mistake may raise is raised."""
    positional = [values[p.name] for p in parameters if p.kind != p.KEYWORD_ONLY]
    named = {p.name: values[p.name] for p in parameters if p.kind == p.KEYWORD_ONLY}
    try:
        getattr(quic, name)(*positional, **named)
    except allowed:
        pass
    except Exception as error:
        raise AssertionError(f"{name}({positional}, {named})") from error


def read_all(quic):
    for name in dir(quic):
        if name[0] != "_":
            getattr(quic, name)


def prepare(state, role):
    from quic_pair import make_pair

    fields = {"max_datagram_frame_size": 65536, "idle_timeout": 30.0}
    server = {**fields, "alpn_protocols": ["other"]} if state is refused else fields
    network = make_pair(fields, server)
    quic, peer = network.client, network.server
    if role == "server":
        quic, peer = peer, quic
    state(network, quic, peer)
    return network, quic


def sweep(state, role):
    """Call each method with each value, all others being sane, and at random."""
    state = globals()[state]
    rng = random.Random(1)
    for name, parameters in methods():
        network, quic = prepare(state, role)
        read_all(quic)
        values = sane(network)
        attempt(quic, name, parameters, values)
        for parameter in parameters:
            for value in [*VALUES[parameter.name], *ANY]:
                attempt(quic, name, parameters, {**values, parameter.name: value})
        for _ in range(20 if parameters else 0):
            drawn = {p.name: rng.choice(VALUES[p.name]) for p in parameters}
            attempt(quic, name, parameters, drawn)
        read_all(quic)
        # The connection goes on, or ends; it is sound.
        network.run(0.1)
        for now in (network.now, network.now + 1000):
            quic.handle_timer(now)
            quic.datagrams_to_send(now)
            while quic.next_event() is not None:
                pass
        read_all(quic)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("state", [state.__name__ for state in STATES])
def test_every_method_is_safe(state, role):
    run_in_a_process(__name__, f"m.sweep({state!r}, {role!r})")


def test_every_parameter_has_values():
    named = {p.name for _, parameters in methods() for p in parameters}
    assert named == set(VALUES)


# ---- Configurations


def configure():
    """Give each field of a configuration each value."""
    import dataclasses

    from quic_pair import client_configuration, server_configuration

    from nghttp2py.quic.configuration import QuicConfiguration

    values = [
        *NUMBERS,
        *TIMES,
        *ADDRESSES,
        *ANY,
        "h3",
        ["h3"],
        [b"\0" * 300],
        [1],
        b"p",
    ]
    fields = [field.name for field in dataclasses.fields(QuicConfiguration)]
    for make, name in itertools.product(
        [client_configuration, server_configuration], fields
    ):
        for value in values:
            configuration = make()
            setattr(configuration, name, value)
            try:
                use(configuration)
            except Exception as error:
                raise AssertionError(f"{name} = {value!r}") from error


def test_no_field_of_a_configuration_ends_the_process():
    run_in_a_process(__name__, "m.configure()")


# ---- What a server does before there is a connection


def route():
    """Call the methods of a Router with any value."""
    from quic_pair import make_pair

    from nghttp2py.quic.routing import QuicHeader, Router

    network = make_pair().connect()
    ((first, _), *_) = network.client.datagrams_to_send(network.now)
    blank = [*BYTES, *NUMBERS, *ANY]
    for values in itertools.product(blank, repeat=2):
        for secret, length in (values, values[::-1]):
            with contextlib.suppress(ALLOWED):
                Router(secret=secret, connection_id_length=length, versions=[1])
    router = Router(secret=b"s" * 32, connection_id_length=8, versions=[1])
    header = router.read_header(first)
    assert isinstance(header, QuicHeader)
    rng = random.Random(2)
    datagrams = [first[:n] for n in range(100)] + [
        bytes([rng.choice(b"\x40\xc0\xff")]) + rng.randbytes(rng.randrange(80))
        for _ in range(500)
    ]
    headers = [header, *filter(None, map(router.read_header, datagrams)), *ANY]
    pools = {"header": headers, "received": NUMBERS, "run": [*ADDRESSES, (first,) * 4]}
    for name in [
        n for n in dir(Router) if n[0] != "_" and callable(getattr(Router, n))
    ]:
        parameters = list(inspect.signature(getattr(Router, name)).parameters.values())
        parameters = [p for p in parameters if p.name != "self"]
        for _ in range(2000):
            drawn = {
                p.name: rng.choice([*(pools.get(p.name) or VALUES[p.name]), *ANY])
                for p in parameters
            }
            # It is not public: what it is given is of the right kind.
            attempt(router, name, parameters, drawn, (*ALLOWED, LookupError))


def test_no_header_ends_the_process():
    run_in_a_process(__name__, "m.route()")


# ---- asyncio


async def give(target):
    """Call the methods of a protocol or a server with any value; whatever they
    raise, the process goes on."""
    rng = random.Random(3)
    runs = [(b"x" * 30, ("192.0.2.1", 1), 10, 0), (b"", ("::1", 1, 0, 0), 0, 3)]
    values = [*NUMBERS, *BYTES, *ADDRESSES, *TIMES, *ANY, *runs, runs, runs * 20]
    for name in [n for n in dir(type(target)) if n[0] != "_"]:
        method = getattr(target, name)
        # What is no transport has none of its methods, and what is no server, which
        # only servers give, none of an owner's.
        called_by_others = ("connection_made", "set_owner")
        if not callable(method) or name.startswith(("wait_", *called_by_others)):
            continue
        required = len(inspect.signature(method).parameters)
        for _ in range(30):
            with contextlib.suppress(Exception):
                result = method(*(rng.choice(values) for _ in range(required)))
                if inspect.isawaitable(result):
                    await asyncio.wait_for(result, 0.001)
        await asyncio.sleep(0)


def endpoints(kind, moment):
    from quic_pair import client_configuration, server_configuration

    from nghttp2py.asyncio import QuicConnectionProtocol, connect, serve
    from nghttp2py.quic.connection import QuicConnection

    async def reach(port):
        async with connect(
            "127.0.0.1", port, configuration=client_configuration()
        ) as client:
            await asyncio.wait_for(client.ping(), 10)

    async def main():
        # asyncio complains of what is done to its protocols.
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        server = await serve("127.0.0.1", 0, configuration=server_configuration())
        port = server.sockets[0].getsockname()[1]
        if kind == "server":
            async with connect(
                "127.0.0.1", port, configuration=client_configuration()
            ) as client:
                if moment == "closed":
                    server.close()
                await give(server)
                client.close()
        elif moment == "unconnected":
            quic = QuicConnection(configuration=client_configuration())
            await give(QuicConnectionProtocol(quic))
        else:
            with contextlib.suppress(ConnectionError):
                async with connect(
                    "127.0.0.1", port, configuration=client_configuration()
                ) as client:
                    if moment == "closed":
                        client.close()
                        await client.wait_closed()
                    await give(client)
        server.close()
        server = await serve("127.0.0.1", 0, configuration=server_configuration())
        await reach(server.sockets[0].getsockname()[1])
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("client", "unconnected"),
        ("client", "connected"),
        ("client", "closed"),
        ("server", "connected"),
        ("server", "closed"),
    ],
)
def test_protocols_and_servers_are_safe(kind, moment):
    run_in_a_process(__name__, f"m.endpoints({kind!r}, {moment!r})")
