"""A ``BaseRequestHandler`` accepts and refuses the same over every version."""

import pytest
from exchanges import both_versions, every_version, serving_app
from loops import in_loop, until

from nghttp2py import DATA_EOF
from nghttp2py.errors import (
    BodyQueueFullError,
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.h3.connection import ErrorCode as H3ErrorCode
from nghttp2py.server import BaseRequestHandler

MEGABYTE = bytes(1 << 20)


def in_each_version(test):
    return every_version(in_loop(test))


def calling(act):
    """A handler whose ``on_headers`` is ``act``; the class keeps what was called."""

    class Handler(BaseRequestHandler):
        def on_headers(self):
            try:
                act(self)
            except BaseException as error:
                self.failed.append(error)
                raise

        def on_data(self, data):
            self.called.append("on_data")

        def on_request_done(self):
            self.called.append("on_request_done")

        def on_close(self, error_code):
            self.called.append(f"on_close {bool(error_code)}")

    Handler.called = []
    Handler.failed = []
    return Handler


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"content-length": 5}, (b"content-length", b"5")),
        ([("X-Number", 7)], (b"x-number", b"7")),
        ([("x-secret", "a", True)], (b"x-secret", b"a")),
        ([(b"x-plain", b"a", False)], (b"x-plain", b"a")),
        ([["x-list", "\xe9"]], (b"x-list", b"\xc3\xa9")),
    ],
    ids=["int", "upper", "secret", "plain", "list"],
)
@pytest.mark.parametrize("place", ["headers", "informational", "trailers"])
@in_each_version
async def test_fields_are_given_in_the_same_forms(version, place, given, sent):
    if isinstance(given, dict) and place != "headers":
        given, sent = {"x-length": 5}, (b"x-length", b"5")

    def act(handler):
        if place == "headers":
            handler.send_response(200, given, b"hello")
        elif place == "informational":
            handler.send_informational(103, given)
            handler.send_response(204)
        else:
            handler.send_response(200, None, b"hello", trailers=given)

    handler_class = calling(act)
    async with serving_app(version, handler_class) as ends:
        stream = await ends.open(end_stream=True)
        if place == "informational":
            assert list((await stream.next_informational()).headers) == [sent]
        response = await stream.response()
        await stream.read()
        if place == "headers":
            # HTTP/1.1 states the length of a whole body, the others need not.
            length = (b"content-length", b"5")
            expected = {sent, length} if version == "HTTP/1.1" else {sent}
            assert set(response.headers) == expected
            assert len(response.headers) == len(expected)
        elif place == "trailers":
            assert list(await stream.trailers()) == [sent]
    assert not handler_class.failed


@in_each_version
async def test_nothing_is_sent_besides_the_source_of_a_body(version):
    errors = []

    def act(handler):
        def source(n):
            for call in (lambda: handler.send_data(b"y"), handler.end):
                with pytest.raises(StreamStateError) as caught:
                    call()
                errors.append(caught.value)
            return b"x" * 10, DATA_EOF

        handler.send_response(200, None, source)

    async with serving_app(version, calling(act)) as ends:
        stream = await ends.open(end_stream=True)
        assert await stream.read() == b"x" * 10
    assert len(errors) == 2


REFUSED = [
    *(("send_response", (status,), TypeError) for status in ("abc", None, 200.0, True)),
    *(("send_response", (n,), HeadersError) for n in (0, 99, 100, 103, 199, 600, 1000)),
    ("send_headers", (103,), HeadersError),
    ("send_response", (200, "abc"), TypeError),
    ("send_response", (200, 5), TypeError),
    ("send_response", (200, [("a",)]), TypeError),
    ("send_response", (200, [(None, "x")]), TypeError),
    ("send_response", (200, [("x", 2.5)]), TypeError),
    ("send_response", (200, [("x", None)]), TypeError),
    ("send_response", (200, {"": "b"}), HeadersError),
    ("send_response", (200, {"x": "a\r\nb"}), HeadersError),
    ("send_response", (200, {":path": "/"}), HeadersError),
    ("send_response", (204, {"content-length": "5"}), HeadersError),
    ("send_response", (200, {"content-length": "3"}, b"four"), InvalidBodyLengthError),
    *(("send_informational", (n,), HeadersError) for n in (99, 101, 200)),
    ("send_informational", (None,), TypeError),
    ("send_informational", (103, {":x": "y"}), HeadersError),
    ("send_data", (b"x",), StreamStateError),
    ("end", (), StreamStateError),
    ("end", ({"a": "b"},), StreamStateError),
]


@both_versions
@in_loop
async def test_a_field_of_a_connection_is_refused(version):
    """Over HTTP/1.1 it is the server's, and dropped: see test_h1_responses.py."""

    def act(handler):
        with pytest.raises(HeadersError):
            handler.send_response(200, {"connection": "close"})
        handler.send_response(204)

    handler_class = calling(act)
    async with serving_app(version, handler_class) as ends:
        assert (await ends.fetch())[0] == 204
    assert not handler_class.failed


