/*
 * TLS 1.3 for QUIC by GnuTLS: the only file that knows GnuTLS.
 * SPDX-License-Identifier: MIT
 */
#ifndef NGP_TLS_GNUTLS_H
#define NGP_TLS_GNUTLS_H

#include "ngp.h"

#include <ngtcp2/ngtcp2.h>

/* ngp_tls_version returns the release of GnuTLS in use. */
const char *ngp_tls_version(void);

/*
 * ngp_tls_verify is how the peer's certificate is checked.
 */
typedef enum ngp_tls_verify {
  NGP_TLS_VERIFY_NONE,
  /* A server asks for a certificate, and checks it if there is one. */
  NGP_TLS_VERIFY_OPTIONAL,
  NGP_TLS_VERIFY_REQUIRED
} ngp_tls_verify;

#define NGP_TLS_TICKET_KEY_LEN 64

/*
 * ngp_tls_identity is a certificate with its key, for servers that have
 * several.
 */
typedef struct ngp_tls_identity {
  const uint8_t *chain;
  size_t chain_len;
  const uint8_t *key;
  size_t key_len;
  const char *password;
} ngp_tls_identity;

/*
 * ngp_tls_name is a name for which a client may ask.
 */
typedef struct ngp_tls_name {
  /* name is a DNS name; in one that begins with "*.", that stands for any first
     label (RFC 9525, 6.3). */
  const char *name;
  /* identity is the index of its identity. */
  size_t identity;
} ngp_tls_name;

/*
 * ngp_tls_options has the options that connections share.  Everything is
 * borrowed for the call of ngp_tls_config_new().
 */
typedef struct ngp_tls_options {
  uint8_t is_client;
  uint8_t verify;
  /* system_trust is nonzero to trust the system's authorities.  If there are
     none, ngp_tls_config_new() fails. */
  uint8_t system_trust;
  /* priority is GnuTLS's priority string. */
  const char *priority;
  /* chain and key are PEM, or NULL.  chain begins with our own certificate. */
  const uint8_t *chain;
  size_t chain_len;
  const uint8_t *key;
  size_t key_len;
  /* password decrypts key, or is NULL. */
  const char *password;
  /* identities are used instead for names (RFC 6066, 3). */
  const ngp_tls_identity *identities;
  size_t nidentities;
  const ngp_tls_name *names;
  size_t nnames;
  /* ca_file and ca_path are names, ca_data is PEM; each may be NULL. */
  const char *ca_file;
  const char *ca_path;
  const uint8_t *ca_data;
  size_t ca_data_len;
  /* remember_chains is nonzero if a chain that was verified is not verified
     again for the same name, for a time: see ngp_tls_config. */
  uint8_t remember_chains;
  /* ticket_key encrypts a server's session tickets: NGP_TLS_TICKET_KEY_LEN
     bytes, or NULL for random ones. */
  const uint8_t *ticket_key;
} ngp_tls_options;

/*
 * ngp_tls_config has certificates, trusted authorities and the key of a
 * server's session tickets.  It is reference-counted, and sessions hold it.
 * Sessions on several threads may share it: it does not change but for what a
 * lock guards.
 *
 * If the options ask for it, it remembers the last NGP_TLS_CHAINS chains of
 * certificates that were found valid, as a digest of the chain, of the OCSP
 * responses that came with it, and of the name.  The same is found valid
 * without another look for NGP_TLS_CHAIN_TIME seconds, but never after the
 * first expiry of a certificate of the chain.
 */
typedef struct ngp_tls_config ngp_tls_config;

#define NGP_TLS_CHAINS 64
#define NGP_TLS_CHAIN_TIME 600

/*
 * ngp_tls_config_new makes a configuration.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM, or
 * NGHTTP2_ERR_INVALID_ARGUMENT, and then |*preason| is a static text.
 */
int ngp_tls_config_new(ngp_tls_config **pconfig, const ngp_tls_options *options,
                       nghttp2_mem *mem, const char **preason);

/*
 * ngp_tls_config_validity stores from when to when, in seconds since 1970, our
 * |i|-th certificate is valid.  It returns 0 if there is none.
 */
int ngp_tls_config_validity(const ngp_tls_config *config, size_t i,
                            int64_t *pfrom, int64_t *pto);

void ngp_tls_config_incref(ngp_tls_config *config);
/* |config| may be NULL. */
void ngp_tls_config_decref(ngp_tls_config *config);

/*
 * ngp_tls_hooks has the functions that a session calls.  They run inside the
 * library's callbacks, so they only record.  They return 0, or
 * NGHTTP2_ERR_NOMEM.
 */
typedef struct ngp_tls_hooks {
  /* alpn_decided is called once; |len| is 0 if there is no protocol. */
  int (*alpn_decided)(void *user, const uint8_t *alpn, size_t len);
  /* ticket_received is called with the data that resume the session. */
  int (*ticket_received)(void *user, const uint8_t *data, size_t len);
  /* ticket_sent is called with a server's NewSessionTicket message (RFC 8446,
     4.6.1). */
  int (*ticket_sent)(void *user, const uint8_t *message, size_t len);
  /* key_logged is called with a line of the NSS key log, or is NULL. */
  int (*key_logged)(void *user, const char *line, size_t len);
} ngp_tls_hooks;

