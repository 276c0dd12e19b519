# What we use of src_c/ngp.h, ngp_h3_fields.h, ngp_qpack.h and ngp_h3.h, in their order.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nghttp2py.cngp_pool cimport nghttp2_mem


cdef extern from "ngp.h" nogil:
    uint64_t NGP_MAX_VARINT

    size_t ngp_put_varint(uint8_t *dest, uint64_t value)
    size_t ngp_get_varint(const uint8_t *src, size_t len, uint64_t *pvalue)


cdef extern from "ngp_fields.h" nogil:
    ctypedef enum ngp_fields_section:
        NGP_FIELDS_REQUEST
        NGP_FIELDS_RESPONSE
        NGP_FIELDS_PROMISE
        NGP_FIELDS_TRAILERS

    unsigned NGP_FIELDS_OUTGOING
    unsigned NGP_FIELDS_EITHER
    unsigned NGP_FIELDS_AIOQUIC

    uint64_t NGP_FIELDS_NO_LENGTH

    ctypedef struct ngp_fields:
        uint64_t content_length


cdef extern from "ngp_h3_fields.h" nogil:
    enum:
        NGP_H3_ERR_MALFORMED

    ctypedef struct ngp_h3_phrase:
        size_t len
        char *text

    ctypedef struct ngp_h3_checker:
        ngp_fields fields

    void ngp_h3_checker_init(
        ngp_h3_checker *checker,
        ngp_fields_section section,
        unsigned flags,
        ngp_h3_phrase *phrase,
    )
    int ngp_h3_checker_field(
        ngp_h3_checker *checker,
        const uint8_t *name,
        size_t namelen,
        const uint8_t *value,
        size_t valuelen,
    )
    int ngp_h3_checker_end(ngp_h3_checker *checker)
    int ngp_h3_check_name(const uint8_t *name, size_t namelen, ngp_h3_phrase *phrase)
    int ngp_h3_check_value(
        const uint8_t *name,
        size_t namelen,
        const uint8_t *value,
        size_t valuelen,
        ngp_h3_phrase *phrase,
    )


