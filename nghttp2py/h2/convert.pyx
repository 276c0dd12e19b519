"""Conversions between Python and C: numbers, settings, fields and events."""

cimport cython
from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.tuple cimport (
    PyTuple_CheckExact,
    PyTuple_GET_SIZE,
    PyTuple_New,
    PyTuple_SET_ITEM,
)
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
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
from nghttp2py.hpack cimport to_field
from nghttp2py.octets cimport copy_bytes

import base64
import binascii
from collections import deque
from collections.abc import Mapping

from nghttp2py.errors import (
    HeadersError,
    InvalidBodyLengthError,
    InvalidSettingsValueError,
    NoSuchStreamError,
    ProtocolError,
    StreamStateError,
    from_code,
    printable,
)
from nghttp2py.h2.config import Setting
from nghttp2py.h2.events import (
    H2AlternativeServiceReceived,
    H2BodyFailed,
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

cdef extern from "Python.h":
    # Cython's own return new references.
    PyObject *PyList_GET_ITEM(object, Py_ssize_t)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL


# ---- Numbers, bytes and errors ----


cdef enum:
    # A frame's type (RFC 9113, 6.4).
    RST_STREAM = 3


cdef int check(int rv, object stream_id=None) except -1:
    """Make the exception for a negative return code."""
    if rv < 0:
        raise from_code(rv, lib.ngp_strerror(rv).decode(), stream_id)
    return rv


cdef int check_sent(lib.ngp_h2 *h2, int rv, stream_id, str state) except -1:
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
        lib.ngp_h2_body_lengths(h2, stream_id, &expected, &queued)
        raise InvalidBodyLengthError(expected, queued)
    raise from_code(rv, lib.ngp_strerror(rv).decode(), stream_id)


cdef int check_message(
    lib.ngp_h2 *h2, int rv, FieldList fields, const lib.ngp_h2_header_error *error,
    stream_id, str state,
) except -1:
    """Check the result of queueing the header section ``fields``."""
    if rv == lib.NGP_ERR_BAD_HEADERS:
        raise fields.error(error)
    if rv == lib.NGP_ERR_BODY_LENGTH:
        raise InvalidBodyLengthError(fields.content_length(), 0)
    return check_sent(h2, rv, stream_id, state)


cdef uint32_t to_uint32(value, what) except? 0xFFFFFFFF:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not 0 <= value <= 0xFFFFFFFF:
        raise ValueError(f"{what} is {value}, but must be from 0 to {0xFFFFFFFF}")
    return value


cdef int32_t to_stream_id(value) except -1:
    """Check an identifier that a caller gave (RFC 9113, 5.1.1)."""
    cdef:
        long long n
        int overflow = 0

    if PyLong_CheckExact(value):
        # C numbers, because this is called for every message and piece of a body.
        n = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and 0 < n <= MAX_WINDOW:
            return <int32_t>n
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"stream_id must be an int, not {type(value).__name__}")
    if not 0 < value <= MAX_WINDOW:
        raise NoSuchStreamError(f"there is no stream {value}", value)
    return value


cdef bytes as_bytes(value):
    if PyBytes_CheckExact(value):
        return value
    if PyObject_CheckBuffer(value):
        return bytes(value)
    raise TypeError(f"bytes are wanted, not {type(value).__name__}")


cdef list STATUS = [b"%d" % status for status in range(1000)]


cdef bytes status_text(status):
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"status must be an int, not {type(status).__name__}")
    if not 100 <= status <= 999:
        raise HeadersError(
            f"status is {status}, but must have three digits (RFC 9110, 15)"
        )
    return STATUS[<Py_ssize_t>status]


cdef bytes join_output(lib.ngp_h2 *h2):
    """Return the bytes for the peer, and clear them in C."""
    cdef:
        size_t n = 0
        size_t total = 0
        const lib.ngp_h2_segment *segment = lib.ngp_h2_output(h2, &n, &total)
        size_t i
        char *end
        bytes data

    if n == 0:
        return b""
    data = PyBytes_FromStringAndSize(NULL, total)
    end = PyBytes_AS_STRING(data)
    for i in range(n):
        memcpy(end, segment[i].base, segment[i].len)
        end += segment[i].len
    lib.ngp_h2_clear_output(h2)
    return data


