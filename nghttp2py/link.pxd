# The interface between HTTP/3 and QUIC, which do not import each other.  If the
# connection is written in C, bytes pass as pointers, without Python objects.
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

cdef enum LeaseKind:
    LEASE_STREAM
    LEASE_DATAGRAM


# The bytes of an event, borrowed from QuicLink.lease() to QuicLink.release().
cdef struct BufferLease:
    LeaseKind kind
    const uint8_t *data
    size_t len
    int64_t stream_id    # of LEASE_STREAM
    bint end_stream      # of LEASE_STREAM
    void *held           # the link's own


cdef class QuicLink:
    # Whether a method may run Python code, which may call HTTP/3 reentrantly.
    cdef bint calls_python
    cdef bint lease(self, event, BufferLease *lease) except -1
    cdef void release(self, BufferLease *lease) noexcept
    cdef int send(
        self, int64_t stream_id, const uint8_t *head, size_t head_len, bytes data,
        bint end_stream,
    ) except -1
    cdef int set_critical(self, int64_t stream_id) except -1
    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1


cdef class MethodLink(QuicLink):
    cdef object _connection    # whose methods are called


cdef QuicLink link_to(connection)
