"""A client and a server of ours, in memory: handshakes, streams, ends."""

import dataclasses
import gc
import io
import random
import ssl
import sys
import weakref
from datetime import datetime, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from quic_pair import (
    SERVER,
    Network,
    authority,
    client_configuration,
    events_of,
    identity,
    make_pair,
    server_configuration,
)

from nghttp2py.quic.configuration import ServerCertificate
from nghttp2py.quic.connection import QuicConnection
from nghttp2py.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    PingAcknowledged,
    ProtocolNegotiated,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from nghttp2py.quic.packet import QuicErrorCode, QuicProtocolVersion
from nghttp2py.quic.tls import SessionTicket


@pytest.fixture
def pair():
    """Two connections after their handshake."""
    return make_pair(
        {"max_datagram_frame_size": 65536}, {"max_datagram_frame_size": 65536}
    ).handshake()


def end_of(network, quic):
    """Run until ``quic`` is over; its last event."""
    assert network.run(200, lambda: "ConnectionTerminated" in network.names(quic)), (
        network.events[quic]
    )
    return network.events[quic][-1]


# ---- Handshakes ----


def test_a_handshake_tells_its_events_in_order(pair):
    names = ["ProtocolNegotiated", "HandshakeCompleted"] + ["ConnectionIdIssued"] * 7
    assert pair.names(pair.client) == names
    assert pair.names(pair.server) == names
    for quic in (pair.client, pair.server):
        protocol, completed = pair.events[quic][:2]
        assert protocol == ProtocolNegotiated(alpn_protocol="test")
        assert completed == HandshakeCompleted(
            alpn_protocol="test", early_data_accepted=False, session_resumed=False
        )


def test_a_handshake_needs_no_more_than_the_round_trips():
    network = make_pair(delay=0.05).connect()
    assert network.run(1, lambda: "HandshakeCompleted" in network.names(network.client))
    assert network.now == pytest.approx(1000.1)
    assert network.run(1, lambda: "HandshakeCompleted" in network.names(network.server))
    assert network.now == pytest.approx(1000.15)


def test_a_connection_without_alpn_has_no_protocol():
    network = make_pair({"alpn_protocols": None}, {"alpn_protocols": None}).handshake()
    assert network.events[network.client][0] == ProtocolNegotiated(alpn_protocol=None)


def test_the_server_chooses_the_protocol_it_likes_best():
    network = make_pair(
        {"alpn_protocols": ["a", "b", "c"]}, {"alpn_protocols": ["x", "c", "b"]}
    ).handshake()
    assert network.events[network.server][0].alpn_protocol == "c"
    assert network.events[network.client][0].alpn_protocol == "c"


def test_no_common_protocol_ends_the_handshake():
    network = make_pair({"alpn_protocols": ["a"]}, {"alpn_protocols": ["b"]}).connect()
    # RFC 9001, 8.1: the alert no_application_protocol.
    assert end_of(network, network.client).error_code == 0x100 + 120


@pytest.mark.parametrize(
    "versions",
    [[QuicProtocolVersion.VERSION_1], [QuicProtocolVersion.VERSION_2]],
    ids=["v1", "v2"],
)
def test_both_versions_work(versions):
    network = make_pair(
        {"supported_versions": versions}, {"supported_versions": versions}
    ).handshake()
    assert network.client.handshake_complete
    assert network.client.version == network.server.version == versions[0]


def test_a_compatible_version_is_negotiated():
    """RFC 9368: no round trip is lost."""
    v1, v2 = QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2
    network = make_pair(
        {"supported_versions": [v1, v2]}, {"supported_versions": [v2, v1]}
    ).handshake()
    assert network.client.version == network.server.version == v2


def test_a_wrong_name_is_refused():
    network = make_pair({"server_name": "elsewhere.example"}).connect()
    event = end_of(network, network.client)
    assert 0x100 <= event.error_code < 0x200
    assert event.frame_type == 6
    assert "name" in event.reason_phrase
    assert end_of(network, network.server).error_code == event.error_code


