/*
 * PINGs that are waited for, and STOP_SENDING.  ngtcp2 1.11 does not tell which
 * packet carries a PING frame, nor that it was acknowledged, nor that the peer
 * wants no more on a stream; so we look at the payload of packets on their way
 * through encryption and decryption.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <ngtcp2/ngtcp2_crypto.h>

/* RFC 9000, 17.2: the bit of a long header, and the length of the packet number
   minus one. */
#define LONG_HEADER 0x80
#define PKT_NUM_LEN 0x03

/* The two functions that ngtcp2 calls get no pointer to the connection: it is
   stored here around every call that reads or writes packets. */
static __thread ngp_quic *current;

void ngp_quic_tap_begin(ngp_quic *quic) { current = quic; }

void ngp_quic_tap_end(void) { current = NULL; }

int ngp_quic_tap_wants_ping(const ngp_quic *quic) {
  size_t i;

  for (i = 0; i < quic->tap.npings; ++i) {
    if (quic->tap.pings[i].pkt_num < 0) {
      return 1;
    }
  }
  return 0;
}

static int add_ping(ngp_quic *quic, uint64_t value, uint8_t own) {
  ngp_quic_tap *tap = &quic->tap;

  if (tap->npings == tap->pings_cap) {
    size_t cap = tap->pings_cap ? tap->pings_cap * 2 : 4;
    ngp_quic_ping_wait *pings =
        ngp_realloc(quic->mem, tap->pings, cap * sizeof(*pings));

    if (!pings) {
      return NGHTTP2_ERR_NOMEM;
    }
    tap->pings = pings;
    tap->pings_cap = cap;
  }
  tap->pings[tap->npings++] =
      (ngp_quic_ping_wait){.value = value, .pkt_num = -1, .own = own};
  return 0;
}

int ngp_quic_ping(ngp_quic *quic, uint64_t value) {
  /* It will not be acknowledged on a connection that ends. */
  return quic->state > NGP_QUIC_STATE_ACTIVE ? 0 : add_ping(quic, value, 0);
}

int ngp_quic_tap_probe_path(ngp_quic *quic) {
  size_t i;

  for (i = 0; i < quic->tap.npings; ++i) {
    if (quic->tap.pings[i].own) {
      quic->tap.pings[i].pkt_num = -1;
      return 0;
    }
  }
  return add_ping(quic, 0, 1);
}

/* ---- Frames (RFC 9000, 19) ---- */

typedef struct reader {
  const uint8_t *pos;
  const uint8_t *end;
  int failed;
} reader;

static uint64_t read_varint(reader *r) {
  uint64_t n = 0;
  size_t len = ngp_get_varint(r->pos, (size_t)(r->end - r->pos), &n);

  r->failed |= !len;
  r->pos += len;
  return n;
}

static void skip(reader *r, uint64_t n) {
  if (n > (uint64_t)(r->end - r->pos)) {
    r->failed = 1;
  } else {
    r->pos += n;
  }
}

static void skip_varints(reader *r, int n) {
  while (n-- && !r->failed) {
    read_varint(r);
  }
}

/* Skips a frame of |type|, which is not ACK. */
static void skip_frame(reader *r, uint64_t type) {
  /* The number of varints in the frames from 0x10 to 0x17 and 0x19. */
  static const uint8_t varints[] = {1, 2, 1, 1, 1, 2, 1, 1, 0, 1};

  if (type <= 0x01 || type == 0x1e) {
    return;
  }
  if (type == 0x04 || type == 0x05) {
    skip_varints(r, type == 0x04 ? 3 : 2);
  } else if (type == 0x06) {
    read_varint(r);
    skip(r, read_varint(r));
  } else if (type == 0x07 || type == 0x31) {
    skip(r, read_varint(r));
  } else if (type >= 0x08 && type <= 0x0f) {
    skip_varints(r, type & 0x04 ? 2 : 1);
    if (type & 0x02) {
      skip(r, read_varint(r));
    } else {
      r->pos = r->end;
    }
  } else if (type == 0x18) {
    skip_varints(r, 2);
    skip(r, read_varint(r));
    skip(r, NGTCP2_STATELESS_RESET_TOKENLEN);
  } else if (type >= 0x10 && type <= 0x19) {
    skip_varints(r, varints[type - 0x10]);
  } else if (type == 0x1a || type == 0x1b) {
    skip(r, NGTCP2_PATH_CHALLENGE_DATALEN);
  } else {
    /* A frame that closes the connection, fills the packet, or is unknown. */
    r->pos = r->end;
  }
}

