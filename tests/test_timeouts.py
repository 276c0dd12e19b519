"""The time bounds of servers: their values."""

import pytest

from nghttp2py.asyncio.timeouts import Timeouts


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_bound_is_a_positive_number(value):
    with pytest.raises(ValueError, match="headers must be positive"):
        Timeouts(headers=value)


@pytest.mark.parametrize("value", [None, "5", True])
def test_a_bound_that_every_server_needs_is_a_number(value):
    with pytest.raises(TypeError, match="handshake must be a number"):
        Timeouts(handshake=value)


@pytest.mark.parametrize("name", ["body", "response", "idle", "keepalive"])
def test_some_waits_may_be_without_a_bound(name):
    assert getattr(Timeouts(**{name: None}), name) is None