cdef list list_output(lib.ngp_h2 *h2):
    """Return the bytes for the peer as bytes and memoryviews; clear them in C."""
    cdef:
        size_t n = 0
        size_t total = 0
        const lib.ngp_h2_segment *segment = lib.ngp_h2_output(h2, &n, &total)
        size_t i
        size_t start
        list pieces = []

    for i in range(n):
        if segment[i].owner == NULL:
            pieces.append(copy_bytes(segment[i].base, segment[i].len))
            continue
        owner = <bytes>segment[i].owner
        start = segment[i].base - <const uint8_t *>PyBytes_AS_STRING(owner)
        if start == 0 and segment[i].len == <size_t>PyBytes_GET_SIZE(owner):
            pieces.append(owner)
        else:
            pieces.append(memoryview(owner)[start : start + segment[i].len])
    lib.ngp_h2_clear_output(h2)
    return pieces


# ---- The configuration, settings and counters ----


cdef list find_missing_options():
    """Return the bounds that this build's C library lacks, by their names in the
    configuration."""
    cdef const lib.ngp_feature *feature = lib.ngp_features()
    cdef list missing = []
    options = {
        "stream_reset_rate_limit": "stream_reset_burst",
        "max_continuations": "max_continuations",
        "max_outbound_queue_size": "max_outbound_queue_size",
        "glitch_rate_limit": "glitch_burst",
    }

    while feature.name != NULL:
        name = feature.name.decode()
        if name in options and not feature.present:
            missing.append(options[name])
        feature += 1
    return missing


cdef list MISSING_OPTIONS = find_missing_options()


cdef int fill_options(lib.ngp_h2_options *options, config, bint client) except -1:
    """Fill ``options`` from a configuration; refuse what this build does not
    support."""
    for name in MISSING_OPTIONS:
        if getattr(config, name) is not None:
            raise InvalidSettingsValueError(
                f"{name} is set, but this build's nghttp2 "
                f"{lib.nghttp2_version(0).version_str.decode()} does not have it"
            )
    options.is_client = client
    options.manual_credit = config.manual_flow_control
    options.default_incremental = config.default_incremental
    options.recv_extensions = config.receive_extension_frames
    options.no_deflate_table = config.max_deflate_dynamic_table_size == 0
    options.no_auto_ping_ack = not config.automatic_ping_ack
    options.lenient_fields = config.lenient_inbound_headers
    options.pad_multiple = config.pad_multiple
    options.max_header_list_bytes = config.max_header_list_bytes
    options.max_header_list_count = config.max_header_list_count
    options.max_body_queue = config.max_body_queue
    options.max_data_frame = config.max_data_frame
    options.max_provoked_resets = config.max_provoked_resets
    options.max_glitches = config.max_glitches
    options.peer_max_concurrent_streams = config.peer_max_concurrent_streams or 0
    options.max_reserved_remote_streams = config.max_reserved_remote_streams or 0
    options.max_send_header_block_length = config.max_send_header_block_length or 0
    options.max_deflate_dynamic_table_size = (
        config.max_deflate_dynamic_table_size or 0
    )
    options.max_outbound_ack = config.max_outbound_ack or 0
    options.max_settings = config.max_settings or 0
    options.max_continuations = config.max_continuations or 0
    options.max_outbound_queue_size = config.max_outbound_queue_size or 0
    options.stream_reset_burst = config.stream_reset_burst or 0
    options.stream_reset_rate = config.stream_reset_rate or 0
    options.glitch_burst = config.glitch_burst or 0
    options.glitch_rate = config.glitch_rate or 0
    return 0


