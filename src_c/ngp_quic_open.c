/*
 * The beginning of a connection: options, and the ngtcp2_conn made of them.
 * SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

#include <ngtcp2/ngtcp2_crypto.h>

/* ngtcp2 asserts this limit. */
#define ACTIVE_CID_LIMIT 8

/* RFC 9000, 18.2: larger values are invalid. */
#define MAX_ACK_DELAY ((1 << 14) * NGTCP2_MILLISECONDS)
#define MAX_STREAMS (1ULL << 60)

#define MAX_DATAGRAM_SIZE 65527

void ngp_quic_options_default(ngp_quic_options *options) {
  *options = (ngp_quic_options){
      .cc_algo = NGTCP2_CC_ALGO_RENO,
      .cid_len = 8,
      /* Every path of QUIC carries this size (RFC 9000, 14). */
      .max_datagram_size = NGTCP2_MAX_UDP_PAYLOAD_SIZE,
      .max_data = 1048576,
      .max_stream_data = 1048576,
      .max_streams_bidi = 128,
      .max_streams_uni = 128,
      .idle_timeout = 60 * NGTCP2_SECONDS,
      .initial_rtt = 100 * NGTCP2_MILLISECONDS,
      .max_ack_delay = 25 * NGTCP2_MILLISECONDS,
      .max_datagram_queue = 1048576,
  };
}

static void *copy(ngp_quic *quic, const void *data, size_t len, int *pfailed) {
  void *p;

  if (!data) {
    return NULL;
  }
  p = ngp_malloc(quic->mem, len ? len : 1);
  if (!p) {
    *pfailed = 1;
    return NULL;
  }
  if (len) {
    memcpy(p, data, len);
  }
  return p;
}

static const char *check(const ngp_quic_options *o) {
  size_t i;

  if (o->cid_len > NGTCP2_MAX_CIDLEN) {
    return "a connection id has at most 20 bytes";
  }
  if (o->cid_layout && o->cid_len != ngp_cid_len(o->cid_layout)) {
    return "connection_id_length is not that of connection_ids";
  }
  if (o->max_datagram_size < NGTCP2_MAX_UDP_PAYLOAD_SIZE ||
      o->max_datagram_size > MAX_DATAGRAM_SIZE) {
    return "the largest datagram has 1200 to 65527 bytes";
  }
  if (o->max_data > NGP_MAX_VARINT || o->max_stream_data > NGP_MAX_VARINT ||
      o->max_window > NGP_MAX_VARINT || o->max_stream_window > NGP_MAX_VARINT ||
      o->max_datagram_frame_size > NGP_MAX_VARINT) {
    return "a size is larger than 2^62 - 1";
  }
  if (o->max_streams_bidi > MAX_STREAMS || o->max_streams_uni > MAX_STREAMS) {
    return "there are at most 2^60 streams";
  }
  if (o->max_ack_delay >= MAX_ACK_DELAY) {
    return "an acknowledgement is delayed by less than 16.384 seconds";
  }
  if (!o->initial_rtt || o->initial_rtt > 60 * NGTCP2_SECONDS ||
      o->idle_timeout > NGP_MAX_VARINT) {
    return "a time is out of range";
  }
  if (o->cc_algo > NGTCP2_CC_ALGO_BBR) {
    return "there is no such congestion control";
  }
  if (!o->nversions || o->nversions > NGP_QUIC_MAX_VERSIONS) {
    return "there are one to eight versions";
  }
  for (i = 0; i < o->nversions; ++i) {
    if (!ngtcp2_is_supported_version(o->versions[i])) {
      return "a QUIC version is not supported";
    }
  }
  if (o->tls.verify_ip_len && o->tls.verify_ip_len != 4 &&
      o->tls.verify_ip_len != 16) {
    return "an IP address has 4 or 16 bytes";
  }
  if (o->is_client && o->original_version &&
      !ngtcp2_is_reserved_version(o->original_version)) {
    for (i = 0; i < o->nversions; ++i) {
      if (o->versions[i] == o->original_version) {
        return NULL;
      }
    }
    return "the original version is not supported";
  }
  return NULL;
}

