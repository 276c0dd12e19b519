"""Conversions between Python and C: numbers, frames, settings and fields."""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t

from nghttp2py cimport cngp_h3 as lib
from nghttp2py.hpack cimport is_never_indexed

from nghttp2py.h3.protocol import FrameError, MessageError, SettingsError

cdef extern from "Python.h":
    # Borrowed references, which Cython's own declarations hide.
    PyObject *PyList_GET_ITEM(object, Py_ssize_t)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)

    void PyObject_GC_UnTrack(void *)


# ---- Numbers ----


cdef object or_none(int64_t number):
    return None if number == lib.NGP_H3_NO_ID else number


cdef int64_t to_id(value, str name) except -1:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= lib.NGP_MAX_VARINT:
        raise ValueError(f"{name} is {value}, but must be from 0 to 2**62 - 1")
    return value


cdef list split_origins(const uint8_t *data, size_t n):
    """Return the origins in the payload of ORIGIN, whose form has been checked."""
    cdef:
        list origins = []
        size_t i = 0
        size_t length

    while i < n:
        length = data[i] << 8 | data[i + 1]
        i += 2
        origins.append((<const char *>data)[i:i + length])
        i += length
    return origins


# ---- Frames and settings, as functions ----


cdef bytes varint(value):
    cdef uint8_t dest[8]

    if not 0 <= value <= lib.NGP_MAX_VARINT:
        raise ValueError(
            f"{value} is not a variable-length integer (RFC 9000, 16)"
        )
    return PyBytes_FromStringAndSize(
        <const char *>dest, lib.ngp_put_varint(dest, value)
    )


def encode_frame(frame_type, frame_data):
    """Return a frame (RFC 9114, 7.1)."""
    return varint(frame_type) + varint(len(frame_data)) + frame_data


def encode_settings(settings):
    """Return the payload of SETTINGS (RFC 9114, 7.2.4)."""
    return b"".join(
        varint(number) for setting in settings.items() for number in setting
    )


def parse_max_push_id(bytes data not None):
    """Return the push identifier in the payload of MAX_PUSH_ID (RFC 9114, 7.2.7).

    Raises ``FrameError`` unless it is one number.
    """
    cdef:
        uint64_t value = 0
        size_t n = lib.ngp_get_varint(
            <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &value
        )

    if n == 0:
        raise FrameError("Could not parse MAX_PUSH_ID frame")
    if n < <size_t>PyBytes_GET_SIZE(data):
        raise FrameError("MAX_PUSH_ID frame has trailing data")
    return value


