# What we use of src_c/ngp_tls_gnutls.h, ngp_quic.h and ngp_quic_packet.h, in
# their order.
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nghttp2py.cngp_pool cimport nghttp2_mem


cdef extern from "ngp_tls_gnutls.h" nogil:
    const char *ngp_tls_version()

    enum:
        NGHTTP2_ERR_INVALID_ARGUMENT
        NGHTTP2_ERR_NOMEM
        NGP_TLS_TICKET_KEY_LEN

    const char *ngp_strerror(int code)

    ctypedef struct ngp_tls_identity:
        const uint8_t *chain
        size_t chain_len
        const uint8_t *key
        size_t key_len
        const char *password

    ctypedef struct ngp_tls_name:
        const char *name
        size_t identity

    ctypedef struct ngp_tls_options:
        uint8_t is_client
        uint8_t verify
        uint8_t system_trust
        const char *priority
        const uint8_t *chain
        size_t chain_len
        const uint8_t *key
        size_t key_len
        const char *password
        const ngp_tls_identity *identities
        size_t nidentities
        const ngp_tls_name *names
        size_t nnames
        const char *ca_file
        const char *ca_path
        const uint8_t *ca_data
        size_t ca_data_len
        uint8_t remember_chains
        const uint8_t *ticket_key

    ctypedef struct ngp_tls_config:
        pass

    int ngp_tls_config_new(
        ngp_tls_config **pconfig, const ngp_tls_options *options, nghttp2_mem *mem,
        const char **preason)
    int ngp_tls_config_validity(
        const ngp_tls_config *config, size_t i, int64_t *pfrom, int64_t *pto)
    void ngp_tls_config_decref(ngp_tls_config *config)

    ctypedef struct ngp_tls_session_options:
        const uint8_t *alpn
        size_t alpn_len
        const char *sni
        const char *verify_name
        const uint8_t *verify_ip
        size_t verify_ip_len
        uint8_t send_tickets
        uint8_t take_tickets
        uint8_t early_data

    ctypedef struct ngp_tls:
        pass

    int ngp_tls_session_resumed(const ngp_tls *tls)
    int ngp_tls_early_data_accepted(const ngp_tls *tls)
    uint16_t ngp_tls_cipher_suite(const ngp_tls *tls)
    int ngp_tls_server_name(const ngp_tls *tls, char *dest, size_t len)
    const uint8_t *ngp_tls_peer_certificate(
        const ngp_tls *tls, size_t i, size_t *plen)
    const uint8_t *ngp_tls_own_certificate(const ngp_tls *tls, size_t *plen)


