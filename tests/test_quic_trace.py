"""Traces in qlog: what they tell, beside aioquic's of the same exchange."""

import itertools
import json

import pytest
from aioquic.quic.logger import QuicLogger as TheirLogger
from quic_pair import Network, client_configuration, make_pair
from test_quic_interop import our_server, their_client, their_server

from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.logger import QuicFileLogger, QuicLogger
from nghttp2py.quic.trace import decode_frames

# An older aioquic never ends some of these exchanges.
pytestmark = pytest.mark.aioquic17


def events_in(logger):
    (trace,) = logger.to_dict()["traces"]
    return trace["events"]


def names_in(logger):
    return {event["name"] for event in events_in(logger)}


def packets_in(logger, name):
    """The frames of packets, by type and number."""
    packets = {}
    for event in events_in(logger):
        if event["name"] == f"transport:{name}":
            header = event["data"]["header"]
            key = header["packet_type"], header["packet_number"], header["dcid"]
            packets[key] = [tidy(frame) for frame in event["data"]["frames"]]
    return packets


def tidy(frame):
    # Either end may take another exponent for the other's.
    frame = {k: v for k, v in frame.items() if k != "ack_delay"}
    # Counts of ECN, which aioquic reads over.
    return {k: v for k, v in frame.items() if k not in ("ect0", "ect1", "ce")}


def without_padding(frames):
    return [frame for frame in frames if frame["frame_type"] != "padding"]


def exchange(network):
    """Have both ends say what there is to say."""
    client, server = network.client, network.server
    network.handshake()
    client.send_stream_data(0, bytes(20_000), end_stream=True)
    client.send_stream_data(4, b"to be reset")
    client.send_datagram_frame(b"datagram")
    client.send_ping(1)
    network.run(1)
    server.send_stream_data(0, bytes(5000), end_stream=True)
    server.send_stream_data(3, b"one way", end_stream=True)
    client.reset_stream(4, 7)
    server.stop_stream(4, 8)
    network.run(1)
    client.request_key_update()
    client.send_ping(2)
    network.run(1)
    network.client_address = ("192.0.2.1", 50001)
    client.send_stream_data(8, b"moved")
    network.run(1)
    client.close(error_code=3, reason_phrase="enough")
    network.run(20)


@pytest.fixture(params=["our client", "our server"])
def logs(request):
    """Our log and theirs, of the two ends of an exchange."""
    ours, theirs = QuicLogger(), TheirLogger()
    fields = {"max_datagram_frame_size": 65536, "max_data": 10_000}
    if request.param == "our client":
        client = QuicConnection(
            configuration=client_configuration(quic_logger=ours, **fields)
        )
        server = their_server(client, quic_logger=theirs, **fields)
    else:
        client = their_client(quic_logger=theirs, **fields)
        server = our_server(client, quic_logger=ours, **fields)
    exchange(Network(client, server))
    return ours, theirs


def test_every_packet_is_told_as_the_other_end_tells_it(logs):
    ours, theirs = logs
    for mine, yours, logs_padding in (
        ("packet_sent", "packet_received", True),
        # What aioquic sends as padding it does not call a frame.
        ("packet_received", "packet_sent", False),
    ):
        told, expected = packets_in(ours, mine), packets_in(theirs, yours)
        # Theirs ends with the packet that closes, ours goes on.
        assert told.keys() >= expected.keys()
        for key, frames in expected.items():
            if logs_padding:
                assert told[key] == frames
            else:
                assert without_padding(told[key]) == without_padding(frames)


def test_the_names_are_those_of_aioquic(logs):
    # What a client begins with, which only one of the two is.
    beginning = {"transport:version_information", "transport:alpn_information"}
    ours, theirs = (names_in(logger) - beginning for logger in logs)
    # ngtcp2 does not tell which packets it drops, and has no spin bit.
    silent = {"transport:packet_dropped", "connectivity:spin_bit_updated"}
    assert theirs - ours <= silent
    assert ours - theirs == {"connectivity:connection_closed"}


def test_the_same_data_are_told_of_each(logs):
    def fields(logger):
        told = {}
        for event in events_in(logger):
            told.setdefault(event["name"], set()).update(event["data"])
        return told

    ours, theirs = map(fields, logs)
    for name in ours.keys() & theirs.keys():
        if name == "transport:parameters_set":
            # Only some of them are sent in each connection.
            continue
        assert theirs[name] <= ours[name], name


