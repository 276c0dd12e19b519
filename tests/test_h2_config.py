"""H2Configuration: what it refuses, and what its bounds do."""

from dataclasses import FrozenInstanceError, fields

import pytest
from helpers import HEADERS, Peers, RawPeer

import nghttp2py
from nghttp2py.errors import HeadersError, InvalidSettingsValueError
from nghttp2py.h2 import H2Configuration, H2Connection, H2RequestReceived

NUMBERS = [
    field.name
    for field in fields(H2Configuration)
    if not isinstance(field.default, bool)
]
SWITCHES = [
    field.name for field in fields(H2Configuration) if isinstance(field.default, bool)
]


def with_value(name, value):
    other = {
        "stream_reset_burst": "stream_reset_rate",
        "stream_reset_rate": "stream_reset_burst",
        "glitch_burst": "glitch_rate",
        "glitch_rate": "glitch_burst",
    }.get(name)
    return H2Configuration(**{name: value}, **({other: 1} if other else {}))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_number_out_of_range_is_refused(name, value):
    with pytest.raises(InvalidSettingsValueError, match=name):
        with_value(name, value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["1", 1.0, True])
def test_what_is_no_number_is_a_type_error(name, value):
    with pytest.raises(TypeError, match=name):
        with_value(name, value)


@pytest.mark.parametrize("name", SWITCHES)
def test_what_is_no_switch_is_a_type_error(name):
    with pytest.raises(TypeError, match=name):
        H2Configuration(**{name: 1})


@pytest.mark.parametrize(
    "names",
    [{"stream_reset_burst": 1}, {"stream_reset_rate": 1}, {"glitch_burst": 1}],
)
def test_a_burst_and_its_rate_go_together(names):
    with pytest.raises(InvalidSettingsValueError, match="together"):
        H2Configuration(**names)


def test_a_configuration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        H2Configuration().pad_multiple = 5


def test_a_connection_keeps_its_configuration():
    config = H2Configuration(pad_multiple=5)
    connection = H2Connection(client_side=True, config=config)
    assert connection.config is config
    assert connection.client_side is True
    with pytest.raises(TypeError, match="H2Configuration"):
        H2Connection(config={})


@pytest.mark.parametrize("size", [0, 100, 4096])
def test_the_table_for_what_we_send_is_bounded(size):
    peer = RawPeer(
        client_side=True,
        config=H2Configuration(max_deflate_dynamic_table_size=size),
    )
    for _ in range(5):
        peer.connection.send_request("GET", "/", [("a", "b" * 40)], authority="h")
    for sent in peer.read():
        if sent.type == HEADERS:
            assert (b"a", b"b" * 40) in peer.fields(sent)
    used = peer.connection.counters["deflate_table_size"]
    assert used <= size
    assert (used > 0) == (size > 0)


def test_the_table_for_what_we_take_is_announced_and_used():
    peers = Peers(server=H2Configuration(header_table_size=0))
    for _ in range(3):
        peers.request(headers=[("a", "b" * 40)])
    assert peers.server.counters["inflate_table_size"] == 0
    assert len([e for e in peers.server_events if type(e) is H2RequestReceived]) == 3


def test_the_header_section_that_we_send_is_bounded():
    peers = Peers(client=H2Configuration(max_send_header_block_length=500))
    with pytest.raises(HeadersError, match="max_send_header_block_length"):
        peers.request(headers=[("a", "b" * 500)])
    peers.request(headers=[("a", "b" * 400)])


#: The bounds that not every release of the C library has.
LATER_BOUNDS = {
    "max_continuations": {"max_continuations": 4},
    "max_outbound_queue_size": {"max_outbound_queue_size": 500},
    "stream_reset_rate_limit": {"stream_reset_burst": 50, "stream_reset_rate": 5},
    "glitch_rate_limit": {"glitch_burst": 50, "glitch_rate": 5},
}


def test_every_bound_can_be_set():
    config = H2Configuration(
        peer_max_concurrent_streams=5,
        max_reserved_remote_streams=5,
        max_outbound_ack=500,
        max_settings=20,
    )
    peers = Peers(client=config, server=config)
    peers.request()
    assert len(peers.server_events) == 2


@pytest.mark.parametrize("feature", LATER_BOUNDS)
def test_a_bound_is_set_or_said_to_be_missing(feature):
    config = H2Configuration(**LATER_BOUNDS[feature])
    if not nghttp2py.features()[feature]:
        with pytest.raises(InvalidSettingsValueError, match="does not have it"):
            H2Connection(config=config)
        return
    peers = Peers(client=config, server=config)
    peers.request()
    assert len(peers.server_events) == 2


def test_a_client_assumes_a_stream_limit_until_it_is_told():
    client = H2Connection(
        client_side=True, config=H2Configuration(peer_max_concurrent_streams=2)
    )
    client.initiate_connection()
    for _ in range(3):
        client.send_request("GET", "/", authority="h")
    client.data_to_send()
    assert client.queued_requests == 1


def test_counters_count():
    peers = Peers()
    stream_id = peers.request("POST", end_stream=False)
    peers.client.send_body(stream_id, b"x" * 1000)
    peers.server.send_response_headers(stream_id, 200, [], end_stream=True)
    peers.pump()
    client, server = peers.client.counters, peers.server.counters
    assert client["bytes_sent"] == server["bytes_received"]
    assert server["bytes_sent"] == client["bytes_received"]
    assert server["frames_received"] == client["frames_sent"]
    assert server["frames_received"][0] == 1
    assert server["frames_received"][1] == 1
    assert server["streams_opened"] == client["streams_opened"] == 1
    assert server["provoked_resets"] == 0
    assert server["header_bytes_received"] > server["header_block_bytes_received"] > 0
    assert server["outbound_queue"] == 0
    for what in ("header_bytes", "header_block_bytes"):
        assert client[f"{what}_sent"] == server[f"{what}_received"] > 0
    peers.client.reset_stream(peers.request())
    peers.pump()
    assert peers.client.counters["resets_sent"] == 1
    assert peers.server.counters["resets_received"] == 1
