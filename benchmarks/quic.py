"""QUIC beside aioquic and qh3 in memory, and beside ngtcp2's programs over loopback.

In memory both ends are of one implementation and in one thread; the clock is
told.  Over loopback HTTP/3 moves one large file: between ngtcp2's programs, between
each of them and ours, and between each and qh3's (aioquic's would take a minute).
All are measured in turns in the same run: the ratios are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import importlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import figures

CLIENT, SERVER = ("192.0.2.1", 50000), ("192.0.2.2", 4433)
LIBRARIES = ["nghttp2py", "qh3", "aioquic"]
MEGABYTE = 1_000_000
PAIRS = 200
DEADLINE = 120
TURNS = 5
REQUEST = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/large"),
]
QUIET = [
    (os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0)
    for descriptor in (1, 2)
]


class Files:
    """A certificate for localhost, and its authority, in a directory."""

    def __init__(self, directory: Path) -> None:
        import trustme  # small.py does without it

        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.directory = directory
        self.authority = str(directory / "ca.pem")
        self.chain = str(directory / "chain.pem")
        self.key = str(directory / "key.pem")
        authority.cert_pem.write_to_path(self.authority)
        issued.private_key_pem.write_to_path(self.key)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(self.chain, append=True)


class Library:
    """What a library has by aioquic's names, and the programs that are made of it."""

    def __init__(self, name: str) -> None:
        self.asyncio = importlib.import_module(f"{name}.asyncio")
        self.configuration = importlib.import_module(
            f"{name}.quic.configuration"
        ).QuicConfiguration
        self.quic = importlib.import_module(f"{name}.quic.connection").QuicConnection
        self.http = importlib.import_module(f"{name}.h3.connection").H3Connection

    def mix(self, mixin: type) -> Any:
        """A class of ``mixin`` and of the library's protocol."""
        return type(
            mixin.__name__,
            (mixin, self.asyncio.QuicConnectionProtocol),
            {"make_http": staticmethod(self.http)},
        )

    def start_server(self, files: Files, port: int, size: int) -> int:
        """Serve ``size`` bytes in a process of its own; that process."""
        # Read here, so that the pages of the body are there, as those of the file are
        # for gtlsserver: each of the system's zero pages costs a fault when it is read.
        body = (files.directory / "large").read_bytes()

        async def main() -> None:
            configuration = self.configuration(is_client=False, alpn_protocols=["h3"])
            # gtlsserver's: qh3 looks for larger datagrams without being told.
            configuration.congestion_control_algorithm = "cubic"
            configuration.probe_datagram_size = True
            configuration.load_cert_chain(files.chain, files.key)
            protocol = self.mix(FileServer)
            protocol.body = body
            await self.asyncio.serve(
                "127.0.0.1", port, configuration=configuration, create_protocol=protocol
            )
            await asyncio.Event().wait()

        return fork(main)

    def start_client(self, files: Files, port: int, size: int) -> int:
        """Get ``size`` bytes in a process of its own; that process."""

        async def main() -> None:
            configuration = self.configuration(
                alpn_protocols=["h3"],
                server_name="localhost",
                cafile=files.authority,
                # gtlsclient's.
                max_data=24 << 20,
                max_stream_data=16 << 20,
            )
            async with self.asyncio.connect(
                "127.0.0.1",
                port,
                configuration=configuration,
                create_protocol=self.mix(FileClient),
            ) as client:
                client.get()
                assert await client.done == size
                # gtlsclient does not wait for the end of the connection, either.
                client.close()
                os._exit(0)

        return fork(main)


# ---- In memory ----


