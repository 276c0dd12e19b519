"""Fixtures that tests of several topics share."""

import contextlib
import gc
import signal
import ssl
import sys
import sysconfig
from typing import NamedTuple

import pytest
import trustme

# The aioquic whose behaviour is ours, 1.7, needs Python 3.11.
OLD_AIOQUIC = sys.version_info < (3, 11)
# aioquic and pylsqpack are built for the stable ABI, which CPython 3.14 lacks without
# the GIL, and brotli has no release for that.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
collect_ignore = []
if FREE_THREADED:
    collect_ignore = [
        "test_client_codings.py",
        "test_h3_differential.py",
        "test_h3_qpack.py",
        "test_quic_tickets.py",
        "test_quic_trace.py",
    ]
elif OLD_AIOQUIC:
    collect_ignore = ["test_h3_differential.py"]


def pytest_configure():
    """Take back SIGINT, by which tests end programs, for them to inherit that.

    A shell has what it runs in the background ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory):
    """Keep the certificate of `nghttp2py serve` apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


def pytest_report_header():
    """Say what is left out: nothing is, in silence."""
    if OLD_AIOQUIC:
        return (
            "left out, since aioquic 1.7 needs Python 3.11: tests marked aioquic17, "
            + (", ".join(collect_ignore))
        )
    if FREE_THREADED:
        return (
            "left out, since aioquic and brotli need the GIL: what is run with them, "
            + ", ".join(collect_ignore)
        )
    return None


def pytest_collection_modifyitems(config, items):
    """Take out what an older aioquic cannot do; pytest counts it as deselected."""
    left_out = [
        item
        for item in items
        if (OLD_AIOQUIC and item.get_closest_marker("aioquic17"))
        or (FREE_THREADED and "[aioquic" in item.name)
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish():
    """Keep modules and tests out of collections.

    They are hundreds of thousands of objects, which each `gc.collect()` of a test would
    look through: a tenth of the time of the whole run.
    """
    gc.collect()
    gc.freeze()


class TLS(NamedTuple):
    """Contexts for both ends on loopback, and the file of their authority."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority's file, a certificate for loopback, and a client's."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return (
        authority,
        authority.issue_cert("localhost", "127.0.0.1", "::1"),
        authority.issue_cert("client@example.org"),
        str(path),
    )


@pytest.fixture
def paths(certificates, tmp_path):
    """The files of a certificate for loopback, and of its key."""
    _, certificate, _, _ = certificates
    chain, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(chain), append=True)
    certificate.private_key_pem.write_to_path(str(key))
    return chain, key


@pytest.fixture
def tls(certificates):
    """Both ends' contexts for HTTP/2: made anew, for servers change them."""
    authority, server_certificate, client_certificate, path = certificates
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_certificate.configure_cert(server)
    authority.configure_trust(server)
    client = ssl.create_default_context()
    client.set_alpn_protocols(["h2"])
    client_certificate.configure_cert(client)
    authority.configure_trust(client)
    return TLS(server, client, path)


@pytest.fixture
def serving(paths, tls):
    """Serves ``app`` by both protocols, with a ``Client`` of one of them."""
    from nghttp2py.asyncio import Client, Server, Timeouts

    @contextlib.asynccontextmanager
    async def serve(app, http3, *, config=None, **options):
        async with (
            Server(
                app,
                ("127.0.0.1", 0),
                ssl=paths,
                http3=True,
                config=config,
                timeouts=Timeouts(close=0.5),
            ) as server,
            Client(
                f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                ssl=tls.client,
                http3=http3,
                **options,
            ) as client,
        ):
            yield client

    return serve