cdef size_t write_settings(
    dict settings, lib.nghttp2_settings_entry *entries
) except? 0:
    cdef size_t n = 0

    if len(settings) > MAX_SETTINGS:
        raise InvalidSettingsValueError(
            f"{len(settings)} settings in a frame, but {MAX_SETTINGS} are the most"
        )
    for setting, value in settings.items():
        if to_uint32(setting, "a setting's identifier") > 0xFFFF:
            raise InvalidSettingsValueError(
                f"{setting} is not a setting's identifier (RFC 9113, 6.5.1)"
            )
        entries[n].settings_id = setting
        entries[n].value = to_uint32(value, f"setting {setting}")
        n += 1
    return n


cdef int check_settings(dict settings, bint client, bint connect_enabled) except -1:
    """Refuse settings that are invalid for this role."""
    if not client and settings.get(int(Setting.ENABLE_PUSH)):
        raise InvalidSettingsValueError(
            "ENABLE_PUSH of a server must be 0 (RFC 9113, 6.5.2)"
        )
    if connect_enabled and settings.get(int(Setting.ENABLE_CONNECT_PROTOCOL)) == 0:
        raise InvalidSettingsValueError(
            "ENABLE_CONNECT_PROTOCOL must not go back from 1 to 0 (RFC 8441, 3)"
        )
    return 0


cdef dict read_session_settings(lib.ngp_h2 *h2, bint local):
    """Return the settings in force of one end: ``Setting`` to value."""
    cdef lib.nghttp2_session *session = lib.ngp_h2_session(h2)

    return {
        setting: (
            lib.nghttp2_session_get_local_settings
            if local
            else lib.nghttp2_session_get_remote_settings
        )(session, <lib.nghttp2_settings_id><int>setting)
        for setting in Setting
    }


cdef bytes pack_settings(dict settings):
    """Return the payload of SETTINGS (RFC 9113, 6.5.1)."""
    cdef:
        uint8_t payload[6 * MAX_SETTINGS]
        lib.nghttp2_settings_entry entries[MAX_SETTINGS]
        Py_ssize_t n = lib.nghttp2_pack_settings_payload2(
            payload, sizeof(payload), entries, write_settings(settings, entries)
        )

    return copy_bytes(payload, check(n))


cdef bytes decode_settings(value):
    """Decode an HTTP2-Settings field (RFC 7540, 3.2.1)."""
    if value is None:
        raise TypeError("a server needs the value of HTTP2-Settings")
    data = value.encode("ascii", "replace") if isinstance(value, str) else bytes(value)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ProtocolError(f"HTTP2-Settings {value!r}: {error}") from None


cdef dict describe_counters(lib.ngp_h2 *h2):
    cdef const lib.ngp_h2_counters *c = lib.ngp_h2_get_counters(h2)
    cdef lib.nghttp2_session *session = lib.ngp_h2_session(h2)
    cdef int i

    return {
        "frames_received": {
            i: c.frames_received[i]
            for i in range(lib.NGP_H2_FRAME_TYPES)
            if c.frames_received[i]
        },
        "frames_sent": {
            i: c.frames_sent[i]
            for i in range(lib.NGP_H2_FRAME_TYPES)
            if c.frames_sent[i]
        },
        "bytes_received": c.bytes_received,
        "bytes_sent": c.bytes_sent,
        "header_bytes_received": c.header_bytes_received,
        "header_block_bytes_received": c.header_block_bytes_received,
        "header_bytes_sent": c.header_bytes_sent,
        "header_block_bytes_sent": c.header_block_bytes_sent,
        "resets_received": c.frames_received[RST_STREAM],
        "resets_sent": c.frames_sent[RST_STREAM],
        "streams_opened": c.streams_opened,
        "provoked_resets": c.provoked_resets,
        "glitches": c.glitches,
        "outbound_queue": lib.nghttp2_session_get_outbound_queue_size(session),
        "inflate_table_size": (
            lib.nghttp2_session_get_hd_inflate_dynamic_table_size(session)
        ),
        "deflate_table_size": (
            lib.nghttp2_session_get_hd_deflate_dynamic_table_size(session)
        ),
    }


# ---- Received fields ----


