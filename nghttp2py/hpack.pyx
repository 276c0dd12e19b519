"""HPACK, the header compression of HTTP/2 (RFC 7541).

``HDDeflater`` and ``HDInflater`` are nghttp2's coders.  Each keeps the dynamic table of
one direction of one connection: use one of each for each connection, and give an
inflater every block in the order it was sent.
"""

import operator
import warnings
from collections.abc import Mapping

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.string cimport memcmp

cimport cython

from nghttp2py cimport cnghttp2 as lib
from nghttp2py.cngp_pool cimport ngp_mem_default
from nghttp2py.octets cimport copy_bytes, hold_items

from nghttp2py.errors import (
    HeaderListTooLargeError,
    HPACKError,
    from_code,
    printable,
)
from nghttp2py.hpack_faults import fault_of

__all__ = [
    "DEFAULT_HEADER_TABLE_SIZE",
    "DEFAULT_MAX_HEADER_LIST_SIZE",
    "DEFLATE_MAX_HEADER_TABLE_SIZE",
    "HDDeflater",
    "HDInflater",
    "HDTableEntry",
    "HD_ENTRY_OVERHEAD",
    "NeverIndexed",
    "print_hd_table",
]

DEFAULT_HEADER_TABLE_SIZE = 4096  # RFC 9113, 6.5.2
DEFLATE_MAX_HEADER_TABLE_SIZE = 4096
HD_ENTRY_OVERHEAD = 32  # RFC 7541, 4.1
DEFAULT_MAX_HEADER_LIST_SIZE = 65536

# Borrowed references, which are not counted: the list that is being coded holds every
# object that they name, and no Python code runs meanwhile.
cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass

    ctypedef struct PyTypeObject:
        pass

    PyObject **PySequence_Fast_ITEMS(object)
    Py_ssize_t PySequence_Fast_GET_SIZE(object)
    bint PyTuple_CheckExact(PyObject *)
    Py_ssize_t PyTuple_GET_SIZE(PyObject *)
    PyObject *PyTuple_GET_ITEM(PyObject *, Py_ssize_t)
    bint PyBytes_CheckExact(PyObject *)
    char *PyBytes_AS_STRING(PyObject *)
    Py_ssize_t PyBytes_GET_SIZE(PyObject *)
    PyObject *new_bytes "PyBytes_FromStringAndSize"(
        const char *, Py_ssize_t) except NULL
    bint PyUnicode_CheckExact(PyObject *)
    const char *PyUnicode_AsUTF8AndSize(PyObject *, Py_ssize_t *) except NULL
    PyObject *PyList_New(Py_ssize_t) except NULL
    void PyList_SET_ITEM(PyObject *, Py_ssize_t, PyObject *)
    PyObject *Py_True
    PyObject *Py_False
    PyTypeObject *Py_TYPE(PyObject *)
    void PyTuple_SET_ITEM(PyObject *, Py_ssize_t, PyObject *)
    PyObject *PyTuple_New(Py_ssize_t) except NULL
    PyObject *PyType_GenericAlloc(PyTypeObject *, Py_ssize_t) except NULL
    void PyObject_GC_UnTrack(void *)
    void Py_INCREF(PyObject *)
    void Py_DECREF(PyObject *)
    void Py_XDECREF(PyObject *)

cdef enum:
    # The table's first dynamic entry (RFC 7541, 2.3.3).
    FIRST_DYNAMIC = 62
    OVERHEAD = 32
    # A SETTINGS value has 32 bits, and a size is at most such a value.
    SIZE_BITS = 32
    # nghttp2 never indexes cookies shorter than this: they are short enough to guess.
    SHORT_COOKIE = 20
    # The number of fields of most lists; a longer list costs an allocation.
    FEW = 64
    # The size of most blocks, in bytes.
    SMALL_BLOCK = 4096
    # A table of 4 KiB and the static table together have fewer entries than this.
    SLOT_BITS = 7
    SLOTS = 128
    # Larger fields are not kept.
    MAX_CACHED = 512
    # The first bits of an indexed field, the first byte of one whose index goes
    # on in the next byte, and the first bits of a literal that becomes an entry
    # (RFC 7541, 5.1, 6.1 and 6.2.1).
    INDEXED = 0x80
    LONG_INDEX = 0xff
    INCREMENTAL = 0x40


