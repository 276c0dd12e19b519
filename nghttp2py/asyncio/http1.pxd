from libc.stdint cimport uint8_t
from nghttp2py.exchange cimport Exchange, HTTPConnection
from nghttp2py.h1.connection cimport H1Connection
from nghttp2py.h2.events cimport RequestReceived


# What a connection waits for of the client.
cpdef enum Phase:
    WAITS_REQUEST   # the first byte of a request
    WAITS_HEAD      # the rest of a header section
    WAITS_BODY      # the rest of a body; the response has not begun
    WAITS_REST      # the rest of a request that was answered
    WAITS_UPLOAD    # the rest of a body; the response has begun
    WAITS_NOTHING


cdef class HTTP1Exchanges(HTTPConnection):
    cdef readonly H1Connection connection
    cdef public object alt_svc       # bytes of an alt-svc field for each response
    cdef public bint paused          # the transport has paused writing
    # The failure with which the connection has to be aborted, or None.
    cdef readonly object fault
    cdef readonly Py_ssize_t received  # octets of bodies ever
    cdef readonly long number        # of the current request, or the last one
    cdef Exchange exchange           # the current one, or None
    cdef Py_ssize_t window           # octets that may be unacknowledged
    cdef Py_ssize_t unacknowledged
    cdef Py_ssize_t low              # at which writable() is wanted, or -1
    cdef bint blocked                # room() had too little
    cdef bint declined               # the rest of the request is not wanted
    cdef bint ended                  # end_received() was called
    cdef bint deferred               # the source has nothing now
    cdef object source               # of the body, or None
    cdef object send_to              # of a source that is a file, or None
    cdef public bint sends_files     # the socket takes octets from the kernel now
    cdef object trailers             # after the source's end, or None
    cdef bint dispatching            # what is queued now is written after it
    cdef bint eof                    # the client has closed its half
    cdef bint going                  # the server is stopping
    cdef double now

    cdef Py_ssize_t before           # octets queued for the requests before
    cdef readonly bint aborts        # the response cannot be completed

    # What the pump calls.
    cdef int receive(self, const uint8_t *base, Py_ssize_t size) except -1
    cdef int settle(self) except -1
    cdef bytes take_output(self)
    cdef bint file_follows(self) noexcept
    cdef Py_ssize_t send_file(self, int fd) except -2
    cdef Phase find_phase(self) noexcept
    cdef bint accepts(self) noexcept
    cdef bint is_over(self) noexcept
    cdef bint half_ends(self) noexcept

    cdef bint _is_received(self) noexcept
    cdef int _require_no_source(self, Exchange exchange) except -1
    cdef int _require_open(self, Exchange exchange) except -1
    cdef int _dispatch(self, list events) except -1
    cdef int _handle(self, event) except -1
    cdef int _end(self) except -1
    cdef int _receive_request(self, RequestReceived request) except -1
    cdef int _settle(self) except -1
    cdef int _feed(self) except -1
    cdef int _fail(self, Exchange exchange, error) except -1
    cdef int _fail_body(self, error) except -1
    cdef int _wake(self) except -1
    cdef int _break_off(self, failure, error_code, status) except -1
    cdef int _close(self, failure, error_code) except -1
    cdef bint is_current(self, Exchange exchange) noexcept

    cpdef is_under_way(self, Exchange exchange)
    cpdef wake_blocked(self)
    cpdef find_end(self)