int ngp_quic_set_options(ngp_quic *quic, const ngp_quic_options *options,
                         const char **preason) {
  ngp_quic_options *o = &quic->options;
  int failed = 0;

  *o = *options;
  o->token_len = options->token ? options->token_len : 0;
  *preason = check(options);
  if (*preason) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  quic->copies.alpn = copy(quic, o->tls.alpn, o->tls.alpn_len, &failed);
  quic->copies.sni =
      copy(quic, o->tls.sni, o->tls.sni ? strlen(o->tls.sni) + 1 : 0, &failed);
  quic->copies.verify_name =
      copy(quic, o->tls.verify_name,
           o->tls.verify_name ? strlen(o->tls.verify_name) + 1 : 0, &failed);
  quic->copies.token = copy(quic, o->token, o->token_len, &failed);
  quic->copies.ticket = copy(quic, o->ticket, o->ticket_len, &failed);
  quic->copies.reset_secret =
      copy(quic, o->reset_secret, o->reset_secret_len, &failed);
  quic->copies.cid_layout =
      copy(quic, o->cid_layout, sizeof(*o->cid_layout), &failed);
  if (failed) {
    *preason = "out of memory";
    return NGHTTP2_ERR_NOMEM;
  }
  if (o->tls.verify_ip_len) {
    memcpy(quic->copies.verify_ip, o->tls.verify_ip, o->tls.verify_ip_len);
  }
  o->tls.alpn = quic->copies.alpn;
  o->tls.sni = quic->copies.sni;
  o->tls.verify_name = quic->copies.verify_name;
  o->tls.verify_ip = quic->copies.verify_ip;
  o->tls.hooks = ngp_quic_tls_hooks(quic);
  o->tls.user = quic;
  o->token = quic->copies.token;
  o->ticket = quic->copies.ticket;
  o->reset_secret = quic->copies.reset_secret;
  o->cid_layout = quic->copies.cid_layout;
  return 0;
}

/* A probe that is never sent, because it is larger than allowed: so discovery
   ends at once. no_pmtud is not used, because ngtcp2 1.11 asserts that it is
   not set when a client returns to an address that is still being validated. */
static const uint16_t no_probe[] = {MAX_DATAGRAM_SIZE};

static void set_settings(const ngp_quic *quic, ngtcp2_settings *settings) {
  const ngp_quic_options *o = &quic->options;

  ngtcp2_settings_default(settings);
  settings->cc_algo = (ngtcp2_cc_algo)o->cc_algo;
  settings->initial_ts = quic->now;
  settings->initial_rtt = o->initial_rtt;
  settings->handshake_timeout =
      o->handshake_timeout ? o->handshake_timeout : UINT64_MAX;
  settings->max_window = o->max_window;
  settings->max_stream_window = o->max_stream_window;
  settings->max_tx_udp_payload_size = o->max_datagram_size;
  if (o->pmtud) {
    if (settings->max_tx_udp_payload_size < NGTCP2_MAX_PMTUD_UDP_PAYLOAD_SIZE) {
      settings->max_tx_udp_payload_size = NGTCP2_MAX_PMTUD_UDP_PAYLOAD_SIZE;
    }
  } else {
    /* The configured size, from the first packet on. */
    settings->no_tx_udp_payload_size_shaping = 1;
    settings->pmtud_probes = no_probe;
    settings->pmtud_probeslen = 1;
  }
  settings->preferred_versions = o->versions;
  settings->preferred_versionslen = o->nversions;
  settings->available_versions = o->versions;
  settings->available_versionslen = o->nversions;
}

static void set_params(const ngp_quic *quic, ngtcp2_transport_params *params) {
  const ngp_quic_options *o = &quic->options;

  ngtcp2_transport_params_default(params);
  params->initial_max_stream_data_bidi_local = o->max_stream_data;
  params->initial_max_stream_data_bidi_remote = o->max_stream_data;
  params->initial_max_stream_data_uni = o->max_stream_data;
  params->initial_max_data = o->max_data;
  params->initial_max_streams_bidi = o->max_streams_bidi;
  params->initial_max_streams_uni = o->max_streams_uni;
  params->max_idle_timeout = o->idle_timeout;
  params->active_connection_id_limit = ACTIVE_CID_LIMIT;
  params->max_ack_delay = o->max_ack_delay;
  params->max_datagram_frame_size = o->max_datagram_frame_size;
}

static ngtcp2_path current_path(ngp_quic *quic) {
  return (ngtcp2_path){.local = {.addr = &quic->path.local.sa,
                                 .addrlen = sizeof(quic->path.local.in6)},
                       .remote = {.addr = &quic->path.remote.sa,
                                  .addrlen = sizeof(quic->path.remote.in6)}};
}

int ngp_quic_try_tls(ngp_quic *quic) {
  const ngp_quic_options *o = &quic->options;
  ngp_tls *tls;
  int rv = ngp_tls_new(&tls, o->tls_config, &o->tls, quic->mem);

  if (rv == 0) {
    ngp_tls_del(tls);
  }
  return rv;
}

