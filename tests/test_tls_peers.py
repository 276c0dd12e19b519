"""Certificates of servers, as openssl, curl and gtlsclient see them."""

import re
import ssl

import pytest
from loops import in_loop
from peers import program, run

from nghttp2py.asyncio import Server, TLSOptions

HOST = "127.0.0.1"


@pytest.fixture
def pairs(certificates, tmp_path):
    """The files of three certificates; the last is a client's."""
    authority = certificates[0]
    made = []
    for names in (["localhost"], ["one.example", "*.two.example"], ["client.example"]):
        pair = tmp_path / f"{names[0]}.pem", tmp_path / f"{names[0]}.key"
        issued = authority.issue_cert(*names, common_name=names[0])
        pair[0].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        pair[1].write_bytes(issued.private_key_pem.bytes())
        made.append(pair)
    return made


async def answer(stream):
    found = stream.http.get_extra_info("peercert") or {}
    names = dict(found.get("subjectAltName", ()))
    await stream.send_response(200, {}, names.get("DNS", "none").encode())


def serve(pairs, authority, **options):
    tls = TLSOptions(pairs, ca_certs=authority, **options)
    return Server(answer, (HOST, 0), ssl=tls, http3=True)


def port_of(server):
    return server.sockets[0].getsockname()[1]


async def s_client(port, *options):
    """What openssl says of a connection."""
    address = f"{HOST}:{port}"
    return await run(program("openssl"), "s_client", "-connect", address, *options)


@in_loop
async def test_openssl_sees_the_certificate_of_the_name(certificates, pairs):
    async with serve(pairs[:2], certificates[3]) as server:
        for name, subject in (
            ("one.example", "one.example"),
            ("a.two.example", "one.example"),
            ("a.b.two.example", "localhost"),
            ("localhost", "localhost"),
        ):
            out = await s_client(
                port_of(server), "-servername", name, "-CAfile", certificates[3]
            )
            assert re.search(rf"subject=.*CN ?= ?{subject}\n", out), out
            assert "Verify return code: 0 (ok)" in out
        out = await s_client(port_of(server), "-noservername")
        assert re.search(r"subject=.*CN ?= ?localhost\n", out)
        server.reload_certificates()
        out = await s_client(port_of(server), "-servername", "one.example", "-tls1_2")
        assert re.search(r"subject=.*CN ?= ?one.example\n", out)
        assert "Protocol  : TLSv1.2" in out


@in_loop
async def test_openssl_resumes_a_session_with_the_certificate_of_a_name(
    certificates, pairs
):
    async with serve(pairs[:2], certificates[3]) as server:
        options = ("-servername", "one.example", "-tls1_2", "-reconnect")
        out = await s_client(port_of(server), *options)
        assert out.count("Reused, TLSv1.2") == 5


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@in_loop
async def test_curl_shows_its_certificate(certificates, pairs, version):
    mode = ssl.CERT_OPTIONAL
    async with serve(pairs[:2], certificates[3], verify_mode=mode) as server:
        url = f"https://one.example:{port_of(server)}/"
        base = (
            *(program("curl"), "--silent", "--show-error", version),
            *("--cacert", certificates[3]),
            *("--resolve", f"one.example:{port_of(server)}:{HOST}"),
        )
        cert, key = map(str, pairs[2])
        assert await run(*base, url) == "none"
        assert await run(*base, "--cert", cert, "--key", key, url) == "client.example"


@in_loop
async def test_gtlsclient_shows_its_certificate_and_resumes_its_session(
    certificates, pairs, tmp_path
):
    shown = []

    async def note(stream):
        tls = stream.protocol._quic.tls
        shown.append((tls.session_resumed, tls.early_data_accepted))
        await answer(stream)

    tls = TLSOptions(pairs[:2], ca_certs=certificates[3], verify_mode=ssl.CERT_REQUIRED)
    cert, key = map(str, pairs[2])
    async with Server(note, (HOST, 0), ssl=tls, http3=True) as server:
        for _ in range(2):
            await run(
                *(program("gtlsclient"), "--quiet", "--exit-on-first-stream-close"),
                *("--session-file", str(tmp_path / "session")),
                *("--tp-file", str(tmp_path / "tp")),
                *("--cert", cert, "--key", key),
                *([] if shown else ["--wait-for-ticket"]),
                *("--download", str(tmp_path)),
                *(HOST, str(port_of(server)), "https://localhost/file"),
            )
            assert (tmp_path / "file").read_text() == "client.example"
    assert shown == [(False, False), (True, False)]