cdef enum:
    # A peer's usual fields are in its HPACK table and come in the same two buffers each
    # time; a table of 4 KiB has fewer entries than this.  Each field may be in two of
    # the slots, so that few evict each other: 2 ** 6 times two, see slot_of().
    SLOTS = 128
    # Larger fields have separate slots: few of them fit into the table.
    MAX_SMALL = 512
    LARGE_SLOTS = 8
    # The table's usual size: a larger field is never in it.
    MAX_LARGE = 4096
    # The size of all the fields that are kept, counted as the table counts
    # (RFC 7541, 4.1): an idle connection is to stay small.
    MAX_KEPT = 8192
    # The number of fields of most messages: see FieldList._few.
    FEW = 16


# The fields whose values no message shows.
cdef frozenset SECRET = frozenset(
    (b"authorization", b"proxy-authorization", b"cookie", b"set-cookie")
)


# Pseudo-header fields whose value is never a number.
cdef frozenset NO_NUMBERS = frozenset(
    name
    for text in (":method", ":scheme", ":path", ":authority", ":protocol")
    for name in (text, text.encode())
)


cdef class FieldReader:
    """Makes pairs of received fields, and reuses those of repeated table entries.

    The key is the addresses of the two buffers: while they are held, no other field can
    have them.
    """

    def __cinit__(self, bint lenient=False):
        self._lenient = lenient

    def __dealloc__(self):
        self._forget()
        PyMem_Free(self._pairs)

    cdef void _forget(self) noexcept:
        cdef int i

        for i in range(LARGE_SLOTS):
            drop(&self._large[i])
        if self._pairs != NULL:
            for i in range(SLOTS):
                drop(&self._pairs[i])
        self._kept = 0

    cdef int _keep(
        self, CachedPair *slot, const lib.ngp_h2_field *field, tuple pair
    ) except -1:
        """Keep ``pair``, dropping all others if there is no room."""
        cdef size_t n = cost_of(field.name, field.value)

        if slot.pair != NULL:
            self._kept -= cost_of(slot.name, slot.value)
            drop(slot)
        if self._kept + n > MAX_KEPT:
            self._forget()
        self._kept += n
        keep(slot, field, pair)
        return 0

    cdef object pair(self, const lib.ngp_h2_field *field):
        cdef:
            CachedPair *slot
            CachedPair *other
            lib.nghttp2_vec name
            lib.nghttp2_vec value
            tuple pair

        if self._pairs == NULL:
            self._pairs = <CachedPair *>PyMem_Calloc(SLOTS, sizeof(CachedPair))
            if self._pairs == NULL:
                raise MemoryError
        slot = &self._pairs[slot_of(field)]
        if slot.name == field.name and slot.value == field.value:
            return <object>slot.pair
        other = slot + 1
        if other.name == field.name and other.value == field.value:
            return <object>other.pair
        if field.never_indexed:
            # Such a field is in no table.  A proxy forwards it with its mark.
            return NeverIndexed(*new_pair(field, self._lenient))
        name = lib.nghttp2_rcbuf_get_buf(field.name)
        value = lib.nghttp2_rcbuf_get_buf(field.value)
        if name.len + value.len > MAX_SMALL:
            return self._large_pair(field, name.len + value.len)
        pair = new_pair(field, self._lenient)
        if slot.pair != NULL:
            # The older of the two is replaced.
            if other.pair != NULL:
                self._kept -= cost_of(other.name, other.value)
                drop(other)
            other[0] = slot[0]
            slot.pair = NULL
        self._keep(slot, field, pair)
        return pair

    cdef object _large_pair(self, const lib.ngp_h2_field *field, size_t n):
        """Make a pair of ``n`` bytes, or return the kept one if it repeats.

        Otherwise a peer could make us allocate megabytes by a read of some kilobytes
        that name one table entry again and again.
        """
        cdef:
            CachedPair *slot
            tuple pair
            int i

        for i in range(LARGE_SLOTS):
            slot = &self._large[i]
            if slot.name == field.name and slot.value == field.value:
                return <object>slot.pair
        pair = new_pair(field, self._lenient)
        if n <= MAX_LARGE:
            self._keep(&self._large[self._next_large], field, pair)
            self._next_large = (self._next_large + 1) % LARGE_SLOTS
        return pair


