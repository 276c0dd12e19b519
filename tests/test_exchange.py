"""The layer between protocols and applications: both halves in Python.

Every call crosses the C-level interface, as those of compiled halves do.
"""

import logging

import pytest

from nghttp2py import access
from nghttp2py.errors import (
    ErrorCode,
    PushDisabledError,
    StreamClosedError,
    StreamResetError,
    StreamStateError,
)
from nghttp2py.exchange import (
    Exchange,
    ExchangeFactory,
    HTTPConnection,
    PythonConnection,
    PythonExchange,
    answer_failure,
    expects_continue,
    has_content,
    log_access,
)
from nghttp2py.h2 import RequestReceived


def request(method=b"GET", fields=()):
    return RequestReceived(method, b"/", tuple(fields))


def failure():
    return StreamResetError(1, ErrorCode.CANCEL, remote=True)


class Application(PythonExchange):
    """Writes down every call."""

    def __init__(self, http, stream_id, request=None):
        super().__init__(http, stream_id, request)
        self.calls = []

    def request_received(self, request):
        self.calls.append(("request", request))

    def informational_received(self, status, fields):
        self.calls.append(("informational", status, fields))

    def response_received(self, status, fields):
        self.calls.append(("response", status, fields))

    def data_received(self, data):
        self.calls.append(("data", data))

    def trailers_received(self, fields):
        self.calls.append(("trailers", fields))

    def end_received(self):
        self.calls.append(("end",))

    def writable(self):
        self.calls.append(("writable",))

    def aborted(self, failure, error_code, incoming, outgoing):
        self.calls.append(("aborted", failure, error_code, incoming, outgoing))

    def server_closing(self):
        self.calls.append(("closing",))

    def exchange_closed(self, failure, error_code, body_bytes_sent):
        self.calls.append(("closed", failure, error_code, body_bytes_sent))


class Connection(PythonConnection):
    """Writes down every call; ``error`` is what sending a response raises."""

    error = None

    def __init__(self, **options):
        super().__init__("HTTP/7", **options)
        self.calls = []

    def send_response(self, exchange, status, fields, end):
        if self.error is not None:
            raise self.error
        self.calls.append(("response", status, dict(fields), end))
        exchange.status = status

    def queue_body(self, exchange, data, end):
        self.calls.append(("body", data, end))

    def send_informational(self, exchange, status, fields):
        self.calls.append(("informational", status))

    def stop_request(self, exchange, error_code=None):
        self.calls.append(("stop",))

    def reset(self, exchange, error_code):
        self.calls.append(("reset", error_code))

    def get_extra_info(self, name, default=None):
        return ("192.0.2.1", 443) if name == "peername" else default


def test_every_call_of_a_connection_arrives_at_the_exchange():
    http = Connection()
    message = request()
    exchange = Application(http, 1, message)
    fields = ((b"a", b"b"),)
    http.request_received(exchange, message)
    http.informational_received(exchange, 103, fields)
    http.response_received(exchange, 200, list(fields))
    http.data_received(exchange, b"data")
    http.trailers_received(exchange, fields)
    http.end_received(exchange)
    http.writable(exchange)
    http.aborted(exchange, failure, 8, outgoing=False)
    http.closing(exchange)
    http.closed(exchange, None, 0, 5)
    assert exchange.calls == [
        ("request", message),
        ("informational", 103, fields),
        ("response", 200, fields),
        ("data", b"data"),
        ("trailers", fields),
        ("end",),
        ("writable",),
        ("aborted", failure, 8, True, False),
        ("closing",),
        ("closed", None, 0, 5),
    ]
    assert exchange.http is http and exchange.request is message
    assert exchange.started > 0


