"""``nghttp2py hpack decode`` of connections: their bytes, and captures by tshark."""

import json
import re
import socket
import ssl
import struct
import subprocess
import sys

import pytest
import trustme
from click.testing import CliRunner
from loops import DEADLINE
from recipes import Page

from nghttp2py.cli import main
from nghttp2py.h2 import H2Connection

FIELDS = [["x-long", "a" * 300], ["x-a", "b"]]


@pytest.fixture
def run():
    def run(*arguments, stdin=None):
        command = ["hpack", "decode", *map(str, arguments)]
        return CliRunner().invoke(main, command, input=stdin)

    return run


def talk():
    """What a client and a server send in two exchanges."""
    client, server = H2Connection(client_side=True), H2Connection()
    client.initiate_connection()
    server.initiate_connection()
    sent = [b"", b""]
    for _ in range(2):
        stream = client.send_request(
            "GET", "/", FIELDS, authority=b"test", end_stream=True
        )
        sent[0] += (data := client.data_to_send())
        server.receive_data(data)
        server.send_response_headers(stream, 200, FIELDS, end_stream=True)
        sent[1] += (data := server.data_to_send())
        client.receive_data(data)
    return sent


def headers_of(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_both_exchanges(lines, first):
    assert [line["stream"] for line in lines] == [1, 3]
    for line in lines:
        assert line["frame"] == "HEADERS"
        assert line["headers"][0] == first
        assert [field[:2] for field in line["headers"][-2:]] == FIELDS


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("form", ["binary", "hex", "colons"])
def test_all_that_one_end_has_sent_is_decoded(run, tmp_path, side, form):
    data = talk()[side]
    file = tmp_path / "sent"
    if form == "binary":
        file.write_bytes(data)
    else:
        file.write_text(data.hex(":" if form == "colons" else " "))
    result = run(file)
    assert result.exit_code == 0, result.output
    first = [[":method", "GET"], [":status", "200"]][side]
    assert_both_exchanges(headers_of(result), first)
    table = run("--format=table", file).stdout
    assert "HEADERS of stream 1" in table and "x-long" in table


def frame(kind, flags, stream_id, payload):
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream_id) + payload


SETTINGS = frame(4, 0, 0, b"")


def test_a_block_in_pieces_is_found_between_padding_and_priority(run, tmp_path):
    file = tmp_path / "sent"
    file.write_bytes(
        SETTINGS
        + frame(0, 0, 1, b"body")
        + frame(1, 0x28, 1, b"\x02" + bytes(5) + b"\x82" + bytes(2))
        + frame(9, 0, 1, b"\x84")
        + frame(9, 4, 1, b"\x86")
        + frame(5, 4, 1, bytes([0, 0, 0, 2]) + b"\x82")
    )
    first, second = headers_of(run(file))
    assert [name for name, _ in first["headers"]] == [":method", ":path", ":scheme"]
    assert (second["frame"], second["stream"]) == ("PUSH_PROMISE", 1)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (frame(1, 4, 1, b"\x82")[:-1], "the bytes end within the frame at octet 9"),
        (b"\0\0", "the bytes end within the frame at octet 9"),
        (frame(1, 0, 1, b"\x82"), "the block that begins at octet 9 has no end"),
        (frame(9, 4, 1, b"\x82"), "the CONTINUATION at octet 9 continues nothing"),
        (
            frame(1, 0, 1, b"\x82") + frame(0, 0, 1, b""),
            "the frame at octet 19 is no CONTINUATION of the block that begins at "
            "octet 9",
        ),
        (frame(1, 0xC, 1, b"\x09\x82"), "the frame at octet 9 is too short"),
        (
            frame(1, 4, 3, b"\x82\xc6"),
            "the HEADERS of stream 3 at octet 9: malformed header block at octet 1: "
            "index 70 is not in the table, whose last is 61; was the capture begun in "
            "the middle of the connection?",
        ),
    ],
)
def test_what_is_malformed_has_its_place_and_a_reason(run, tmp_path, data, sentence):
    file = tmp_path / "sent"
    file.write_bytes(SETTINGS + data)
    result = run(file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{file}: {sentence}")


# ---- Captures ----


def packet(ports, flags, numbers, data=b""):
    """A packet of IPv4 on loopback."""
    tcp = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 65535, 0, 0)
    address = socket.inet_aton("127.0.0.1")
    length = 20 + len(tcp) + len(data)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 6, 0)
    return ip + address + address + tcp + data