/* ---- The log ---- */

/* Records a packet for the log. */
static int log_packet(ngp_quic *quic, ngp_quic_event_type type,
                      const uint8_t *header, size_t len, const uint8_t *payload,
                      size_t payloadlen) {
  ngp_quic_event *event =
      ngp_quic_record(quic, &quic->reports, type, header, len);

  if (!event) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  event->value = len;
  return ngp_quic_record_more(quic, &quic->reports, payload, payloadlen) == 0
             ? 0
             : NGTCP2_ERR_CALLBACK_FAILURE;
}

/* ---- Sent ---- */

static void see_sent(ngp_quic *quic, const uint8_t *header, size_t len,
                     const uint8_t *payload, size_t payloadlen) {
  ngp_quic_tap *tap = &quic->tap;
  size_t n = (size_t)(header[0] & PKT_NUM_LEN) + 1;
  int64_t window = (int64_t)1 << (8 * n);
  int64_t pkt_num = 0;
  reader r = {.pos = payload, .end = payload + payloadlen};
  size_t i;

  if (len < 1 + n) {
    return;
  }
  for (i = len - n; i < len; ++i) {
    pkt_num = pkt_num << 8 | header[i];
  }
  /* Our packet numbers grow by one or a few: the upper bits are the smallest
     that do not decrease the number. */
  pkt_num |= tap->next_pkt_num & ~(window - 1);
  if (pkt_num < tap->next_pkt_num) {
    pkt_num += window;
  }
  tap->next_pkt_num = pkt_num + 1;
  if (!ngp_quic_tap_wants_ping(quic)) {
    return;
  }
  while (r.pos < r.end && !r.failed) {
    uint64_t type = read_varint(&r);

    if (type == 0x01) {
      for (i = 0; i < tap->npings; ++i) {
        if (tap->pings[i].pkt_num < 0) {
          tap->pings[i].pkt_num = pkt_num;
        }
      }
      return;
    }
    if (type == 0x02 || type == 0x03) {
      uint64_t count;

      skip_varints(&r, 2);
      count = read_varint(&r);
      skip_varints(&r, 1);
      while (count-- && !r.failed) {
        skip_varints(&r, 2);
      }
      skip_varints(&r, type == 0x03 ? 3 : 0);
    } else {
      skip_frame(&r, type);
    }
  }
}

int ngp_quic_tap_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                         const ngtcp2_crypto_aead_ctx *aead_ctx,
                         const uint8_t *plaintext, size_t plaintextlen,
                         const uint8_t *nonce, size_t noncelen,
                         const uint8_t *aad, size_t aadlen) {
  /* Without a payload this is not a packet: the tag of a Retry packet is
     checked. */
  if (current && plaintextlen && aadlen) {
    if (!(aad[0] & LONG_HEADER)) {
      see_sent(current, aad, aadlen, plaintext, plaintextlen);
    }
    if (current->options.log_packets &&
        log_packet(current, NGP_QUIC_EVENT_PACKET_SENT, aad, aadlen, plaintext,
                   plaintextlen) != 0) {
      return NGTCP2_ERR_CALLBACK_FAILURE;
    }
  }
  return ngtcp2_crypto_encrypt_cb(dest, aead, aead_ctx, plaintext, plaintextlen,
                                  nonce, noncelen, aad, aadlen);
}

/* ---- Received ---- */

static void see_acked(ngp_quic *quic, uint64_t from, uint64_t to) {
  ngp_quic_tap *tap = &quic->tap;
  size_t i = 0;

  while (i < tap->npings) {
    ngp_quic_ping_wait *ping = &tap->pings[i];

    if (ping->pkt_num >= 0 && (uint64_t)ping->pkt_num >= from &&
        (uint64_t)ping->pkt_num <= to) {
      if (!ping->own) {
        ngp_quic_event *event = ngp_quic_record(
            quic, &quic->events, NGP_QUIC_EVENT_PING_ACKED, NULL, 0);

        if (!event) {
          return;
        }
        event->value = ping->value;
      }
      --tap->npings;
      for (size_t j = i; j < tap->npings; ++j) {
        tap->pings[j] = tap->pings[j + 1];
      }
    } else {
      ++i;
    }
  }
}