class NeverIndexed(tuple):
    """A ``(name, value)`` pair that no coder may put into a table.

    It is equal to the plain pair.  An intermediary that forwards it must send it as a
    never-indexed literal again (RFC 7541, 7.1.3), as ``HDDeflater.deflate`` does.
    """

    __slots__ = ()

    def __new__(cls, name, value):
        return tuple.__new__(cls, (name, value))

    def __getnewargs__(self):
        return tuple(self)

    def __repr__(self):
        return f"NeverIndexed({self[0]!r}, {self[1]!r})"


cdef PyTypeObject *never_indexed_type = <PyTypeObject *>NeverIndexed


cdef class HDTableEntry:
    """One entry of a header table.

    ``name`` and ``value`` are bytes; ``namelen`` and ``valuelen`` their lengths.
    ``ref`` belonged to the reference set, which was removed from HPACK before RFC 7541:
    it is always ``False``, and the argument is ignored.
    """

    cdef readonly:
        bytes name
        Py_ssize_t namelen
        bytes value
        Py_ssize_t valuelen

    def __init__(
        self, bytes name not None, Py_ssize_t namelen, bytes value not None,
        Py_ssize_t valuelen, ref=False,
    ):
        self.name = name
        self.namelen = namelen
        self.value = value
        self.valuelen = valuelen

    @property
    def ref(self):
        """Always ``False``: RFC 7541 has no reference set."""
        return False

    def space(self):
        """Return the bytes that the entry takes in the table (RFC 7541, 4.1)."""
        return self.namelen + self.valuelen + OVERHEAD

    def __eq__(self, other):
        if not isinstance(other, HDTableEntry):
            return NotImplemented
        return self._key() == (<HDTableEntry>other)._key()

    def __hash__(self):
        return hash(self._key())

    def __repr__(self):
        return (
            f"HDTableEntry({self.name!r}, {self.namelen}, "
            f"{self.value!r}, {self.valuelen})"
        )

    cdef tuple _key(self):
        return self.name, self.namelen, self.value, self.valuelen


cdef HDTableEntry new_entry(const lib.nghttp2_nv *nv):
    cdef HDTableEntry entry = HDTableEntry.__new__(HDTableEntry)

    entry.name = copy_bytes(nv.name, nv.namelen)
    entry.namelen = nv.namelen
    entry.value = copy_bytes(nv.value, nv.valuelen)
    entry.valuelen = nv.valuelen
    return entry


def print_hd_table(hdtable, *, refset=False, file=None):
    """Print a header table, one line for each entry, numbered from 1.

    ``hdtable`` is the result of ``get_hd_table``: its first entry, number 1 here, has
    the HPACK index 62.  ``s`` is the entry's size in the table, in bytes. ``refset``
    adds the column of nghttp2 0.5, ``r=n``.  Bytes that are not UTF-8, and control
    characters, are shown as escapes.  The default ``file`` is standard output.
    """
    ref = " (r=n)" if refset else ""
    for number, entry in enumerate(hdtable, 1):
        name, value = printable(entry.name), printable(entry.value)
        print(f"[{number}] (s={entry.space()}){ref} {name}: {value}", file=file)


cdef size_t to_size(value, what) except? 0:
    """Return a size in bytes that fits into a SETTINGS value, or raise."""
    size = operator.index(value)
    if size < 0 or size >> SIZE_BITS:
        raise ValueError(f"{what} must be from 0 to 2**{SIZE_BITS} - 1, not {size}")
    return size


cdef bytes to_bytes(value, what):
    if isinstance(value, str):
        return (<str>value).encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{what} must be bytes or str, not {type(value).__name__}")