def pcap(port, pieces):
    """A capture of a connection: pieces are (whether of the server, bytes)."""
    numbers, ends = [1000, 5000], [(40000, port), (port, 40000)]
    packets = [packet(ends[0], 2, (999, 0)), packet(ends[1], 0x12, (4999, 1000))]
    for side, data in pieces:
        # Packets of less than a maximum segment.
        for begin in range(0, len(data), 1000):
            piece = data[begin : begin + 1000]
            sequence = numbers[side], numbers[1 - side]
            packets.append(packet(ends[side], 0x18, sequence, piece))
            numbers[side] += len(piece)
    file = struct.pack("!IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for i, each in enumerate(packets):
        file += struct.pack("!IIII", i, 0, len(each), len(each)) + each
    return file


def test_a_capture_in_the_clear_is_decoded(run, tmp_path):
    client, server = talk()
    file = tmp_path / "clear.pcap"
    file.write_bytes(pcap(8080, [(0, client), (1, server)]))
    result = run(file)
    assert result.exit_code == 0, result.output
    lines = headers_of(result)
    assert [line["direction"] for line in lines] == [
        *["127.0.0.1:40000 > 127.0.0.1:8080"] * 2,
        *["127.0.0.1:8080 > 127.0.0.1:40000"] * 2,
    ]
    assert_both_exchanges(lines[:2], [":method", "GET"])
    assert_both_exchanges(lines[2:], [":status", "200"])


class TLSPair:
    """Both ends of a connection of TLS, and what they have sent."""

    def __init__(self, keylog):
        authority = trustme.CA()
        contexts = [
            ssl.create_default_context(),
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ]
        authority.configure_trust(contexts[0])
        authority.issue_cert("localhost").configure_cert(contexts[1])
        contexts[0].keylog_filename = str(keylog)
        for context in contexts:
            context.set_alpn_protocols(["h2"])
        self.buffers = [(ssl.MemoryBIO(), ssl.MemoryBIO()) for _ in range(2)]
        self.ends = [
            contexts[0].wrap_bio(*self.buffers[0], server_hostname="localhost"),
            contexts[1].wrap_bio(*self.buffers[1], server_side=True),
        ]
        self.pieces = []
        ready = set()
        while len(ready) < 2:
            for side, end in enumerate(self.ends):
                try:
                    end.do_handshake()
                    ready.add(side)
                except ssl.SSLWantReadError:
                    pass
                self.carry(side)

    def carry(self, side):
        if data := self.buffers[side][1].read():
            self.pieces.append((side, data))
            self.buffers[1 - side][0].write(data)

    def send(self, side, data):
        self.ends[side].write(data)
        self.carry(side)


def test_a_capture_of_tls_is_decoded_with_its_secrets(run, tmp_path):
    keylog = tmp_path / "keys"
    pair = TLSPair(keylog)
    for side, data in enumerate(talk()):
        pair.send(side, data)
    file = tmp_path / "tls.pcap"
    file.write_bytes(pcap(443, pair.pieces))
    result = run("--keylog", keylog, file)
    assert result.exit_code == 0, result.output
    lines = headers_of(result)
    assert_both_exchanges(lines[:2], [":method", "GET"])
    assert_both_exchanges(lines[2:], [":status", "200"])
    without = run(file)
    assert without.exit_code == 1
    assert "there is no HTTP/2 in this capture; for TLS, --keylog" in without.stderr


def test_a_capture_that_cannot_be_read_is_one_line(run, tmp_path, monkeypatch):
    file = tmp_path / "broken.pcap"
    file.write_bytes(pcap(8080, [])[:20])
    result = run(file)
    assert result.exit_code == 1 and "tshark: " in result.stderr
    monkeypatch.setenv("PATH", "")
    result = run(file)
    assert result.stderr == (
        f"{file}: tshark is needed to read a capture, and is not installed\n"
    )


def test_the_recipe_decodes_what_tshark_prints(tmp_path):
    file = tmp_path / "capture.pcap"
    file.write_bytes(pcap(8080, enumerate(talk())))
    command, _ = Page("cookbook/capture", tmp_path).find("tshark -r capture.pcap -q")
    done = subprocess.run(
        ["sh", "-c", command.replace("python", sys.executable)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE * 2,
    )
    blocks = re.findall(r"^(\w.*)\n  (.*)$", done.stdout, re.M)
    assert blocks == [
        (f"{end}, stream {number}", first)
        for end, first in [
            ("client", "b':method': b'GET'"),
            ("server", "b':status': b'200'"),
        ]
        for number in (1, 3)
    ]
