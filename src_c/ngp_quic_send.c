/*
 * Packets out: which streams and datagrams go into which packet.
 * SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

/* The most that one call writes: the caller has other connections. */
#define MAX_OUTPUT (256 * 1024)

/* A larger gather buffer is freed if little of it was used, so that an idle
   connection stays small. */
#define KEEP_OUTPUT 4096
#define KEEP_PACKETS 4

/* How many chunks are passed in one call; a packet has no room for more small
   ones. */
#define MAX_VEC 16

/* The overhead of a packet with a DATAGRAM frame: a short header with the
   largest packet number, the tag of the AEAD, the frame's type and a length of
   two bytes. */
#define DATAGRAM_OVERHEAD (1 + 4 + 16 + 3)

/* ---- Streams that wait for the peer's limit ---- */

int ngp_quic_shut_stream(ngp_quic *quic, const ngp_quic_stream *stream) {
  if (!stream->opened || !quic->handshake.can_shut) {
    return 0;
  }
  if (stream->stop && ngtcp2_conn_shutdown_stream_read(
                          quic->conn, 0, stream->id, stream->stop_code) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  /* ngtcp2 answers STOP_SENDING itself. */
  if (stream->reset && !stream->stopped &&
      ngtcp2_conn_shutdown_stream_write(quic->conn, 0, stream->id,
                                        stream->reset_code) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  return 0;
}

/* Until it has written a packet after its handshake, a client's ngtcp2 (at
   least up to 1.24) drops the RESET_STREAM, STOP_SENDING and MAX_STREAM_DATA
   frames that it has queued when it gets stream data to write.  So that packet
   is written without stream data, and streams are shut after it. */
static int shut_streams(ngp_quic *quic) {
  size_t i;

  quic->handshake.can_shut = 1;
  for (i = 0; i < quic->streams.nbuckets; ++i) {
    const ngp_quic_stream *stream = quic->streams.buckets[i];

    for (; stream; stream = stream->map_next) {
      if (ngp_quic_shut_stream(quic, stream) != 0) {
        return NGTCP2_ERR_NOMEM;
      }
    }
  }
  return 0;
}

/* Opens those of our streams that the peer's limit allows now. */
static int open_streams(ngp_quic *quic) {
  int i;

  if (!quic->handshake.can_send) {
    return 0;
  }
  for (i = 0; i < 2; ++i) {
    ngp_quic_local *local = &quic->local[i];

    while (local->next_open < local->next_id) {
      ngp_quic_stream *stream =
          ngp_quic_stream_find(&quic->streams, local->next_open);
      int64_t id = -1;
      int rv = i ? ngtcp2_conn_open_uni_stream(quic->conn, &id, NULL)
                 : ngtcp2_conn_open_bidi_stream(quic->conn, &id, NULL);

      if (rv == NGTCP2_ERR_STREAM_ID_BLOCKED) {
        break;
      }
      if (rv != 0) {
        return ngp_quic_fail(quic, rv);
      }
      local->next_open = id + 4;
      if (!stream) {
        continue;
      }
      stream->opened = 1;
      if (ngp_quic_shut_stream(quic, stream) != 0) {
        return NGHTTP2_ERR_NOMEM;
      }
      ngp_quic_stream_schedule(&quic->streams, stream);
    }
  }
  return 0;
}

/* ---- Datagrams ---- */

int ngp_quic_send_datagram(ngp_quic *quic, const uint8_t *data, size_t len) {
  return ngp_quic_send_framed_datagram(quic, NULL, 0, data, len);
}

int ngp_quic_send_framed_datagram(ngp_quic *quic, const uint8_t *head,
                                  size_t head_len, const uint8_t *data,
                                  size_t data_len) {
  ngp_quic_dgram *dgram;
  size_t len = head_len + data_len;

  if (quic->state > NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  if (ngp_quic_dgram_cost(len) >
      quic->options.max_datagram_queue - quic->dgrams.bytes) {
    ++quic->stats.datagrams_dropped;
    return 0;
  }
  dgram = ngp_malloc(quic->mem, sizeof(*dgram) + len);
  if (!dgram) {
    return NGHTTP2_ERR_NOMEM;
  }
  dgram->next = NULL;
  dgram->len = len;
  if (head_len) {
    memcpy(dgram->data, head, head_len);
  }
  if (data_len) {
    memcpy(dgram->data + head_len, data, data_len);
  }
  *(quic->dgrams.tail ? &quic->dgrams.tail->next : &quic->dgrams.head) = dgram;
  quic->dgrams.tail = dgram;
  quic->dgrams.bytes += ngp_quic_dgram_cost(len);
  return 0;
}

void ngp_quic_drop_dgram(ngp_quic *quic) {
  ngp_quic_dgram *dgram = quic->dgrams.head;

  quic->dgrams.head = dgram->next;
  if (!quic->dgrams.head) {
    quic->dgrams.tail = NULL;
  }
  quic->dgrams.bytes -= ngp_quic_dgram_cost(dgram->len);
  ngp_free(quic->mem, dgram);
}

/* Drops what can never be sent: otherwise ngtcp2 would be asked again for
   ever. */
static void sift_dgrams(ngp_quic *quic) {
  size_t path = ngtcp2_conn_get_path_max_tx_udp_payload_size(quic->conn);
  size_t room = path < quic->out.max_len ? path : quic->out.max_len;
  size_t overhead =
      DATAGRAM_OVERHEAD + ngtcp2_conn_get_dcid(quic->conn)->datalen;
  ngp_quic_dgram **link = &quic->dgrams.head;
  ngp_quic_dgram *last = NULL;

  while (*link) {
    ngp_quic_dgram *dgram = *link;

    if (dgram->len + 3 <= quic->handshake.remote_max_datagram &&
        dgram->len + overhead <= room) {
      last = dgram;
      link = &dgram->next;
      continue;
    }
    *link = dgram->next;
    quic->dgrams.bytes -= ngp_quic_dgram_cost(dgram->len);
    ++quic->stats.datagrams_dropped;
    ngp_free(quic->mem, dgram);
  }
  quic->dgrams.tail = last;
}

/* ---- Packets ---- */

typedef struct packet {
  uint8_t *dest;
  size_t cap;
  ngtcp2_path_storage path;
  ngtcp2_pkt_info info;
} packet;

static ngtcp2_ssize write_dgram(ngp_quic *quic, packet *p) {
  ngp_quic_dgram *dgram = quic->dgrams.head;
  ngtcp2_vec vec = {.base = dgram->data, .len = dgram->len};
  int accepted = 0;
  /* ngtcp2 1.11 aborts on an empty vector; an empty payload is no vector at
     all. */
  ngtcp2_ssize n = ngtcp2_conn_writev_datagram(
      quic->conn, &p->path.path, &p->info, p->dest, p->cap, &accepted,
      NGTCP2_WRITE_DATAGRAM_FLAG_MORE, 0, &vec, dgram->len ? 1 : 0, quic->now);
  int refused =
      n == NGTCP2_ERR_INVALID_STATE || n == NGTCP2_ERR_INVALID_ARGUMENT;

  if (accepted || refused) {
    ngp_quic_drop_dgram(quic);
  }
  if (refused) {
    ++quic->stats.datagrams_dropped;
    return NGTCP2_ERR_WRITE_MORE;
  }
  return n;
}

static ngtcp2_ssize write_stream(ngp_quic *quic, packet *p,
                                 ngp_quic_stream *stream) {
  ngp_quic_streams *streams = &quic->streams;
  ngtcp2_vec vec[MAX_VEC];
  ngtcp2_ssize sent = -1;
  ngtcp2_ssize n;
  size_t len;
  size_t nvec = ngp_quic_stream_peek(stream, vec, MAX_VEC, &len);
  uint32_t flags = NGTCP2_WRITE_STREAM_FLAG_MORE;
  int end_stream = stream->end_stream && stream->sent + len == stream->queued;

  if (end_stream) {
    flags |= NGTCP2_WRITE_STREAM_FLAG_FIN;
  }
  n = ngtcp2_conn_writev_stream(quic->conn, &p->path.path, &p->info, p->dest,
                                p->cap, &sent, flags, stream->id, vec, nvec,
                                quic->now);
  if (n == NGTCP2_ERR_STREAM_DATA_BLOCKED) {
    ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_BLOCKED);
    return NGTCP2_ERR_WRITE_MORE;
  }
  if (n == NGTCP2_ERR_STREAM_NOT_FOUND || n == NGTCP2_ERR_STREAM_SHUT_WR) {
    ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_NONE);
    return NGTCP2_ERR_WRITE_MORE;
  }
  if (sent >= 0) {
    ngp_quic_stream_sent(stream, (uint64_t)sent);
    if (end_stream && (size_t)sent == len) {
      stream->fin_sent = 1;
      stream->fin_alone = len ? 0 : 1;
    }
    /* The stream moves behind the others, or leaves the list if it has no more
       to send. */
    if (stream->incremental || !stream->unsent) {
      ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_NONE);
      ngp_quic_stream_schedule(streams, stream);
    }
  }
  return n;
}

