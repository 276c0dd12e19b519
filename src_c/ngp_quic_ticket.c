/*
 * Session tickets that the caller of a server allows before they are used.  The
 * caller can answer only when ngtcp2 has returned, and by then GnuTLS would
 * have decided.  So the ClientHello is read before GnuTLS gets it.  If it
 * presents tickets, the connection restarts with the kept datagrams when the
 * answer is known.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

#include <ngtcp2/ngtcp2_crypto.h>

/* RFC 8446, 4, 4.1.2 and 4.2. */
#define CLIENT_HELLO 1
#define HELLO_HEAD_LEN 4
#define RANDOM_LEN 32
#define PRE_SHARED_KEY 41

/* A larger ClientHello ends the handshake; none in use is larger. */
#define MAX_HELLO (16 * 1024)

/* RFC 8446, 6. */
#define ALERT_DECODE_ERROR 50

/* How many bytes of a client's first datagrams are kept; more count as lost. */
#define MAX_KEPT (32 * 1024)

/* A datagram that is kept; its bytes follow. */
typedef struct kept {
  ngp_quic_addr addr;
  size_t len;
  uint8_t ecn;
} kept;

/* ---- The ClientHello ---- */

typedef struct reader {
  const uint8_t *pos;
  size_t left;
  int failed;
} reader;

/* Reads |n| bytes from |r|, or fails. */
static const uint8_t *take(reader *r, size_t n) {
  const uint8_t *pos = r->pos;

  if (r->failed || n > r->left) {
    r->failed = 1;
    r->left = 0;
    return NULL;
  }
  r->pos += n;
  r->left -= n;
  return pos;
}

static size_t take_number(reader *r, size_t size) {
  const uint8_t *p = take(r, size);
  size_t n = 0;

  while (p && size--) {
    n = n << 8 | *p++;
  }
  return n;
}

/* Reads a vector whose length has |size| bytes. */
static reader take_vector(reader *r, size_t size) {
  size_t n = take_number(r, size);
  const uint8_t *pos = take(r, n);

  return (reader){.pos = pos, .left = pos ? n : 0, .failed = r->failed};
}

/* Finds the identities of the pre_shared_key extension in a ClientHello; there
   may be none. */
static reader find_identities(reader *hello) {
  reader extensions;

  take(hello, HELLO_HEAD_LEN + 2 + RANDOM_LEN);
  take_vector(hello, 1); /* legacy_session_id */
  take_vector(hello, 2); /* cipher_suites */
  take_vector(hello, 1); /* legacy_compression_methods */
  extensions = take_vector(hello, 2);
  while (extensions.left) {
    size_t type = take_number(&extensions, 2);
    reader extension = take_vector(&extensions, 2);

    if (type == PRE_SHARED_KEY) {
      return take_vector(&extension, 2);
    }
  }
  return extensions;
}

/* Records the tickets that the ClientHello presents.  If there are any, it
   stops the ngtcp2_conn, which is not used any more. */
static int record_tickets(ngp_quic *quic) {
  reader hello = {.pos = quic->ask.hello.base, .left = quic->ask.hello.len};
  reader identities = find_identities(&hello);

  while (identities.left) {
    reader identity = take_vector(&identities, 2);

    take(&identities, 4); /* obfuscated_ticket_age */
    if (!identities.failed) {
      quic->ask.state = NGP_QUIC_ASK_WAITING;
      if (!ngp_quic_record(quic, &quic->reports,
                           NGP_QUIC_EVENT_TICKET_PRESENTED, identity.pos,
                           identity.left)) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
      }
    }
  }
  if (identities.failed) {
    /* GnuTLS might parse it differently, and the caller would not be asked. */
    quic->ask.state = NGP_QUIC_ASK_DONE;
    ngtcp2_conn_set_tls_alert(quic->conn, ALERT_DECODE_ERROR);
    return NGTCP2_ERR_CRYPTO;
  }
  return quic->ask.state == NGP_QUIC_ASK_WAITING ? NGTCP2_ERR_CALLBACK_FAILURE
                                                 : 0;
}

