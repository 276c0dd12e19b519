# cython: nonecheck=True
"""Header and trailer sections of HTTP/1.1 that are sent, and texts of their rules."""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from nghttp2py cimport cngp_fields as lib
from nghttp2py.h2.convert cimport show

from http import HTTPStatus

from nghttp2py.errors import HeadersError

# The reason phrases by their status (RFC 9110, 15), and the lines with them.
REASONS = [b""] * 600
cdef list STATUS_LINES = [None] * 600
# Octets of a section beside its fields, at most: a status line, and fields of ours.
cdef Py_ssize_t LEAST_HEAD = 256


def _fill_reasons():
    for status in HTTPStatus:
        REASONS[status.value] = status.phrase.encode()
    for status, reason in enumerate(REASONS):
        STATUS_LINES[status] = b"HTTP/1.1 %03d %b" % (status, reason)


_fill_reasons()


cdef str text_of(lib.ngp_field_rule rule):
    """Return the text of a rule, without a section of HTTP/2's RFCs."""
    text = (<bytes>lib.ngp_field_rule_text(rule, 0)).decode()
    if "(RFC 9113" in text or "(RFC 8441" in text:
        text = text.partition(" (RFC")[0]
    return text


cdef list tokens(list fields, bytes name):
    """Return the items of a list-based field, in lower case (RFC 9110, 5.6.1)."""
    cdef tuple pair

    return [
        item.strip(b" \t")
        for pair in fields
        if pair[0] == name
        for item in (<bytes>pair[1]).lower().split(b",")
    ]


cdef bytes begin_head(HeadWriter *writer, list pairs):
    """Begin a section with such fields; return what must be kept until its end."""
    cdef Py_ssize_t size = LEAST_HEAD
    cdef bytes memory = None
    cdef tuple pair

    for pair in pairs:
        size += PyBytes_GET_SIZE(<bytes>pair[0]) + PyBytes_GET_SIZE(<bytes>pair[1]) + 4
    if size <= <Py_ssize_t>sizeof(writer.few):
        writer.base = writer.few
    else:
        memory = PyBytes_FromStringAndSize(NULL, size)
        writer.base = PyBytes_AS_STRING(memory)
    writer.end = writer.base
    return memory


cdef void append_status(HeadWriter *writer, int status) noexcept:
    """Append the status line of a status that has three digits."""
    if status < 600:
        append(writer, <bytes>STATUS_LINES[status])
    else:
        memcpy(writer.end, b"HTTP/1.1 ", 9)
        writer.end[9] = 48 + status // 100
        writer.end[10] = 48 + status // 10 % 10
        writer.end[11] = 48 + status % 10
        writer.end[12] = c" "
        writer.end += 13


cdef bytes end_head(HeadWriter *writer):
    """Return the section."""
    return PyBytes_FromStringAndSize(writer.base, writer.end - writer.base)


cdef bint write_fields(
    list pairs,
    lib.ngp_fields *section,
    lib.ngp_fields_section kind,
    bytes status,
    HeadWriter *writer,
    int number,
) except -1:
    """Check the fields of a section, and append them.

    ``status`` is checked with them.  Fields that concern one connection are left out,
    for they are ours (RFC 9110, 7.6.1).  Return whether ``connection`` had ``close``.
    """
    cdef:
        lib.ngp_token token
        lib.ngp_field_rule rule
        tuple pair
        bytes name
        bytes value
        bint close = False
        bint pseudo

    lib.ngp_fields_init(section, kind, lib.NGP_FIELDS_OUTGOING | lib.NGP_FIELDS_UPPER)
    if status is not None:
        rule = lib.ngp_fields_add(
            section, lib.NGP_TOKEN__STATUS, 1,
            <const uint8_t *>PyBytes_AS_STRING(status), len(status),
        )
        if rule != lib.NGP_FIELD_GOOD:
            raise HeadersError(f"status is {status.decode()}: {text_of(rule)}")
    for pair in pairs:
        name = <bytes>pair[0]
        value = <bytes>pair[1]
        rule = lib.ngp_fields_name(
            <const uint8_t *>PyBytes_AS_STRING(name), len(name), lib.NGP_FIELDS_UPPER,
            &token,
        )
        if rule == lib.NGP_FIELD_GOOD:
            rule = lib.ngp_fields_value(
                <const uint8_t *>PyBytes_AS_STRING(value), len(value), 0
            )
        if rule != lib.NGP_FIELD_GOOD:
            raise HeadersError(f"{show(pair)}: {text_of(rule)}")
        pseudo = PyBytes_AS_STRING(name)[0] == c":"
        rule = lib.ngp_fields_add(
            section, token, pseudo, <const uint8_t *>PyBytes_AS_STRING(value),
            len(value),
        )
        if (
            rule == lib.NGP_FIELD_CONNECTION_SPECIFIC or rule == lib.NGP_FIELD_TE_PLACE
        ):
            if token == lib.NGP_TOKEN_CONNECTION:
                close = close or b"close" in tokens([(b"", value)], b"")
            if token != lib.NGP_TOKEN_UPGRADE or number != 426:
                continue
            rule = lib.NGP_FIELD_GOOD
        if rule != lib.NGP_FIELD_GOOD:
            raise HeadersError(f"{show(pair)}: {text_of(rule)}")
        if token == lib.NGP_TOKEN_CONTENT_LENGTH and (
            kind != lib.NGP_FIELDS_RESPONSE or status == b"204" or number == 101
        ):
            continue  # RFC 9110, 8.6: it must not be sent with these
        memcpy(writer.end, b"\r\n", 2)
        writer.end += 2
        append(writer, name)
        memcpy(writer.end, b": ", 2)
        writer.end += 2
        append(writer, value)
    rule = lib.ngp_fields_end(section)
    if rule != lib.NGP_FIELD_GOOD:
        raise HeadersError(text_of(rule))
    return close
