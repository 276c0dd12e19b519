# The events' fields, declared for modules that make events without __init__.


cdef class RequestReceived:
    cdef readonly bytes method
    cdef readonly bytes target
    cdef readonly str http_version
    cdef readonly bytes scheme
    cdef readonly bytes authority
    cdef readonly bytes protocol
    cdef readonly tuple fields
    cdef tuple _headers  # None until it is read


cdef class BodyReceived:
    cdef readonly bytes data
    cdef readonly object more


cdef class H2RequestReceived:
    cdef readonly object stream_id
    cdef readonly RequestReceived request


cdef class H2WebSocketRequest:
    cdef readonly object stream_id
    cdef readonly RequestReceived request
    cdef readonly bytes ws_path


cdef class H2ResponseReceived:
    cdef readonly object stream_id
    cdef readonly object status
    cdef readonly tuple headers


cdef class H2TrailersReceived:
    cdef readonly object stream_id
    cdef readonly tuple headers


cdef class H2BodyReceived:
    cdef readonly object stream_id
    cdef readonly BodyReceived body


cdef class H2StreamReset:
    cdef readonly object stream_id
    cdef readonly object error_code
    cdef readonly object remote
    cdef readonly object unprocessed
    cdef readonly str reason


cdef class H2StreamClosed:
    cdef readonly object stream_id
    cdef readonly object error_code
    cdef readonly object body_bytes_sent
    cdef readonly object complete


cdef class H2GoAway:
    cdef readonly object last_stream_id
    cdef readonly object error_code
    cdef readonly bytes debug_data


cdef class H2WindowUpdated:
    cdef readonly object stream_id
    cdef readonly object increment


cdef class H2BodyDrained:
    cdef readonly object stream_id


cdef class H2BodyFailed:
    cdef readonly object stream_id
    cdef readonly object exception


cdef class H2ConnectionClosed:
    cdef readonly object error_code
    cdef readonly object remote
    cdef readonly str reason
