# The events' fields: the connection makes events without calling __init__.


cdef class QuicEvent:
    pass


cdef class ConnectionIdIssued(QuicEvent):
    cdef public object connection_id


cdef class ConnectionIdRetired(QuicEvent):
    cdef public object connection_id


cdef class ConnectionTerminated(QuicEvent):
    cdef public object error_code
    cdef public object frame_type
    cdef public object reason_phrase


cdef class DatagramFrameReceived(QuicEvent):
    cdef public object data


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


cdef class StreamDataReceived(QuicEvent):
    cdef public object data
    cdef public object end_stream
    cdef public object stream_id


cdef class StreamReset(QuicEvent):
    cdef public object error_code
    cdef public object stream_id
