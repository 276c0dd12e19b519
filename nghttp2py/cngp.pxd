# What we use of src_c/ngp.h and ngp_h2.h, in their order.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from nghttp2py.cngp_pool cimport nghttp2_mem


cdef extern from "ngp.h" nogil:
    enum:
        NGHTTP2_ERR_INVALID_ARGUMENT
        NGHTTP2_ERR_INVALID_STREAM_STATE
        NGHTTP2_ERR_PUSH_DISABLED
        NGHTTP2_ERR_NOMEM
        NGHTTP2_NV_FLAG_NONE
        NGHTTP2_NV_FLAG_NO_INDEX
        NGP_ERR_BAD_HEADERS
        NGP_ERR_BODY_LENGTH
        NGP_ERR_CONNECTION_CLOSED

    ctypedef struct nghttp2_info:
        const char *version_str

    const nghttp2_info *nghttp2_version(int least_version)

    ctypedef struct nghttp2_vec:
        uint8_t *base
        size_t len

    ctypedef struct nghttp2_rcbuf:
        pass

    void nghttp2_rcbuf_incref(nghttp2_rcbuf *rcbuf)
    void nghttp2_rcbuf_decref(nghttp2_rcbuf *rcbuf)
    nghttp2_vec nghttp2_rcbuf_get_buf(nghttp2_rcbuf *rcbuf)

    ctypedef struct nghttp2_nv:
        uint8_t *name
        uint8_t *value
        size_t namelen
        size_t valuelen
        uint8_t flags

    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value

    ctypedef struct nghttp2_origin_entry:
        uint8_t *origin
        size_t origin_len

    ctypedef enum nghttp2_settings_id:
        pass

    ctypedef struct nghttp2_session:
        pass

    Py_ssize_t nghttp2_pack_settings_payload2(
        uint8_t *buf, size_t buflen, const nghttp2_settings_entry *iv, size_t niv)
    uint32_t nghttp2_session_get_remote_settings(
        nghttp2_session *session, nghttp2_settings_id id)
    uint32_t nghttp2_session_get_local_settings(
        nghttp2_session *session, nghttp2_settings_id id)
    int32_t nghttp2_session_get_stream_local_window_size(
        nghttp2_session *session, int32_t stream_id)
    int32_t nghttp2_session_get_local_window_size(nghttp2_session *session)
    size_t nghttp2_session_get_outbound_queue_size(nghttp2_session *session)
    size_t nghttp2_session_get_hd_inflate_dynamic_table_size(
        nghttp2_session *session)
    size_t nghttp2_session_get_hd_deflate_dynamic_table_size(
        nghttp2_session *session)

    const char *ngp_strerror(int code)

    ctypedef struct ngp_feature:
        const char *name
        int present

    const ngp_feature *ngp_features()
    const ngp_feature *ngp_built_in()