cdef extern from "ngp_quic.h" nogil:
    enum:
        NGTCP2_CC_ALGO_RENO
        NGTCP2_CC_ALGO_CUBIC
        NGTCP2_CC_ALGO_BBR

    ctypedef struct ngtcp2_cid:
        size_t datalen
        uint8_t data[20]

    enum:
        NGP_CID_KEY_LEN
        NGP_CID_MIN_BLOCK
        NGP_CID_MAX_BLOCK
        NGP_CID_MAX_SERVER_ID
        NGP_CID_MIN_NONCE

    ctypedef struct ngp_cid_layout:
        uint8_t config_id
        uint8_t slot
        uint8_t generation
        uint8_t has_key
        size_t server_id_len
        size_t nonce_len
        uint8_t server_id[15]
        uint8_t key[16]
        uint8_t own_key[16]
        uint32_t mask[2]

    size_t ngp_cid_len(const ngp_cid_layout *layout)
    int ngp_cid_make(const ngp_cid_layout *layout, ngtcp2_cid *cid)
    int ngp_cid_read(
        const ngp_cid_layout *layout, const uint8_t *data, size_t len,
        uint8_t *pslot, uint8_t *pgeneration)
    int ngp_cid_encrypt(const uint8_t *key, uint8_t *block, size_t len)
    int ngp_cid_decrypt(const uint8_t *key, uint8_t *block, size_t len)

    ctypedef struct ngtcp2_transport_params:
        uint64_t initial_max_stream_data_bidi_local
        uint64_t initial_max_stream_data_bidi_remote
        uint64_t initial_max_stream_data_uni
        uint64_t initial_max_data
        uint64_t initial_max_streams_bidi
        uint64_t initial_max_streams_uni
        uint64_t max_idle_timeout
        uint64_t max_udp_payload_size
        uint64_t active_connection_id_limit
        uint64_t ack_delay_exponent
        uint64_t max_ack_delay
        uint64_t max_datagram_frame_size
        uint8_t disable_active_migration

    ctypedef struct ngtcp2_info:
        const char *version_str

    const ngtcp2_info *ngtcp2_version(int least_version)
    bint ngtcp2_is_supported_version(uint32_t version)
    bint ngtcp2_is_reserved_version(uint32_t version)

    enum:
        NGP_QUIC_ERR_RECEIVE_ONLY
        NGP_QUIC_ERR_SEND_ONLY
        NGP_QUIC_ERR_UNKNOWN_STREAM
        NGP_QUIC_ERR_FINISHED_STREAM
        NGP_QUIC_ERR_AFTER_FIN
        NGP_QUIC_ERR_AFTER_RESET
        NGP_QUIC_ERR_STREAM_AHEAD
        NGP_QUIC_ERR_STATE
        NGP_QUIC_MAX_VERSIONS

    ctypedef struct ngp_quic_addr:
        uint8_t ip[16]
        uint8_t local[16]
        uint32_t scope
        uint32_t local_scope
        uint16_t port

    ctypedef struct ngp_quic_options:
        uint8_t is_client
        uint8_t manual_credit
        uint8_t cc_algo
        uint8_t pmtud
        uint8_t key_log
        uint8_t log_packets
        size_t cid_len
        const ngp_cid_layout *cid_layout
        size_t max_datagram_size
        uint64_t max_data
        uint64_t max_stream_data
        uint64_t max_streams_bidi
        uint64_t max_streams_uni
        uint64_t idle_timeout
        uint64_t handshake_timeout
        uint64_t initial_rtt
        uint64_t max_ack_delay
        uint64_t max_datagram_frame_size
        uint64_t max_window
        uint64_t max_stream_window
        size_t max_datagram_queue
        uint32_t versions[8]
        size_t nversions
        uint32_t original_version
        const uint8_t *token
        size_t token_len
        ngtcp2_cid original_dcid
        ngtcp2_cid retry_scid
        uint8_t address_validated
        uint8_t ask_tickets
        const uint8_t *reset_secret
        size_t reset_secret_len
        const uint8_t *ticket
        size_t ticket_len
        ngp_tls_config *tls_config
        ngp_tls_session_options tls

    void ngp_quic_options_default(ngp_quic_options *options)

    enum:
        NGP_QUIC_EVENT_PROTOCOL_NEGOTIATED
        NGP_QUIC_EVENT_HANDSHAKE_COMPLETED
        NGP_QUIC_EVENT_STREAM_DATA
        NGP_QUIC_EVENT_STREAM_RESET
        NGP_QUIC_EVENT_STOP_SENDING
        NGP_QUIC_EVENT_DATAGRAM
        NGP_QUIC_EVENT_PING_ACKED
        NGP_QUIC_EVENT_CID_ISSUED
        NGP_QUIC_EVENT_CID_RETIRED
        NGP_QUIC_EVENT_TICKET_PRESENTED
        NGP_QUIC_EVENT_NEW_TOKEN
        NGP_QUIC_EVENT_KEY_LOG
        NGP_QUIC_EVENT_PACKET_SENT

    ctypedef struct ngp_quic_event:
        uint8_t type
        uint8_t end_stream
        uint8_t application
        uint8_t early_data_accepted
        uint8_t session_resumed
        uint8_t early
        int64_t stream_id
        uint64_t error_code
        uint64_t frame_type
        uint64_t value
        const uint8_t *data
        size_t len

    ctypedef enum ngp_quic_state:
        NGP_QUIC_STATE_NEW
        NGP_QUIC_STATE_ACTIVE

    ctypedef struct ngp_quic_packet:
        const uint8_t *data
        size_t len
        ngp_quic_addr addr
        uint8_t ecn

    ctypedef struct ngp_quic_stats:
        uint64_t packets_sent
        uint64_t packets_received
        uint64_t bytes_sent
        uint64_t bytes_received
        uint64_t datagrams_dropped
        uint64_t latest_rtt
        uint64_t min_rtt
        uint64_t smoothed_rtt
        uint64_t rtt_variance
        uint64_t cwnd
        uint64_t bytes_in_flight

    ctypedef struct ngp_quic:
        pass

    int ngp_quic_new(
        ngp_quic **pquic, const ngp_quic_options *options, nghttp2_mem *mem,
        const char **preason)
    int ngp_quic_try_tls(ngp_quic *quic)
    void ngp_quic_del(ngp_quic *quic)
    void ngp_quic_abandon(ngp_quic *quic)
    void *ngp_quic_take_owner(ngp_quic *quic)
    int ngp_quic_connect(ngp_quic *quic, const ngp_quic_addr *addr, uint64_t now)
    int ngp_quic_recv(
        ngp_quic *quic, const uint8_t *data, size_t len,
        const ngp_quic_addr *addr, uint8_t ecn, uint64_t now)
    int ngp_quic_send(ngp_quic *quic, uint64_t now)
    int ngp_quic_send_burst(ngp_quic *quic, size_t max, uint64_t now)
    const ngp_quic_packet *ngp_quic_packets(ngp_quic *quic, size_t *pn)
    uint64_t ngp_quic_get_timer(ngp_quic *quic)
    int ngp_quic_handle_timer(ngp_quic *quic, uint64_t now)
    int ngp_quic_next_event(ngp_quic *quic, ngp_quic_event *event)
    int ngp_quic_next_report(ngp_quic *quic, ngp_quic_event *event)
    int ngp_quic_take_tickets(ngp_quic *quic, int allowed)

    ctypedef struct ngp_quic_store:
        pass

    ngp_quic_store *ngp_quic_lend(ngp_quic *quic, size_t len)
    ngp_quic_store *ngp_quic_store_hold(ngp_quic_store *store)
    void ngp_quic_store_release(ngp_quic_store *store)
    void ngp_quic_hold_credit(ngp_quic *quic, int64_t stream_id, int hold)
    int ngp_quic_close(
        ngp_quic *quic, uint64_t error_code, int application,
        uint64_t frame_type, const char *reason, size_t len)
    bint ngp_quic_get_end(const ngp_quic *quic, ngp_quic_event *event)
    int64_t ngp_quic_next_stream_id(const ngp_quic *quic, int unidirectional)
    uint64_t ngp_quic_streams_left(const ngp_quic *quic, int unidirectional)
    int ngp_quic_send_framed(
        ngp_quic *quic, int64_t stream_id, const uint8_t *head, size_t head_len,
        const uint8_t *data, size_t len, void *owner, int end_stream, int *pheld)
    int ngp_quic_reset_stream(
        ngp_quic *quic, int64_t stream_id, uint64_t error_code)
    int ngp_quic_stop_stream(
        ngp_quic *quic, int64_t stream_id, uint64_t error_code)
    bint ngp_quic_stream_settled(const ngp_quic *quic, int64_t stream_id)
    size_t ngp_quic_unsettled(const ngp_quic *quic)
    bint ngp_quic_stream_early(const ngp_quic *quic, int64_t stream_id)
    bint ngp_quic_can_send(const ngp_quic *quic, int64_t stream_id)
    int ngp_quic_set_priority(
        ngp_quic *quic, int64_t stream_id, uint8_t urgency, int incremental)
    int ngp_quic_set_critical(ngp_quic *quic, int64_t stream_id)
    uint64_t ngp_quic_queued(const ngp_quic *quic, int64_t stream_id)
    uint64_t ngp_quic_unsent(const ngp_quic *quic, int64_t stream_id)
    uint64_t ngp_quic_send_credit(const ngp_quic *quic, int64_t stream_id)
    int ngp_quic_send_datagram(ngp_quic *quic, const uint8_t *data, size_t len)
    int ngp_quic_send_framed_datagram(
        ngp_quic *quic, const uint8_t *head, size_t head_len, const uint8_t *data,
        size_t len)
    int ngp_quic_ping(ngp_quic *quic, uint64_t value)
    int ngp_quic_send_token(ngp_quic *quic, const uint8_t *token, size_t len)
    void ngp_quic_set_keep_alive(ngp_quic *quic, uint64_t interval)
    void ngp_quic_refused(ngp_quic *quic, size_t len)
    void ngp_quic_update_key(ngp_quic *quic)
    void ngp_quic_change_cid(ngp_quic *quic)
    ngp_quic_state ngp_quic_get_state(const ngp_quic *quic)
    bint ngp_quic_handshake_completed(const ngp_quic *quic)
    bint ngp_quic_peer_addr(const ngp_quic *quic, ngp_quic_addr *addr)
    uint64_t ngp_quic_remote_max_datagram(const ngp_quic *quic)
    uint32_t ngp_quic_version(const ngp_quic *quic)
    const ngtcp2_cid *ngp_quic_host_cid(const ngp_quic *quic)
    const ngtcp2_cid *ngp_quic_original_dcid(const ngp_quic *quic)
    ngp_tls *ngp_quic_tls(const ngp_quic *quic)
    const ngtcp2_transport_params *ngp_quic_params(const ngp_quic *quic, int remote)
    void ngp_quic_get_stats(const ngp_quic *quic, ngp_quic_stats *stats)


