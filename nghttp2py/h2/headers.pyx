"""Header fields between Python and C, in both directions."""

from collections.abc import Mapping

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t

from nghttp2py cimport cngp as lib
from nghttp2py.hpack cimport to_field
from nghttp2py.octets cimport copy_bytes

from nghttp2py.errors import HeadersError
from nghttp2py.hpack import NeverIndexed

cdef extern from "Python.h":
    # Cython's own return new references.
    PyObject *PyList_GET_ITEM(object, Py_ssize_t)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL


cdef enum:
    # A peer's usual fields stand in its HPACK table and come as the same two
    # buffers each time; a table of 4 KiB holds fewer than this.  Two of them
    # are where a field may stand, so that few drive each other out: 2 ** 6
    # times two, see slot_of().
    SLOTS = 128
    # Larger fields have slots of their own, for few of them fit the table.
    MAX_SMALL = 512
    LARGE_SLOTS = 8
    # The table's usual size: a larger field is in none.
    MAX_LARGE = 4096
    # Of all the fields that are kept, counted as the table counts (RFC 7541,
    # 4.1): an idle connection is to stay small.
    MAX_KEPT = 8192
    # As many fields as most messages have: see FieldList._few.
    FEW = 16


# What no message shows.
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
    """Makes pairs of received fields, once for each that the table repeats.

    The key is the pair of buffers' addresses: as long as they are held, they
    cannot be another field's.
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
        """Keep ``pair``, if need be instead of all others."""
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
            # Such a field is in no table; its mark is for who passes it on.
            return NeverIndexed(*new_pair(field, self._lenient))
        name = lib.nghttp2_rcbuf_get_buf(field.name)
        value = lib.nghttp2_rcbuf_get_buf(field.value)
        if name.len + value.len > MAX_SMALL:
            return self._large_pair(field, name.len + value.len)
        pair = new_pair(field, self._lenient)
        if slot.pair != NULL:
            # The older of the two goes.
            if other.pair != NULL:
                self._kept -= cost_of(other.name, other.value)
                drop(other)
            other[0] = slot[0]
            slot.pair = NULL
        self._keep(slot, field, pair)
        return pair

    cdef object _large_pair(self, const lib.ngp_h2_field *field, size_t n):
        """Make a pair of ``n`` bytes, once if it is repeated at all soon.

        Else a peer could have us make megabytes of a read of some kilobytes
        that name one entry of the table again and again.
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
    """The first of the two places of a field.

    Buffers of the static table lie at equal distances: a plain sum would put
    them all in one place.
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


cdef Py_ssize_t borrow_fields(
    headers, lib.nghttp2_nv *nva, Py_ssize_t room
) except -2:
    """Fill ``nva`` from a list or tuple of plain pairs; return their number.

    Plain pairs are tuples of two bytes or str objects.  Anything else, and more
    than ``room`` of them, is for a ``FieldList``: the answer is -1.  No code of
    the caller runs, and ``nva`` points into the objects as they are, so it is
    valid until Python code runs again.
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
            return False  # FieldList.extend() says which it was
        plen[0] = n
        return True
    return False


cdef tuple to_pair(item):
    """Make (name, value, never_indexed) of what was given.

    A value may be an int, as of content-length; it is sent in decimal.
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
    """Tell a field to people, but no secrets: messages end in logs."""
    name, value = pair[0], pair[1]
    if (len(pair) == 3 and pair[2]) or name.lower() in SECRET:
        return f"{name[:64]!r}: {len(value)} bytes"
    if len(name) + len(value) <= 64:
        return f"{name!r}: {value!r}"
    return f"{name[:64]!r}: {value[:64]!r}... ({len(value)} bytes)"


# RFC 9113, 8.2.2.  ``te`` is left: it may say "trailers".
cdef frozenset CONNECTION_SPECIFIC = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding",
        b"upgrade",
    )
)


@cython.freelist(8)
cdef class FieldList:
    """A header list on its way out.

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
            self._pairs.append(pair)
        return 0

    cdef int normalize(self) except -1:
        """Strip white space, drop what concerns one HTTP/1.1 connection.

        As hyper-h2 does with what it sends (RFC 9113, 8.2.1 and 8.2.2).
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
        """Say which field was refused, and why."""
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
