"""Programs built on aioquic run with ``aioquic`` replaced by ``nghttp2py``."""

from __future__ import annotations

import asyncio

import pytest
from peers import authority, certificate, free_port
from programs import installed_copy, run, running_server

from nghttp2py.asyncio import QuicConnectionProtocol, connect, serve
from nghttp2py.asyncio.h3 import H3Protocol
from nghttp2py.h3 import H3_ALPN
from nghttp2py.quic import QuicConfiguration


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A directory with a key, its certificate and the authority's."""
    directory = tmp_path_factory.mktemp("pem")
    certificate().private_key_pem.write_to_path(directory / "key.pem")
    certificate().cert_chain_pems[0].write_to_path(directory / "cert.pem")
    authority().cert_pem.write_to_path(directory / "authority.pem")
    return directory


# ---- hypercorn ----

APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"x-version", scope["http_version"].encode())]})
    await send({"type": "http.response.body", "body": scope["path"].encode() + body})
"""


def test_hypercorn_serves_http3(pem, tmp_path):
    """With our QUIC and our HTTP/3 below it, and our client before it."""
    installed_copy("hypercorn", tmp_path, r"\baioquic\b", "nghttp2py")
    (tmp_path / "app.py").write_text(APP)

    async def main():
        port = free_port()
        async with running_server(
            port,
            *("-m", "hypercorn", f"--quic-bind=127.0.0.1:{port}"),
            *(f"--bind=127.0.0.1:{free_port()}", f"--certfile={pem / 'cert.pem'}"),
            *(f"--keyfile={pem / 'key.pem'}", "app:app"),
            cwd=tmp_path,
            path=tmp_path,
        ) as output:
            get = "-m", "nghttp2py", "get", "--http3-only", "-i"
            get = *get, f"--cacert={pem / 'authority.pem'}"
            plain = await run(*get, f"https://localhost:{port}/a", cwd=tmp_path)
            upload = await run(
                *(*get, "--data=" + "x" * 100_000, f"https://localhost:{port}/b"),
                cwd=tmp_path,
            )
        return plain, upload, b"".join(output).decode()

    plain, upload, log = asyncio.run(main())
    assert plain.startswith("HTTP/3 200")
    assert "x-version: 3" in plain
    assert plain.endswith("/a")
    assert upload.endswith("/b" + "x" * 100_000)
    assert "Traceback" not in log


# ---- dnspython ----

QUERIES = """
import asyncio, sys, dns.asyncquery, dns.message, dns.query
kind, port, authority = sys.argv[1], int(sys.argv[2]), sys.argv[3]
query = dns.message.make_query("example.org", "A")
if kind == "doq":
    answer = dns.query.quic(query, "127.0.0.1", 5, port, verify=authority,
                            server_hostname="localhost")
elif kind == "async doq":
    answer = asyncio.run(dns.asyncquery.quic(
        query, "127.0.0.1", 5, port, verify=authority, server_hostname="localhost"))
elif kind == "doh3":
    answer = dns.query.https(query, f"https://localhost:{port}/dns-query", 5,
                             verify=authority, bootstrap_address="127.0.0.1",
                             http_version=dns.query.HTTPVersion.H3)
else:
    answer = asyncio.run(dns.asyncquery.https(
        query, f"https://localhost:{port}/dns-query", 5, verify=authority,
        bootstrap_address="127.0.0.1", http_version=dns.query.HTTPVersion.H3))
