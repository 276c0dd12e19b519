"""QPACK, the field compression of HTTP/3 (RFC 9204).

Besides field sections, an encoder and the peer's decoder exchange instructions over two
streams: pass what ``data_to_send`` of one returns to ``receive_data`` of the other, in
order.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from nghttp2py cimport cngp_h3 as lib
from nghttp2py.cngp_pool cimport ngp_mem_default
from nghttp2py.h3.convert cimport (
    FieldList,
    NameCache,
    make_headers,
    names_free,
    pairs_free,
)
from nghttp2py.octets cimport to_bytes

from nghttp2py.errors import HeaderListTooLargeError
from nghttp2py.h3.protocol import (
    QpackDecoderStreamError,
    QpackDecompressionFailed,
    QpackEncoderStreamError,
)


def library_versions():
    """Return the name and the release of HTTP/3's C library."""
    return {"nghttp3": lib.nghttp3_version(0).version_str.decode()}


def h3_defaults():
    """Return the numbers of ``ngp_h3_options_default``, by the options' names."""
    cdef lib.ngp_h3_options options

    lib.ngp_h3_options_default(&options)
    return {
        "qpack_capacity": options.qpack_capacity,
        "qpack_blocked_streams": options.qpack_blocked_streams,
        "qpack_encoder_capacity": options.qpack_encoder_capacity,
        "max_field_count": options.max_field_count,
        "max_buffered": options.max_buffered,
        "max_sessions": options.max_sessions,
        "max_glitches": options.max_glitches,
        "max_reset_streams": options.max_reset_streams,
    }


cdef int check(int rv) except -1:
    """Turn a negative return code into the exception that names it."""
    if rv == 0:
        return 0
    if rv == lib.NGP_QPACK_ERR_DECOMPRESSION_FAILED:
        raise QpackDecompressionFailed("The encoded field section is malformed")
    if rv == lib.NGP_QPACK_ERR_ENCODER_STREAM:
        raise QpackEncoderStreamError("The encoder stream is malformed")
    if rv == lib.NGP_QPACK_ERR_DECODER_STREAM:
        raise QpackDecoderStreamError("The decoder stream is malformed")
    if rv == lib.NGP_QPACK_ERR_TOO_LARGE:
        raise HeaderListTooLargeError("The field section is too large", code=rv)
    raise MemoryError


cdef size_t to_size(value, str name) except? 0:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{name} is {value}, but must be from 0 to {(1 << 32) - 1}")
    return value


cdef int64_t to_stream_id(value) except -1:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"stream_id must be an int, not {type(value).__name__}")
    if not 0 <= value < 1 << 62:
        raise ValueError(f"{value} is not a stream identifier (RFC 9000, 2.1)")
    return value


cdef bytes take_all(list pieces):
    cdef bytes data

    if not pieces:
        return b""
    data = b"".join(pieces)
    pieces.clear()
    return data


cdef class QPACKEncoder:
    """Encodes field sections.

    ``max_table_capacity`` bounds the dynamic table, in bytes.  It stays empty until
    ``apply_settings`` sets what the peer's decoder allows.
    """

    cdef lib.ngp_qpack_encoder _encoder
    cdef bint _made
    cdef FieldList _fields
    cdef list _stream  # encoder stream bytes that data_to_send has not returned

    def __cinit__(self, max_table_capacity=4096):
        check(
            lib.ngp_qpack_encoder_init(
                &self._encoder,
                to_size(max_table_capacity, "max_table_capacity"),
                ngp_mem_default(),
            )
        )
        self._made = True
        self._fields = FieldList()
        self._stream = []

    def __dealloc__(self):
        if self._made:
            lib.ngp_qpack_encoder_free(&self._encoder)

    def apply_settings(self, max_table_capacity, blocked_streams):
        """Apply the peer's QPACK_MAX_TABLE_CAPACITY and QPACK_BLOCKED_STREAMS."""
        check(
            lib.ngp_qpack_encoder_apply(
                &self._encoder,
                to_size(max_table_capacity, "max_table_capacity"),
                to_size(blocked_streams, "blocked_streams"),
            )
        )

    def encode(self, stream_id, headers):
        """Return the encoded field section of ``headers``, pairs of bytes.

        ``data_to_send`` then returns its instructions for the encoder stream.  Fields
        that could be guessed from their length (authorization, short cookies) enter no
        table (RFC 9204, 7.1).
        """
        cdef:
            int64_t stream = to_stream_id(stream_id)
            FieldList fields = self._fields
            lib.ngp_qpack_encoded encoded
            bytes section
            char *p

        fields.fill(headers)
        try:
            check(
                lib.ngp_qpack_encoder_encode(
                    &self._encoder, stream, fields.nva, fields.nvlen, &encoded
                )
            )
        finally:
            fields.clear()
        if encoded.stream.len:
            self._stream.append(
                PyBytes_FromStringAndSize(
                    <const char *>encoded.stream.base, encoded.stream.len
                )
            )
        section = PyBytes_FromStringAndSize(
            NULL, encoded.prefix.len + encoded.section.len
        )
        p = PyBytes_AS_STRING(section)
        memcpy(p, encoded.prefix.base, encoded.prefix.len)
        memcpy(p + encoded.prefix.len, encoded.section.base, encoded.section.len)
        return section

    def data_to_send(self):
        """Return the encoder stream bytes since the last call."""
        return take_all(self._stream)

    def receive_data(self, data):
        """Handle bytes of the peer's decoder stream.

        Raises ``QpackDecoderStreamError`` if they are malformed.
        """
        cdef bytes whole = to_bytes(data)

        check(
            lib.ngp_qpack_encoder_read_decoder(
                &self._encoder,
                <const uint8_t *>PyBytes_AS_STRING(whole),
                PyBytes_GET_SIZE(whole),
            )
        )


