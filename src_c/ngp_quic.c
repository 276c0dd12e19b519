/*
 * The life of a connection: datagrams in, timers, its end, and what the caller
 * asks of its streams.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

/* How far a stream that the caller names may be ahead of the last one: it opens
   all streams in between, too (RFC 9000, 3.2). */
#define MAX_AHEAD (4 * 1024)

/* The length of the connection ids that we choose for a server (RFC 9000, 7.2
   requires at least 8). */
#define INITIAL_DCID_LEN 8

/* RFC 9000, 20.1 and 19.6. */
#define INTERNAL_ERROR 0x1
#define CRYPTO_FRAME 0x6

/* ---- Life ---- */

int ngp_quic_new(ngp_quic **pquic, const ngp_quic_options *options,
                 nghttp2_mem *mem, const char **preason) {
  ngp_quic *quic = ngp_calloc(mem, 1, sizeof(*quic));
  int server = !options->is_client;
  int rv;

  *preason = "out of memory";
  if (!quic) {
    return NGHTTP2_ERR_NOMEM;
  }
  quic->mem = mem;
  ngp_quic_queue_init(&quic->events, mem);
  ngp_quic_queue_init(&quic->reports, mem);
  ngp_quic_streams_init(&quic->streams, mem);
  ngp_buf_init(&quic->out.bytes, mem);
  ngp_buf_init(&quic->ask.hello, mem);
  ngp_buf_init(&quic->ask.datagrams, mem);
  ngp_tls_config_incref(options->tls_config);
  rv = ngp_quic_set_options(quic, options, preason);
  if (rv != 0) {
    goto fail;
  }
  if (server && options->ask_tickets) {
    quic->ask.state = NGP_QUIC_ASK_FIRST;
  }
  quic->cids.original_dcid = options->original_dcid;
  if (options->is_client) {
    quic->cids.original_dcid.datalen = INITIAL_DCID_LEN;
  }
  if (ngp_quic_make_cid(quic, &quic->cids.host, options->cid_len) != 0 ||
      (options->is_client &&
       ngp_tls_random(quic->cids.original_dcid.data, INITIAL_DCID_LEN) != 0)) {
    rv = NGHTTP2_ERR_NOMEM;
    goto fail;
  }
  quic->local[0] = (ngp_quic_local){server, server};
  quic->local[1] = (ngp_quic_local){server + 2, server + 2};
  /* A client lets the system choose its address: any local address will do.  A
     server learns it with the first datagram. */
  quic->path.local.in6.sin6_family = NGTCP2_AF_INET6;
  quic->path.local.in6.sin6_addr.s6_addr[15] = 1;
  quic->path.remote.in6.sin6_family = NGTCP2_AF_INET6;
  quic->close.due = 1;
  quic->handshake.can_shut = server ? 1 : 0;
  quic->path.deadline = UINT64_MAX;
  quic->out.max_len = SIZE_MAX;
  ngtcp2_ccerr_default(&quic->close.error);
  *pquic = quic;
  return 0;

fail:
  ngp_quic_del(quic);
  return rv;
}

void ngp_quic_abandon(ngp_quic *quic) {
  ngtcp2_conn_del(quic->conn);
  quic->conn = NULL;
  quic->state = NGP_QUIC_STATE_DEAD;
  ngp_quic_streams_free(&quic->streams);
}

void ngp_quic_del(ngp_quic *quic) {
  if (!quic) {
    return;
  }
  ngp_quic_abandon(quic);
  ngp_tls_del(quic->tls);
  ngp_tls_config_decref(quic->options.tls_config);
  while (quic->dgrams.head) {
    ngp_quic_drop_dgram(quic);
  }
  ngp_quic_queue_free(&quic->events);
  ngp_quic_queue_free(&quic->reports);
  ngp_buf_free(&quic->out.bytes);
  ngp_quic_ask_free(quic);
  ngp_free(quic->mem, quic->out.packets);
  ngp_free(quic->mem, quic->tap.pings);
  ngp_free(quic->mem, quic->tap.stops);
  ngp_free(quic->mem, quic->close.packet);
  ngp_free(quic->mem, quic->copies.alpn);
  ngp_free(quic->mem, quic->copies.sni);
  ngp_free(quic->mem, quic->copies.verify_name);
  ngp_free(quic->mem, quic->copies.token);
  ngp_free(quic->mem, quic->copies.ticket);
  ngp_free(quic->mem, quic->copies.reset_secret);
  ngp_free(quic->mem, quic->copies.cid_layout);
  ngp_free(quic->mem, quic);
}

