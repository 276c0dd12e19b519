"""The base of a QUIC connection that is written in C, for those above it."""

__all__ = ["Carrier"]


cdef class Carrier:
    """What HTTP/3 may ask of a QUIC connection in C; carrier.pxd declares it."""

    cdef bint is_direct(self):
        """Whether the methods here do what those do that Python sees: a subclass
        may have other ideas, and then it is asked by its methods."""
        return False

    cdef bint lend(self, event, Loan *loan) except -1:
        """Fill ``loan`` with the bytes of ``event``, if they have not been taken
        out of it."""
        return False

    cdef void take_back(self, Loan *loan):
        """The loan is over."""

    cdef int send(
        self,
        int64_t stream_id,
        const uint8_t *head,
        size_t head_len,
        bytes data,
        bint end_stream,
    ) except -1:
        """Send ``head``, which is copied, and ``data``, which may be None; raise as
        ``send_stream_data`` does."""
        raise NotImplementedError

    cdef int put_first(self, int64_t stream_id) except -1:
        """Serve a stream before all others, whatever their priorities are."""
        raise NotImplementedError

    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1:
        """Send a DATAGRAM frame of ``head`` and ``data``."""
        raise NotImplementedError
