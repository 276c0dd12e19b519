"""The examples of RFC 7541, Appendix C, in both directions."""

from __future__ import annotations

import pytest

from nghttp2py.hpack import HDDeflater, HDInflater, HDTableEntry, NeverIndexed

DATES = (b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT")
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
LOCATION = b"https://www.example.com"

# C.3 and C.4: the lists of three requests.
REQUESTS = [
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
# The dynamic table after each of them, and its size.
REQUEST_TABLES = [
    ([(b":authority", b"www.example.com")], 57),
    ([(b"cache-control", b"no-cache"), (b":authority", b"www.example.com")], 110),
    (
        [
            (b"custom-key", b"custom-value"),
            (b"cache-control", b"no-cache"),
            (b":authority", b"www.example.com"),
        ],
        164,
    ),
]

# C.5 and C.6: the lists of three responses, with a table of 256 bytes.
RESPONSES = [
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", DATES[0]),
        (b"location", LOCATION),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", DATES[0]),
        (b"location", LOCATION),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", DATES[1]),
        (b"location", LOCATION),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", COOKIE),
    ],
]
RESPONSE_TABLES = [
    (
        [
            (b"location", LOCATION),
            (b"date", DATES[0]),
            (b"cache-control", b"private"),
            (b":status", b"302"),
        ],
        222,
    ),
    (
        [
            (b":status", b"307"),
            (b"location", LOCATION),
            (b"date", DATES[0]),
            (b"cache-control", b"private"),
        ],
        222,
    ),
    (
        [
            (b"set-cookie", COOKIE),
            (b"content-encoding", b"gzip"),
            (b"date", DATES[1]),
        ],
        215,
    ),
]

C3 = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
]
C4 = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
]
C5 = [
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133"
    "2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70"
    "6c65 2e63 6f6d",
    "4803 3330 37c1 c0bf",
    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d"
    "54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049"
    "5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e"
    "3d31",
]
C6 = [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6"
    "2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab"
    "77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f"
    "9587 3160 65c0 03ed 4ee5 b106 3d50 07",
]


def table(coder):
    return [(entry.name, entry.value) for entry in coder.get_hd_table()]


@pytest.mark.parametrize(
    ("block", "field", "size"),
    [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            (b"custom-key", b"custom-header"),
            55,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", (b":path", b"/sample/path"), 0),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", (b"password", b"secret"), 0),
        ("82", (b":method", b"GET"), 0),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_each_representation_is_decoded(block, field, size):
    inflater = HDInflater()
    (received,) = inflater.inflate(bytes.fromhex(block))
    assert received == field
    assert isinstance(received, NeverIndexed) == (field[0] == b"password")
    assert table(inflater) == ([field] if size else [])
    assert inflater.dynamic_table_size == size


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize(
    ("blocks", "lists", "tables", "limit"),
    [
        (C3, REQUESTS, REQUEST_TABLES, 4096),
        (C4, REQUESTS, REQUEST_TABLES, 4096),
        (C5, RESPONSES, RESPONSE_TABLES, 256),
        (C6, RESPONSES, RESPONSE_TABLES, 256),
    ],
    ids=["C.3", "C.4", "C.5", "C.6"],
)
def test_a_sequence_is_decoded_and_leaves_the_table_shown(
    blocks, lists, tables, limit, chunk
):
    inflater = HDInflater()
    prefix = b""
    if limit != 4096:
        # The examples leave out how the limit was agreed (RFC 7541, 4.2).
        inflater.change_table_size(limit)
        prefix = bytes.fromhex("3fe101")
    for block, headers, (entries, size) in zip(blocks, lists, tables, strict=True):
        data = prefix + bytes.fromhex(block)
        prefix = b""
        received = []
        for i in range(0, len(data), chunk):
            received += inflater.inflate(data[i : i + chunk], final=False)
        received += inflater.inflate(b"")
        assert received == headers
        assert table(inflater) == entries
        assert inflater.dynamic_table_size == size


def test_requests_are_encoded_as_shown():
    """C.4: nghttp2 chooses as the example does."""
    deflater, inflater = HDDeflater(), HDInflater()
    for block, headers, (entries, size) in zip(
        C4, REQUESTS, REQUEST_TABLES, strict=True
    ):
        encoded = deflater.deflate(headers)
        assert encoded == bytes.fromhex(block)
        assert inflater.inflate(encoded) == headers
        assert table(deflater) == entries
        assert deflater.dynamic_table_size == size


def test_static_and_dynamic_entries_have_their_index():
    """RFC 7541, 2.3.3 and Appendix A."""
    deflater, inflater = HDDeflater(), HDInflater()
    inflater.inflate(deflater.deflate([(b"first", b"1"), (b"second", b"2")]))
    for coder in deflater, inflater:
        assert coder.num_table_entries == 63
        assert coder.get_table_entry(1) == HDTableEntry(b":authority", 10, b"", 0)
        assert coder.get_table_entry(2).value == b"GET"
        assert coder.get_table_entry(61).name == b"www-authenticate"
        assert coder.get_table_entry(62) == HDTableEntry(b"second", 6, b"2", 1)
        assert coder.get_table_entry(63) == HDTableEntry(b"first", 5, b"1", 1)
        assert coder.get_hd_table() == [
            coder.get_table_entry(62),
            coder.get_table_entry(63),
        ]
        for index in 0, 64, -1, 2**70:
            with pytest.raises(IndexError):
                coder.get_table_entry(index)
        with pytest.raises(TypeError):
            coder.get_table_entry("62")
