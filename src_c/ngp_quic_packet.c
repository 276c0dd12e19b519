/* SPDX-License-Identifier: MIT */
#include "ngp_quic_packet.h"

#include "ngp_quic_int.h"

#include <string.h>

#include <ngtcp2/ngtcp2_crypto.h>

/* RFC 9000, 17.2: the top bit of a packet with a long header. */
#define LONG_HEADER 0x80

/* The length of the connection id that replaces the client's choice after
   Retry. */
#define RETRY_SCID_LEN 8

/* RFC 9000, 10.3: a stateless reset looks like a packet with a short header,
   has at least this length, and is shorter than the packet that it answers. */
#define MIN_RESET_LEN 21
#define MAX_RESET_LEN 43

int ngp_quic_header_decode(ngp_quic_header *header, const uint8_t *data,
                           size_t len, size_t cid_len) {
  ngtcp2_version_cid vc;
  ngtcp2_pkt_hd hd;
  int rv;

  memset(header, 0, sizeof(*header));
  if (!len || cid_len > NGTCP2_MAX_CIDLEN) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  rv = ngtcp2_pkt_decode_version_cid(&vc, data, len, cid_len);
  if (rv != 0 && rv != NGTCP2_ERR_VERSION_NEGOTIATION) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  header->is_long = (data[0] & LONG_HEADER) != 0;
  header->version = vc.version;
  header->dcid = vc.dcid;
  header->dcid_len = vc.dcidlen;
  header->scid = vc.scid;
  header->scid_len = vc.scidlen;
  if (header->is_long && vc.version && rv == 0 &&
      ngtcp2_accept(&hd, data, len) == 0) {
    header->is_initial = 1;
    header->token = hd.token;
    header->token_len = hd.tokenlen;
    header->is_retry_token =
        hd.tokenlen && hd.token[0] == NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY2;
  }
  return 0;
}

static size_t written(ngtcp2_ssize n) { return n > 0 ? (size_t)n : 0; }

size_t ngp_quic_write_version_negotiation(uint8_t *dest,
                                          const ngp_quic_header *header,
                                          const uint32_t *versions, size_t n) {
  uint8_t random;

  ngp_tls_nonce(&random, 1);
  /* Version 0 is a Version Negotiation packet: two servers would answer each
     other for ever. */
  if (!header->is_long || !header->version) {
    return 0;
  }
  return written(ngtcp2_pkt_write_version_negotiation(
      dest, NGP_QUIC_PACKET_MAX, random, header->scid, header->scid_len,
      header->dcid, header->dcid_len, versions, n));
}

static void get_cids(const ngp_quic_header *header, ngtcp2_cid *dcid,
                     ngtcp2_cid *scid) {
  ngtcp2_cid_init(dcid, header->dcid, header->dcid_len);
  ngtcp2_cid_init(scid, header->scid, header->scid_len);
}

size_t ngp_quic_write_retry(uint8_t *dest, const ngp_quic_header *header,
                            const ngp_quic_addr *addr,
                            const ngp_cid_layout *layout, const uint8_t *secret,
                            size_t secret_len, uint64_t now) {
  uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN2];
  ngtcp2_sockaddr_in6 in6 = ngp_quic_to_sockaddr(addr);
  ngtcp2_cid retry_scid = {.datalen = RETRY_SCID_LEN};
  ngtcp2_cid dcid;
  ngtcp2_cid scid;
  ngtcp2_ssize n;

  if (!header->is_initial ||
      (layout ? ngp_cid_make(layout, &retry_scid)
              : ngp_tls_random(retry_scid.data, retry_scid.datalen)) != 0) {
    return 0;
  }
  get_cids(header, &dcid, &scid);
  n = ngtcp2_crypto_generate_retry_token2(
      token, secret, secret_len, header->version, (const ngtcp2_sockaddr *)&in6,
      sizeof(in6), &retry_scid, &dcid, now);
  if (n < 0) {
    return 0;
  }
  return written(ngtcp2_crypto_write_retry(dest, NGP_QUIC_PACKET_MAX,
                                           header->version, &scid, &retry_scid,
                                           &dcid, token, (size_t)n));
}

