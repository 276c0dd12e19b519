/* SPDX-License-Identifier: MIT */
#include "ngp_tls_gnutls.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/ocsp.h>
#include <gnutls/x509.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>

/* How much of a verification error's text is kept: a CONNECTION_CLOSE frame
   with it has to fit in a packet. */
#define REASON_MAX 256

/* The most ALPN protocols of a GnuTLS session. */
#define ALPN_MAX 8

/* TLS 1.3's secrets have at most 48 bytes (SHA-384). */
#define SECRET_MAX 64

/* RFC 8446, 4.2. */
#define EARLY_DATA_EXTENSION 42

/* How long a ClientHello with early data is remembered, in milliseconds: GnuTLS
   accepts no older one (RFC 8446, 8.3).  After this window GnuTLS also restarts
   its count, and refuses the early data of all tickets issued before: so a
   ticket is valid for early data for at least this long. */
#define REPLAY_WINDOW 600000

/* How many are remembered, for two windows; the early data of more are
   refused. */
#define REPLAY_SLOTS 16384
#define REPLAY_PROBES 8

/*
 * replay_slot is a ClientHello with early data that was seen, until it expires.
 */
typedef struct replay_slot {
  uint64_t hash;
  time_t expires;
} replay_slot;

#define DIGEST_LEN 32

/*
 * valid_chain is a chain that was found valid for a name, and from when to
 * when, in seconds of the system's clock, that need not be looked at again.
 */
typedef struct valid_chain {
  uint8_t digest[DIGEST_LEN];
  time_t from;
  time_t until;
} valid_chain;

/*
 * host_name is a name of a server, and the credentials that are used for it,
 * which the configuration owns.
 */
typedef struct host_name {
  char *text; /* owned */
  gnutls_certificate_credentials_t credentials;
} host_name;

struct ngp_tls_config {
  ngp_refs refs;
  nghttp2_mem *mem;
  /* credentials are those of clients that ask for no name of names. */
  gnutls_certificate_credentials_t credentials;
  /* identities has the other credentials, which names refers to. */
  gnutls_certificate_credentials_t *identities;
  size_t nidentities;
  host_name *names;
  size_t nnames;
  gnutls_priority_t priority;
  gnutls_datum_t ticket_key;
  gnutls_anti_replay_t anti_replay;
  /* replays has REPLAY_SLOTS slots of a server; latest_expiry is the latest
     expiry of all, which gives the time of GnuTLS's clock.  Handshakes on
     several threads write them and chains, under lock. */
  pthread_mutex_t lock;
  replay_slot *replays;
  time_t latest_expiry;
  uint8_t is_client;
  uint8_t verify;
  uint8_t remember_chains;
  /* chains has the chain with a digest at the place that the digest's first
     byte gives. */
  valid_chain chains[NGP_TLS_CHAINS];
};

struct ngp_tls {
  /* The session's pointer must point to ref: ngtcp2's helper reads the
     connection from there. */
  ngtcp2_crypto_conn_ref ref;
  ngtcp2_conn *conn;
  ngp_tls_config *config;
  nghttp2_mem *mem;
  gnutls_session_t session;
  ngp_tls_hooks hooks;
  void *user;
  uint8_t resumes;
  uint8_t send_tickets;
  uint8_t alpn_told;
  /* early_allowed is nonzero if the last ticket allows early data: see
     has_early_data(). */
  uint8_t early_allowed;
  char *verify_name;
  uint8_t verify_ip[16];
  size_t verify_ip_len;
  char reason[REASON_MAX];
};

const char *ngp_tls_version(void) { return gnutls_check_version(NULL); }

/* ---- Configuration ---- */

/* The files of trusted certificates of systems: Debian and Alpine; Fedora,
   older and newer; openSUSE; macOS and the BSDs. */