cdef extern from "ngp_quic_packet.h" nogil:
    enum:
        NGP_QUIC_PACKET_MAX

    ctypedef struct ngp_quic_header:
        uint32_t version
        uint8_t is_long
        uint8_t is_initial
        const uint8_t *dcid
        size_t dcid_len
        const uint8_t *scid
        size_t scid_len
        const uint8_t *token
        size_t token_len
        uint8_t is_retry_token

    int ngp_quic_header_decode(
        ngp_quic_header *header, const uint8_t *data, size_t len,
        size_t cid_len)
    size_t ngp_quic_write_version_negotiation(
        uint8_t *dest, const ngp_quic_header *header, const uint32_t *versions,
        size_t n)
    size_t ngp_quic_write_retry(
        uint8_t *dest, const ngp_quic_header *header, const ngp_quic_addr *addr,
        const ngp_cid_layout *layout, const uint8_t *secret, size_t secret_len,
        uint64_t now)
    int ngp_quic_verify_retry(
        ngtcp2_cid *podcid, const ngp_quic_header *header,
        const ngp_quic_addr *addr, const uint8_t *secret, size_t secret_len,
        uint64_t timeout, uint64_t now)
    size_t ngp_quic_write_token(
        uint8_t *dest, const ngp_quic_addr *addr, const uint8_t *secret,
        size_t secret_len, uint64_t now)
    int ngp_quic_verify_token(
        const ngp_quic_header *header, const ngp_quic_addr *addr,
        const uint8_t *secret, size_t secret_len, uint64_t timeout, uint64_t now)
    size_t ngp_quic_write_refusal(
        uint8_t *dest, const ngp_quic_header *header, uint64_t error_code)
    size_t ngp_quic_write_stateless_reset(
        uint8_t *dest, const ngp_quic_header *header, const uint8_t *secret,
        size_t secret_len, size_t received)
