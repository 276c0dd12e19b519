"""What C has recorded, made into Python events."""

from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stddef cimport size_t
from libc.string cimport memcpy

from nghttp2py cimport cngp as lib
from nghttp2py.h2.events cimport (
    BodyReceived,
    H2BodyDrained,
    H2BodyReceived,
    H2ConnectionClosed,
    H2GoAway,
    H2RequestReceived,
    H2ResponseReceived,
    H2StreamClosed,
    H2StreamReset,
    H2TrailersReceived,
    H2WebSocketRequest,
    H2WindowUpdated,
    RequestReceived,
)
from nghttp2py.h2.headers cimport FieldReader
from nghttp2py.octets cimport copy_bytes

from collections import deque

from nghttp2py.errors import printable
from nghttp2py.h2.events import (
    H2AlternativeServiceReceived,
    H2ExtensionFrameReceived,
    H2InformationalResponseReceived,
    H2OriginReceived,
    H2PingAcknowledged,
    H2PingReceived,
    H2PriorityUpdated,
    H2PushedStreamReceived,
    H2RequestSent,
    H2SettingsAcknowledged,
    H2SettingsReceived,
)
from nghttp2py.hpack import NeverIndexed

cdef extern from "ngp_h2.h":
    enum:
        NGP_H2_EVENT_REQUEST
        NGP_H2_EVENT_RESPONSE
        NGP_H2_EVENT_INFORMATIONAL
        NGP_H2_EVENT_TRAILERS
        NGP_H2_EVENT_PUSH_PROMISE
        NGP_H2_EVENT_DATA
        NGP_H2_EVENT_STREAM_RESET
        NGP_H2_EVENT_STREAM_CLOSED
        NGP_H2_EVENT_WINDOW_UPDATE
        NGP_H2_EVENT_SETTINGS
        NGP_H2_EVENT_SETTINGS_ACK
        NGP_H2_EVENT_PING
        NGP_H2_EVENT_PING_ACK
        NGP_H2_EVENT_GOAWAY
        NGP_H2_EVENT_PRIORITY_UPDATE
        NGP_H2_EVENT_ALTSVC
        NGP_H2_EVENT_ORIGIN
        NGP_H2_EVENT_EXTENSION
        NGP_H2_EVENT_REQUEST_SENT
        NGP_H2_EVENT_BODY_DRAINED

cdef BodyReceived END_OF_BODY = BodyReceived(b"", False)


cdef str take_text(const lib.ngp_h2_event *e):
    # The C library quotes what it refuses: names and values of the peer's.
    return printable(copy_bytes(e.data, e.len))


cdef object new_body(const lib.ngp_h2_event *e, BodyReceived piece):
    cdef H2BodyReceived event = H2BodyReceived.__new__(H2BodyReceived)

    event.stream_id = e.stream_id
    event.body = piece
    return event


cdef BodyReceived new_piece(const lib.ngp_h2_event *e):
    cdef BodyReceived piece

    if e.len == 0 and e.end_stream:
        return END_OF_BODY
    piece = BodyReceived.__new__(BodyReceived)
    piece.data = copy_bytes(e.data, e.len)
    piece.more = not e.end_stream
    return piece


cdef object new_stream_closed(const lib.ngp_h2_event *e):
    cdef H2StreamClosed event = H2StreamClosed.__new__(H2StreamClosed)

    event.stream_id = e.stream_id
    event.error_code = e.error_code
    event.body_bytes_sent = e.value
    event.complete = bool(e.complete)
    return event


cdef object new_window_updated(const lib.ngp_h2_event *e):
    cdef H2WindowUpdated event = H2WindowUpdated.__new__(H2WindowUpdated)

    event.stream_id = e.stream_id
    event.increment = e.value
    return event


cdef dict read_settings(const lib.ngp_h2_event *e):
    cdef:
        lib.nghttp2_settings_entry entry
        dict settings = {}
        int i

    for i in range(e.value):
        # The copy lies in bytes that need not be aligned for the entries.
        memcpy(&entry, e.data + i * sizeof(entry), sizeof(entry))
        settings[entry.settings_id] = entry.value
    return settings