/* Splits a ticket: see ticket_received() in ngp_quic_callbacks.c. */
static int split_ticket(const ngp_quic *quic, size_t *psession_len) {
  const uint8_t *t = quic->options.ticket;
  size_t n;

  if (quic->options.ticket_len < 4) {
    return 0;
  }
  n = (size_t)t[0] << 24 | (size_t)t[1] << 16 | (size_t)t[2] << 8 | t[3];
  if (n > quic->options.ticket_len - 4) {
    return 0;
  }
  *psession_len = n;
  return 1;
}

/* Attaches its TLS to the ngtcp2_conn; |rv| is the result of making the
   latter. */
static int join(ngp_quic *quic, int rv) {
  if (rv != 0) {
    ngp_quic_forget_conn(quic);
    return rv == NGTCP2_ERR_NOMEM ? NGHTTP2_ERR_NOMEM
                                  : NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  ngp_tls_attach(quic->tls, quic->conn);
  return 0;
}

int ngp_quic_open_client(ngp_quic *quic, uint32_t version,
                         uint32_t original_version) {
  const ngp_quic_options *o = &quic->options;
  ngp_tls_session_options tls = o->tls;
  ngtcp2_settings settings;
  ngtcp2_transport_params params;
  ngtcp2_path path = current_path(quic);
  size_t session_len = 0;
  int has_ticket = split_ticket(quic, &session_len);
  int rv;

  if (has_ticket) {
    tls.session = o->ticket + 4;
    tls.session_len = session_len;
  }
  rv = ngp_tls_new(&quic->tls, o->tls_config, &tls, quic->mem);
  if (rv != 0) {
    return rv;
  }
  set_settings(quic, &settings);
  set_params(quic, &params);
  settings.token = o->token;
  settings.tokenlen = o->token_len;
  settings.token_type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
  settings.original_version = original_version;
  rv = ngtcp2_conn_client_new(
      &quic->conn, &quic->cids.original_dcid, &quic->cids.host, &path, version,
      &ngp_quic_client_callbacks, &settings, &params, NULL, quic);
  rv = join(quic, rv);
  if (rv != 0) {
    return rv;
  }
  if (has_ticket && o->tls.early_data && ngp_tls_resumes(quic->tls) &&
      o->ticket_len > 4 + session_len &&
      ngtcp2_conn_decode_and_set_0rtt_transport_params(
          quic->conn, o->ticket + 4 + session_len,
          o->ticket_len - 4 - session_len) == 0) {
    quic->handshake.early_data = 1;
    quic->handshake.can_send = 1;
  }
  return 0;
}

int ngp_quic_open_server(ngp_quic *quic, const ngtcp2_pkt_hd *hd) {
  const ngp_quic_options *o = &quic->options;
  ngtcp2_settings settings;
  ngtcp2_transport_params params;
  ngtcp2_path path = current_path(quic);
  int rv;

  set_settings(quic, &settings);
  set_params(quic, &params);
  /* A restarted connection has sent packets whose numbers must not be used
     again; a datagram has one Initial packet. */
  settings.initial_pkt_num = (uint32_t)quic->stats.packets_sent;
  if (!o->original_dcid.datalen) {
    quic->cids.original_dcid = hd->dcid;
  }
  params.original_dcid = quic->cids.original_dcid;
  params.original_dcid_present = 1;
  if (o->retry_scid.datalen) {
    params.retry_scid = o->retry_scid;
    params.retry_scid_present = 1;
    /* The caller has checked the token, so the limit on what we may send to the
       client's address does not apply. */
    settings.token = hd->token;
    settings.tokenlen = hd->tokenlen;
    settings.token_type = NGTCP2_TOKEN_TYPE_RETRY;
  } else if (o->address_validated) {
    settings.token = hd->token;
    settings.tokenlen = hd->tokenlen;
    settings.token_type = NGTCP2_TOKEN_TYPE_NEW_TOKEN;
  }
  if (o->reset_secret_len && quic->cids.host.datalen) {
    params.stateless_reset_token_present = 1;
    if (ngtcp2_crypto_generate_stateless_reset_token(
            params.stateless_reset_token, o->reset_secret, o->reset_secret_len,
            &quic->cids.host) != 0) {
      return NGHTTP2_ERR_NOMEM;
    }
  }
  rv = ngp_tls_new(&quic->tls, o->tls_config, &o->tls, quic->mem);
  if (rv != 0) {
    return rv;
  }
  rv = ngtcp2_conn_server_new(&quic->conn, &hd->scid, &quic->cids.host, &path,
                              hd->version, &ngp_quic_server_callbacks,
                              &settings, &params, NULL, quic);
  return join(quic, rv);
}