/*
 * ngp_tls_session_options has the options of one session.  Everything but
 * |user| is borrowed for the call of ngp_tls_new().
 */
typedef struct ngp_tls_session_options {
  /* alpn is a list of |alpn_len| bytes, each name after its length. */
  const uint8_t *alpn;
  size_t alpn_len;
  /* sni is the name of a client's SNI, or NULL. */
  const char *sni;
  /* verify_name is a DNS name, verify_ip 4 or 16 bytes of an address: the
     certificate must be for it.  At most one of them is set. */
  const char *verify_name;
  const uint8_t *verify_ip;
  size_t verify_ip_len;
  /* session is the data of an earlier ticket_received, or NULL. */
  const uint8_t *session;
  size_t session_len;
  /* take_tickets is nonzero for a server that resumes sessions by tickets, and
     send_tickets for one that issues them, too: GnuTLS cannot issue tickets
     without accepting them. */
  uint8_t send_tickets;
  uint8_t take_tickets;
  /* early_data is nonzero for a server that accepts early data and whose
     tickets allow it, and for a client that sends it. */
  uint8_t early_data;
  ngp_tls_hooks hooks;
  void *user;
} ngp_tls_session_options;

/*
 * ngp_tls is the TLS half of one connection.
 */
typedef struct ngp_tls ngp_tls;

/*
 * ngp_tls_new makes a session, which holds |config|.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM, or
 * NGHTTP2_ERR_INVALID_ARGUMENT.
 */
int ngp_tls_new(ngp_tls **ptls, ngp_tls_config *config,
                const ngp_tls_session_options *options, nghttp2_mem *mem);

void ngp_tls_del(ngp_tls *tls);

/*
 * ngp_tls_attach makes |tls| the TLS of |conn|, which must be deleted before
 * |tls| is.
 */
void ngp_tls_attach(ngp_tls *tls, ngtcp2_conn *conn);

/* ngp_tls_send_ticket queues a session ticket, after the handshake, if the
   session issues them. */
int ngp_tls_send_ticket(ngp_tls *tls);

/* ngp_tls_allows_early_data is nonzero at a client if the ticket that has just
   been received allows early data. */
int ngp_tls_allows_early_data(const ngp_tls *tls);

/* ngp_tls_describe_alert writes a text for an alert that has ended a handshake
   to |dest|, which has |len| bytes. */
void ngp_tls_describe_alert(uint8_t alert, char *dest, size_t len);

/* ngp_tls_resumes is nonzero if the session was made to resume an earlier
   one. */
int ngp_tls_resumes(const ngp_tls *tls);

/* These return the results of the handshake, which must be complete. */
int ngp_tls_session_resumed(const ngp_tls *tls);
int ngp_tls_early_data_accepted(const ngp_tls *tls);

/* ngp_tls_cipher_suite returns the number of the cipher suite (RFC 8446, B.4),
   or 0. */
uint16_t ngp_tls_cipher_suite(const ngp_tls *tls);

/* ngp_tls_server_name copies the name in a client's SNI, with a NUL, to |dest|,
   which has |len| bytes.  It returns 0, or -1 if there is none or it does not
   fit. */
int ngp_tls_server_name(const ngp_tls *tls, char *dest, size_t len);

/*
 * ngp_tls_peer_certificate returns the |i|-th certificate of the peer's chain
 * as DER, borrowed from |tls|, or NULL.
 */
const uint8_t *ngp_tls_peer_certificate(const ngp_tls *tls, size_t i,
                                        size_t *plen);

/*
 * ngp_tls_own_certificate returns our own certificate as DER, as it was sent in
 * the handshake, borrowed from |tls|, or NULL.
 */
const uint8_t *ngp_tls_own_certificate(const ngp_tls *tls, size_t *plen);

/* ngp_tls_reason explains a failure; it is borrowed from |tls|. */
const char *ngp_tls_reason(const ngp_tls *tls);

/* ngp_tls_random fills |dest| with bytes that cannot be guessed.  It returns 0,
   or a negative code if the generator fails. */
int ngp_tls_random(void *dest, size_t len);

/* ngp_tls_nonce fills |dest| with bytes that need not be secret. */
void ngp_tls_nonce(void *dest, size_t len);

/* ngp_tls_aes is AES-128 for single blocks of 16 bytes (ECB). */
typedef struct ngp_tls_aes ngp_tls_aes;

/*
 * ngp_tls_aes_new makes a cipher with a key of 16 bytes.  It returns 0, or a
 * negative code if there is none.
 */
int ngp_tls_aes_new(ngp_tls_aes **paes, const uint8_t *key);

void ngp_tls_aes_del(ngp_tls_aes *aes);

/* ngp_tls_aes_encrypt encrypts a block in place.  It returns 0, or a negative
   code if the cipher fails. */
int ngp_tls_aes_encrypt(ngp_tls_aes *aes, uint8_t *block);

/* ngp_tls_aes_decrypt decrypts a block in the same way. */
int ngp_tls_aes_decrypt(ngp_tls_aes *aes, uint8_t *block);

#endif /* NGP_TLS_GNUTLS_H */