class Pair:
    """A client and a server of one library."""

    def __init__(self, name: str, files: Files) -> None:
        self.library = Library(name)
        self.client_config = self.library.configuration(
            is_client=True,
            alpn_protocols=["h3"],
            server_name="localhost",
            # qh3's HTTP/3 asks for it.
            max_datagram_frame_size=65536,
        )
        self.client_config.load_verify_locations(files.authority)
        self.server_config = self.library.configuration(
            is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536
        )
        self.server_config.load_cert_chain(files.chain, files.key)
        self.now = 1000.0

    def handshake(self) -> None:
        quic = self.library.quic
        self.client = quic(configuration=self.client_config)
        self.client.connect(SERVER, now=self.now)
        flight = self.client.datagrams_to_send(now=self.now)
        self.server = quic(
            configuration=self.server_config,
            original_destination_connection_id=(
                self.client.original_destination_connection_id
            ),
        )
        for data, _ in flight:
            self.server.receive_datagram(data, CLIENT, now=self.now)
        done = 0
        for _ in figures.rounds("the end of a handshake"):
            self.now += 0.0001
            done += self.carry(self.server, "HandshakeCompleted")
            done += self.carry(self.client, "HandshakeCompleted")
            if done == 2:
                break

    def move(self, sender: Any) -> Any:
        """Move datagrams to the other end, which is returned."""
        receiver, addr = (
            (self.server, CLIENT) if sender is self.client else (self.client, SERVER)
        )
        for data, _ in sender.datagrams_to_send(now=self.now):
            receiver.receive_datagram(data, addr, now=self.now)
        return receiver

    def carry(self, sender: Any, awaited: str) -> int:
        """Move datagrams and drop events; how many of those awaited there were."""
        receiver = self.move(sender)
        found = 0
        while (event := receiver.next_event()) is not None:
            found += type(event).__name__ == awaited
        return found

    def exchange(self) -> None:
        """A hundred bytes there, a hundred bytes back, on a stream of their own."""
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_stream_data(stream_id, bytes(100), end_stream=True)
        self.carry_whole(stream_id, bytes(100))

    def carry_whole(self, stream_id: int, answer: bytes) -> None:
        """Carry a stream to its end, answer it, and carry that: it is closed then.

        A stream of which one half stays open would count against the limit of 128.
        """
        answered = False
        for _ in figures.rounds("the end of an answer"):
            self.now += 0.001
            self.move(self.client)
            while (event := self.server.next_event()) is not None:
                if type(event).__name__ == "StreamDataReceived" and event.end_stream:
                    self.server.send_stream_data(stream_id, answer, end_stream=True)
            self.move(self.server)
            while (event := self.client.next_event()) is not None:
                if type(event).__name__ == "StreamDataReceived" and event.end_stream:
                    answered = True
            self.timers()
            if answered:
                return

    def begin_http(self) -> None:
        """HTTP/3 on both ends, which have said what comes first."""
        self.ends = [
            (self.client, self.library.http(self.client)),
            (self.server, self.library.http(self.server)),
        ]
        for _ in range(4):
            self.carry_http()

    def carry_http(self) -> bool:
        """A flight each way; whether a response has come to its end."""
        ended = False
        self.now += 0.001
        for sender, (receiver, http) in (
            (self.client, self.ends[1]),
            (self.server, self.ends[0]),
        ):
            self.move(sender)
            while (event := receiver.next_event()) is not None:
                for received in http.handle_event(event):
                    if receiver is self.server:
                        http.send_headers(received.stream_id, [(b":status", b"200")])
                        http.send_data(received.stream_id, b"hello world", True)
                    else:
                        ended = ended or received.stream_ended
        self.timers()
        return ended

    def http_exchange(self) -> None:
        """A GET, and a response with a few bytes."""
        http = self.ends[0][1]
        stream_id = self.client.get_next_available_stream_id()
        http.send_headers(stream_id, REQUEST, end_stream=True)
        for _ in figures.rounds("the end of a response"):
            if self.carry_http():
                return

    def timers(self) -> None:
        for quic in (self.client, self.server):
            timer = quic.get_timer()
            if timer is not None and timer <= self.now:
                quic.handle_timer(now=self.now)

    def bulk(self, size: int) -> None:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_stream_data(stream_id, bytes(size), end_stream=True)
        self.carry_whole(stream_id, b"")


