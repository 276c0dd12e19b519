from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nghttp2py.h2.events cimport RequestReceived


cdef enum:
    # Octets that are gathered for one write, and those of a body that are queued as one
    # piece: 64 KiB leave together with their head or frame.
    GATHERED = 69632


cdef enum:
    # Fields of a header or trailer section; with more the answer is 431.
    FIELD_COUNT = 100


cdef enum Input:
    REQUEST_LINE
    FIELDS
    BODY          # of a known length
    CHUNK_SIZE
    CHUNK_DATA
    CHUNK_END
    TRAILERS
    COMPLETE      # the request has come whole
    UNDECIDED     # a CONNECT or an upgrade that was not answered yet
    TUNNEL
    REFUSED       # nothing is received any more


cdef enum Output:
    NO_REQUEST
    OWED          # the final response was not begun
    LENGTH        # a body of a known length
    CHUNKED
    UNTIL_CLOSE   # the body ends with the connection
    NO_CONTENT    # the response has no content
    SENT          # our half has ended
    TUNNELLED


cdef class H1Connection:
    # ---- What it is ----
    cdef readonly bint secure        # https, not http
    cdef readonly bint tunnels       # upgrades to WebSocket are reported
    cdef readonly size_t max_body_queue
    # Whether the connection ends after the current response.
    cdef public bint closing

    # ---- What comes in ----
    cdef Input input
    cdef bytes rest                  # received, and not used yet
    cdef Py_ssize_t scanned          # octets of it in which there is no line feed
    cdef Py_ssize_t head_size        # octets of the section so far
    cdef bint skipped                # an empty line before the request line
    cdef list fields
    cdef uint8_t tokens[FIELD_COUNT]  # ngp_token of their names
    cdef bytes method
    cdef bytes target
    cdef bytes authority             # of the target, if it has one
    cdef bytes scheme                # likewise
    cdef bint old                    # HTTP/1.0
    cdef bint keeps                  # the client keeps the connection
    cdef bint expects                # the client waits for 100 (Continue)
    cdef bint takes_trailers
    cdef bint heard                  # some of the body has come
    cdef bint discards               # the rest of the request is dropped
    cdef size_t discarded
    cdef uint64_t left               # octets of the body, or of the chunk
    cdef Py_ssize_t excess           # octets of chunk headers, beyond what bodies need
    cdef list pieces                 # of the body, in this batch

    # ---- What goes out ----
    cdef Output output
    cdef list out                    # bytes to write
    cdef list out_bodies             # how many octets of each are a body's
    cdef Py_ssize_t out_size
    cdef Py_ssize_t out_body         # octets of the body that are queued
    cdef bytes head                  # without content-length: may get it in the queue
    cdef int64_t expected            # content-length of the response, or -1
    cdef int64_t body_size           # octets of the body that were queued ever

    cdef list receive(self, const uint8_t *p, Py_ssize_t n, bytes owner)
    cdef bint is_idle(self) noexcept
    cdef int respond(self, status, fields, bint end) except -1
    cdef int inform(self, status, fields) except -1
    cdef int begin_tunnel(self, fields) except -1
    cdef int send(self, bytes data, bint end) except -1
    cdef int check_send(self, Py_ssize_t n, bint end) except -1
    cdef list check_trailers(self, fields)
    cdef int trail(self, list fields) except -1
    cdef bint shows_end(self) noexcept
    cdef int _state_length(self, Py_ssize_t n) except -1
    cdef bytes take_output(self, Py_ssize_t limit)
    cdef int discard(self) except -1
    cdef int go_on(self) except -1

    cdef int _parse(
        self, const uint8_t *p, Py_ssize_t n, bytes owner, list events
    ) except -1
    cdef int _flush_pieces(self, list events) except -1
    cdef int _complete(self, list events) except -1
    cdef int _line_too_long(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int _request_line(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int _split_target(self) except -1
    cdef int _field_line(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int _end_head(self, list events) except -1
    cdef int _end_trailers(self, list events) except -1
    cdef int _chunk_size(self, const uint8_t *p, Py_ssize_t n) except -1
    cdef int _refuse(self, int status, str reason, list events) except -1
    cdef int _require_open(self) except -1
    cdef int _check_queue(self, Py_ssize_t n) except -1
    cdef int _write(self, bytes data, Py_ssize_t body) except -1
    cdef int _message_sent(self) except -1