cdef size_t slot_of(const lib.ngp_h2_field *field) noexcept:
    """Return the first of the two slots of a field.

    Buffers of the static table are at equal distances: a plain sum would put them all
    into one slot.
    """
    cdef uint64_t sum = <uint64_t>(<uintptr_t>field.name) * 3
    sum += <uintptr_t>field.value
    # The upper bits of a product with 2**64 / the golden ratio.
    return <size_t>((sum * <uint64_t>0x9E3779B97F4A7C15) >> 58) * 2


cdef tuple new_pair(const lib.ngp_h2_field *field, bint lenient):
    cdef:
        lib.nghttp2_vec name = lib.nghttp2_rcbuf_get_buf(field.name)
        lib.nghttp2_vec value = lib.nghttp2_rcbuf_get_buf(field.value)

    if lenient:
        while value.len and value.base[0] in b" \t":
            value.base += 1
            value.len -= 1
        while value.len and value.base[value.len - 1] in b" \t":
            value.len -= 1
    return (
        copy_bytes(name.base, name.len),
        copy_bytes(value.base, value.len),
    )


cdef int keep(
    CachedPair *slot, const lib.ngp_h2_field *field, tuple pair
) except -1:
    lib.nghttp2_rcbuf_incref(field.name)
    lib.nghttp2_rcbuf_incref(field.value)
    Py_INCREF(pair)
    slot.name = field.name
    slot.value = field.value
    slot.pair = <void *>pair
    return 0


cdef size_t cost_of(lib.nghttp2_rcbuf *name, lib.nghttp2_rcbuf *value) noexcept:
    return (
        lib.nghttp2_rcbuf_get_buf(name).len + lib.nghttp2_rcbuf_get_buf(value).len + 32
    )


cdef void drop(CachedPair *slot) noexcept:
    if slot.pair == NULL:
        return
    lib.nghttp2_rcbuf_decref(slot.name)
    lib.nghttp2_rcbuf_decref(slot.value)
    slot.name = NULL
    slot.value = NULL
    Py_DECREF(<object>slot.pair)
    slot.pair = NULL


# ---- Sent fields ----


cdef Py_ssize_t borrow_fields(
    headers, lib.nghttp2_nv *nva, Py_ssize_t room
) except -2:
    """Fill ``nva`` from a list or tuple of plain pairs; return their number.

    Plain pairs are tuples of two bytes or str objects.  For anything else, and more
    than ``room`` of them, it returns -1, and the caller needs a ``FieldList``.  No code
    of the program runs, and ``nva`` points into the objects, so it is valid until
    Python code runs again.
    """
    cdef:
        Py_ssize_t n
        Py_ssize_t i
        object item

    if PyTuple_CheckExact(headers):
        n = PyTuple_GET_SIZE(headers)
    elif PyList_CheckExact(headers):
        n = PyList_GET_SIZE(headers)
    else:
        return -1
    if n > room:
        return -1
    for i in range(n):
        item = <object>(
            PyList_GET_ITEM(headers, i)
            if PyList_CheckExact(headers)
            else PyTuple_GET_ITEM(headers, i)
        )
        if not PyTuple_CheckExact(item) or PyTuple_GET_SIZE(item) != 2:
            return -1
        if not borrow_text(
            <object>PyTuple_GET_ITEM(item, 0), &nva[i].name, &nva[i].namelen
        ) or not borrow_text(
            <object>PyTuple_GET_ITEM(item, 1), &nva[i].value, &nva[i].valuelen
        ):
            return -1
        nva[i].flags = lib.NGHTTP2_NV_FLAG_NONE
    return n