cdef extern from "ngp_qpack.h" nogil:
    ctypedef struct nghttp3_info:
        const char *version_str

    const nghttp3_info *nghttp3_version(int least_version)

    ctypedef struct nghttp3_rcbuf:
        pass

    ctypedef struct nghttp3_vec:
        uint8_t *base
        size_t len

    ctypedef struct nghttp3_nv:
        uint8_t *name
        uint8_t *value
        size_t namelen
        size_t valuelen
        uint8_t flags

    enum:
        NGHTTP3_NV_FLAG_NONE
        NGHTTP3_NV_FLAG_NEVER_INDEX

    ctypedef struct nghttp3_qpack_nv:
        nghttp3_rcbuf *name
        nghttp3_rcbuf *value
        int32_t token

    enum:
        NGHTTP3_QPACK_TOKEN_COOKIE

    nghttp3_vec nghttp3_rcbuf_get_buf(const nghttp3_rcbuf *rcbuf)
    void nghttp3_rcbuf_incref(nghttp3_rcbuf *rcbuf)
    void nghttp3_rcbuf_decref(nghttp3_rcbuf *rcbuf)

    enum:
        NGHTTP2_ERR_NOMEM
        NGP_QPACK_ERR_DECOMPRESSION_FAILED
        NGP_QPACK_ERR_ENCODER_STREAM
        NGP_QPACK_ERR_DECODER_STREAM
        NGP_QPACK_ERR_BLOCKED
        NGP_QPACK_ERR_TOO_LARGE

    ctypedef struct ngp_buf:
        uint8_t *base
        size_t len

    void ngp_buf_init(ngp_buf *buf, nghttp2_mem *mem)
    void ngp_buf_free(ngp_buf *buf)

    ctypedef struct ngp_qpack_fields:
        nghttp3_qpack_nv *nv
        size_t len

    void ngp_qpack_fields_init(ngp_qpack_fields *fields, nghttp2_mem *mem)
    void ngp_qpack_fields_free(ngp_qpack_fields *fields)
    void ngp_qpack_fields_clear(ngp_qpack_fields *fields, size_t start)

    ctypedef struct ngp_qpack_pair:
        void *object

    ctypedef struct ngp_qpack_pairs:
        pass

    ngp_qpack_pair *ngp_qpack_pairs_find(
        const ngp_qpack_pairs *pairs, const nghttp3_qpack_nv *nv
    )
    void *ngp_qpack_pairs_keep(
        ngp_qpack_pairs *pairs, const nghttp3_qpack_nv *nv, void *object
    )
    void *ngp_qpack_pairs_take(ngp_qpack_pairs *pairs)

    ctypedef struct ngp_qpack_encoder:
        pass

    ctypedef struct ngp_qpack_encoded:
        nghttp3_vec prefix
        nghttp3_vec section
        nghttp3_vec stream

    int ngp_qpack_encoder_init(
        ngp_qpack_encoder *encoder, size_t max_capacity, nghttp2_mem *mem
    )
    void ngp_qpack_encoder_free(ngp_qpack_encoder *encoder)
    int ngp_qpack_encoder_apply(
        ngp_qpack_encoder *encoder, uint64_t capacity, uint64_t blocked_streams
    )
    int ngp_qpack_encoder_encode(
        ngp_qpack_encoder *encoder,
        int64_t stream_id,
        nghttp3_nv *nva,
        size_t nvlen,
        ngp_qpack_encoded *pres,
    )
    int ngp_qpack_encoder_read_decoder(
        ngp_qpack_encoder *encoder, const uint8_t *data, size_t len
    )

    ctypedef struct ngp_qpack_decoder:
        ngp_qpack_pairs pairs

    int ngp_qpack_decoder_init(
        ngp_qpack_decoder *decoder,
        size_t capacity,
        size_t blocked_streams,
        nghttp2_mem *mem,
    )
    void ngp_qpack_decoder_free(ngp_qpack_decoder *decoder)
    int ngp_qpack_decoder_read_encoder(
        ngp_qpack_decoder *decoder, const uint8_t *data, size_t len
    )
    uint64_t ngp_qpack_decoder_insert_count(const ngp_qpack_decoder *decoder)
    int ngp_qpack_decoder_decode(
        ngp_qpack_decoder *decoder,
        int64_t stream_id,
        const uint8_t *data,
        size_t len,
        uint64_t max_size,
        size_t max_count,
        ngp_qpack_fields *fields,
        uint64_t *prequired,
    )
    int ngp_qpack_decoder_cancel(ngp_qpack_decoder *decoder, int64_t stream_id)
    size_t ngp_qpack_decoder_pending(const ngp_qpack_decoder *decoder)
    int ngp_qpack_decoder_take(ngp_qpack_decoder *decoder, ngp_buf *out)


