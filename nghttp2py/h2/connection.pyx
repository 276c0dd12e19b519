"""One end of an HTTP/2 connection (RFC 9113), without I/O.

Bytes from the peer go in by ``receive_data``, which returns events; calls
queue; ``data_to_send`` returns the bytes for the peer.  There is no clock, no
socket and no event loop here.

What the peer does wrong is an event, and what must be said to it is in
``data_to_send``.  What the caller does wrong raises from ``nghttp2py.errors``.

One connection is driven by one thread at a time; connections are independent
of each other.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport SIZE_MAX, int32_t, int64_t, uint8_t, uint32_t

from nghttp2py cimport cngp as lib
from nghttp2py.h2.headers cimport FieldList, borrow_fields
from nghttp2py.h2.session cimport H2Session, as_bytes, check, to_stream_id, to_uint32
from nghttp2py.octets cimport hold_items

from nghttp2py.errors import (
    ErrorCode,
    HeadersError,
    InvalidBodyLengthError,
    PushDisabledError,
    RequestQueueFullError,
    StreamStateError,
    from_code,
)
from nghttp2py.h2.body import DATA_EOF, is_bytes_like, make_source
from nghttp2py.h2.config import Setting
from nghttp2py.h2.events import H2BodyFailed

__all__ = ["H2Connection", "is_h2_available"]

cdef list STATUS = [b"%d" % status for status in range(1000)]


def is_h2_available():
    """Return True: HTTP/2 is always there."""
    return True


cdef bytes status_text(status):
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status must be an int, not {type(status).__name__}")
    if not 100 <= status <= 999:
        raise HeadersError(
            f"status is {status}, but must have three digits (RFC 9110, 15)"
        )
    return STATUS[<Py_ssize_t>status]


cdef class H2Connection(H2Session):
    """One end of an HTTP/2 connection: bytes in, events out; calls in, bytes out.

    ``client_side`` chooses the end; ``config`` is an ``H2Configuration``.
    ``initiate_connection`` must be called first.  Functions that name a stream
    raise ``NoSuchStreamError`` if there never was such a stream, and
    ``StreamClosedError`` if it, or our half of it, is closed;
    ``ConnectionClosedError`` if the connection is.  Any of them may be called
    at any time but from within a body's source, which must not call
    ``receive_data`` or ``data_to_send``.
    """

    # ---- Bodies that Python produces ----

    cdef bint _feed(self, int32_t stream_id, size_t wanted) except -1:
        """Queue a piece of a source; return whether there is more to send."""
        cdef:
            bytes data
            tuple entry = self._sources.get(stream_id)

        if entry is None:
            return False
        source, trailers, end_stream = entry
        try:
            data, flag = source.read(wanted)
            if self._sources.get(stream_id) is not entry:
                # It has reset its own stream.
                return True
            if flag == DATA_EOF:
                self._sources.pop(stream_id, None)
                check(lib.ngp_h2_set_source(self._h2, stream_id, 0), stream_id)
                self._queue_body(stream_id, data, end_stream and trailers is None)
                if trailers is not None:
                    self._submit_trailers(stream_id, trailers)
            elif data:
                self._queue_body(stream_id, data, False)
            return bool(data) or flag == DATA_EOF
        except (KeyboardInterrupt, SystemExit) as error:
            self._fail_source(stream_id, error)
            raise
        except BaseException as error:
            # With all others that are no Exception, such as GeneratorExit and
            # asyncio's of a cancelled future: they are about this body, not the
            # connection.
            self._fail_source(stream_id, error)
            return True

    cdef int _fail_source(self, int32_t stream_id, error) except -1:
        self._sources.pop(stream_id, None)
        self._pending.append(H2BodyFailed(stream_id, error))
        return check(
            lib.ngp_h2_submit_rst(self._h2, stream_id, ErrorCode.INTERNAL_ERROR, 0),
            stream_id,
        )

    # ---- Sending messages ----

    def __cinit__(self, **_):
        self._normalizes = self.config.normalize_outbound_headers

    cdef int _normalize(self, FieldList fields) except -1:
        return fields.normalize() if self._normalizes else 0

    cdef int _check(self, int rv, stream_id, str state) except -1:
        """Raise for a negative code; ``state`` explains a wrong stream state."""
        cdef:
            int64_t expected = 0
            int64_t queued = 0

        if rv >= 0:
            return rv
        if rv == lib.NGHTTP2_ERR_INVALID_STREAM_STATE:
            if stream_id is not None:
                state = f"stream {stream_id}: {state}"
            raise StreamStateError(state, code=rv)
        if rv == lib.NGP_ERR_BODY_LENGTH and stream_id is not None:
            lib.ngp_h2_body_lengths(self._h2, stream_id, &expected, &queued)
            raise InvalidBodyLengthError(expected, queued)
        raise from_code(rv, lib.ngp_strerror(rv).decode(), stream_id)

    def send_request(
        self,
        method,
        target,
        headers=(),
        *,
        scheme=b"https",
        authority=None,
        protocol=None,
        end_stream=None,
    ):
        """Queue a request; return its stream identifier.

        Strings are bytes or str; ``headers`` any iterable of pairs, or a
        mapping.  ``authority`` may be left out if ``headers`` has ``host``.
        For CONNECT, ``target`` is the authority and ``scheme`` is not sent,
        unless ``protocol`` makes it an extended CONNECT (RFC 8441).  With
        ``end_stream`` false a body follows by ``send_body`` or ``send_data``.
        It is true by default, but for CONNECT, whose stream is a tunnel
        (RFC 9113, 8.5).

        A request over the peer's limit of concurrent streams waits
        (``queued_requests``) and is told by ``H2RequestSent`` when it goes out.

        Raises ``HeadersError``, ``InvalidBodyLengthError``,
        ``RequestQueueFullError`` if ``config.max_queued_requests`` wait,
        ``NoAvailableStreamIDError``, ``ConnectionClosedError`` after GOAWAY.
        """
        cdef FieldList fields = FieldList()

        pseudo = [(b":method", method)]
        if end_stream is None:
            end_stream = method not in (b"CONNECT", "CONNECT")
        if method in (b"CONNECT", "CONNECT") and protocol is None:
            pseudo.append((b":authority", target))
        else:
            pseudo += [(b":scheme", scheme), (b":path", target)]
            if authority is not None:
                pseudo.append((b":authority", authority))
            if protocol is not None:
                pseudo.append((b":protocol", protocol))
        fields.extend(pseudo)
        fields.extend(headers)
        return self._submit_request(fields, end_stream)

    cdef object _submit_request(self, FieldList fields, bint end_stream):
        cdef lib.ngp_h2_header_error error
        cdef size_t queued = 0
        cdef int32_t rv

        self._need_start()
        lib.ngp_h2_stream_count(self._h2, &queued)
        if queued >= self._max_queued_requests:
            raise RequestQueueFullError(
                f"{queued} requests wait to be sent, as many as max_queued_requests "
                "allows"
            )
        self._normalize(fields)
        rv = lib.ngp_h2_submit_request(
            self._h2, fields.nva(), fields.nvlen(), end_stream, &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        if rv == lib.NGP_ERR_BODY_LENGTH:
            raise InvalidBodyLengthError(fields.content_length(), 0)
        self._check(rv, None, "a server sends no requests")
        return rv

    def send_headers(self, stream_id, headers, end_stream=False):
        """Queue a header section as it is, pseudo-header fields included.

        What it is follows from the stream: with ``stream_id`` ``None`` a
        client's request, whose identifier is returned; else a response
        (informational if ``:status`` is 1xx), or after that the trailers,
        which need ``end_stream``.  Raises as ``send_request``.
        """
        cdef:
            FieldList fields = FieldList()
            uint32_t flags = 0
            int32_t id

        fields.extend(headers)
        if stream_id is None:
            return self._submit_request(fields, end_stream)
        id = to_stream_id(stream_id)
        lib.ngp_h2_stream_get(self._h2, id, &flags)
        if flags & lib.NGP_H2_FLAG_LOCAL_HEADERS:
            if not end_stream:
                raise StreamStateError(
                    f"stream {id}: headers were sent already, and trailers need "
                    "end_stream"
                )
            self._submit_trailers(id, fields)
        elif fields.is_informational():
            if end_stream:
                raise StreamStateError(
                    f"stream {id}: an informational response does not end the stream"
                )
            self._submit_informational(id, fields)
        else:
            self._submit_response(id, fields, end_stream)
        return id

    def send_response_headers(self, stream_id, status, headers, end_stream=False):
        """Queue a response's header section.

        ``status`` is an int from 200 to 999 of the final response, or, as for
        ``send_informational``, from 100 to 199 without ``end_stream``.

        With ``end_stream`` false a body follows, if only an empty one for HEAD,
        204 and 304.  Raises ``HeadersError``, ``InvalidBodyLengthError`` and, if
        a response was sent already, ``StreamStateError``.
        """
        if isinstance(status, int) and 100 <= status < 200 and not end_stream:
            self.send_informational(stream_id, status, headers)
            return
        self.respond(to_stream_id(stream_id), status, headers, end_stream)

    cdef int respond(
        self, int32_t stream_id, status, headers, bint end_stream
    ) except -1:
        cdef:
            lib.nghttp2_nv nva[16]
            lib.ngp_h2_header_error error
            bytes text = status_text(status)
            Py_ssize_t n = -1
            FieldList fields

        if not self._normalizes:
            headers = hold_items(headers)
            n = borrow_fields(headers, &nva[1], 15)
        if n >= 0:
            nva[0].name = <uint8_t *>b":status"
            nva[0].namelen = 7
            nva[0].value = <uint8_t *>PyBytes_AS_STRING(text)
            nva[0].valuelen = 3
            nva[0].flags = lib.NGHTTP2_NV_FLAG_NONE
            if lib.ngp_h2_submit_response(
                self._h2, stream_id, nva, n + 1, end_stream, &error
            ) == 0:
                return 0
        # Other forms of headers, and what was refused: nothing was queued then.
        fields = FieldList()
        fields.add(b":status", text)
        fields.extend(headers)
        return self._submit_response(stream_id, fields, end_stream)

    cdef int _submit_response(
        self, int32_t stream_id, FieldList fields, bint end_stream
    ) except -1:
        cdef lib.ngp_h2_header_error error
        cdef int rv

        self._normalize(fields)
        rv = lib.ngp_h2_submit_response(
            self._h2, stream_id, fields.nva(), fields.nvlen(), end_stream, &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        if rv == lib.NGP_ERR_BODY_LENGTH:
            raise InvalidBodyLengthError(fields.content_length(), 0)
        return self._check(
            rv, stream_id,
            "a client sends no responses" if self.client_side
            else "a response was sent already",
        )

    def send_informational(self, stream_id, status, headers=()):
        """Queue a 1xx response, before the final one (RFC 9110, 15.2).

        ``status`` is from 100 to 199, but not 101.
        """
        cdef FieldList fields = FieldList()

        fields.add(b":status", status_text(status))
        fields.extend(headers)
        self._submit_informational(to_stream_id(stream_id), fields)

    cdef int _submit_informational(
        self, int32_t stream_id, FieldList fields
    ) except -1:
        cdef lib.ngp_h2_header_error error
        cdef int rv

        self._normalize(fields)
        rv = lib.ngp_h2_submit_informational(
            self._h2, stream_id, fields.nva(), fields.nvlen(), &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        return self._check(
            rv, stream_id, "an informational response comes before the final one"
        )

    def send_trailers(self, stream_id, headers):
        """End the stream with a trailer section, after its queued body."""
        cdef FieldList fields = FieldList()

        fields.extend(headers)
        self._submit_trailers(to_stream_id(stream_id), fields)

    cdef int _submit_trailers(self, int32_t stream_id, FieldList fields) except -1:
        cdef lib.ngp_h2_header_error error
        cdef int rv

        if stream_id in self._sources:
            raise StreamStateError(
                f"stream {stream_id}: its body comes from a source; give the "
                "trailers to send_body()"
            )
        self._normalize(fields)
        rv = lib.ngp_h2_submit_trailers(
            self._h2, stream_id, fields.nva(), fields.nvlen(), &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        return self._check(rv, stream_id, "headers must be sent first")

    cdef int _check_trailers(
        self, int32_t stream_id, FieldList fields, size_t n
    ) except -1:
        """Raise as ``_submit_trailers`` would after ``n`` bytes more."""
        cdef lib.ngp_h2_header_error error
        cdef int rv

        self._normalize(fields)
        rv = lib.ngp_h2_check_trailers(
            self._h2, stream_id, fields.nva(), fields.nvlen(), n, &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        if rv == lib.NGP_ERR_BODY_LENGTH:
            raise self._length_error(stream_id, n)
        return self._check(rv, stream_id, "headers must be sent first")

    def push_stream(self, stream_id, headers):
        """Promise a response to a request that the client did not make.

        ``headers`` is the whole request, pseudo-header fields included
        (RFC 9113, 8.4).  Returns the promised stream's identifier, on which
        ``send_response_headers`` answers.  Raises ``PushDisabledError``, and
        ``StreamStateError`` if this end may not push on that stream.
        """
        cdef:
            FieldList fields = FieldList()
            lib.ngp_h2_header_error error
            int32_t id = to_stream_id(stream_id)
            int32_t rv

        fields.extend(headers)
        self._normalize(fields)
        rv = lib.ngp_h2_submit_push_promise(
            self._h2, id, fields.nva(), fields.nvlen(), &error
        )
        if rv == lib.NGP_ERR_BAD_HEADERS:
            raise fields.error(&error)
        if rv == lib.NGHTTP2_ERR_PUSH_DISABLED:
            raise PushDisabledError(
                "the peer has set SETTINGS_ENABLE_PUSH to 0 (RFC 9113, 6.5.2)", code=rv
            )
        self._check(rv, id, "only a server pushes, and on a client's stream")
        return rv

    @property
    def push_enabled(self):
        """Whether ``push_stream`` may be called: a server whose peer allows it."""
        return not self.client_side and bool(self._remote(Setting.ENABLE_PUSH))

    def send_data(self, stream_id, data, end_stream=False):
        """Queue what the windows allow of ``data`` now; return how many bytes.

        What was taken is certain to be sent without another WINDOW_UPDATE.
        END_STREAM goes out only if all was taken.  Try the rest after
        ``H2WindowUpdated`` for this stream or for 0.
        """
        cdef:
            int32_t id = to_stream_id(stream_id)
            size_t room = lib.ngp_h2_sendable(self._h2, id)
            Py_ssize_t n
            bytes piece

        self._no_source(id)
        data = as_bytes(data)
        n = min(<size_t>len(data), room)
        if n < len(data):
            end_stream = False
        piece = data if n == len(data) else data[:n]
        self._check_queued(
            lib.ngp_h2_queue_data(
                self._h2, id, <const uint8_t *>PyBytes_AS_STRING(piece), n,
                <void *>piece, end_stream,
            ),
            id, piece,
        )
        return n

    def send_body(self, stream_id, body, *, trailers=None, end_stream=True):
        """Hand over a body, or a piece of one, to be sent as windows open.

        ``body`` is bytes-like (immutable bytes are not copied), or is pulled
        when the stream can send: a binary file, an iterable of bytes-like
        pieces, or a callable ``f(n) -> (data, flag)`` with at most ``n`` bytes
        and ``DATA_OK``, ``DATA_EOF``, or ``DATA_DEFERRED`` (see
        ``resume_body``).  What such a source raises, or answers against its
        rules, resets the stream and is told by ``H2BodyFailed``.

        With ``end_stream`` the stream ends after it, with ``trailers`` if
        given.  Raises ``BodyQueueFullError`` if more than
        ``config.max_body_queue`` bytes would wait (a single larger piece is
        taken if none does) and ``InvalidBodyLengthError`` if the body does not
        fit its content-length.
        """
        cdef:
            int32_t id = to_stream_id(stream_id)
            FieldList fields = None
            bytes data

        self._no_source(id)
        if trailers is not None:
            if not end_stream:
                raise ValueError("trailers end the stream: end_stream must be true")
            fields = FieldList()
            fields.extend(trailers)
        if is_bytes_like(body):
            data = as_bytes(body)
            if fields is not None:
                # Before anything is queued: what raises leaves no trace.
                self._check_trailers(id, fields, len(data))
            self._queue_body(id, data, end_stream and fields is None)
            if fields is not None:
                self._submit_trailers(id, fields)
            return
        if isinstance(body, str):
            raise TypeError("a body must be bytes, not str: encode it")
        source = make_source(body)
        if fields is not None:
            self._check_trailers(id, fields, SIZE_MAX)
        self._check(
            lib.ngp_h2_set_source(self._h2, id, 1), id, "headers must be sent first"
        )
        self._sources[id] = (source, fields, bool(end_stream))

    def resume_body(self, stream_id):
        """Ask a source again that has said DATA_DEFERRED; else do nothing."""
        cdef int32_t id = to_stream_id(stream_id)

        if id in self._sources:
            check(lib.ngp_h2_set_source(self._h2, id, 1), id)

    def end_stream(self, stream_id):
        """End our half of the stream, after its queued body."""
        cdef int32_t id = to_stream_id(stream_id)

        self._no_source(id)
        self._queue_body(id, b"", True)

    cdef int _no_source(self, int32_t stream_id) except -1:
        if self._sources and stream_id in self._sources:
            raise StreamStateError(
                f"stream {stream_id}: its body comes from a source already"
            )
        return 0

    cdef int _queue_body(
        self, int32_t stream_id, bytes data, bint end_stream
    ) except -1:
        cdef:
            size_t n = PyBytes_GET_SIZE(data)
            int rv = lib.ngp_h2_queue_body(
                self._h2, stream_id, <const uint8_t *>PyBytes_AS_STRING(data), n,
                <void *>data, end_stream,
            )

        return self._check_queued(rv, stream_id, data)

    cdef int _check_queued(self, int rv, int32_t stream_id, bytes data) except -1:
        cdef size_t n = PyBytes_GET_SIZE(data)

        if rv == lib.NGP_ERR_BODY_LENGTH:
            raise self._length_error(stream_id, n)
        self._check(rv, stream_id, "headers must be sent first")
        if n:
            # C holds it until ngp_h2_take_owner().
            Py_INCREF(data)
        return 0

    cdef int end_body(self, int32_t stream_id, bytes data) except -1:
        """Queue the last piece of a body that has no source."""
        return self._queue_body(stream_id, data, True)

    cdef bint is_open(self, int32_t stream_id) noexcept:
        """Whether a stream can take or give anything still."""
        cdef uint32_t flags = 0

        return lib.ngp_h2_stream_get(
            self._h2, stream_id, &flags
        ) == lib.NGP_H2_STATE_OPEN

    cdef int stop_request(self, int32_t stream_id) except -1:
        """Tell the peer to send no more of a request, after our response.

        The halves of a tunnel end each by itself (RFC 9113, 8.5).
        """
        cdef uint32_t flags = 0

        lib.ngp_h2_stream_get(self._h2, stream_id, &flags)
        if flags & lib.NGP_H2_FLAG_CONNECTED:
            return 0
        return check(
            lib.ngp_h2_submit_rst(self._h2, stream_id, ErrorCode.NO_ERROR, 1),
            stream_id,
        )

    cdef object _length_error(self, int32_t stream_id, size_t n):
        cdef:
            int64_t expected = 0
            int64_t queued = 0

        lib.ngp_h2_body_lengths(self._h2, stream_id, &expected, &queued)
        return InvalidBodyLengthError(expected, queued + <int64_t>n)

    def queued_body(self, stream_id=0):
        """Return the body bytes that wait on a stream, or on all (0)."""
        return lib.ngp_h2_queued_body(
            self._h2, 0 if stream_id == 0 else to_stream_id(stream_id)
        )

    def notify_drained(self, stream_id, low=0):
        """Ask for ``H2BodyDrained`` when at most ``low`` bytes wait on a stream.

        Returns true if it is so already, and no event will come.
        """
        return bool(
            lib.ngp_h2_watch_body(
                self._h2, to_stream_id(stream_id), to_uint32(low, "low")
            )
        )

    def reset_stream(
        self, stream_id, error_code=ErrorCode.NO_ERROR, *, after_flush=False
    ):
        """Queue RST_STREAM (RFC 9113, 6.4); nothing more is told of the stream
        but ``H2StreamClosed``.

        What ``send_body`` has queued on the stream is dropped; a whole response
        made by ``send_response_headers`` and ``send_data`` goes first.  With
        ``after_flush`` the reset waits for the end of our half in any case, is
        left out if the peer's half has ended by then, and comes with a later
        output than that end: see ``hold_resets``.  Does nothing on a closed
        stream, nor after the end of the connection, which has ended its streams.
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef int rv

        self._need_start()
        rv = lib.ngp_h2_submit_rst(
            self._h2, id, to_uint32(error_code, "error_code"), bool(after_flush)
        )
        if rv == lib.NGP_ERR_CONNECTION_CLOSED:
            return
        check(rv, id)
        if not after_flush:
            self._sources.pop(id, None)

    # ---- Streams ----

    def stream_ended(self, stream_id):
        """Whether the peer's half of a stream has ended; false if it never began."""
        cdef uint32_t flags = 0
        cdef lib.ngp_h2_stream_state state = lib.ngp_h2_stream_get(
            self._h2, to_stream_id(stream_id), &flags
        )

        return state == lib.NGP_H2_STATE_CLOSED or bool(
            flags & lib.NGP_H2_FLAG_REMOTE_END
        )

    def remove_stream(self, stream_id):
        """Tell that a stream is done with.

        It no longer counts in ``active_stream_count``.  A source that still
        has to produce its body is dropped, and the stream reset (CANCEL): the
        peer must not take half a body for a whole one.
        """
        cdef int32_t id = to_stream_id(stream_id)
        cdef uint32_t flags = 0

        if lib.ngp_h2_stream_get(self._h2, id, &flags) != lib.NGP_H2_STATE_OPEN:
            return
        self._reader.removed.add(id)
        if self._sources.pop(id, None) is not None:
            check(lib.ngp_h2_submit_rst(self._h2, id, ErrorCode.CANCEL, 0), id)

    @property
    def active_stream_count(self):
        """Streams neither closed nor removed, queued requests included."""
        return lib.ngp_h2_stream_count(self._h2, NULL) - len(self._reader.removed)

    @property
    def queued_requests(self):
        """Requests that were not sent yet, for the peer's stream limit."""
        cdef size_t queued = 0

        lib.ngp_h2_stream_count(self._h2, &queued)
        return queued
