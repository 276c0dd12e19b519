from libc.stdint cimport int32_t

from nghttp2py cimport cngp as lib
from nghttp2py.exchange cimport Exchange, HTTPConnection
from nghttp2py.h2.connection cimport H2Connection
from nghttp2py.h2.convert cimport EventReader
from nghttp2py.h2.events cimport RequestReceived


cdef class HTTP2Exchanges


cdef class _ExchangeReader(EventReader):
    cdef object exchanges       # a weak reference to the HTTP2Exchanges
    cdef HTTP2Exchanges called  # the same while it is called, else None


cdef class HTTP2Exchanges(HTTPConnection):
    cdef readonly H2Connection connection
    cdef readonly dict exchanges     # stream identifier -> Exchange
    cdef readonly set blocked        # streams that room() had too little for
    cdef public object alt_svc       # bytes of an alt-svc field for each response
    cdef bint dispatching            # what is queued now is written after it
    cdef dict _lent                  # stream identifier -> weak reference, or None
    cdef dict _records               # of lent ones that were dropped, or None
    cdef dict _failures              # of streams that were reset and not closed yet
    cdef Exchange _called            # that is being called, or None
    cdef Exchange _found             # of the last record while dispatching, or None
    cdef int32_t _found_id           # its stream; 0: none is known
    cdef lib.ngp_h2 *_h2             # borrowed from the connection while dispatching
    cdef double _now                 # when dispatching began
    cdef bint _dirty                 # something was queued while dispatching
    cdef int _logs                   # whether there is an access log; -1: not asked yet
    cdef bint _closing               # the server is stopping

    cdef Exchange find(self, stream_id)
    cdef Exchange find_called(self, int32_t stream_id)
    cdef int begin(self, lib.ngp_h2 *h2) except -1
    cdef int finish(self, bint receiving) except -1
    cdef bint dispatch(self, EventReader reader, const lib.ngp_h2_event *e) except -1
    cdef int fail_called(self, error) except -1
    cdef int fail_body(self, stream_id, error) except -1
    cdef int _fail(self, Exchange exchange, error) except -1
    cdef int _receive_request(
        self, stream_id, RequestReceived request, bint end
    ) except -1
    cdef int _receive_reset(
        self, int32_t stream_id, error_code, remote, unprocessed, reason
    ) except -1
    cdef int _receive_window(self, stream_id) except -1
    cdef int _close_stream(
        self, stream_id, error_code, body_bytes_sent, bint complete
    ) except -1
    cdef object _find_failure(self, stream_id, error_code)

    cpdef push_received(self, stream_id, RequestReceived request, Exchange parent)
    cpdef stream_closed(self, stream_id, Exchange exchange, bint kept, bint complete)
    cpdef find_end(self)
    cpdef wake_blocked(self)


cdef class HTTP2Streams(HTTP2Exchanges):
    cdef public Py_ssize_t opened     # streams of this end, and slots that are reserved
    cdef public object slots          # futures of callers that wait for a stream
    cdef readonly dict handled        # streams that the owner keeps until they close
    cdef readonly dict amounts        # what was read of streams, by their identifiers
    cdef public bint notifies_idle    # whether the owner has an idle_hook

    cdef object _submit(self, headers, bint end)