def rate(work: Callable[[], None], seconds: float) -> float:
    """How often ``work`` is done in a second of CPU time."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        work()
        count += 1
    return count / spent


def in_memory(files: Files, seconds: float) -> None:
    pairs = {name: Pair(name, files) for name in LIBRARIES}

    def compare(work: Callable[[Pair], None]) -> dict[str, float]:
        """Rates of all libraries: medians of turns."""
        turns = [
            [rate(functools.partial(work, pair), seconds) for pair in pairs.values()]
            for _ in range(TURNS)
        ]
        return dict(zip(pairs, figures.medians(turns), strict=True))

    rates = {"handshake": compare(Pair.handshake), "exchange": compare(Pair.exchange)}
    for pair in pairs.values():
        pair.handshake()
        pair.begin_http()
    rates["HTTP/3"] = compare(Pair.http_exchange)
    bulk = compare(lambda pair: pair.bulk(2 * MEGABYTE))
    rates["bulk"] = {name: 2 * found for name, found in bulk.items()}
    units = {"bulk": " MB/s"}
    print(f"{'in memory':12}" + "".join(f"{name:>20}" for name in LIBRARIES))
    for what, found in rates.items():
        cells = []
        for name in LIBRARIES:
            ratio = found["nghttp2py"] / found[name]
            cells.append(f"{found[name]:,.0f}{units.get(what, '/s')} ({ratio:.1f}x)")
        print(f"{what:12}" + "".join(f"{cell:>20}" for cell in cells))
    goal = "exchanges at least 12x aioquic and 3x qh3, handshakes 5x aioquic"
    print(f"goal: {goal}")
    rows = {
        "handshakes": "handshake",
        "exchanges": "exchange",
        "HTTP/3 exchanges": "HTTP/3",
        "bulk, MB": "bulk",
    }
    figures.keep(
        "quic_memory",
        "QUIC in memory, both ends of one library in one thread",
        "a second",
        {row: rates[what] for row, what in rows.items()},
        goal=goal,
        more=True,
    )


# ---- Memory ----


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_idle(name: str, files: Files) -> float:
    """KiB of a connection, a client's and a server's on average."""
    pair = Pair(name, files)
    kept = []
    for i in range(PAIRS + 20):
        if i == 20:
            # What every connection shares is there.
            gc.collect()
            before = resident()
        pair.handshake()
        pair.exchange()
        for _ in range(3):
            pair.now += 0.1
            pair.carry(pair.client, "")
            pair.carry(pair.server, "")
            pair.timers()
        kept.append((pair.client, pair.server))
    gc.collect()
    return (resident() - before) / 2 / PAIRS / 1024


def idle(files: Files) -> None:
    found = {}
    for name in LIBRARIES:
        receiver, sender = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                os.write(sender, str(measure_idle(name, files)).encode())
            os._exit(0)
        os.close(sender)
        os.waitpid(child, 0)
        found[name] = float(os.read(receiver, 100))
        os.close(receiver)
    print(f"KiB of an idle connection, mean of {PAIRS} clients and {PAIRS} servers: ")
    print("  " + ", ".join(f"{name} {kib:.0f}" for name, kib in found.items()))
    figures.keep(
        "quic_idle", "An idle QUIC connection", "KiB", {"client or server": found}
    )


# ---- Over loopback ----


class FileServer:
    """Answers every request with one body.  It is mixed into a library's protocol."""

    make_http: Any
    _quic: Any
    transmit: Any
    http: Any = None
    body = b""

    def quic_event_received(self, event: Any) -> None:
        if type(event).__name__ == "ProtocolNegotiated":
            self.http = self.make_http(self._quic)
        if self.http is None:
            return
        for received in self.http.handle_event(event):
            if type(received).__name__ == "HeadersReceived":
                self.http.send_headers(received.stream_id, [(b":status", b"200")])
                self.http.send_data(received.stream_id, self.body, end_stream=True)
        self.transmit()


class FileClient:
    """Gets one body and counts it.  It is mixed into a library's protocol."""

    make_http: Any
    _quic: Any
    transmit: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.http = self.make_http(self._quic)
        self.count = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def get(self) -> None:
        self.http.send_headers(
            self._quic.get_next_available_stream_id(), REQUEST, end_stream=True
        )
        self.transmit()

    def quic_event_received(self, event: Any) -> None:
        for received in self.http.handle_event(event):
            if type(received).__name__ == "DataReceived":
                self.count += len(received.data)
                if received.stream_ended:
                    self.done.set_result(self.count)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")


Start = Callable[[Files, int, int], int]


def start_gtlsserver(files: Files, port: int, size: int) -> int:
    """Run gtlsserver; its process."""
    return os.posix_spawn(
        str(program("gtlsserver")),
        [
            "gtlsserver",
            "--quiet",
            f"--htdocs={files.directory}",
            "127.0.0.1",
            str(port),
            files.key,
            files.chain,
        ],
        os.environ,
        file_actions=QUIET,
    )


def start_gtlsclient(files: Files, port: int, size: int) -> int:
    """Run gtlsclient; its process."""
    return os.posix_spawn(
        str(program("gtlsclient")),
        [
            "gtlsclient",
            "--quiet",
            "--no-http-dump",
            "--exit-on-all-streams-close",
            "127.0.0.1",
            str(port),
            f"https://localhost:{port}/large",
        ],
        os.environ,
        file_actions=QUIET,
    )


