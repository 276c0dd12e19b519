/*
 * What a server does with a packet that belongs to no connection: version
 * negotiation, Retry, stateless reset (RFC 9000, 6, 8.1, 10.3).
 * SPDX-License-Identifier: MIT
 */
#ifndef NGP_QUIC_PACKET_H
#define NGP_QUIC_PACKET_H

#include "ngp_quic.h"

/* The most bytes of a packet that is written here. */
#define NGP_QUIC_PACKET_MAX 1200

/*
 * ngp_quic_header is the header of the first packet in a datagram; the pointers
 * point into the datagram.
 */
typedef struct ngp_quic_header {
  /* version is 0 for a packet with a short header. */
  uint32_t version;
  uint8_t is_long;
  /* is_initial is nonzero if it can begin a connection, and has a version that
     we support; then token may be set. */
  uint8_t is_initial;
  const uint8_t *dcid;
  size_t dcid_len;
  const uint8_t *scid;
  size_t scid_len;
  const uint8_t *token;
  size_t token_len;
  /* is_retry_token is nonzero if the token looks like that of a Retry packet of
     ours, which the client answers. */
  uint8_t is_retry_token;
} ngp_quic_header;

/*
 * ngp_quic_header_decode reads a datagram's first header.  |cid_len| is the
 * length of the connection ids that we issue.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_INVALID_ARGUMENT if
 * the datagram is not QUIC.
 */
int ngp_quic_header_decode(ngp_quic_header *header, const uint8_t *data,
                           size_t len, size_t cid_len);

/* The functions below write into |dest|, which has NGP_QUIC_PACKET_MAX bytes,
   and return the packet's length, or 0 if there is none to send. */

size_t ngp_quic_write_version_negotiation(uint8_t *dest,
                                          const ngp_quic_header *header,
                                          const uint32_t *versions, size_t n);

/*
 * ngp_quic_write_retry answers an Initial packet from |addr| with a token
 * authenticated by |secret|.  The connection id that replaces the client's is
 * one of |layout|, or random if that is NULL.
 */
size_t ngp_quic_write_retry(uint8_t *dest, const ngp_quic_header *header,
                            const ngp_quic_addr *addr,
                            const ngp_cid_layout *layout, const uint8_t *secret,
                            size_t secret_len, uint64_t now);

/*
 * ngp_quic_verify_retry checks the token of an Initial packet, which is valid
 * for |timeout| nanoseconds, and stores the connection id of the packet before
 * Retry in |*podcid|.
 *
 * This function returns 0 if the token is ours and for this address, otherwise
 * NGHTTP2_ERR_INVALID_ARGUMENT.
 */
int ngp_quic_verify_retry(ngtcp2_cid *podcid, const ngp_quic_header *header,
                          const ngp_quic_addr *addr, const uint8_t *secret,
                          size_t secret_len, uint64_t timeout, uint64_t now);

/*
 * ngp_quic_write_token makes a token for a NEW_TOKEN frame, which every server
 * with the same |secret| accepts. |now| is of a clock that they share.
 */
size_t ngp_quic_write_token(uint8_t *dest, const ngp_quic_addr *addr,
                            const uint8_t *secret, size_t secret_len,
                            uint64_t now);

/*
 * ngp_quic_verify_token checks that an Initial packet has such a token, made
 * for its address no longer than |timeout| nanoseconds ago.
 *
 * This function returns 0 if it has one, otherwise
 * NGHTTP2_ERR_INVALID_ARGUMENT.
 */
int ngp_quic_verify_token(const ngp_quic_header *header,
                          const ngp_quic_addr *addr, const uint8_t *secret,
                          size_t secret_len, uint64_t timeout, uint64_t now);

/* ngp_quic_write_refusal refuses a connection by CONNECTION_CLOSE. */
size_t ngp_quic_write_refusal(uint8_t *dest, const ngp_quic_header *header,
                              uint64_t error_code);

/*
 * ngp_quic_write_stateless_reset answers a packet of |received| bytes for an
 * unknown connection with one that is shorter.
 */
size_t ngp_quic_write_stateless_reset(uint8_t *dest,
                                      const ngp_quic_header *header,
                                      const uint8_t *secret, size_t secret_len,
                                      size_t received);

#endif /* NGP_QUIC_PACKET_H */