def test_an_unknown_authority_is_refused():
    import trustme

    network = make_pair({"cadata": trustme.CA().cert_pem.bytes()}).connect()
    assert 0x100 <= end_of(network, network.client).error_code < 0x200
    assert not network.client.handshake_complete


@pytest.mark.parametrize("off", [ssl.CERT_NONE, False])
def test_verification_can_be_switched_off(off):
    network = make_pair(
        {"cadata": None, "server_name": "elsewhere", "verify_mode": off}
    ).handshake()
    assert network.client.handshake_complete


def test_verification_can_be_switched_on_by_a_bool():
    network = make_pair({"server_name": "elsewhere", "verify_mode": True}).connect()
    assert 0x100 <= end_of(network, network.client).error_code < 0x200


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_is_verified_as_an_address(address):
    network = make_pair({"server_name": address}).handshake()
    assert network.client.handshake_complete
    network = make_pair({"server_name": "192.0.2.99"}).connect()
    assert 0x100 <= end_of(network, network.client).error_code < 0x200


def test_the_peers_certificates_are_shown(pair):
    expected = ssl.PEM_cert_to_DER_cert(identity()[0].decode().split("\n\n")[0])
    assert pair.client.peer_certificates[0] == expected
    assert pair.server.peer_certificates == []


def test_a_client_can_be_asked_for_a_certificate():
    certificate, key = identity("client.example")
    network = make_pair(
        {"certificate": certificate, "private_key": key},
        {"verify_mode": ssl.CERT_REQUIRED, "cadata": authority().cert_pem.bytes()},
    ).handshake()
    assert network.server.handshake_complete
    assert len(network.server.peer_certificates) >= 1


def test_a_client_without_a_certificate_is_refused_if_one_is_required():
    network = make_pair(
        {}, {"verify_mode": ssl.CERT_REQUIRED, "cadata": authority().cert_pem.bytes()}
    ).connect()
    assert 0x100 <= end_of(network, network.server).error_code < 0x200


def test_certificates_may_be_objects_of_cryptography():
    chain, key = identity()
    certificates = x509.load_pem_x509_certificates(chain)
    network = make_pair(
        {},
        {
            "certificate": certificates[0],
            "certificate_chain": certificates[1:],
            "private_key": load_pem_private_key(key, None),
        },
    ).handshake()
    assert network.client.handshake_complete


def test_certificates_are_read_from_files(tmp_path):
    chain, key = identity()
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "both.pem").write_bytes(chain + key)
    (tmp_path / "ca.pem").write_bytes(authority().cert_pem.bytes())
    for files in (["chain.pem", "key.pem"], ["both.pem"]):
        server = server_configuration(certificate=None)
        server.load_cert_chain(*(tmp_path / name for name in files))
        client = client_configuration(cadata=None)
        client.load_verify_locations(cafile=str(tmp_path / "ca.pem"))
        assert make_pair(client, server).handshake().client.handshake_complete


def test_the_password_of_a_key_goes_with_a_copy_of_the_configuration(tmp_path):
    chain, key = identity()
    encrypted = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    (tmp_path / "both.pem").write_bytes(chain + encrypted)
    loaded = server_configuration(certificate=None)
    loaded.load_cert_chain(tmp_path / "both.pem", password="word")
    given = server_configuration(
        certificate=chain, private_key=encrypted, key_password=b"word"
    )
    for server in (loaded, given, dataclasses.replace(loaded, max_data=1 << 20)):
        assert make_pair({}, server).handshake().client.handshake_complete
    loaded.key_password = "word"
    with pytest.raises(TypeError, match="key_password must be bytes"):
        QuicConnection(configuration=loaded)


