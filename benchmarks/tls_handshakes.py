"""What a TLS handshake costs a server over TCP, in full and with a ticket.

Both ends are in memory, and only the server's CPU time counts: the median of
``--count`` handshakes of each kind, which take turns.  A ticket is only of use in the
process that has issued it (docs/tls.rst), so the difference is what a client's next
connection costs more in another worker.
"""

from __future__ import annotations

import argparse
import ssl
import statistics
import time

import trustme


def make_contexts(kind: trustme.KeyType) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server with a key of a kind, and of its client."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", key_type=kind).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[float, ssl.SSLSession | None]:
    """Make a connection; return the server's seconds, and the session to resume."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(
        to_client, to_server, server_hostname="localhost", session=session
    )
    begin = time.thread_time()
    answers = server.wrap_bio(to_server, to_client, server_side=True)
    taken = time.thread_time() - begin
    waiting = [asks, answers]
    while waiting:
        for end in list(waiting):
            begin = time.thread_time()
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
            if end is answers:
                taken += time.thread_time() - begin
    answers.write(b"x")
    asks.read(1)  # the tickets come before it
    assert asks.session_reused is (session is not None)
    return taken, asks.session


def main() -> None:
    """Measure, and print a line for each kind of key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    print(ssl.OPENSSL_VERSION)
    for kind in trustme.KeyType:
        server, client = make_contexts(kind)
        _, session = shake_hands(server, client, None)
        full, resumed = [], []
        for _ in range(options.count):
            full.append(shake_hands(server, client, None)[0])
            taken, session = shake_hands(server, client, session)
            resumed.append(taken)
        print(
            f"{kind.name}: {statistics.median(full) * 1e6:.0f} us in full, "
            f"{statistics.median(resumed) * 1e6:.0f} us resumed"
        )


if __name__ == "__main__":
    main()
