/*
 * Connection ids that have the number of a worker, as QUIC-LB
 * (draft-ietf-quic-load-balancers-21) lays them out.
 * SPDX-License-Identifier: MIT
 */
#ifndef NGP_QUIC_CID_H
#define NGP_QUIC_CID_H

#include <stddef.h>
#include <stdint.h>

#include <ngtcp2/ngtcp2.h>

#include "ngp.h"

#define NGP_CID_KEY_LEN 16

/* The server id and the nonce have at least 5 and at most 19 bytes together.
   An id of ours has two bytes besides: the first, and the mark. */
#define NGP_CID_MIN_BLOCK 5
#define NGP_CID_MAX_BLOCK 19
#define NGP_CID_MAX_SERVER_ID 15

/* The nonce of our ids begins with the slot and the generation; the rest must
   be long enough that no two are equal. */
#define NGP_CID_MIN_NONCE 8

/*
 * ngp_cid_layout is how a worker makes its connection ids:
 *
 *   first byte | server id | nonce | mark
 *
 * The first byte has the number of the configuration in three bits, and the
 * length of the rest in five.  The nonce has the worker's slot and generation,
 * zeros that show that an id is ours, and random bytes.  With a key, that of
 * the load balancer, the server id and the nonce are encrypted with it;
 * otherwise the nonce alone with own_key.  The mark is the slot again, hidden
 * by a hash that a program of classic BPF can compute.
 */
typedef struct ngp_cid_layout {
  uint8_t config_id;
  uint8_t slot;
  uint8_t generation;
  /* has_key is nonzero if the load balancer decrypts server ids. */
  uint8_t has_key;
  size_t server_id_len;
  size_t nonce_len;
  uint8_t server_id[NGP_CID_MAX_SERVER_ID];
  uint8_t key[NGP_CID_KEY_LEN];
  uint8_t own_key[NGP_CID_KEY_LEN];
  /* mask is the key of the hash. */
  uint32_t mask[2];
} ngp_cid_layout;

/* ngp_cid_len returns the length of the ids of a layout. */
size_t ngp_cid_len(const ngp_cid_layout *layout);

/*
 * ngp_cid_make writes a new id into |*cid|.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM if there is no
 * cipher or no random number.
 */
int ngp_cid_make(const ngp_cid_layout *layout, ngtcp2_cid *cid);

/*
 * ngp_cid_read stores the slot and the generation of the worker that has made
 * an id of |len| bytes; |layout| may be that of another worker of the group.
 *
 * This function returns 0 if it succeeds, NGHTTP2_ERR_INVALID_ARGUMENT if no
 * worker of the group has made the id, or NGHTTP2_ERR_NOMEM if there is no
 * cipher.
 */
int ngp_cid_read(const ngp_cid_layout *layout, const uint8_t *data, size_t len,
                 uint8_t *pslot, uint8_t *pgeneration);

/*
 * ngp_cid_encrypt encrypts |len| bytes, NGP_CID_MIN_BLOCK to NGP_CID_MAX_BLOCK,
 * in place: by one pass of AES if they are 16, otherwise by four.
 *
 * This function returns 0 if it succeeds, NGHTTP2_ERR_INVALID_ARGUMENT if there
 * are too few or too many bytes, or NGHTTP2_ERR_NOMEM if there is no cipher.
 */
int ngp_cid_encrypt(const uint8_t *key, uint8_t *block, size_t len);

/* ngp_cid_decrypt reverses ngp_cid_encrypt(), and returns the same. */
int ngp_cid_decrypt(const uint8_t *key, uint8_t *block, size_t len);

#endif /* NGP_QUIC_CID_H */