def test_the_repr_of_a_configuration_shows_no_secrets():
    now = datetime.now(timezone.utc)
    configuration = server_configuration(
        certificate="the certificate",
        private_key="SECRET key",
        key_password=b"SECRET password",
        session_ticket_key=b"SECRET ticket key",
        stateless_reset_secret=b"SECRET reset",
        certificates={
            "x.example": ServerCertificate("another", "SECRET key", (), b"SECRET")
        },
        session_ticket=SessionTicket(0, 0, now, now, b"SECRET", "host", b"SECRET"),
    )
    assert "the certificate" in repr(configuration)
    assert "another" in repr(configuration) and "'host'" in repr(configuration)
    assert "SECRET" not in repr(configuration)


def test_secrets_are_logged_for_both_ends():
    logs = io.StringIO(), io.StringIO()
    make_pair({"secrets_log_file": logs[0]}, {"secrets_log_file": logs[1]}).handshake()
    lines = [log.getvalue().splitlines() for log in logs]
    assert sorted(lines[0]) == sorted(lines[1])
    labels = {line.split()[0] for line in lines[0]}
    assert labels >= {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    }


def test_what_tls_has_come_to_can_be_asked(pair):
    assert tuple(pair.client.tls)[:3] == ("test", False, False)
    ours, theirs = pair.server.tls, pair.client.tls
    assert ours.cipher_suite == theirs.cipher_suite in (0x1301, 0x1302, 0x1303)
    assert ours.server_name == "localhost"
    assert ours.own_certificate == pair.client.peer_certificates[0]
    assert theirs.own_certificate is None


# ---- Streams ----


@pytest.mark.parametrize("size", [0, 1, 256, 257, 5000, 300_000, 3_000_000])
def test_data_go_both_ways(pair, size):
    data = random.Random(size).randbytes(size)
    stream_id = pair.client.get_next_available_stream_id()
    for sender in (pair.client, pair.server):
        assert pair.transfer(sender, data, stream_id) == data
    pair.run(1)
    assert pair.client.queued_data() == pair.server.queued_data() == 0


def test_stream_ids_move_on_when_they_are_used(pair):
    client, server = pair.client, pair.server
    assert client.get_next_available_stream_id() == 0
    assert client.get_next_available_stream_id() == 0
    assert client.get_next_available_stream_id(is_unidirectional=True) == 2
    assert server.get_next_available_stream_id() == 1
    assert server.get_next_available_stream_id(is_unidirectional=True) == 3
    client.send_stream_data(0, b"")
    client.send_stream_data(2, b"")
    assert client.get_next_available_stream_id() == 4
    assert client.get_next_available_stream_id(is_unidirectional=True) == 6


def test_streams_that_wait_for_the_peers_limit_are_counted_as_open(pair):
    """RFC 9000, 4.6."""
    client = pair.client
    limit = client.streams_left()
    assert limit == pair.server.configuration.max_streams_bidi
    assert client.streams_left(True) == pair.server.configuration.max_streams_uni
    for n in range(limit + 2):
        client.send_stream_data(4 * n, b"x")
        assert client.streams_left() == max(0, limit - n - 1)
    pair.run(1)
    assert client.streams_left() == 0


def test_data_sent_before_the_handshake_go_with_it():
    network = make_pair()
    network.client.send_stream_data(0, b"early", end_stream=True)
    network.client.send_stream_data(2, b"bird")
    network.handshake()
    assert network.received[network.server] == {0: b"early", 2: b"bird"}


def test_streams_beyond_the_peers_limit_wait(pair):
    ids = [4 * i for i in range(300)]
    for stream_id in ids:
        pair.client.send_stream_data(stream_id, b"%d" % stream_id, end_stream=True)
    pair.run(0.5)
    assert len(pair.ended[pair.server]) == 128
    pair.on_event[pair.server] = lambda event: (
        pair.server.send_stream_data(event.stream_id, b"", end_stream=True)
        if isinstance(event, StreamDataReceived) and event.end_stream
        else None
    )
    for stream_id in list(pair.ended[pair.server]):
        pair.server.send_stream_data(stream_id, b"", end_stream=True)
    assert pair.run(20, lambda: len(pair.ended[pair.client]) == 300)
    assert pair.received[pair.server] == {i: b"%d" % i for i in ids}


