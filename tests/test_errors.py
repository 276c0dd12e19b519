"""What exceptions and log lines are made of."""

import pytest

from nghttp2py.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ä", "plain text, ä"),
        (b"\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\r\nlines", "two\\r\\nlines"),
        (b"\xff not UTF-8", "\\xff not UTF-8"),
        ("\x85\u2028\udc80", "\\x85\\u2028\\udc80"),
    ],
)
def test_control_characters_of_the_peer_are_escaped(text, shown):
    assert printable(text) == shown
