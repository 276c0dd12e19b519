"""What an ASGI application sends and receives, over each version of HTTP."""

from __future__ import annotations

import asyncio
import enum
import os
import types

import pytest
from asgi_servers import body, everywhere, hello, read_all, serving, start
from loops import in_loop, pause, until

from nghttp2py.errors import (
    ASGIMessageError,
    ClientDisconnectedError,
    HeadersError,
    InvalidBodyLengthError,
)

# ---- receive() ----


@everywhere
async def test_after_the_last_piece_receive_waits_for_the_disconnect(version):
    seen = []
    waits = asyncio.Event()

    async def app(scope, receive, send):
        seen.append(await receive())
        waits.set()
        seen.append(await receive())
        seen.append(await receive())

    async with serving(version, app) as peer:
        stream = await peer.open()
        await waits.wait()
        await pause()
        assert seen == [{"type": "http.request", "body": b"", "more_body": False}]
        stream.reset()
        await until(lambda: len(seen) == 3)
        assert seen[1:] == [{"type": "http.disconnect"}] * 2


@everywhere
async def test_receive_after_the_response_reports_a_disconnect(version):
    seen = []

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        seen.append(await receive())
        seen.append(await receive())

    async with serving(version, app) as peer:
        await peer.fetch()
        await until(lambda: len(seen) == 2)
        assert seen == [{"type": "http.disconnect"}] * 2


@everywhere
async def test_a_waiting_receive_is_woken_by_the_end_of_the_response(version):
    seen = []

    async def app(scope, receive, send):
        await receive()
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await hello(scope, receive, send)
        seen.append(await waiting)

    async with serving(version, app) as peer:
        await peer.fetch()
        await until(lambda: seen)
        assert seen == [{"type": "http.disconnect"}]


@everywhere
async def test_an_upload_arrives_in_messages_as_it_comes(version):
    seen = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            seen.append((message["body"], message["more_body"]))
            if not message["more_body"]:
                break
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        stream = await peer.open(method=b"POST", end=False)
        await stream.send_data(b"one")
        await until(lambda: seen)
        assert seen == [(b"one", True)]
        await stream.send_data(b"two")
        await stream.end_stream()
        await peer.take(stream)
        assert b"".join(data for data, _ in seen) == b"onetwo"
        assert [more for _, more in seen][-1] is False


@everywhere
async def test_a_cancelled_receive_loses_nothing(version):
    seen = []
    tried = asyncio.Event()

    async def app(scope, receive, send):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 0.01)
        never_begun = asyncio.create_task(receive())
        never_begun.cancel()
        tried.set()
        seen.append(await read_all(receive))
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        stream = await peer.open(method=b"POST", end=False)
        await tried.wait()
        await stream.send_data(b"data")
        await stream.end_stream()
        await peer.take(stream)
        assert seen == [b"data"]


@everywhere
async def test_the_awaitables_are_coroutines_for_asyncio(version):
    seen = []

    async def app(scope, receive, send):
        call = receive()
        assert asyncio.iscoroutine(call)
        seen.append(await call)
        with pytest.raises(RuntimeError, match="second time"):
            await call
        await asyncio.gather(send(start()), asyncio.sleep(0))
        await asyncio.create_task(send(body(b"x", True)))
        await asyncio.wait_for(send(body(b"y")), 5)

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == b"xy"
        assert seen[0]["type"] == "http.request"


@in_loop
async def test_a_call_that_is_never_awaited_does_nothing_but_warn():
    async def app(scope, receive, send):
        with pytest.warns(RuntimeWarning, match="send.*never awaited"):
            send(start(500))
        with pytest.warns(RuntimeWarning, match="receive.*never awaited"):
            receive()
        await hello(scope, receive, send)

    async with serving("HTTP/2", app) as peer:
        assert (await peer.fetch()).status == 200


class Type(str, enum.Enum):
    START = "http.response.start"
    BODY = "http.response.body"


@everywhere
async def test_a_message_may_be_another_mapping_with_a_type_of_an_enumeration(version):
    async def app(scope, receive, send):
        await send(types.MappingProxyType({"type": Type.START, "status": 200}))
        await send({"type": Type.BODY, "body": b"x"})

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == b"x"