def test_many_small_writes_arrive_as_one_stream(pair):
    pieces = [b"%d," % i for i in range(5000)]
    for piece in pieces:
        pair.client.send_stream_data(0, piece)
    pair.client.send_stream_data(0, b"", end_stream=True)
    assert pair.run(20, lambda: 0 in pair.ended[pair.server])
    assert pair.received[pair.server][0] == b"".join(pieces)


def test_datagrams_that_came_at_once_make_one_event_of_a_stream(pair):
    pair.client.send_stream_data(0, bytes(10_000))
    pair.client.send_stream_data(4, b"other", end_stream=True)
    ((data, _, ecn, segment),) = pair.client.runs_to_send(pair.now)
    assert len(data) > 5 * segment
    assert pair.client.runs_to_send(pair.now) == []
    pair.server.receive_run(
        data, pair.client_address, pair.now, segment=segment, ecn=ecn
    )
    events = events_of(pair.server)
    assert sum(len(event.data) for event in events if event.stream_id == 0) == 10_000
    assert len(events) <= 3


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_buffer_can_be_sent_and_changed_afterwards(pair, kind):
    data = bytearray(b"x" * 5000)
    pair.client.send_stream_data(0, kind(data), end_stream=True)
    data[:] = b"y" * 5000
    assert pair.run(5, lambda: 0 in pair.ended[pair.server])
    assert pair.received[pair.server][0] == b"x" * 5000


def test_several_streams_share_a_packet(pair):
    for stream_id in range(0, 40, 4):
        pair.client.send_stream_data(stream_id, b"small", end_stream=True)
    assert len(pair.client.datagrams_to_send(pair.now)) == 1


def test_urgent_streams_go_first(pair):
    client = pair.client
    for stream_id, urgency in ((0, 7), (4, 3), (8, 0)):
        client.send_stream_data(stream_id, b"x" * 100_000, end_stream=True)
        client.set_stream_priority(stream_id, urgency)
    finished = []
    pair.on_event[pair.server] = lambda event: (
        finished.append(event.stream_id)
        if isinstance(event, StreamDataReceived) and event.end_stream
        else None
    )
    assert pair.run(20, lambda: len(finished) == 3)
    assert finished == [8, 4, 0]


def test_bytes_are_held_until_they_are_acknowledged(pair):
    data = bytes(100_000)
    pair.client.send_stream_data(0, data)
    held = sys.getrefcount(data)
    pair.run(5)
    assert sys.getrefcount(data) == held - 1


def test_an_unread_stream_stops_the_sender():
    """RFC 9000, 4: credit is returned for what was taken, not for what arrived."""
    network = make_pair({}, {"max_stream_data": 100_000}).handshake()
    client, server = network.client, network.server
    client.send_stream_data(0, bytes(1_000_000))
    for _ in range(100):
        network.now += 0.01
        for data, _ in client.datagrams_to_send(network.now):
            server.receive_datagram(data, network.client_address, network.now)
        for data, _ in server.datagrams_to_send(network.now):
            client.receive_datagram(data, SERVER, network.now)
    taken = 0
    while (event := server.next_event()) is not None:
        taken += len(event.data)
    assert taken == 100_000


def test_a_reset_stream_tells_its_code(pair):
    pair.client.send_stream_data(0, b"begun")
    pair.run(0.1)
    pair.client.reset_stream(0, 42)
    pair.run(0.1)
    assert pair.events[pair.server][-1] == StreamReset(error_code=42, stream_id=0)
    pair.client.reset_stream(0, 43)
    with pytest.raises(RuntimeError):
        pair.client.send_stream_data(0, b"more")


def test_a_stream_reset_before_it_is_open_is_reset_when_it_is():
    network = make_pair()
    network.client.send_stream_data(0, b"never mind")
    network.client.reset_stream(0, 7)
    network.handshake()
    assert StreamReset(error_code=7, stream_id=0) in network.events[network.server]