cdef extern from "ngp_h2.h" nogil:
    ctypedef struct ngp_h2:
        pass

    ctypedef struct ngp_h2_options:
        uint8_t is_client
        uint8_t manual_credit
        uint8_t default_incremental
        uint8_t recv_extensions
        uint8_t no_deflate_table
        uint8_t no_auto_ping_ack
        uint8_t lenient_fields
        uint32_t pad_multiple
        size_t max_header_list_bytes
        size_t max_header_list_count
        size_t max_body_queue
        size_t max_data_frame
        uint32_t max_provoked_resets
        uint32_t max_glitches
        uint32_t peer_max_concurrent_streams
        uint32_t max_reserved_remote_streams
        size_t max_send_header_block_length
        size_t max_deflate_dynamic_table_size
        size_t max_outbound_ack
        size_t max_settings
        size_t max_continuations
        size_t max_outbound_queue_size
        uint64_t stream_reset_burst
        uint64_t stream_reset_rate
        uint64_t glitch_burst
        uint64_t glitch_rate

    void ngp_h2_options_default(ngp_h2_options *options)

    enum:
        NGP_TOKEN__AUTHORITY
        NGP_TOKEN__METHOD
        NGP_TOKEN__PATH
        NGP_TOKEN__PROTOCOL
        NGP_TOKEN__SCHEME
        NGP_TOKEN__STATUS
        NGP_TOKEN_COOKIE

    ctypedef struct ngp_h2_field:
        nghttp2_rcbuf *name
        nghttp2_rcbuf *value
        uint8_t token
        uint8_t never_indexed

    ctypedef struct ngp_h2_event:
        uint8_t type
        uint8_t end_stream
        uint8_t remote
        uint8_t unprocessed
        uint8_t complete
        int32_t stream_id
        int32_t other_id
        uint32_t error_code
        const uint8_t *data
        size_t len
        const uint8_t *data2
        size_t len2
        size_t first_field
        size_t nfields
        int64_t value
        uint8_t opaque[8]
        uint8_t frame_type
        uint8_t flags

    enum:
        NGP_H2_FRAME_TYPES

    ctypedef struct ngp_h2_counters:
        uint64_t frames_received[18]
        uint64_t frames_sent[18]
        uint64_t bytes_received
        uint64_t bytes_sent
        uint64_t header_bytes_received
        uint64_t header_block_bytes_received
        uint64_t header_bytes_sent
        uint64_t header_block_bytes_sent
        uint64_t streams_opened
        uint64_t provoked_resets
        uint64_t glitches

    ctypedef struct ngp_h2_segment:
        const uint8_t *base
        size_t len
        void *owner

    int ngp_h2_new(ngp_h2 **ph2, const ngp_h2_options *options, nghttp2_mem *mem)
    void ngp_h2_del(ngp_h2 *h2)
    int ngp_h2_recv(
        ngp_h2 *h2, const uint8_t *data, size_t len, size_t *pconsumed)
    int ngp_h2_recv_eof(ngp_h2 *h2, uint32_t error_code)
    int ngp_h2_send(ngp_h2 *h2, size_t limit, int by_reference)
    const ngp_h2_segment *ngp_h2_output(ngp_h2 *h2, size_t *pn, size_t *plen)
    void ngp_h2_clear_output(ngp_h2 *h2)
    void *ngp_h2_take_owner(ngp_h2 *h2)
    void ngp_h2_abandon_bodies(ngp_h2 *h2)
    const ngp_h2_event *ngp_h2_events(const ngp_h2 *h2, size_t *pn)
    const ngp_h2_field *ngp_h2_fields(const ngp_h2 *h2)
    void ngp_h2_clear_events(ngp_h2 *h2)
    int ngp_h2_take_wanted(ngp_h2 *h2, int32_t *pstream_id, size_t *pn)

    ctypedef struct ngp_h2_header_error:
        size_t index
        const char *reason

    int32_t ngp_h2_submit_request(
        ngp_h2 *h2, nghttp2_nv *nva, size_t nvlen, int end_stream,
        ngp_h2_header_error *perror)
    int ngp_h2_submit_response(
        ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva, size_t nvlen,
        int end_stream, ngp_h2_header_error *perror)
    int ngp_h2_submit_informational(
        ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva, size_t nvlen,
        ngp_h2_header_error *perror)
    int ngp_h2_submit_trailers(
        ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva, size_t nvlen,
        ngp_h2_header_error *perror)
    int ngp_h2_check_trailers(
        ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva, size_t nvlen, size_t len,
        ngp_h2_header_error *perror)
    int32_t ngp_h2_submit_push_promise(
        ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva, size_t nvlen,
        ngp_h2_header_error *perror)
    int ngp_h2_queue_body(
        ngp_h2 *h2, int32_t stream_id, const uint8_t *data, size_t len,
        void *owner, int end_stream)
    int ngp_h2_queue_data(
        ngp_h2 *h2, int32_t stream_id, const uint8_t *data, size_t len,
        void *owner, int end_stream)
    void ngp_h2_body_lengths(
        ngp_h2 *h2, int32_t stream_id, int64_t *pexpected, int64_t *pqueued)
    int ngp_h2_set_source(ngp_h2 *h2, int32_t stream_id, int has_source)
    int ngp_h2_watch_body(ngp_h2 *h2, int32_t stream_id, size_t low)
    size_t ngp_h2_queued_body(ngp_h2 *h2, int32_t stream_id)
    size_t ngp_h2_sendable(ngp_h2 *h2, int32_t stream_id)
    int ngp_h2_under_way(ngp_h2 *h2, int32_t stream_id)
    int ngp_h2_submit_rst(
        ngp_h2 *h2, int32_t stream_id, uint32_t error_code, int after_end)
    void ngp_h2_hold_resets(ngp_h2 *h2, int hold)
    int ngp_h2_release_resets(ngp_h2 *h2, int all)
    size_t ngp_h2_held_resets(const ngp_h2 *h2)
    int ngp_h2_consume(ngp_h2 *h2, int32_t stream_id, size_t n)
    size_t ngp_h2_unacked(ngp_h2 *h2, int32_t stream_id)

    ctypedef enum ngp_h2_stream_state:
        NGP_H2_STATE_IDLE
        NGP_H2_STATE_OPEN
        NGP_H2_STATE_CLOSED

    enum:
        NGP_H2_FLAG_REMOTE_END
        NGP_H2_FLAG_LOCAL_HEADERS
        NGP_H2_FLAG_CONNECTED

    ngp_h2_stream_state ngp_h2_stream_get(
        ngp_h2 *h2, int32_t stream_id, uint32_t *pflags)
    size_t ngp_h2_stream_count(const ngp_h2 *h2, size_t *pqueued)
    nghttp2_session *ngp_h2_session(ngp_h2 *h2)
    const ngp_h2_counters *ngp_h2_get_counters(const ngp_h2 *h2)
    bint ngp_h2_alive(const ngp_h2 *h2)
    uint32_t ngp_h2_mid_frame(const ngp_h2 *h2)

    ctypedef struct ngp_h2_bounds:
        double body
        double response
        double min_rate

    ctypedef struct ngp_h2_pace:
        size_t slow
        bint stalled
        bint watched

    int ngp_h2_check_pace(
        ngp_h2 *h2, double now, const ngp_h2_bounds *bounds, int reset,
        ngp_h2_pace *ppace)
    bint ngp_h2_want_read(ngp_h2 *h2)
    bint ngp_h2_want_write(ngp_h2 *h2)
    void ngp_h2_time_passed(ngp_h2 *h2, uint32_t seconds)
    int ngp_h2_submit_settings(
        ngp_h2 *h2, const nghttp2_settings_entry *iv, size_t niv)
    int ngp_h2_submit_ping(ngp_h2 *h2, const uint8_t *opaque, int ack)
    int ngp_h2_submit_goaway(
        ngp_h2 *h2, int32_t last_stream_id, uint32_t error_code,
        const uint8_t *debug, size_t len)
    int ngp_h2_submit_shutdown_notice(ngp_h2 *h2)
    int ngp_h2_terminate(ngp_h2 *h2, uint32_t error_code)
    int ngp_h2_submit_window_update(
        ngp_h2 *h2, int32_t stream_id, int32_t increment)
    int ngp_h2_set_local_window_size(
        ngp_h2 *h2, int32_t stream_id, int32_t size)
    int ngp_h2_upgrade(
        ngp_h2 *h2, const uint8_t *settings, size_t len, int head_request)
    int ngp_h2_submit_priority_update(
        ngp_h2 *h2, int32_t stream_id, const uint8_t *value, size_t len)
    int ngp_h2_set_priority(
        ngp_h2 *h2, int32_t stream_id, uint32_t urgency, int incremental,
        int ignore_client)
    int ngp_h2_get_priority(
        ngp_h2 *h2, int32_t stream_id, uint32_t *purgency, int *pincremental)
    int ngp_h2_submit_altsvc(
        ngp_h2 *h2, int32_t stream_id, const uint8_t *origin,
        size_t origin_len, const uint8_t *value, size_t len)
    int ngp_h2_submit_origin(
        ngp_h2 *h2, const nghttp2_origin_entry *ov, size_t nov)
    int ngp_h2_submit_extension(
        ngp_h2 *h2, uint8_t type, uint8_t flags, int32_t stream_id,
        const uint8_t *payload, size_t len)