cdef extern from "ngp_h3.h" nogil:
    ctypedef struct ngp_h3:
        pass

    enum:
        NGP_H3_ERR_PROTOCOL
        NGP_H3_ERR_FRAME_UNEXPECTED
        NGP_H3_ERR_STREAM_TYPE
        NGP_H3_ERR_NO_PUSH_ID
        NGP_H3_ERR_NOT_ENABLED
        NGP_H3_ERR_GOING_AWAY
        NGP_H3_ERR_ROLE
        NGP_H3_ERR_RANGE
        NGP_H3_ERR_BODY_LENGTH
        NGP_H3_ERR_NO_SETTINGS

    const char *ngp_h3_strerror(int code)

    uint64_t NGP_H3_STREAM_CONTROL
    uint64_t NGP_H3_STREAM_QPACK_ENCODER
    uint64_t NGP_H3_STREAM_QPACK_DECODER
    uint64_t NGP_H3_STREAM_REQUEST
    int NGP_H3_NO_ID

    ctypedef struct ngp_h3_options:
        uint8_t is_client
        uint8_t webtransport
        uint8_t extended
        uint8_t stream_errors
        uint8_t spaces
        uint8_t log
        size_t qpack_capacity
        size_t qpack_blocked_streams
        size_t qpack_encoder_capacity
        uint64_t max_field_section_size
        size_t max_field_count
        size_t max_buffered
        uint32_t max_sessions
        uint32_t max_glitches
        uint32_t max_reset_streams

    void ngp_h3_options_default(ngp_h3_options *options)

    ctypedef enum ngp_h3_event_type:
        NGP_H3_EVENT_HEADERS
        NGP_H3_EVENT_DATA
        NGP_H3_EVENT_PUSH_PROMISE
        NGP_H3_EVENT_DATAGRAM
        NGP_H3_EVENT_WEBTRANSPORT_DATA
        NGP_H3_EVENT_SETTINGS
        NGP_H3_EVENT_GOAWAY
        NGP_H3_EVENT_MAX_PUSH_ID
        NGP_H3_EVENT_CANCEL_PUSH
        NGP_H3_EVENT_PRIORITY_UPDATE
        NGP_H3_EVENT_ORIGIN
        NGP_H3_EVENT_STREAM_RESET
        NGP_H3_EVENT_STOP_SENDING
        NGP_H3_EVENT_CAPSULE
        NGP_H3_EVENT_SESSION_DRAINED
        NGP_H3_EVENT_SESSION_CLOSED
        NGP_H3_EVENT_ABORTED
        NGP_H3_EVENT_LOG_DATA_FRAME

    ctypedef struct ngp_h3_event:
        ngp_h3_event_type type
        uint8_t end_stream
        int64_t stream_id
        int64_t push_id
        int64_t session_id
        uint64_t value
        const uint8_t *data
        size_t len
        size_t field
        size_t nfields
        uint64_t frame_len

    ctypedef enum ngp_h3_op_type:
        NGP_H3_OP_SEND
        NGP_H3_OP_RESET

    ctypedef struct ngp_h3_op:
        ngp_h3_op_type type
        uint8_t end_stream
        uint8_t best_effort
        int64_t stream_id
        uint64_t error_code
        size_t offset
        size_t len

    ctypedef struct ngp_h3_setting:
        uint64_t id
        uint64_t value

    int ngp_h3_new(ngp_h3 **ph3, const ngp_h3_options *options, nghttp2_mem *mem)
    void ngp_h3_del(ngp_h3 *h3)
    const ngp_h3_options *ngp_h3_get_options(const ngp_h3 *h3)
    int ngp_h3_open(ngp_h3 *h3, uint64_t type, int64_t stream_id)
    int ngp_h3_send_settings(ngp_h3 *h3, const ngp_h3_setting *settings, size_t n)
    void ngp_h3_set_peer_datagrams(ngp_h3 *h3, int allowed)
    int ngp_h3_recv_stream(
        ngp_h3 *h3, int64_t stream_id, const uint8_t *data, size_t len, int end_stream
    )
    int ngp_h3_recv_reset(ngp_h3 *h3, int64_t stream_id, uint64_t error_code)
    int ngp_h3_recv_stop_sending(ngp_h3 *h3, int64_t stream_id, uint64_t error_code)
    int ngp_h3_recv_datagram(ngp_h3 *h3, const uint8_t *data, size_t len)
    const ngp_h3_event *ngp_h3_events(const ngp_h3 *h3, size_t *pn)
    const nghttp3_qpack_nv *ngp_h3_fields(const ngp_h3 *h3)
    ngp_qpack_pairs *ngp_h3_pairs(ngp_h3 *h3)
    const ngp_h3_op *ngp_h3_ops(const ngp_h3 *h3, size_t *pn)
    const uint8_t *ngp_h3_output(const ngp_h3 *h3)
    const ngp_h3_phrase *ngp_h3_closing(const ngp_h3 *h3, uint64_t *pcode)
    void ngp_h3_body_error(
        const ngp_h3 *h3, uint64_t *pexpected, uint64_t *pactual
    )
    const ngp_h3_phrase *ngp_h3_phrase_of_error(const ngp_h3 *h3)
    const ngp_h3_setting *ngp_h3_peer_settings(const ngp_h3 *h3, size_t *pn)

    int NGP_H3_SETTINGS_TRUNCATED
    int NGP_H3_SETTINGS_RESERVED
    int NGP_H3_SETTINGS_TWICE

    int ngp_h3_parse_settings(
        const uint8_t *payload,
        size_t len,
        ngp_h3_setting *settings,
        size_t *pn,
        uint64_t *pid,
    )
    int64_t ngp_h3_max_push_id(const ngp_h3 *h3)
    int64_t ngp_h3_next_push_id(const ngp_h3 *h3)
    uint64_t ngp_h3_section_len(const ngp_h3 *h3)
    int ngp_h3_send_headers(
        ngp_h3 *h3,
        int64_t stream_id,
        nghttp3_nv *nva,
        size_t nvlen,
        int end_stream,
        int check,
    )

    enum:
        NGP_H3_MAX_FRAME_HEADER

    int ngp_h3_send_data(
        ngp_h3 *h3,
        int64_t stream_id,
        size_t len,
        int end_stream,
        uint8_t *header,
        size_t *pheaderlen,
    )
    int ngp_h3_send_push_promise(
        ngp_h3 *h3,
        int64_t stream_id,
        nghttp3_nv *nva,
        size_t nvlen,
        int check,
        int64_t *ppush_id,
    )
    int ngp_h3_open_push(ngp_h3 *h3, int64_t stream_id, int64_t push_id)
    int ngp_h3_reset_stream(ngp_h3 *h3, int64_t stream_id, uint64_t error_code)
    int ngp_h3_stop_stream(ngp_h3 *h3, int64_t stream_id, uint64_t error_code)
    int ngp_h3_datagram_header(int64_t stream_id, uint8_t *dest, size_t *plen)
    int ngp_h3_send_goaway(ngp_h3 *h3, uint64_t id)
    uint64_t ngp_h3_next_request(const ngp_h3 *h3)
    int ngp_h3_send_max_push_id(ngp_h3 *h3, uint64_t id)
    int ngp_h3_send_cancel_push(ngp_h3 *h3, uint64_t push_id)
    int ngp_h3_send_priority_update(
        ngp_h3 *h3, uint64_t id, int push, const uint8_t *value, size_t len
    )
    int ngp_h3_send_origin(ngp_h3 *h3, const uint8_t *payload, size_t len)
    int ngp_h3_priority(const ngp_h3 *h3, int64_t stream_id, int *pincremental)
    int ngp_h3_open_webtransport(
        ngp_h3 *h3, int64_t stream_id, uint64_t session_id, int uni
    )
    void ngp_h3_end_webtransport(ngp_h3 *h3, int64_t stream_id)
    int ngp_h3_close_session(
        ngp_h3 *h3,
        int64_t session_id,
        uint32_t error_code,
        const uint8_t *message,
        size_t len,
    )
    int ngp_h3_drain_session(ngp_h3 *h3, int64_t session_id)
    int ngp_h3_send_capsule(
        ngp_h3 *h3, int64_t stream_id, uint64_t type, const uint8_t *data, size_t len
    )
    uint64_t ngp_h3_wt_to_http(uint32_t code)
    int ngp_h3_wt_from_http(uint64_t code, uint32_t *pcode)

    ctypedef struct ngp_h3_stream_info:
        int64_t stream_id
        uint64_t type
        uint8_t blocked
        uint8_t recv_ended
        uint8_t send_ended
        uint8_t recv_state
        uint8_t send_state
        uint8_t in_frame
        uint64_t frame_type
        uint64_t frame_size
        int64_t push_id
        int64_t session_id
        const uint8_t *buffer
        size_t buffer_len

    uint64_t ngp_h3_incomplete_frame(const ngp_h3 *h3, int64_t stream_id)

    ctypedef struct ngp_h3_qpack_bytes:
        uint64_t encoder_sent
        uint64_t encoder_received
        uint64_t decoder_sent
        uint64_t decoder_received

    int ngp_h3_session_is_open(const ngp_h3 *h3, int64_t session_id)
    int64_t ngp_h3_local_stream(const ngp_h3 *h3, uint64_t type)
    const ngp_h3_qpack_bytes *ngp_h3_get_qpack_bytes(const ngp_h3 *h3)
    int ngp_h3_next_stream(
        const ngp_h3 *h3, size_t *pplace, ngp_h3_stream_info *info
    )