def test_an_exchange_that_overrides_nothing_ignores_every_call():
    http = Connection()
    exchange = PythonExchange(http, 1, request())
    http.request_received(exchange, exchange.request)
    http.informational_received(exchange, 103, ())
    http.response_received(exchange, 200, ())
    http.data_received(exchange, b"data")
    http.trailers_received(exchange, ())
    http.end_received(exchange)
    http.writable(exchange)
    http.aborted(exchange, failure, 8)
    http.closing(exchange)
    http.closed(exchange, failure, 8, 0)
    assert (exchange.stream_id, exchange.status, http.calls) == (1, None, [])


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("request_received", (request(),)),
        ("informational_received", (103, ())),
        ("response_received", (200, ())),
        ("data_received", (b"data",)),
        ("trailers_received", ((),)),
        ("end_received", ()),
        ("writable", ()),
        ("aborted", (failure, 8)),
        ("closing", ()),
        ("closed", (None, 0, 0)),
    ],
)
def test_what_an_exchange_raises_arrives_at_the_connection(call, arguments):
    def fail(self, *args):
        raise LookupError("on purpose")

    http = Connection()
    name = {"closing": "server_closing", "closed": "exchange_closed"}.get(call, call)
    exchange = type("Failing", (Application,), {name: fail})(http, 1, request())
    with pytest.raises(LookupError):
        getattr(http, call)(exchange, *arguments)


@pytest.mark.parametrize(
    ("call", "arguments", "error"),
    [
        ("send_response", (200, (), True), StreamStateError),
        ("send_fields", ((), True), StreamStateError),
        ("send_informational", (103, ()), StreamStateError),
        ("send_continue", (), StreamStateError),
        ("accept_tunnel", ((),), StreamStateError),
        ("send_trailers", ((),), StreamStateError),
        ("queue_body", (b"", True), StreamStateError),
        ("send_body", (b"", None), StreamStateError),
        ("end", (), StreamStateError),
        ("reset", (8,), StreamStateError),
        ("push", ((),), PushDisabledError),
        ("adopt", (), PushDisabledError),
        ("send_datagram", (b"",), StreamStateError),
    ],
)
def test_a_protocol_says_what_it_does_not_have(call, arguments, error):
    http = HTTPConnection("HTTP/7")
    with pytest.raises(error, match=r"^HTTP/7 has no "):
        getattr(http, call)(Application(http, 1), *arguments)


def test_what_a_protocol_need_not_have_does_nothing():
    http = HTTPConnection("HTTP/7")
    exchange = Application(http, 1)
    http.resume_body(exchange)
    http.acknowledge(exchange, 5)
    http.stop_request(exchange)
    http.set_priority(exchange, 3, False)
    http.flush_soon()
    assert http.queued(exchange) == 0 and http.room(exchange, 7, False) == 7
    assert http.notify_writable(exchange, 0)
    assert not http.push_enabled() and not http.is_open(exchange)
    assert http.get_extra_info("peername", "x") == "x"


@pytest.mark.parametrize("value", [None, object(), "exchange"])
def test_what_is_no_exchange_is_refused(value):
    http = Connection(factory=ExchangeFactory(lambda *args: value))
    with pytest.raises(TypeError):
        http.data_received(value, b"")
    with pytest.raises((TypeError, AttributeError)):
        answer_failure(value)
    with pytest.raises(TypeError):
        http.new_exchange(1, request())


def test_a_factory_gives_an_exchange_what_it_belongs_to():
    http = Connection(factory=ExchangeFactory(lambda *args: Application(None, -1)))
    message = request()
    exchange = http.new_exchange(5, message)
    assert exchange.http is http and exchange.request is message
    assert exchange.stream_id == 5


def test_a_factory_may_fail():
    def fail(*args):
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        Connection(factory=ExchangeFactory(fail)).new_exchange(1, request())