int ngp_quic_recv_crypto(ngtcp2_conn *conn, ngtcp2_encryption_level level,
                         uint64_t offset, const uint8_t *data, size_t len,
                         void *user_data) {
  ngp_quic *quic = user_data;
  ngp_buf *hello = &quic->ask.hello;
  size_t whole;
  int rv;

  if (quic->ask.state != NGP_QUIC_ASK_FIRST ||
      level != NGTCP2_ENCRYPTION_LEVEL_INITIAL) {
    return ngtcp2_crypto_recv_crypto_data_cb(conn, level, offset, data, len,
                                             user_data);
  }
  if (ngp_buf_add(hello, data, len) != 0) {
    quic->no_memory = 1;
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  if (hello->len < HELLO_HEAD_LEN) {
    return 0;
  }
  whole = HELLO_HEAD_LEN + ((size_t)hello->base[1] << 16 |
                            (size_t)hello->base[2] << 8 | hello->base[3]);
  if (hello->base[0] == CLIENT_HELLO) {
    if (whole > MAX_HELLO) {
      ngtcp2_conn_set_tls_alert(conn, ALERT_DECODE_ERROR);
      return NGTCP2_ERR_CRYPTO;
    }
    if (hello->len < whole) {
      return 0;
    }
    rv = record_tickets(quic);
    if (rv != 0) {
      return rv;
    }
  }
  quic->ask.state = NGP_QUIC_ASK_DONE;
  return ngtcp2_crypto_recv_crypto_data_cb(conn, level,
                                           offset + len - hello->len,
                                           hello->base, hello->len, user_data);
}

/* ---- The datagrams ---- */

int ngp_quic_ask_keep(ngp_quic *quic, const uint8_t *data, size_t len,
                      const ngp_quic_addr *addr, uint8_t ecn) {
  ngp_buf *buf = &quic->ask.datagrams;
  kept head;

  if (len > MAX_KEPT || buf->len + sizeof(head) + len > MAX_KEPT) {
    return 0;
  }
  memset(&head, 0, sizeof(head));
  head.addr = *addr;
  head.len = len;
  head.ecn = ecn;
  if (ngp_buf_reserve(buf, sizeof(head) + len) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  ngp_buf_add(buf, &head, sizeof(head));
  ngp_buf_add(buf, data, len);
  return 0;
}

void ngp_quic_ask_free(ngp_quic *quic) {
  ngp_buf_free(&quic->ask.hello);
  ngp_buf_free(&quic->ask.datagrams);
}

int ngp_quic_take_tickets(ngp_quic *quic, int allowed) {
  ngp_buf datagrams = quic->ask.datagrams;
  size_t pos = 0;
  int rv = 0;

  if (quic->ask.state != NGP_QUIC_ASK_WAITING) {
    return 0;
  }
  ngp_buf_init(&quic->ask.datagrams, quic->mem);
  ngp_buf_free(&quic->ask.hello);
  quic->ask.state = NGP_QUIC_ASK_DONE;
  quic->options.tls.take_tickets = allowed ? 1 : 0;
  ngp_quic_forget_conn(quic);
  if (quic->close.pending) {
    /* The caller has closed the connection instead of answering. */
    ngp_buf_free(&datagrams);
    ngp_quic_terminate(quic);
    return 0;
  }
  quic->state = NGP_QUIC_STATE_NEW;
  quic->cids.nearly = 0;
  quic->stats.packets_received = quic->stats.bytes_received = 0;
  while (rv == 0 && pos < datagrams.len) {
    kept head;

    memcpy(&head, datagrams.base + pos, sizeof(head));
    pos += sizeof(head);
    rv = ngp_quic_recv(quic, datagrams.base + pos, head.len, &head.addr,
                       head.ecn, quic->now);
    pos += head.len;
  }
  ngp_buf_free(&datagrams);
  return rv;
}
