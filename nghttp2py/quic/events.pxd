# The events' fields, declared for the connection, which makes events without __init__.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from nghttp2py cimport cngp_quic as lib


cdef class QuicEvent:
    pass


cdef class BorrowedData(QuicEvent):
    # The bytes stay in the connection's store until the program reads ``data``.
    cdef lib.ngp_quic_store *store   # held, or NULL
    cdef const uint8_t *base         # borrowed from store
    cdef size_t len
    cdef object value                # the data once read or set, or None

    cdef int give_up(self) except -1


cdef class ConnectionIdIssued(QuicEvent):
    cdef public object connection_id


cdef class ConnectionIdRetired(QuicEvent):
    cdef public object connection_id


cdef class ConnectionTerminated(QuicEvent):
    cdef public object error_code
    cdef public object frame_type
    cdef public object reason_phrase


cdef class DatagramFrameReceived(BorrowedData):
    pass


cdef class HandshakeCompleted(QuicEvent):
    cdef public object alpn_protocol
    cdef public object early_data_accepted
    cdef public object session_resumed


cdef class PingAcknowledged(QuicEvent):
    cdef public object uid


cdef class ProtocolNegotiated(QuicEvent):
    cdef public object alpn_protocol


cdef class StopSendingReceived(QuicEvent):
    cdef public object error_code
    cdef public object stream_id


cdef class StreamDataReceived(BorrowedData):
    cdef public bint early_data
    cdef public object end_stream
    cdef public object stream_id


cdef class StreamReset(QuicEvent):
    cdef public object error_code
    cdef public object stream_id