def test_a_stopped_stream_is_reset_in_answer(pair):
    pair.client.send_stream_data(0, bytes(500))
    pair.run(0.1)
    pair.server.stop_stream(0, 9)
    pair.run(0.1)
    stopped = StopSendingReceived(error_code=9, stream_id=0)
    assert stopped in pair.events[pair.client]
    assert StreamReset(error_code=9, stream_id=0) in pair.events[pair.server]
    with pytest.raises(RuntimeError):
        pair.client.send_stream_data(0, b"more")


def test_what_is_dropped_by_a_stopped_stream_does_not_use_up_the_connection():
    network = make_pair({}, {"max_data": 200_000}).handshake()
    for stream_id in range(0, 40, 4):
        network.client.send_stream_data(stream_id, bytes(100_000))
        network.run(0.02)
        network.server.stop_stream(stream_id, 0)
        network.run(0.2)
    network.client.send_stream_data(40, b"still alive", end_stream=True)
    assert network.run(5, lambda: 40 in network.ended[network.server])


def test_sending_on_the_wrong_stream_raises(pair):
    client, server = pair.client, pair.server
    client.send_stream_data(2, b"one way")
    pair.run(0.1)
    with pytest.raises(ValueError, match="peer-initiated unidirectional stream"):
        server.send_stream_data(2, b"back")
    with pytest.raises(ValueError, match="unknown peer-initiated stream"):
        server.send_stream_data(0, b"too early")
    with pytest.raises(ValueError, match="unknown stream"):
        server.stop_stream(0, 0)
    with pytest.raises(ValueError, match="local-initiated unidirectional stream"):
        client.stop_stream(2, 0)
    with pytest.raises(ValueError, match="too far ahead"):
        client.send_stream_data(1 << 61 & ~3, b"")
    client.send_stream_data(2, b"", end_stream=True)
    with pytest.raises(RuntimeError):
        client.send_stream_data(2, b"after the end")
    pair.run(1)
    with pytest.raises(ValueError, match="finished stream"):
        client.send_stream_data(2, b"long after")
    client.reset_stream(2, 0)


# ---- Datagrams, pings, keys, connection ids ----


def test_datagrams_go_both_ways(pair):
    for sender, receiver in (
        (pair.client, pair.server),
        (pair.server, pair.client),
    ):
        for data in (b"", b"one", bytes(1100)):
            sender.send_datagram_frame(data)
        pair.run(0.2)
        assert [
            event.data
            for event in pair.events[receiver]
            if isinstance(event, DatagramFrameReceived)
        ] == [b"", b"one", bytes(1100)]


def test_a_datagram_that_cannot_be_sent_does_not_hold_up_others(pair):
    pair.client.send_datagram_frame(bytes(3000))
    pair.client.send_datagram_frame(b"small")
    pair.run(0.2)
    assert pair.events[pair.server][-1] == DatagramFrameReceived(data=b"small")
    assert pair.client.stats["datagrams_dropped"] == 1


def test_datagrams_that_the_peer_does_not_take_are_dropped():
    network = make_pair().handshake()
    assert network.client._remote_max_datagram_frame_size is None
    network.client.send_datagram_frame(b"unwanted")
    network.run(0.2)
    assert "DatagramFrameReceived" not in network.names(network.server)
    assert network.client.stats["datagrams_dropped"] == 1


def test_datagrams_that_nobody_reads_are_bounded():
    fields = {"max_datagram_frame_size": 65536, "max_datagram_queue": 10_000}
    network = make_pair(fields, fields).handshake()
    for _ in range(100):
        network.client.send_datagram_frame(bytes(1000))
    assert network.client.stats["datagrams_dropped"] == 90


def test_a_ping_is_acknowledged(pair):
    for uid in (1, 2, (1 << 64) - 1):
        pair.client.send_ping(uid)
    pair.server.send_ping(5)
    pair.run(1)
    assert pair.events[pair.client][-3:] == [
        PingAcknowledged(uid=1),
        PingAcknowledged(uid=2),
        PingAcknowledged(uid=(1 << 64) - 1),
    ]
    assert pair.events[pair.server][-1] == PingAcknowledged(uid=5)