def parse_settings(bytes data not None):
    """Return the settings in the payload of SETTINGS, a dict (RFC 9114, 7.2.4).

    Raises ``FrameError`` if it is malformed, and ``SettingsError`` for one
    that comes twice or is reserved.
    """
    cdef:
        size_t size = PyBytes_GET_SIZE(data)
        size_t n = 0
        size_t i
        uint64_t identifier = 0
        int rv
        lib.ngp_h3_setting *settings = <lib.ngp_h3_setting *>PyMem_Malloc(
            (size // 2 + 1) * sizeof(lib.ngp_h3_setting)
        )

    if settings == NULL:
        raise MemoryError
    try:
        rv = lib.ngp_h3_parse_settings(
            <const uint8_t *>PyBytes_AS_STRING(data), size, settings, &n, &identifier
        )
        if rv == lib.NGP_H3_SETTINGS_TRUNCATED:
            raise FrameError("Could not parse SETTINGS frame")
        if rv == lib.NGP_H3_SETTINGS_RESERVED:
            raise SettingsError(f"Setting identifier {identifier:#x} is reserved")
        if rv == lib.NGP_H3_SETTINGS_TWICE:
            raise SettingsError(f"Setting identifier {identifier:#x} is included twice")
        return {settings[i].id: settings[i].value for i in range(n)}
    finally:
        PyMem_Free(settings)


# ---- Fields ----


cdef tuple to_field(item):
    """Make (name, value, never_indexed) of what was given."""
    cdef tuple given = tuple(item)

    if len(given) not in (2, 3):
        raise ValueError(
            f"a header field must be a (name, value) pair, not {len(given)} items"
        )
    name, value = given[:2]
    for part in (name, value):
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(
                "names and values of headers must be bytes, "
                f"not {type(part).__name__}"
            )
    return bytes(name), bytes(value), is_never_indexed(item, given)


cdef inline bint is_plain(PyObject *item) noexcept:
    return (
        PyTuple_CheckExact(<object>item)
        and PyTuple_GET_SIZE(<object>item) == 2
        and PyBytes_CheckExact(<object>PyTuple_GET_ITEM(<object>item, 0))
        and PyBytes_CheckExact(<object>PyTuple_GET_ITEM(<object>item, 1))
    )


cdef class FieldList:
    """The fields of one message in C's form, valid until ``clear``."""

    def __dealloc__(self):
        PyMem_Free(self._many)

    cdef int fill(self, headers) except -1:
        cdef:
            list pairs
            set never_indexed = None
            tuple field
            lib.nghttp3_nv *nv
            PyObject *item
            PyObject *part
            Py_ssize_t i
            Py_ssize_t n

        # A copy of the list: the caller's may change while Python code runs.
        pairs = list(headers)
        n = PyList_GET_SIZE(pairs)
        for i in range(n):
            if not is_plain(PyList_GET_ITEM(pairs, i)):
                field = to_field(pairs[i])
                pairs[i] = field[:2]
                if field[2]:
                    if never_indexed is None:
                        never_indexed = set()
                    never_indexed.add(i)
        self.nva = self._few
        if n > FEW:
            PyMem_Free(self._many)
            self._many = <lib.nghttp3_nv *>PyMem_Malloc(n * sizeof(lib.nghttp3_nv))
            if self._many == NULL:
                raise MemoryError
            self.nva = self._many
        for i in range(n):
            nv = &self.nva[i]
            item = PyList_GET_ITEM(pairs, i)
            part = PyTuple_GET_ITEM(<object>item, 0)
            nv.name = <uint8_t *>PyBytes_AS_STRING(<object>part)
            nv.namelen = PyBytes_GET_SIZE(<object>part)
            part = PyTuple_GET_ITEM(<object>item, 1)
            nv.value = <uint8_t *>PyBytes_AS_STRING(<object>part)
            nv.valuelen = PyBytes_GET_SIZE(<object>part)
            nv.flags = lib.NGHTTP3_NV_FLAG_NONE
        if never_indexed is not None:
            for i in never_indexed:
                self.nva[i].flags = lib.NGHTTP3_NV_FLAG_NEVER_INDEX
        self.nvlen = n
        self._pairs = pairs
        return 0

    cdef void clear(self):
        self._pairs = None
        PyMem_Free(self._many)
        self._many = NULL


cdef void names_free(NameCache *names) noexcept:
    cdef int i

    for i in range(SLOTS):
        if names.keys[i] != NULL:
            lib.nghttp3_rcbuf_decref(names.keys[i])
            Py_DECREF(<object>names.names[i])
            names.keys[i] = NULL


cdef bytes find_name(NameCache *names, lib.nghttp3_rcbuf *key):
    cdef:
        size_t slot = (<uintptr_t>key >> 5) % SLOTS
        lib.nghttp3_vec vec
        bytes name

    if names.keys[slot] == key:
        return <bytes>names.names[slot]
    vec = lib.nghttp3_rcbuf_get_buf(key)
    name = PyBytes_FromStringAndSize(<const char *>vec.base, vec.len)
    if names.keys[slot] != NULL:
        lib.nghttp3_rcbuf_decref(names.keys[slot])
        Py_DECREF(<object>names.names[slot])
    lib.nghttp3_rcbuf_incref(key)
    Py_INCREF(name)
    names.keys[slot] = key
    names.names[slot] = <void *>name
    return name


cdef int change_headers(
    list headers, const lib.nghttp3_qpack_nv *fields, int changes
) except -1:
    """Strip white space around values, and join cookies, as ``changes`` says."""
    cdef:
        Py_ssize_t i
        list crumbs = []
        Py_ssize_t first = -1

    if changes & STRIP_VALUES:
        for i, (name, value) in enumerate(headers):
            stripped = value.strip(b" \t")
            if len(stripped) < len(value):
                headers[i] = (name, stripped)
    if changes & JOIN_COOKIES:
        for i in range(len(headers)):
            if fields[i].token == lib.NGHTTP3_QPACK_TOKEN_COOKIE:
                if first < 0:
                    first = i
                crumbs.append(headers[i][1])
        if len(crumbs) > 1:
            # RFC 9114, 4.2.1
            headers[first] = (b"cookie", b"; ".join(crumbs))
            headers[first + 1:] = [
                pair for pair in headers[first + 1:] if pair[0] != b"cookie"
            ]
    return 0


cdef void pairs_free(lib.ngp_qpack_pairs *pairs) noexcept:
    cdef void *made = lib.ngp_qpack_pairs_take(pairs)

    while made != NULL:
        Py_DECREF(<object>made)
        made = lib.ngp_qpack_pairs_take(pairs)


cdef tuple make_pair(
    NameCache *names, lib.ngp_qpack_pairs *pairs, const lib.nghttp3_qpack_nv *field
):
    """Return the pair of a field that has none, and keep it for the next section."""
    cdef:
        lib.nghttp3_vec value = lib.nghttp3_rcbuf_get_buf(field.value)
        tuple pair = (
            find_name(names, field.name),
            PyBytes_FromStringAndSize(<const char *>value.base, value.len),
        )
        void *dropped

    # Two bytes objects are in no cycle: the collector need not visit the pair.
    PyObject_GC_UnTrack(<void *>pair)
    Py_INCREF(pair)
    dropped = lib.ngp_qpack_pairs_keep(pairs, field, <void *>pair)
    if dropped != NULL:
        Py_DECREF(<object>dropped)
    return pair


cdef list make_headers(
    NameCache *names, lib.ngp_qpack_pairs *pairs, const lib.nghttp3_qpack_nv *fields,
    size_t n, int changes,
):
    cdef:
        list headers = PyList_New(n)
        const lib.ngp_qpack_pair *known
        tuple pair
        size_t i

    for i in range(n):
        known = lib.ngp_qpack_pairs_find(pairs, &fields[i])
        if known != NULL:
            pair = <tuple>known.object
        else:
            pair = make_pair(names, pairs, &fields[i])
        Py_INCREF(pair)
        PyList_SET_ITEM(headers, i, pair)
    if changes:
        change_headers(headers, fields, changes)
    return headers


# ---- The rules, as functions (RFC 9114, 4.2 and 4.3) ----


cdef object message_error(const lib.ngp_h3_phrase *phrase):
    return MessageError(phrase.text[:phrase.len].decode("ascii"))


cdef int validate(
    headers,
    lib.ngp_fields_section section,
    stream=None,
    unsigned flags=lib.NGP_FIELDS_AIOQUIC | lib.NGP_FIELDS_EITHER,
) except -1:
    cdef:
        FieldList fields = FieldList()
        lib.ngp_h3_phrase phrase
        lib.ngp_h3_checker checker
        size_t i
        int rv

    fields.fill(headers)
    lib.ngp_h3_checker_init(&checker, section, flags, &phrase)
    for i in range(fields.nvlen):
        rv = lib.ngp_h3_checker_field(
            &checker,
            fields.nva[i].name,
            fields.nva[i].namelen,
            fields.nva[i].value,
            fields.nva[i].valuelen,
        )
        if rv != 0:
            raise message_error(&phrase)
    if lib.ngp_h3_checker_end(&checker) != 0:
        raise message_error(&phrase)
    if stream is not None and checker.fields.content_length != lib.NGP_FIELDS_NO_LENGTH:
        stream.expected_content_length = checker.fields.content_length
    return 0


def validate_request_headers(headers, stream=None):
    """Raise ``MessageError`` unless ``headers`` may be those of a request.

    If ``stream`` is given, its ``expected_content_length`` is set to what
    content-length says.
    """
    validate(headers, lib.NGP_FIELDS_REQUEST, stream)


def validate_response_headers(headers, stream=None):
    """Raise ``MessageError`` unless ``headers`` may be those of a response.

    ``stream`` is as for ``validate_request_headers``.
    """
    validate(headers, lib.NGP_FIELDS_RESPONSE, stream)


def validate_push_promise_headers(headers):
    """Raise ``MessageError`` unless ``headers`` may be those of a promised request."""
    validate(headers, lib.NGP_FIELDS_PROMISE)


def validate_trailers(headers):
    """Raise ``MessageError`` unless ``headers`` may be trailers."""
    validate(headers, lib.NGP_FIELDS_TRAILERS)


def check_trailers(headers):
    """Raise ``MessageError`` unless we may send ``headers`` as trailers."""
    validate(headers, lib.NGP_FIELDS_TRAILERS, None, lib.NGP_FIELDS_OUTGOING)


def validate_header_name(bytes key not None):
    """Raise ``MessageError`` unless ``key`` may be the name of a field."""
    cdef lib.ngp_h3_phrase phrase

    if lib.ngp_h3_check_name(
        <const uint8_t *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), &phrase
    ):
        raise message_error(&phrase)


def validate_header_value(bytes key not None, bytes value not None):
    """Raise ``MessageError`` unless ``value`` may be that of the field ``key``."""
    cdef lib.ngp_h3_phrase phrase

    if lib.ngp_h3_check_value(
        <const uint8_t *>PyBytes_AS_STRING(key),
        PyBytes_GET_SIZE(key),
        <const uint8_t *>PyBytes_AS_STRING(value),
        PyBytes_GET_SIZE(value),
        &phrase,
    ):
        raise message_error(&phrase)


def is_interim_response(headers):
    """Return whether ``headers`` are those of a 1xx response (RFC 9110, 15.2)."""
    for key, value in headers:
        if key == b":status":
            return value.startswith(b"1")
    return False