cdef tuple join_cookies(tuple pairs):
    """Join cookie crumbs to one field, the last (RFC 9113, 8.2.3)."""
    crumbs = [pair for pair in pairs if pair[0] == b"cookie"]
    joined = [pair for pair in pairs if pair[0] != b"cookie"]
    cookie = b"; ".join([crumb[1] for crumb in crumbs])
    if any(isinstance(crumb, NeverIndexed) for crumb in crumbs):
        joined.append(NeverIndexed(b"cookie", cookie))
    else:
        joined.append((b"cookie", cookie))
    return tuple(joined)


cdef class EventReader:
    """Turns recorded events into Python's.

    ``sources`` is the connection's dict of body sources, from which closed
    streams are taken out; ``lenient`` is whether white space around values is
    stripped.
    """

    def __cinit__(self, dict sources not None, bint lenient):
        self.sources = sources
        self.settings_sent = deque()
        self.removed = set()
        self._pairs = FieldReader(lenient)

    cdef int take(self, lib.ngp_h2 *h2, list events) except -1:
        """Append to ``events`` what C has recorded, and clear it there."""
        cdef:
            size_t n = 0
            size_t i
            const lib.ngp_h2_event *recorded = lib.ngp_h2_events(h2, &n)

        if n == 0:
            return 0
        self._fields = lib.ngp_h2_fields(h2)
        try:
            for i in range(n):
                self._take_event(events, &recorded[i])
        finally:
            lib.ngp_h2_clear_events(h2)
        return 0

    cdef int _take_event(self, list events, const lib.ngp_h2_event *e) except -1:
        cdef int kind = e.type

        if kind == NGP_H2_EVENT_REQUEST:
            self._take_request(events, e)
        elif kind == NGP_H2_EVENT_DATA:
            events.append(new_body(e, new_piece(e)))
        elif kind == NGP_H2_EVENT_STREAM_CLOSED:
            if self.sources:
                self.sources.pop(e.stream_id, None)
            if self.removed:
                self.removed.discard(e.stream_id)
            events.append(new_stream_closed(e))
        elif (
            kind == NGP_H2_EVENT_RESPONSE or kind == NGP_H2_EVENT_INFORMATIONAL
        ):
            self._take_response(events, e)
        elif kind == NGP_H2_EVENT_WINDOW_UPDATE:
            events.append(new_window_updated(e))
        elif kind == NGP_H2_EVENT_TRAILERS:
            events.append(
                H2TrailersReceived(e.stream_id, self._take_fields(e))
            )
            if e.end_stream:
                events.append(new_body(e, END_OF_BODY))
        else:
            events.append(self._take_rare(e))
        return 0

    cdef object _take_rare(self, const lib.ngp_h2_event *e):
        cdef:
            int kind = e.type

        if kind == NGP_H2_EVENT_STREAM_RESET:
            return H2StreamReset(
                e.stream_id, e.error_code, bool(e.remote), bool(e.unprocessed),
                take_text(e),
            )
        if kind == NGP_H2_EVENT_PUSH_PROMISE:
            return H2PushedStreamReceived(
                e.other_id, e.stream_id, self._new_request(e)
            )
        if kind == NGP_H2_EVENT_SETTINGS:
            return H2SettingsReceived(read_settings(e))
        if kind == NGP_H2_EVENT_SETTINGS_ACK:
            return H2SettingsAcknowledged(
                self.settings_sent.popleft() if self.settings_sent else {}
            )
        if kind == NGP_H2_EVENT_PING:
            return H2PingReceived(copy_bytes(e.opaque, 8))
        if kind == NGP_H2_EVENT_PING_ACK:
            return H2PingAcknowledged(copy_bytes(e.opaque, 8))
        if kind == NGP_H2_EVENT_GOAWAY:
            self.going_away = True
            return H2GoAway(e.other_id, e.error_code, copy_bytes(e.data, e.len))
        if kind == NGP_H2_EVENT_PRIORITY_UPDATE:
            return H2PriorityUpdated(e.other_id, copy_bytes(e.data, e.len))
        if kind == NGP_H2_EVENT_ALTSVC:
            return H2AlternativeServiceReceived(
                e.stream_id, copy_bytes(e.data, e.len), copy_bytes(e.data2, e.len2)
            )
        if kind == NGP_H2_EVENT_ORIGIN:
            return H2OriginReceived(copy_bytes(e.data, e.len))
        if kind == NGP_H2_EVENT_EXTENSION:
            return H2ExtensionFrameReceived(
                e.stream_id, e.frame_type, e.flags, copy_bytes(e.data, e.len)
            )
        if kind == NGP_H2_EVENT_REQUEST_SENT:
            return H2RequestSent(e.stream_id)
        if kind == NGP_H2_EVENT_BODY_DRAINED:
            return H2BodyDrained(e.stream_id)
        self.going_away = True
        return H2ConnectionClosed(
            e.error_code, bool(e.remote),
            take_text(e),
        )

    cdef tuple _take_fields(self, const lib.ngp_h2_event *e):
        """Make the pairs of a header list; of a request's cookies one."""
        cdef:
            const lib.ngp_h2_field *field = self._fields + e.first_field
            tuple pairs = PyTuple_New(e.nfields)
            object pair
            size_t i
            int cookies = 0

        for i in range(e.nfields):
            if field[i].token == lib.NGP_TOKEN_COOKIE:
                cookies += 1
            pair = self._pairs.pair(&field[i])
            Py_INCREF(pair)
            PyTuple_SET_ITEM(pairs, i, pair)
        if cookies > 1 and (
            e.type == NGP_H2_EVENT_REQUEST
            or e.type == NGP_H2_EVENT_PUSH_PROMISE
        ):
            return join_cookies(pairs)
        return pairs

    cdef RequestReceived _new_request(self, const lib.ngp_h2_event *e):
        cdef:
            const lib.ngp_h2_field *field = self._fields + e.first_field
            RequestReceived request = RequestReceived.__new__(RequestReceived)
            tuple pairs = self._take_fields(e)
            bytes value
            size_t i

        request.http_version = "2"
        request.fields = pairs
        # Pseudo-header fields come first: nghttp2 has seen to it.
        for i in range(e.nfields):
            if field[i].token < lib.NGP_TOKEN__AUTHORITY or (
                field[i].token > lib.NGP_TOKEN__STATUS
            ):
                break
            value = (<tuple>pairs[i])[1]
            if field[i].token == lib.NGP_TOKEN__METHOD:
                request.method = value
            elif field[i].token == lib.NGP_TOKEN__PATH:
                request.target = value
            elif field[i].token == lib.NGP_TOKEN__SCHEME:
                request.scheme = value
            elif field[i].token == lib.NGP_TOKEN__AUTHORITY:
                request.authority = value
            elif field[i].token == lib.NGP_TOKEN__PROTOCOL:
                request.protocol = value
        if request.target is None:
            request.target = request.authority
        return request

    cdef int _take_request(self, list events, const lib.ngp_h2_event *e) except -1:
        cdef:
            RequestReceived request = self._new_request(e)
            H2RequestReceived event

        if (
            request.protocol is not None
            and (<bytes>request.protocol).lower() == b"websocket"
        ):
            events.append(H2WebSocketRequest(e.stream_id, request, request.target))
        else:
            event = H2RequestReceived.__new__(H2RequestReceived)
            event.stream_id = e.stream_id
            event.request = request
            events.append(event)
        if e.end_stream:
            events.append(new_body(e, END_OF_BODY))
        return 0

    cdef int _take_response(self, list events, const lib.ngp_h2_event *e) except -1:
        cdef:
            tuple pairs = self._take_fields(e)
            bytes status = (<tuple>pairs[0])[1]
            H2ResponseReceived event

        if e.type == NGP_H2_EVENT_INFORMATIONAL:
            events.append(
                H2InformationalResponseReceived(
                    e.stream_id, int(status), pairs[1:]
                )
            )
            return 0
        event = H2ResponseReceived.__new__(H2ResponseReceived)
        event.stream_id = e.stream_id
        event.status = int(status)
        event.headers = pairs[1:]
        events.append(event)
        if e.end_stream:
            events.append(new_body(e, END_OF_BODY))
        return 0
