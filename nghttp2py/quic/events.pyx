"""What happens on a QUIC connection, as values.

The names and fields are aioquic's.  Events compare by value, print themselves
and can be matched.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cython cimport dataclasses

from nghttp2py cimport cngp_quic as lib

from dataclasses import make_dataclass

__all__ = [
    "ConnectionIdIssued",
    "ConnectionIdRetired",
    "ConnectionTerminated",
    "DatagramFrameReceived",
    "HandshakeCompleted",
    "PingAcknowledged",
    "ProtocolNegotiated",
    "QuicEvent",
    "StopSendingReceived",
    "StreamDataReceived",
    "StreamReset",
]


cdef class QuicEvent:
    """Base of all events."""


cdef dict fields_of(tuple names):
    """Make the attribute that ``dataclasses.fields()`` reads."""
    return make_dataclass("Fields", names).__dataclass_fields__


cdef class BorrowedData(QuicEvent):
    """Base of the events with data, which become ``bytes`` when they are first read.

    To a program they are dataclasses like the others.
    """

    def __dealloc__(self):
        lib.ngp_quic_store_release(self.store)

    cdef int give_up(self) except -1:
        """Stop borrowing the data from the connection."""
        lib.ngp_quic_store_release(self.store)
        self.store = NULL
        self.base = NULL
        self.len = 0
        return 0

    def __reduce__(self):
        # A copy does not borrow: pointers cannot be pickled.
        return type(self), tuple([getattr(self, name) for name in self.__match_args__])

    @property
    @cython.critical_section  # several threads may read an event
    def data(self):
        """The bytes that came in."""
        if self.value is None and self.base is not NULL:
            self.value = PyBytes_FromStringAndSize(<const char *>self.base, self.len)
            self.give_up()
        return self.value

    @data.setter
    @cython.critical_section
    def data(self, data):
        self.value = data
        self.give_up()

    def __repr__(self):
        fields = ", ".join([
            f"{name}={getattr(self, name)!r}" for name in self.__match_args__
        ])
        return f"{type(self).__qualname__}({fields})"

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        for name in self.__match_args__:
            if getattr(self, name) != getattr(other, name):
                return False
        return True


@dataclasses.dataclass
cdef class ConnectionIdIssued(QuicEvent):
    """We have issued another connection id (bytes)."""

    connection_id: object


@dataclasses.dataclass
cdef class ConnectionIdRetired(QuicEvent):
    """The peer has retired a connection id of ours (bytes)."""

    connection_id: object


@dataclasses.dataclass
cdef class ConnectionTerminated(QuicEvent):
    """The connection is over: the last event.

    ``frame_type`` is that of the frame that caused it, or ``None`` if an application
    closed; ``reason_phrase`` is a string.
    """

    error_code: object
    frame_type: object
    reason_phrase: object


cdef class DatagramFrameReceived(BorrowedData):
    """A DATAGRAM frame has arrived (RFC 9221); ``data`` is bytes."""

    __match_args__ = ("data",)
    __dataclass_fields__ = fields_of(("data",))

    def __init__(self, data):
        self.data = data


@dataclasses.dataclass
cdef class HandshakeCompleted(QuicEvent):
    """The TLS handshake is complete.  ``alpn_protocol`` is a string or ``None``."""

    alpn_protocol: object
    early_data_accepted: object
    session_resumed: object


@dataclasses.dataclass
cdef class PingAcknowledged(QuicEvent):
    """The peer has acknowledged the PING frame of ``uid``."""

    uid: object


@dataclasses.dataclass
cdef class ProtocolNegotiated(QuicEvent):
    """ALPN has selected a protocol, a string, or none: ``None``."""

    alpn_protocol: object


@dataclasses.dataclass
cdef class StopSendingReceived(QuicEvent):
    """The peer has sent STOP_SENDING for a stream, which was reset in answer."""

    error_code: object
    stream_id: object


cdef class StreamDataReceived(BorrowedData):
    """The next bytes of a stream; ``end_stream`` is true with the last.

    ``early_data`` is whether they came as early data, which an attacker may replay (RFC
    8446, 8); comparisons ignore it.
    """

    __match_args__ = ("data", "end_stream", "stream_id")
    __dataclass_fields__ = fields_of(("data", "end_stream", "stream_id"))

    def __init__(self, data, end_stream, stream_id):
        self.data = data
        self.end_stream = end_stream
        self.stream_id = stream_id


@dataclasses.dataclass
cdef class StreamReset(QuicEvent):
    """The peer has reset its half of a stream."""

    error_code: object
    stream_id: object
