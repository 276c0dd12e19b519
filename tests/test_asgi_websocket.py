"""WebSockets of ASGI applications, over each version of HTTP."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest
from asgi_servers import body
from asgi_websockets import (
    ACCEPT,
    KEY,
    App,
    accepted,
    closes,
    connect,
    disconnect,
    drain,
    everywhere,
    serving,
    text,
)
from loops import pause, until
from ws_frames import (
    BINARY,
    CONT,
    PING,
    PONG,
    RSV1,
    TEXT,
    close,
    deflated,
    fragments,
    frame,
)

from nghttp2py.errors import (
    ASGIMessageError,
    ClientDisconnectedError,
    NGHTTP2Error,
)
from nghttp2py.websocket import WebSocketOptions

NAMES = {"HTTP/1.1": "1.1", "HTTP/2": "2", "HTTP/3": "3"}


# ---- The opening handshake ----


@everywhere
async def test_the_scope_has_every_key(version):
    app = App()
    async with serving(version, app, state={"pool": 1}) as peer:
        fields = [
            (b"sec-websocket-protocol", b"a, b"),
            (b"sec-websocket-protocol", b"c"),
            (b"origin", b"https://example.org"),
        ]
        socket = await accepted(peer, b"/a%20b/%C3%A4?x=%20", fields)
        await socket.leave()
        (scope,) = app.scopes
        assert type(scope) is dict
        assert scope["type"] == "websocket"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert scope["http_version"] == NAMES[version]
        assert scope["scheme"] == ("wss" if version == "HTTP/3" else "ws")
        assert "method" not in scope
        assert scope["path"] == "/a b/ä"
        assert scope["raw_path"] == b"/a%20b/%C3%A4"
        assert scope["query_string"] == b"x=%20"
        assert scope["root_path"] == ""
        assert scope["headers"][0] == (b"host", peer.authority)
        assert (b"origin", b"https://example.org") in scope["headers"]
        assert not [name for name, _ in scope["headers"] if name[:1] == b":"]
        assert scope["client"][0] == "127.0.0.1"
        assert scope["server"] == ("127.0.0.1", peer.port)
        assert scope["subprotocols"] == ["a", "b", "c"]
        assert scope["state"] == {"pool": 1}
        assert scope["extensions"]["websocket.http.response"] == {}


@everywhere
async def test_messages_are_echoed(version):
    app = App()
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        await socket.send(frame(TEXT, "Grüße"), frame(BINARY, b"\0\xff"))
        assert await socket.text() == "Grüße"
        assert await socket.data() == b"\0\xff"
        await socket.send(frame(TEXT, ""), frame(BINARY, b""))
        assert await socket.text() == ""
        assert await socket.data() == b""
        await socket.leave(1000, "bye")
        await until(app.done.is_set)
        assert app.seen == [
            {"type": "websocket.receive", "text": "Grüße"},
            {"type": "websocket.receive", "bytes": b"\0\xff"},
            {"type": "websocket.receive", "text": ""},
            {"type": "websocket.receive", "bytes": b""},
            disconnect(1000, "bye"),
        ]
        await until(lambda: peer.log)
        assert peer.log[0].complete


@everywhere
async def test_the_application_chooses_a_subprotocol_and_fields(version):
    accept = {
        "type": "websocket.accept",
        "subprotocol": "b",
        "headers": [(b"X-Extra", b"1"), (b"set-cookie", b"a=b")],
    }
    async with serving(version, App(accept=accept)) as peer:
        offer = [(b"sec-websocket-protocol", b"a, b")]
        socket = await accepted(peer, headers=offer)
        assert socket.answer.value(b"sec-websocket-protocol") == b"b"
        assert socket.answer.value(b"x-extra") == b"1"
        assert socket.answer.value(b"set-cookie") == b"a=b"
        assert socket.answer.value(b"server") == b"nghttp2py"
        assert socket.answer.value(b"date")
        await socket.leave()


@everywhere
async def test_a_key_is_answered(version):
    async with serving(version, App()) as peer:
        socket = await accepted(peer, key=KEY)
        assert socket.answer.value(b"sec-websocket-accept") == ACCEPT
        await socket.leave()


WRONG_ACCEPTS = [
    ({"subprotocol": "c"}, "offers the subprotocols"),
    ({"subprotocol": b"a"}, "subprotocol must be a str"),
    ({"headers": [(b"sec-websocket-protocol", b"a")]}, "which the server sends"),
    ({"headers": [(b"Sec-WebSocket-Accept", b"a")]}, "which the server sends"),
    ({"headers": [("x", b"a")]}, "pairs of bytes"),
    ({"headers": [(b":status", b"200")]}, ":status"),
]


@everywhere
async def test_an_accept_that_is_wrong_raises(version, caplog):
    app = App()
    async with serving(version, app) as peer:
        for accept, rule in WRONG_ACCEPTS:
            app.accept = {"type": "websocket.accept", **accept}
            socket = await connect(peer, headers=[(b"sec-websocket-protocol", b"a")])
            assert await socket.answered() == 500
            error = app.events.pop()
            assert isinstance(error, ASGIMessageError)
            assert rule in str(error)
            await socket.end()


@everywhere
async def test_another_version_of_websocket_is_refused(version):
    app = App()
    async with serving(version, app) as peer:
        socket = await connect(peer, headers=[(b"sec-websocket-version", b"8")])
        assert await socket.answered() == 400
        assert socket.answer.value(b"sec-websocket-version") == b"13"
        assert not app.scopes


@everywhere
async def test_without_the_package_websockets_the_answer_is_501(
    version, monkeypatch, caplog
):
    monkeypatch.setattr("nghttp2py.websocket._engines", [])
    monkeypatch.setitem(sys.modules, "websockets.protocol", None)
    app = App()
    async with serving(version, app) as peer:
        socket = await connect(peer)
        assert await socket.answered() == 501
        assert app.scopes == []
    assert "pip install 'nghttp2py[asgi]'" in caplog.text


@everywhere
async def test_a_close_before_the_accept_is_403(version):
    async def refuse(app, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send(closes(3000, "ignored"))
        app.seen.append(await receive())
        with pytest.raises(ASGIMessageError):
            await send(closes())

    app = App(refuse, accept=None)
    async with serving(version, app) as peer:
        socket = await connect(peer)
        assert await socket.answered() == 403
        assert await socket.body() == b"403 Forbidden\n"
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1006)
        assert not app.events


@everywhere
async def test_a_websocket_is_denied_with_a_response(version):
    async def deny(app, receive, send):
        await receive()
        await send(
            {
                "type": "websocket.http.response.start",
                "status": 401,
                "headers": [(b"www-authenticate", b"Basic")],
            }
        )
        for piece, more in ((b"who ", True), (b"are you?", False)):
            await send({**body(piece, more), "type": "websocket.http.response.body"})
        app.seen.append(await receive())

    app = App(deny, accept=None)
    async with serving(version, app) as peer:
        socket = await connect(peer, early=frame(TEXT, "early"))
        assert await socket.answered() == 401
        assert socket.answer.value(b"www-authenticate") == b"Basic"
        assert await socket.body() == b"who are you?"
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1006)
        assert not app.events


@everywhere
async def test_a_denial_that_is_switched_off_is_not_announced(version):
    async def deny(app, receive, send):
        await send({"type": "websocket.http.response.start", "status": 401})

    app = App(deny, accept=None)
    off = {"disabled_extensions": ["websocket.http.response"]}
    async with serving(version, app, **off) as peer:
        socket = await connect(peer)
        assert await socket.answered() == 500
        assert "websocket.http.response" not in app.scopes[0]["extensions"]
        assert "does not announce it" in str(app.events[0])


@everywhere
@pytest.mark.parametrize("end", ["raises", "returns"])
async def test_an_application_that_ends_before_the_accept_is_500(version, end, caplog):
    async def fail(app, receive, send):
        if end == "raises":
            raise ZeroDivisionError

    async with serving(version, App(fail, accept=None)) as peer:
        socket = await connect(peer, early=frame(TEXT, "early"))
        assert await socket.answered() == 500
    assert any(record.levelno == logging.ERROR for record in caplog.records)


@everywhere
async def test_what_a_client_sends_before_it_is_accepted_is_held(version):
    release = asyncio.Event()

    async def late(app, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await release.wait()
        await send({"type": "websocket.accept"})
        app.seen.append(await receive())
        await send(text("done"))

    app = App(late, accept=None)
    async with serving(version, app) as peer:
        socket = await connect(peer, early=frame(TEXT, "early") + frame(PING, b"1"))
        await until(lambda: app.scopes)
        await pause()
        release.set()
        await socket.answered()
        assert (await socket.receive()) == (PONG, b"1", True, 0)
        assert await socket.text() == "done"
        assert app.seen[-1] == {"type": "websocket.receive", "text": "early"}
        assert await socket.closed() == (1000, "")
        await socket.send(close(1000))
        await socket.ended()


@everywhere
async def test_a_client_that_leaves_before_the_accept_is_1006(version):
    async def late(app, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        app.seen.append(await receive())
        with pytest.raises(OSError):
            await send({"type": "websocket.accept"})

    app = App(late, accept=None)
    async with serving(version, app) as peer:
        socket = await connect(peer)
        await until(lambda: app.seen)
        socket.reset()
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1006)
        assert not app.events


@everywhere
async def test_more_websockets_than_the_limit_get_503(version):
    async with serving(version, App(), limit_concurrency=1) as peer:
        first = await accepted(peer)
        second = await connect(peer)
        assert await second.answered() == 503
        await first.leave()


# ---- The end ----


@everywhere
async def test_the_code_and_the_reason_of_the_application_are_sent(version):
    async def talk(app, receive, send):
        await send(closes(code, "grüße"))
        await receive()
        with pytest.raises(ASGIMessageError):
            await send(text("late"))

    app = App(talk)
    async with serving(version, app) as peer:
        for code in (1000, 1001, 3000, 4999):
            socket = await accepted(peer)
            assert await socket.closed() == (code, "grüße")
            # What comes now is dropped.
            await socket.send(frame(TEXT, "late"), close(code))
            await socket.ended()
            await app.wait()
            assert app.seen == [disconnect(code, "grüße")]
            app.seen.clear()
        assert not app.events


@everywhere
async def test_a_close_has_defaults_and_a_long_reason_is_cut(version):
    async def talk(app, receive, send):
        message = await receive()
        if message["text"] == "short":
            await send({"type": "websocket.close"})
        else:
            await send({"type": "websocket.close", "reason": "ä" * 100})

    async with serving(version, App(talk)) as peer:
        for sent, reason in (("short", ""), ("long", "ä" * 61)):
            socket = await accepted(peer)
            await socket.send(frame(TEXT, sent))
            assert await socket.closed() == (1000, reason)
            await socket.send(close(1000))
            await socket.ended()


WRONG_MESSAGES = [
    {"type": "websocket.send"},
    {"type": "websocket.send", "text": None, "bytes": None},
    {"type": "websocket.send", "text": "a", "bytes": b"a"},
    {"type": "websocket.send", "text": b"a"},
    {"type": "websocket.send", "bytes": "a"},
    {"type": "websocket.accept"},
    {"type": "websocket.close", "code": 1005},
    {"type": "websocket.close", "code": "1000"},
    {"type": "websocket.close", "reason": b"bytes"},
    {"type": "websocket.http.response.start", "status": 401},
    {"type": "http.response.start", "status": 200},
    {"type": None},
    {},
    None,
]


@everywhere
async def test_a_message_that_is_wrong_raises_and_closes_with_1011(version, caplog):
    async def talk(app, receive, send):
        await send(message)

    app = App(talk)
    async with serving(version, app) as peer:
        for message in WRONG_MESSAGES:
            socket = await accepted(peer)
            assert await socket.closed() == (1011, ""), message
            await socket.send(close(1011))
            await socket.ended()
            await app.wait()
            assert isinstance(app.events.pop(), ASGIMessageError)


@everywhere
async def test_nothing_is_sent_before_the_accept(version, caplog):
    async def talk(app, receive, send):
        await send(text("early"))

    app = App(talk, accept=None)
    async with serving(version, app) as peer:
        socket = await connect(peer)
        assert await socket.answered() == 500
        assert "not accepted yet" in str(app.events[0])


@everywhere
async def test_an_application_that_fails_closes_with_1011(version, caplog):
    async def talk(app, receive, send):
        await receive()
        raise ZeroDivisionError("ours")

    async with serving(version, App(talk)) as peer:
        socket, other = await accepted(peer), await accepted(peer)
        await socket.send(frame(TEXT, "x"))
        assert await socket.closed() == (1011, "")
        await socket.send(close(1011))
        await socket.ended()
        assert "ours" in caplog.text
        await other.send(frame(TEXT, "x"))  # is not concerned
        assert await other.closed() == (1011, "")


@everywhere
async def test_an_application_that_returns_closes_with_1000(version):
    async def talk(app, receive, send):
        await send(text("all"))

    async with serving(version, App(talk)) as peer:
        socket = await accepted(peer)
        assert await socket.text() == "all"
        assert await socket.closed() == (1000, "")
        await socket.send(close(1000))
        await socket.ended()
        await until(lambda: peer.log)
        assert peer.log[0].complete


CODES = [
    (close(1000), disconnect(1000)),
    (close(1001, "going"), disconnect(1001, "going")),
    (close(4321, "ü"), disconnect(4321, "ü")),
    (close(), disconnect(1005)),
]


@everywhere
async def test_the_code_of_the_client_is_reported_after_its_messages(version):
    app = App(drain)
    async with serving(version, app) as peer:
        for sent, expected in CODES:
            socket = await accepted(peer)
            await socket.send(frame(TEXT, "1"), frame(TEXT, "2"), sent)
            received = await socket.receive()
            assert (received.code or 1005) == expected["code"]
            await socket.ended()
            await app.wait()
            assert [m.get("text") for m in app.seen] == ["1", "2", None]
            assert app.seen[-1] == expected
            app.seen.clear()


BROKEN = [
    (frame(TEXT, b"\xff"), 1007),
    (frame(TEXT, "x" * 1001), 1009),
    (frame(TEXT, "x", mask=None), 1002),
    (frame(CONT, "x"), 1002),
    (frame(TEXT, "x", rsv=RSV1), 1002),
    (frame(3, "x"), 1002),
    (close(1005), 1002),
]


@everywhere
async def test_a_client_that_breaks_the_rules_is_told_the_code(version, caplog):
    app = App(drain)
    options = WebSocketOptions(max_message_size=1000)
    async with serving(version, app, websocket=options) as peer:
        for sent, code in BROKEN:
            socket = await accepted(peer)
            await socket.send(frame(TEXT, "good"), sent, frame(TEXT, "late"))
            assert (await socket.closed())[0] == code
            await socket.ended()
            await app.wait()
            assert [m.get("text") for m in app.seen] == ["good", None]
            assert app.seen[-1]["code"] == code
            app.seen.clear()
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@everywhere
@pytest.mark.parametrize("how", ["reset", "end", "vanish"])
async def test_a_stream_that_breaks_off_is_1006(version, how):
    app = App(drain)
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        await socket.send(frame(TEXT, "last"))
        await until(lambda: app.seen)
        if how == "reset":
            socket.reset()
        elif how == "end":
            await socket.end()
        elif version == "HTTP/1.1":
            socket.wire.writer.close()
        else:
            await peer.vanish()
        if version == "HTTP/3" and how == "vanish":
            return  # nothing tells the server of a QUIC connection that is dropped
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1006)
        assert not app.events


@everywhere
async def test_sending_to_a_client_that_is_gone_raises_an_os_error(version, caplog):
    async def talk(app, receive, send):
        await drain(app, receive, send)
        await send(text("late"))

    app = App(talk)
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        socket.reset()
        await until(app.done.is_set)
        (error,) = app.events
        assert isinstance(error, ClientDisconnectedError) and isinstance(error, OSError)
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


class WebSocketDisconnect(Exception):
    """As Starlette raises for the message."""


@everywhere
async def test_what_starlette_raises_for_a_disconnect_is_no_error(version, caplog):
    async def talk(app, receive, send):
        await drain(app, receive, send)
        raise WebSocketDisconnect

    app = App(talk)
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        await socket.leave(1001)
        await until(app.done.is_set)
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@everywhere
async def test_by_version_2_3_sending_to_a_client_that_is_gone_does_nothing(version):
    async def talk(app, receive, send):
        await drain(app, receive, send)
        await send(text("late"))
        await send(closes())

    app = App(talk)
    async with serving(version, app, spec_version="2.3") as peer:
        socket = await accepted(peer)
        socket.reset()
        await until(app.done.is_set)
        assert not app.events
        assert app.scopes[0]["asgi"]["spec_version"] == "2.3"


@everywhere
async def test_an_application_that_does_not_look_is_cancelled_after_the_grace(version):
    async def talk(app, receive, send):
        await asyncio.Event().wait()

    app = App(talk)
    async with serving(version, app, disconnect_grace=0.05) as peer:
        socket = await accepted(peer)
        await socket.send(frame(TEXT, "unread"), close(1000))
        await socket.closed()
        await until(app.done.is_set)
        assert isinstance(app.events[0], asyncio.CancelledError)


@everywhere
async def test_an_application_that_knows_is_not_cancelled(version):
    release = asyncio.Event()

    async def talk(app, receive, send):
        await drain(app, receive, send)
        await release.wait()

    app = App(talk)
    async with serving(version, app, disconnect_grace=0.02) as peer:
        socket = await accepted(peer)
        await socket.leave()
        await until(lambda: app.seen)
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.1
        await until(lambda: loop.time() > end)
        release.set()
        await until(app.done.is_set)
        assert not app.events


@everywhere
async def test_a_client_that_does_not_answer_a_close_is_reset(version):
    async def talk(app, receive, send):
        pass

    options = WebSocketOptions(close_timeout=0.05)
    async with serving(version, App(talk), websocket=options) as peer:
        socket = await accepted(peer)
        assert await socket.closed() == (1000, "")
        await until(lambda: peer.log)
        assert not peer.log[0].complete


@everywhere
async def test_a_client_that_has_closed_need_not_end_its_half(version):
    """The server ends a WebSocket: a client may wait for that (RFC 6455, 7.1.1)."""
    options = WebSocketOptions(close_timeout=60)
    async with serving(version, App(), websocket=options) as peer:
        socket = await accepted(peer)
        await socket.send(close(4001))
        assert await socket.closed() == (4001, "")
        assert await socket.receive() is None
        await until(lambda: peer.log)
        assert (peer.log[0].complete, peer.log[0].error_code) == (True, 0)


@everywhere
async def test_messages_before_the_end_of_the_clients_half_are_answered(version):
    app = App()
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        sent = socket.send(frame(TEXT, "a"), frame(TEXT, "b"))
        await asyncio.gather(sent, socket.end())
        assert [await socket.text(), await socket.text()] == ["a", "b"]
        assert await socket.receive() is None
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1006)
        assert not app.events


@everywhere
async def test_both_may_close_at_once(version):
    async def talk(app, receive, send):
        assert (await receive())["text"] == "x"
        await send(closes(4000))

    async with serving(version, App(talk)) as peer:
        socket = await accepted(peer)
        await socket.send(frame(TEXT, "x"), close(4001))
        code, _ = await socket.closed()
        assert code in (4000, 4001)
        await socket.ended()
        await until(lambda: peer.log)


@everywhere
async def test_a_server_that_stops_closes_with_1012(version):
    app = App(drain)
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        peer.server.close(5)
        assert await socket.closed() == (1012, "")
        await socket.send(close(1012))
        await socket.ended()
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1012)
        assert not app.events


@everywhere
async def test_a_close_behind_unread_messages_ends_a_server_that_stops(version):
    async def idle(app, receive, send):
        await asyncio.Event().wait()

    app = App(idle)
    options = WebSocketOptions(max_queue=1, close_timeout=60)
    async with serving(version, app, websocket=options, disconnect_grace=0) as peer:
        socket = await accepted(peer)
        await socket.send(*[frame(BINARY, b"*" * 50_000)] * 3)
        peer.server.close(60)
        assert await socket.closed() == (1012, "")
        await socket.send(close(1012))
        await socket.ended()


# ---- Pings ----


@everywhere
async def test_a_ping_is_answered_while_the_application_does_not_read(version):
    async def talk(app, receive, send):
        await asyncio.Event().wait()

    app = App(talk)
    async with serving(version, app, disconnect_grace=0.01) as peer:
        socket = await accepted(peer)
        for _ in range(3):
            await socket.send(frame(PING, b"there?"))
            assert await socket.receive() == (PONG, b"there?", True, 0)
        socket.reset()
        await until(app.done.is_set)


@everywhere
async def test_a_client_that_answers_pings_stays(version):
    options = WebSocketOptions(ping_interval=0.01, ping_timeout=5)
    app = App()
    async with serving(version, app, websocket=options) as peer:
        socket = await accepted(peer)
        seen = set()
        for _ in range(5):
            received = await socket.receive()
            assert received.opcode == PING
            seen.add(received.data)
            await socket.send(frame(PONG, received.data))
        assert len(seen) == 5
        await socket.send(close(1000))
        while (received := await socket.receive()).opcode == PING:
            pass
        assert received.code == 1000
        await socket.ended()


@everywhere
async def test_a_missing_pong_closes_with_1011(version):
    options = WebSocketOptions(ping_interval=0.01, ping_timeout=0.05)
    app = App(drain)
    async with serving(version, app, websocket=options) as peer:
        socket = await accepted(peer)
        received = await socket.receive()
        assert received.opcode == PING
        await socket.send(frame(PONG, b"another"), frame(TEXT, "x"))
        assert await socket.closed() == (1011, "keepalive ping timeout")
        await socket.ended()
        await until(app.done.is_set)
        assert app.seen[-1] == disconnect(1011, "keepalive ping timeout")


@everywhere
async def test_a_pong_behind_unread_messages_is_not_missed(version):
    release = asyncio.Event()

    async def talk(app, receive, send):
        await release.wait()
        await drain(app, receive, send)

    options = WebSocketOptions(ping_interval=0.01, ping_timeout=0.03, max_queue=1)
    app = App(talk)
    async with serving(version, app, websocket=options) as peer:
        socket = await accepted(peer)
        await socket.send(frame(BINARY, b"*" * 50_000), frame(BINARY, b"*" * 50_000))
        assert (await socket.receive()).opcode == PING
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.15
        await until(lambda: loop.time() > end)
        assert not app.done.is_set()
        socket.reset()
        release.set()
        await until(app.done.is_set)


# ---- Back-pressure, and sizes ----

# What the kernel may keep of a TCP connection over loopback, in pieces of 64 KiB.
IN_KERNEL = 250


@everywhere
async def test_large_and_many_messages_pass(version):
    app = App()
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        large = bytes(range(256)) * 4096  # 1 MiB

        async def feed():
            await socket.send(frame(BINARY, large))
            await socket.send(fragments(TEXT, [b"f"] * 100))
            for _ in range(10):
                await socket.send(*(frame(TEXT, str(i)) for i in range(100)))

        task = asyncio.create_task(feed())
        assert await socket.data() == large
        assert await socket.text() == "f" * 100
        for _ in range(10):
            for i in range(100):
                assert await socket.text() == str(i)
        await task
        await socket.leave()


@everywhere
async def test_a_slow_application_stops_its_client_and_no_other(version):
    release = asyncio.Event()

    async def talk(app, receive, send):
        if app.scopes[-1]["path"] == "/slow":
            await release.wait()
            await drain(app, receive, send)
        else:
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})

    app = App(talk)
    async with serving(version, app) as peer:
        slow = await accepted(peer, b"/slow")
        sent = 0

        async def feed():
            nonlocal sent
            for _ in range(400):
                await slow.send(frame(BINARY, b"*" * 65536))
                sent += 1

        task = asyncio.create_task(feed())
        other = await accepted(peer, b"/other")
        for i in range(20):
            await other.send(frame(TEXT, str(i)))
            assert await other.text() == str(i)
        before = -1
        while before != sent:
            before = sent
            for _ in range(20):
                await pause()
        # Of 400: the queue, the window, the client's own queue.
        assert sent < (60 if version != "HTTP/1.1" else IN_KERNEL)
        release.set()
        await task
        await slow.send(close(1000))
        assert (await slow.closed())[0] == 1000
        assert sum(len(m.get("bytes", b"")) for m in app.seen) == 400 * 65536
        await other.leave()


@everywhere
async def test_a_client_that_does_not_read_stops_its_application(version):
    sent = 0

    async def talk(app, receive, send):
        nonlocal sent
        for _ in range(400):
            await send({"type": "websocket.send", "bytes": b"*" * 65536})
            sent += 1

    app = App(talk)
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        before = -1
        while before != sent:
            before = sent
            for _ in range(20):
                await pause()
        assert 0 < sent < (100 if version != "HTTP/1.1" else IN_KERNEL)
        size = 0
        while (received := await socket.receive()).opcode == BINARY:
            size += len(received.data)
        assert size == 400 * 65536
        assert received.code == 1000
        await socket.send(close(1000))
        await socket.ended()


@everywhere
async def test_a_send_that_waits_raises_when_the_client_goes(version):
    async def talk(app, receive, send):
        while True:
            await send({"type": "websocket.send", "bytes": b"*" * 1_000_000})

    app = App(talk)
    async with serving(version, app) as peer:
        socket = await accepted(peer)
        await pause()
        socket.reset()
        await until(app.done.is_set)
        assert isinstance(app.events[0], OSError)


@everywhere
async def test_a_client_that_only_pings_and_does_not_read_is_stopped(version):
    async def talk(app, receive, send):
        await asyncio.Event().wait()

    app = App(talk)
    async with serving(version, app, disconnect_grace=0.01) as peer:
        socket = await accepted(peer)
        pings = frame(PING, b"*" * 125) * 500
        sent = 0

        async def feed():
            nonlocal sent
            for _ in range(300):
                await socket.send(pings)
                sent += 1

        task = asyncio.create_task(feed())
        before = -1
        while before != sent:
            before = sent
            for _ in range(20):
                await pause()
        assert sent < (100 if version != "HTTP/1.1" else IN_KERNEL)
        task.cancel()
        socket.reset()
        await until(app.done.is_set)


@everywhere
async def test_messages_are_compressed_if_the_client_offers_it(version):
    app = App()
    async with serving(version, app) as peer:
        offer = [(b"sec-websocket-extensions", b"permessage-deflate")]
        socket = await accepted(peer, headers=offer)
        answer = socket.answer.value(b"sec-websocket-extensions")
        assert answer == b"permessage-deflate; server_max_window_bits=12"
        await socket.send(frame(TEXT, deflated("Hello " * 100), rsv=RSV1))
        received = await socket.receive()
        assert received.rsv == RSV1
        assert len(received.data) < 100
        # A ping is not.
        await socket.send(frame(PING, b"x"))
        assert await socket.receive() == (PONG, b"x", True, 0)
        await socket.leave()
        assert app.seen[0]["text"] == "Hello " * 100


@everywhere
async def test_compression_can_be_switched_off(version):
    options = WebSocketOptions(per_message_deflate=False)
    async with serving(version, App(), websocket=options) as peer:
        offer = [(b"sec-websocket-extensions", b"permessage-deflate")]
        socket = await accepted(peer, headers=offer)
        assert socket.answer.value(b"sec-websocket-extensions") is None
        await socket.leave()


@everywhere
async def test_a_bomb_is_inflated_no_further_than_the_queue(version):
    """Four messages of a megabyte in four kilobytes: not all of them at once."""
    release = asyncio.Event()

    async def talk(app, receive, send):
        await release.wait()
        await drain(app, receive, send)

    app = App(talk)
    async with serving(version, app) as peer:
        offer = [(b"sec-websocket-extensions", b"permessage-deflate")]
        socket = await accepted(peer, headers=offer)
        bomb = frame(BINARY, deflated(b"\0" * 1_000_000, bits=12), rsv=RSV1)
        await socket.send(bomb * 40)
        release.set()
        await until(lambda: len(app.seen) == 40)
        assert {len(m["bytes"]) for m in app.seen} == {1_000_000}
        await socket.leave()


def test_what_is_raised_is_of_our_tree():
    assert issubclass(ASGIMessageError, NGHTTP2Error)
