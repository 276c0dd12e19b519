"""Clients of 2016 to 2022 on nghttp2's module and on aioh2: only imports changed."""

import asyncio
import json
import ssl

import pytest
from peers import echo_thread, server_tls

import nghttp2py as nghttp2
from nghttp2py import asyncio as aioh2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_apns_client_runs():
    class Notification(nghttp2.BaseResponseHandler):
        def on_headers(self):
            fields.extend(
                (k.decode("utf-8"), v.decode("utf-8")) for k, v in self.headers
            )

        def on_data(self, data):
            bodies.append(data)

        def on_response_done(self):
            if len(bodies) < 2:
                send(self.http2)

        def on_close(self, error_code):
            codes.append(error_code)
            if len(codes) == 2:
                self.http2.close()
                self.http2.io_loop.stop()

    def send(client):
        client.send_request(
            method="POST",
            url="/3/device/00fc13adff785122b4ad28809a3420982341241421348097878e577c",
            headers=[("apns-topic", "com.example"), ("apns-expiration", "0")],
            body=json.dumps({"aps": {"alert": "hello"}}),
            handler=Notification(),
        )

    fields, bodies, codes = [], [], []
    context = ssl.SSLContext(ssl.PROTOCOL_SSLv23)
    context.options = ssl.OP_ALL | ssl.OP_NO_SSLv2
    with echo_thread(ssl=server_tls()) as address:
        client = nghttp2.HTTP2Client(address, ssl=context)
        send(client)
        client.io_loop.call_later(20, client.io_loop.stop)
        client.io_loop.run_forever()
        client.run()
    assert fields[0] == (":status", "200")
    assert bodies == [b'{"aps": {"alert": "hello"}}'] * 2
    assert codes == [0, 0]


def test_a_dns_stub_over_https_connects_again_when_it_has_to():
    """As dohproxy's, which asks for ``_conn`` whether the connection is there."""

    class Stub:
        client = None

        async def ask(self, query):
            if self.client is None or self.client._conn is None:
                opened.append(address)
                self.client = await aioh2.open_connection(
                    *address,
                    functional_timeout=0.1,
                    ssl=context,
                    server_hostname="localhost",
                )
                await self.client.wait_functional()
            headers = [
                (":path", "/dns-query"),
                (":authority", "localhost"),
                (":method", "POST"),
                (":scheme", "https"),
                ("content-type", "application/dns-message"),
            ]
            stream_id = await self.client.start_request(headers, end_stream=False)
            await self.client.send_data(stream_id, query, end_stream=True)
            response = dict(await self.client.recv_response(stream_id))
            body = await self.client.read_stream(stream_id, -1)
            assert await self.client.recv_trailers(stream_id) == {}
            return response[":status"], body

    async def run():
        stub = Stub()
        assert await stub.ask(b"one") == ("200", b"one")
        assert await stub.ask(b"two") == ("200", b"two")
        stub.client.close_connection()
        await asyncio.wait_for(stub.client.wait_closed(), 20)
        assert await stub.ask(b"three") == ("200", b"three")
        stub.client.close_connection()
        await stub.client.wait_closed()

    opened = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with echo_thread(ssl=server_tls()) as address:
        asyncio.run(run())
    assert len(opened) == 2