def test_a_ping_that_is_lost_is_sent_again(pair):
    pair.client.send_ping(1)
    assert pair.client.datagrams_to_send(pair.now)
    assert pair.run(10, lambda: pair.events[pair.client][-1] == PingAcknowledged(1))


def test_keys_are_updated_from_both_sides(pair):
    for _ in range(3):
        for sender, receiver in (
            (pair.client, pair.server),
            (pair.server, pair.client),
        ):
            sender.request_key_update()
            sender.send_ping(1)
            pair.run(2)
            assert pair.events[sender][-1] == PingAcknowledged(uid=1)
            assert "ConnectionTerminated" not in pair.names(receiver)


def test_a_key_update_waits_for_the_handshake():
    network = make_pair()
    network.client.request_key_update()
    network.handshake()
    network.client.send_stream_data(0, b"new keys", end_stream=True)
    assert network.run(2, lambda: 0 in network.ended[network.server])


def test_a_client_changes_its_connection_id(pair):
    issued = [
        event.connection_id
        for event in pair.events[pair.server]
        if isinstance(event, ConnectionIdIssued)
    ]
    pair.client.change_connection_id()
    pair.run(2)
    retired, another = pair.events[pair.server][-2:]
    assert isinstance(retired, ConnectionIdRetired)
    assert retired.connection_id == pair.server.host_cid
    assert isinstance(another, ConnectionIdIssued)
    pair.client.send_stream_data(0, b"moved", end_stream=True)
    data = pair.client.datagrams_to_send(pair.now)[0][0]
    assert data[1:9] in issued


def test_a_clients_new_address_is_followed(pair):
    """NAT rebinding (RFC 9000, 9)."""
    pair.client_address = ("192.0.2.1", 50001)
    pair.client.send_stream_data(0, b"from elsewhere", end_stream=True)
    assert pair.run(5, lambda: 0 in pair.ended[pair.server])
    pair.server.send_stream_data(0, bytes(50_000), end_stream=True)
    assert pair.run(5, lambda: 0 in pair.ended[pair.client])
    assert pair.server.get_peer_address() == pair.client_address


# ---- Ends ----


@pytest.mark.parametrize("closer", ["client", "server"])
def test_a_close_is_told_at_both_ends(pair, closer):
    getattr(pair, closer).close(error_code=5, reason_phrase="that is all")
    expected = ConnectionTerminated(
        error_code=5, frame_type=None, reason_phrase="that is all"
    )
    assert end_of(pair, pair.client) == expected
    assert end_of(pair, pair.server) == expected
    assert pair.client.get_timer() is None
    assert pair.client.datagrams_to_send(pair.now) == []


def test_a_close_of_the_transport_is_told_apart(pair):
    code = QuicErrorCode.PROTOCOL_VIOLATION
    pair.client.close(error_code=code, frame_type=0x1C, reason_phrase="no")
    # ngtcp2 names no frame to the peer.
    assert end_of(pair, pair.server) == ConnectionTerminated(
        error_code=code, frame_type=0, reason_phrase="no"
    )
    assert end_of(pair, pair.client) == ConnectionTerminated(
        error_code=code, frame_type=0x1C, reason_phrase="no"
    )


def test_the_first_close_counts(pair):
    pair.client.close(error_code=1)
    pair.client.close(error_code=2)
    assert end_of(pair, pair.client).error_code == 1
    pair.client.close(error_code=3)


def test_a_long_reason_is_cut(pair):
    pair.client.close(reason_phrase="long " * 1000)
    assert end_of(pair, pair.server).reason_phrase == ("long " * 1000)[:256]


def test_a_connection_that_is_closed_before_it_began_is_over():
    client = QuicConnection(configuration=client_configuration())
    client.close(error_code=3)
    assert client.datagrams_to_send(0.0) == []
    assert client.next_event() == ConnectionTerminated(
        error_code=3, frame_type=None, reason_phrase=""
    )