# ---- send() ----

WRONG = {
    "no dict": [[1]],
    "no type": [{"status": 200}],
    "unknown": [{"type": "http.response.begin", "status": 200}],
    "of a websocket": [{"type": "websocket.accept"}],
    "no status": [{"type": "http.response.start", "headers": []}],
    "status of text": [{"type": "http.response.start", "status": "200"}],
    "informational status": [{"type": "http.response.start", "status": 103}],
    "str name": [start(200, [("a", b"b")])],
    "str value": [start(200, [(b"a", "b")])],
    "one in a pair": [start(200, [(b"a",)])],
    "pseudo-header": [start(200, [(b":status", b"200")])],
    "headers of None": [
        {"type": "http.response.start", "status": 200, "headers": None}
    ],
    "body first": [body(b"x")],
    "start twice": [start(), start()],
    "str body": [start(), {"type": "http.response.body", "body": "text"}],
    "trailers not announced": [
        start(),
        {"type": "http.response.trailers", "headers": []},
    ],
}


@pytest.mark.parametrize("messages", WRONG.values(), ids=WRONG)
@in_loop
async def test_a_wrong_message_raises(messages):
    seen = []

    async def app(scope, receive, send):
        for message in messages[:-1]:
            await send(message)
        with pytest.raises(ASGIMessageError) as raised:
            await send(messages[-1])
        seen.append(str(raised.value))
        if len(messages) == 1:
            await send(start())
        await send(body(b"after"))

    async with serving("HTTP/2", app) as peer:
        response = await peer.fetch()
        assert response.body == b"after"
        assert len(seen[0]) > 20


@everywhere
async def test_what_follows_a_complete_response_raises(version):
    seen = []

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        for message in (start(), body(b"more")):
            with pytest.raises(ASGIMessageError, match="is complete") as raised:
                await send(message)
            seen.append(raised)

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == b"hello"
        await until(lambda: len(seen) == 2)


@everywhere
async def test_a_field_with_a_line_feed_raises(version):
    async def app(scope, receive, send):
        with pytest.raises(HeadersError):
            await send(start(200, [(b"a", b"b\r\nc: d")]))
        await hello(scope, receive, send)

    async with serving(version, app) as peer:
        response = await peer.fetch()
        assert response.status == 200
        assert response.value(b"c") is None