cdef tuple to_field(item):
    """Return (name, value, never_indexed) for a field of any accepted form.

    A str with lone surrogates raises UnicodeEncodeError.
    """
    cdef tuple given

    if isinstance(item, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"a header field must be a (name, value) pair, not {item!r}")
    given = tuple(item)
    if len(given) not in (2, 3):
        raise TypeError(f"a header field must be a (name, value) pair, not {item!r}")
    return (
        to_bytes(given[0], "a field name"),
        to_bytes(given[1], "a field value"),
        is_never_indexed(item, given),
    )


cdef bint is_never_indexed(item, tuple given) except -1:
    """Return whether a field, whose parts are ``given``, must enter no table."""
    # The hpack package marks its pairs by `indexable`; ignoring that mark would put a
    # secret into a table.
    return (
        isinstance(item, NeverIndexed)
        or not getattr(item, "indexable", True)
        or (len(given) == 3 and bool(given[2]))
    )


cdef object to_sequence(headers):
    """Convert an iterable of pairs or a mapping to a list of header fields."""
    if isinstance(headers, Mapping):
        return list(headers.items())
    if isinstance(headers, (str, bytes, bytearray, memoryview)):
        raise TypeError(
            f"headers must be pairs of name and value, not {type(headers).__name__}"
        )
    return list(headers)


cdef inline bint same_name(const uint8_t *name, const char *lower, size_t n) noexcept:
    """Compare a field name in any case with a name in lower case."""
    cdef size_t i

    for i in range(n):
        # 0x20 is the difference of upper and lower case.  Only some control bytes also
        # become a letter or hyphen of `lower`, and no name may have those.
        if (name[i] | 0x20) != <uint8_t>lower[i]:
            return False
    return True


cdef inline bint is_sensitive(const lib.nghttp2_nv *nv) noexcept:
    """Return whether a field holds credentials, which probing must not reveal (RFC
    7541, 7.1)."""
    if nv.namelen == 6:
        return nv.valuelen < SHORT_COOKIE and same_name(nv.name, "cookie", 6)
    if nv.namelen == 13:
        return same_name(nv.name, "authorization", 13)
    if nv.namelen == 19:
        return same_name(nv.name, "proxy-authorization", 19)
    return False


cdef inline int get_bytes(
    PyObject *value, uint8_t **base, size_t *length
) except -1:
    """Borrow the bytes of exact bytes or str; return 0 if it is neither."""
    cdef Py_ssize_t n

    if PyBytes_CheckExact(value):
        base[0] = <uint8_t *>PyBytes_AS_STRING(value)
        length[0] = PyBytes_GET_SIZE(value)
        return 1
    if PyUnicode_CheckExact(value):
        base[0] = <uint8_t *>PyUnicode_AsUTF8AndSize(value, &n)
        length[0] = n
        return 1
    return 0


cdef int fill(lib.nghttp2_nv *nva, PyObject **items, Py_ssize_t n) except -1:
    """Fill ``nva`` with borrowed names and values; return 0 if it cannot.

    It runs no Python code, so that nothing can change the list meanwhile.
    """
    cdef:
        Py_ssize_t i
        Py_ssize_t size
        PyObject *item
        PyObject *mark
        lib.nghttp2_nv *nv = nva

    for i in range(n):
        item = items[i]
        if PyTuple_CheckExact(item):
            mark = Py_False
            size = PyTuple_GET_SIZE(item)
            if size == 3:
                mark = PyTuple_GET_ITEM(item, 2)
                if mark != Py_True and mark != Py_False:
                    return 0
            elif size != 2:
                return 0
        elif Py_TYPE(item) == never_indexed_type:
            mark = Py_True
        else:
            return 0
        if not get_bytes(PyTuple_GET_ITEM(item, 0), &nv.name, &nv.namelen):
            return 0
        if not get_bytes(PyTuple_GET_ITEM(item, 1), &nv.value, &nv.valuelen):
            return 0
        nv.flags = lib.NGHTTP2_NV_FLAG_NONE
        if mark == Py_True or is_sensitive(nv):
            nv.flags = lib.NGHTTP2_NV_FLAG_NO_INDEX
        nv += 1
    return 1


