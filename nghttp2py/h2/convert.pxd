from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t

from nghttp2py cimport cngp as lib
from nghttp2py.h2.events cimport RequestReceived

cdef enum:
    # The most that a 31-bit window can be (RFC 9113, 6.9.1).
    MAX_WINDOW = 0x7FFFFFFF
    # Entries of a SETTINGS frame that we send; nghttp2 receives as many.
    MAX_SETTINGS = 32


cdef class FieldList


cdef int check(int rv, object stream_id=*) except -1
# Like check(); |state| explains a wrong state of the stream.
cdef int check_sent(lib.ngp_h2 *h2, int rv, stream_id, str state) except -1
cdef int check_message(
    lib.ngp_h2 *h2, int rv, FieldList fields, const lib.ngp_h2_header_error *error,
    stream_id, str state,
) except -1
cdef uint32_t to_uint32(value, what) except? 0xFFFFFFFF
cdef int32_t to_stream_id(value) except -1
cdef bytes as_bytes(value)
cdef bytes status_text(status)
# A field in an error message; secrets are redacted.
cdef str show(tuple pair)
cdef bytes join_output(lib.ngp_h2 *h2)
cdef list list_output(lib.ngp_h2 *h2)
cdef int fill_options(lib.ngp_h2_options *options, config, bint client) except -1
cdef size_t write_settings(
    dict settings, lib.nghttp2_settings_entry *entries
) except? 0
cdef int check_settings(dict settings, bint client, bint connect_enabled) except -1
cdef dict read_session_settings(lib.ngp_h2 *h2, bint local)
cdef bytes pack_settings(dict settings)
cdef bytes decode_settings(value)
cdef dict describe_counters(lib.ngp_h2 *h2)


# The pair that was last made from two buffers of the HPACK table.
cdef struct CachedPair:
    lib.nghttp2_rcbuf *name   # held
    lib.nghttp2_rcbuf *value  # held
    void *pair                # a tuple, owned


cdef class FieldReader:
    cdef CachedPair *_pairs  # owned; NULL until the first field
    cdef CachedPair _large[8]
    cdef int _next_large     # the slot that was filled longest ago
    cdef size_t _kept        # the size of the kept pairs
    cdef bint _lenient       # white space around values is stripped

    cdef void _forget(self) noexcept
    cdef int _keep(
        self, CachedPair *slot, const lib.ngp_h2_field *field, tuple pair
    ) except -1
    cdef object pair(self, const lib.ngp_h2_field *field)
    cdef object _large_pair(self, const lib.ngp_h2_field *field, size_t n)


cdef int add_pairs(list pairs, headers) except -1


cdef class FieldList:
    cdef list _pairs           # keeps alive what _nva points at
    cdef lib.nghttp2_nv *_many  # owned; NULL while _few is enough
    cdef lib.nghttp2_nv _few[16]

    cdef int add(self, bytes name, bytes value) except -1
    cdef int extend(self, headers) except -1
    cdef int normalize(self) except -1
    cdef lib.nghttp2_nv *nva(self) except NULL
    cdef size_t nvlen(self)
    cdef object error(self, const lib.ngp_h2_header_error *error)
    cdef bint is_informational(self)
    cdef int64_t content_length(self) except? -1


cdef FieldList request_fields(method, target, scheme, authority, protocol)
cdef Py_ssize_t borrow_fields(
    headers, lib.nghttp2_nv *nva, Py_ssize_t room
) except -2


cdef bint takes_trailers(bytes value) except -1
cdef bytes copy_data(const lib.ngp_h2_event *e)
cdef str take_text(const lib.ngp_h2_event *e)


cdef class EventReader:
    cdef dict sources
    cdef set removed  # open streams that the caller has finished with
    cdef object settings_sent    # deque of dicts: SETTINGS not acknowledged yet
    cdef bint going_away         # GOAWAY has come in, or the connection is closed
    cdef const lib.ngp_h2_field *fields  # borrowed while take() runs
    cdef bint receiving          # bytes of the peer are being handled
    cdef FieldReader _pairs

    cdef int take(self, lib.ngp_h2 *h2, list events) except -1
    cdef int body_failed(self, stream_id, error, list events) except -1
    cdef int close_stream(self, int32_t stream_id) except -1
    cdef int take_event(self, const lib.ngp_h2_event *e, list events) except -1
    cdef tuple take_fields(self, const lib.ngp_h2_event *e)
    cdef RequestReceived new_request(self, const lib.ngp_h2_event *e)
    cdef object _take_rare(self, const lib.ngp_h2_event *e)
    cdef int _take_request(self, list events, const lib.ngp_h2_event *e) except -1
    cdef int _take_response(self, list events, const lib.ngp_h2_event *e) except -1