@pytest.mark.parametrize(("name", "arguments", "error"), REFUSED)
@in_each_version
async def test_what_must_not_be_sent_raises_the_same(version, name, arguments, error):
    def act(handler):
        with pytest.raises(error):
            getattr(handler, name)(*arguments)
        if handler.status is None:
            handler.send_response(204)
        else:
            handler.reset()  # the body was refused after its header section

    handler_class = calling(act)
    async with serving_app(version, handler_class) as ends:
        if error is InvalidBodyLengthError:
            with pytest.raises(StreamResetError):
                await ends.fetch()
        else:
            assert (await ends.fetch())[0] == 204
    assert not handler_class.failed


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        (["send_response", "send_response"], StreamStateError),
        (["send_headers", "send_headers"], StreamStateError),
        (["send_headers", "send_informational"], StreamStateError),
        (["send_response", "send_informational"], StreamClosedError),
        (["send_response", "send_data"], StreamClosedError),
        (["send_response", "end"], StreamClosedError),
        (["send_headers", "end", "end"], StreamClosedError),
        (["reset", "send_response"], StreamClosedError),
    ],
)
@in_each_version
async def test_calls_in_a_wrong_order_raise_the_same(version, calls, error):
    arguments = {"send_data": (b"x",), "send_informational": (103,)}

    def act(handler):
        for name in calls[:-1]:
            getattr(handler, name)()
        with pytest.raises(error):
            getattr(handler, calls[-1])(*arguments.get(calls[-1], ()))
        if calls[-2:] in (
            ["send_headers", "send_headers"],
            ["send_headers", "send_informational"],
        ):
            handler.end()

    handler_class = calling(act)
    async with serving_app(version, handler_class) as ends:
        if calls[0] == "reset":
            with pytest.raises(StreamResetError):
                await ends.fetch()
        else:
            assert await ends.fetch() == (200, b"", [])
    assert not handler_class.failed


@in_each_version
async def test_the_first_piece_of_a_body_may_have_any_size(version):
    def act(handler):
        handler.send_headers()
        handler.send_data(2 * MEGABYTE)
        with pytest.raises(BodyQueueFullError):
            handler.send_data(b"x")
        handler.end()

    handler_class = calling(act)
    async with serving_app(version, handler_class) as ends:
        assert await ends.fetch() == (200, 2 * MEGABYTE, [])
    assert not handler_class.failed


@in_each_version
async def test_a_request_that_is_whole_is_done_after_its_answer(version):
    handler_class = calling(lambda handler: handler.send_response(204))
    async with serving_app(version, handler_class) as ends:
        assert (await ends.fetch())[0] == 204
        await until(lambda: len(handler_class.called) == 2)
    assert handler_class.called == ["on_request_done", "on_close False"]


@in_each_version
async def test_a_request_is_done_that_is_answered_with_its_last_piece(version):
    handler_class = calling(lambda handler: None)

    def on_data(self, data):
        self.called.append("on_data")
        self.send_response(204)

    handler_class.on_data = on_data
    async with serving_app(version, handler_class) as ends:
        stream = await ends.open(method=b"POST")
        await stream.send_data(b"body", end_stream=True)
        assert (await stream.response()).status == 204
        await until(lambda: len(handler_class.called) == 3)
    assert handler_class.called == ["on_data", "on_request_done", "on_close False"]


@pytest.mark.parametrize("error", [ErrorCode.REFUSED_STREAM, 7])
@pytest.mark.parametrize("body", [b"queued", 3 * MEGABYTE])
@in_each_version
async def test_a_reset_drops_what_is_queued(version, body, error):
    """Its code is HTTP/2's, also as a number; HTTP/3 has one of the same meaning."""

    def act(handler):
        handler.send_response(200, None, body)
        handler.reset(error)

    handler_class = calling(act)
    async with serving_app(version, handler_class) as ends:
        stream = await ends.open(end_stream=True)
        with pytest.raises(StreamResetError) as caught:
            await stream.read()
        codes = {
            "HTTP/1.1": ErrorCode.INTERNAL_ERROR,  # it has none
            "HTTP/2": error,
            "HTTP/3": H3ErrorCode.H3_REQUEST_REJECTED,
        }
        assert caught.value.error_code == codes[version]
        await until(lambda: ends.log)
        assert ends.log[0].bytes_sent == 0
        assert not ends.log[0].complete
    assert handler_class.called[-1] == "on_close True"


@in_each_version
async def test_cookies_are_one_field(version):
    """RFC 9113, 8.2.3, RFC 9114, 4.2.1."""
    found = []

    def act(handler):
        found.extend(value for name, value in handler.headers if name == b"cookie")
        handler.send_response(204)

    async with serving_app(version, calling(act)) as ends:
        await ends.fetch(headers=[(b"cookie", b"a=b"), (b"cookie", b"c=d")])
    assert found == [b"a=b; c=d"]