cdef class QPACKDecoder:
    """Decodes field sections.

    ``max_table_capacity`` and ``blocked_streams`` are what we announce to the peer's
    encoder; ``max_field_section_size`` bounds a decoded section, in bytes: name, value
    and 32 for each field (RFC 9114, 4.2.2).
    """

    cdef lib.ngp_qpack_decoder _decoder
    cdef lib.ngp_qpack_fields _fields
    cdef NameCache _names
    cdef bint _made
    cdef uint64_t _max_size
    cdef Py_ssize_t _max_blocked
    cdef list _stream   # decoder stream bytes that data_to_send has not returned
    cdef dict _blocked  # stream identifier: (required insert count, section)

    def __cinit__(
        self,
        max_table_capacity=4096,
        blocked_streams=16,
        *,
        max_field_section_size=262144,
    ):
        self._max_size = to_size(max_field_section_size, "max_field_section_size")
        self._max_blocked = to_size(blocked_streams, "blocked_streams")
        check(
            lib.ngp_qpack_decoder_init(
                &self._decoder,
                to_size(max_table_capacity, "max_table_capacity"),
                self._max_blocked,
                ngp_mem_default(),
            )
        )
        lib.ngp_qpack_fields_init(&self._fields, ngp_mem_default())
        self._made = True
        self._stream = []
        self._blocked = {}

    def __dealloc__(self):
        if self._made:
            names_free(&self._names)
            pairs_free(&self._decoder.pairs)
            lib.ngp_qpack_fields_free(&self._fields)
            lib.ngp_qpack_decoder_free(&self._decoder)

    cdef int _collect(self) except -1:
        """Fetch the bytes for the decoder stream: libnghttp3 keeps only a few."""
        cdef lib.ngp_buf out

        if lib.ngp_qpack_decoder_pending(&self._decoder) == 0:
            return 0
        lib.ngp_buf_init(&out, NULL)
        try:
            check(lib.ngp_qpack_decoder_take(&self._decoder, &out))
            self._stream.append(
                PyBytes_FromStringAndSize(<const char *>out.base, out.len)
            )
        finally:
            lib.ngp_buf_free(&out)
        return 0

    cdef object _decode(self, int64_t stream_id, bytes data):
        """Return the fields, or keep the section and return None if it is blocked."""
        cdef:
            uint64_t required = 0
            list headers
            int rv = lib.ngp_qpack_decoder_decode(
                &self._decoder,
                stream_id,
                <const uint8_t *>PyBytes_AS_STRING(data),
                PyBytes_GET_SIZE(data),
                self._max_size,
                <size_t>-1,
                &self._fields,
                &required,
            )

        if rv == lib.NGP_QPACK_ERR_BLOCKED:
            if len(self._blocked) >= self._max_blocked:
                raise QpackDecompressionFailed(
                    "More streams are blocked than QPACK_BLOCKED_STREAMS allows"
                )
            self._blocked[stream_id] = (required, data)
            return None
        check(rv)
        headers = make_headers(
            &self._names, &self._decoder.pairs, self._fields.nv, self._fields.len, 0
        )
        lib.ngp_qpack_fields_clear(&self._fields, 0)
        self._collect()
        return headers

    def decode(self, stream_id, data):
        """Return the fields of an encoded section, a list of pairs of bytes.

        Returns ``None`` if the section needs entries that have not arrived:
        ``receive_data`` returns the stream when ``resume`` can decode it.  Until then
        no other section of the stream can be decoded.

        Raises ``QpackDecompressionFailed`` if it is malformed, or if too many
        streams are blocked; ``HeaderListTooLargeError`` if it is too large;
        ``ValueError`` if a section of this stream is blocked.
        """
        cdef int64_t stream = to_stream_id(stream_id)

        if self._blocked and stream_id in self._blocked:
            raise ValueError(f"a section of stream {stream_id} is blocked")
        return self._decode(stream, to_bytes(data))

    def resume(self, stream_id):
        """Return the fields of the section that was blocked.

        Raises ``ValueError`` if there is none, or if it still is.
        """
        if stream_id not in self._blocked:
            raise ValueError(f"no section of stream {stream_id} is blocked")
        required, data = self._blocked[stream_id]
        if required > lib.ngp_qpack_decoder_insert_count(&self._decoder):
            raise ValueError(f"the section of stream {stream_id} is still blocked")
        del self._blocked[stream_id]
        return self._decode(stream_id, data)

    def receive_data(self, data):
        """Handle bytes of the peer's encoder stream.

        Returns the streams whose section is no longer blocked, a list. Raises
        ``QpackEncoderStreamError`` if the bytes are malformed.
        """
        cdef:
            bytes whole = to_bytes(data)
            uint64_t count

        check(
            lib.ngp_qpack_decoder_read_encoder(
                &self._decoder,
                <const uint8_t *>PyBytes_AS_STRING(whole),
                PyBytes_GET_SIZE(whole),
            )
        )
        if not self._blocked:
            return []
        count = lib.ngp_qpack_decoder_insert_count(&self._decoder)
        return [
            stream_id
            for stream_id, (required, _) in self._blocked.items()
            if required <= count
        ]

    def cancel_stream(self, stream_id):
        """Drop a blocked section, and queue Stream Cancellation (RFC 9204, 2.2.2.2)."""
        cdef int64_t stream = to_stream_id(stream_id)

        self._blocked.pop(stream_id, None)
        check(lib.ngp_qpack_decoder_cancel(&self._decoder, stream))
        self._collect()

    def data_to_send(self):
        """Return the decoder stream bytes since the last call."""
        self._collect()
        return take_all(self._stream)
