"""How HTTP/3 reaches the QUIC connection below it, whatever that is written in."""

__all__ = ["Carrier"]


cdef class Carrier:
    """What HTTP/3 asks of a QUIC connection, in C; carrier.pxd declares it.

    Here it is done by the methods of any object that is like aioquic's
    ``QuicConnection``.  A connection that is written in C is a subclass.
    """

    cdef bint is_direct(self):
        """Whether nothing here calls Python: no call comes back meanwhile."""
        return False

    cdef bint lend(self, event, Loan *loan) except -1:
        """Fill ``loan`` with the bytes of ``event``, if they have not been taken
        out of it."""
        return False

    cdef void take_back(self, Loan *loan):
        """The loan is over."""

    cdef int send(
        self, int64_t stream_id, const uint8_t *head, size_t head_len, bytes data,
        bint end_stream,
    ) except -1:
        """Send ``head``, which is copied, and ``data``, which may be ``None``; raise
        as ``send_stream_data`` does."""
        if data is None:
            data = (<const char *>head)[:head_len]
        elif head_len:
            data = (<const char *>head)[:head_len] + data
        self._connection.send_stream_data(stream_id, data, end_stream)
        return 0

    cdef int set_critical(self, int64_t stream_id) except -1:
        """Serve a stream before all others, whatever their priorities are; aioquic
        has no priorities."""
        if isinstance(self._connection, Carrier):
            (<Carrier>self._connection).set_critical(stream_id)
        return 0

    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1:
        """Send a DATAGRAM frame of ``head`` and ``data``."""
        self._connection.send_datagram_frame((<const char *>head)[:head_len] + data)
        return 0


cdef Carrier carrier_of(connection):
    """Return the connection itself if it is to be asked in C, else what asks it by
    its methods: a subclass of one in C may have other ideas of them."""
    cdef Carrier carrier

    if isinstance(connection, Carrier) and (<Carrier>connection).is_direct():
        return connection
    carrier = Carrier.__new__(Carrier)
    carrier._connection = connection
    return carrier
