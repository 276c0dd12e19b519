/*
 * Packets with any frames: what a peer could send that has the keys.
 * SPDX-License-Identifier: MIT
 *
 * Encryption and header protection are replaced (by the linker's --wrap) with
 * functions that change nothing, so that the input reaches the frame parsers
 * and our callbacks.  The handshake is real.
 *
 * The first byte says who gets the packets, how far the handshake has come and
 * what has been done before.  Then each byte says what happens, and may be
 * followed by arguments.
 */
#include "ops.h"

#include "ngp_quic_packet.h"
#include "quic_pair.h"

#include <ngtcp2/ngtcp2_crypto.h>

#define TAG_LEN 16

int __wrap_ngtcp2_crypto_encrypt_cb(uint8_t *dest,
                                    const ngtcp2_crypto_aead *aead,
                                    const ngtcp2_crypto_aead_ctx *aead_ctx,
                                    const uint8_t *plaintext,
                                    size_t plaintextlen, const uint8_t *nonce,
                                    size_t noncelen, const uint8_t *aad,
                                    size_t aadlen) {
  (void)aead;
  (void)aead_ctx;
  (void)nonce;
  (void)noncelen;
  (void)aad;
  (void)aadlen;
  if (plaintextlen) {
    memmove(dest, plaintext, plaintextlen);
  }
  memset(dest + plaintextlen, 0, TAG_LEN);
  return 0;
}

int __wrap_ngtcp2_crypto_decrypt_cb(uint8_t *dest,
                                    const ngtcp2_crypto_aead *aead,
                                    const ngtcp2_crypto_aead_ctx *aead_ctx,
                                    const uint8_t *ciphertext,
                                    size_t ciphertextlen, const uint8_t *nonce,
                                    size_t noncelen, const uint8_t *aad,
                                    size_t aadlen) {
  (void)aead;
  (void)aead_ctx;
  (void)nonce;
  (void)noncelen;
  (void)aad;
  (void)aadlen;
  CHECK(ciphertextlen >= TAG_LEN);
  memmove(dest, ciphertext, ciphertextlen - TAG_LEN);
  return 0;
}

int __wrap_ngtcp2_crypto_hp_mask_cb(uint8_t *dest,
                                    const ngtcp2_crypto_cipher *hp,
                                    const ngtcp2_crypto_cipher_ctx *hp_ctx,
                                    const uint8_t *sample) {
  (void)hp;
  (void)hp_ctx;
  (void)sample;
  memset(dest, 0, NGTCP2_HP_MASKLEN);
  return 0;
}

/* RFC 9000, 17. */
enum { SHORT = 0x40, INITIAL = 0xc0, ZERO_RTT = 0xd0, HANDSHAKE = 0xe0 };

static uint8_t body[4096];

typedef struct world {
  quic_pair pair;
  int victim;
  /* pkt_num goes up with every packet that we make. */
  uint32_t pkt_num;
  uint16_t port;
} world;

static void deliver(world *w, const uint8_t *data, size_t len) {
  ngp_quic_addr addr = {.ip = {0xfd, [15] = 1}, .port = w->port};

  CHECK(ngp_quic_recv(w->pair.ends[w->victim], data, len, &addr, 0,
                      w->pair.now) == 0);
}