import nghttp2py.quic
assert "aioquic" not in sys.modules
print(answer.answer[0])
"""


def answer_query(data):
    """The answer to a DNS query, as octets: each name has one address."""
    import dns.flags
    import dns.message
    import dns.rrset

    query = dns.message.from_wire(data)
    response = dns.message.make_response(query)
    response.answer.append(
        dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.7")
    )
    return response.to_wire()


async def answer_over_quic(reader, writer):
    """RFC 9250, 4.2: each message follows its length."""
    message = await reader.read()
    answer = answer_query(message[2:])
    writer.write(len(answer).to_bytes(2, "big") + answer)
    writer.write_eof()


async def answer_over_http3(stream):
    """RFC 8484: a query in the path, or as a body."""
    import base64

    fields = dict(stream.headers)
    if fields[b":method"] == b"POST":
        query = b"".join([piece async for piece in stream])
    else:
        text = fields[b":path"].partition(b"?dns=")[2]
        query = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    answer = answer_query(query)
    stream.send_headers(
        [(b":status", b"200"), (b"content-type", b"application/dns-message")]
    )
    await stream.send_data(answer, end_stream=True)


@pytest.fixture(scope="module")
def dnspython(tmp_path_factory):
    """A copy of it on our QUIC; that aioquic is installed, it may still believe."""
    directory = tmp_path_factory.mktemp("dns")
    return installed_copy("dns", directory, r"\baioquic\.", "nghttp2py.")


@pytest.mark.parametrize("kind", ["doq", "async doq", "doh3", "async doh3"])
def test_dnspython_resolves_a_name(kind, dnspython, pem):
    over_http3 = kind.endswith("doh3")
    configuration = QuicConfiguration(
        is_client=False, alpn_protocols=H3_ALPN if over_http3 else ["doq"]
    )
    configuration.load_cert_chain(pem / "cert.pem", pem / "key.pem")

    def h3(quic, stream_handler=None):
        return H3Protocol(quic, request_handler=answer_over_http3)

    async def main():
        tasks = set()

        def answer(reader, writer):
            task = asyncio.ensure_future(answer_over_quic(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await serve(
            "127.0.0.1",
            0,
            configuration=configuration,
            create_protocol=h3 if over_http3 else QuicConnectionProtocol,
            stream_handler=None if over_http3 else answer,
        )
        try:
            port = server.sockets[0].getsockname()[1]
            return await run(
                *("-c", QUERIES, kind, port, pem / "authority.pem"),
                cwd=pem,
                path=dnspython,
            )
        finally:
            server.close()

    assert asyncio.run(main()).strip() == "example.org. 60 IN A 192.0.2.7"


# ---- HTTP/0.9 ----


def test_http_0_9_over_quic(pem):
    from nghttp2py.h0.connection import H0_ALPN, H0Connection
    from nghttp2py.h3.events import DataReceived, HeadersReceived

    class Protocol(QuicConnectionProtocol):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.http = H0Connection(self._quic)
            self.events = []
            self.done = asyncio.Event()

        def quic_event_received(self, event):
            for http_event in self.http.handle_event(event):
                self.events.append(http_event)
                if isinstance(http_event, DataReceived) and http_event.stream_ended:
                    self.done.set()
                elif isinstance(http_event, HeadersReceived) and http_event.headers:
                    path = dict(http_event.headers)[b":path"]
                    self.http.send_headers(http_event.stream_id, [])
                    self.http.send_data(http_event.stream_id, b"at " + path, True)
                    self.transmit()

    async def main():
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H0_ALPN)
        configuration.load_cert_chain(pem / "cert.pem", pem / "key.pem")
        server = await serve(
            "127.0.0.1", 0, configuration=configuration, create_protocol=Protocol
        )
        client = QuicConfiguration(alpn_protocols=H0_ALPN, server_name="localhost")
        client.load_verify_locations(pem / "authority.pem")
        port = server.sockets[0].getsockname()[1]
        async with connect(
            "127.0.0.1", port, configuration=client, create_protocol=Protocol
        ) as protocol:
            stream_id = protocol._quic.get_next_available_stream_id()
            request = [(b":method", b"GET"), (b":path", b"/page")]
            protocol.http.send_headers(stream_id, request, end_stream=True)
            protocol.transmit()
            await asyncio.wait_for(protocol.done.wait(), 10)
            events = protocol.events
        server.close()
        return events

    events = asyncio.run(main())
    assert [type(event) for event in events[:2]] == [HeadersReceived, DataReceived]
    assert b"".join(event.data for event in events[1:]) == b"at /page"
