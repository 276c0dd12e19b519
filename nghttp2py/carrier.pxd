# How HTTP/3 and QUIC meet, without knowing each other.  If the connection is written
# in C, bytes pass as pointers, and no Python object is made for them.
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t

cdef enum LoanKind:
    LOAN_STREAM
    LOAN_DATAGRAM


# The bytes of an event, borrowed from Carrier.lend() to Carrier.take_back().
cdef struct Loan:
    LoanKind kind
    const uint8_t *data
    size_t len
    int64_t stream_id    # of LOAN_STREAM
    bint end_stream      # of LOAN_STREAM
    void *held           # the carrier's own affair


cdef class Carrier:
    cdef object _connection    # whose methods are called; None in a subclass

    cdef bint is_direct(self)
    cdef bint lend(self, event, Loan *loan) except -1
    cdef void take_back(self, Loan *loan)
    cdef int send(
        self, int64_t stream_id, const uint8_t *head, size_t head_len, bytes data,
        bint end_stream,
    ) except -1
    cdef int set_critical(self, int64_t stream_id) except -1
    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1


cdef Carrier carrier_of(connection)