static void see_ack(ngp_quic *quic, reader *r, uint64_t type) {
  uint64_t largest = read_varint(r);
  uint64_t to = largest;
  uint64_t count;
  uint64_t len;
  size_t i;

  read_varint(r);
  count = read_varint(r);
  len = read_varint(r);
  while (!r->failed && len <= to) {
    uint64_t gap;

    see_acked(quic, to - len, to);
    if (!count--) {
      break;
    }
    gap = read_varint(r);
    if (gap + 2 > to - len) {
      r->failed = 1;
      break;
    }
    to -= len + gap + 2;
    len = read_varint(r);
  }
  skip_varints(r, type == 0x03 ? 3 : 0);
  /* A later packet has arrived and this one has not, or not yet: one PING more
     does no harm, but waiting for a lost one would not end. */
  for (i = 0; i < quic->tap.npings && !r->failed; ++i) {
    ngp_quic_ping_wait *ping = &quic->tap.pings[i];

    if (ping->pkt_num >= 0 && (uint64_t)ping->pkt_num < largest) {
      ping->pkt_num = -1;
    }
  }
}

static int add_stop(ngp_quic *quic, uint64_t stream_id, uint64_t error_code) {
  ngp_quic_tap *tap = &quic->tap;

  if (tap->nstops == tap->stops_cap) {
    size_t cap = tap->stops_cap ? tap->stops_cap * 2 : 4;
    ngp_quic_stop *stops =
        ngp_realloc(quic->mem, tap->stops, cap * sizeof(*stops));

    if (!stops) {
      quic->no_memory = 1;
      return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    tap->stops = stops;
    tap->stops_cap = cap;
  }
  tap->stops[tap->nstops++] = (ngp_quic_stop){.stream_id = (int64_t)stream_id,
                                              .error_code = error_code};
  return 0;
}

int ngp_quic_tap_record_stops(ngp_quic *quic) {
  size_t i;

  for (i = 0; i < quic->tap.nstops; ++i) {
    const ngp_quic_stop *stop = &quic->tap.stops[i];
    ngp_quic_stream *stream =
        ngp_quic_stream_find(&quic->streams, stop->stream_id);
    ngp_quic_event *event;

    /* The packet may be a duplicate, or late. */
    if (!stream || stream->stopped) {
      continue;
    }
    /* ngtcp2 answers with RESET_STREAM (RFC 9000, 3.5). */
    stream->stopped = stream->reset = 1;
    ngp_quic_stream_enlist(&quic->streams, stream, NGP_QUIC_LIST_NONE);
    event = ngp_quic_record(quic, &quic->events, NGP_QUIC_EVENT_STOP_SENDING,
                            NULL, 0);
    if (!event) {
      return NGHTTP2_ERR_NOMEM;
    }
    event->stream_id = stop->stream_id;
    event->error_code = stop->error_code;
  }
  return 0;
}

static int see_received(ngp_quic *quic, int is_short, reader r) {
  while (r.pos < r.end && !r.failed) {
    uint64_t type = read_varint(&r);

    if (type == 0x02 || type == 0x03) {
      /* Only packets with a short header acknowledge those that carry PINGs. */
      if (is_short) {
        see_ack(quic, &r, type);
      } else {
        return 0;
      }
    } else if (type == 0x05) {
      uint64_t id = read_varint(&r);
      uint64_t code = read_varint(&r);

      if (!r.failed && add_stop(quic, id, code) != 0) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
      }
    } else {
      skip_frame(&r, type);
    }
  }
  return 0;
}

int ngp_quic_tap_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                         const ngtcp2_crypto_aead_ctx *aead_ctx,
                         const uint8_t *ciphertext, size_t ciphertextlen,
                         const uint8_t *nonce, size_t noncelen,
                         const uint8_t *aad, size_t aadlen) {
  int rv =
      ngtcp2_crypto_decrypt_cb(dest, aead, aead_ctx, ciphertext, ciphertextlen,
                               nonce, noncelen, aad, aadlen);

  if (rv != 0 || !current || !aadlen || ciphertextlen <= aead->max_overhead) {
    return rv;
  }
  if (current->options.log_packets &&
      log_packet(current, NGP_QUIC_EVENT_PACKET_RECEIVED, aad, aadlen, dest,
                 ciphertextlen - aead->max_overhead) != 0) {
    return NGTCP2_ERR_CALLBACK_FAILURE;
  }
  return see_received(
      current, !(aad[0] & LONG_HEADER),
      (reader){.pos = dest, .end = dest + ciphertextlen - aead->max_overhead});
}