/* Writes a packet without stream data or DATAGRAM frames. */
static ngtcp2_ssize write_frames(ngp_quic *quic, packet *p) {
  return ngtcp2_conn_writev_stream(quic->conn, &p->path.path, &p->info, p->dest,
                                   p->cap, NULL, NGTCP2_WRITE_STREAM_FLAG_NONE,
                                   -1, NULL, 0, quic->now);
}

/* Writes one packet; returns its length, 0 if there is nothing to send or it
   must wait, or ngtcp2's error. */
static ngtcp2_ssize write_packet(ngp_quic *quic, packet *p) {
  ngtcp2_ssize n;

  if (quic->handshake.completed && !quic->handshake.can_shut) {
    n = write_frames(quic, p);
    if (n >= 0 && shut_streams(quic) != 0) {
      return NGTCP2_ERR_NOMEM;
    }
    if (n != 0) {
      return n;
    }
  }
  do {
    ngp_quic_stream *stream;

    if (quic->dgrams.head && quic->handshake.can_send) {
      n = write_dgram(quic, p);
      continue;
    }
    stream = quic->handshake.can_send ? ngp_quic_streams_first(&quic->streams)
                                      : NULL;
    if (!stream) {
      return write_frames(quic, p);
    }
    n = write_stream(quic, p, stream);
  } while (n == NGTCP2_ERR_WRITE_MORE);
  return n;
}

