/*
 * What ngtcp2 and GnuTLS call.  The functions record, and call nothing of
 * theirs that writes or reads a packet.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

#include <ngtcp2/ngtcp2_crypto.h>

/* How many streams of a connection ngtcp2 may fail to close. */
#define MAX_FORGOTTEN 1000

static int fail_memory(ngp_quic *quic) {
  quic->no_memory = 1;
  return NGTCP2_ERR_CALLBACK_FAILURE;
}

/* ---- TLS ---- */

static int alpn_decided(void *user, const uint8_t *alpn, size_t len) {
  ngp_quic *quic = user;

  return ngp_quic_record(quic, &quic->events,
                         NGP_QUIC_EVENT_PROTOCOL_NEGOTIATED, alpn, len)
             ? 0
             : NGHTTP2_ERR_NOMEM;
}

/* A ticket consists of the length of the TLS session in four bytes, the
   session, and the transport parameters for early data. */
static int ticket_received(void *user, const uint8_t *data, size_t len) {
  ngp_quic *quic = user;
  uint8_t params[256];
  /* Without the parameters a ticket allows no early data. */
  ngtcp2_ssize n = ngp_tls_allows_early_data(quic->tls)
                       ? ngtcp2_conn_encode_0rtt_transport_params(
                             quic->conn, params, sizeof(params))
                       : 0;
  uint8_t head[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16),
                     (uint8_t)(len >> 8), (uint8_t)len};
  ngp_buf ticket;
  int rv = NGHTTP2_ERR_NOMEM;

  if (n < 0) {
    return 0;
  }
  ngp_buf_init(&ticket, quic->mem);
  if (ngp_buf_add(&ticket, head, sizeof(head)) == 0 &&
      ngp_buf_add(&ticket, data, len) == 0 &&
      ngp_buf_add(&ticket, params, (size_t)n) == 0 &&
      ngp_quic_record(quic, &quic->reports, NGP_QUIC_EVENT_SESSION_TICKET,
                      ticket.base, ticket.len)) {
    rv = 0;
  }
  ngp_buf_free(&ticket);
  return rv;
}

static int ticket_sent(void *user, const uint8_t *message, size_t len) {
  ngp_quic *quic = user;

  return ngp_quic_record(quic, &quic->reports, NGP_QUIC_EVENT_SESSION_TICKET,
                         message, len)
             ? 0
             : NGHTTP2_ERR_NOMEM;
}

static int key_logged(void *user, const char *line, size_t len) {
  ngp_quic *quic = user;

  return ngp_quic_record(quic, &quic->reports, NGP_QUIC_EVENT_KEY_LOG, line,
                         len)
             ? 0
             : NGHTTP2_ERR_NOMEM;
}

ngp_tls_hooks ngp_quic_tls_hooks(const ngp_quic *quic) {
  return (ngp_tls_hooks){.alpn_decided = alpn_decided,
                         .ticket_received = ticket_received,
                         .ticket_sent = ticket_sent,
                         .key_logged =
                             quic->options.key_log ? key_logged : NULL};
}

/* ---- The handshake ---- */

static void learn_params(ngp_quic *quic) {
  const ngtcp2_transport_params *params =
      ngtcp2_conn_get_remote_transport_params(quic->conn);

  quic->handshake.remote_max_datagram =
      params ? params->max_datagram_frame_size : 0;
}

static int handshake_completed(ngtcp2_conn *conn, void *user_data) {
  ngp_quic *quic = user_data;
  ngp_quic_event *event;
  size_t i;
  int accepted = ngp_tls_early_data_accepted(quic->tls);

  quic->handshake.completed = 1;
  quic->handshake.can_send = 1;
  learn_params(quic);
  ngp_quic_keep_alive(quic);
  if (quic->options.is_client) {
    if (quic->handshake.early_data && !accepted &&
        ngtcp2_conn_tls_early_data_rejected(conn) != 0) {
      return NGTCP2_ERR_CALLBACK_FAILURE;
    }
  } else if (ngp_tls_send_ticket(quic->tls) != 0) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  event = ngp_quic_record(quic, &quic->events,
                          NGP_QUIC_EVENT_HANDSHAKE_COMPLETED, NULL, 0);
  if (!event) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  event->early_data_accepted = accepted ? 1 : 0;
  event->session_resumed = ngp_tls_session_resumed(quic->tls) ? 1 : 0;
  for (i = 0; i < quic->cids.nearly; ++i) {
    if (!ngp_quic_record(quic, &quic->events, NGP_QUIC_EVENT_CID_ISSUED,
                         quic->cids.early[i].data,
                         quic->cids.early[i].datalen)) {
      return NGTCP2_ERR_CALLBACK_FAILURE;
    }
  }
  return 0;
}