@everywhere
async def test_fields_keep_their_order_and_get_lower_case_names(version):
    async def app(scope, receive, send):
        await send(
            start(
                200, [(b"X-B", b"1"), (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2")]
            )
        )
        await send(body())

    async with serving(version, app) as peer:
        response = await peer.fetch()
        assert response.value(b"x-b") == b"1"
        assert response.values(b"set-cookie") == [b"a=1", b"b=2"]


@everywhere
async def test_space_around_a_value_is_dropped(version):
    """It does not belong to the value (RFC 9110, 5.5), and HTTP/2 forbids it."""

    async def app(scope, receive, send):
        length = (b"content-length", b"5 ")
        await send(start(200, [(b"x-a", b" \ta b\t"), (b"x-b", b" "), length]))
        await send(body(b"hello"))

    async with serving(version, app) as peer:
        response = await peer.fetch()
        assert response.value(b"x-a") == b"a b"
        assert response.value(b"x-b") == b""
        assert response.value(b"content-length") == b"5"


@everywhere
async def test_the_start_of_a_response_goes_out_at_once(version):
    go = asyncio.Event()

    async def app(scope, receive, send):
        await send(start())
        await go.wait()
        await send(body(b"late"))

    async with serving(version, app) as peer:
        stream = await peer.open()
        assert (await stream.response()).status == 200
        go.set()
        assert await stream.read() == b"late"


@everywhere
async def test_body_may_be_any_bytes_like_object(version):
    async def app(scope, receive, send):
        await send(start())
        await send(body(bytearray(b"a"), True))
        await send({"type": "http.response.body", "more_body": True})
        await send(body(memoryview(b"bc")[1:]))

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == b"ac"


@everywhere
async def test_the_date_and_the_server_are_added(version):
    async with serving(version, hello) as peer:
        response = await peer.fetch()
        assert response.value(b"server") == b"nghttp2py"
        assert response.value(b"date").endswith(b" GMT")
    async with serving(
        version,
        hello,
        server_header="",
        date_header=False,
        headers=((b"X-All", b"1"),),
    ) as peer:
        response = await peer.fetch()
        assert not response.values(b"server")
        assert not response.values(b"date")
        assert response.value(b"x-all") == b"1"


@everywhere
async def test_the_application_s_date_and_server_are_kept(version):
    async def app(scope, receive, send):
        await send(start(200, [(b"Date", b"today"), (b"server", b"mine")]))
        await send(body())

    async with serving(version, app) as peer:
        response = await peer.fetch()
        assert response.values(b"date") == [b"today"]
        assert response.values(b"server") == [b"mine"]


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
@in_loop
async def test_fields_of_http_1_connections_are_removed(version):
    async def app(scope, receive, send):
        fields = [
            (b"connection", b"keep-alive"),
            (b"Keep-Alive", b"timeout=5"),
            (b"proxy-connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"upgrade", b"h2c"),
            (b"te", b"gzip"),
            (b"x-kept", b"1"),
        ]
        await send(start(200, fields))
        await send(body(b"x"))

    async with serving(version, app, date_header=False, server_header="") as peer:
        response = await peer.fetch()
        assert response.headers == [(b"x-kept", b"1")]
        assert response.body == b"x"


@pytest.mark.parametrize("status", [200, 204, 304])
@everywhere
async def test_responses_without_content_drop_the_body(version, status):
    method = b"HEAD" if status == 200 else b"GET"

    async def app(scope, receive, send):
        await send(start(status, [(b"etag", b"x")]))
        await send(body(b"dropped", True))
        await send(body(b"dropped"))

    async with serving(version, app) as peer:
        response = await peer.fetch(method=method)
        assert (response.status, response.body) == (status, b"")
        assert (await peer.fetch(method=method)).status == status


@pytest.mark.parametrize("status", [204, 205])
@everywhere
async def test_a_length_of_what_is_dropped_is_dropped_too(version, status):
    """Frameworks set content-length for every status (RFC 9110, 8.6)."""

    async def app(scope, receive, send):
        length = scope["query_string"]
        await send(start(status, [(b"content-length", length), (b"etag", b"x")]))
        await send(body(b"x" * int(length)))

    async with serving(version, app) as peer:
        for length in (b"0", b"5"):
            response = await peer.fetch(b"/?" + length)
            assert (response.status, response.body) == (status, b"")
            assert response.value(b"etag") == b"x"
            # HTTP/1.1 needs one to show where a 205 ends.
            assert response.value(b"content-length") in (None, b"0")


@everywhere
async def test_head_keeps_the_content_length(version):
    async def app(scope, receive, send):
        await send(start(200, [(b"content-length", b"7")]))
        await send(body(b"dropped"))

    async with serving(version, app) as peer:
        response = await peer.fetch(method=b"HEAD")
        assert response.value(b"content-length") == b"7"
        assert response.body == b""


@pytest.mark.parametrize("data", [b"short", b"much too long"])
@everywhere
async def test_a_body_that_contradicts_content_length_raises(version, data):
    seen = []

    async def app(scope, receive, send):
        await send(start(200, [(b"content-length", b"7")]))
        try:
            await send(body(data))
        except InvalidBodyLengthError as error:
            seen.append(error)
            raise

    async with serving(version, app) as peer:
        stream = await peer.open()
        with pytest.raises(Exception, match=r"reset|INTERNAL|closed|Closed|length"):
            await peer.take(stream)
        assert seen
        # Only this exchange has ended.
        peer.app = None
        stream = await peer.open(method=b"HEAD")
        assert (await peer.take(stream)).status == 200


# ---- Extensions ----


@everywhere
async def test_trailers_are_sent_to_a_client_that_takes_them(version):
    announced = []

    async def app(scope, receive, send):
        announced.append("http.response.trailers" in scope["extensions"])
        await send(start(trailers=True))
        await send(body(b"data", True))
        await send(body(b"!"))
        await send(
            {
                "type": "http.response.trailers",
                "headers": [(b"X-Sum", b"1")],
                "more_trailers": True,
            }
        )
        await send({"type": "http.response.trailers", "headers": [(b"x-end", b"2")]})

    async with serving(version, app) as peer:
        response = await peer.fetch(headers=[(b"te", b"trailers")])
        assert response.body == b"data!"
        assert response.trailers == [(b"x-sum", b"1"), (b"x-end", b"2")]
        response = await peer.fetch()
        assert response.body == b"data!"
        assert response.trailers == []
        assert announced == [True, False]


@everywhere
async def test_early_hints_come_before_the_response(version):
    async def app(scope, receive, send):
        assert scope["extensions"]["http.response.early_hint"] == {}
        assert scope["extensions"]["http.response.informational"] == {}
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=x"]})
        await send(
            {
                "type": "http.response.informational",
                "status": 102,
                "headers": [(b"x-a", b"b")],
            }
        )
        await send(start())
        with pytest.raises(ASGIMessageError):
            await send({"type": "http.response.early_hint", "links": []})
        await send(body(b"x"))

    async with serving(version, app) as peer:
        stream = await peer.open()
        response = await peer.take(stream)
        assert (response.status, response.body) == (200, b"x")


@everywhere
async def test_pathsend_sends_a_file(version, tmp_path):
    data = os.urandom(300_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def app(scope, receive, send):
        assert scope["extensions"]["http.response.pathsend"] == {}
        await send(start(200, [(b"content-length", b"%d" % len(data))]))
        await send({"type": "http.response.pathsend", "path": str(path)})
        assert (await receive())["type"] == "http.disconnect"

    async with serving(version, app) as peer:
        assert (await peer.fetch()).body == data
        assert (await peer.fetch(method=b"HEAD")).body == b""


@pytest.mark.parametrize("path", ["relative", "/no/such/file", None, b"/bytes"])
@in_loop
async def test_pathsend_needs_the_absolute_path_of_a_file(path):
    seen = []

    async def app(scope, receive, send):
        await send(start())
        with pytest.raises((ASGIMessageError, FileNotFoundError)) as raised:
            await send({"type": "http.response.pathsend", "path": path})
        seen.append(raised)
        await send(body(b"x"))

    async with serving("HTTP/2", app) as peer:
        assert (await peer.fetch()).body == b"x"
        assert seen


@everywhere
async def test_zerocopysend_sends_parts_of_files(version, tmp_path):
    data = os.urandom(200_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def app(scope, receive, send):
        kind = "http.response.zerocopysend"
        assert scope["extensions"][kind] == {}
        await send(start())
        with path.open("rb") as file:
            file.seek(100)
            await send({"type": kind, "file": file, "count": 5, "more_body": True})
            await send(body(b"|", True))
            await send(
                {
                    "type": kind,
                    "file": file,
                    "offset": 10,
                    "count": 150_000,
                    "more_body": True,
                }
            )
            await send({"type": kind, "file": file, "offset": 199_990})

    async with serving(version, app) as peer:
        expected = data[100:105] + b"|" + data[10:150_010] + data[199_990:]
        assert (await peer.fetch()).body == expected


@everywhere
async def test_extensions_can_be_switched_off(version):
    seen = []

    async def app(scope, receive, send):
        seen.append(set(scope["extensions"]) - {"tls"})
        with pytest.raises(ASGIMessageError, match="announce"):
            await send({"type": "http.response.early_hint", "links": []})
        await hello(scope, receive, send)

    names = [
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.trailers",
    ]
    async with serving(version, app, disabled_extensions=names) as peer:
        await peer.fetch(headers=[(b"te", b"trailers")])
        assert seen == [{"http.response.informational", "http.response.zerocopysend"}]


def test_the_exception_of_a_disconnect_is_an_oserror():
    assert issubclass(ClientDisconnectedError, OSError)