static const char *const trust_files[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

/* GnuTLS knows the file of the system on which it was built.  In a wheel it may
   run on another system, so the first of the files that exists is used
   instead. */
static int load_system_trust(gnutls_certificate_credentials_t credentials,
                             const char **preason) {
  int found = gnutls_certificate_set_x509_system_trust(credentials);
  size_t i;

  for (i = 0; found <= 0 && i < sizeof(trust_files) / sizeof(*trust_files);
       ++i) {
    found = gnutls_certificate_set_x509_trust_file(credentials, trust_files[i],
                                                   GNUTLS_X509_FMT_PEM);
  }
  if (found <= 0) {
    *preason = "this system has no certificates that it trusts: install its "
               "ca-certificates, or certifi, or set cafile";
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  return 0;
}

static int load_trust(gnutls_certificate_credentials_t credentials,
                      const ngp_tls_options *options, const char **preason) {
  gnutls_datum_t data = {.data = (uint8_t *)options->ca_data,
                         .size = (unsigned int)options->ca_data_len};

  if (options->ca_file &&
      gnutls_certificate_set_x509_trust_file(credentials, options->ca_file,
                                             GNUTLS_X509_FMT_PEM) < 0) {
    *preason = "cafile cannot be read as PEM certificates";
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (options->ca_path &&
      gnutls_certificate_set_x509_trust_dir(credentials, options->ca_path,
                                            GNUTLS_X509_FMT_PEM) < 0) {
    *preason = "capath cannot be read as a directory of PEM certificates";
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  if (data.size && gnutls_certificate_set_x509_trust_mem(
                       credentials, &data, GNUTLS_X509_FMT_PEM) <= 0) {
    *preason = "cadata has no PEM certificate";
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  return options->system_trust ? load_system_trust(credentials, preason) : 0;
}

/* Makes credentials from a certificate and its key, if there are any, and from
   what is trusted. */
static int make_credentials(gnutls_certificate_credentials_t *pcredentials,
                            const ngp_tls_identity *own,
                            const ngp_tls_options *options,
                            const char **preason) {
  gnutls_datum_t chain = {.data = (uint8_t *)own->chain,
                          .size = (unsigned int)own->chain_len};
  gnutls_datum_t key = {.data = (uint8_t *)own->key,
                        .size = (unsigned int)own->key_len};

  if (gnutls_certificate_allocate_credentials(pcredentials) != 0) {
    *pcredentials = NULL;
    return NGHTTP2_ERR_NOMEM;
  }
  if (chain.size && key.size &&
      gnutls_certificate_set_x509_key_mem2(*pcredentials, &chain, &key,
                                           GNUTLS_X509_FMT_PEM, own->password,
                                           0) < 0) {
    *preason = "certificate and private_key cannot be used: they are "
               "malformed, do not belong together, or the password is wrong";
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  return load_trust(*pcredentials, options, preason);
}

static int add_identities(ngp_tls_config *config,
                          const ngp_tls_options *options,
                          const char **preason) {
  if (!options->nidentities) {
    return 0;
  }
  config->identities = ngp_calloc(config->mem, options->nidentities,
                                  sizeof(*config->identities));
  if (!config->identities) {
    return NGHTTP2_ERR_NOMEM;
  }
  while (config->nidentities < options->nidentities) {
    size_t i = config->nidentities++;
    int rv = make_credentials(&config->identities[i], &options->identities[i],
                              options, preason);

    if (rv != 0) {
      return rv;
    }
  }
  return 0;
}

static int add_names(ngp_tls_config *config, const ngp_tls_options *options) {
  if (!options->nnames) {
    return 0;
  }
  config->names =
      ngp_calloc(config->mem, options->nnames, sizeof(*config->names));
  if (!config->names) {
    return NGHTTP2_ERR_NOMEM;
  }
  while (config->nnames < options->nnames) {
    const ngp_tls_name *from = &options->names[config->nnames];
    host_name *to = &config->names[config->nnames++];
    size_t len = strlen(from->name) + 1;

    to->text = ngp_malloc(config->mem, len);
    if (!to->text) {
      return NGHTTP2_ERR_NOMEM;
    }
    memcpy(to->text, from->name, len);
    to->credentials = config->identities[from->identity];
  }
  return 0;
}

int ngp_tls_config_validity(const ngp_tls_config *config, size_t i,
                            int64_t *pfrom, int64_t *pto) {
  gnutls_certificate_credentials_t credentials = i ? NULL : config->credentials;
  gnutls_x509_crt_t *list = NULL;
  unsigned int n = 0;
  unsigned int j;

  if (i && i <= config->nidentities) {
    credentials = config->identities[i - 1];
  }
  if (!credentials ||
      gnutls_certificate_get_x509_crt(credentials, 0, &list, &n) != 0) {
    return 0;
  }
  if (n) {
    *pfrom = gnutls_x509_crt_get_activation_time(list[0]);
    *pto = gnutls_x509_crt_get_expiration_time(list[0]);
  }
  for (j = 0; j < n; ++j) {
    gnutls_x509_crt_deinit(list[j]);
  }
  gnutls_free(list);
  return n != 0;
}

/* Finds a slot for a ClientHello with early data; returns 0 if there is none.
   Each may be in a few slots; if others that have not expired use these, the
   early data are refused, and the handshake continues without. */
static int take_replay_slot(ngp_tls_config *config, uint64_t hash,
                            time_t expires) {
  replay_slot *free_slot = NULL;
  time_t now;
  unsigned int i;

  if (expires > config->latest_expiry) {
    config->latest_expiry = expires;
  }
  /* An entry lives for at most two windows, one on each side of now. */
  now = config->latest_expiry - 2 * REPLAY_WINDOW / 1000;
  for (i = 0; i < REPLAY_PROBES; ++i) {
    replay_slot *slot = &config->replays[(hash + i) % REPLAY_SLOTS];

    if (slot->expires > now && slot->hash == hash) {
      return 0;
    }
    if (slot->expires <= now && !free_slot) {
      free_slot = slot;
    }
  }
  if (!free_slot) {
    return 0;
  }
  *free_slot = (replay_slot){.hash = hash, .expires = expires};
  return 1;
}

/* Returns to GnuTLS whether a ClientHello with early data is new. */
static int remember_replay(void *ptr, time_t expires, const gnutls_datum_t *key,
                           const gnutls_datum_t *data) {
  ngp_tls_config *config = ptr;
  uint64_t hash = 0xcbf29ce484222325u;
  unsigned int i;
  int first;

  (void)data;
  /* The key is an HMAC already, so any hash is good enough (FNV-1a). */
  for (i = 0; i < key->size; ++i) {
    hash = (hash ^ key->data[i]) * 0x100000001b3u;
  }
  pthread_mutex_lock(&config->lock);
  first = take_replay_slot(config, hash, expires);
  pthread_mutex_unlock(&config->lock);
  return first ? 0 : GNUTLS_E_DB_ENTRY_EXISTS;
}

static int prepare_tickets(ngp_tls_config *config,
                           const ngp_tls_options *options) {
  if (options->ticket_key) {
    config->ticket_key.data = gnutls_malloc(NGP_TLS_TICKET_KEY_LEN);
    if (!config->ticket_key.data) {
      return NGHTTP2_ERR_NOMEM;
    }
    memcpy(config->ticket_key.data, options->ticket_key,
           NGP_TLS_TICKET_KEY_LEN);
    config->ticket_key.size = NGP_TLS_TICKET_KEY_LEN;
  } else if (gnutls_session_ticket_key_generate(&config->ticket_key) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  config->replays =
      ngp_calloc(config->mem, REPLAY_SLOTS, sizeof(*config->replays));
  if (!config->replays || gnutls_anti_replay_init(&config->anti_replay) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  gnutls_anti_replay_set_window(config->anti_replay, REPLAY_WINDOW);
  gnutls_anti_replay_set_ptr(config->anti_replay, config);
  gnutls_anti_replay_set_add_function(config->anti_replay, remember_replay);
  return 0;
}

static void config_free(ngp_tls_config *config) {
  if (config->anti_replay) {
    gnutls_anti_replay_deinit(config->anti_replay);
  }
  if (config->ticket_key.data) {
    gnutls_memset(config->ticket_key.data, 0, config->ticket_key.size);
    gnutls_free(config->ticket_key.data);
  }
  ngp_free(config->mem, config->replays);
  pthread_mutex_destroy(&config->lock);
  if (config->priority) {
    gnutls_priority_deinit(config->priority);
  }
  while (config->nnames) {
    ngp_free(config->mem, config->names[--config->nnames].text);
  }
  ngp_free(config->mem, config->names);
  while (config->nidentities) {
    gnutls_certificate_credentials_t own =
        config->identities[--config->nidentities];

    if (own) {
      gnutls_certificate_free_credentials(own);
    }
  }
  ngp_free(config->mem, config->identities);
  if (config->credentials) {
    gnutls_certificate_free_credentials(config->credentials);
  }
  ngp_free(config->mem, config);
}

int ngp_tls_config_new(ngp_tls_config **pconfig, const ngp_tls_options *options,
                       nghttp2_mem *mem, const char **preason) {
  ngp_tls_config *config = ngp_calloc(mem, 1, sizeof(*config));
  const ngp_tls_identity own = {.chain = options->chain,
                                .chain_len = options->chain_len,
                                .key = options->key,
                                .key_len = options->key_len,
                                .password = options->password};
  int rv;

  *preason = "out of memory";
  if (!config) {
    return NGHTTP2_ERR_NOMEM;
  }
  /* With default attributes it cannot fail. */
  pthread_mutex_init(&config->lock, NULL);
  config->refs = 1;
  config->mem = mem;
  config->is_client = options->is_client;
  config->verify = options->verify;
  config->remember_chains = options->remember_chains;
  if (gnutls_priority_init(&config->priority, options->priority, NULL) != 0) {
    *preason = "no usable cipher suites";
    rv = NGHTTP2_ERR_INVALID_ARGUMENT;
    goto fail;
  }
  rv = make_credentials(&config->credentials, &own, options, preason);
  if (rv == 0) {
    rv = add_identities(config, options, preason);
  }
  if (rv == 0) {
    rv = add_names(config, options);
  }
  if (rv == 0 && !options->is_client) {
    rv = prepare_tickets(config, options);
  }
  if (rv != 0) {
    goto fail;
  }
  *pconfig = config;
  return 0;

fail:
  config_free(config);
  return rv;
}

void ngp_tls_config_incref(ngp_tls_config *config) {
  ngp_refs_inc(&config->refs);
}

void ngp_tls_config_decref(ngp_tls_config *config) {
  if (config && !ngp_refs_dec(&config->refs)) {
    config_free(config);
  }
}

/* ---- Callbacks of GnuTLS ---- */

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref) {
  return ((ngp_tls *)ref->user_data)->conn;
}

static ngp_tls *tls_of(gnutls_session_t session) {
  ngtcp2_crypto_conn_ref *ref = gnutls_session_get_ptr(session);

  return ref->user_data;
}

/* Whether |asked|, for which a client asks, is |pattern|: see ngp_tls_name. */
static int matches_name(const char *pattern, const char *asked) {
  if (pattern[0] == '*' && pattern[1] == '.') {
    asked = asked[0] == '.' ? NULL : strchr(asked, '.');
    ++pattern;
  }
  return asked && strcasecmp(pattern, asked) == 0;
}

/* Chooses the certificate by the name in the ClientHello. */
static int choose_identity(gnutls_session_t session) {
  ngp_tls *tls = tls_of(session);
  const ngp_tls_config *config = tls->config;
  char asked[256];
  int pass;
  size_t i;

  if (ngp_tls_server_name(tls, asked, sizeof(asked)) != 0) {
    return 0;
  }
  /* A full name has precedence over a pattern. */
  for (pass = 0; pass < 2; ++pass) {
    for (i = 0; i < config->nnames; ++i) {
      const host_name *known = &config->names[i];

      if ((known->text[0] == '*') == pass && matches_name(known->text, asked)) {
        return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE,
                                      known->credentials);
      }
    }
  }
  return 0;
}

/* Whether a NewSessionTicket message has the extension early_data (RFC 8446,
   4.6.1), which GnuTLS does not report. */
static int has_early_data(const uint8_t *p, size_t len) {
  const uint8_t *end;
  size_t n;

  /* Lifetime and age_add, the nonce, the ticket.  An empty message is NULL. */
  if (len < 9 || len < 9 + (size_t)p[8] + 2) {
    return 0;
  }
  end = p + len;
  p += 9 + p[8];
  n = (size_t)p[0] << 8 | p[1];
  if ((size_t)(end - p) < 2 + n + 2) {
    return 0;
  }
  /* The extensions are the rest of the message. */
  for (p += 2 + n + 2; end - p >= 4; p += 4 + n) {
    n = (size_t)p[2] << 8 | p[3];
    if (p[0] == 0 && p[1] == EARLY_DATA_EXTENSION) {
      return 1;
    }
    if ((size_t)(end - p) < 4 + n) {
      return 0;
    }
  }
  return 0;
}

static int take_ticket(ngp_tls *tls) {
  gnutls_datum_t data;
  int rv;

  if (gnutls_session_get_data2(tls->session, &data) != 0) {
    return 0;
  }
  rv = tls->hooks.ticket_received(tls->user, data.data, data.size);
  gnutls_memset(data.data, 0, data.size);
  gnutls_free(data.data);
  return rv;
}

static int handshake_hook(gnutls_session_t session, unsigned int htype,
                          unsigned int when, unsigned int incoming,
                          const gnutls_datum_t *msg) {
  ngp_tls *tls = tls_of(session);
  gnutls_datum_t alpn = {.data = NULL, .size = 0};
  int decided;

  if (when != GNUTLS_HOOK_POST) {
    /* Reading consumes bytes of the message. */
    if (incoming && htype == GNUTLS_HANDSHAKE_NEW_SESSION_TICKET) {
      tls->early_allowed = has_early_data(msg->data, msg->size) ? 1 : 0;
    }
    return 0;
  }
  if (!incoming) {
    return htype == GNUTLS_HANDSHAKE_NEW_SESSION_TICKET &&
                   tls->hooks.ticket_sent(tls->user, msg->data, msg->size)
               ? GNUTLS_E_MEMORY_ERROR
               : 0;
  }
  if (htype == GNUTLS_HANDSHAKE_NEW_SESSION_TICKET && tls->config->is_client) {
    return take_ticket(tls) ? GNUTLS_E_MEMORY_ERROR : 0;
  }
  /* At a client the hook is called before GnuTLS has read the
     EncryptedExtensions: ALPN is decided at the message after them.  A
     ClientHello comes twice if the first had no usable key share. */
  decided = tls->config->is_client
                ? htype != GNUTLS_HANDSHAKE_SERVER_HELLO &&
                      htype != GNUTLS_HANDSHAKE_ENCRYPTED_EXTENSIONS
                : htype == GNUTLS_HANDSHAKE_CLIENT_HELLO;
  if (decided && !tls->alpn_told) {
    tls->alpn_told = 1;
    gnutls_alpn_get_selected_protocol(session, &alpn);
    return tls->hooks.alpn_decided(tls->user, alpn.data, alpn.size)
               ? GNUTLS_E_MEMORY_ERROR
               : 0;
  }
  return 0;
}

static int hash_sized(gnutls_hash_hd_t hash, const void *data, size_t len) {
  const uint64_t size = len;

  return gnutls_hash(hash, &size, sizeof(size)) != 0 ||
         (len && gnutls_hash(hash, data, len) != 0);
}

/* Computes the digest of all that the result of a verification depends on but
   the configuration and the time.  Returns nonzero if it cannot. */
static int digest_peer(const ngp_tls *tls, uint8_t *digest) {
  const char *name = tls->verify_name;
  gnutls_hash_hd_t hash;
  unsigned int n = 0;
  unsigned int i;
  const gnutls_datum_t *list = gnutls_certificate_get_peers(tls->session, &n);
  int failed = 0;

  if (!list || !n || gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) != 0) {
    return -1;
  }
  failed |= hash_sized(hash, name, name ? strlen(name) : 0);
  failed |= hash_sized(hash, tls->verify_ip, tls->verify_ip_len);
  for (i = 0; i < n; ++i) {
    gnutls_datum_t response = {.data = NULL, .size = 0};

    failed |= hash_sized(hash, list[i].data, list[i].size);
    if (gnutls_ocsp_status_request_get2(tls->session, i, &response) != 0) {
      response.size = 0;
    }
    failed |= hash_sized(hash, response.data, response.size);
  }
  gnutls_hash_deinit(hash, digest);
  return failed;
}

/* Returns the first expiry of a certificate of the peer and of those that we
   have of their issuers, or 0. */
static time_t first_expiry(const ngp_tls *tls) {
  unsigned int n = 0;
  unsigned int i;
  const gnutls_datum_t *list = gnutls_certificate_get_peers(tls->session, &n);
  time_t first = 0;

  for (i = 0; i < n; ++i) {
    gnutls_x509_crt_t crt;
    gnutls_x509_crt_t issuer;
    time_t expiry = 0;

    if (gnutls_x509_crt_init(&crt) != 0) {
      return 0;
    }
    if (gnutls_x509_crt_import(crt, &list[i], GNUTLS_X509_FMT_DER) == 0) {
      expiry = gnutls_x509_crt_get_expiration_time(crt);
      if (gnutls_certificate_get_issuer(tls->config->credentials, crt, &issuer,
                                        0) == 0) {
        time_t last = gnutls_x509_crt_get_expiration_time(issuer);

        expiry = last < expiry ? last : expiry;
      }
    }
    gnutls_x509_crt_deinit(crt);
    if (expiry <= 0) {
      return 0;
    }
    first = !first || expiry < first ? expiry : first;
  }
  return first;
}

static int is_remembered(ngp_tls_config *config, const uint8_t *digest) {
  const valid_chain *chain = &config->chains[digest[0] % NGP_TLS_CHAINS];
  const time_t now = time(NULL);
  int found;

  pthread_mutex_lock(&config->lock);
  found = chain->from <= now && now < chain->until &&
          memcmp(chain->digest, digest, DIGEST_LEN) == 0;
  pthread_mutex_unlock(&config->lock);
  return found;
}

static void remember_chain(ngp_tls *tls, const uint8_t *digest) {
  ngp_tls_config *config = tls->config;
  valid_chain *chain = &config->chains[digest[0] % NGP_TLS_CHAINS];
  const time_t now = time(NULL);
  const time_t expiry = first_expiry(tls);

  pthread_mutex_lock(&config->lock);
  memcpy(chain->digest, digest, DIGEST_LEN);
  chain->from = now;
  chain->until = now + NGP_TLS_CHAIN_TIME;
  if (expiry < chain->until) {
    chain->until = expiry;
  }
  pthread_mutex_unlock(&config->lock);
}

static int verify_peer(gnutls_session_t session) {
  ngp_tls *tls = tls_of(session);
  gnutls_typed_vdata_st data[2];
  unsigned int n = 0;
  unsigned int status = 0;
  gnutls_datum_t text;
  uint8_t digest[DIGEST_LEN];
  int remembers;
  int rv;

  if (tls->config->verify == NGP_TLS_VERIFY_NONE) {
    return 0;
  }
  remembers = tls->config->remember_chains && digest_peer(tls, digest) == 0;
  if (remembers && is_remembered(tls->config, digest)) {
    return 0;
  }
  if (tls->verify_name) {
    data[n].type = GNUTLS_DT_DNS_HOSTNAME;
    data[n].data = (uint8_t *)tls->verify_name;
    data[n++].size = 0;
  } else if (tls->verify_ip_len) {
    data[n].type = GNUTLS_DT_IP_ADDRESS;
    data[n].data = tls->verify_ip;
    data[n++].size = (unsigned int)tls->verify_ip_len;
  }
  data[n].type = GNUTLS_DT_KEY_PURPOSE_OID;
  data[n].data = (uint8_t *)(tls->config->is_client ? GNUTLS_KP_TLS_WWW_SERVER
                                                    : GNUTLS_KP_TLS_WWW_CLIENT);
  data[n++].size = 0;
  rv = gnutls_certificate_verify_peers(session, data, n, &status);
  if (rv == GNUTLS_E_NO_CERTIFICATE_FOUND && !tls->config->is_client &&
      tls->config->verify == NGP_TLS_VERIFY_OPTIONAL) {
    return 0;
  }
  if (rv == 0 && status == 0) {
    if (remembers) {
      remember_chain(tls, digest);
    }
    return 0;
  }
  if (rv != 0) {
    snprintf(tls->reason, REASON_MAX, "%s", gnutls_strerror(rv));
    return GNUTLS_E_CERTIFICATE_ERROR;
  }
  if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509,
                                                   &text, 0) == 0) {
    size_t len = text.size < REASON_MAX ? text.size : REASON_MAX - 1;

    memcpy(tls->reason, text.data, len);
    /* GnuTLS's text ends with a NUL and a blank. */
    while (len && (!tls->reason[len - 1] || tls->reason[len - 1] == ' ')) {
      --len;
    }
    tls->reason[len] = '\0';
    gnutls_free(text.data);
  }
  return GNUTLS_E_CERTIFICATE_ERROR;
}

static size_t write_hex(char *dest, const uint8_t *data, size_t len) {
  static const char digits[] = "0123456789abcdef";
  size_t i;

  for (i = 0; i < len; ++i) {
    dest[2 * i] = digits[data[i] >> 4];
    dest[2 * i + 1] = digits[data[i] & 15];
  }
  return 2 * len;
}

static int keylog(gnutls_session_t session, const char *label,
                  const gnutls_datum_t *secret) {
  ngp_tls *tls = tls_of(session);
  gnutls_datum_t client;
  gnutls_datum_t server;
  /* A label, the client random of 32 bytes, the secret, and blanks. */
  char line[64 + 2 * 32 + 2 * SECRET_MAX + 4];
  size_t n = strlen(label);
  int rv;

  gnutls_session_get_random(session, &client, &server);
  if (n > 64 || client.size > 32 || secret->size > SECRET_MAX) {
    return 0;
  }
  memcpy(line, label, n);
  line[n++] = ' ';
  n += write_hex(line + n, client.data, client.size);
  line[n++] = ' ';
  n += write_hex(line + n, secret->data, secret->size);
  line[n++] = '\n';
  rv = tls->hooks.key_logged(tls->user, line, n);
  gnutls_memset(line, 0, sizeof(line));
  return rv ? GNUTLS_E_MEMORY_ERROR : 0;
}

/* ---- Sessions ---- */

static int to_error(int rv) {
  return rv >= 0                       ? 0
         : rv == GNUTLS_E_MEMORY_ERROR ? NGHTTP2_ERR_NOMEM
                                       : NGHTTP2_ERR_INVALID_ARGUMENT;
}

static int set_alpn(ngp_tls *tls, const uint8_t *list, size_t len) {
  gnutls_datum_t protocols[ALPN_MAX];
  unsigned int n = 0;
  size_t pos = 0;

  if (!len) {
    return 0;
  }
  while (pos < len) {
    size_t size = list[pos++];

    if (!size || size > len - pos || n == ALPN_MAX) {
      return NGHTTP2_ERR_INVALID_ARGUMENT;
    }
    protocols[n].data = (uint8_t *)&list[pos];
    protocols[n++].size = (unsigned int)size;
    pos += size;
  }
  /* GnuTLS accepts names of at most 32 bytes. */
  return to_error(gnutls_alpn_set_protocols(
      tls->session, protocols, n,
      tls->config->is_client
          ? 0
          : GNUTLS_ALPN_MANDATORY | GNUTLS_ALPN_SERVER_PRECEDENCE));
}

static int start_client(ngp_tls *tls, const ngp_tls_session_options *options) {
  if (ngtcp2_crypto_gnutls_configure_client_session(tls->session) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  if (options->sni &&
      gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS, options->sni,
                             strlen(options->sni)) != 0) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  /* A session that cannot be read is not resumed, which is no error. */
  if (options->session_len &&
      gnutls_session_set_data(tls->session, options->session,
                              options->session_len) == 0) {
    tls->resumes = 1;
  }
  return 0;
}

static int start_server(ngp_tls *tls, const ngp_tls_session_options *options) {
  if (ngtcp2_crypto_gnutls_configure_server_session(tls->session) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  if (tls->config->nnames) {
    gnutls_handshake_set_post_client_hello_function(tls->session,
                                                    choose_identity);
  }
  if (options->take_tickets) {
    if (gnutls_session_ticket_enable_server(tls->session,
                                            &tls->config->ticket_key) != 0) {
      return NGHTTP2_ERR_NOMEM;
    }
    /* RFC 9001, 4.6.1: QUIC limits early data by flow control, and tickets must
       contain this number. */
    if (options->early_data) {
      gnutls_record_set_max_early_data_size(tls->session, 0xffffffffu);
      gnutls_anti_replay_enable(tls->session, tls->config->anti_replay);
    }
    tls->send_tickets = options->send_tickets;
  }
  gnutls_certificate_server_set_request(
      tls->session,
      tls->config->verify == NGP_TLS_VERIFY_REQUIRED   ? GNUTLS_CERT_REQUIRE
      : tls->config->verify == NGP_TLS_VERIFY_OPTIONAL ? GNUTLS_CERT_REQUEST
                                                       : GNUTLS_CERT_IGNORE);
  return 0;
}

int ngp_tls_new(ngp_tls **ptls, ngp_tls_config *config,
                const ngp_tls_session_options *options, nghttp2_mem *mem) {
  ngp_tls *tls = ngp_calloc(mem, 1, sizeof(*tls));
  unsigned int flags = GNUTLS_NO_END_OF_EARLY_DATA;
  int rv = NGHTTP2_ERR_NOMEM;

  if (!tls) {
    return NGHTTP2_ERR_NOMEM;
  }
  if (options->early_data) {
    flags |= GNUTLS_ENABLE_EARLY_DATA;
  }
  tls->mem = mem;
  tls->hooks = options->hooks;
  tls->user = options->user;
  tls->ref = (ngtcp2_crypto_conn_ref){.get_conn = get_conn, .user_data = tls};
  tls->config = config;
  ngp_tls_config_incref(config);
  if (options->verify_name) {
    size_t len = strlen(options->verify_name) + 1;

    tls->verify_name = ngp_malloc(mem, len);
    if (!tls->verify_name) {
      goto fail;
    }
    memcpy(tls->verify_name, options->verify_name, len);
  }
  if (options->verify_ip_len) {
    if (options->verify_ip_len != 4 && options->verify_ip_len != 16) {
      rv = NGHTTP2_ERR_INVALID_ARGUMENT;
      goto fail;
    }
    memcpy(tls->verify_ip, options->verify_ip, options->verify_ip_len);
    tls->verify_ip_len = options->verify_ip_len;
  }
  /* One key share, of X25519, which nearly every server supports: a second
     would be computed for nothing in each handshake.  A server without it asks
     for another (RFC 8446, 4.1.4). */
  flags |= config->is_client ? GNUTLS_CLIENT | GNUTLS_KEY_SHARE_TOP
                             : GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET;
  if (gnutls_init(&tls->session, flags) != 0) {
    goto fail;
  }
  gnutls_session_set_ptr(tls->session, &tls->ref);
  gnutls_handshake_set_hook_function(tls->session, GNUTLS_HANDSHAKE_ANY,
                                     GNUTLS_HOOK_BOTH, handshake_hook);
  gnutls_session_set_verify_function(tls->session, verify_peer);
  if (tls->hooks.key_logged) {
    gnutls_session_set_keylog_function(tls->session, keylog);
  }
  if (gnutls_priority_set(tls->session, config->priority) != 0 ||
      gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE,
                             config->credentials) != 0) {
    goto fail;
  }
  rv = config->is_client ? start_client(tls, options)
                         : start_server(tls, options);
  if (rv == 0) {
    rv = set_alpn(tls, options->alpn, options->alpn_len);
  }
  if (rv != 0) {
    goto fail;
  }
  *ptls = tls;
  return 0;

fail:
  ngp_tls_del(tls);
  return rv;
}

void ngp_tls_del(ngp_tls *tls) {
  if (!tls) {
    return;
  }
  if (tls->session) {
    gnutls_deinit(tls->session);
  }
  ngp_free(tls->mem, tls->verify_name);
  ngp_tls_config_decref(tls->config);
  ngp_free(tls->mem, tls);
}

void ngp_tls_attach(ngp_tls *tls, ngtcp2_conn *conn) {
  tls->conn = conn;
  ngtcp2_conn_set_tls_native_handle(conn, tls->session);
}

int ngp_tls_send_ticket(ngp_tls *tls) {
  if (!tls->send_tickets) {
    return 0;
  }
  return gnutls_session_ticket_send(tls->session, 1, 0) == 0
             ? 0
             : NGHTTP2_ERR_NOMEM;
}

int ngp_tls_allows_early_data(const ngp_tls *tls) { return tls->early_allowed; }

void ngp_tls_describe_alert(uint8_t alert, char *dest, size_t len) {
  const char *name = gnutls_alert_get_name((gnutls_alert_description_t)alert);

  snprintf(dest, len, "TLS handshake failed%s%s", name ? ": " : "",
           name ? name : "");
}

int ngp_tls_resumes(const ngp_tls *tls) { return tls->resumes; }

int ngp_tls_session_resumed(const ngp_tls *tls) {
  return gnutls_session_is_resumed(tls->session) != 0;
}

int ngp_tls_early_data_accepted(const ngp_tls *tls) {
  return (gnutls_session_get_flags(tls->session) & GNUTLS_SFLAGS_EARLY_DATA) !=
         0;
}

uint16_t ngp_tls_cipher_suite(const ngp_tls *tls) {
  switch (gnutls_cipher_get(tls->session)) {
  case GNUTLS_CIPHER_AES_128_GCM:
    return 0x1301;
  case GNUTLS_CIPHER_AES_256_GCM:
    return 0x1302;
  case GNUTLS_CIPHER_CHACHA20_POLY1305:
    return 0x1303;
  case GNUTLS_CIPHER_AES_128_CCM:
    return 0x1304;
  default:
    return 0;
  }
}

int ngp_tls_server_name(const ngp_tls *tls, char *dest, size_t len) {
  unsigned int type;

  return gnutls_server_name_get(tls->session, dest, &len, &type, 0) == 0 &&
                 type == GNUTLS_NAME_DNS
             ? 0
             : -1;
}

const uint8_t *ngp_tls_peer_certificate(const ngp_tls *tls, size_t i,
                                        size_t *plen) {
  unsigned int n = 0;
  const gnutls_datum_t *list = gnutls_certificate_get_peers(tls->session, &n);

  if (!list || i >= n) {
    return NULL;
  }
  *plen = list[i].size;
  return list[i].data;
}

const uint8_t *ngp_tls_own_certificate(const ngp_tls *tls, size_t *plen) {
  const gnutls_datum_t *own = gnutls_certificate_get_ours(tls->session);

  if (!own) {
    return NULL;
  }
  *plen = own->size;
  return own->data;
}

const char *ngp_tls_reason(const ngp_tls *tls) { return tls->reason; }

int ngp_tls_random(void *dest, size_t len) {
  return gnutls_rnd(GNUTLS_RND_RANDOM, dest, len);
}

void ngp_tls_nonce(void *dest, size_t len) {
  /* It fails only if the random generator is unusable; nothing else would
     work then, either. */
  (void)gnutls_rnd(GNUTLS_RND_NONCE, dest, len);
}

/* A handle of GnuTLS, which has no ECB: CBC of one block with an initialization
   vector of zeros is the same. */
static uint8_t no_iv[16];

int ngp_tls_aes_new(ngp_tls_aes **paes, const uint8_t *key) {
  gnutls_datum_t secret = {(unsigned char *)(uintptr_t)key, 16};
  gnutls_datum_t iv = {no_iv, sizeof(no_iv)};
  gnutls_cipher_hd_t handle;
  int rv = gnutls_cipher_init(&handle, GNUTLS_CIPHER_AES_128_CBC, &secret, &iv);

  if (rv == 0) {
    *paes = (ngp_tls_aes *)handle;
  }
  return rv;
}

void ngp_tls_aes_del(ngp_tls_aes *aes) {
  gnutls_cipher_deinit((gnutls_cipher_hd_t)aes);
}

int ngp_tls_aes_encrypt(ngp_tls_aes *aes, uint8_t *block) {
  gnutls_cipher_set_iv((gnutls_cipher_hd_t)aes, no_iv, sizeof(no_iv));
  return gnutls_cipher_encrypt((gnutls_cipher_hd_t)aes, block, 16);
}

int ngp_tls_aes_decrypt(ngp_tls_aes *aes, uint8_t *block) {
  gnutls_cipher_set_iv((gnutls_cipher_hd_t)aes, no_iv, sizeof(no_iv));
  return gnutls_cipher_decrypt((gnutls_cipher_hd_t)aes, block, 16);
}
