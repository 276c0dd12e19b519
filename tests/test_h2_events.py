"""Events: immutable, printable, comparable, matchable."""

from typing import get_args

import pytest

from nghttp2py import h2
from nghttp2py.h2 import (
    BodyReceived,
    H2BodyReceived,
    H2ConnectionClosed,
    H2GoAway,
    H2RequestReceived,
    H2StreamReset,
    H2WebSocketRequest,
    H2WindowUpdated,
    RequestReceived,
)

REQUEST = RequestReceived(b"GET", b"/", [(b"host", b"h")])

EVENTS = [
    (h2.H2AlternativeServiceReceived, (0, b"https://h", b"clear")),
    (h2.H2BodyDrained, (1,)),
    (h2.H2BodyReceived, (1, BodyReceived(b"x", True))),
    (h2.H2ConnectionClosed, (1, True)),
    (h2.H2ExtensionFrameReceived, (0, 0xFA, 1, b"x")),
    (h2.H2GoAway, (1, 0)),
    (h2.H2InformationalResponseReceived, (1, 103, ())),
    (h2.H2OriginReceived, (b"https://h",)),
    (h2.H2PingAcknowledged, (b"12345678",)),
    (h2.H2PingReceived, (b"12345678",)),
    (h2.H2PriorityUpdated, (1, b"u=1")),
    (h2.H2PushedStreamReceived, (2, 1, REQUEST)),
    (h2.H2RequestReceived, (1, REQUEST)),
    (h2.H2RequestSent, (1,)),
    (h2.H2ResponseReceived, (1, 200, ((b"a", b"b"),))),
    (h2.H2StreamClosed, (1, 0)),
    (h2.H2StreamReset, (1, 8)),
    (h2.H2TrailersReceived, (1, ((b"a", b"b"),))),
    (h2.H2WebSocketRequest, (1, REQUEST, b"/chat")),
    (h2.H2WindowUpdated, (1,)),
    (h2.BodyReceived, (b"x", False)),
    (h2.RequestReceived, (b"GET", b"/", ((b"host", b"h"),))),
]


@pytest.mark.parametrize("kind,arguments", EVENTS)
def test_an_event_is_a_value(kind, arguments):
    event = kind(*arguments)
    assert event == kind(*arguments)
    assert hash(event) == hash(kind(*arguments))
    assert event != object()
    assert repr(event).startswith(f"{kind.__name__}(")
    for argument in arguments:
        assert repr(argument) in repr(event)
    for name, argument in zip(kind.__match_args__, arguments, strict=False):
        assert getattr(event, name) == argument
        with pytest.raises(AttributeError):
            setattr(event, name, argument)
    with pytest.raises(AttributeError):
        event.something_else = 1


@pytest.mark.parametrize("kind", [h2.H2SettingsReceived, h2.H2SettingsAcknowledged])
def test_settings_are_told_as_a_dict(kind):
    assert kind({3: 100}) == kind({3: 100})
    assert kind({3: 100}) != kind({3: 101})
    assert repr(kind({3: 100})) == f"{kind.__name__}(settings={{3: 100}})"


def test_every_event_is_tried():
    tried = {kind for kind, _ in EVENTS}
    tried |= {h2.H2SettingsReceived, h2.H2SettingsAcknowledged, h2.H2BodyFailed}
    kinds = [getattr(h2.events, name) for name in h2.events.__all__]
    assert tried == {kind for kind in kinds if isinstance(kind, type)}
    assert tried - {h2.BodyReceived, h2.RequestReceived} == set(get_args(h2.H2Event))


def test_what_explains_is_not_compared():
    assert H2StreamReset(1, 8, True, True, "why") == H2StreamReset(1, 8)
    assert H2GoAway(1, 0, b"debug") == H2GoAway(1, 0)
    assert H2WindowUpdated(1, 100) == H2WindowUpdated(1)
    assert H2ConnectionClosed(1, True, "why") == H2ConnectionClosed(1, True)
    assert H2StreamReset(1, 8, False) == H2StreamReset(1, 8, True)
    assert H2StreamReset(1, 8) != H2StreamReset(1, 7)


def test_events_match():
    match H2BodyReceived(1, BodyReceived(b"x", False)):
        case H2BodyReceived(stream_id, BodyReceived(data, more=False)):
            assert (stream_id, data) == (1, b"x")
        case _:
            raise AssertionError
    match H2RequestReceived(1, REQUEST):
        case H2RequestReceived(_, RequestReceived(b"GET", target)):
            assert target == b"/"
        case _:
            raise AssertionError
    match H2WebSocketRequest(1, REQUEST, b"/chat"):
        case H2WebSocketRequest(ws_path=path):
            assert path == b"/chat"


def test_a_request_can_be_made_by_hand():
    request = RequestReceived(b"GET", b"/", iter([(b"a", b"b")]), scheme=b"https")
    assert request.headers == request.fields == ((b"a", b"b"),)
    assert request.http_version == "2"
    assert request.scheme == b"https"
    assert request.authority is None
    for arguments in [(None, b"/", ()), (b"GET", "/", ()), (b"GET",)]:
        with pytest.raises(TypeError):
            RequestReceived(*arguments)


def test_everything_public_is_named():
    for name in h2.__all__:
        assert getattr(h2, name)
