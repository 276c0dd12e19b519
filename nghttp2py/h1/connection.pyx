# cython: nonecheck=True
"""The server's end of an HTTP/1.1 connection, without I/O (RFC 9112).

The parser is strict: where RFC 9112 lets a server be lenient, two implementations may
read one message differently, and one of them may take a part of a body for a request.
It has no second reading: a line ends with CR LF, a field line has a name, a colon and a
value, and a request has at most one statement of its length.  The rules for fields are
those of the other versions of HTTP (``ngp_fields``).
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from nghttp2py cimport cngp_fields as lib
from nghttp2py.h1.head cimport (
    REASONS,
    HeadWriter,
    append,
    append_status,
    begin_head,
    end_head,
    text_of,
    tokens,
    write_fields,
)
from nghttp2py.h2.convert cimport (
    add_pairs,
    as_bytes,
    status_text,
    takes_trailers,
)
from nghttp2py.h2.events cimport RequestReceived

from nghttp2py.errors import (
    BodyQueueFullError,
    InvalidBodyLengthError,
    StreamStateError,
)
from nghttp2py.h1.events import (
    H1BodyReceived,
    H1EndReceived,
    H1RequestRefused,
    H1TrailersReceived,
)

#: Octets of a header or trailer section; with more the answer is 431 (RFC 6585, 5).
MAX_HEAD = 65536
#: Fields of a header or trailer section; with more the answer is 431.
MAX_FIELDS = FIELD_COUNT
#: Octets of a request target; with more the answer is 414 (RFC 9110, 15.5.15).
MAX_TARGET = 16384

cdef:
    Py_ssize_t HEAD_SIZE = MAX_HEAD
    Py_ssize_t TARGET_SIZE = MAX_TARGET
    # Octets of a line with the size of a chunk, extensions included.
    Py_ssize_t CHUNK_LINE = 4096
    # Octets of such lines beyond two for each octet of the body and 16 for each chunk.
    Py_ssize_t CHUNK_EXCESS = 16384
    # Digits of a chunk's size: no body has 2^60 octets.
    Py_ssize_t CHUNK_DIGITS = 15

    object END = H1EndReceived()
    # What most request lines begin with.
    bytes GET = b"GET"
    # How a head ends whose body is chunked, until its length is known.
    bytes CHUNKED_END = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    Py_ssize_t CHUNKED_END_SIZE = len(CHUNKED_END)


class _Refused(Exception):
    """Ends the parsing: the arguments are the status and the reason."""


cdef inline bint is_space(uint8_t c) noexcept:
    return c == b" " or c == b"\t"


cdef bytes lower(const uint8_t *p, Py_ssize_t n):
    """Copy a field name in lower case."""
    cdef bytes name = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t *q = <uint8_t *>PyBytes_AS_STRING(name)
    cdef Py_ssize_t i

    for i in range(n):
        q[i] = p[i] | 0x20 if 65 <= p[i] <= 90 else p[i]
    return name


cdef class H1Connection:
    """One connection of a server, whose requests are answered one after the other.

    ``receive_data`` returns events; the methods that send queue bytes, which
    ``data_to_send`` returns.  The events of a request come before those of the next,
    which begin when its response is complete: what is received before waits here.
    Then ``receive_data(b"")`` returns the events of what waits.

    ``secure`` is whether the scheme is https.  With ``tunnels``, a request for an
    upgrade to WebSocket has the ``protocol`` ``b"websocket"``, and does not end until
    ``switch_protocols`` or ``send_response`` answers it; else it is one of GET.
    ``max_body_queue`` bounds the octets of a body that are queued.

    An invalid request is an ``H1RequestRefused``, and is answered here.
    """

    def __init__(
        self, *, bint secure=False, bint tunnels=False, size_t max_body_queue=1048576
    ):
        self.secure = secure
        self.tunnels = tunnels
        self.max_body_queue = max_body_queue
        self.rest = b""
        self.fields = []
        self.pieces = []
        self.out = []
        self.out_bodies = []
        self.expected = -1

    # ---- For callers in Python ----

    def receive_data(self, data):
        """Parse received bytes; return the events, as a list."""
        cdef bytes received

        if self.input == COMPLETE and self.output == SENT:
            self.go_on()
        received = as_bytes(data)
        return self.receive(
            <const uint8_t *>PyBytes_AS_STRING(received), len(received), received
        )

    def data_to_send(self, limit=None):
        """Return the bytes to write, at most ``limit``; they are no longer queued."""
        return self.take_output(self.out_size if limit is None else limit)

    def send_response(self, status, fields=(), *, bint end=False):
        """Queue the header section of the final response; see RFC 9112, 6.

        Without content-length the body is chunked, or at a client of HTTP/1.0 ends with
        the connection, unless all of it is queued before any of the response is taken:
        then content-length is added.  Fields that concern one connection are dropped,
        but ``connection: close`` takes effect.  Raises ``HeadersError``,
        ``StreamStateError`` for a second response, ``InvalidBodyLengthError``.
        """
        self.respond(status, fields, end)

    def send_informational(self, status, fields=()):
        """Queue a 1xx response, but not 101 (RFC 9110, 15.2).

        A client of HTTP/1.0 is sent none.
        """
        self.inform(status, fields)

    def send_continue(self):
        """Queue 100 (Continue), unless the client has sent its body already."""
        if self.expects and not self.heard and self.input != COMPLETE:
            self.inform(100, ())

    def switch_protocols(self, fields=()):
        """Accept a CONNECT or an upgrade: both halves are a tunnel from now on."""
        self.begin_tunnel(fields)

    def send_data(self, data, *, bint end=False):
        """Queue a piece of the response's body.

        Raises ``InvalidBodyLengthError`` if it does not fit content-length, and
        ``BodyQueueFullError`` if more than ``max_body_queue`` octets would wait.
        """
        self.send(as_bytes(data), end)

    def send_trailers(self, fields):
        """End a body with trailers, which only a client gets that has asked for them.

        RFC 9110, 6.5.1: one that has sent ``TE: trailers``, if the body is chunked.
        """
        self.trail(self.check_trailers(fields))

    def discard_request(self):
        """Drop the rest of the request, which is received but not reported."""
        self.discard()

    def refuse(self, int status, str reason):
        """Refuse the request that is being received; return the events.

        The answer is ``status``, with ``reason`` as its text, if no response has begun.
        """
        cdef list events = []

        if self.input != REFUSED:
            self._refuse(status, reason, events)
        return events

    def close(self, *, bint last=False):
        """End the connection after the current response, or now if there is none.

        With ``last``, a connection without a request waits for one more, whose response
        ends it; a second call without ``last`` ends the wait.
        """
        self.closing = True
        if not last and self.output == NO_REQUEST:
            self.input = REFUSED

    @property
    def request_complete(self):
        """Whether the current request has come whole."""
        return self.input == COMPLETE

    @property
    def response_complete(self):
        """Whether the current response was queued to its end."""
        return self.output == SENT

    @property
    def is_until_close(self):
        """Whether what is sent has no length: it ends with the connection."""
        return self.output == UNTIL_CLOSE or self.output == TUNNELLED

    @property
    def idle(self):
        """Whether no request has begun."""
        return self.is_idle()

    @property
    def waiting(self):
        """How many received octets wait for the end of the current response."""
        return len(self.rest)

    # ---- Receiving ----

    cdef bint is_idle(self) noexcept:
        return self.input == REQUEST_LINE and self.output == NO_REQUEST

    cdef list receive(self, const uint8_t *p, Py_ssize_t n, bytes owner):
        """Parse ``n`` octets at ``p``; ``owner`` has just these, or is None."""
        cdef list events = []

        if self.input == REFUSED:
            return events
        if PyBytes_GET_SIZE(self.rest):
            owner = self.rest if n == 0 else self.rest + <bytes>p[:n]
            p = <const uint8_t *>PyBytes_AS_STRING(owner)
            n = PyBytes_GET_SIZE(owner)
        try:
            self._parse(p, n, owner, events)
        except _Refused as refusal:
            self.pieces.clear()
            self._refuse(refusal.args[0], refusal.args[1], events)
        return events

    cdef int _parse(
        self, const uint8_t *p, Py_ssize_t n, bytes owner, list events
    ) except -1:
        """Parse octets, and keep in ``rest`` what cannot be parsed yet."""
        cdef:
            const uint8_t *found
            Py_ssize_t at = 0
            Py_ssize_t size
            Input state

        while at < n:
            state = self.input
            if state == BODY or state == CHUNK_DATA:
                size = n - at
                if <uint64_t>size > self.left:
                    size = self.left
                self.heard = True
                self.left -= size
                if self.discards:
                    self.discarded += size
                else:
                    self.pieces.append(
                        owner if size == n and owner is not None
                        else <bytes>p[at : at + size]
                    )
                at += size
                if self.left == 0:
                    if state == BODY:
                        self._complete(events)
                    else:
                        self.input = CHUNK_END
                continue
            if state == TUNNEL:
                self.pieces.append(
                    <bytes>p[at:n] if at or owner is None else owner
                )
                at = n
                break
            if state == COMPLETE or state == UNDECIDED:
                break
            if state == REFUSED:
                at = n  # a declined request was the last one
                break
            if state == CHUNK_END:
                if p[at] != b"\r" or (n - at > 1 and p[at + 1] != b"\n"):
                    raise _Refused(400, "a chunk is longer than its size")
                if n - at < 2:
                    break
                at += 2
                self.input = CHUNK_SIZE
                continue
            # What is left is lines.
            found = <const uint8_t *>memchr(
                p + at + self.scanned, b"\n", n - at - self.scanned
            )
            if found == NULL:
                self._line_too_long(p + at, n - at)
                self.scanned = n - at
                break
            self.scanned = 0
            size = found - (p + at)
            if size == 0 or p[at + size - 1] != b"\r":
                raise _Refused(400, "a line must end with CR LF")
            if state == CHUNK_SIZE:
                self._chunk_size(p + at, size - 1)
                at += size + 1
                continue
            self.head_size += size + 1
            self._line_too_long(p + at, 0)
            if state == REQUEST_LINE:
                if size == 1 and not self.skipped:
                    # RFC 9112, 2.2: one empty line is ignored.
                    self.skipped = True
                else:
                    self._request_line(p + at, size - 1)
                    self.input = FIELDS
            elif size > 1:
                self._field_line(p + at, size - 1)
            elif state == FIELDS:
                self._end_head(events)
            else:
                self._end_trailers(events)
            at += size + 1
        if at == n:
            self.rest = b""
        else:
            self.rest = <bytes>p[at:n] if at or owner is None else owner
        return self._flush_pieces(events)

    cdef int _flush_pieces(self, list events) except -1:
        """Report the body in one piece, of however many chunks it is."""
        if self.pieces:
            events.append(
                H1BodyReceived(
                    self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
                )
            )
            self.pieces.clear()
        return 0

    cdef int _complete(self, list events) except -1:
        self._flush_pieces(events)
        self.input = COMPLETE
        if not self.discards:
            events.append(END)
        elif self.output == SENT:
            self.go_on()
        return 0

    cdef int _line_too_long(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Check the size of a section with ``n`` octets of an incomplete line."""
        if self.input == CHUNK_SIZE:
            if n > CHUNK_LINE:
                raise _Refused(400, "the line with the size of a chunk is too long")
            return 0
        if self.input == REQUEST_LINE:
            if n and p[0] != b"\r" and not 0x21 <= p[0] <= 0x7E:
                raise _Refused(400, "this is no request line")
            if self.head_size + n > TARGET_SIZE + 64:
                raise _Refused(414, "the request target is too long")
        if self.head_size + n > HEAD_SIZE:
            raise _Refused(431, "the header section is too large")
        return 0

    # ---- The head ----

    cdef int _request_line(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Parse ``method SP target SP version`` (RFC 9112, 3)."""
        cdef const uint8_t *first = <const uint8_t *>memchr(p, b" ", n)
        cdef Py_ssize_t end = n - 9
        cdef bytes version
        cdef Py_ssize_t size

        if first == NULL or end <= first - p + 1 or p[end] != b" ":
            raise _Refused(400, "the request line must have three parts")
        if memcmp(p + end + 1, b"HTTP/1.", 7) or p[n - 1] & 0xFE != b"0":
            # Any version has this form (RFC 9112, 2.3).
            version = p[end + 1 : n]
            if (
                version[:5] == b"HTTP/"
                and version[5:6].isdigit()
                and version[6:7] == b"."
                and version[7:].isdigit()
            ):
                raise _Refused(505, "the version must be HTTP/1.1 or HTTP/1.0")
            raise _Refused(400, "the request line must end with a version")
        self.old = p[n - 1] == b"0"
        size = first - p
        if size == 3 and memcmp(p, b"GET", 3) == 0:
            self.method = GET
        else:
            self.method = p[:size]
        size += 1
        if end - size > TARGET_SIZE:
            raise _Refused(414, "the request target is too long")
        self.target = p[size:end]
        self.fields = []
        return 0

    cdef int _field_line(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Parse a field line (RFC 9112, 5)."""
        cdef:
            const uint8_t *colon = <const uint8_t *>memchr(p, b":", n)
            Py_ssize_t size
            Py_ssize_t start
            lib.ngp_token token
            lib.ngp_field_rule rule

        if is_space(p[0]):
            raise _Refused(400, "a field must not be folded")
        if colon == NULL:
            raise _Refused(400, "a field line must have a colon")
        if PyList_GET_SIZE(self.fields) >= FIELD_COUNT:
            raise _Refused(431, "there are too many fields")
        size = colon - p
        rule = lib.ngp_fields_name(p, size, lib.NGP_FIELDS_UPPER, &token)
        if rule != lib.NGP_FIELD_GOOD:
            raise _Refused(400, text_of(rule))
        start = size + 1
        while start < n and is_space(p[start]):
            start += 1
        while n > start and is_space(p[n - 1]):
            n -= 1
        rule = lib.ngp_fields_value(p + start, n - start, 0)
        if rule != lib.NGP_FIELD_GOOD:
            raise _Refused(400, text_of(rule))
        self.tokens[PyList_GET_SIZE(self.fields)] = <uint8_t>token
        self.fields.append((lower(p, size), <bytes>p[start:n]))
        return 0

    cdef int _split_target(self) except -1:
        """Find the form of the target (RFC 9112, 3.2), and split an absolute one."""
        cdef bytes target = self.target

        self.authority = None
        self.scheme = b"https" if self.secure else b"http"
        if self.method == b"CONNECT":
            # RFC 9110, 9.3.6: the port must be there.
            if b":" not in target.rpartition(b"]")[2]:
                raise _Refused(400, "the target of CONNECT must be host:port")
            self.authority = target
            self.scheme = None
        elif PyBytes_AS_STRING(target)[0] != c"/" and target != b"*":
            scheme, colon, rest = target.partition(b"://")
            if scheme.lower() not in (b"http", b"https") or not colon:
                raise _Refused(400, "the request target has no valid form")
            if scheme.lower() != self.scheme:
                # RFC 9110, 7.4.
                raise _Refused(421, "the target has not the connection's scheme")
            for i, c in enumerate(rest):
                if c == 0x2F or c == 0x3F:
                    break
            else:
                i = len(rest)
            self.authority = rest[:i]
            target = rest[i:]
            if target[:1] != b"/":
                # RFC 9112, 3.2.4: OPTIONS for the whole server.
                whole = self.method == b"OPTIONS" and not target
                target = b"*" if whole else b"/" + target
            self.target = target
        return 0

    cdef int _end_head(self, list events) except -1:
        """Report the request, whose header section is complete."""
        cdef:
            lib.ngp_fields section
            lib.ngp_field_rule rule
            lib.ngp_token token
            RequestReceived request
            list fields = self.fields
            list cookies = None
            list codings = None
            tuple pair
            bytes name
            bytes value
            bytes host = None
            bytes connection = None
            Py_ssize_t hosts = 0
            Py_ssize_t i
            bint upgrade = False
            bint chunked = False
            bint tunnel = self.method == b"CONNECT"
            bint keep = False
            bint close = False

        self._split_target()
        lib.ngp_fields_init(&section, lib.NGP_FIELDS_REQUEST, 0)
        rule = add(&section, lib.NGP_TOKEN__METHOD, self.method)
        if rule == lib.NGP_FIELD_GOOD and not tunnel:
            rule = add(&section, lib.NGP_TOKEN__SCHEME, self.scheme)
        if rule == lib.NGP_FIELD_GOOD and not tunnel:
            rule = add(&section, lib.NGP_TOKEN__PATH, self.target)
        if rule == lib.NGP_FIELD_GOOD and self.authority is not None:
            rule = add(&section, lib.NGP_TOKEN__AUTHORITY, self.authority)
        if rule != lib.NGP_FIELD_GOOD:
            raise _Refused(400, text_of(rule))
        self.takes_trailers = self.expects = self.heard = False
        for i in range(PyList_GET_SIZE(fields)):
            pair = <tuple>fields[i]
            name = <bytes>pair[0]
            value = <bytes>pair[1]
            token = <lib.ngp_token>self.tokens[i]
            if token == lib.NGP_TOKEN_OTHER:
                if PyBytes_GET_SIZE(name) == 6 and name == b"expect":
                    # RFC 9110, 10.1.1: it is ignored in a request of HTTP/1.0.
                    if value.lower() == b"100-continue" and not self.old:
                        self.expects = True
                continue
            if token == lib.NGP_TOKEN_CONNECTION:
                connection = value
                continue
            if token == lib.NGP_TOKEN_TRANSFER_ENCODING:
                if codings is None:
                    codings = []
                codings.append(value)
                continue
            if token == lib.NGP_TOKEN_UPGRADE:
                upgrade = True
                continue
            if token == lib.NGP_TOKEN_TE:
                if takes_trailers(value):
                    self.takes_trailers = True
                continue
            if (
                token == lib.NGP_TOKEN_KEEP_ALIVE
                or token == lib.NGP_TOKEN_PROXY_CONNECTION
            ):
                continue
            if token == lib.NGP_TOKEN_HOST:
                hosts += 1
                host = value
                if hosts == 1 and self.authority is not None:
                    # RFC 9112, 3.2.2: that of the target counts.
                    continue
            if token == lib.NGP_TOKEN_COOKIE:
                if cookies is None:
                    cookies = []
                cookies.append(value)
            rule = add_regular(&section, token, value)
            if rule != lib.NGP_FIELD_GOOD:
                raise _Refused(400, text_of(rule))
        if hosts > 1:
            raise _Refused(400, "host must not be repeated")
        if hosts == 0:
            if not self.old:
                # RFC 9112, 3.2.
                raise _Refused(400, "a request of HTTP/1.1 needs host")
            if self.authority is None:
                add_regular(&section, lib.NGP_TOKEN_HOST, b"localhost")
        rule = lib.ngp_fields_end(&section)
        if rule != lib.NGP_FIELD_GOOD:
            raise _Refused(400, text_of(rule))

        # How the message ends (RFC 9112, 6.3).
        self.left = section.content_length
        if codings is not None:
            check_coding(codings)
            if section.content_length != lib.NGP_FIELDS_NO_LENGTH:
                raise _Refused(
                    400, "content-length must not be sent with transfer-encoding"
                )
            if self.old:
                raise _Refused(400, "transfer-encoding is not for HTTP/1.0")
            if tunnel:
                raise _Refused(400, "CONNECT must not have content")
            chunked = True
        elif self.left == lib.NGP_FIELDS_NO_LENGTH:
            self.left = 0

        # Whether the connection goes on (RFC 9112, 9.3).
        if connection is not None:
            options = tokens(fields, b"connection")
            close = b"close" in options
            keep = b"keep-alive" in options
            upgrade = upgrade and b"upgrade" in options
        else:
            upgrade = False
        self.keeps = not close and (keep or not self.old)

        # RFC 6455, 4.1; the application checks the rest of the handshake.  Any other
        # upgrade is ignored, that to h2c, too (RFC 9113, 3.1).
        upgrade = (
            upgrade
            and self.tunnels
            and not (self.old or chunked or self.left)
            and self.method == b"GET"
            and b"websocket" in tokens(fields, b"upgrade")
        )
        if self.authority is None:
            self.authority = host
        elif host is not None and host != self.authority and not tunnel:
            fields = [
                (b"host", self.authority) if pair[0] == b"host" else pair
                for pair in fields
            ]
        if cookies is not None and len(cookies) > 1:
            # As in the other versions (RFC 9113, 8.2.3).
            fields = [pair for pair in fields if pair[0] != b"cookie"]
            fields.append((b"cookie", b"; ".join(cookies)))

        request = RequestReceived.__new__(RequestReceived)
        request.method = self.method
        request.target = self.target
        request.http_version = "1.0" if self.old else "1.1"
        request.scheme = self.scheme
        request.authority = self.authority
        request.protocol = b"websocket" if upgrade else None
        request.fields = tuple(fields)
        events.append(request)

        self.fields = []
        self.head_size = 0
        self.skipped = False
        self.excess = 0
        self.output = OWED
        if not (chunked or self.left):
            self.expects = False
        if tunnel or upgrade:
            self.input = UNDECIDED
        elif chunked:
            self.input = CHUNK_SIZE
        elif self.left:
            self.input = BODY
        else:
            self.input = COMPLETE
            events.append(END)
        return 0

    # ---- Chunks ----

    cdef int _chunk_size(self, const uint8_t *p, Py_ssize_t n) except -1:
        """Parse the line with the size of a chunk (RFC 9112, 7.1)."""
        cdef:
            uint64_t size = 0
            Py_ssize_t i = 0
            uint8_t c

        if n > CHUNK_LINE:
            raise _Refused(400, "the line with the size of a chunk is too long")
        while i < n:
            c = p[i]
            if 48 <= c <= 57:
                c -= 48
            elif 97 <= c | 0x20 <= 102:
                c = (c | 0x20) - 87
            else:
                break
            size = size << 4 | c
            i += 1
        if i == 0 or i > CHUNK_DIGITS:
            raise _Refused(400, "the size of a chunk must be a hexadecimal number")
        if i < n and (
            p[i] != b";"
            or lib.ngp_fields_value(p + i, n - i, lib.NGP_FIELDS_SPACES)
            != lib.NGP_FIELD_GOOD
        ):
            # RFC 9112, 7.1.1: only an extension may follow.
            raise _Refused(400, "the size of a chunk must be a hexadecimal number")
        # A client that sends a byte in each chunk is slow, one that sends long
        # extensions with it is hostile.
        self.excess += n
        self.excess -= min(self.excess, 16 + 2 * <Py_ssize_t>size)
        if self.excess > CHUNK_EXCESS:
            raise _Refused(400, "the extensions of chunks are too long")
        self.heard = True
        self.left = size
        self.input = CHUNK_DATA if size else TRAILERS
        return 0

    cdef int _end_trailers(self, list events) except -1:
        """Report the trailers and the end of a chunked body (RFC 9112, 7.1.2)."""
        cdef:
            lib.ngp_fields section
            lib.ngp_token token
            lib.ngp_field_rule rule
            Py_ssize_t i
            tuple pair

        if self.fields:
            lib.ngp_fields_init(&section, lib.NGP_FIELDS_TRAILERS, 0)
            for i in range(PyList_GET_SIZE(self.fields)):
                pair = <tuple>self.fields[i]
                token = <lib.ngp_token>self.tokens[i]
                # RFC 9110, 6.5.1: how a message is framed or routed must be known
                # before.
                if token == lib.NGP_TOKEN_HOST or token == lib.NGP_TOKEN_CONTENT_LENGTH:
                    raise _Refused(400, "this field must not be in trailers")
                rule = add_regular(&section, token, <bytes>pair[1])
                if rule != lib.NGP_FIELD_GOOD:
                    raise _Refused(400, text_of(rule))
            self._flush_pieces(events)
            if not self.discards:
                events.append(H1TrailersReceived(tuple(self.fields)))
            self.fields = []
        self.head_size = 0
        return self._complete(events)

    # ---- The end ----

    cdef int _refuse(self, int status, str reason, list events) except -1:
        """Answer what cannot be a request, and receive nothing any more."""
        cdef bytes text

        self.input = REFUSED
        self.rest = b""
        self.closing = True
        if self.output == NO_REQUEST or self.output == OWED:
            text = b"%d %b: %b\n" % (status, REASONS[status], reason.encode())
            self._write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b"
                % (
                    status, REASONS[status], len(text),
                    b"" if self.method == b"HEAD" and self.output == OWED else text,
                ),
                0,
            )
            self.output = SENT
            events.append(H1RequestRefused(status, reason))
            return 0
        events.append(H1RequestRefused(None, reason))
        return 0

    cdef int discard(self) except -1:
        if self.input != COMPLETE and not self.discards:
            self.discards = True
            self.discarded = 0
        return 0

    cdef int go_on(self) except -1:
        """Wait for the next request, after one that was answered."""
        self.discards = False
        self.expected = -1
        self.body_size = 0
        if self.closing or self.input == REFUSED:
            self.input = REFUSED
            self.rest = b""
        else:
            self.input = REQUEST_LINE
            self.scanned = 0
        self.output = NO_REQUEST
        return 0

    # ---- Sending ----

    cdef int _require_open(self) except -1:
        if self.output == NO_REQUEST:
            raise StreamStateError("there is no request to answer")
        if self.output == SENT:
            raise StreamStateError("our half has ended")
        return 0

    cdef int _write(self, bytes data, Py_ssize_t body) except -1:
        """Queue bytes, among which are ``body`` octets of a body."""
        cdef Py_ssize_t n = len(data)
        cdef Py_ssize_t at = 0

        self.out_size += n
        self.out_body += body
        if body == n:
            # So that a write copies no more than it takes.
            while n - at > GATHERED:
                self.out.append(data[at : at + GATHERED])
                self.out_bodies.append(GATHERED)
                at += GATHERED
        self.out.append(data[at:] if at else data)
        self.out_bodies.append(body - at)
        return 0

    cdef int _message_sent(self) except -1:
        self.output = SENT
        if self.input == UNDECIDED:
            # The upgrade was refused: what comes next is a request.  After a CONNECT,
            # it may be what the client meant for the tunnel.
            if self.method == b"CONNECT":
                self.closing = True
            self.input = COMPLETE
        return 0

    cdef int respond(self, status, fields, bint end) except -1:
        cdef:
            lib.ngp_fields section
            HeadWriter writer
            bytes text = status_text(status)
            bytes head
            list pairs = []
            uint64_t length
            bint close = False
            bint no_content
            bint tunnel
            int number = status

        if self.output != OWED:
            self._require_open()
            raise StreamStateError("a response was sent already")
        add_pairs(pairs, fields)
        _memory = begin_head(&writer, pairs)
        append_status(&writer, number)
        close = write_fields(
            pairs, &section, lib.NGP_FIELDS_RESPONSE, text, &writer, number
        )
        length = section.content_length
        no_content = number == 204 or number == 304 or self.method == b"HEAD"
        tunnel = self.method == b"CONNECT" and 200 <= number < 300
        if (
            not no_content
            and (end or number == 205)
            and length
            and length != lib.NGP_FIELDS_NO_LENGTH
            and not tunnel
        ):
            raise InvalidBodyLengthError(length, 0)

        if close or not self.keeps:
            self.closing = True
        if self.expects and not self.heard and self.input != COMPLETE:
            # RFC 9110, 10.1.1: the client may send the body or not.
            self.closing = True
        if tunnel and not end:
            self.output = TUNNELLED
            self.input = TUNNEL
        elif no_content:
            self.output = NO_CONTENT
        elif end or number == 205:
            # RFC 9110, 15.3.6: 205 has no content, but for that it says so.
            self.output = NO_CONTENT
            if length == lib.NGP_FIELDS_NO_LENGTH and not tunnel:
                append(&writer, b"\r\ncontent-length: 0")
        elif length != lib.NGP_FIELDS_NO_LENGTH:
            self.output = LENGTH
            self.expected = length
        elif self.old:
            self.output = UNTIL_CLOSE
            self.closing = True
        else:
            self.output = CHUNKED
        if self.output != TUNNELLED:
            if self.closing:
                append(&writer, b"\r\nconnection: close")
            elif self.old:
                append(&writer, b"\r\nconnection: keep-alive")
            elif number == 426:
                # RFC 9110, 7.8: upgrade is not sent without it.
                append(&writer, b"\r\nconnection: upgrade")
        append(&writer, CHUNKED_END if self.output == CHUNKED else b"\r\n\r\n")
        head = end_head(&writer)
        if self.output == CHUNKED or self.output == UNTIL_CLOSE:
            self.head = head
        self._write(head, 0)
        if end:
            self._message_sent()
        return 0

    cdef int inform(self, status, fields) except -1:
        cdef:
            lib.ngp_fields section
            HeadWriter writer
            bytes text = status_text(status)
            list pairs = []

        add_pairs(pairs, fields)
        _memory = begin_head(&writer, pairs)
        append_status(&writer, status)
        write_fields(pairs, &section, lib.NGP_FIELDS_INFORMATIONAL, text, &writer, 0)
        if self.output != OWED:
            self._require_open()
            raise StreamStateError("the final response was sent already")
        if status == 100:
            self.expects = False
        if not self.old:
            # RFC 9110, 15.2: a client of HTTP/1.0 has no such responses.
            append(&writer, b"\r\n\r\n")
            self._write(end_head(&writer), 0)
        return 0

    cdef int begin_tunnel(self, fields) except -1:
        cdef:
            lib.ngp_fields section
            HeadWriter writer
            list pairs = []

        if self.output != OWED or self.input != UNDECIDED:
            self._require_open()
            raise StreamStateError("the request does not ask for a tunnel")
        if self.method == b"CONNECT":
            return self.respond(200, fields, False)
        add_pairs(pairs, fields)
        _memory = begin_head(&writer, pairs)
        append_status(&writer, 101)
        write_fields(pairs, &section, lib.NGP_FIELDS_RESPONSE, b"200", &writer, 101)
        append(&writer, b"\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        self._write(end_head(&writer), 0)
        self.output = TUNNELLED
        self.input = TUNNEL
        return 0

    cdef int _check_queue(self, Py_ssize_t n) except -1:
        if n and self.out_body and <size_t>(self.out_body + n) > self.max_body_queue:
            raise BodyQueueFullError(
                f"{self.out_body} bytes of the body are queued, and {n} more would be "
                f"beyond the bound of {self.max_body_queue}"
            )
        return 0

    cdef int check_send(self, Py_ssize_t n, bint end) except -1:
        """Raise what ``send`` would raise for ``n`` octets, but for a full queue."""
        cdef int64_t size = self.body_size + n

        self._require_open()
        if self.output == OWED:
            raise StreamStateError("headers must be sent first")
        if self.output == NO_CONTENT and n:
            raise InvalidBodyLengthError(0, n)
        if self.output == LENGTH and (
            size > self.expected or (end and size < self.expected)
        ):
            raise InvalidBodyLengthError(self.expected, size)
        return 0

    cdef int send(self, bytes data, bint end) except -1:
        cdef Py_ssize_t n = len(data)

        self.check_send(n, end)
        self._check_queue(n)
        if end and (self.output == CHUNKED or self.output == UNTIL_CLOSE):
            self._state_length(n)
        self.body_size += n
        if self.output == CHUNKED:
            if n > 16384:
                self._write(b"%x\r\n" % n, 0)
                self._write(data, n)
                self._write(b"\r\n0\r\n\r\n" if end else b"\r\n", 0)
            elif n:
                self._write(
                    (b"%x\r\n%b\r\n0\r\n\r\n" if end else b"%x\r\n%b\r\n") % (n, data),
                    n,
                )
            elif end:
                self._write(b"0\r\n\r\n", 0)
        elif n:
            self._write(data, n)
        if end:
            if self.output == TUNNELLED:
                self.closing = True
            self._message_sent()
        return 0

    cdef int _state_length(self, Py_ssize_t n) except -1:
        """Add content-length to the head, if that and all of the body are queued."""
        cdef Py_ssize_t last = len(self.out) - 1
        cdef Py_ssize_t end

        if self.body_size or last < 0 or self.out[last] is not self.head:
            return 0
        end = CHUNKED_END_SIZE if self.output == CHUNKED else 4
        head = b"%b\r\ncontent-length: %d\r\n\r\n" % (self.head[:-end], n)
        self.out_size += len(head) - len(self.head)
        self.out[last] = head
        self.output = LENGTH
        self.expected = n
        return 0

    cdef bint shows_end(self) noexcept:
        """Return whether the client sees that what is queued is not all."""
        return self.output == CHUNKED or (
            self.output == LENGTH and self.body_size < self.expected
        )

    cdef list check_trailers(self, fields):
        """Return trailers that may be sent."""
        cdef lib.ngp_fields section
        cdef HeadWriter writer
        cdef list pairs = []

        add_pairs(pairs, fields)
        _memory = begin_head(&writer, pairs)
        write_fields(pairs, &section, lib.NGP_FIELDS_TRAILERS, None, &writer, 0)
        return pairs

    cdef int trail(self, list pairs) except -1:
        cdef lib.ngp_fields section
        cdef HeadWriter writer

        self.check_send(0, True)
        if self.output == CHUNKED and self.takes_trailers:
            _memory = begin_head(&writer, pairs)
            append(&writer, b"0")
            write_fields(pairs, &section, lib.NGP_FIELDS_TRAILERS, None, &writer, 0)
            append(&writer, b"\r\n\r\n")
            self._write(end_head(&writer), 0)
            return self._message_sent()
        return self.send(b"", True)

    cdef bytes take_output(self, Py_ssize_t limit):
        cdef:
            bytes data
            bytes piece
            Py_ssize_t size = 0
            Py_ssize_t body = 0
            Py_ssize_t n
            Py_ssize_t count = 0

        if self.out_size <= limit:
            if not self.out_size:
                return b""
            data = join_pieces(self.out, self.out_size)
            self.out.clear()
            self.out_bodies.clear()
            self.out_size = self.out_body = 0
            return data
        while size < limit:
            piece = <bytes>self.out[count]
            n = len(piece)
            if size + n > limit:
                if 2 * size >= limit:
                    break  # cutting a piece copies it
                if not self.out_bodies[count] or n <= 16384 + 32:
                    if size:
                        break
                else:
                    # A large piece has nothing but octets of a body.
                    n = limit - size
                    self.out[count] = piece[n:]
                    self.out.insert(count, piece[:n])
                    self.out_bodies[count] -= n
                    self.out_bodies.insert(count, n)
            size += n
            body += <Py_ssize_t>self.out_bodies[count]
            count += 1
        data = join_pieces(self.out[:count], size)
        del self.out[:count]
        del self.out_bodies[:count]
        self.out_size -= size
        self.out_body -= body
        return data


cdef bytes join_pieces(list pieces, Py_ssize_t size):
    """Join pieces of bytes, which have ``size`` octets together."""
    cdef bytes data
    cdef bytes piece
    cdef char *end

    if PyList_GET_SIZE(pieces) == 1:
        return <bytes>pieces[0]
    data = PyBytes_FromStringAndSize(NULL, size)
    end = PyBytes_AS_STRING(data)
    for piece in pieces:
        memcpy(end, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        end += PyBytes_GET_SIZE(piece)
    return data


cdef inline lib.ngp_field_rule add(
    lib.ngp_fields *section, lib.ngp_token token, bytes value
):
    return lib.ngp_fields_add(
        section, token, 1, <const uint8_t *>PyBytes_AS_STRING(value), len(value)
    )


cdef inline lib.ngp_field_rule add_regular(
    lib.ngp_fields *section, lib.ngp_token token, bytes value
):
    return lib.ngp_fields_add(
        section, token, 0, <const uint8_t *>PyBytes_AS_STRING(value), len(value)
    )


cdef int check_coding(list codings) except -1:
    """Raise unless the only transfer coding is ``chunked`` (RFC 9112, 6.1 and 7)."""
    cdef bytes coding = <bytes>codings[0]

    if len(codings) == 1 and coding.lower() == b"chunked":
        return 0
    names = [name.strip(b" \t") for name in coding.lower().split(b",")]
    if (
        len(codings) == 1
        and names[-1] == b"chunked"
        and len(names) > 1
        and all(name.isalnum() and name != b"chunked" for name in names[:-1])
    ):
        raise _Refused(501, "no transfer coding but chunked is supported")
    raise _Refused(400, "transfer-encoding must be chunked")
