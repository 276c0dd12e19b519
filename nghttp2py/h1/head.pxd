from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from nghttp2py cimport cngp_fields as lib

# The reason phrases by their status, those below 600.
cdef list REASONS


# A section that is being written: where it begins and where it ends so far.
cdef struct HeadWriter:
    char *base
    char *end
    char few[1024]  # for most sections


cdef inline void append(HeadWriter *writer, bytes text) noexcept:
    memcpy(writer.end, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    writer.end += PyBytes_GET_SIZE(text)


cdef str text_of(lib.ngp_field_rule rule)
cdef list tokens(list fields, bytes name)
cdef bytes begin_head(HeadWriter *writer, list pairs)
cdef void append_status(HeadWriter *writer, int status) noexcept
cdef bytes end_head(HeadWriter *writer)
cdef bint write_fields(
    list pairs,
    lib.ngp_fields *section,
    lib.ngp_fields_section kind,
    bytes status,
    HeadWriter *writer,
    int number,
) except -1