def test_a_silent_peer_ends_the_connection():
    network = make_pair({"idle_timeout": 5.0}).connect()
    network.loss = 1.0
    assert end_of(network, network.client) == ConnectionTerminated(
        error_code=QuicErrorCode.INTERNAL_ERROR,
        frame_type=0,
        reason_phrase="Idle timeout",
    )
    assert 1005 <= network.now <= 1006


def test_the_smaller_idle_timeout_counts():
    network = make_pair({"idle_timeout": 60.0}, {"idle_timeout": 2.0}).handshake()
    assert end_of(network, network.client).reason_phrase == "Idle timeout"
    assert network.now < 1004


def test_a_close_is_said_again_to_a_peer_that_still_talks(pair):
    pair.server.close(error_code=1)
    pair.server.datagrams_to_send(pair.now)
    said = 0
    for i in range(64):
        pair.now += 0.001
        pair.client.send_stream_data(4 * i, b"?")
        for data, _ in pair.client.datagrams_to_send(pair.now):
            pair.server.receive_datagram(data, pair.client_address, pair.now)
        said += len(pair.server.datagrams_to_send(pair.now))
    assert 1 < said < 10


def test_what_is_done_to_a_closed_connection_is_let_go(pair):
    pair.client.close()
    end_of(pair, pair.client)
    pair.client.send_stream_data(400, b"unheard", end_stream=True)
    pair.client.reset_stream(0, 0)
    pair.client.stop_stream(0, 0)
    pair.client.send_datagram_frame(b"unheard")
    pair.client.send_ping(1)
    pair.client.request_key_update()
    pair.client.change_connection_id()
    pair.client.set_stream_priority(0)
    pair.client.handle_timer(pair.now)
    assert pair.client.datagrams_to_send(pair.now) == []
    assert pair.client.next_event() is None


def test_a_connection_is_freed_with_data_queued():
    client = QuicConnection(configuration=client_configuration())
    data = bytes(100_000)
    before = sys.getrefcount(data)
    client.send_stream_data(0, data)
    assert sys.getrefcount(data) == before + 1
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert sys.getrefcount(data) == before


# ---- Clocks ----


def test_a_clock_that_runs_backwards_does_no_harm(pair):
    client, server = pair.client, pair.server
    client.send_stream_data(0, bytes(20_000), end_stream=True)
    steps = random.Random(1)
    for _ in range(2000):
        now = max(0.0, pair.now + steps.uniform(-500, 1))
        for data, _ in client.datagrams_to_send(now):
            server.receive_datagram(data, pair.client_address, max(0.0, now - 100))
        for data, _ in server.datagrams_to_send(now):
            client.receive_datagram(data, SERVER, now)
        client.handle_timer(max(0.0, now - 1))
        pair.now += 0.001
    pair.now += 1
    assert pair.run(5, lambda: 0 in pair.ended[server])


@pytest.mark.parametrize("now", [-1.0, float("nan"), float("inf"), 1e19])
def test_a_time_that_is_none_raises(pair, now):
    for call in (
        lambda: pair.client.datagrams_to_send(now),
        lambda: pair.client.handle_timer(now),
        lambda: pair.client.receive_datagram(b"", SERVER, now),
    ):
        with pytest.raises(ValueError, match="time"):
            call()


def test_send_credit_is_what_the_windows_of_the_peer_leave():
    pair = make_pair(server={"max_stream_data": 1000, "max_data": 1500})
    client = pair.client
    assert client.send_credit() == client.send_credit(0) == 0
    pair.handshake()
    assert (client.send_credit(), client.send_credit(0)) == (1500, 0)
    client.send_stream_data(0, b"x")
    pair.run(1)
    pair.server.pause_reading(0)
    credit = client.send_credit(0)
    client.send_stream_data(0, bytes(3000))
    assert (client.unsent_data(0), client.send_credit(0)) == (3000, credit)
    pair.run(1)
    assert client.send_credit(0) == 0
    assert client.unsent_data(0) == client.queued_data(0) == 3000 - credit
    client.send_stream_data(4, b"")
    pair.run(1)
    assert client.send_credit(4) == 1000
    client.close()
    pair.run(1)
    assert client.send_credit() >= 0 and client.unsent_data(0) == 0


