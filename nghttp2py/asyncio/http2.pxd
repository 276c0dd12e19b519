from nghttp2py.exchange cimport Exchange, HTTPConnection
from nghttp2py.h2.connection cimport H2Connection
from nghttp2py.h2.events cimport H2StreamClosed, H2StreamReset, RequestReceived


cdef class HTTP2Exchanges(HTTPConnection):
    cdef readonly H2Connection connection
    cdef readonly dict exchanges     # stream identifier -> Exchange
    cdef readonly set blocked        # streams that room() had too little for
    cdef public object alt_svc       # bytes of an alt-svc field for each response
    cdef object _others              # called with the events of no exchange
    cdef dict _extra                 # what get_extra_info() knows after the loss
    cdef dict _failures              # of streams that were reset and not closed yet
    cdef object _end                 # the H2ConnectionClosed
    cdef double _now                 # when dispatch() began
    cdef bint _dispatching           # what is queued now is written after it
    cdef int _logs                   # whether there is an access log; -1: not asked yet
    cdef bint _closing               # the server is stopping

    cdef int dispatch(self, list events) except -1
    cdef int _fail_event(self, event, error) except -1
    cdef int _fail(self, Exchange exchange, error) except -1
    cdef int _dispatch_one(self, event) except -1
    cdef int _receive_request(self, stream_id, RequestReceived request) except -1
    cdef int _fail_request(
        self, stream_id, RequestReceived request, error
    ) except -1
    cdef int _receive_reset(self, H2StreamReset event) except -1
    cdef int _fail_body(self, stream_id, error) except -1
    cdef int _receive_window(self, stream_id) except -1
    cdef int _close_stream(self, H2StreamClosed event) except -1
    cdef object _find_failure(self, stream_id, error_code)