/* Returns how long a datagram may be. */
static size_t max_datagram(const ngp_quic *quic) {
  size_t len = ngtcp2_conn_get_max_tx_udp_payload_size(quic->conn);

  return len < quic->out.max_len ? len : quic->out.max_len;
}

static int add_packet(ngp_quic *quic, size_t len, const ngp_quic_addr *addr,
                      uint32_t ecn) {
  if (quic->out.npackets == quic->out.packets_cap) {
    size_t cap =
        quic->out.packets_cap ? quic->out.packets_cap * 2 : KEEP_PACKETS;
    ngp_quic_packet *packets =
        ngp_realloc(quic->mem, quic->out.packets, cap * sizeof(*packets));

    if (!packets) {
      return NGHTTP2_ERR_NOMEM;
    }
    quic->out.packets = packets;
    quic->out.packets_cap = cap;
  }
  quic->out.packets[quic->out.npackets++] =
      (ngp_quic_packet){.len = len, .addr = *addr, .ecn = (uint8_t)ecn};
  quic->out.bytes.len += len;
  ++quic->stats.packets_sent;
  quic->stats.bytes_sent += len;
  return 0;
}

static void clear_output(ngp_quic *quic) {
  ngp_buf_clear(&quic->out.bytes, quic->out.bytes.len < quic->out.bytes.cap / 4
                                      ? KEEP_OUTPUT
                                      : SIZE_MAX);
  quic->out.npackets = 0;
  if (quic->out.packets_cap > KEEP_PACKETS && !quic->out.bytes.base) {
    ngp_free(quic->mem, quic->out.packets);
    quic->out.packets = NULL;
    quic->out.packets_cap = 0;
  }
}