@pytest.mark.parametrize("by", ["client", "server"])
@pytest.mark.parametrize("configured", [False, True])
def test_keep_alive_holds_a_connection_open(by, configured):
    """RFC 9000, 10.1.2."""
    fields = {"idle_timeout": 2.0}
    keeper = {**fields, "keep_alive": 1.0} if configured else fields
    pair = make_pair(
        client=keeper if by == "client" else fields,
        server=keeper if by == "server" else fields,
    ).handshake()
    quic = getattr(pair, by)
    if not configured:
        quic.set_keep_alive(1.0)
    pair.run(20)
    assert not pair.client.closed and not pair.server.closed
    quic.set_keep_alive(None)
    pair.run(20)
    assert pair.client.closed and pair.server.closed


def test_keep_alive_heeds_the_idle_timeout_of_the_peer():
    """The shorter of both counts (RFC 9000, 10.1)."""
    pair = make_pair(client={"idle_timeout": 3.0}).handshake()
    pair.server.set_keep_alive(40.0)
    pair.run(30)
    assert not pair.client.closed and not pair.server.closed


def test_keep_alive_does_not_hold_a_connection_to_a_dead_peer():
    pair = make_pair(client={"idle_timeout": 3.0}).handshake()
    pair.client.set_keep_alive(1.0)
    pair.loss = 1.0
    pair.run(30)
    assert pair.client.closed


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e10])
def test_keep_alive_is_a_positive_time(seconds):
    with pytest.raises(ValueError, match="seconds"):
        make_pair().client.set_keep_alive(seconds)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("keep_alive", "3", TypeError),
        ("keep_alive", True, TypeError),
        ("keep_alive", 0, ValueError),
        ("keep_alive", -1, ValueError),
        ("idle_timeout", "3", TypeError),
        ("initial_rtt", float("nan"), ValueError),
        ("max_data", "3", TypeError),
        ("max_streams_bidi", -1, ValueError),
    ],
)
def test_a_number_that_cannot_be_is_named(name, value, kind):
    with pytest.raises(kind, match=f"^{name} .*{value}"):
        make_pair(client={name: value})


def test_a_ping_is_acknowledged_beside_keep_alive():
    pair = make_pair(client={"keep_alive": 0.2}).handshake()
    for uid in range(5):
        pair.client.send_ping(uid)
        pair.run(0.35)
    uids = [e.uid for e in pair.events[pair.client] if hasattr(e, "uid")]
    assert uids == list(range(5))


@pytest.mark.parametrize("now", [0.0, 0.1, 1000.0, 1_764_000_000.123456])
def test_a_client_that_has_sent_nothing_is_due(now):
    """A loop that only waits for the timer begins, too."""
    quic = QuicConnection(configuration=client_configuration())
    assert quic.get_timer() is None
    quic.connect(SERVER, now)
    assert quic.get_timer() <= now
    quic.handle_timer(now)
    assert quic.get_timer() <= now
    assert quic.datagrams_to_send(now)
    assert quic.get_timer() > now


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_handshake_is_given_up_in_time(role):
    client = QuicConnection(
        configuration=client_configuration(),
        **({"handshake_timeout": 2.0} if role == "client" else {}),
    )
    server = QuicConnection(
        configuration=server_configuration(),
        **({"handshake_timeout": 2.0} if role == "server" else {}),
    )
    pair = Network(client, server).connect()
    if role == "server":
        # The client's first flight arrives, and nothing after it.
        pair.run(0.006)
    pair.loss = 1.0
    quic = getattr(pair, role)
    pair.run(1.8)
    assert not quic.closed
    pair.run(0.4)
    (event,) = [
        e for e in pair.events[quic] if type(e).__name__ == "ConnectionTerminated"
    ]
    assert event.reason_phrase == "Handshake timeout"