int ngp_quic_verify_retry(ngtcp2_cid *podcid, const ngp_quic_header *header,
                          const ngp_quic_addr *addr, const uint8_t *secret,
                          size_t secret_len, uint64_t timeout, uint64_t now) {
  ngtcp2_sockaddr_in6 in6 = ngp_quic_to_sockaddr(addr);
  ngtcp2_cid dcid;

  if (!header->token_len || header->dcid_len > NGTCP2_MAX_CIDLEN) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  ngtcp2_cid_init(&dcid, header->dcid, header->dcid_len);
  return ngtcp2_crypto_verify_retry_token2(
             podcid, header->token, header->token_len, secret, secret_len,
             header->version, (const ngtcp2_sockaddr *)&in6, sizeof(in6), &dcid,
             timeout, now) == 0
             ? 0
             : NGHTTP2_ERR_INVALID_ARGUMENT;
}

size_t ngp_quic_write_token(uint8_t *dest, const ngp_quic_addr *addr,
                            const uint8_t *secret, size_t secret_len,
                            uint64_t now) {
  ngtcp2_sockaddr_in6 in6 = ngp_quic_to_sockaddr(addr);

  return written(ngtcp2_crypto_generate_regular_token(
      dest, secret, secret_len, (const ngtcp2_sockaddr *)&in6, sizeof(in6),
      now));
}

int ngp_quic_verify_token(const ngp_quic_header *header,
                          const ngp_quic_addr *addr, const uint8_t *secret,
                          size_t secret_len, uint64_t timeout, uint64_t now) {
  ngtcp2_sockaddr_in6 in6 = ngp_quic_to_sockaddr(addr);

  if (!header->token_len) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  return ngtcp2_crypto_verify_regular_token(
             header->token, header->token_len, secret, secret_len,
             (const ngtcp2_sockaddr *)&in6, sizeof(in6), timeout, now) == 0
             ? 0
             : NGHTTP2_ERR_INVALID_ARGUMENT;
}

size_t ngp_quic_write_refusal(uint8_t *dest, const ngp_quic_header *header,
                              uint64_t error_code) {
  ngtcp2_cid dcid;
  ngtcp2_cid scid;

  if (!header->is_initial || error_code > NGP_MAX_VARINT) {
    return 0;
  }
  get_cids(header, &dcid, &scid);
  return written(ngtcp2_crypto_write_connection_close(
      dest, NGP_QUIC_PACKET_MAX, header->version, &scid, &dcid, error_code,
      NULL, 0));
}

size_t ngp_quic_write_stateless_reset(uint8_t *dest,
                                      const ngp_quic_header *header,
                                      const uint8_t *secret, size_t secret_len,
                                      size_t received) {
  uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN];
  uint8_t random[MAX_RESET_LEN - NGTCP2_STATELESS_RESET_TOKENLEN];
  size_t len = received - 1 < MAX_RESET_LEN ? received - 1 : MAX_RESET_LEN;
  ngtcp2_cid dcid;

  if (header->is_long || received <= MIN_RESET_LEN ||
      header->dcid_len > NGTCP2_MAX_CIDLEN) {
    return 0;
  }
  ngtcp2_cid_init(&dcid, header->dcid, header->dcid_len);
  if (ngtcp2_crypto_generate_stateless_reset_token(token, secret, secret_len,
                                                   &dcid) != 0) {
    return 0;
  }
  ngp_tls_nonce(random, sizeof(random));
  return written(
      ngtcp2_pkt_write_stateless_reset(dest, NGP_QUIC_PACKET_MAX, token, random,
                                       len - NGTCP2_STATELESS_RESET_TOKENLEN));
}
