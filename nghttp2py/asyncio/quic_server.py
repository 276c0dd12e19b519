"""A QUIC server, which routes received datagrams to its connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, cast

from nghttp2py.arguments import check_callable, check_int, check_seconds
from nghttp2py.asyncio.binding import describe_address
from nghttp2py.asyncio.frame_trace import with_frame_log
from nghttp2py.asyncio.listener import ConnectionSet
from nghttp2py.asyncio.memory import check_memory
from nghttp2py.asyncio.quic_handshakes import MAX_HANDSHAKES, TOO_LONG, Handshakes
from nghttp2py.asyncio.quic_log import EndLog, logger
from nghttp2py.asyncio.quic_member import QuicMember
from nghttp2py.asyncio.quic_protocol import (
    QuicConnectionProtocol,
    QuicStreamHandler,
    Run,
)
from nghttp2py.asyncio.timeouts import Timeouts, merge_timeouts
from nghttp2py.asyncio.tls import warn_of_validity
from nghttp2py.asyncio.udp import UDPTransport
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.quic.configuration import (
    SESSION_TICKET_KEY_LENGTH,
    SMALLEST_MAX_DATAGRAM_SIZE,
    QuicConfiguration,
    check_configuration,
    with_credentials,
)
from nghttp2py.quic.connection import NetworkAddress, QuicConnection
from nghttp2py.quic.packet import QuicErrorCode
from nghttp2py.quic.routing import QuicHeader, Router
from nghttp2py.quic.tls import SessionTicketFetcher, SessionTicketHandler

__all__ = ["MAX_HANDSHAKES", "QuicServer", "check_server_configuration"]

# How many stateless resets a server sends in a second: spoofed packets can cause them.
MAX_RESETS = 100

# A token proves an address once (RFC 9000, 8.1.4); so many used ones are remembered, by
# the random bytes at their end.
MAX_SPENT_TOKENS = 16384
TOKEN_SEAL = 16


class _Owner:
    """A server's state of one connection: a ConnectionOwner."""

    def __init__(
        self,
        protocol: QuicConnectionProtocol,
        quic: QuicConnection,
        router: Router,
        protocols: dict[bytes, QuicConnectionProtocol],
        connections: ConnectionSet[QuicConnectionProtocol],
        handshaking: Handshakes,
    ) -> None:
        self._protocol = protocol
        self._quic = quic
        self._router = router
        self._protocols = protocols
        self._connections = connections
        self._handshaking = handshaking
        self._cids: set[bytes] = set()

    def handshake_completed(self) -> None:
        self._handshaking.completed += 1
        self._handshaking.discard(self._protocol)
        token = self._router.write_token(self._quic.get_peer_address(), time.time())
        if token:
            self._quic.send_new_token(token)

    def connection_id_issued(self, connection_id: bytes) -> None:
        self._cids.add(connection_id)
        self._protocols[connection_id] = self._protocol

    def connection_id_retired(self, connection_id: bytes) -> None:
        self._cids.discard(connection_id)
        self._protocols.pop(connection_id, None)

    def connection_terminated(self) -> None:
        for cid in self._cids:
            self._protocols.pop(cid, None)
        self._connections.discard(self._protocol)
        self._handshaking.failed(self._protocol, self._quic)
        self._handshaking.discard(self._protocol)