cdef class _Coder:
    """The table of a coder of either direction, as the caller sees it."""

    cdef object _error  # the exception type that ended it, or None

    # C has these four functions once for each direction, with different names.

    cdef const lib.nghttp2_nv *_table_entry(self, size_t index) noexcept:
        return NULL

    cdef size_t _table_len(self) noexcept:
        return 0

    cdef size_t _table_size(self) noexcept:
        return 0

    cdef size_t _table_max(self) noexcept:
        return 0

    def get_hd_table(self):
        """Return a copy of the dynamic table, the newest entry first."""
        indices = range(FIRST_DYNAMIC, self.num_table_entries + 1)
        return list(map(self.get_table_entry, indices))

    def get_table_entry(self, index):
        """Return the entry with an HPACK index (RFC 7541, 2.3.3).

        1 to 61 are the static table, the dynamic one follows.  Raises
        IndexError if there is none.
        """
        index = operator.index(index)
        if not 1 <= index <= self.num_table_entries:
            raise IndexError(f"no table entry has the index {index}")
        return new_entry(self._table_entry(index))

    @property
    def num_table_entries(self):
        """The number of entries of the static (61) and the dynamic table."""
        return self._table_len()

    @property
    def dynamic_table_size(self):
        """Bytes that the dynamic table's entries take (RFC 7541, 4.1)."""
        return self._table_size()

    @property
    def max_dynamic_table_size(self):
        """The most bytes that the dynamic table's entries may take."""
        return self._table_max()