const ngp_quic_packet *ngp_quic_packets(ngp_quic *quic, size_t *pn) {
  const uint8_t *data = quic->out.bytes.base;
  size_t i;

  for (i = 0; i < quic->out.npackets; ++i) {
    quic->out.packets[i].data = data;
    data += quic->out.packets[i].len;
  }
  *pn = quic->out.npackets;
  return quic->out.packets;
}

/* Paces the next packets by the rate of those just written.  In the handshake
   there are few packets and no rate is known: a guess would only make it
   longer. */
static void pace(ngp_quic *quic) {
  if (quic->handshake.completed) {
    ngtcp2_conn_update_pkt_tx_time(quic->conn, quic->now);
  }
}

/* Fills the buffer with packets until nothing is left, or congestion control,
   pacing or flow control block. */
static int write_packets(ngp_quic *quic, size_t max) {
  size_t cap = max_datagram(quic);
  size_t quantum = ngtcp2_conn_get_send_quantum(quic->conn);
  size_t burst = 0;
  ngtcp2_ssize n;

  for (;;) {
    packet p = {.cap = cap};
    ngp_quic_addr addr;

    if (ngp_buf_reserve(&quic->out.bytes, cap) != 0) {
      return NGHTTP2_ERR_NOMEM;
    }
    p.dest = quic->out.bytes.base + quic->out.bytes.len;
    ngtcp2_path_storage_zero(&p.path);
    n = write_packet(quic, &p);
    if (n <= 0) {
      break;
    }
    ngp_quic_get_addr(quic, &p.path.path, &addr);
    if (add_packet(quic, (size_t)n, &addr, p.info.ecn) != 0) {
      return NGHTTP2_ERR_NOMEM;
    }
    burst += (size_t)n;
    if (burst >= quantum) {
      burst = 0;
      pace(quic);
    }
    if (quic->out.bytes.len + cap > max) {
      break;
    }
  }
  if (n < 0) {
    return ngp_quic_fail(quic, (int)n);
  }
  pace(quic);
  return 0;
}

static void unblock_streams(ngp_quic *quic) {
  ngp_quic_stream *stream = quic->streams.blocked.first;

  if (!stream || !ngtcp2_conn_get_max_data_left(quic->conn)) {
    return;
  }
  while (stream) {
    ngp_quic_stream *next = stream->next;

    if (ngtcp2_conn_get_max_stream_data_left(quic->conn, stream->id)) {
      ngp_quic_stream_enlist(&quic->streams, stream, NGP_QUIC_LIST_READY);
    }
    stream = next;
  }
}

/* Does what was requested by functions without a time. */
static int do_pending(ngp_quic *quic) {
  ngtcp2_path path;

  if (quic->pending.key_update &&
      ngtcp2_conn_initiate_key_update(quic->conn, quic->now) == 0) {
    quic->pending.key_update = 0;
  }
  if (!quic->pending.change_cid) {
    return 0;
  }
  quic->pending.change_cid = 0;
  if (!quic->options.is_client || !ngtcp2_conn_get_dcid(quic->conn)->datalen) {
    return 0;
  }
  /* ngtcp2 changes the connection id only when it moves to another local
     address: make it believe that the address was another before. */
  path = *ngtcp2_conn_get_path(quic->conn);
  path.remote = (ngtcp2_addr){.addr = &quic->path.remote.sa,
                              .addrlen = sizeof(quic->path.remote.in6)};
  quic->path.local.in6.sin6_addr.s6_addr[0] ^= 1;
  path.local = (ngtcp2_addr){.addr = &quic->path.local.sa,
                             .addrlen = sizeof(quic->path.local.in6)};
  if (ngtcp2_conn_initiate_immediate_migration(quic->conn, &path, quic->now) !=
      0) {
    quic->path.local.in6.sin6_addr.s6_addr[0] ^= 1;
    return 0;
  }
  return ngp_quic_tap_probe_path(quic);
}