static int handshake_confirmed(ngtcp2_conn *conn, void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  quic->handshake.confirmed = 1;
  return 0;
}

static int recv_tx_key(ngtcp2_conn *conn, ngtcp2_encryption_level level,
                       void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  if (level == NGTCP2_ENCRYPTION_LEVEL_1RTT) {
    quic->handshake.can_send = 1;
    learn_params(quic);
  }
  return 0;
}

static int early_data_rejected(ngtcp2_conn *conn, void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  quic->handshake.early_data = 0;
  ngp_quic_rewind_streams(quic);
  return 0;
}

static int recv_version_negotiation(ngtcp2_conn *conn, const ngtcp2_pkt_hd *hd,
                                    const uint32_t *sv, size_t nsv,
                                    void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  (void)hd;
  quic->handshake.retry_version = ngtcp2_select_version(
      quic->options.versions, quic->options.nversions, sv, nsv);
  return 0;
}

/* ---- Connection ids ---- */

int ngp_quic_make_cid(const ngp_quic *quic, ngtcp2_cid *cid, size_t len) {
  if (quic->options.cid_layout) {
    return ngp_cid_make(quic->options.cid_layout, cid);
  }
  cid->datalen = len;
  return ngp_tls_random(cid->data, len);
}

static int get_new_connection_id(ngtcp2_conn *conn, ngtcp2_cid *cid,
                                 uint8_t *token, size_t cidlen,
                                 void *user_data) {
  ngp_quic *quic = user_data;
  int rv;

  (void)conn;
  if (ngp_quic_make_cid(quic, cid, cidlen) != 0) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  rv = quic->options.reset_secret_len
           ? ngtcp2_crypto_generate_stateless_reset_token(
                 token, quic->options.reset_secret,
                 quic->options.reset_secret_len, cid)
           : ngp_tls_random(token, NGTCP2_STATELESS_RESET_TOKENLEN);
  if (rv != 0) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  /* A server issues them before the handshake is complete, when the client must
     not use them yet (RFC 9000, 9): they are reported after it. */
  if (!quic->handshake.completed &&
      quic->cids.nearly < NGP_QUIC_MAX_EARLY_CIDS) {
    quic->cids.early[quic->cids.nearly++] = *cid;
    return 0;
  }
  return ngp_quic_record(quic, &quic->events, NGP_QUIC_EVENT_CID_ISSUED,
                         cid->data, cid->datalen)
             ? 0
             : NGTCP2_ERR_CALLBACK_FAILURE;
}

static int remove_connection_id(ngtcp2_conn *conn, const ngtcp2_cid *cid,
                                void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  return ngp_quic_record(quic, &quic->events, NGP_QUIC_EVENT_CID_RETIRED,
                         cid->data, cid->datalen)
             ? 0
             : NGTCP2_ERR_CALLBACK_FAILURE;
}

static void fill_rand(uint8_t *dest, size_t len, const ngtcp2_rand_ctx *ctx) {
  (void)ctx;
  ngp_tls_nonce(dest, len);
}

static int recv_new_token(ngtcp2_conn *conn, const uint8_t *token,
                          size_t tokenlen, void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  return ngp_quic_record(quic, &quic->reports, NGP_QUIC_EVENT_NEW_TOKEN, token,
                         tokenlen)
             ? 0
             : NGTCP2_ERR_CALLBACK_FAILURE;
}

static int recv_stateless_reset(ngtcp2_conn *conn,
                                const ngtcp2_pkt_stateless_reset *sr,
                                void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  (void)sr;
  quic->close.stateless_reset = 1;
  return 0;
}