class QuicServer(asyncio.DatagramProtocol):
    """Passes each datagram to its connection, and makes the connections."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        create_protocol: Callable[..., Any] = QuicConnectionProtocol,
        session_ticket_fetcher: SessionTicketFetcher | None = None,
        session_ticket_handler: SessionTicketHandler | None = None,
        retry: bool = False,
        stream_handler: QuicStreamHandler | None = None,
        max_connections: int | None = None,
        max_handshakes: int = MAX_HANDSHAKES,
        timeouts: Timeouts | None = None,
        group: QuicMember | None = None,
    ) -> None:
        check_configuration(configuration)
        check_callable("create_protocol", create_protocol)
        for name, function in (
            ("session_ticket_fetcher", session_ticket_fetcher),
            ("session_ticket_handler", session_ticket_handler),
            ("stream_handler", stream_handler),
        ):
            if function is not None:
                check_callable(name, function)
        check_int("max_handshakes", max_handshakes, 1)
        if max_connections is not None:
            check_int("max_connections", max_connections, 0)
        if configuration.is_client:
            raise ValueError("the configuration must be a server's: is_client=False")
        if configuration.connection_id_length == 0:
            raise ValueError(
                "connection_id_length must be at least 1: a server tells its "
                "connections by their ids"
            )
        if group is not None:
            group.configure(configuration)
        if configuration.session_ticket_key is None:
            # One for reload_certificates(), too.
            configuration.session_ticket_key = os.urandom(SESSION_TICKET_KEY_LENGTH)
        check_server_configuration(configuration)
        self._loop = asyncio.get_running_loop()
        self._configuration = configuration
        self._timeouts = merge_timeouts(timeouts)
        self._log = EndLog()
        self._create_protocol = create_protocol
        self._session_ticket_fetcher = session_ticket_fetcher
        self._session_ticket_handler = session_ticket_handler
        self._retry = retry
        self._stream_handler = stream_handler
        self._group = group
        # The number of the socket's address in the group.
        self._place = 0
        self._max_connections = max_connections
        self._transport: asyncio.DatagramTransport | None = None
        self._protocols: dict[bytes, QuicConnectionProtocol] = {}
        self._connections: ConnectionSet[QuicConnectionProtocol] = ConnectionSet(
            close=lambda protocol, _: protocol.close(),
            abort=lambda protocol: protocol.close(),
        )
        self._handshaking = Handshakes(max_handshakes)
        self._has_room: Callable[[], bool] = self._is_below_limit
        self._draining = False
        self._ends: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        # A dictionary, because the oldest is forgotten first.
        self._spent_tokens: dict[bytes, None] = {}
        self._resets = 0
        self._resets_since = 0.0
        self._connection_ids = None if group is None else group.connection_ids
        if configuration.stateless_reset_secret is None:
            configuration.stateless_reset_secret = os.urandom(32)
        self._router = Router(
            secret=configuration.stateless_reset_secret,
            token_secret=None if group is None else group.secrets.retry,
            connection_ids=self._connection_ids,
            connection_id_length=configuration.connection_id_length,
            versions=configuration.supported_versions,
        )

    @property
    def sockets(self) -> list[Any]:
        """The socket, as a list."""
        return (
            []
            if self._transport is None
            else [self._transport.get_extra_info("socket")]
        )

    @property
    def connection_count(self) -> int:
        """The open connections, those in the handshake included."""
        return len(self._connections)

    @property
    def stream_count(self) -> int:
        """The number of open requests, if the connections use HTTP/3."""
        return sum(getattr(each, "stream_count", 0) for each in self._connections)

    @property
    def handshakes(self) -> tuple[int, int]:
        """How many handshakes clients have begun, and how many of them have failed."""
        begun = self._handshaking.begun
        return begun, begun - self._handshaking.completed - len(self._handshaking)

    def reload_certificates(self, configuration: QuicConfiguration) -> None:
        """Use the certificates and the authorities of ``configuration`` from now on.

        Connections that exist keep theirs.  Raises ``TypeError`` and ``ValueError`` for
        a configuration that cannot be used; then nothing has changed.
        """
        check_configuration(configuration)
        renewed = with_credentials(self._configuration, configuration)
        check_server_configuration(renewed)
        self._configuration = renewed

    @property
    def handshake_failures(self) -> Counter[str]:
        """How many handshakes were begun by clients and not completed, by reason."""
        return self._handshaking.failures

    def share_limit(
        self, has_room: Callable[[], bool], released: Callable[[], object]
    ) -> None:
        """Count the connections together with those of another server, under one limit.

        ``has_room`` is called before one is accepted, instead of checking
        ``max_connections``; ``released`` is called when one has ended.
        """
        self._has_room = has_room
        self._connections.discarded = released

    def _is_below_limit(self) -> bool:
        return len(self._connections) != self._max_connections

    def close(self, timeout: float | None = None) -> None:
        """Close all connections, and stop listening, as aioquic's server does.

        Before that it waits for the delivery of streams whose end was written, for at
        most ``timeouts.close``; :meth:`abort` does not wait.

        With ``timeout``, in seconds, the close is graceful, as in the other servers:
        open requests are answered, and what has not finished in time is aborted.
        :meth:`wait_closed` waits for that.  A second call can only shorten the time
        that is left.
        """
        check_seconds("timeout", timeout, least=0)
        self._stop_accepting()
        if self._closed.is_set():
            return
        if timeout is not None:
            self._end_by(self.drain(timeout))
            return
        unsettled = [p for p in self._connections if p.unsettled_streams()]
        for protocol in self._connections:
            if protocol not in unsettled:
                self._attempt(protocol, protocol.close)
        if unsettled:
            self._end_by(self._close_settled(unsettled))
        else:
            self.abort()

    def _stop_accepting(self) -> None:
        if not self._draining and self._transport is not None:
            address = self._transport.get_extra_info("sockname")
            logger.info("no longer listening on %s (QUIC)", describe_address(address))
        self._draining = True
        if self._group is not None:
            self._group.drain()

    def _end_by(self, end: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(end)
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _close_settled(self, protocols: list[QuicConnectionProtocol]) -> None:
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await wait_for(
                    asyncio.gather(*(p.wait_settled() for p in protocols)),
                    self._timeouts.close,
                )
        finally:
            self.abort()

    def abort(self) -> None:
        """Close all connections at once, and stop listening."""
        self._stop_accepting()
        self._connections.abort()
        self._protocols.clear()
        if self._transport is None:
            self._closed.set()
        else:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until ``close`` or ``abort`` has ended the last connection."""
        await self._closed.wait()

    def _attempt(
        self, protocol: QuicConnectionProtocol, action: Callable[..., Any], *args: Any
    ) -> None:
        """Call a method of one connection, so that its failure does not affect the
        others."""
        try:
            action(*args)
        except MemoryError:
            # The connection that needed the memory is ended.
            protocol.abandon()
        except Exception as error:
            self._loop.call_exception_handler(
                {
                    "message": "a QUIC connection's protocol has raised",
                    "exception": error,
                    "protocol": protocol,
                }
            )

    async def drain(self, timeout: float | None = None) -> None:
        """Accept no more connections, wait until the open ones have ended, and close.

        Their protocols are asked to end them, as HTTP/3 does by GOAWAY.  After
        ``timeout`` seconds it stops waiting.
        """
        self._stop_accepting()
        for protocol in list(self._connections):
            self._attempt(protocol, protocol.drain_begun)
        with contextlib.suppress(asyncio.TimeoutError):
            await wait_for(self._connections.wait_empty(), timeout)
        self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._group is not None:
            sock = transport.get_extra_info("socket")
            self._place = self._group.attach(self, sock)

    def connection_lost(self, exc: Exception | None) -> None:
        for protocol in self._connections:
            self._attempt(protocol, protocol.connection_lost, exc)
        if self._group is not None:
            self._group.detach(self._place)
        self._closed.set()

    def error_received(self, exc: Exception) -> None:
        """Ignore ICMP errors: they can be forged (RFC 9000, 14.2.1)."""
        if isinstance(exc, MemoryError):
            self._log.memory_wanted("QUIC", "datagrams were dropped")

    def datagram_received(self, data: bytes, addr: NetworkAddress) -> None:
        protocol = self._route((data, addr, 0, len(data)))
        if protocol is not None:
            try:
                protocol.datagram_received(data, addr)
            except MemoryError:
                protocol.abandon()

    def runs_received(self, runs: list[Run]) -> None:
        """Pass each run to its connection; then let each connection send once."""
        if self._group is not None:
            self._group.count_received(runs)
        self._receive(runs)

    def runs_forwarded(self, runs: list[Run]) -> None:
        """Handle what another worker has received: it is not forwarded again."""
        self._receive(runs, forwarded=True)

    def _receive(self, runs: list[Run], *, forwarded: bool = False) -> None:
        shares: dict[QuicConnectionProtocol, list[Run]] = {}
        try:
            for run in runs:
                # A run comes from one address, which may have several connections.
                for share in self._router.split_run(run):
                    protocol = self._route(share, forwarded)
                    if protocol is not None:
                        shares.setdefault(protocol, []).append(share)
        except MemoryError as error:
            self.error_received(error)
        for protocol, share_of_it in shares.items():
            self._attempt(protocol, protocol.runs_received, share_of_it)
            if protocol.is_abandoned:
                self._reset_abandoned(share_of_it)

    def _reset_abandoned(self, runs: list[Run]) -> None:
        """Reset a connection that was given up when these runs came.

        Its peer may have got acknowledgements, and would wait for more.
        """
        data, addr, _, segment = runs[-1]
        with contextlib.suppress(MemoryError):
            header = self._router.read_header(data[:segment])
            if header is not None and header.version is None:
                self._reset(header, segment, addr)

    def pause_reading(self) -> None:
        """Leave the socket to another worker."""
        cast(UDPTransport, self._transport).pause_reading()

    def resume_reading(self) -> None:
        """Read the socket again."""
        cast(UDPTransport, self._transport).resume_reading()

    def handshaking_ids(self) -> list[bytes]:
        """The connection ids of handshakes, those that the clients chose included."""
        return [
            cid
            for cid, protocol in self._protocols.items()
            if protocol in self._handshaking
        ]

    def resume_writing(self) -> None:
        """Continue sending: the socket accepts datagrams again."""
        for protocol in self._connections:
            self._attempt(protocol, protocol.transmit)

    def _answer(self, data: bytes, addr: NetworkAddress) -> None:
        transport = self._transport
        if data and transport is not None:
            transport.sendto(data, addr)

    def _route(
        self, run: Run, forwarded: bool = False
    ) -> QuicConnectionProtocol | None:
        """Return the connection that a run's first datagram is for, or begins."""
        data, addr, _, segment = run
        data = data[:segment]
        header = self._router.read_header(data)
        if header is None:
            return None
        protocol = self._protocols.get(header.destination_cid)
        if protocol is None:
            if self._group is not None and not forwarded:
                begins = self._verify_retry(header, addr) is not None
                done = self._group.forward(self._place, header, run, begins=begins)
                if done is not False:
                    return None
            protocol = self._route_unknown(header, data, addr)
        return protocol

    def _verify_retry(self, header: QuicHeader, addr: NetworkAddress) -> bytes | None:
        """Return the connection id before a Retry packet that the client answers;
        ``None`` unless it does."""
        if not header.is_retry_token:
            return None
        # Not the loop's clock: another worker may have made the token.
        return self._router.verify_retry(header, addr, time.time())

    def _route_unknown(
        self, header: QuicHeader, data: bytes, addr: NetworkAddress
    ) -> QuicConnectionProtocol | None:
        """Handle a packet for no connection; return the connection that it begins."""
        if header.version is None:
            self._reset(header, len(data), addr)
            return None
        # An answer must not be longer than what it answers.
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        if header.version not in self._router.versions:
            self._answer(self._router.write_version_negotiation(header), addr)
            return None
        if not header.is_initial:
            return None
        if self._draining or not self._has_room():
            why = "closing" if self._draining else "max_connections is reached"
            self._refuse(header, addr, QuicErrorCode.CONNECTION_REFUSED, why)
            return None
        retry = self._retry or self._handshaking.needs_proof(addr)
        if header.is_retry_token:
            original = self._verify_retry(header, addr)
            if original is not None:
                return self._accept(header, addr, original, header.destination_cid)
            if retry:
                # A client ignores a second Retry (RFC 9000, 17.2.5.2).
                why = "the token of its Retry packet is not good"
                self._refuse(header, addr, QuicErrorCode.INVALID_TOKEN, why)
                return None
        elif self._take_token(header, addr):
            return self._accept(header, addr, validated=True)
        if retry:
            self._answer(self._router.write_retry(header, addr, time.time()), addr)
            return None
        return self._accept(header, addr)

    def _refuse(
        self, header: QuicHeader, addr: NetworkAddress, code: QuicErrorCode, why: str
    ) -> None:
        self._answer(self._router.write_refusal(header, code), addr)
        self._log.tell(addr, f"a connection was refused: {code.name}: {why}")

    def _take_token(self, header: QuicHeader, addr: NetworkAddress) -> bool:
        """Return whether a token of an earlier connection proves the client's address.

        Any other token is ignored (RFC 9000, 8.1.3).
        """
        if not self._router.verify_token(header, addr, time.time()):
            return False
        seal = header.token[-TOKEN_SEAL:]
        if seal in self._spent_tokens:
            return False
        if len(self._spent_tokens) == MAX_SPENT_TOKENS:
            del self._spent_tokens[next(iter(self._spent_tokens))]
        self._spent_tokens[seal] = None
        return True

    def _make_room(self, addr: NetworkAddress) -> bool:
        """Make room for a client that has proved its address; return whether there
        is."""
        if not self._handshaking.is_full(addr):
            return True
        oldest = self._handshaking.oldest(addr, self._loop.time())
        if oldest is None:
            # The client will try again.
            return False
        oldest._quic.close(QuicErrorCode.CONNECTION_REFUSED, 0, TOO_LONG)
        self._handshaking.failed(oldest, oldest._quic)
        self._handshaking.discard(oldest)
        self._attempt(oldest, oldest.transmit)
        return True

    def _accept(
        self,
        header: QuicHeader,
        addr: NetworkAddress,
        original: bytes | None = None,
        retry_cid: bytes | None = None,
        validated: bool = False,
    ) -> QuicConnectionProtocol | None:
        if not self._make_room(addr):
            return None
        try:
            check_memory()
            return self._start(header, addr, original, retry_cid, validated)
        except MemoryError:
            # There may be enough memory when the client sends its Initial packet again.
            self._log.memory_wanted(addr, "a connection could not be made")
            return None
        except Exception:
            # The configuration was changed to an invalid one, or create_protocol fails.
            # The line is bounded, so that a client cannot fill the log.
            code = QuicErrorCode.INTERNAL_ERROR
            self._answer(self._router.write_refusal(header, code), addr)
            self._log.failed(addr, "a connection could not be made")
            return None

    def _start(
        self,
        header: QuicHeader,
        addr: NetworkAddress,
        original: bytes | None = None,
        retry_cid: bytes | None = None,
        validated: bool = False,
    ) -> QuicConnectionProtocol:
        quic = QuicConnection(
            configuration=with_frame_log(self._configuration, addr),
            original_destination_connection_id=original or header.destination_cid,
            retry_source_connection_id=retry_cid,
            session_ticket_fetcher=self._session_ticket_fetcher,
            session_ticket_handler=self._session_ticket_handler,
            address_validated=validated,
            handshake_timeout=self._timeouts.handshake,
            connection_ids=self._connection_ids,
        )
        protocol = cast(
            QuicConnectionProtocol,
            self._create_protocol(quic, stream_handler=self._stream_handler),
        )
        owner = _Owner(
            protocol,
            quic,
            self._router,
            self._protocols,
            self._connections,
            self._handshaking,
        )
        protocol.set_owner(owner, self._log)
        try:
            protocol.connection_made(cast(asyncio.BaseTransport, self._transport))
            owner.connection_id_issued(header.destination_cid)
            owner.connection_id_issued(quic.host_cid)
            self._connections.add(protocol)
            self._handshaking.add(protocol, addr, self._loop.time())
        except MemoryError:
            protocol.abandon()
            raise
        return protocol

    def _reset(self, header: QuicHeader, received: int, addr: NetworkAddress) -> None:
        """Answer a packet of ``received`` bytes by a stateless reset, at a bounded
        rate."""
        if self._may_reset():
            self._answer(self._router.write_stateless_reset(header, received), addr)

    def _may_reset(self) -> bool:
        now = self._loop.time()
        if now - self._resets_since >= 1:
            self._resets_since, self._resets = now, 0
        self._resets += 1
        return self._resets <= MAX_RESETS


def check_server_configuration(configuration: QuicConfiguration) -> None:
    """Check a configuration before there is a client.

    Logs a warning for certificates that are not valid now, or not for long.
    """
    trial = QuicConnection(configuration=configuration)
    trial.check()
    if not configuration.validity_logged:
        configuration.validity_logged = True
        for times in trial.certificate_times:
            warn_of_validity("a certificate of the server", *times)