static int write_close(ngp_quic *quic) {
  size_t cap = max_datagram(quic);
  ngtcp2_path_storage path;
  ngtcp2_pkt_info info;
  ngtcp2_ssize n;

  quic->close.pending = 0;
  if (ngp_buf_reserve(&quic->out.bytes, cap) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  ngtcp2_path_storage_zero(&path);
  n = ngtcp2_conn_write_connection_close(
      quic->conn, &path.path, &info, quic->out.bytes.base + quic->out.bytes.len,
      cap, &quic->close.error, quic->now);
  quic->state = NGP_QUIC_STATE_CLOSING;
  quic->close.until = quic->now + 3 * ngtcp2_conn_get_pto(quic->conn);
  if (n <= 0) {
    return 0;
  }
  quic->close.packet = ngp_malloc(quic->mem, (size_t)n);
  if (!quic->close.packet) {
    return NGHTTP2_ERR_NOMEM;
  }
  quic->close.len = (size_t)n;
  memcpy(quic->close.packet, quic->out.bytes.base + quic->out.bytes.len,
         (size_t)n);
  ngp_quic_get_addr(quic, &path.path, &quic->close.addr);
  return add_packet(quic, (size_t)n, &quic->close.addr, info.ecn);
}

/* Writes packets, with a PING if one has to be sent. */
static int write_pinging(ngp_quic *quic, size_t max) {
  int ping = quic->handshake.completed && ngp_quic_tap_wants_ping(quic);
  int rv;

  if (ping) {
    /* A keep-alive timer that has expired makes ngtcp2 send a PING. */
    ++quic->now;
    ngtcp2_conn_set_keep_alive_timeout(quic->conn, 1);
  }
  rv = write_packets(quic, max);
  if (ping) {
    ngp_quic_keep_alive(quic);
  }
  return rv;
}

static int send_active(ngp_quic *quic, size_t max) {
  int pinged;
  int rv;

  if (quic->handshake.confirmed) {
    rv = do_pending(quic);
    if (rv != 0) {
      return rv;
    }
  }
  rv = open_streams(quic);
  if (rv != 0 || quic->close.pending) {
    return rv;
  }
  unblock_streams(quic);
  if (quic->dgrams.head && quic->handshake.can_send) {
    sift_dgrams(quic);
  }
  pinged = ngp_quic_tap_wants_ping(quic);
  rv = write_pinging(quic, max);
  if (rv != 0 || quic->state != NGP_QUIC_STATE_ACTIVE || quic->close.pending) {
    return rv;
  }
  /* While it writes, ngtcp2 may give up an address that does not answer, and
     return to the previous one.  It has no timer for what is in flight
     there. */
  rv = ngp_quic_path_moved(quic, 0);
  if (rv == 0 && !pinged && ngp_quic_tap_wants_ping(quic)) {
    rv = write_pinging(quic, max);
  }
  return rv;
}

int ngp_quic_send(ngp_quic *quic, uint64_t now) {
  return ngp_quic_send_burst(quic, MAX_OUTPUT, now);
}

int ngp_quic_send_burst(ngp_quic *quic, size_t max, uint64_t now) {
  int rv = 0;

  ngp_quic_set_time(quic, now);
  clear_output(quic);
  if (quic->ask.state == NGP_QUIC_ASK_WAITING) {
    return 0;
  }
  if (quic->state == NGP_QUIC_STATE_NEW && quic->close.pending) {
    ngp_quic_terminate(quic);
    return quic->no_memory ? NGHTTP2_ERR_NOMEM : 0;
  }
  if (quic->state == NGP_QUIC_STATE_CLOSING && quic->close.again) {
    quic->close.again = 0;
    if (ngp_buf_reserve(&quic->out.bytes, quic->close.len) != 0) {
      return NGHTTP2_ERR_NOMEM;
    }
    memcpy(quic->out.bytes.base, quic->close.packet, quic->close.len);
    return add_packet(quic, quic->close.len, &quic->close.addr, 0);
  }
  if (quic->state != NGP_QUIC_STATE_ACTIVE) {
    return 0;
  }
  ngp_quic_tap_begin(quic);
  if (!quic->close.pending) {
    rv = send_active(quic, max);
  }
  if (rv == 0 && quic->state == NGP_QUIC_STATE_ACTIVE && quic->close.pending) {
    rv = write_close(quic);
  }
  ngp_quic_tap_end();
  return quic->no_memory ? NGHTTP2_ERR_NOMEM : rv;
}
