# The events' fields, declared for connection.pyx, which makes events without __init__.


cdef class H3Event:
    pass


cdef class DataReceived(H3Event):
    cdef public bytes data
    cdef public object stream_id
    cdef public object stream_ended
    cdef public object push_id


cdef class DatagramReceived(H3Event):
    cdef public bytes data
    cdef public object stream_id


cdef class HeadersReceived(H3Event):
    cdef public list headers
    cdef public object stream_id
    cdef public object stream_ended
    cdef public object push_id


cdef class PushPromiseReceived(H3Event):
    cdef public list headers
    cdef public object push_id
    cdef public object stream_id


cdef class WebTransportStreamDataReceived(H3Event):
    cdef public bytes data
    cdef public object stream_id
    cdef public object stream_ended
    cdef public object session_id


cdef class SettingsReceived(H3Event):
    cdef public dict settings


cdef class GoAwayReceived(H3Event):
    cdef public object last_id


cdef class MaxPushIdReceived(H3Event):
    cdef public object max_push_id


cdef class PushCancelled(H3Event):
    cdef public object push_id


cdef class PriorityUpdated(H3Event):
    cdef public bytes priority
    cdef public object stream_id
    cdef public object push_id


cdef class OriginReceived(H3Event):
    cdef public list origins


cdef class StreamReset(H3Event):
    cdef public object error_code
    cdef public object stream_id
    cdef public object session_id


cdef class StopSendingReceived(H3Event):
    cdef public object error_code
    cdef public object stream_id
    cdef public object session_id


cdef class StreamAborted(H3Event):
    cdef public object error_code
    cdef public object stream_id
    cdef public object reason
    cdef public object push_id


cdef class CapsuleReceived(H3Event):
    cdef public object capsule_type
    cdef public bytes data
    cdef public object stream_id


cdef class WebTransportSessionDrained(H3Event):
    cdef public object session_id


cdef class WebTransportSessionClosed(H3Event):
    cdef public object session_id
    cdef public object error_code
    cdef public object reason