cdef bint borrow_text(text, uint8_t **pbase, size_t *plen) except -1:
    cdef Py_ssize_t n

    if PyBytes_CheckExact(text):
        pbase[0] = <uint8_t *>PyBytes_AS_STRING(text)
        plen[0] = PyBytes_GET_SIZE(text)
        return True
    if PyUnicode_CheckExact(text):
        try:
            pbase[0] = <uint8_t *>PyUnicode_AsUTF8AndSize(text, &n)
        except UnicodeEncodeError:
            return False  # FieldList.extend() names the field
        plen[0] = n
        return True
    return False


cdef FieldList request_fields(method, target, scheme, authority, protocol):
    """Return the pseudo-header fields of a request (RFC 9113, 8.3.1 and 8.5)."""
    cdef FieldList fields = FieldList()

    pseudo = [(b":method", method)]
    if method in (b"CONNECT", "CONNECT") and protocol is None:
        pseudo.append((b":authority", target))
    else:
        pseudo += [(b":scheme", scheme), (b":path", target)]
        if authority is not None:
            pseudo.append((b":authority", authority))
        if protocol is not None:
            pseudo.append((b":protocol", protocol))
    fields.extend(pseudo)
    return fields


def to_pairs(headers, status=None):
    """Return the fields of a section as pairs of bytes, in a list.

    ``headers`` are in a form that ``send_headers`` takes: a never-indexed field is a
    triple whose last item is True.  With ``status`` they are a response's, and
    ``:status`` is the first.
    """
    cdef FieldList fields = FieldList()

    if status is not None:
        fields.add(b":status", status_text(status))
    fields.extend(headers)
    return fields._pairs


cdef int add_pairs(list pairs, headers) except -1:
    """Append fields to a list, each as a tuple of bytes."""
    cdef tuple pair

    if not isinstance(headers, (list, tuple)):
        if isinstance(headers, Mapping):
            headers = headers.items()
        elif isinstance(headers, (str, bytes, bytearray)):
            raise TypeError(
                "headers must be pairs of name and value, not "
                f"{type(headers).__name__}"
            )
    for item in headers:
        if (
            PyTuple_CheckExact(item)
            and PyTuple_GET_SIZE(item) == 2
            and PyBytes_CheckExact((<tuple>item)[0])
            and PyBytes_CheckExact((<tuple>item)[1])
        ):
            pair = <tuple>item
        else:
            pair = to_pair(item)
        pairs.append(pair)
    return 0


def make_request(pairs, str version not None):
    """Make a request of a whole header section, pseudo-header fields included.

    The items of ``pairs`` are tuples of bytes, a name and a value first.
    """
    cdef RequestReceived request = RequestReceived.__new__(RequestReceived)
    cdef bytes name

    request.http_version = version
    request.fields = tuple(pairs)
    for pair in request.fields:
        name = pair[0]
        if not name.startswith(b":"):
            continue
        if name == b":method":
            request.method = pair[1]
        elif name == b":path":
            request.target = pair[1]
        elif name == b":scheme":
            request.scheme = pair[1]
        elif name == b":authority":
            request.authority = pair[1]
        elif name == b":protocol":
            request.protocol = pair[1]
    if request.method is None:
        request.method = b""
    if request.target is None:
        request.target = request.authority or b""
    return request


cdef tuple to_pair(item):
    """Return (name, value, never_indexed) for a field of any accepted form.

    A value may be an int, such as that of content-length; it is sent in decimal.
    """
    try:
        if (
            isinstance(item, (tuple, list))
            and len(item) == 2
            and type(item[1]) is int
            and isinstance(item[0], (str, bytes))
            and item[0] not in NO_NUMBERS
        ):
            item = (item[0], b"%d" % item[1])
        return to_field(item)
    except TypeError as error:
        if not isinstance(item, (tuple, list)) or not item:
            raise
        raise TypeError(f"field {item[0]!r}: {error}") from None
    except UnicodeEncodeError as error:
        raise HeadersError(f"a field cannot be sent: {error}") from None


cdef str show(tuple pair):
    """Format a field for an error message; redact secrets, because messages are
    logged."""
    name, value = pair[0], pair[1]
    if (len(pair) == 3 and pair[2]) or name.lower() in SECRET:
        return f"{name[:64]!r}: {len(value)} bytes"
    if len(name) + len(value) <= 64:
        return f"{name!r}: {value!r}"
    return f"{name[:64]!r}: {value[:64]!r}... ({len(value)} bytes)"