cdef class HDDeflater(_Coder):
    """Compresses header lists: the sending half of one connection.

    ``hd_table_bufsize_max`` is the most bytes of dynamic table it will use,
    whatever the peer allows (0 to 2**32 - 1).

    If compressing fails, the dynamic table is no longer what the peer expects: every
    later call that would use it raises the same exception.
    """

    cdef:
        lib.nghttp2_hd_deflater *_deflater  # owned
        bint _initialised

    def __cinit__(self, *args, **kwargs):
        # A subclass may have other parameters, and never call this __init__().
        check(
            lib.nghttp2_hd_deflate_new2(
                &self._deflater, DEFLATE_MAX_HEADER_TABLE_SIZE, ngp_mem_default()
            )
        )

    def __init__(self, hd_table_bufsize_max=DEFLATE_MAX_HEADER_TABLE_SIZE):
        cdef:
            size_t size = to_size(hd_table_bufsize_max, "hd_table_bufsize_max")
            lib.nghttp2_hd_deflater *deflater = NULL

        if self._initialised or size != DEFLATE_MAX_HEADER_TABLE_SIZE:
            check(
                lib.nghttp2_hd_deflate_new2(&deflater, size, ngp_mem_default())
            )
            lib.nghttp2_hd_deflate_del(self._deflater)
            self._deflater = deflater
            self._error = None
        self._initialised = True

    def __dealloc__(self):
        # Unlike similar functions, it does not accept NULL.
        if self._deflater != NULL:
            lib.nghttp2_hd_deflate_del(self._deflater)

    def deflate(self, headers not None):
        """Compress a header list; return one whole header block.

        ``headers`` is an iterable of ``(name, value)`` pairs, or a mapping; names and
        values are bytes or str, which is sent as UTF-8.  A pair with a true third
        element, or a ``NeverIndexed`` one, is sent so that no coder on the way puts it
        into a table; so are ``authorization``, ``proxy-authorization`` and a ``cookie``
        below 20 bytes, always (RFC 7541, 7.1).  Names are sent as given: HTTP/2 wants
        them in lower case.

        Raises TypeError or ValueError for what is no header list; the coder stays
        usable.  Raises HPACKError if the C library fails.
        """
        cdef:
            lib.nghttp2_nv few[FEW]
            lib.nghttp2_nv *nva = few
            Py_ssize_t n

        if self._error is not None:
            raise lost(self._error)
        if type(headers) is not list and type(headers) is not tuple:
            headers = to_sequence(headers)
        held = hold_items(headers)
        n = PySequence_Fast_GET_SIZE(held)
        if n <= FEW and fill(nva, PySequence_Fast_ITEMS(held), n):
            return self._deflate(nva, n)
        return self._deflate_any(headers)

    @cython.final
    cdef bytes _deflate_any(self, headers):
        cdef:
            Py_ssize_t n
            lib.nghttp2_nv *nva = NULL
            list fields = []

        # A loop, not a comprehension: the code that Cython 3.3 makes of one frees an
        # item twice if there is no memory for it.
        for item in headers:
            fields.append(to_field(item))
        n = len(fields)
        nva = <lib.nghttp2_nv *>PyMem_Malloc(n * sizeof(lib.nghttp2_nv))
        if nva == NULL:
            raise MemoryError
        try:
            fill(nva, PySequence_Fast_ITEMS(fields), n)
            return self._deflate(nva, n)
        finally:
            PyMem_Free(nva)

    @cython.final
    cdef bytes _deflate(self, const lib.nghttp2_nv *nva, size_t nvlen):
        cdef:
            uint8_t small[SMALL_BLOCK]
            uint8_t *buf = small
            size_t buflen = SMALL_BLOCK
            size_t bound = lib.nghttp2_hd_deflate_bound(self._deflater, nva, nvlen)
            ssize_t rv

        if bound > SMALL_BLOCK:
            buf = <uint8_t *>PyMem_Malloc(bound)
            if buf == NULL:
                raise MemoryError
            buflen = bound
        try:
            rv = lib.nghttp2_hd_deflate_hd(self._deflater, buf, buflen, nva, nvlen)
            if rv < 0:
                raise hpack_error(rv, "the header list cannot be compressed")
            return copy_bytes(buf, rv)
        except BaseException as error:
            # Also if memory for the block is missing, since the table has changed
            # already.
            self._error = type(error)
            raise
        finally:
            if buf != small:
                PyMem_Free(buf)

    def set_no_refset(self, no_refset):
        """Do nothing: RFC 7541 has no reference set to use.

        Deprecated.  It belonged to drafts of HPACK up to 08.
        """
        warnings.warn(
            "set_no_refset does nothing: RFC 7541 has no reference set",
            DeprecationWarning,
            stacklevel=1,  # compiled code has no frame: this is the caller's
        )

    def change_table_size(self, hd_table_bufsize_max):
        """Set the peer's SETTINGS_HEADER_TABLE_SIZE, in bytes.

        The table gets that size, but never more than the constructor's
        ``hd_table_bufsize_max``; the next block announces it (RFC 7541, 4.2).
        """
        cdef size_t size = to_size(hd_table_bufsize_max, "hd_table_bufsize_max")

        if self._error is not None:
            raise lost(self._error)
        check(lib.nghttp2_hd_deflate_change_table_size(self._deflater, size))

    cdef const lib.nghttp2_nv *_table_entry(self, size_t index) noexcept:
        return lib.nghttp2_hd_deflate_get_table_entry(self._deflater, index)

    cdef size_t _table_len(self) noexcept:
        return lib.nghttp2_hd_deflate_get_num_table_entries(self._deflater)

    cdef size_t _table_size(self) noexcept:
        return lib.nghttp2_hd_deflate_get_dynamic_table_size(self._deflater)

    cdef size_t _table_max(self) noexcept:
        return lib.nghttp2_hd_deflate_get_max_dynamic_table_size(self._deflater)


# The pair, or the name alone, that was last made from these addresses.  The C library
# shares an entry's buffers, so an entry comes with the same addresses each time.  They
# may be reused when the entry is evicted: therefore the bytes are compared.
cdef struct Slot:
    const uint8_t *name
    const uint8_t *value
    PyObject *made  # owned; a tuple, or bytes for a name


cdef inline size_t slot_of(const uint8_t *name, const uint8_t *value) noexcept:
    # Fibonacci hashing: the upper bits of the product depend on all others.
    return (
        (<uint64_t><uintptr_t>name * 3 + <uint64_t><uintptr_t>value)
        * <uint64_t>0x9E3779B97F4A7C15
    ) >> (64 - SLOT_BITS)