/* Makes a packet of the next bytes of the input. */
static void send_frames(world *w, input *in, uint8_t first) {
  static uint8_t data[2048];
  const ngtcp2_cid *cid = ngp_quic_host_cid(w->pair.ends[w->victim]);
  const ngtcp2_cid *original = ngp_quic_original_dcid(w->pair.ends[w->victim]);
  size_t len = take(in);
  const uint8_t *frames;
  size_t n = 0;

  /* Long ones, too. */
  len = len < 128 ? len : (len - 128) * 10;
  frames = take_bytes(in, &len);
  data[n++] = first | 3;
  if (first & 0x80) {
    size_t left;

    if ((first == INITIAL || first == ZERO_RTT) && w->victim == 1 &&
        original->datalen) {
      cid = original;
    }
    memcpy(data + n, "\0\0\0\1", 4);
    n += 4;
    data[n++] = (uint8_t)cid->datalen;
    memcpy(data + n, cid->data, cid->datalen);
    n += cid->datalen;
    data[n++] = 8;
    memset(data + n, 7, 8);
    n += 8;
    if (first == INITIAL) {
      data[n++] = 0;
    }
    left = 4 + len + TAG_LEN;
    data[n++] = (uint8_t)(0x40 | left >> 8);
    data[n++] = (uint8_t)left;
  } else {
    memcpy(data + n, cid->data, cid->datalen);
    n += cid->datalen;
  }
  w->pkt_num += 1;
  data[n++] = (uint8_t)(w->pkt_num >> 24);
  data[n++] = (uint8_t)(w->pkt_num >> 16);
  data[n++] = (uint8_t)(w->pkt_num >> 8);
  data[n++] = (uint8_t)w->pkt_num;
  memcpy(data + n, frames, len);
  n += len;
  memset(data + n, 0, TAG_LEN);
  n += TAG_LEN;
  if (first == INITIAL && n < 1200) {
    memset(data + n, 0, 1200 - n);
    n = 1200;
  }
  deliver(w, data, n);
}

static void send_raw(world *w, input *in) {
  size_t len = take(in);
  const uint8_t *data = take_bytes(in, &len);

  deliver(w, data, len);
}

/* What the program of the victim does. */
static void call(world *w, input *in) {
  ngp_quic *quic = w->pair.ends[w->victim];
  int64_t id = take(in);

  switch (take(in) % 8) {
  case 0:
    (void)quic_pair_send(&w->pair, w->victim, id, body, take(in) * 16u,
                         take(in) & 1);
    break;
  case 1:
    (void)ngp_quic_reset_stream(quic, id, take_number(in));
    break;
  case 2:
    (void)ngp_quic_stop_stream(quic, id, take_number(in));
    break;
  case 3:
    (void)ngp_quic_send_datagram(quic, body, take(in) * 6u);
    break;
  case 4:
    (void)ngp_quic_ping(quic, 1);
    break;
  case 5:
    ngp_quic_update_key(quic);
    break;
  case 6:
    ngp_quic_change_cid(quic);
    break;
  default:
    if (id % 8 == 0) {
      (void)ngp_quic_close(quic, 1, id & 1, 0, "", 0);
    }
  }
}

static void step(world *w, input *in) {
  static const uint8_t kinds[] = {SHORT,   SHORT,    SHORT,     SHORT | 4,
                                  INITIAL, ZERO_RTT, HANDSHAKE, SHORT};
  ngp_quic *quic = w->pair.ends[w->victim];
  uint8_t op = take(in);

  switch (op & 7) {
  case 0:
  case 1:
  case 2:
    send_frames(w, in, kinds[op >> 3 & 7]);
    break;
  case 3:
    call(w, in);
    break;
  case 4:
    send_raw(w, in);
    break;
  case 5:
    w->pair.now += take_number(in) % 6000000000u;
    CHECK(ngp_quic_handle_timer(quic, w->pair.now) == 0);
    break;
  case 6:
    w->port = (uint16_t)(5000 + take(in) % 3);
    break;
  default:
    /* The peer has its say, too. */
    quic_pair_run(&w->pair, op >> 3);
  }
  CHECK(ngp_quic_send(quic, w->pair.now) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int ready;
  input in = {data, size};
  world w = {.port = 5000, .pkt_num = 1000};
  uint8_t start;

  if (!ready) {
    quic_pair_setup();
    ready = 1;
  }
  CHECK(quic_pair_init(&w.pair, NULL) == 0);
  start = take(&in);
  w.victim = start & 1;
  w.pair.echo = start >> 1 & 1;
  quic_pair_connect(&w.pair);
  if (start & 4) {
    (void)quic_pair_send(&w.pair, 0, 0, body, 3000, start >> 3 & 1);
    (void)quic_pair_send(&w.pair, 1, 3, body, 3000, start >> 3 & 1);
  }
  /* As far as the handshake gets in so many milliseconds. */
  quic_pair_run(&w.pair, start & 0x80 ? 20 : start >> 4 & 7);
  while (in.left) {
    step(&w, &in);
  }
  quic_pair_run(&w.pair, 3);
  quic_pair_free(&w.pair);
  CHECK(quic_pair_owners() == 0);
  return 0;
}