# RFC 9113, 8.2.2.  ``te`` is not in it: it may be "trailers".
cdef frozenset CONNECTION_SPECIFIC = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding",
        b"upgrade",
    )
)


@cython.freelist(8)
cdef class FieldList:
    """A header list to send.

    ``extend`` runs the caller's code (iterators, ``__iter__``); ``nva`` does
    not, and what it returns is valid as long as this object.
    """

    def __cinit__(self):
        self._pairs = []

    def __dealloc__(self):
        PyMem_Free(self._many)

    cdef int add(self, bytes name, bytes value) except -1:
        self._pairs.append((name, value))
        return 0

    cdef int extend(self, headers) except -1:
        return add_pairs(self._pairs, headers)

    cdef int normalize(self) except -1:
        """Strip white space, and drop fields that concern one HTTP/1.1 connection.

        hyper-h2 does the same with what it sends (RFC 9113, 8.2.1 and 8.2.2).
        """
        cdef list pairs = []
        cdef tuple pair

        for pair in self._pairs:
            name = pair[0].strip()
            if name.lower() not in CONNECTION_SPECIFIC:
                pairs.append((name, pair[1].strip(), *pair[2:]))
        self._pairs = pairs
        return 0

    cdef lib.nghttp2_nv *nva(self) except NULL:
        cdef:
            lib.nghttp2_nv *nva = self._few
            size_t i = 0
            tuple pair

        if len(self._pairs) > FEW:
            PyMem_Free(self._many)
            self._many = nva = <lib.nghttp2_nv *>PyMem_Malloc(
                len(self._pairs) * sizeof(lib.nghttp2_nv)
            )
            if nva == NULL:
                raise MemoryError
        for pair in self._pairs:
            nva[i].name = <uint8_t *>PyBytes_AS_STRING(<bytes>pair[0])
            nva[i].namelen = PyBytes_GET_SIZE(<bytes>pair[0])
            nva[i].value = <uint8_t *>PyBytes_AS_STRING(<bytes>pair[1])
            nva[i].valuelen = PyBytes_GET_SIZE(<bytes>pair[1])
            nva[i].flags = lib.NGHTTP2_NV_FLAG_NONE
            if PyTuple_GET_SIZE(pair) == 3 and pair[2] is True:
                nva[i].flags = lib.NGHTTP2_NV_FLAG_NO_INDEX
            i += 1
        return nva

    cdef size_t nvlen(self):
        return len(self._pairs)

    cdef object error(self, const lib.ngp_h2_header_error *error):
        """Make the error for a refused field, with its name and the reason."""
        reason = error.reason.decode()
        if error.index >= <size_t>len(self._pairs):
            return HeadersError(reason)
        return HeadersError(f"{show(self._pairs[error.index])}: {reason}")

    cdef bint is_informational(self):
        return any(p[0] == b":status" and p[1][:1] == b"1" for p in self._pairs)

    cdef int64_t content_length(self) except? -1:
        for pair in self._pairs:
            if pair[0].lower() == b"content-length":
                return int(pair[1])
        return -1


cdef bint takes_trailers(bytes value) except -1:
    """Return whether a value of ``te`` has trailers (RFC 9110, 10.1.4)."""
    for item in value.lower().split(b","):
        if item.partition(b";")[0].strip() == b"trailers":
            return True
    return False


# ---- Events ----


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


cdef bytes copy_data(const lib.ngp_h2_event *e):
    return copy_bytes(e.data, e.len)


cdef str take_text(const lib.ngp_h2_event *e):
    # The C library quotes what it refuses: names and values of the peer.
    return printable(copy_data(e))


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
    piece.data = copy_data(e)
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
        # Copied, because the bytes need not be aligned for the entries.
        memcpy(&entry, e.data + i * sizeof(entry), sizeof(entry))
        settings[entry.settings_id] = entry.value
    return settings