cdef inline bint is_bytes(PyObject *made, const uint8_t *base, size_t n) noexcept:
    return (
        <size_t>PyBytes_GET_SIZE(made) == n
        and memcmp(PyBytes_AS_STRING(made), base, n) == 0
    )


cdef class HDInflater(_Coder):
    """Decompresses header blocks: the receiving half of one connection.

    ``max_header_list_size`` bounds the header list of one block, in bytes as
    SETTINGS_MAX_HEADER_LIST_SIZE counts them: name, value and 32 for each field (RFC
    9113, 6.5.2).  A bound on the block is not enough: a few bytes of it can name a
    large entry many times.

    If decompressing fails, the dynamic table is no longer the peer's: every later call
    that would use it raises the same exception, and the caller must close the
    connection with COMPRESSION_ERROR (RFC 9113, 4.3).
    """

    cdef:
        lib.nghttp2_hd_inflater *_inflater  # owned
        Slot *_pairs  # owned
        Slot *_names  # owned
        size_t _max_header_list_size
        size_t _header_list_size  # size so far of the block being decoded
        size_t _allowed  # octets of the dynamic table
        object _reduced  # to at most how many the next block must change it, or None
        bint _within_block

    def __cinit__(self, *args, **kwargs):
        # As the deflater's.
        self._max_header_list_size = DEFAULT_MAX_HEADER_LIST_SIZE
        self._allowed = DEFAULT_HEADER_TABLE_SIZE
        self._pairs = <Slot *>PyMem_Calloc(2 * SLOTS, sizeof(Slot))
        if self._pairs == NULL:
            raise MemoryError
        self._names = self._pairs + SLOTS
        check(
            lib.nghttp2_hd_inflate_new2(&self._inflater, ngp_mem_default())
        )

    def __init__(self, *, max_header_list_size=DEFAULT_MAX_HEADER_LIST_SIZE):
        self.max_header_list_size = max_header_list_size

    def __dealloc__(self):
        cdef int i

        if self._inflater != NULL:
            lib.nghttp2_hd_inflate_del(self._inflater)
        if self._pairs != NULL:
            for i in range(2 * SLOTS):
                Py_XDECREF(self._pairs[i].made)
            PyMem_Free(self._pairs)

    def inflate(self, data not None, bint final=True):
        """Decompress a header block; return its list of (name, value) pairs.

        ``data`` is bytes, bytearray or another contiguous buffer.  A block may come in
        pieces: pass ``final=False`` with each but the last; each call returns the
        fields that its piece completes.

        Fields that the peer sent as never-indexed are ``NeverIndexed`` pairs,
        equal to plain ones; all others are plain tuples.

        Raises HPACKError for a malformed block (InvalidTableIndexError and
        InvalidTableSizeError are kinds of it), HeaderListTooLargeError for one that
        exceeds ``max_header_list_size``, TypeError for what is no buffer.  The error of
        a block that was passed whole says at which octet it is malformed, and why.
        """
        cdef Py_buffer view

        if self._error is not None:
            raise lost(self._error)
        if type(data) is bytes:
            return self._inflate(
                <const uint8_t *>PyBytes_AS_STRING(<PyObject *>data),
                PyBytes_GET_SIZE(<PyObject *>data), final)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._inflate(<const uint8_t *>view.buf, view.len, final)
        finally:
            PyBuffer_Release(&view)

    @cython.final
    cdef list _inflate(self, const uint8_t *data, size_t length, bint final):
        cdef:
            PyObject *fields[FEW]  # owned
            size_t n = 0
            list result = None
            const uint8_t *pos = data
            size_t left = length
            bint whole = not self._within_block

        self._within_block = not final
        try:
            while self._inflate_some(&pos, &left, final, fields, &n):
                result = extended(result, fields, &n)
            if length:
                self._reduced = None
            return extended(result, fields, &n)
        except BaseException as error:
            while n:
                n -= 1
                Py_DECREF(fields[n])
            if whole and type(error) is HPACKError:
                error = fault_of(
                    data[:length], pos - data, self._table_len(), self._allowed,
                    self._reduced, error.code)
            self._error = type(error)
            raise error from None

    @cython.final
    cdef int _inflate_some(
        self, const uint8_t **data, size_t *length, bint final,
        PyObject **fields, size_t *n,
    ) except -1:
        """Fill ``fields``; return 1 if it is full and more may come, 0 at the end."""
        cdef:
            const uint8_t *pos = data[0]
            const uint8_t *end = pos + length[0]
            const lib.nghttp2_nv *entry
            lib.nghttp2_nv nv
            int flags
            ssize_t rv
            uint8_t first

        while n[0] < FEW:
            flags = 0
            first = pos[0] if pos < end else 0
            rv = lib.nghttp2_hd_inflate_hd2(
                self._inflater, &nv, &flags, pos, end - pos, final)
            if rv < 0:
                data[0] = pos
                raise hpack_error(rv, "malformed header block")
            pos += rv
            if flags & lib.NGHTTP2_HD_INFLATE_EMIT:
                self._count(&nv)
                if first & INDEXED:
                    fields[n[0]] = self._entry(&nv)
                else:
                    fields[n[0]] = self._literal(&nv, first)
                n[0] += 1
                # The decoder has just emitted a field, so the next byte begins one.
                # For an indexed field whose index fits into that byte, the decoder
                # would only look up the entry and keep its state (RFC 7541, 3.2 and
                # 6.1).
                while n[0] < FEW and pos < end and INDEXED < pos[0] < LONG_INDEX:
                    entry = lib.nghttp2_hd_inflate_get_table_entry(
                        self._inflater, pos[0] & ~INDEXED)
                    if entry == NULL:
                        break
                    self._count(entry)
                    fields[n[0]] = self._entry(entry)
                    n[0] += 1
                    pos += 1
            elif flags & lib.NGHTTP2_HD_INFLATE_FINAL:
                lib.nghttp2_hd_inflate_end_headers(self._inflater)
                self._header_list_size = 0
                return 0
            elif pos == end:
                return 0
        data[0] = pos
        length[0] = end - pos
        return 1

    @cython.final
    cdef inline int _count(self, const lib.nghttp2_nv *nv) except -1:
        self._header_list_size += nv.namelen + nv.valuelen + OVERHEAD
        if self._header_list_size > self._max_header_list_size:
            raise HeaderListTooLargeError(
                f"a header list is larger than {self._max_header_list_size} bytes"
            )
        return 0

    @cython.final
    cdef inline PyObject *_entry(self, const lib.nghttp2_nv *nv) except NULL:
        """Return the pair of a table entry: usually the one that was made before."""
        cdef:
            Slot *slot = &self._pairs[slot_of(nv.name, nv.value)]
            PyObject *made = slot.made

        if (
            slot.name == nv.name and slot.value == nv.value and made != NULL
            and is_bytes(PyTuple_GET_ITEM(made, 1), nv.value, nv.valuelen)
            and is_bytes(PyTuple_GET_ITEM(made, 0), nv.name, nv.namelen)
        ):
            Py_INCREF(made)
            return made
        return self._literal(nv, INDEXED)

    @cython.final
    cdef PyObject *_literal(
        self, const lib.nghttp2_nv *nv, uint8_t first
    ) except NULL:
        cdef PyObject *made

        if nv.flags & lib.NGHTTP2_NV_FLAG_NO_INDEX:
            # This does what NeverIndexed(name, value) does, without a Python call.
            made = PyType_GenericAlloc(never_indexed_type, 2)
        else:
            made = PyTuple_New(2)
        # Two bytes objects are in no cycle: the collector need not visit the pair.
        PyObject_GC_UnTrack(made)
        # A Python variable drops the tuple if the name or the value cannot be made.
        pair = <object>made
        Py_DECREF(made)
        PyTuple_SET_ITEM(made, 0, self._name(nv))
        PyTuple_SET_ITEM(
            made, 1, new_bytes(<const char *>nv.value, nv.valuelen))
        if first >= INCREMENTAL and nv.namelen + nv.valuelen <= MAX_CACHED:
            Py_INCREF(<PyObject *>pair)
            put(&self._pairs[slot_of(nv.name, nv.value)], nv.name, nv.value, made)
        Py_INCREF(<PyObject *>pair)
        return made

    @cython.final
    cdef PyObject *_name(self, const lib.nghttp2_nv *nv) except NULL:
        cdef:
            Slot *slot = &self._names[slot_of(nv.name, NULL)]
            PyObject *made = slot.made

        if (
            slot.name != nv.name or made == NULL
            or not is_bytes(made, nv.name, nv.namelen)
        ):
            made = new_bytes(<const char *>nv.name, nv.namelen)
            if nv.namelen > MAX_CACHED:
                return made
            put(slot, nv.name, NULL, made)
        Py_INCREF(made)
        return made

    @property
    def max_header_list_size(self):
        """The bound on one block's header list, in bytes; it can be set."""
        return self._max_header_list_size

    @max_header_list_size.setter
    def max_header_list_size(self, value):
        self._max_header_list_size = to_size(value, "max_header_list_size")

    def change_table_size(self, hd_table_bufsize_max):
        """Set the most bytes of dynamic table that the peer may use.

        It is the SETTINGS_HEADER_TABLE_SIZE that we sent, from the moment that the peer
        has acknowledged it.  Raises ProtocolError within a block.
        """
        cdef size_t size = to_size(hd_table_bufsize_max, "hd_table_bufsize_max")

        if self._error is not None:
            raise lost(self._error)
        cdef size_t before = lib.nghttp2_hd_inflate_get_max_dynamic_table_size(
            self._inflater)
        check(lib.nghttp2_hd_inflate_change_table_size(self._inflater, size))
        self._allowed = size
        if size < before:
            self._reduced = size

    cdef const lib.nghttp2_nv *_table_entry(self, size_t index) noexcept:
        return lib.nghttp2_hd_inflate_get_table_entry(self._inflater, index)

    cdef size_t _table_len(self) noexcept:
        return lib.nghttp2_hd_inflate_get_num_table_entries(self._inflater)

    cdef size_t _table_size(self) noexcept:
        return lib.nghttp2_hd_inflate_get_dynamic_table_size(self._inflater)

    cdef size_t _table_max(self) noexcept:
        return lib.nghttp2_hd_inflate_get_max_dynamic_table_size(self._inflater)