void *ngp_quic_take_owner(ngp_quic *quic) {
  return ngp_tray_take(&quic->streams.tray, quic->mem);
}

void ngp_quic_set_time(ngp_quic *quic, uint64_t now) {
  /* ngtcp2 aborts if time goes backwards. */
  if (now > quic->now) {
    quic->now = now;
  }
}

/* ---- Addresses ---- */

static ngtcp2_sockaddr_in6 make_sockaddr(const uint8_t *ip, uint16_t port,
                                         uint32_t scope) {
  ngtcp2_sockaddr_in6 in6;
  uint8_t net_port[2] = {(uint8_t)(port >> 8), (uint8_t)port};

  /* Addresses are compared by these bytes, and tokens made from them: all must
     be set. */
  memset(&in6, 0, sizeof(in6));
  in6.sin6_family = NGTCP2_AF_INET6;
  memcpy(&in6.sin6_addr, ip, sizeof(in6.sin6_addr));
  memcpy(&in6.sin6_port, net_port, sizeof(net_port));
  in6.sin6_scope_id = scope;
  return in6;
}

ngtcp2_sockaddr_in6 ngp_quic_to_sockaddr(const ngp_quic_addr *addr) {
  return make_sockaddr(addr->ip, addr->port, addr->scope);
}

void ngp_quic_get_addr(const ngp_quic *quic, const ngtcp2_path *path,
                       ngp_quic_addr *addr) {
  const ngtcp2_sockaddr_in6 *remote =
      (const ngtcp2_sockaddr_in6 *)path->remote.addr;
  const ngtcp2_sockaddr_in6 *local =
      (const ngtcp2_sockaddr_in6 *)path->local.addr;
  uint8_t port[2];

  memset(addr, 0, sizeof(*addr));
  memcpy(addr->ip, &remote->sin6_addr, sizeof(addr->ip));
  memcpy(port, &remote->sin6_port, sizeof(port));
  addr->port = (uint16_t)(port[0] << 8 | port[1]);
  addr->scope = remote->sin6_scope_id;
  if (!quic->options.is_client) {
    memcpy(addr->local, &local->sin6_addr, sizeof(addr->local));
    addr->local_scope = local->sin6_scope_id;
  }
}

int ngp_quic_peer_addr(const ngp_quic *quic, ngp_quic_addr *addr) {
  if (!quic->conn) {
    return 0;
  }
  ngp_quic_get_addr(quic, ngtcp2_conn_get_path(quic->conn), addr);
  return 1;
}

/* ---- Ends ---- */

static void describe_end(const ngp_quic *quic, ngp_quic_event *event) {
  event->error_code = quic->close.error.error_code;
  event->frame_type = quic->close.error.frame_type;
  event->application =
      quic->close.error.type == NGTCP2_CCERR_TYPE_APPLICATION ? 1 : 0;
}