cdef tuple join_cookies(tuple pairs):
    """Join several cookie fields into one, the last field (RFC 9113, 8.2.3)."""
    crumbs = [pair for pair in pairs if pair[0] == b"cookie"]
    joined = [pair for pair in pairs if pair[0] != b"cookie"]
    cookie = b"; ".join([crumb[1] for crumb in crumbs])
    if any(isinstance(crumb, NeverIndexed) for crumb in crumbs):
        joined.append(NeverIndexed(b"cookie", cookie))
    else:
        joined.append((b"cookie", cookie))
    return tuple(joined)


cdef class EventReader:
    """Converts recorded events to Python's.

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
            size_t i = 0
            const lib.ngp_h2_event *recorded = lib.ngp_h2_events(h2, &n)

        if n == 0:
            return 0
        try:
            while i < n:
                self.fields = lib.ngp_h2_fields(h2)
                i += 1
                self.take_event(&recorded[i - 1], events)
                # A subclass calls what may send, and so record more.
                recorded = lib.ngp_h2_events(h2, &n)
        finally:
            lib.ngp_h2_clear_events(h2)
        return 0

    cdef int body_failed(self, stream_id, error, list events) except -1:
        """Append to ``events`` that the source of a stream's body has failed."""
        events.append(H2BodyFailed(stream_id, error))
        return 0

    cdef int close_stream(self, int32_t stream_id) except -1:
        """Forget what belongs to a stream."""
        if self.sources:
            self.sources.pop(stream_id, None)
        if self.removed:
            self.removed.discard(stream_id)
        return 0

    cdef int take_event(self, const lib.ngp_h2_event *e, list events) except -1:
        cdef int kind = e.type

        if kind == NGP_H2_EVENT_REQUEST:
            self._take_request(events, e)
        elif kind == NGP_H2_EVENT_DATA:
            events.append(new_body(e, new_piece(e)))
        elif kind == NGP_H2_EVENT_STREAM_CLOSED:
            self.close_stream(e.stream_id)
            events.append(new_stream_closed(e))
        elif (
            kind == NGP_H2_EVENT_RESPONSE or kind == NGP_H2_EVENT_INFORMATIONAL
        ):
            self._take_response(events, e)
        elif kind == NGP_H2_EVENT_WINDOW_UPDATE:
            events.append(new_window_updated(e))
        elif kind == NGP_H2_EVENT_TRAILERS:
            events.append(
                H2TrailersReceived(e.stream_id, self.take_fields(e))
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
                e.other_id, e.stream_id, self.new_request(e)
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
            return H2GoAway(e.other_id, e.error_code, copy_data(e))
        if kind == NGP_H2_EVENT_PRIORITY_UPDATE:
            return H2PriorityUpdated(e.other_id, copy_data(e))
        if kind == NGP_H2_EVENT_ALTSVC:
            return H2AlternativeServiceReceived(
                e.stream_id, copy_data(e), copy_bytes(e.data2, e.len2)
            )
        if kind == NGP_H2_EVENT_ORIGIN:
            return H2OriginReceived(copy_data(e))
        if kind == NGP_H2_EVENT_EXTENSION:
            return H2ExtensionFrameReceived(
                e.stream_id, e.frame_type, e.flags, copy_data(e)
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

    cdef tuple take_fields(self, const lib.ngp_h2_event *e):
        """Make the pairs of a header list; join a request's cookies."""
        cdef:
            const lib.ngp_h2_field *field = self.fields + e.first_field
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

    cdef RequestReceived new_request(self, const lib.ngp_h2_event *e):
        cdef:
            const lib.ngp_h2_field *field = self.fields + e.first_field
            RequestReceived request = RequestReceived.__new__(RequestReceived)
            tuple pairs = self.take_fields(e)
            bytes value
            size_t i

        request.http_version = "2"
        request.fields = pairs
        # nghttp2 has checked that pseudo-header fields come first.
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
            RequestReceived request = self.new_request(e)
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
            tuple pairs = self.take_fields(e)
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
