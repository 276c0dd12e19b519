"""Names, events and functions of nghttp2py.h3, which are aioquic's."""

import copy
import dataclasses
import subprocess
import sys

import pytest
from fake_quic import REQUEST, FakeQuic

from nghttp2py import errors
from nghttp2py.h3 import H3_ALPN, H3Configuration, H3Connection, connection, events
from nghttp2py.h3.connection import (
    ErrorCode,
    FrameError,
    MessageError,
    ProtocolError,
    SettingsError,
    encode_frame,
    encode_settings,
    is_interim_response,
    parse_max_push_id,
    parse_settings,
    validate_header_name,
    validate_header_value,
    validate_push_promise_headers,
    validate_request_headers,
    validate_response_headers,
    validate_trailers,
)
from nghttp2py.h3.exceptions import (
    H3Error,
    InvalidStreamTypeError,
    NoAvailablePushIDError,
)


def test_without_libnghttp3_the_import_says_what_to_install():
    code = (
        "import sys; sys.modules['nghttp2py.h3.connection'] = None; import nghttp2py.h3"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: nghttp2py was built without HTTP/3" in done.stderr
    assert "libnghttp3-dev" in done.stderr


def test_h3_imports_no_asyncio_and_no_quic():
    code = (
        "import sys, nghttp2py.h3; print([m for m in sys.modules if m == 'asyncio'"
        " or m.startswith('nghttp2py.quic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_alpn_token():
    assert H3_ALPN == ["h3"]


def test_exceptions_are_of_our_tree():
    assert issubclass(InvalidStreamTypeError, H3Error)
    assert issubclass(NoAvailablePushIDError, H3Error)
    assert issubclass(H3Error, errors.NGHTTP2Error)
    assert issubclass(ProtocolError, errors.NGHTTP2Error)


PROTOCOL_ERRORS = [
    value
    for value in vars(connection).values()
    if isinstance(value, type) and issubclass(value, ProtocolError)
]


@pytest.mark.parametrize("error", PROTOCOL_ERRORS)
def test_every_protocol_error_has_its_code(error):
    assert isinstance(error.error_code, ErrorCode)
    assert error("why").reason_phrase == "why"
    assert error().reason_phrase == ""


# ---- Events ----


def test_events_are_made_by_keyword_and_compare_by_value():
    event = events.DataReceived(data=b"x", stream_id=0, stream_ended=True)
    assert event == events.DataReceived(b"x", 0, True, None)
    assert event != events.DataReceived(b"x", 0, True, 1)
    assert event != events.DatagramReceived(b"x", 0)
    assert isinstance(event, events.H3Event)
    assert repr(event) == (
        "DataReceived(data=b'x', stream_id=0, stream_ended=True, push_id=None)"
    )


def test_events_are_dataclasses():
    event = events.HeadersReceived(REQUEST, 4, False)
    names = [field.name for field in dataclasses.fields(event)]
    assert names == ["headers", "stream_id", "stream_ended", "push_id"]
    event.stream_id = 8
    assert copy.copy(event) == event
    match event:
        case events.HeadersReceived(headers, 8):
            assert headers == REQUEST
        case _:
            pytest.fail("no match")


def test_events_cannot_be_hashed():
    with pytest.raises(TypeError):
        hash(events.DatagramReceived(b"", 0))


# ---- Frames and settings ----


def test_frames_are_type_length_and_payload():
    assert encode_frame(0x21, b"ab") == b"\x21\2ab"
    assert encode_frame(0x4000, bytes(64))[:6] == b"\x80\0\x40\0\x40\x40"


@pytest.mark.parametrize("number", [-1, 1 << 62])
def test_numbers_that_do_not_fit_are_refused(number):
    with pytest.raises(ValueError, match="variable-length integer"):
        encode_frame(number, b"")


def test_settings_go_there_and_back():
    settings = {1: 4096, 0x33: 1, (1 << 62) - 1: (1 << 62) - 1}
    assert parse_settings(encode_settings(settings)) == settings
    assert parse_settings(b"") == {}


@pytest.mark.parametrize(
    ("data", "error", "phrase"),
    [
        (b"\1", FrameError, "Could not parse SETTINGS frame"),
        (b"\1\1\1\1", SettingsError, "Setting identifier 0x1 is included twice"),
        (b"\2\1", SettingsError, "Setting identifier 0x2 is reserved"),
    ],
)
def test_settings_that_break_a_rule_are_refused(data, error, phrase):
    with pytest.raises(error) as caught:
        parse_settings(data)
    assert caught.value.reason_phrase == phrase


def test_max_push_id_is_one_number():
    assert parse_max_push_id(b"\x40\x41") == 65
    with pytest.raises(FrameError, match="Could not parse"):
        parse_max_push_id(b"")
    with pytest.raises(FrameError, match="trailing data"):
        parse_max_push_id(b"\1\1")


# ---- Rules for headers ----


def test_headers_of_each_kind_that_are_right_raise_nothing():
    validate_request_headers(REQUEST)
    validate_request_headers([*REQUEST, (b"te", b"Trailers")])
    validate_push_promise_headers(REQUEST)
    validate_response_headers([(b":status", b"200"), (b"x", b"")])
    validate_trailers([(b"x", b"y z")])
    validate_header_name(b":x")
    validate_header_value(b"x", b"\xff\t\x80")


@pytest.mark.parametrize(
    ("validate", "headers", "phrase"),
    [
        (
            validate_push_promise_headers,
            REQUEST[:1],
            "Pseudo-headers [b':authority', b':path', b':scheme'] are missing",
        ),
        (
            validate_push_promise_headers,
            [*REQUEST, (b":protocol", b"x")],
            "Pseudo-header b':protocol' is not valid",
        ),
        (validate_trailers, REQUEST, "Pseudo-header b':method' is not valid"),
        (
            validate_response_headers,
            [(b":status", b"1000")],
            "Pseudo-header b':status' has invalid value b'1000'",
        ),
        (
            validate_request_headers,
            [*REQUEST, (b"'\"\\\n", b"")],
            "Header b'\\'\"\\\\\\n' contains invalid characters",
        ),
    ],
)
def test_headers_that_break_a_rule(validate, headers, phrase):
    with pytest.raises(MessageError) as caught:
        validate(headers)
    assert caught.value.reason_phrase == phrase


def test_validation_tells_the_stream_its_length():
    class Stream:
        expected_content_length = None

    stream = Stream()
    validate_request_headers([*REQUEST, (b"content-length", b"007")], stream)
    assert stream.expected_content_length == 7


def test_a_phrase_names_any_field_as_python_does():
    name = bytes(range(256))
    with pytest.raises(MessageError) as caught:
        validate_header_name(name)
    assert caught.value.reason_phrase == f"Header {name!r} contains invalid characters"


def test_which_responses_are_interim():
    assert is_interim_response([(b":status", b"103")])
    assert not is_interim_response([(b":status", b"200")])
    assert not is_interim_response([])


# ---- Construction ----


def test_what_is_sent_first():
    """The identifiers and the order are aioquic's."""
    quic = FakeQuic(True)
    h3 = H3Connection(quic)
    assert quic.sent(2) == bytes.fromhex("00 04 09 01 50 00 07 10 08 01 21 01 0d 01 08")
    assert (quic.sent(6), quic.sent(10)) == (b"\2", b"\3")
    assert h3.sent_settings == {1: 4096, 7: 16, 8: 1, 0x21: 1}
    assert h3.received_settings is None

    quic = FakeQuic(False)
    h3 = H3Connection(quic, enable_webtransport=True)
    assert h3.sent_settings[0x33] == 1
    assert h3.sent_settings[0x2B603742] == 1
    assert (quic.sent(7), quic.sent(11)) == (b"\2", b"\3")


def test_settings_of_ones_own_choice():
    config = H3Configuration(
        settings={0x21: None, 0x1234: 5}, qpack_blocked_streams=0, max_push_id=None
    )
    h3 = H3Connection(FakeQuic(True), config=config)
    assert h3.sent_settings == {1: 4096, 7: 0, 8: 1, 0x1234: 5}


@pytest.mark.parametrize(
    "options",
    [
        {"max_push_id": 1 << 62},
        {"qpack_blocked_streams": -1},
        {"settings": {1 << 62: 0}},
        {"settings": {1: -1}},
    ],
)
def test_a_configuration_out_of_range_is_refused(options):
    with pytest.raises(errors.InvalidSettingsValueError):
        H3Configuration(**options)


def test_a_configuration_of_the_wrong_kind_is_refused():
    with pytest.raises(TypeError):
        H3Configuration(max_glitches="many")
    with pytest.raises(TypeError):
        H3Connection(FakeQuic(True), config={})


def test_a_connection_that_was_not_made_says_so():
    h3 = H3Connection.__new__(H3Connection)
    with pytest.raises(RuntimeError, match="was not called"):
        h3.send_headers(0, REQUEST)
    with pytest.raises(RuntimeError, match="was not called"):
        h3.handle_event(None)


def test_a_connection_is_made_once():
    h3 = H3Connection(FakeQuic(True))
    with pytest.raises(RuntimeError, match="called before"):
        h3.__init__(FakeQuic(True))


def test_subclasses_may_take_other_arguments():
    class Logged(H3Connection):
        def __init__(self, quic, name):
            super().__init__(quic)
            self.name = name

    assert Logged(FakeQuic(True), "a").name == "a"


def test_other_quic_events_are_nothing_to_us():
    assert H3Connection(FakeQuic(True)).handle_event(object()) == []