/* ---- Streams ---- */

static int stream_open(ngtcp2_conn *conn, int64_t stream_id, void *user_data) {
  ngp_quic *quic = user_data;
  ngp_quic_stream *stream;
  int64_t *next = &quic->remote_next[ngp_quic_is_uni(stream_id)];

  (void)conn;
  if (stream_id >= *next) {
    *next = stream_id + 4;
  }
  stream = ngp_quic_stream_add(&quic->streams, stream_id);
  if (!stream) {
    return fail_memory(quic);
  }
  stream->opened = 1;
  return 0;
}

static int recv_stream_data(ngtcp2_conn *conn, uint32_t flags,
                            int64_t stream_id, uint64_t offset,
                            const uint8_t *data, size_t datalen,
                            void *user_data, void *stream_user_data) {
  ngp_quic *quic = user_data;
  int end_stream = (flags & NGTCP2_STREAM_DATA_FLAG_FIN) != 0;
  int early = (flags & NGTCP2_STREAM_DATA_FLAG_0RTT) != 0;
  ngp_quic_stream *stream;

  (void)conn;
  (void)offset;
  (void)stream_user_data;
  if (end_stream || early) {
    stream = ngp_quic_stream_find(&quic->streams, stream_id);
    if (stream) {
      stream->remote_done = end_stream || stream->remote_done ? 1 : 0;
      stream->early = early || stream->early ? 1 : 0;
    }
  }
  if (ngp_quic_record_data(quic, stream_id, data, datalen, end_stream) != 0) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  if (early) {
    quic->events.events[quic->events.end - 1].early = 1;
  }
  return 0;
}

static int acked_stream_data_offset(ngtcp2_conn *conn, int64_t stream_id,
                                    uint64_t offset, uint64_t datalen,
                                    void *user_data, void *stream_user_data) {
  ngp_quic *quic = user_data;
  ngp_quic_stream *stream = ngp_quic_stream_find(&quic->streams, stream_id);

  (void)conn;
  (void)stream_user_data;
  /* Until the handshake is complete the server may still refuse early data;
     then all of it must be sent again. */
  if (stream && (quic->handshake.completed || !quic->handshake.early_data)) {
    ngp_quic_stream_acked(&quic->streams, stream, offset + datalen);
    /* Without bytes, the end was acknowledged. */
    if (datalen == 0) {
      stream->fin_acked = 1;
    }
  }
  return 0;
}

static int record_error(ngp_quic *quic, ngp_quic_event_type type,
                        int64_t stream_id, uint64_t error_code) {
  ngp_quic_event *event = ngp_quic_record(quic, &quic->events, type, NULL, 0);

  if (!event) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  event->stream_id = stream_id;
  event->error_code = error_code;
  return 0;
}

/* If RESET_STREAM is the first frame of a unidirectional stream, ngtcp2 1.11
   never closes the stream, and the peer can open one less from then on.  It
   also keeps some hundred bytes of each: that is why there is a bound. */
void ngp_quic_close_forgotten(ngp_quic *quic) {
  ngp_quic_stream *stream = quic->unclosed;

  quic->unclosed = NULL;
  if (stream && quic->forgotten < MAX_FORGOTTEN) {
    ++quic->forgotten;
    ngp_quic_stream_remove(&quic->streams, stream);
    ngtcp2_conn_extend_max_streams_uni(quic->conn, 1);
  }
}

static int stream_reset(ngtcp2_conn *conn, int64_t stream_id,
                        uint64_t final_size, uint64_t app_error_code,
                        void *user_data, void *stream_user_data) {
  ngp_quic *quic = user_data;
  ngp_quic_stream *stream = ngp_quic_stream_find(&quic->streams, stream_id);

  (void)conn;
  (void)final_size;
  (void)stream_user_data;
  ngp_quic_close_forgotten(quic);
  if (stream) {
    stream->remote_done = 1;
    if (ngp_quic_is_uni(stream_id)) {
      quic->unclosed = stream;
    }
  }
  return record_error(quic, NGP_QUIC_EVENT_STREAM_RESET, stream_id,
                      app_error_code);
}

