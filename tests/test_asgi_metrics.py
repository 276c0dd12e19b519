"""Metrics for Prometheus: what is counted, with which labels, and how it is read."""

import asyncio
import logging
import socket
import ssl
import subprocess
import sys

import pytest
from asgi_servers import everywhere, serving
from loops import in_loop, until
from prometheus_client.parser import text_string_to_metric_families
from quic_pair import client_configuration

from nghttp2py import access
from nghttp2py.asgi.metrics import BUCKETS, Metrics
from nghttp2py.asyncio import Server, ServerCounts, open_connection
from nghttp2py.asyncio.quic import connect
from nghttp2py.errors import ConfigurationError
from nghttp2py.h3 import H3_ALPN


@pytest.fixture
def metrics():
    made = Metrics()
    made.start()
    yield made
    made.stop()


def read(metrics):
    """The value of each sample, by its name and its labels."""
    text, kind = metrics.generate()
    assert kind.startswith("text/plain")
    names = ("version", "transport", "reason", "method", "status", "le")
    return {
        (
            sample.name,
            *(sample.labels[name] for name in names if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def distrust(port):
    """Make a connection of TLS that trusts no authority of these tests."""
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        context.wrap_socket(sock, server_hostname="localhost")


def failures(found):
    """The handshakes that have failed, by transport and reason."""
    return {
        key[1:]: value
        for key, value in found.items()
        if key[0] == "nghttp2py_handshakes_failed_total" and value
    }


async def app(scope, receive, send):
    status = int(scope["path"][1:] or 200)
    await send({"type": "http.response.start", "status": status})
    await send({"type": "http.response.body", "body": b"good", "more_body": True})
    if status == 202:
        raise ConnectionResetError("on purpose")
    await send({"type": "http.response.body"})


@everywhere
async def test_requests_are_counted_by_version_method_and_status(version, metrics):
    number = version.removeprefix("HTTP/")
    async with serving(version, app) as peer:
        metrics.add_server(peer.server)
        metrics.add_server(peer.server)
        await peer.fetch()
        await peer.fetch()
        await peer.fetch(b"/404", b"POST", body=b"x")
        await peer.fetch(b"/299", b"BREW")
        await until(lambda: len(peer.log) == 4)
        kind = "quic" if version == "HTTP/3" else "tcp"
        # Over HTTP/1.1 each request of the client has a connection of its own.
        found = read(metrics)
        if version == "HTTP/1.1":
            assert found["nghttp2py_connections_total", kind] == 4
        else:
            assert found["nghttp2py_connections_total", kind] == 1
            assert found["nghttp2py_connections_open", kind] == 1
        assert not failures(found)
        assert found["nghttp2py_streams_open",] == 0
    assert found["nghttp2py_requests_total", number, "GET", "200"] == 2
    assert found["nghttp2py_requests_total", number, "POST", "404"] == 1
    assert found["nghttp2py_requests_total", number, "other", "2xx"] == 1
    assert found["nghttp2py_response_body_bytes_total", number] == 16
    assert found["nghttp2py_request_duration_seconds_count", number] == 4
    assert found["nghttp2py_request_duration_seconds_bucket", number, "+Inf"] == 4
    assert ("nghttp2py_stream_resets_total", number) not in found
    found = read(metrics)
    assert found["nghttp2py_connections_open", kind] == 0
    assert found["nghttp2py_streams_open",] == 0


@everywhere
async def test_a_reset_is_counted(version, metrics):
    number = version.removeprefix("HTTP/")

    async def wait(scope, receive, send):
        await receive()
        await asyncio.Event().wait()

    async with serving(version, wait, disconnect_grace=0) as peer:
        metrics.add_server(peer.server)
        stream = await peer.open()
        await until(lambda: peer.server.counts.streams == 1)
        stream.reset()
        await until(lambda: peer.log)
        found = read(metrics)
    assert found["nghttp2py_requests_total", number, "GET", "none"] == 1
    assert found["nghttp2py_requests_incomplete_total", number] == 1
    assert found["nghttp2py_stream_resets_total", number] == 1


@in_loop
async def test_handshakes_that_fail_are_counted(paths, metrics):
    async def site(stream):
        await stream.send_response(200, {}, b"")

    async with Server(site, ("127.0.0.1", 0), ssl=paths, http3=True) as server:
        metrics.add_server(server)
        port = server.sockets[0].getsockname()[1]
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            writer.write_eof()
            await reader.read()
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ssl.SSLError):
            # Not by asyncio, whose client sends no alert.
            await asyncio.to_thread(distrust, port)
        await until(lambda: server.counts.failed_handshakes == 3)
        await until(lambda: not server.counts.connections)
        other = client_configuration(alpn_protocols=["other"])
        with pytest.raises(ConnectionError):
            async with connect("127.0.0.1", port, configuration=other):
                raise AssertionError
        stranger = client_configuration(alpn_protocols=H3_ALPN)
        with pytest.raises(ConnectionError):
            async with connect("127.0.0.1", port, configuration=stranger):
                raise AssertionError
        await until(lambda: not server.counts.quic_connections)
        assert server.counts.quic_failed_handshakes == 2
        found = read(metrics)
    assert found["nghttp2py_connections_total", "tcp"] == 4
    assert failures(found) == {
        ("tcp", "not_tls"): 1,
        ("tcp", "closed"): 1,
        ("tcp", "server_certificate"): 1,
        ("quic", "protocol"): 1,
        ("quic", "server_certificate"): 1,
    }


@in_loop
async def test_connections_without_a_proxy_header_are_counted(metrics):
    async def site(stream):
        raise AssertionError

    async with Server(site, ("127.0.0.1", 0), proxy_protocol="v1") as server:
        metrics.add_server(server)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /")
        await until(lambda: server.counts.refused_headers == 1)
        writer.close()
        found = read(metrics)
    assert found["nghttp2py_proxy_headers_refused_total",] == 1


def test_a_server_that_was_not_started_has_counted_nothing():
    async def site(stream):
        raise AssertionError

    assert Server(site, ("127.0.0.1", 0)).counts == ServerCounts() == (0,) * 8


def test_clients_cannot_make_labels(metrics):
    for number in range(2000):
        metrics.observe(
            access.Exchange(
                *("HTTP/2", None, b"M%d" % number, b"/%d" % number, number % 1000 or 1),
                *(0, 0.1, number, True),
            )
        )
    names = {key for key in read(metrics) if key[0] == "nghttp2py_requests_total"}
    assert len(names) < 80


def test_nothing_is_hooked_until_the_start_and_after_the_end():
    before = list(access.hooks)
    metrics = Metrics()
    assert access.hooks == before
    metrics.start()
    metrics.start()
    assert len(access.hooks) == len(before) + 1
    metrics.stop()
    metrics.stop()
    assert access.hooks == before


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"nghttp2py\[metrics\]"):
        Metrics()


def test_only_a_server_can_be_added(metrics):
    with pytest.raises(TypeError, match="server must be a Server"):
        metrics.add_server("server")


def test_the_package_is_loaded_only_where_it_is_used():
    program = "import sys, nghttp2py.asgi.metrics\n"
    program += "assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@in_loop
async def test_prometheus_reads_the_metrics_by_a_server_of_their_own(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")
    metrics = Metrics()
    server = await metrics.serve(("127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]

    async def ask(client, path, method="GET", **headers):
        stream = await client.open_stream(
            {":method": method, ":path": path, **headers}, end_stream=True
        )
        response = await stream.response()
        return response.status, dict(response.headers), await stream.read()

    async with await open_connection("127.0.0.1", port) as client:
        status, headers, body = await ask(client, "/metrics?x=1")
        assert status == 200
        assert headers[b"content-type"].startswith(b"text/plain; version=")
        assert b"# TYPE nghttp2py_connections_open gauge" in body
        status, headers, body = await ask(
            client, "/metrics", accept="application/openmetrics-text; version=1.0.0"
        )
        assert headers[b"content-type"].startswith(b"application/openmetrics-text")
        assert body.endswith(b"# EOF\n")
        assert (await ask(client, "/metrics", "HEAD"))[2] == b""
        assert (await ask(client, "/metrics", "POST"))[0] == 405
        assert (await ask(client, "/"))[0] == 404
    # Most readers speak HTTP/1.1.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    response = await reader.read()
    assert response.startswith(b"HTTP/1.1 200")
    assert b"# TYPE nghttp2py_streams_open gauge" in response
    writer.close()
    await writer.wait_closed()
    # To read the metrics does not change them.
    assert not [key for key in read(metrics) if key[0] == "nghttp2py_requests_total"]
    assert not caplog.records
    await metrics.close()
    await metrics.close()
    assert not server.sockets
    assert metrics.observe not in access.hooks


def test_the_buckets_are_in_order():
    assert list(BUCKETS) == sorted(BUCKETS)
