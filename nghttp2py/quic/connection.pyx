"""One QUIC connection, without I/O.

The names and their meaning are aioquic's; docs/quic.rst lists the differences.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memset

from nghttp2py cimport cngp_quic as lib
from nghttp2py.cngp_pool cimport ngp_mem_default
from nghttp2py.link cimport LEASE_DATAGRAM, LEASE_STREAM, BufferLease, QuicLink
from nghttp2py.octets cimport copy_bytes, to_bytes
from nghttp2py.quic.addresses cimport AddressBook, to_ns
from nghttp2py.quic.credentials cimport (
    Credentials,
    asked_name,
    describe_tls,
    get_credentials,
    peer_chain,
)
from nghttp2py.quic.events cimport (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    BorrowedData,
    PingAcknowledged,
    ProtocolNegotiated,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from nghttp2py.quic.options cimport (
    describe_params,
    encode_alpn,
    set_cid,
    set_limits,
    set_server_name,
    set_versions,
    to_duration,
)
from nghttp2py.quic.routing cimport ConnectionIds

import logging
from collections import deque, namedtuple
from collections.abc import Callable
from enum import Enum
from typing import Any

from nghttp2py.link import register_link
from nghttp2py.quic.configuration import (
    SMALLEST_MAX_DATAGRAM_SIZE,
    check_configuration,
)
from nghttp2py.quic.packet import QuicErrorCode
from nghttp2py.quic.tls import issued_ticket, received_ticket
from nghttp2py.quic.trace import Trace

__all__ = [
    "SMALLEST_MAX_DATAGRAM_SIZE",
    "NetworkAddress",
    "QuicConnection",
    "QuicConnectionState",
    "QuicTokenHandler",
    "stream_is_client_initiated",
    "stream_is_unidirectional",
]


NetworkAddress = Any
QuicTokenHandler = Callable[[bytes], None]

LOGGER = logging.getLogger("quic")


class ConnectionLogger(logging.LoggerAdapter):
    """Prefixes log lines with a connection's id, as aioquic does."""

    def process(self, msg, kwargs):
        return f"[{self.extra['id']}] {msg}", kwargs


class QuicConnectionState(Enum):
    """The states of a connection, by aioquic's names."""

    FIRSTFLIGHT = 0
    CONNECTED = 1
    CLOSING = 2
    DRAINING = 3
    TERMINATED = 4


def stream_is_client_initiated(stream_id):
    """Return whether the client opens the stream (RFC 9000, 2.1)."""
    return not stream_id & 1


def stream_is_unidirectional(stream_id):
    """Return whether only the end that opens the stream sends on it (RFC 9000, 2.1)."""
    return bool(stream_id & 2)


NetworkPath = namedtuple("NetworkPath", "addr")
# What Linux can split: UDP_MAX_SEGMENTS, in less than an IP datagram.
cdef enum:
    MAX_SEGMENTS = 64
    MAX_RUN = 65000

cdef dict STATE_ERRORS = {
    lib.NGP_QUIC_ERR_RECEIVE_ONLY: (
        ValueError, "Cannot send data on peer-initiated unidirectional stream"
    ),
    lib.NGP_QUIC_ERR_SEND_ONLY: (
        ValueError, "Cannot stop receiving on a local-initiated unidirectional stream"
    ),
    lib.NGP_QUIC_ERR_UNKNOWN_STREAM: (
        ValueError, "Cannot send data on unknown peer-initiated stream"
    ),
    lib.NGP_QUIC_ERR_FINISHED_STREAM: (
        ValueError, "Cannot send data on a finished stream"
    ),
    lib.NGP_QUIC_ERR_AFTER_FIN: (
        RuntimeError, "Cannot send data on a stream after its end"
    ),
    lib.NGP_QUIC_ERR_AFTER_RESET: (
        RuntimeError, "Cannot send data on a stream that was reset"
    ),
    lib.NGP_QUIC_ERR_STREAM_AHEAD: (
        ValueError, "The stream's id is too far ahead of the last one"
    ),
    lib.NGHTTP2_ERR_INVALID_ARGUMENT: (
        ValueError, "The number is out of its range"
    ),
}


cdef int check(int rv) except -1:
    """Make the exception for an error code."""
    if rv == 0:
        return 0
    if rv == lib.NGHTTP2_ERR_NOMEM:
        raise MemoryError
    kind, text = STATE_ERRORS[rv]
    raise kind(text)


cdef uint64_t to_varint(value, str what) except? 0:
    """Convert an integer of 62 bits (RFC 9000, 16)."""
    if not 0 <= value < 1 << 62:
        raise ValueError(f"{what} is 0 to 2^62 - 1")
    return value


cdef int64_t to_stream_id(value) except -1:
    return to_varint(value, "A stream's id")


cdef uint64_t to_code(value) except? 0:
    return to_varint(value, "An error code")


cdef bytes cid_bytes(const lib.ngtcp2_cid *cid):
    return copy_bytes(cid.data, cid.datalen)


cdef inline lib.ngp_quic *handle(QuicConnection self) except NULL:
    """Return the C object of a connection."""
    if self._quic is NULL:
        raise RuntimeError("QuicConnection.__init__() was not called")
    return self._quic