static int stream_close(ngtcp2_conn *conn, uint32_t flags, int64_t stream_id,
                        uint64_t app_error_code, void *user_data,
                        void *stream_user_data) {
  ngp_quic *quic = user_data;
  ngp_quic_stream *stream = ngp_quic_stream_find(&quic->streams, stream_id);

  (void)flags;
  (void)app_error_code;
  (void)stream_user_data;
  if (stream) {
    if (stream == quic->unclosed) {
      quic->unclosed = NULL;
    }
    ngp_quic_stream_remove(&quic->streams, stream);
  }
  if (!ngp_quic_is_local(quic, stream_id)) {
    if (ngp_quic_is_uni(stream_id)) {
      ngtcp2_conn_extend_max_streams_uni(conn, 1);
    } else {
      ngtcp2_conn_extend_max_streams_bidi(conn, 1);
    }
  }
  return 0;
}

static int extend_max_stream_data(ngtcp2_conn *conn, int64_t stream_id,
                                  uint64_t max_data, void *user_data,
                                  void *stream_user_data) {
  ngp_quic *quic = user_data;
  ngp_quic_stream *stream = ngp_quic_stream_find(&quic->streams, stream_id);

  (void)conn;
  (void)max_data;
  (void)stream_user_data;
  if (stream && stream->list == NGP_QUIC_LIST_BLOCKED) {
    ngp_quic_stream_enlist(&quic->streams, stream, NGP_QUIC_LIST_READY);
  }
  return 0;
}

/* ---- Datagrams ---- */

static int recv_datagram(ngtcp2_conn *conn, uint32_t flags, const uint8_t *data,
                         size_t datalen, void *user_data) {
  ngp_quic *quic = user_data;

  (void)conn;
  (void)flags;
  /* Without this bound, a slow reader would let the queue grow: RFC 9221, 5
     allows dropping the rest. */
  if (ngp_quic_dgram_cost(datalen) >
      quic->options.max_datagram_queue - quic->dgrams.received) {
    ++quic->stats.datagrams_dropped;
    return 0;
  }
  if (!ngp_quic_record(quic, &quic->events, NGP_QUIC_EVENT_DATAGRAM, data,
                       datalen)) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  quic->dgrams.received += ngp_quic_dgram_cost(datalen);
  return 0;
}

#define COMMON_CALLBACKS                                                       \
  .handshake_completed = handshake_completed,                                  \
  .handshake_confirmed = handshake_confirmed, .encrypt = ngp_quic_tap_encrypt, \
  .decrypt = ngp_quic_tap_decrypt, .hp_mask = ngtcp2_crypto_hp_mask_cb,        \
  .recv_stream_data = recv_stream_data,                                        \
  .acked_stream_data_offset = acked_stream_data_offset,                        \
  .stream_open = stream_open, .stream_close = stream_close, .rand = fill_rand, \
  .get_new_connection_id = get_new_connection_id,                              \
  .remove_connection_id = remove_connection_id,                                \
  .update_key = ngtcp2_crypto_update_key_cb, .stream_reset = stream_reset,     \
  .extend_max_stream_data = extend_max_stream_data,                            \
  .delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,           \
  .delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,       \
  .recv_datagram = recv_datagram,                                              \
  .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,         \
  .version_negotiation = ngtcp2_crypto_version_negotiation_cb,                 \
  .recv_tx_key = recv_tx_key

const ngtcp2_callbacks ngp_quic_client_callbacks = {
    COMMON_CALLBACKS,
    .recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb,
    .client_initial = ngtcp2_crypto_client_initial_cb,
    .recv_version_negotiation = recv_version_negotiation,
    .recv_retry = ngtcp2_crypto_recv_retry_cb,
    .recv_new_token = recv_new_token,
    .recv_stateless_reset = recv_stateless_reset,
    .tls_early_data_rejected = early_data_rejected,
};

const ngtcp2_callbacks ngp_quic_server_callbacks = {
    COMMON_CALLBACKS,
    .recv_crypto_data = ngp_quic_recv_crypto,
    .recv_client_initial = ngtcp2_crypto_recv_client_initial_cb,
};
