"""The bodies that a connection sends: queued bytes, and sources in Python."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t

from nghttp2py cimport cngp as lib
from nghttp2py.h2.convert cimport EventReader, FieldList, check, check_sent

from nghttp2py.errors import ErrorCode, InvalidBodyLengthError, StreamStateError
from nghttp2py.h2.body import DATA_EOF

__all__ = ["BodySources"]


@cython.final
cdef class BodySources:
    """Queues bodies and trailers, and asks the sources of bodies for pieces.

    ``sources`` has the sources that are not at their end.
    """

    # ---- What is queued ----

    cdef int queue(self, int32_t stream_id, bytes data, bint end_stream) except -1:
        cdef:
            size_t n = PyBytes_GET_SIZE(data)
            int rv = lib.ngp_h2_queue_body(
                self._h2, stream_id, <const uint8_t *>PyBytes_AS_STRING(data), n,
                <void *>data, end_stream,
            )

        return self.check_queued(rv, stream_id, data)

    cdef int check_queued(self, int rv, int32_t stream_id, bytes data) except -1:
        """Check the result of queueing ``data``; hold a reference to it for C."""
        cdef size_t n = PyBytes_GET_SIZE(data)

        if rv == lib.NGP_ERR_BODY_LENGTH:
            raise self._length_error(stream_id, n)
        check_sent(self._h2, rv, stream_id, "headers must be sent first")
        if n:
            # C holds it until ngp_h2_take_owner().
            Py_INCREF(data)
        return 0

    cdef int submit_trailers(self, int32_t stream_id, FieldList fields) except -1:
        cdef lib.ngp_h2_header_error error
        cdef int rv

        if stream_id in self.sources:
            raise StreamStateError(
                f"stream {stream_id}: its body comes from a source; give the "
                "trailers to send_body()"
            )
        rv = lib.ngp_h2_submit_trailers(
            self._h2, stream_id, fields.nva(), fields.nvlen(), &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        return check_sent(self._h2, rv, stream_id, "headers must be sent first")

    cdef int check_trailers(
        self, int32_t stream_id, FieldList fields, size_t n
    ) except -1:
        """Raise what ``submit_trailers`` would raise after ``n`` more bytes."""
        cdef lib.ngp_h2_header_error error
        cdef int rv

        rv = lib.ngp_h2_check_trailers(
            self._h2, stream_id, fields.nva(), fields.nvlen(), n, &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        if rv == lib.NGP_ERR_BODY_LENGTH:
            raise self._length_error(stream_id, n)
        return check_sent(self._h2, rv, stream_id, "headers must be sent first")

    cdef object _length_error(self, int32_t stream_id, size_t n):
        cdef:
            int64_t expected = 0
            int64_t queued = 0

        lib.ngp_h2_body_lengths(self._h2, stream_id, &expected, &queued)
        return InvalidBodyLengthError(expected, queued + <int64_t>n)

    # ---- What Python produces ----

    cdef int require_none(self, int32_t stream_id) except -1:
        if self.sources and stream_id in self.sources:
            raise StreamStateError(
                f"stream {stream_id}: its body comes from a source already"
            )
        return 0

    cdef int add(
        self, int32_t stream_id, source, FieldList trailers, bint end_stream
    ) except -1:
        """Make a source produce the body; ``trailers`` have been checked."""
        check_sent(
            self._h2, lib.ngp_h2_set_source(self._h2, stream_id, 1), stream_id,
            "headers must be sent first",
        )
        self.sources[stream_id] = (source, trailers, end_stream)
        return 0

    cdef int resume(self, int32_t stream_id) except -1:
        if stream_id in self.sources:
            check(lib.ngp_h2_set_source(self._h2, stream_id, 1), stream_id)
        return 0

    cdef bint drop(self, int32_t stream_id) except -1:
        """Forget a source; return whether there was one."""
        return self.sources.pop(stream_id, None) is not None

    cdef bint feed(
        self, int32_t stream_id, size_t wanted, EventReader reader, list events
    ) except -1:
        """Queue a piece from a source; return whether there is more to send.

        An exception of the source resets its stream, and is given to ``reader``.
        """
        cdef tuple entry = self.sources.get(stream_id)

        if entry is None:
            return False
        try:
            return self._feed(stream_id, entry, wanted)
        except BaseException as error:
            # BaseExceptions such as GeneratorExit and asyncio's CancelledError, too:
            # they concern this body, not the connection.
            self.sources.pop(stream_id, None)
            check(
                lib.ngp_h2_submit_rst(
                    self._h2, stream_id, ErrorCode.INTERNAL_ERROR, 0
                ),
                stream_id,
            )
            reader.body_failed(stream_id, error, events)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return True

    cdef int _feed(self, int32_t stream_id, tuple entry, size_t wanted) except -1:
        cdef bytes data

        source, trailers, end_stream = entry
        data, flag = source.read(wanted)
        if self.sources.get(stream_id) is not entry:
            # The source has reset its own stream.
            return True
        if flag == DATA_EOF:
            self.sources.pop(stream_id, None)
            check(lib.ngp_h2_set_source(self._h2, stream_id, 0), stream_id)
            self.queue(stream_id, data, end_stream and trailers is None)
            if trailers is not None:
                self.submit_trailers(stream_id, trailers)
            return True
        if data:
            self.queue(stream_id, data, False)
        return bool(data)


cdef BodySources new_sources(lib.ngp_h2 *h2):
    cdef BodySources bodies = BodySources.__new__(BodySources)

    bodies._h2 = h2
    bodies.sources = {}
    return bodies
