"""Servers in memory, and handlers good and bad: what tests of HTTP2Server share."""

from memory import MemoryClient

from nghttp2py.asyncio import Timeouts
from nghttp2py.asyncio.server import DEFAULT_CONFIGURATION, HandlerProtocol
from nghttp2py.handler import HandlerFactory
from nghttp2py.server import BaseRequestHandler


def serve(handler_class, *, config=None, **options):
    """A client in memory, connected to a server with these handlers."""
    protocol = HandlerProtocol(
        HandlerFactory(handler_class),
        DEFAULT_CONFIGURATION,
        lambda protocol: None,
        lambda protocol: None,
        timeouts=Timeouts(idle=None),
    )
    return MemoryClient(protocol, config=config, **options)


async def exchange_until(client, condition):
    """Carry bytes both ways until something holds; the test's deadline ends it."""
    while not condition():
        await client.exchange()


class Recorder(BaseRequestHandler):
    """Writes down the callbacks; answers at the request's end."""

    calls: list
    made: list

    def __init__(self, http2, stream_id):
        super().__init__(http2, stream_id)
        self.made.append(self)

    def on_headers(self):
        self.calls.append("headers")

    def on_data(self, data):
        self.calls.append(("data", data))

    def on_trailers(self, headers):
        self.calls.append(("trailers", headers))

    def on_request_done(self):
        self.calls.append("done")
        self.send_response()

    def on_close(self, error_code):
        self.calls.append(("close", error_code))


def recorder():
    return type("Handler", (Recorder,), {"calls": [], "made": []})


class Good(BaseRequestHandler):
    """What the other streams of a connection are answered by."""

    def on_request_done(self):
        self.send_response(body=b"good")


def mixed(bad):
    """Handlers of ``bad`` for /bad, of ``Good`` for everything else."""

    class Handler(BaseRequestHandler):
        def on_headers(self):
            self.__class__ = bad if self.path == b"/bad" else Good
            return self.on_headers()

    return Handler


async def with_good_neighbours(bad, **options):
    """Make a bad request between two good ones; return its response."""
    client = serve(mixed(bad))
    before = client.request("/good")
    stream_id = client.request("/bad", **options)
    after = client.request("/good")
    await client.exchange()
    for good in before, after, client.request("/good"):
        await client.exchange()
        assert client.response(good).body == b"good"
    assert not client.protocol.is_closing
    return client.response(stream_id)


def failing(callback, error=RuntimeError):
    def fail(self, *args):
        raise error("on purpose")

    return type("Bad", (BaseRequestHandler,), {callback: fail})