def fork(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a coroutine function in a process of its own; that process."""
    child = os.fork()
    if not child:
        # Nothing takes as long; what hangs shall not for ever.
        signal.alarm(DEADLINE)
        with contextlib.suppress(BaseException):
            asyncio.run(main())
        os._exit(1)
    return child


def wait_for_udp(port: int) -> None:
    """Wait until a server has bound a port: a datagram to it causes no ICMP error."""
    deadline = time.monotonic() + 10
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", port))
        probe.settimeout(0.05)
        while time.monotonic() < deadline:
            try:
                probe.send(b"?")
                probe.recv(1)
            except TimeoutError:
                break
            except ConnectionRefusedError:
                continue


def transfer(
    files: Files, size: int, server: Start, client: Start
) -> tuple[float, float, float]:
    """One download: MB by second of time, of the server's CPU, of the client's."""
    port = free_port()
    serving = server(files, port, size)
    wait_for_udp(port)
    begun = time.perf_counter()
    _, status, usage = os.wait4(client(files, port, size), 0)
    spent = time.perf_counter() - begun
    if status:
        raise SystemExit("a client has failed")
    os.kill(serving, signal.SIGTERM)
    _, _, served = os.wait4(serving, 0)
    megabytes = size / MEGABYTE
    return (
        megabytes / spent,
        megabytes / (served.ru_utime + served.ru_stime),
        megabytes / (usage.ru_utime + usage.ru_stime),
    )


def over_loopback(files: Files, size: int) -> None:
    if program("gtlsserver") is None:
        print("gtlsserver is missing: nothing is measured over loopback")
        return
    (files.directory / "large").write_bytes(bytes(size))
    ours, qh3s = Library("nghttp2py"), Library("qh3")
    ways: dict[str, tuple[Start, Start]] = {
        "gtlsserver to gtlsclient": (start_gtlsserver, start_gtlsclient),
        "gtlsserver to ours": (start_gtlsserver, ours.start_client),
        "gtlsserver to qh3": (start_gtlsserver, qh3s.start_client),
        "ours to gtlsclient": (ours.start_server, start_gtlsclient),
        "qh3 to gtlsclient": (qh3s.start_server, start_gtlsclient),
        "ours to ours": (ours.start_server, ours.start_client),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, (server, client) in ways.items():
            found[name].append(transfer(files, size, server, client))
    middle = {name: figures.medians(turns) for name, turns in found.items()}
    print(f"{size // MEGABYTE} MB of HTTP/3 over loopback, MB by second of")
    print(" " * 26 + f"{'time':>10}{'server CPU':>12}{'client CPU':>12}")
    for name, row in middle.items():
        print(f"{name:26}{row[0]:10.0f}{row[1]:12.0f}{row[2]:12.0f}")
    theirs = middle["gtlsserver to gtlsclient"]
    down, up = middle["gtlsserver to ours"], middle["ours to gtlsclient"]
    qh3_down, qh3_up = middle["gtlsserver to qh3"], middle["qh3 to gtlsclient"]
    print(
        f"beside the C programs: client {down[0] / theirs[0]:.2f}x in time and "
        f"{down[2] / theirs[2]:.2f}x in CPU, server {up[0] / theirs[0]:.2f}x and "
        f"{up[1] / theirs[1]:.2f}x"
    )
    print(
        f"beside qh3: client {down[0] / qh3_down[0]:.1f}x in time, "
        f"server {up[0] / qh3_up[0]:.1f}x"
    )
    goal = "at least qh3's, and 0.6 times the C programs', in time"
    print(f"goal: {goal}")
    figures.keep(
        "quic_loopback",
        f"{size // MEGABYTE} MB of HTTP/3 over loopback",
        "MB/s",
        {
            "our client": {
                "nghttp2py": down[0],
                "gtlsclient": theirs[0],
                "qh3": qh3_down[0],
            },
            "our server": {
                "nghttp2py": up[0],
                "gtlsserver": theirs[0],
                "qh3": qh3_up[0],
            },
            "our client, by its CPU": {
                "nghttp2py": down[2],
                "gtlsclient": theirs[2],
                "qh3": qh3_down[2],
            },
            "our server, by its CPU": {
                "nghttp2py": up[1],
                "gtlsserver": theirs[1],
                "qh3": qh3_up[1],
            },
        },
        goal=goal,
        more=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each turn")
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        files = Files(Path(directory))
        # First, while no memory lies free that a connection could take.
        idle(files)
        in_memory(files, options.seconds)
        over_loopback(files, options.megabytes * MEGABYTE)


if __name__ == "__main__":
    main()