cdef void put(
    Slot *slot, const uint8_t *name, const uint8_t *value, PyObject *made
) noexcept:
    """Store ``made`` in ``slot``, which owns it."""
    cdef PyObject *old = slot.made

    slot.name = name
    slot.value = value
    slot.made = made
    Py_XDECREF(old)


cdef list extended(list result, PyObject **fields, size_t *n):
    """Move all ``fields`` to the end of ``result``, or of a new list."""
    cdef:
        PyObject *made = PyList_New(n[0])
        size_t i

    for i in range(n[0]):
        PyList_SET_ITEM(made, i, fields[i])
    # The list owns them now, even if a later step fails.
    n[0] = 0
    taken = <list>made
    Py_DECREF(made)
    if result is None:
        return taken
    result.extend(taken)
    return result


cdef int check(int rv) except -1:
    """Turn a negative return code into the exception that names it."""
    if rv < 0:
        raise from_code(rv, lib.nghttp2_strerror(rv).decode())
    return rv


cdef object hpack_error(ssize_t rv, what):
    """Make the exception for a coder that has failed."""
    reason = lib.nghttp2_strerror(<int>rv).decode()
    if rv == lib.NGHTTP2_ERR_NOMEM:
        return MemoryError(reason)
    if rv == lib.NGHTTP2_ERR_BUFFER_ERROR:
        return HeaderListTooLargeError(f"{what}: {reason}", code=rv)
    return HPACKError(f"{what}: {reason}", code=rv)


cdef object lost(error):
    """Make the exception for a coder that has failed before."""
    return error("the state of this HPACK coder was lost in an earlier error")