def test_both_ends_are_traced(tmp_path):
    memory = QuicLogger()
    network = make_pair(
        {"quic_logger": memory}, {"quic_logger": QuicFileLogger(str(tmp_path))}
    ).handshake()
    network.client.close(reason_phrase="done")
    network.run(10)
    events = events_in(memory)
    assert events[0]["name"] == "transport:version_information"
    assert events[-1]["name"] == "connectivity:connection_closed"
    assert json.dumps(events)
    (written,) = tmp_path.iterdir()
    odcid = network.client.original_destination_connection_id
    assert written.name == f"{odcid.hex()}.qlog"
    (trace,) = json.loads(written.read_text())["traces"]
    assert trace["vantage_point"] == {"name": "nghttp2py", "type": "server"}
    parameters = [
        event["data"]["owner"]
        for event in trace["events"]
        if event["name"] == "transport:parameters_set"
    ]
    assert sorted(parameters) == ["local", "remote"]


@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("version", [1, 0x6B3343CF])
def test_packet_numbers_go_on_over_many_packets(version, loss):
    logs = QuicLogger(), QuicLogger()
    client, server = (
        {"quic_logger": logger, "supported_versions": [version]} for logger in logs
    )
    network = make_pair(client, server, loss=loss, seed=3).handshake()
    network.client.send_stream_data(0, bytes(1_000_000), end_stream=True)
    assert network.run(120, lambda: 0 in network.ended[network.server])
    sent = packets_in(logs[0], "packet_sent")
    received = packets_in(logs[1], "packet_received")
    assert len(received) > 700
    assert received.items() <= sent.items()
    numbers = [number for kind, number, _ in sent if kind == "1RTT"]
    # ngtcp2 1.24 skips a number now and then, to find out a peer that acknowledges
    # what it has not received (RFC 9000, 21.4).
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert numbers[0] == 0
    assert set(steps) <= {1, 2}
    assert steps.count(2) < len(steps) / 50
    assert {kind for kind, _, _ in received} == {"initial", "handshake", "1RTT"}


def test_early_data_and_keys_are_told():
    tickets = []
    make = client_configuration
    server = make_pair().server.configuration
    for _ in range(2):
        logger = QuicLogger()
        configuration = make(quic_logger=logger)
        if tickets:
            configuration.session_ticket = tickets[0]
        client = QuicConnection(
            configuration=configuration, session_ticket_handler=tickets.append
        )
        client.send_stream_data(0, b"early")
        end = QuicConnection(
            configuration=server, session_ticket_handler=lambda ticket: None
        )
        Network(client, end).handshake()
    assert ("0RTT", 0) in {key[:2] for key in packets_in(logger, "packet_sent")}
    keys = {
        (event["name"], event["data"]["key_type"])
        for event in events_in(logger)
        if event["name"].startswith("security")
    }
    assert ("security:key_updated", "client_0rtt_secret") in keys
    assert ("security:key_retired", "client_handshake_secret") in keys


def test_retry_and_version_negotiation_are_told():
    from nghttp2py.quic.routing import Router

    router = Router(secret=b"secret", connection_id_length=8, versions=[1])
    kinds = []
    for write in (
        lambda header: router.write_retry(header, ("192.0.2.1", 1), 0.0),
        router.write_version_negotiation,
    ):
        logger = QuicLogger()
        client = QuicConnection(configuration=client_configuration(quic_logger=logger))
        client.connect(("192.0.2.2", 1), 0.0)
        ((data, _),) = client.datagrams_to_send(0.0)
        answer = write(router.read_header(data))
        client.receive_datagram(answer, ("192.0.2.2", 1), 0.1)
        (event,) = (
            e for e in events_in(logger) if e["name"] == "transport:packet_received"
        )
        kinds.append(event["data"]["header"]["packet_type"])
    assert kinds == ["retry", "version_negotiation"]


def test_without_a_logger_no_packet_is_kept():
    network = make_pair().handshake()
    assert network.client._quic_logger is None


@pytest.mark.parametrize(
    ("payload", "kinds"),
    [
        (b"", []),
        (b"\0\0\0", ["padding"]),
        (b"\x01\x1e\0", ["ping", "handshake_done", "padding"]),
        (b"\x21", ["unknown"]),
        (b"\x01\x40", ["ping", "unknown"]),
        (b"\x06\0\x05abc", ["unknown"]),
        (b"\x08\x04abc", ["stream"]),
        (b"\x30abc", ["datagram"]),
        (b"\x31\x02abc", ["datagram", "unknown"]),
    ],
)
def test_frames_are_read_as_far_as_they_can_be(payload, kinds):
    assert [frame["frame_type"] for frame in decode_frames(payload, 3)] == kinds
