/* SPDX-License-Identifier: MIT */
#include "ngp_quic_cid.h"

#include <string.h>

#include "ngp_tls_gnutls.h"
#include "ngp_udp.h"

#define AES_BLOCK 16

/* The longest half of a block. */
#define MAX_HALF ((NGP_CID_MAX_BLOCK + 1) / 2)

/* The slot and the generation. */
#define ROUTE_LEN 2

/* The zeros that follow them: as many as a long nonce has room for beside its
   random bytes. */
#define MAX_ZEROS 4
#define RANDOM_LEN 8

/*
 * halves is a block that is split in two.  If its length is odd, the middle
 * byte is split, too: the low bits of the left half's last byte and the high
 * bits of the right half's first byte are zero.
 */
typedef struct halves {
  uint8_t left[MAX_HALF];
  uint8_t right[MAX_HALF];
  size_t len;
  size_t block_len;
} halves;

static void split(halves *h, const uint8_t *block, size_t len) {
  h->len = (len + 1) / 2;
  h->block_len = len;
  memcpy(h->left, block, h->len);
  memcpy(h->right, block + len - h->len, h->len);
  if (len % 2) {
    h->left[h->len - 1] &= 0xf0;
    h->right[0] &= 0x0f;
  }
}

static void join(uint8_t *block, const halves *h) {
  memcpy(block + h->block_len - h->len, h->right, h->len);
  if (h->block_len % 2) {
    memcpy(block, h->left, h->len - 1);
    block[h->len - 1] |= h->left[h->len - 1];
  } else {
    memcpy(block, h->left, h->len);
  }
}

/* Mixes one half, encrypted, into the other; |number| is that of the pass. */
static int pass(ngp_tls_aes *aes, halves *h, uint8_t number) {
  uint8_t expanded[AES_BLOCK] = {0};
  int to_right = number % 2;
  const uint8_t *from = to_right ? h->left : h->right;
  uint8_t *to = to_right ? h->right : h->left;
  size_t i;

  memcpy(expanded, from, h->len);
  expanded[AES_BLOCK - 2] = (uint8_t)h->block_len;
  expanded[AES_BLOCK - 1] = number;
  if (ngp_tls_aes_encrypt(aes, expanded) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  for (i = 0; i < h->len; ++i) {
    to[i] ^= expanded[i];
  }
  if (h->block_len % 2) {
    h->left[h->len - 1] &= 0xf0;
    h->right[0] &= 0x0f;
  }
  return 0;
}

static int run(const uint8_t *key, uint8_t *block, size_t len, int decrypt) {
  ngp_tls_aes *aes;
  halves h;
  uint8_t i;
  int rv = 0;

  if (len < NGP_CID_MIN_BLOCK || len > NGP_CID_MAX_BLOCK) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (ngp_tls_aes_new(&aes, key) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  if (len == AES_BLOCK) {
    rv = decrypt ? ngp_tls_aes_decrypt(aes, block)
                 : ngp_tls_aes_encrypt(aes, block);
  } else {
    split(&h, block, len);
    for (i = 1; rv == 0 && i <= 4; ++i) {
      rv = pass(aes, &h, decrypt ? (uint8_t)(5 - i) : i);
    }
    join(block, &h);
  }
  ngp_tls_aes_del(aes);
  return rv ? NGHTTP2_ERR_NOMEM : 0;
}

int ngp_cid_encrypt(const uint8_t *key, uint8_t *block, size_t len) {
  return run(key, block, len, 0);
}

int ngp_cid_decrypt(const uint8_t *key, uint8_t *block, size_t len) {
  return run(key, block, len, 1);
}

size_t ngp_cid_len(const ngp_cid_layout *layout) {
  return 2 + layout->server_id_len + layout->nonce_len;
}

static size_t zeros(const ngp_cid_layout *layout) {
  size_t room = layout->nonce_len - ROUTE_LEN;
  size_t n = room > RANDOM_LEN ? room - RANDOM_LEN : 0;

  return n < MAX_ZEROS ? n : MAX_ZEROS;
}

static uint8_t first_byte(const ngp_cid_layout *layout) {
  return (uint8_t)(layout->config_id << 5 | (ngp_cid_len(layout) - 1));
}

/* Hides a slot in the last byte of an id, or finds it there. */
static uint8_t mark(const ngp_cid_layout *layout, const uint8_t *cid,
                    uint8_t value) {
  uint32_t hash = ngp_udp_hash(layout->mask, cid, ngp_cid_len(layout) - 1);

  return (uint8_t)(value ^ hash);
}

int ngp_cid_make(const ngp_cid_layout *layout, ngtcp2_cid *cid) {
  uint8_t *block = cid->data + 1;
  uint8_t *nonce = block + layout->server_id_len;
  size_t head = ROUTE_LEN + zeros(layout);
  int rv;

  cid->datalen = ngp_cid_len(layout);
  cid->data[0] = first_byte(layout);
  memcpy(block, layout->server_id, layout->server_id_len);
  memset(nonce, 0, head);
  nonce[0] = layout->slot;
  nonce[1] = layout->generation;
  if (ngp_tls_random(nonce + head, layout->nonce_len - head) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  rv = layout->has_key
           ? ngp_cid_encrypt(layout->key, block,
                             layout->server_id_len + layout->nonce_len)
           : ngp_cid_encrypt(layout->own_key, nonce, layout->nonce_len);
  if (rv != 0) {
    return rv;
  }
  cid->data[cid->datalen - 1] = mark(layout, cid->data, layout->slot);
  return 0;
}

int ngp_cid_read(const ngp_cid_layout *layout, const uint8_t *data, size_t len,
                 uint8_t *pslot, uint8_t *pgeneration) {
  uint8_t block[NGP_CID_MAX_BLOCK];
  uint8_t *nonce = block + layout->server_id_len;
  size_t block_len = layout->server_id_len + layout->nonce_len;
  size_t i;
  int rv;

  if (len != ngp_cid_len(layout) || data[0] != first_byte(layout)) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  memcpy(block, data + 1, block_len);
  rv = layout->has_key
           ? ngp_cid_decrypt(layout->key, block, block_len)
           : ngp_cid_decrypt(layout->own_key, nonce, layout->nonce_len);
  if (rv != 0) {
    return rv;
  }
  if (memcmp(block, layout->server_id, layout->server_id_len) != 0 ||
      mark(layout, data, data[len - 1]) != nonce[0]) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  for (i = 0; i < zeros(layout); ++i) {
    if (nonce[ROUTE_LEN + i]) {
      return NGHTTP2_ERR_INVALID_ARGUMENT;
    }
  }
  *pslot = nonce[0];
  *pgeneration = nonce[1];
  return 0;
}