int ngp_quic_get_end(const ngp_quic *quic, ngp_quic_event *event) {
  if (!quic->close.pending && quic->state <= NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  *event = (ngp_quic_event){.type = NGP_QUIC_EVENT_TERMINATED,
                            .stream_id = -1,
                            .value = quic->close.by_peer,
                            .data = quic->close.error.reason,
                            .len = quic->close.error.reasonlen};
  describe_end(quic, event);
  return 1;
}

void ngp_quic_terminate(ngp_quic *quic) {
  ngp_quic_event *event;

  quic->state = NGP_QUIC_STATE_DEAD;
  quic->close.pending = 0;
  event =
      ngp_quic_record(quic, &quic->events, NGP_QUIC_EVENT_TERMINATED,
                      quic->close.error.reason, quic->close.error.reasonlen);
  if (event) {
    describe_end(quic, event);
  }
  /* The peer will not acknowledge what is queued. */
  ngp_quic_streams_free(&quic->streams);
}

/* Copies |reason| to where ccerr can point. */
static size_t set_reason(ngp_quic *quic, const void *reason, size_t len) {
  if (len > sizeof(quic->close.reason)) {
    len = sizeof(quic->close.reason);
  }
  if (len) {
    memcpy(quic->close.reason, reason, len);
  }
  return len;
}

static void end_at_once(ngp_quic *quic, const char *reason) {
  ngtcp2_ccerr_set_transport_error(&quic->close.error, INTERNAL_ERROR,
                                   quic->close.reason,
                                   set_reason(quic, reason, strlen(reason)));
  ngp_quic_terminate(quic);
}

static void start_draining(ngp_quic *quic) {
  const ngtcp2_ccerr *ccerr = ngtcp2_conn_get_ccerr(quic->conn);

  if (quic->close.stateless_reset) {
    static const char text[] = "Stateless reset";

    ngtcp2_ccerr_set_transport_error(&quic->close.error, INTERNAL_ERROR,
                                     quic->close.reason,
                                     set_reason(quic, text, sizeof(text) - 1));
  } else {
    quic->close.error = *ccerr;
    quic->close.error.reasonlen =
        set_reason(quic, ccerr->reason, ccerr->reasonlen);
    quic->close.error.reason = quic->close.reason;
  }
  quic->close.by_peer = 1;
  quic->close.pending = 0;
  quic->state = NGP_QUIC_STATE_DRAINING;
  quic->close.until = quic->now + 3 * ngtcp2_conn_get_pto(quic->conn);
}

void ngp_quic_forget_conn(ngp_quic *quic) {
  ngtcp2_conn_del(quic->conn);
  quic->conn = NULL;
  ngp_tls_del(quic->tls);
  quic->tls = NULL;
}

void ngp_quic_rewind_streams(ngp_quic *quic) {
  size_t i;

  for (i = 0; i < quic->streams.nbuckets; ++i) {
    ngp_quic_stream *stream = quic->streams.buckets[i];

    for (; stream; stream = stream->map_next) {
      ngp_quic_stream_rewind(&quic->streams, stream);
    }
  }
  for (i = 0; i < 2; ++i) {
    /* The first stream of its type. */
    quic->local[i].next_open &= 3;
  }
}

/* Restarts with the version that the server has offered. */
static int restart(ngp_quic *quic) {
  uint32_t original = ngtcp2_conn_get_client_chosen_version(quic->conn);
  int rv;

  if (!quic->handshake.retry_version) {
    end_at_once(quic, "Could not find a common protocol version");
    return 0;
  }
  ngp_quic_rewind_streams(quic);
  ngp_quic_forget_conn(quic);
  quic->handshake.early_data = quic->handshake.can_send = 0;
  rv = ngp_quic_open_client(quic, quic->handshake.retry_version, original);
  if (rv != 0) {
    end_at_once(quic, "Could not begin again with another version");
  }
  return rv;
}

int ngp_quic_fail(ngp_quic *quic, int rv) {
  char failure[sizeof(quic->close.reason)];
  const char *text;

  switch (rv) {
  case NGTCP2_ERR_CLOSING:
    return 0;
  case NGTCP2_ERR_DRAINING:
    start_draining(quic);
    return 0;
  case NGTCP2_ERR_IDLE_CLOSE:
    quic->close.by_peer = 1;
    end_at_once(quic, "Idle timeout");
    return 0;
  case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
    quic->close.by_peer = 1;
    end_at_once(quic, "Handshake timeout");
    return 0;
  case NGTCP2_ERR_RETRY:
  case NGTCP2_ERR_DROP_CONN:
    end_at_once(quic, "The client's first packet cannot be used");
    return 0;
  case NGTCP2_ERR_RECV_VERSION_NEGOTIATION:
    return restart(quic);
  case NGTCP2_ERR_CRYPTO:
    text = ngp_tls_reason(quic->tls);
    if (!*text) {
      ngp_tls_describe_alert(ngtcp2_conn_get_tls_alert(quic->conn), failure,
                             sizeof(failure));
      text = failure;
    }
    ngtcp2_ccerr_set_tls_alert(
        &quic->close.error, ngtcp2_conn_get_tls_alert(quic->conn),
        quic->close.reason, set_reason(quic, text, strlen(text)));
    quic->close.error.frame_type = CRYPTO_FRAME;
    break;
  case NGTCP2_ERR_NOMEM:
    quic->no_memory = 1;
    /* fall through */
  default:
    text = ngtcp2_strerror(rv);
    ngtcp2_ccerr_set_liberr(&quic->close.error, rv, quic->close.reason,
                            set_reason(quic, text, strlen(text)));
  }
  quic->close.pending = 1;
  return quic->no_memory ? NGHTTP2_ERR_NOMEM : 0;
}

int ngp_quic_close(ngp_quic *quic, uint64_t error_code, int application,
                   uint64_t frame_type, const char *reason, size_t len) {
  if (error_code > NGP_MAX_VARINT || frame_type > NGP_MAX_VARINT) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (quic->close.pending || quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  len = set_reason(quic, reason, len);
  if (application) {
    ngtcp2_ccerr_set_application_error(&quic->close.error, error_code,
                                       quic->close.reason, len);
  } else {
    ngtcp2_ccerr_set_transport_error(&quic->close.error, error_code,
                                     quic->close.reason, len);
    quic->close.error.frame_type = frame_type;
  }
  quic->close.pending = 1;
  return 0;
}

/* ---- In ---- */

int ngp_quic_connect(ngp_quic *quic, const ngp_quic_addr *addr, uint64_t now) {
  uint32_t version = quic->options.original_version
                         ? quic->options.original_version
                         : quic->options.versions[0];
  int rv;

  if (!quic->options.is_client || quic->state != NGP_QUIC_STATE_NEW) {
    return NGP_QUIC_ERR_STATE;
  }
  ngp_quic_set_time(quic, now);
  quic->path.remote.in6 = ngp_quic_to_sockaddr(addr);
  rv = ngp_quic_open_client(quic, version, 0);
  if (rv == 0) {
    quic->state = NGP_QUIC_STATE_ACTIVE;
  }
  return rv;
}

/* Repeats the close to a peer that still sends, less and less often. */
static void hear_while_closing(ngp_quic *quic) {
  if (quic->close.packet && ++quic->close.heard >= quic->close.due) {
    quic->close.heard = 0;
    if (quic->close.due < 1 << 16) {
      quic->close.due *= 2;
    }
    quic->close.again = 1;
  }
}

static int accept_client(ngp_quic *quic, const uint8_t *data, size_t len) {
  ngtcp2_pkt_hd hd;
  size_t i;

  if (quic->options.is_client || quic->close.pending ||
      ngtcp2_accept(&hd, data, len) != 0) {
    return 0;
  }
  for (i = 0; i < quic->options.nversions; ++i) {
    if (quic->options.versions[i] == hd.version) {
      int rv = ngp_quic_open_server(quic, &hd);

      if (rv == 0) {
        quic->state = NGP_QUIC_STATE_ACTIVE;
      }
      return rv;
    }
  }
  return 0;
}

int ngp_quic_path_moved(ngp_quic *quic, uint64_t pto) {
  const ngtcp2_path *path = ngtcp2_conn_get_path(quic->conn);
  const size_t len = sizeof(quic->path.remote.in6);

  if (quic->options.is_client ||
      (memcmp(path->remote.addr, &quic->path.remote.in6, len) == 0 &&
       memcmp(path->local.addr, &quic->path.local.in6, len) == 0)) {
    return 0;
  }
  memcpy(&quic->path.remote.in6, path->remote.addr, len);
  memcpy(&quic->path.local.in6, path->local.addr, len);
  /* ngtcp2 gives up after three times the longer of the two PTOs. */
  if (pto < ngtcp2_conn_get_pto(quic->conn)) {
    pto = ngtcp2_conn_get_pto(quic->conn);
  }
  quic->path.deadline = quic->now + 4 * pto;
  return ngp_quic_tap_probe_path(quic);
}

int ngp_quic_recv(ngp_quic *quic, const uint8_t *data, size_t len,
                  const ngp_quic_addr *addr, uint8_t ecn, uint64_t now) {
  ngtcp2_pkt_info info = {.ecn = ecn & 3u};
  ngtcp2_sockaddr_union from = {.in6 = ngp_quic_to_sockaddr(addr)};
  ngtcp2_sockaddr_union to = quic->path.local;
  ngtcp2_path path;
  uint64_t pto;
  int rv;

  if (!quic->options.is_client) {
    to.in6 = make_sockaddr(addr->local, 0, addr->local_scope);
  }
  ngp_quic_set_time(quic, now);
  if (quic->state == NGP_QUIC_STATE_NEW) {
    quic->path.remote = from;
    quic->path.local = to;
    rv = accept_client(quic, data, len);
    if (rv != 0) {
      return rv;
    }
  }
  if (quic->state == NGP_QUIC_STATE_CLOSING) {
    hear_while_closing(quic);
  }
  /* After an error that is not reported yet, ngtcp2 must not be called. */
  if (quic->state != NGP_QUIC_STATE_ACTIVE || quic->close.pending || !len) {
    return 0;
  }
  ++quic->stats.packets_received;
  quic->stats.bytes_received += len;
  if (quic->ask.state != NGP_QUIC_ASK_DONE) {
    rv = ngp_quic_ask_keep(quic, data, len, addr, ecn);
    if (rv != 0 || quic->ask.state == NGP_QUIC_ASK_WAITING) {
      return rv;
    }
  }
  path =
      (ngtcp2_path){.local = {.addr = &to.sa, .addrlen = sizeof(to.in6)},
                    .remote = {.addr = &from.sa, .addrlen = sizeof(from.in6)}};
  pto = ngtcp2_conn_get_pto(quic->conn);
  ngp_quic_tap_begin(quic);
  rv = ngtcp2_conn_read_pkt(quic->conn, &path, &info, data, len, quic->now);
  ngp_quic_tap_end();
  if (quic->ask.state == NGP_QUIC_ASK_WAITING) {
    quic->tap.nstops = 0;
    return 0;
  }
  if (quic->ask.datagrams.base && quic->ask.state == NGP_QUIC_ASK_DONE) {
    ngp_quic_ask_free(quic);
  }
  ngp_quic_close_forgotten(quic);
  rv = rv == 0 ? ngp_quic_tap_record_stops(quic) : ngp_quic_fail(quic, rv);
  if (rv == 0 && quic->state == NGP_QUIC_STATE_ACTIVE) {
    rv = ngp_quic_path_moved(quic, pto);
  }
  quic->tap.nstops = 0;
  return quic->no_memory ? NGHTTP2_ERR_NOMEM : rv;
}

void ngp_quic_consume(ngp_quic *quic, int64_t stream_id, uint64_t n) {
  ngp_quic_stream *stream;

  if (quic->state != NGP_QUIC_STATE_ACTIVE || !n) {
    return;
  }
  ngtcp2_conn_extend_max_offset(quic->conn, n);
  stream = ngp_quic_stream_find(&quic->streams, stream_id);
  if (stream && stream->hold) {
    stream->kept += n;
  } else {
    /* A stream that is over needs no credit: ignore that error. */
    (void)ngtcp2_conn_extend_max_stream_offset(quic->conn, stream_id, n);
  }
}

void ngp_quic_hold_credit(ngp_quic *quic, int64_t stream_id, int hold) {
  ngp_quic_stream *stream = ngp_quic_stream_find(&quic->streams, stream_id);

  if (!stream || quic->state != NGP_QUIC_STATE_ACTIVE) {
    return;
  }
  stream->hold = hold ? 1 : 0;
  if (!hold && stream->kept) {
    (void)ngtcp2_conn_extend_max_stream_offset(quic->conn, stream_id,
                                               stream->kept);
    stream->kept = 0;
  }
}

/* ---- Timers ---- */

uint64_t ngp_quic_get_timer(ngp_quic *quic) {
  uint64_t expiry;

  if (quic->ask.state == NGP_QUIC_ASK_WAITING) {
    return UINT64_MAX;
  }
  switch (quic->state) {
  case NGP_QUIC_STATE_ACTIVE:
    if (quic->options.is_client && !quic->stats.packets_sent) {
      /* The first packet still has to be sent. */
      return 0;
    }
    expiry = ngtcp2_conn_get_expiry(quic->conn);
    return expiry < quic->path.deadline ? expiry : quic->path.deadline;
  case NGP_QUIC_STATE_CLOSING:
  case NGP_QUIC_STATE_DRAINING:
    return quic->close.until;
  default:
    return UINT64_MAX;
  }
}

int ngp_quic_handle_timer(ngp_quic *quic, uint64_t now) {
  int rv;

  ngp_quic_set_time(quic, now);
  if (ngp_quic_get_timer(quic) > quic->now) {
    return 0;
  }
  ngp_quic_trim(&quic->events);
  if (quic->path.deadline <= quic->now) {
    quic->path.deadline = UINT64_MAX;
  }
  if (quic->state != NGP_QUIC_STATE_ACTIVE) {
    ngp_quic_terminate(quic);
  } else if (!quic->close.pending) {
    rv = ngtcp2_conn_handle_expiry(quic->conn, quic->now);
    if (rv != 0) {
      return ngp_quic_fail(quic, rv);
    }
  }
  return quic->no_memory ? NGHTTP2_ERR_NOMEM : 0;
}

/* ---- Calls on streams ---- */

int64_t ngp_quic_next_stream_id(const ngp_quic *quic, int unidirectional) {
  return quic->local[unidirectional != 0].next_id;
}

uint64_t ngp_quic_streams_left(const ngp_quic *quic, int unidirectional) {
  const ngp_quic_local *local = &quic->local[unidirectional != 0];
  uint64_t waiting = (uint64_t)(local->next_id - local->next_open) / 4;
  uint64_t left;

  if (!quic->conn) {
    return 0;
  }
  left = unidirectional ? ngtcp2_conn_get_streams_uni_left(quic->conn)
                        : ngtcp2_conn_get_streams_bidi_left(quic->conn);
  return left > waiting ? left - waiting : 0;
}

/* Finds a stream, or makes the record of one of ours. */
static int get_stream(ngp_quic *quic, int64_t id, ngp_quic_stream **pstream) {
  ngp_quic_stream *stream = ngp_quic_stream_find(&quic->streams, id);
  ngp_quic_local *local = &quic->local[ngp_quic_is_uni(id)];

  if (!stream) {
    if (id < 0) {
      return NGP_QUIC_ERR_UNKNOWN_STREAM;
    }
    if (!ngp_quic_is_local(quic, id)) {
      return id < quic->remote_next[ngp_quic_is_uni(id)]
                 ? NGP_QUIC_ERR_FINISHED_STREAM
                 : NGP_QUIC_ERR_UNKNOWN_STREAM;
    }
    if (id < local->next_open) {
      return NGP_QUIC_ERR_FINISHED_STREAM;
    }
    if (id - local->next_id > MAX_AHEAD) {
      return NGP_QUIC_ERR_STREAM_AHEAD;
    }
    stream = ngp_quic_stream_add(&quic->streams, id);
    if (!stream) {
      return NGHTTP2_ERR_NOMEM;
    }
    if (id >= local->next_id) {
      local->next_id = id + 4;
    }
  }
  *pstream = stream;
  return 0;
}

/* Finds a stream on which we send. */
static int get_sending(ngp_quic *quic, int64_t id, ngp_quic_stream **pstream) {
  if (id >= 0 && ngp_quic_is_uni(id) && !ngp_quic_is_local(quic, id)) {
    return NGP_QUIC_ERR_RECEIVE_ONLY;
  }
  return get_stream(quic, id, pstream);
}

int ngp_quic_send_framed(ngp_quic *quic, int64_t stream_id, const uint8_t *head,
                         size_t head_len, const uint8_t *data, size_t len,
                         void *owner, int end_stream, int *pheld) {
  ngp_quic_stream *stream;
  int rv;

  *pheld = 0;
  if (quic->state > NGP_QUIC_STATE_ACTIVE) {
    /* The caller learns from the event that the connection ends. */
    return 0;
  }
  rv = get_sending(quic, stream_id, &stream);
  if (rv != 0) {
    return rv;
  }
  if (stream->reset) {
    return NGP_QUIC_ERR_AFTER_RESET;
  }
  if (stream->end_stream) {
    return NGP_QUIC_ERR_AFTER_FIN;
  }
  rv = ngp_quic_stream_queue(&quic->streams, stream, head, head_len, data, len,
                             owner, pheld);
  if (rv != 0) {
    return rv;
  }
  stream->end_stream = end_stream ? 1 : 0;
  ngp_quic_stream_schedule(&quic->streams, stream);
  return 0;
}

int ngp_quic_reset_stream(ngp_quic *quic, int64_t stream_id,
                          uint64_t error_code) {
  ngp_quic_stream *stream;
  int rv;

  if (error_code > NGP_MAX_VARINT) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  rv = get_sending(quic, stream_id, &stream);
  if (rv != 0) {
    /* A stream that is over has nothing to reset. */
    return rv == NGP_QUIC_ERR_FINISHED_STREAM ? 0 : rv;
  }
  if (stream->reset) {
    return 0;
  }
  stream->reset = 1;
  stream->reset_code = error_code;
  ngp_quic_stream_enlist(&quic->streams, stream, NGP_QUIC_LIST_NONE);
  /* The bytes are kept until ngtcp2 closes the stream, because it has pointers
     to them. */
  return ngp_quic_shut_stream(quic, stream);
}

int ngp_quic_stop_stream(ngp_quic *quic, int64_t stream_id,
                         uint64_t error_code) {
  ngp_quic_stream *stream;
  int rv;

  if (error_code > NGP_MAX_VARINT) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (stream_id >= 0 && ngp_quic_is_uni(stream_id) &&
      ngp_quic_is_local(quic, stream_id)) {
    return NGP_QUIC_ERR_SEND_ONLY;
  }
  if (quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  rv = get_stream(quic, stream_id, &stream);
  if (rv != 0) {
    /* A stream that is over need not be stopped. */
    return rv == NGP_QUIC_ERR_FINISHED_STREAM ? 0 : rv;
  }
  if (stream->stop || stream->remote_done) {
    return 0;
  }
  stream->stop = 1;
  stream->stop_code = error_code;
  return ngp_quic_shut_stream(quic, stream);
}

static int is_settled(const ngp_quic *quic, const ngp_quic_stream *stream) {
  ngtcp2_conn_info info;

  if (stream->reset || quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 1;
  }
  if (!stream->fin_sent || stream->acked < stream->queued) {
    return 0;
  }
  if (!stream->fin_alone || stream->fin_acked) {
    return 1;
  }
  /* The end was written after the last bytes.  If both were lost and sent again
     in one frame, ngtcp2 reports only the acknowledgement of the bytes; then
     nothing is in flight. */
  ngtcp2_conn_get_conn_info(quic->conn, &info);
  return info.bytes_in_flight == 0;
}

int ngp_quic_stream_settled(const ngp_quic *quic, int64_t stream_id) {
  const ngp_quic_stream *stream =
      ngp_quic_stream_find(&quic->streams, stream_id);

  return !stream || is_settled(quic, stream);
}

size_t ngp_quic_unsettled(const ngp_quic *quic) {
  size_t n = 0;
  size_t i;

  for (i = 0; i < quic->streams.nbuckets; ++i) {
    const ngp_quic_stream *stream = quic->streams.buckets[i];

    for (; stream; stream = stream->map_next) {
      n += stream->end_stream && !is_settled(quic, stream) ? 1 : 0;
    }
  }
  return n;
}

int ngp_quic_stream_early(const ngp_quic *quic, int64_t stream_id) {
  const ngp_quic_stream *stream =
      ngp_quic_stream_find(&quic->streams, stream_id);

  return stream && stream->early;
}

int ngp_quic_can_send(const ngp_quic *quic, int64_t stream_id) {
  const ngp_quic_stream *stream =
      ngp_quic_stream_find(&quic->streams, stream_id);

  if (stream_id < 0 ||
      (ngp_quic_is_uni(stream_id) && !ngp_quic_is_local(quic, stream_id)) ||
      quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  if (stream) {
    return !stream->end_stream && !stream->reset;
  }
  return ngp_quic_is_local(quic, stream_id) &&
         stream_id >= quic->local[ngp_quic_is_uni(stream_id)].next_id;
}

/* Sets a stream's urgency, one of NGP_QUIC_URGENCIES. */
static int set_urgency(ngp_quic *quic, int64_t stream_id, uint8_t urgency,
                       int incremental) {
  ngp_quic_stream *stream;
  ngp_quic_list list;
  int rv;

  if (quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  rv = get_sending(quic, stream_id, &stream);
  if (rv != 0) {
    return rv;
  }
  /* The stream's list depends on its urgency. */
  list = (ngp_quic_list)stream->list;
  ngp_quic_stream_enlist(&quic->streams, stream, NGP_QUIC_LIST_NONE);
  stream->urgency = urgency;
  stream->incremental = incremental ? 1 : 0;
  ngp_quic_stream_enlist(&quic->streams, stream, list);
  return 0;
}

int ngp_quic_set_priority(ngp_quic *quic, int64_t stream_id, uint8_t urgency,
                          int incremental) {
  if (urgency >= NGP_QUIC_URGENCIES - 1) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  return set_urgency(quic, stream_id, (uint8_t)(urgency + 1), incremental);
}

int ngp_quic_set_critical(ngp_quic *quic, int64_t stream_id) {
  return set_urgency(quic, stream_id, 0, 1);
}

uint64_t ngp_quic_queued(const ngp_quic *quic, int64_t stream_id) {
  const ngp_quic_stream *stream;

  if (stream_id < 0) {
    return quic->streams.queued;
  }
  stream = ngp_quic_stream_find(&quic->streams, stream_id);
  return stream ? stream->queued - stream->acked : 0;
}

uint64_t ngp_quic_unsent(const ngp_quic *quic, int64_t stream_id) {
  const ngp_quic_stream *stream =
      ngp_quic_stream_find(&quic->streams, stream_id);

  return stream ? stream->queued - stream->sent : 0;
}

uint64_t ngp_quic_send_credit(const ngp_quic *quic, int64_t stream_id) {
  if (!quic->conn) {
    return 0;
  }
  return stream_id < 0
             ? ngtcp2_conn_get_max_data_left(quic->conn)
             : ngtcp2_conn_get_max_stream_data_left(quic->conn, stream_id);
}

/* ---- Properties and requests ---- */

int ngp_quic_send_token(ngp_quic *quic, const uint8_t *token, size_t len) {
  if (quic->options.is_client || quic->state == NGP_QUIC_STATE_NEW) {
    return NGP_QUIC_ERR_STATE;
  }
  if (!len || len > NGP_QUIC_MAX_TOKEN) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (quic->state != NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  return ngtcp2_conn_submit_new_token(quic->conn, token, len) == 0
             ? 0
             : NGHTTP2_ERR_NOMEM;
}

void ngp_quic_keep_alive(ngp_quic *quic) {
  const ngtcp2_transport_params *remote;
  uint64_t interval = quic->keep_alive;
  uint64_t idle = quic->options.idle_timeout;

  if (!quic->conn) {
    return;
  }
  remote = ngtcp2_conn_get_remote_transport_params(quic->conn);
  if (remote && remote->max_idle_timeout &&
      (!idle || remote->max_idle_timeout < idle)) {
    idle = remote->max_idle_timeout;
  }
  /* RFC 9000, 10.1.2: early enough for a second one if the first is lost. */
  if (interval && idle && interval > idle / 3) {
    interval = idle / 3;
  }
  ngtcp2_conn_set_keep_alive_timeout(quic->conn,
                                     interval ? interval : UINT64_MAX);
}

void ngp_quic_set_keep_alive(ngp_quic *quic, uint64_t interval) {
  quic->keep_alive = interval;
  if (quic->handshake.completed && quic->state == NGP_QUIC_STATE_ACTIVE) {
    ngp_quic_keep_alive(quic);
  }
}

void ngp_quic_refused(ngp_quic *quic, size_t len) {
  if (quic->conn &&
      len <= ngtcp2_conn_get_path_max_tx_udp_payload_size(quic->conn)) {
    quic->out.max_len = NGTCP2_MAX_UDP_PAYLOAD_SIZE;
  }
}

void ngp_quic_update_key(ngp_quic *quic) { quic->pending.key_update = 1; }

void ngp_quic_change_cid(ngp_quic *quic) { quic->pending.change_cid = 1; }

ngp_quic_state ngp_quic_get_state(const ngp_quic *quic) {
  return (ngp_quic_state)quic->state;
}

int ngp_quic_handshake_completed(const ngp_quic *quic) {
  return quic->handshake.completed;
}

uint64_t ngp_quic_remote_max_datagram(const ngp_quic *quic) {
  return quic->handshake.remote_max_datagram;
}

uint32_t ngp_quic_version(const ngp_quic *quic) {
  uint32_t version =
      quic->conn ? ngtcp2_conn_get_negotiated_version(quic->conn) : 0;

  return version || !quic->conn
             ? version
             : ngtcp2_conn_get_client_chosen_version(quic->conn);
}

const ngtcp2_cid *ngp_quic_host_cid(const ngp_quic *quic) {
  return &quic->cids.host;
}

const ngtcp2_cid *ngp_quic_original_dcid(const ngp_quic *quic) {
  return &quic->cids.original_dcid;
}

ngp_tls *ngp_quic_tls(const ngp_quic *quic) { return quic->tls; }

const ngtcp2_transport_params *ngp_quic_params(const ngp_quic *quic,
                                               int remote) {
  if (!quic->conn) {
    return NULL;
  }
  return remote ? ngtcp2_conn_get_remote_transport_params(quic->conn)
                : ngtcp2_conn_get_local_transport_params(quic->conn);
}

void ngp_quic_get_stats(const ngp_quic *quic, ngp_quic_stats *stats) {
  ngtcp2_conn_info info;

  *stats = quic->stats;
  if (quic->conn) {
    ngtcp2_conn_get_conn_info(quic->conn, &info);
    stats->latest_rtt = info.latest_rtt;
    /* UINT64_MAX means none. */
    stats->min_rtt = info.min_rtt == UINT64_MAX ? 0 : info.min_rtt;
    stats->smoothed_rtt = info.smoothed_rtt;
    stats->rtt_variance = info.rttvar;
    stats->cwnd = info.cwnd;
    stats->bytes_in_flight = info.bytes_in_flight;
  }
}