@pytest.mark.parametrize(
    ("method", "status", "content"),
    [
        (b"GET", 200, True),
        (b"HEAD", 200, False),
        (b"HEAD", 404, False),
        (b"GET", 204, False),
        (b"GET", 205, False),
        (b"GET", 304, False),
        (b"GET", 404, True),
        (b"CONNECT", 200, True),
        (b"CONNECT", 204, True),
        (b"CONNECT", 304, False),
    ],
)
def test_which_responses_have_content(method, status, content):
    assert has_content(method, status) is content


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], False),
        ([(b"expect", b"100-continue")], True),
        ([(b"accept", b"*/*"), (b"expect", b"100-Continue")], True),
        ([(b"expect", b"200-ok")], False),
    ],
)
def test_which_requests_wait_for_100(fields, expected):
    assert expects_continue(request(fields=fields)) is expected


def test_continue_is_an_informational_response():
    http = Connection()
    http.send_continue(Application(http, 1, request()))
    assert http.calls == [("informational", 100)]


def test_a_tunnel_is_accepted_by_a_response_that_stays_open():
    http = Connection()
    http.accept_tunnel(Application(http, 1, request(b"CONNECT")), [("server", "x")])
    assert http.calls == [("response", 200, {"server": "x"}, False)]


def test_a_failure_is_answered_with_500():
    http = Connection()
    exchange = Application(http, 1, request(b"POST"))
    answer_failure(exchange)
    body = b"500 Internal Server Error\n"
    fields = {
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": b"26",
    }
    assert http.calls == [
        ("response", 500, fields, False),
        ("body", body, True),
        ("stop",),
    ]
    assert exchange.status == 500


def test_a_failure_of_head_is_answered_without_a_body():
    http = Connection()
    answer_failure(Application(http, 1, request(b"HEAD")))
    assert [call[0] for call in http.calls] == ["response", "stop"]


def test_a_failure_after_the_response_was_begun_is_a_reset():
    http = Connection()
    exchange = Application(http, 1, request())
    exchange.status = 200
    answer_failure(exchange)
    assert http.calls == [("reset", ErrorCode.INTERNAL_ERROR)]


def test_a_failure_whose_answer_cannot_be_sent_is_a_reset():
    http = Connection()
    http.error = StreamClosedError("closed", 1)
    answer_failure(Application(http, 1, request()))
    assert http.calls == [("reset", ErrorCode.INTERNAL_ERROR)]


def test_a_failure_of_a_client_is_a_reset():
    http = Connection(client_side=True)
    answer_failure(Application(http, 1))
    assert http.calls == [("reset", ErrorCode.INTERNAL_ERROR)]


@pytest.fixture
def logged():
    exchanges = []
    access.add_hook(exchanges.append)
    yield exchanges
    access.remove_hook(exchanges.append)


def test_a_server_logs_each_exchange_at_its_end(logged):
    http = Connection()
    exchange = Application(http, 1, request(b"PUT"))
    http.request_received(exchange, exchange.request)
    exchange.status = 201
    http.closed(exchange, failure, 8, 5)
    (entry,) = logged
    assert entry.duration >= 0
    assert entry._replace(duration=0) == access.Exchange(
        *("HTTP/7", ("192.0.2.1", 443), b"PUT", b"/", 201, 5, 0, 8, False)
    )


def test_a_client_logs_no_exchange(logged):
    http = Connection(client_side=True)
    http.closed(Application(http, 1), None, 0, 0)
    assert logged == []


def test_a_hook_that_fails_is_logged_and_the_others_are_called(caplog):
    entries = []

    def fail(exchange):
        raise LookupError("on purpose")

    hooks = fail, entries.append
    for hook in hooks:
        access.add_hook(hook)
    try:
        log_access(Application(Connection(), 1, request()), 0, 0, True)
    finally:
        for hook in hooks:
            access.remove_hook(hook)
    assert len(entries) == 1
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.name == "nghttp2py.exchange" and record.exc_info


def test_a_bare_exchange_has_only_its_stream_and_status():
    assert {name for name in dir(Exchange) if not name.startswith("_")} == {
        "status",
        "stream_id",
    }