cdef object terminated(const lib.ngp_quic_event *e):
    reason = copy_bytes(e.data, e.len).decode("utf8", "replace")
    return ConnectionTerminated(
        e.error_code, None if e.application else e.frame_type, reason
    )


cdef class QuicConnection:
    """One end of a QUIC connection (RFC 9000).  It does no I/O and reads no clock.

    Times, ``now`` and that of the timer, are seconds of any monotonic clock.  Numbers
    of QUIC (stream ids, error codes) are 0 to 2^62 - 1, or ``ValueError`` is raised.
    Data to send may be any bytes-like object.

    ``original_destination_connection_id`` and ``retry_source_connection_id`` are a
    server's, from the first packet of the client and from the Retry packet that
    answered it; ``address_validated`` means that the client's token is from an earlier
    connection and valid.  ``connection_ids``, a
    :class:`~nghttp2py.quic.routing.ConnectionIds`, makes a server's connection ids,
    which otherwise are random; their length must be ``connection_id_length``.
    ``handshake_timeout`` bounds the handshake, in seconds; ``None`` leaves it to
    ``idle_timeout``.  ``session_ticket_handler`` is called with
    each :class:`~nghttp2py.quic.tls.SessionTicket` that a client receives, and
    ``token_handler`` with each token for later connections.  A server issues tickets if
    it has a ``session_ticket_handler``, which is called with each, or if
    ``configuration.session_tickets``.  It accepts tickets if it issues them, or has a
    ``session_ticket_fetcher``, which is called with each ticket that a client presents:
    if it returns ``None``, there is a full handshake.

    Raises ``ValueError`` for an argument that does not fit the role, and for a
    configuration that cannot be used.
    """

    cdef lib.ngp_quic *_quic  # owned
    cdef object __weakref__
    cdef object _configuration
    cdef Credentials _credentials
    cdef object _session_ticket_handler
    cdef object _session_ticket_fetcher
    cdef object _token_handler
    cdef object _tokens
    cdef object _secrets_log_file
    cdef readonly object _quic_logger
    cdef object _alpn
    cdef AddressBook _addresses
    cdef object _server_name
    # When connect() was called, at a client.
    cdef double _began
    cdef object _terminated
    cdef object _log
    cdef bint _traced
    cdef object _trace

    # Cython would put a wrong signature into the class's docstring.
    @cython.embedsignature(False)
    def __init__(
        self,
        *,
        configuration,
        original_destination_connection_id=None,
        retry_source_connection_id=None,
        session_ticket_fetcher=None,
        session_ticket_handler=None,
        token_handler=None,
        address_validated=False,
        handshake_timeout=None,
        connection_ids=None,
    ):
        cdef:
            lib.ngp_quic_options options
            const char *reason = NULL
            bint client
            bytes alpn = b""
            bytes token = b""
            bytes ticket = b""
            bytes secret
            int rv
            list keep = []

        if self._quic is not NULL:
            raise RuntimeError("QuicConnection.__init__() was called before")
        check_configuration(configuration)
        client = configuration.is_client
        if client:
            if original_destination_connection_id is not None:
                raise ValueError(
                    "Cannot set original_destination_connection_id for a client"
                )
            if retry_source_connection_id is not None:
                raise ValueError("Cannot set retry_source_connection_id for a client")
            if address_validated:
                raise ValueError("Cannot set address_validated for a client")
            if connection_ids is not None:
                raise ValueError("Cannot set connection_ids for a client")
        else:
            if token_handler is not None:
                raise ValueError("Cannot set `token_handler` for a server")
            if configuration.token:
                raise ValueError("Cannot set `configuration.token` for a server")
            if configuration.certificate is None:
                raise ValueError("SSL certificate is required for a server")
            if configuration.private_key is None:
                raise ValueError("SSL private key is required for a server")
        memset(&options, 0, sizeof(options))
        self._configuration = configuration
        self._credentials = get_credentials(configuration)
        self._session_ticket_handler = session_ticket_handler
        self._session_ticket_fetcher = session_ticket_fetcher
        self._token_handler = token_handler
        self._tokens = deque(maxlen=8)
        self._secrets_log_file = configuration.secrets_log_file
        self._addresses = AddressBook(not client)
        options.is_client = client
        options.key_log = self._secrets_log_file is not None
        options.log_packets = configuration.quic_logger is not None
        options.tls_config = self._credentials.config
        options.handshake_timeout = (
            0 if handshake_timeout is None else to_duration(
                handshake_timeout, "handshake_timeout")
        )
        set_limits(&options, configuration)
        set_versions(&options, configuration)
        if connection_ids is not None:
            options.cid_layout = &(<ConnectionIds?>connection_ids)._layout
        if configuration.alpn_protocols:
            alpn = encode_alpn(configuration.alpn_protocols)
        options.tls.alpn = alpn
        options.tls.alpn_len = len(alpn)
        options.tls.send_tickets = (
            session_ticket_handler is not None or configuration.session_tickets
        )
        options.tls.take_tickets = (
            options.tls.send_tickets or session_ticket_fetcher is not None
        )
        options.tls.early_data = bool(configuration.early_data)
        options.ask_tickets = session_ticket_fetcher is not None
        if client:
            token = to_bytes(configuration.token)
            options.token = token
            options.token_len = len(token)
            self._server_name = configuration.server_name
            set_server_name(&options, configuration, keep)
            ticket = self._usable_ticket()
            options.ticket = ticket
            options.ticket_len = len(ticket)
        else:
            if original_destination_connection_id is not None:
                set_cid(
                    &options.original_dcid, original_destination_connection_id,
                    "original_destination_connection_id",
                )
            if retry_source_connection_id is not None:
                set_cid(
                    &options.retry_scid, retry_source_connection_id,
                    "retry_source_connection_id",
                )
            options.address_validated = bool(address_validated)
            secret = configuration.stateless_reset_secret
            if secret is not None:
                options.reset_secret = secret
                options.reset_secret_len = len(secret)
        rv = lib.ngp_quic_new(
            &self._quic, &options, ngp_mem_default(), &reason
        )
        if rv == lib.NGHTTP2_ERR_NOMEM:
            raise MemoryError
        if rv != 0:
            raise ValueError(reason.decode())
        if configuration.keep_alive is not None:
            self._keep_alive(configuration.keep_alive, "keep_alive")

    def __dealloc__(self):
        if self._quic is not NULL:
            lib.ngp_quic_abandon(self._quic)
            self._release()
            lib.ngp_quic_del(self._quic)

    def check(self):
        """Check the certificates and options that only TLS can check."""
        cdef int rv = lib.ngp_quic_try_tls(handle(self))

        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise ValueError("server_name or alpn_protocols cannot be used")
        check(rv)

    @property
    def certificate_times(self):
        """The validity of each of our certificates: from and to, in seconds."""
        cdef int64_t start = 0
        cdef int64_t end = 0
        cdef size_t i = 0

        times = []
        while lib.ngp_tls_config_validity(self._credentials.config, i, &start, &end):
            times.append((start, end))
            i += 1
        return times

    cdef bytes _usable_ticket(self):
        ticket = self._configuration.session_ticket
        if (
            ticket is None
            or not ticket.is_valid
            or ticket.server_name != (self._configuration.server_name or "")
        ):
            return b""
        return to_bytes(ticket.ticket)

    # ---- Properties ----

    @property
    def configuration(self):
        """The :class:`~nghttp2py.quic.configuration.QuicConfiguration`."""
        return self._configuration

    @property
    def original_destination_connection_id(self):
        """The destination connection id of the client's first packet, as bytes."""
        return cid_bytes(lib.ngp_quic_original_dcid(handle(self)))

    @property
    def host_cid(self):
        """The first connection id of this end, as bytes."""
        return cid_bytes(lib.ngp_quic_host_cid(handle(self)))

    @property
    def version(self):
        """The version of QUIC in use, a number, or ``None`` before there is one."""
        return lib.ngp_quic_version(handle(self)) or None

    @property
    def handshake_complete(self):
        """Whether the TLS handshake is complete."""
        return lib.ngp_quic_handshake_completed(handle(self))

    @property
    def closed(self):
        """Whether the connection is closed or closing."""
        return lib.ngp_quic_get_state(handle(self)) > lib.NGP_QUIC_STATE_ACTIVE

    @property
    def close_event(self):
        """The :class:`~nghttp2py.quic.events.ConnectionTerminated` that is or will be
        the last event, as soon as the connection is closing; ``None`` before."""
        cdef lib.ngp_quic_event e

        if self._terminated is None and lib.ngp_quic_get_end(handle(self), &e):
            return terminated(&e)
        return self._terminated

    @property
    def closed_by_peer(self):
        """Whether the peer has ended the connection, or no longer answers."""
        cdef lib.ngp_quic_event e

        return bool(lib.ngp_quic_get_end(handle(self), &e) and e.value)

    @property
    def peer_certificates(self):
        """The peer's certificates as DER, its own first: a list of bytes."""
        return peer_chain(lib.ngp_quic_tls(handle(self)))

    @property
    def tls(self):
        """The result of the TLS handshake: an object with ``alpn_negotiated``,
        ``early_data_accepted`` and ``session_resumed``.

        It also has ``cipher_suite``, a number (RFC 8446, B.4); ``server_name``, the
        name for which a client has asked (RFC 6066, 3); and ``own_certificate``, as
        DER, the one that was chosen by that name.  Each is ``None`` if there is none.
        """
        return describe_tls(
            lib.ngp_quic_tls(handle(self)), self._alpn,
            lib.ngp_quic_handshake_completed(handle(self)),
        )

    @property
    def stats(self):
        """Return counters and the state of congestion control, a dictionary.

        It has ``packets_sent``, ``packets_received``, ``bytes_sent``,
        ``bytes_received``, ``datagrams_dropped`` (of DATAGRAM frames),
        ``smoothed_rtt`` in seconds, ``congestion_window`` and ``bytes_in_flight``.
        """
        cdef lib.ngp_quic_stats stats

        lib.ngp_quic_get_stats(handle(self), &stats)
        return {
            "packets_sent": stats.packets_sent,
            "packets_received": stats.packets_received,
            "bytes_sent": stats.bytes_sent,
            "bytes_received": stats.bytes_received,
            "datagrams_dropped": stats.datagrams_dropped,
            "smoothed_rtt": stats.smoothed_rtt / 1e9,
            "congestion_window": stats.cwnd,
            "bytes_in_flight": stats.bytes_in_flight,
        }

    # Private names of aioquic that its own layers, and programs, read.

    @property
    def _is_client(self):
        return bool(self._configuration.is_client)

    @property
    def _handshake_complete(self):
        return self.handshake_complete

    @property
    def _close_event(self):
        return self.close_event

    @property
    def _logger(self):
        """The logger that aioquic's programs use."""
        if self._log is None:
            self._log = ConnectionLogger(
                LOGGER, {"id": self.original_destination_connection_id.hex()}
            )
        return self._log

    @property
    def _remote_max_datagram_frame_size(self):
        return lib.ngp_quic_remote_max_datagram(handle(self)) or None

    @property
    def _network_paths(self):
        addr = self.get_peer_address()
        return [] if addr is None else [NetworkPath(addr)]

    def stream_can_send(self, stream_id):
        """Return whether more can be sent on our half of a stream."""
        return lib.ngp_quic_can_send(handle(self), to_stream_id(stream_id))

    def get_peer_address(self):
        """The peer's address to which we send, or ``None`` before there is one."""
        cdef lib.ngp_quic_addr packed

        if not lib.ngp_quic_peer_addr(handle(self), &packed):
            return None
        return self._addresses.find(&packed)

    # ---- Datagrams and timers ----

    def connect(self, addr, now):
        """Start the handshake with the server at ``addr``.

        It raises ``RuntimeError`` at a server, and if it is called again.  Raises
        ``ValueError`` for a ``server_name`` or ``alpn_protocols`` that TLS refuses.
        """
        cdef uint64_t ns = to_ns(now)
        cdef int rv

        handle(self)
        self._addresses.take(addr)
        self._began = now
        rv = lib.ngp_quic_connect(handle(self), &self._addresses.last, ns)
        if rv == lib.NGP_QUIC_ERR_STATE:
            raise RuntimeError(
                "connect() can only be called for clients and a single time"
            )
        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise ValueError("server_name or alpn_protocols cannot be used")
        check(rv)
        self._start_trace()

    def receive_datagram(self, data, addr, now, *, ecn=0):
        """Handle a datagram that came from ``addr`` at ``now``.

        ``ecn`` is the two bits of its IP header (RFC 3168).  An invalid datagram raises
        nothing.
        """
        cdef Py_buffer view
        cdef uint64_t ns = to_ns(now)
        cdef uint8_t bits = ecn & 3

        handle(self)
        self._addresses.take(addr)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self._receive_bytes(<const uint8_t *>view.buf, view.len, ns, bits)
        finally:
            PyBuffer_Release(&view)
        self._after()

    def receive_run(self, data, addr, now, *, segment, ecn=0):
        """Handle datagrams that came from ``addr``, concatenated in ``data`` as the
        kernel does it (GRO).

        All have ``segment`` bytes but the last, which may have fewer.  Consecutive
        bytes of a stream in them are one event.
        """
        cdef:
            Py_buffer view
            Py_ssize_t size = segment
            Py_ssize_t pos = 0
            uint64_t ns = to_ns(now)
            uint8_t bits = ecn & 3

        if size <= 0:
            raise ValueError("segment must be positive")
        handle(self)
        self._addresses.take(addr)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while pos < view.len:
                self._receive_bytes(
                    <const uint8_t *>view.buf + pos, min(size, view.len - pos), ns,
                    bits)
                pos += size
        finally:
            PyBuffer_Release(&view)
        self._after()

    cdef int _receive_bytes(
        self, const uint8_t *data, size_t n, uint64_t ns, uint8_t ecn
    ) except -1:
        cdef int rv = lib.ngp_quic_recv(
            handle(self), data, n, &self._addresses.last, ecn, ns)

        if self._configuration.quic_logger is not None:
            self._start_trace()
            if self._trace is not None:
                self._trace.datagrams(False, [n])
                self._trace.unprotected(copy_bytes(data, n))
        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise ValueError("server_name or alpn_protocols cannot be used")
        return check(rv)

    def datagrams_to_send(self, now, *, ecn=False):
        """Return what to send at ``now``: a list of ``(data, addr)``.

        With ``ecn`` it is ``(data, addr, ecn)``: the two bits for the IP header
        (RFC 3168), which help congestion control if they reach the peer.
        """
        cdef:
            const lib.ngp_quic_packet *packets
            uint64_t ns = to_ns(now)
            size_t n = 0
            size_t i
            int rv = lib.ngp_quic_send(handle(self), ns)
            bint marked = ecn
            list datagrams = []

        self._after()
        check(rv)
        packets = lib.ngp_quic_packets(handle(self), &n)
        for i in range(n):
            data = copy_bytes(packets[i].data, packets[i].len)
            addr = self._addresses.find(&packets[i].addr)
            datagrams.append(
                (data, addr, packets[i].ecn) if marked else (data, addr)
            )
        if self._trace is not None and n:
            self._trace.datagrams(True, [packets[i].len for i in range(n)])
        return datagrams

    def runs_to_send(self, now):
        """Return what to send at ``now`` in runs, a list of ``(data, addr, ecn,
        segment)``; call it until the list is empty.

        ``data`` are concatenated datagrams, which the kernel splits (GSO): all have
        ``segment`` bytes but the last, which may have fewer.  ``ecn`` is as for
        :meth:`datagrams_to_send`.
        """
        cdef:
            const lib.ngp_quic_packet *packets
            const lib.ngp_quic_packet *head
            uint64_t ns = to_ns(now)
            size_t n = 0
            size_t first = 0
            size_t end
            size_t run
            int rv = lib.ngp_quic_send_burst(handle(self), MAX_RUN, ns)
            list runs = []

        self._after()
        check(rv)
        packets = lib.ngp_quic_packets(handle(self), &n)
        while first < n:
            head = &packets[first]
            run = head.len
            end = first + 1
            # Packets are contiguous.
            while (
                end < n
                and end - first < MAX_SEGMENTS
                and packets[end - 1].len == head.len
                and packets[end].len <= head.len
                and packets[end].ecn == head.ecn
                and memcmp(
                    &packets[end].addr, &head.addr, sizeof(head.addr)) == 0
            ):
                run += packets[end].len
                end += 1
            runs.append((
                copy_bytes(head.data, run), self._addresses.find(&head.addr), head.ecn,
                head.len,
            ))
            first = end
        if self._trace is not None and n:
            self._trace.datagrams(True, [packets[i].len for i in range(n)])
        return runs

    def get_timer(self):
        """Return when :meth:`handle_timer` is to be called, or ``None``."""
        cdef uint64_t ns = lib.ngp_quic_get_timer(handle(self))

        if ns == UINT64_MAX:
            return None
        if ns == 0:
            return self._began
        # One microsecond is added, so that rounding does not make it too early.
        return (ns + 1000) / 1e9

    def handle_timer(self, now):
        """Do what is due at ``now``."""
        cdef int rv = lib.ngp_quic_handle_timer(handle(self), to_ns(now))

        self._after()
        check(rv)

    cdef int _release(self) except -1:
        """Release the bytes that C no longer needs."""
        cdef void *owner = lib.ngp_quic_take_owner(handle(self))

        while owner is not NULL:
            Py_DECREF(<object>owner)
            owner = lib.ngp_quic_take_owner(handle(self))
        return 0

    cdef int _after(self) except -1:
        """Finish a call of C that has read or written packets."""
        cdef lib.ngp_quic_event event
        cdef list presented = None

        self._release()
        while lib.ngp_quic_next_report(handle(self), &event):
            data = copy_bytes(event.data, event.len)
            if event.type >= lib.NGP_QUIC_EVENT_PACKET_SENT:
                if self._trace is not None:
                    sent = event.type == lib.NGP_QUIC_EVENT_PACKET_SENT
                    self._trace.packet(sent, event.value, data)
            elif event.type == lib.NGP_QUIC_EVENT_TICKET_PRESENTED:
                presented = presented or []
                presented.append(data)
            else:
                self._take_note(event.type, data)
        if presented is not None:
            self._answer(presented)
        if self._trace is not None:
            self._trace_metrics()
        return 0

    cdef int _answer(self, list presented) except -1:
        """Ask the fetcher for the tickets that a client presents; continue the
        handshake."""
        cdef bint allowed = False

        try:
            # TLS may accept any valid one: the fetcher must want them all.
            allowed = all(self._fetches(ticket) for ticket in presented)
        finally:
            check(lib.ngp_quic_take_tickets(handle(self), allowed))
        return self._after()

    def _fetches(self, bytes label):
        ticket = self._session_ticket_fetcher(label)
        return ticket is not None and ticket.is_valid

    cdef int _take_note(self, int kind, bytes data) except -1:
        if kind == lib.NGP_QUIC_EVENT_KEY_LOG:
            self._secrets_log_file.write(data.decode())
            self._secrets_log_file.flush()
        elif kind == lib.NGP_QUIC_EVENT_NEW_TOKEN:
            # RFC 9000, 19.7: the receiver discards tokens that were sent again.
            if self._token_handler is not None and data not in self._tokens:
                self._tokens.append(data)
                self._token_handler(data)
        elif self._session_ticket_handler is None:
            pass
        elif not self._is_client:
            self._session_ticket_handler(self._issued_ticket(data))
        else:
            self._session_ticket_handler(
                received_ticket(data, server_name=self._server_name or ""))
        return 0

    cdef object _issued_ticket(self, bytes message):
        cdef lib.ngp_tls *tls = lib.ngp_quic_tls(handle(self))

        return issued_ticket(
            message,
            server_name=asked_name(tls),
            cipher_suite=lib.ngp_tls_cipher_suite(tls),
        )

    # ---- Events ----

    def next_event(self):
        """Return the next event, or ``None``.

        Taking the bytes of a stream lets the peer send as many more.
        """
        cdef:
            lib.ngp_quic_event e
            StreamDataReceived data
            DatagramFrameReceived datagram

        if not lib.ngp_quic_next_event(handle(self), &e):
            return None
        if e.type == lib.NGP_QUIC_EVENT_STREAM_DATA:
            data = StreamDataReceived.__new__(StreamDataReceived)
            data.end_stream = <bint>e.end_stream
            data.stream_id = e.stream_id
            data.early_data = e.early
            self._lend_data(data, &e)
            return data
        if e.type == lib.NGP_QUIC_EVENT_DATAGRAM:
            datagram = DatagramFrameReceived.__new__(DatagramFrameReceived)
            self._lend_data(datagram, &e)
            return datagram
        return self._new_event(&e)

    cdef int _lend_data(
        self, BorrowedData event, const lib.ngp_quic_event *e
    ) except -1:
        if e.len:
            event.store = lib.ngp_quic_lend(handle(self), e.len)
        if event.store is NULL:
            event.value = copy_bytes(e.data, e.len)
        else:
            event.base = e.data
            event.len = e.len
        return 0

    cdef object _new_event(self, const lib.ngp_quic_event *e):
        cdef int kind = e.type

        if kind == lib.NGP_QUIC_EVENT_STREAM_RESET:
            return StreamReset(e.error_code, e.stream_id)
        if kind == lib.NGP_QUIC_EVENT_STOP_SENDING:
            return StopSendingReceived(e.error_code, e.stream_id)
        if kind == lib.NGP_QUIC_EVENT_CID_ISSUED:
            return ConnectionIdIssued(copy_bytes(e.data, e.len))
        if kind == lib.NGP_QUIC_EVENT_CID_RETIRED:
            return ConnectionIdRetired(copy_bytes(e.data, e.len))
        if kind == lib.NGP_QUIC_EVENT_PING_ACKED:
            return PingAcknowledged(e.value)
        if kind == lib.NGP_QUIC_EVENT_PROTOCOL_NEGOTIATED:
            if e.len:
                self._alpn = copy_bytes(e.data, e.len).decode("utf8", "replace")
            return ProtocolNegotiated(self._alpn)
        if kind == lib.NGP_QUIC_EVENT_HANDSHAKE_COMPLETED:
            if self._trace is not None:
                self._trace_parameters(True)
            return HandshakeCompleted(
                self._alpn, bool(e.early_data_accepted), bool(e.session_resumed)
            )
        self._terminated = terminated(e)
        self._end_trace(self._terminated)
        return self._terminated

    # ---- The trace ----

    cdef int _start_trace(self) except -1:
        logger = self._configuration.quic_logger
        if (
            logger is None
            or self._traced
            or lib.ngp_quic_get_state(handle(self)) == lib.NGP_QUIC_STATE_NEW
        ):
            return 0
        self._traced = True
        self._quic_logger = logger.start_trace(
            is_client=self._is_client,
            odcid=self.original_destination_connection_id,
        )
        self._trace = Trace(self._quic_logger, is_client=self._is_client)
        if self._is_client:
            self._trace.start(
                self.version,
                list(self._configuration.supported_versions),
                self._configuration.alpn_protocols,
            )
        self._trace_parameters(False)
        return 0

    cdef int _trace_parameters(self, bint remote) except -1:
        cdef const lib.ngtcp2_transport_params *params = lib.ngp_quic_params(
            handle(self), remote)

        if params is not NULL:
            self._trace.parameters(not remote, describe_params(params))
        return 0

    cdef int _trace_metrics(self) except -1:
        cdef lib.ngp_quic_stats stats

        lib.ngp_quic_get_stats(handle(self), &stats)
        self._trace.metrics(
            cwnd=stats.cwnd,
            bytes_in_flight=stats.bytes_in_flight,
            latest_rtt=stats.latest_rtt / 1e6,
            min_rtt=stats.min_rtt / 1e6,
            smoothed_rtt=stats.smoothed_rtt / 1e6,
            rtt_variance=stats.rtt_variance / 1e6,
        )
        return 0

    cdef int _end_trace(self, event) except -1:
        if self._trace is not None:
            self._trace.end(event.error_code, event.reason_phrase)
            self._configuration.quic_logger.end_trace(self._quic_logger)
            self._quic_logger = self._trace = None
        return 0

    # ---- Calls ----

    def close(
        self, error_code=QuicErrorCode.NO_ERROR, frame_type=None,
        str reason_phrase not None="",
    ):
        """Close the connection; the first call counts.

        Without ``frame_type`` it is a close by the application (RFC 9000, 19.19).  A
        reason of more than 256 bytes is cut.
        """
        cdef:
            uint64_t code = to_code(error_code)
            uint64_t frame = (
                0 if frame_type is None else to_varint(frame_type, "A frame type")
            )
            bytes reason = reason_phrase.encode("utf8", "replace")

        check(lib.ngp_quic_close(
            handle(self), code, frame_type is None, frame, reason, len(reason)))

    def abandon(self):
        """End the connection at once and free what it holds, without notice to the peer
        and without an event.  This is for want of memory."""
        lib.ngp_quic_abandon(handle(self))
        self._release()
        if self._terminated is None:
            self._terminated = ConnectionTerminated(
                QuicErrorCode.INTERNAL_ERROR, 0, "abandoned"
            )

    def change_connection_id(self):
        """Use another connection id of the peer (RFC 9000, 5.1.2).

        A no-op at a server, and if the peer has issued no other or forbids clients to
        migrate.
        """
        lib.ngp_quic_change_cid(handle(self))

    def set_keep_alive(self, seconds):
        """Send a PING whenever nothing was sent for ``seconds``; ``None`` means never.

        The connection then does not idle out as long as the peer answers.  The interval
        is at most a third of the idle timeout (RFC 9000, 10.1.2).  It begins when the
        handshake is complete.  Raises ``TypeError`` unless ``seconds`` is a number, and
        ``ValueError`` unless it is positive.
        """
        self._keep_alive(seconds, "seconds")

    cdef int _keep_alive(self, seconds, str name) except -1:
        cdef uint64_t interval = 0

        if seconds is not None:
            interval = to_duration(seconds, name)
            if interval == 0:
                raise ValueError(f"{name} must be positive, not {seconds!r}")
        lib.ngp_quic_set_keep_alive(handle(self), interval)
        return 0

    def datagram_refused(self, size_t length):
        """Report that the system has refused to send a datagram of ``length`` bytes,
        because the path does not carry it (EMSGSIZE).

        A probe of path MTU discovery counts as lost.  After any other datagram,
        datagrams have at most 1,200 bytes, which every path of QUIC carries (RFC 9000,
        14).
        """
        lib.ngp_quic_refused(handle(self), length)

    def request_key_update(self):
        """Update the keys, as soon as the handshake is confirmed (RFC 9001, 6)."""
        lib.ngp_quic_update_key(handle(self))

    def send_new_token(self, token):
        """Send a client a token for its later connections (RFC 9000, 8.1.3).

        The server has to recognise it later.  Raises ``ValueError`` unless it has 1 to
        1024 bytes, ``RuntimeError`` at a client, and before the client has sent
        anything.
        """
        cdef bytes data = to_bytes(token)
        cdef int rv = lib.ngp_quic_send_token(
            handle(self), <const uint8_t *>PyBytes_AS_STRING(data), len(data))

        if rv == lib.NGP_QUIC_ERR_STATE:
            raise RuntimeError("Only a server can send a token, to its client")
        if rv == lib.NGHTTP2_ERR_INVALID_ARGUMENT:
            raise ValueError("A token has 1 to 1024 bytes")
        check(rv)

    def get_next_available_stream_id(self, is_unidirectional=False):
        """Return the id of our next stream; sending on the stream opens it."""
        return lib.ngp_quic_next_stream_id(handle(self), bool(is_unidirectional))

    def streams_left(self, is_unidirectional=False):
        """Return how many more of our streams the peer's limit allows now (RFC 9000,
        4.6).

        Streams that wait for it are counted as open; before the handshake it is 0.
        """
        return lib.ngp_quic_streams_left(handle(self), bool(is_unidirectional))

    def send_stream_data(self, stream_id, data, end_stream=False):
        """Send bytes on a stream; with ``end_stream``, end it.

        ``bytes`` are not copied.  Raises ``ValueError`` for a stream on which we
        cannot send, or that is over, and ``RuntimeError`` after its end or reset.
        """
        send_framed(self, to_stream_id(stream_id), NULL, 0, to_bytes(data), end_stream)

    def queued_data(self, stream_id=None):
        """Return how many bytes are queued or not acknowledged, on one stream or
        on all."""
        return lib.ngp_quic_queued(
            handle(self), -1 if stream_id is None else to_stream_id(stream_id))

    def unsent_data(self, stream_id):
        """Return how many of the bytes queued on a stream were not sent."""
        return lib.ngp_quic_unsent(handle(self), to_stream_id(stream_id))

    def send_credit(self, stream_id=None):
        """Return how many more bytes the peer's flow control lets us send (RFC 9000,
        4.1).

        It is the credit of one stream, or that of the connection, which all streams
        share.  A stream beyond the peer's limit of streams has none.
        """
        return lib.ngp_quic_send_credit(
            handle(self), -1 if stream_id is None else to_stream_id(stream_id))

    def stream_settled(self, stream_id):
        """Return whether our half of a stream needs no more waiting after its end:
        the peer has acknowledged all of it, or the stream was reset, or is over."""
        return lib.ngp_quic_stream_settled(handle(self), to_stream_id(stream_id))

    def unsettled_streams(self):
        """Return the number of streams whose end is queued and not yet acknowledged
        with all before it."""
        return lib.ngp_quic_unsettled(handle(self))

    def stream_early_data(self, stream_id):
        """Return whether bytes of a stream came as early data, which an attacker may
        replay (RFC 8446, 8; RFC 8470)."""
        return lib.ngp_quic_stream_early(handle(self), to_stream_id(stream_id))

    def pause_reading(self, stream_id):
        """Return no credit for a stream until :meth:`resume_reading`.

        Until then the peer may send what it has credit for, ``max_stream_data``.  A
        no-op on a stream that is over.
        """
        lib.ngp_quic_hold_credit(handle(self), to_stream_id(stream_id), True)

    def resume_reading(self, stream_id):
        """Give the peer the credit that :meth:`pause_reading` has withheld."""
        lib.ngp_quic_hold_credit(handle(self), to_stream_id(stream_id), False)

    def reset_stream(self, stream_id, error_code):
        """Reset our half of a stream (RFC 9000, 19.4).

        A no-op on a stream that is over.  Raises ``ValueError`` for a stream on which
        we cannot send.
        """
        check(lib.ngp_quic_reset_stream(
            handle(self), to_stream_id(stream_id), to_code(error_code)))

    def stop_stream(self, stream_id, error_code):
        """Ask the peer to stop sending on a stream (RFC 9000, 19.5).

        Raises ``ValueError`` for a stream on which the peer cannot send, or that it has
        not opened.
        """
        cdef int rv = lib.ngp_quic_stop_stream(
            handle(self), to_stream_id(stream_id), to_code(error_code))

        if rv == lib.NGP_QUIC_ERR_UNKNOWN_STREAM:
            raise ValueError("Cannot stop receiving on an unknown stream")
        check(rv)

    def set_stream_priority(self, stream_id, urgency=3, incremental=False):
        """Set a stream's priority: ``urgency`` 0 goes before 7 (RFC 9218).

        Streams of the same urgency share the connection if they are ``incremental``;
        otherwise they are served one after the other.  Raises ``ValueError`` for
        another urgency, and for a stream on which we cannot send.
        """
        if not 0 <= urgency <= 7:
            raise ValueError("An urgency is 0 to 7")
        check(lib.ngp_quic_set_priority(
            handle(self), to_stream_id(stream_id), urgency, bool(incremental)))

    def set_stream_critical(self, stream_id):
        """Serve a stream before all others, whatever their priorities are.

        This is for the critical streams of an application's protocol, such as the
        control stream of HTTP/3 (RFC 9114, 6.2.1).  Raises ``ValueError`` for a stream
        on which we cannot send.
        """
        check(lib.ngp_quic_set_critical(handle(self), to_stream_id(stream_id)))

    def send_datagram_frame(self, data):
        """Send bytes in a DATAGRAM frame (RFC 9221).

        They are dropped if the peer or the path does not carry that many, or if more
        than ``max_datagram_queue`` bytes would be queued.
        """
        cdef Py_buffer view
        cdef int rv

        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            rv = lib.ngp_quic_send_datagram(
                handle(self), <const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        check(rv)

    def send_ping(self, uid):
        """Send a PING frame (RFC 9000, 19.2); ``uid`` comes back in an event.

        Raises ``ValueError`` unless it is 0 to 2^64 - 1.
        """
        if not 0 <= uid < 1 << 64:
            raise ValueError("A uid is 0 to 2^64 - 1")
        check(lib.ngp_quic_ping(handle(self), uid))


# ---- The link to HTTP/3 ----


cdef int send_framed(
    QuicConnection quic, int64_t stream_id, const uint8_t *head, size_t head_len,
    bytes data, bint end_stream,
) except -1:
    cdef int held = 0
    cdef int rv

    if data is None:
        return check(lib.ngp_quic_send_framed(
            handle(quic), stream_id, head, head_len, NULL, 0, NULL, end_stream,
            &held))
    rv = lib.ngp_quic_send_framed(
        handle(quic), stream_id, head, head_len,
        <const uint8_t *>PyBytes_AS_STRING(data), len(data), <void *>data,
        end_stream, &held)
    if held:
        # C holds this reference until _release() drops it.
        Py_INCREF(data)
    return check(rv)


cdef class DirectLink(QuicLink):
    """The link to a ``QuicConnection``, without Python objects or calls."""

    cdef QuicConnection _connection

    def __cinit__(self, QuicConnection connection not None):
        self._connection = connection

    cdef bint lease(self, event, BufferLease *lease) except -1:
        cdef StreamDataReceived data
        cdef BorrowedData lent

        if type(event) is StreamDataReceived:
            data = <StreamDataReceived>event
            lease.kind = LEASE_STREAM
            lease.stream_id = data.stream_id
            lease.end_stream = data.end_stream
        elif type(event) is DatagramFrameReceived:
            lease.kind = LEASE_DATAGRAM
        else:
            return False
        lent = <BorrowedData>event
        with cython.critical_section(lent):
            if lent.store is NULL:
                return False
            lease.data = lent.base
            lease.len = lent.len
            # Reading the event's data meanwhile does not end the lease.
            lease.held = lib.ngp_quic_store_hold(lent.store)
        return True

    cdef void release(self, BufferLease *lease) noexcept:
        lib.ngp_quic_store_release(<lib.ngp_quic_store *>lease.held)

    cdef int send(
        self, int64_t stream_id, const uint8_t *head, size_t head_len, bytes data,
        bint end_stream,
    ) except -1:
        return send_framed(
            self._connection, stream_id, head, head_len, data, end_stream)

    cdef int set_critical(self, int64_t stream_id) except -1:
        return check(lib.ngp_quic_set_critical(handle(self._connection), stream_id))

    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1:
        return check(lib.ngp_quic_send_framed_datagram(
            handle(self._connection), head, head_len,
            <const uint8_t *>PyBytes_AS_STRING(data), len(data)))


register_link(QuicConnection, DirectLink)
