"""hpack's own tests, and the h2 package, run with ``hpack`` replaced by our module."""

from __future__ import annotations

import asyncio
import re
import shutil

from programs import run, source

REPLACE = "from nghttp2py.compat.hpack import replace_hpack\nreplace_hpack()\n"

# Tests of hpack's that ask for one of several encodings that RFC 7541 allows, or for
# names that hpack does not document.
OWN_CHOICES = [
    # Literals without Huffman codes.
    "TestHPACKEncoder::test_literal_header_field_with_indexing",
    "TestHPACKEncoder::test_indexed_literal_header_field_with_indexing",
    "TestHPACKEncoder::test_request_examples_without_huffman",
    # nghttp2 adds no :path to the table, and sends what is sensitive in full.
    "TestHPACKEncoder::test_sensitive_headers",
    "TestHPACKEncoder::test_sensitive_headers_with_header_tuples",
    "TestHPACKEncoder::test_non_sensitive_headers_with_header_tuples",
    # The least and the last of several sizes are announced, not each.
    "TestHPACKEncoder::test_resizing_header_table_sends_multiple_updates",
    "TestHPACKEncoder::test_resizing_header_table_to_same_size_ignored",
    # HeaderTable.resized, the name of a module.
    "TestHPACKEncoder::test_indexed_header_field_from_static_table",
    "test_to_bytes",
]
# The test of hpack.hpack._dict_to_iterable, whose name another one begins with, too.
OTHERS = "not test_ordering or test_ordering_applies_to_encoding"

EXCHANGE = """
import h2.config, h2.connection, h2.events
import nghttp2py.compat.hpack as ours

client = h2.connection.H2Connection()
server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
assert type(client.encoder) is ours.Encoder and type(server.decoder) is ours.Decoder
client.initiate_connection()
server.initiate_connection()
secret = ours.NeverIndexedHeaderTuple("authorization", "secret")
got = []
for stream in 1, 3:
    client.send_headers(
        stream,
        [(":method", "GET"), (":path", "/"), (":scheme", "https"),
         (":authority", "a.test"), secret],
        end_stream=True,
    )
    for event in server.receive_data(client.data_to_send()):
        if isinstance(event, h2.events.RequestReceived):
            assert [type(f) for f in event.headers][-1] is type(secret)
            server.send_headers(stream, [(":status", "204")], end_stream=True)
    got += client.receive_data(server.data_to_send())
statuses = [dict(e.headers) for e in got if isinstance(e, h2.events.ResponseReceived)]
assert statuses == [{b":status": b"204"}] * 2, statuses
print("exchanged")
"""


def test_the_tests_of_hpack_pass(tmp_path):
    shutil.copytree(source("hpack") / "tests", tmp_path / "tests")
    conftest = tmp_path / "tests" / "conftest.py"
    conftest.write_text(REPLACE + conftest.read_text())
    tests = tmp_path / "tests" / "test_hpack.py"
    # One line imports a name that is not documented.
    text, count = re.subn(
        r"from hpack\.hpack import _dict_to_iterable, ",
        "from hpack.hpack import ",
        tests.read_text(),
    )
    assert count == 1
    tests.write_text(text)
    output = asyncio.run(
        run(
            *("-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider"),
            *("test_hpack.py", "test_struct.py", "-k", OTHERS),
            *(f"--deselect=test_hpack.py::{name}" for name in OWN_CHOICES),
            cwd=tmp_path / "tests",
        )
    )
    assert re.search(r"^42 passed, 11 deselected", output, re.M), output


def test_h2_runs_on_our_module(tmp_path):
    program = tmp_path / "exchange.py"
    program.write_text(REPLACE + EXCHANGE)
    assert asyncio.run(run(program, cwd=tmp_path)) == "exchanged\n"
