"""The link between HTTP/3 and the QUIC connection below it, ours or another package's.

It is part of neither ``h3`` nor ``quic``, because each can be built without the other.
"""

# The link class of each connection class.
cdef dict LINKS = {}


cdef class QuicLink:
    """What HTTP/3 needs from a QUIC connection: an abstract class of C methods.

    A subclass defines each method that raises NotImplementedError here: Cython has no
    abstract C methods.
    """

    def __cinit__(self):
        if type(self) is QuicLink:
            raise TypeError("QuicLink is abstract")

    cdef bint lease(self, event, BufferLease *lease) except -1:
        """Fill ``lease`` with the bytes of ``event``, and return whether it has bytes
        to borrow: here never.  After true, the caller must call ``release``."""
        return False

    cdef void release(self, BufferLease *lease) noexcept:
        """End a lease: its bytes become invalid."""

    cdef int send(
        self, int64_t stream_id, const uint8_t *head, size_t head_len, bytes data,
        bint end_stream,
    ) except -1:
        """Send ``head``, which is copied, and ``data``, which may be ``None``; raise
        as ``send_stream_data`` does."""
        raise NotImplementedError

    cdef int set_critical(self, int64_t stream_id) except -1:
        """Serve a stream before all others, whatever their priorities are."""
        raise NotImplementedError

    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1:
        """Send a DATAGRAM frame of ``head`` and ``data``."""
        raise NotImplementedError


cdef class MethodLink(QuicLink):
    """A link that calls the methods of any object like aioquic's ``QuicConnection``."""

    def __cinit__(self, connection):
        self._connection = connection
        self.calls_python = True

    cdef int send(
        self, int64_t stream_id, const uint8_t *head, size_t head_len, bytes data,
        bint end_stream,
    ) except -1:
        if data is None:
            data = (<const char *>head)[:head_len]
        elif head_len:
            data = (<const char *>head)[:head_len] + data
        self._connection.send_stream_data(stream_id, data, end_stream)
        return 0

    cdef int set_critical(self, int64_t stream_id) except -1:
        # aioquic's connections have no priorities.
        set_critical = getattr(self._connection, "set_stream_critical", None)
        if set_critical is not None:
            set_critical(stream_id)
        return 0

    cdef int send_datagram(
        self, const uint8_t *head, size_t head_len, bytes data
    ) except -1:
        self._connection.send_datagram_frame((<const char *>head)[:head_len] + data)
        return 0


def register_link(connection_class, link_class):
    """Make ``link_class(connection)`` the link of connections of exactly this class.

    The link of a subclass calls its methods, which it may have overridden.
    """
    LINKS[connection_class] = link_class


cdef QuicLink link_to(connection):
    """Return the link to a connection."""
    return LINKS.get(type(connection), MethodLink)(connection)
