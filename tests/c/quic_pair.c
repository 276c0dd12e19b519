/* SPDX-License-Identifier: MIT */
#include "quic_pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#define MILLISECOND ((uint64_t)1000000)

static gnutls_datum_t certificate_pem;
static gnutls_datum_t key_pem;
static ngp_tls_config *shared[2];
static int owners;

/* A certificate for "localhost" that certifies itself.  Signatures with Ed25519
   are all of one length: packets are as long in every run. */
void quic_pair_setup(void) {
  gnutls_x509_privkey_t key;
  gnutls_x509_crt_t crt;
  time_t now = time(NULL);

  gnutls_x509_privkey_init(&key);
  gnutls_x509_crt_init(&crt);
  gnutls_x509_privkey_generate(key, GNUTLS_PK_EDDSA_ED25519,
                               GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_ED25519),
                               0);
  gnutls_x509_crt_set_version(crt, 3);
  gnutls_x509_crt_set_serial(crt, "\1", 1);
  gnutls_x509_crt_set_activation_time(crt, now - 3600);
  gnutls_x509_crt_set_expiration_time(crt, now + 3600);
  gnutls_x509_crt_set_key(crt, key);
  gnutls_x509_crt_set_dn(crt, "CN=localhost", NULL);
  gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, "localhost", 9,
                                       GNUTLS_FSAN_SET);
  gnutls_x509_crt_set_basic_constraints(crt, 1, -1);
  gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA512, 0);
  gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &certificate_pem);
  gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL,
                                    GNUTLS_PKCS_PLAIN, &key_pem);
  gnutls_x509_crt_deinit(crt);
  gnutls_x509_privkey_deinit(key);
}

void quic_pair_teardown(void) {
  ngp_tls_config_decref(shared[0]);
  ngp_tls_config_decref(shared[1]);
  shared[0] = shared[1] = NULL;
  gnutls_free(certificate_pem.data);
  gnutls_free(key_pem.data);
}

int quic_pair_config(ngp_tls_config **pconfig, int is_client,
                     nghttp2_mem *mem) {
  static const ngp_tls_name names[] = {{"*.example", 0}, {"localhost", 0}};
  const ngp_tls_identity identity = {.chain = certificate_pem.data,
                                     .chain_len = certificate_pem.size,
                                     .key = key_pem.data,
                                     .key_len = key_pem.size};
  ngp_tls_options tls;
  const char *reason;

  memset(&tls, 0, sizeof(tls));
  tls.is_client = is_client != 0;
  tls.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:%DISABLE_TLS13_COMPAT_MODE";
  if (is_client) {
    tls.verify = NGP_TLS_VERIFY_REQUIRED;
    tls.remember_chains = 1;
    tls.ca_data = certificate_pem.data;
    tls.ca_data_len = certificate_pem.size;
  } else {
    tls.chain = certificate_pem.data;
    tls.chain_len = certificate_pem.size;
    tls.key = key_pem.data;
    tls.key_len = key_pem.size;
    tls.identities = &identity;
    tls.nidentities = 1;
    tls.names = names;
    tls.nnames = 2;
  }
  return ngp_tls_config_new(pconfig, &tls, mem, &reason);
}

/* Pairs that need no memory of their own share their configurations. */
static int get_config(ngp_tls_config **pconfig, int is_client,
                      nghttp2_mem *mem) {
  int rv = 0;

  if (mem) {
    return quic_pair_config(pconfig, is_client, mem);
  }
  if (!shared[is_client]) {
    rv = quic_pair_config(&shared[is_client], is_client, NULL);
  }
  if (rv == 0) {
    ngp_tls_config_incref(shared[is_client]);
    *pconfig = shared[is_client];
  }
  return rv;
}

static int make_end(quic_pair *pair, int end) {
  static const uint8_t alpn[] = "\4test";
  ngp_quic_options options;
  const char *reason;

  ngp_quic_options_default(&options);
  options.is_client = end == 0;
  options.max_data = options.max_stream_data = 1 << 18;
  options.max_streams_bidi = options.max_streams_uni = 16;
  options.idle_timeout = 5000 * MILLISECOND;
  options.initial_rtt = 20 * MILLISECOND;
  options.max_datagram_frame_size = 1200;
  options.max_datagram_queue = 1 << 16;
  options.versions[0] = NGTCP2_PROTO_VER_V1;
  options.versions[1] = NGTCP2_PROTO_VER_V2;
  options.nversions = 2;
  options.tls_config = pair->configs[end];
  options.tls.alpn = alpn;
  options.tls.alpn_len = 5;
  options.tls.sni = options.tls.verify_name = end == 0 ? "localhost" : NULL;
  options.tls.send_tickets = options.tls.take_tickets = 1;
  options.tls.early_data = 1;
  options.key_log = 1;
  return ngp_quic_new(&pair->ends[end], &options, pair->mem, &reason);
}

int quic_pair_init(quic_pair *pair, nghttp2_mem *mem) {
  int end;
  int rv;

  memset(pair, 0, sizeof(*pair));
  pair->mem = mem;
  pair->now = 1000 * MILLISECOND;
  pair->client_port = 5000;
  for (end = 0; end < 2; ++end) {
    rv = get_config(&pair->configs[end], end == 0, mem);
    if (rv == 0) {
      rv = make_end(pair, end);
    }
    if (rv != 0) {
      quic_pair_free(pair);
      return rv;
    }
  }
  return 0;
}

static void take_owners(ngp_quic *quic) {
  int *owner;

  while ((owner = ngp_quic_take_owner(quic)) != NULL) {
    --*owner;
  }
}

uint64_t quic_pair_sum(uint64_t sum, const uint8_t *data, size_t len) {
  size_t i;

  for (i = 0; i < len; ++i) {
    sum = sum * 31 + data[i];
  }
  return sum;
}

static void give_back(quic_pair *pair, quic_pair_loan *loan) {
  if (loan->store) {
    pair->spoiled += quic_pair_sum(0, loan->data, loan->len) != loan->sum;
    ngp_quic_store_release(loan->store);
    loan->store = NULL;
  }
}

/* Keeps the event's data while a few more events come. */
static void borrow(quic_pair *pair, ngp_quic *quic,
                   const ngp_quic_event *event) {
  quic_pair_loan *loan = &pair->loans[pair->nloans++ % QUIC_PAIR_LOANS];

  give_back(pair, loan);
  *loan = (quic_pair_loan){.store = ngp_quic_lend(quic, event->len),
                           .data = event->data,
                           .len = event->len,
                           .sum = quic_pair_sum(0, event->data, event->len)};
}

void quic_pair_free(quic_pair *pair) {
  size_t i;
  int end;

  for (end = 0; end < 2; ++end) {
    if (pair->ends[end]) {
      ngp_quic_abandon(pair->ends[end]);
      take_owners(pair->ends[end]);
      ngp_quic_del(pair->ends[end]);
    }
    ngp_tls_config_decref(pair->configs[end]);
  }
  /* What is lent outlives the connection. */
  for (i = 0; i < QUIC_PAIR_LOANS; ++i) {
    give_back(pair, &pair->loans[i]);
  }
}

int quic_pair_owners(void) { return owners; }

int quic_pair_send(quic_pair *pair, int end, int64_t stream_id,
                   const uint8_t *data, size_t len, int end_stream) {
  int held = 0;
  /* The first bytes go the way of a frame's header. */
  size_t head_len = len < 3 ? len : 3;
  int rv = ngp_quic_send_framed(pair->ends[end], stream_id, data, head_len,
                                data + head_len, len - head_len, &owners,
                                end_stream, &held);

  if (held) {
    ++owners;
  }
  if (rv == NGHTTP2_ERR_NOMEM) {
    pair->failed = 1;
  }
  return rv;
}

/* Keeps want of memory, the one thing that may go wrong. */
static void keep_result(quic_pair *pair, int rv) {
  if (rv == NGHTTP2_ERR_NOMEM) {
    pair->failed = 1;
  } else if (rv != 0) {
    /* No assert(): builds with optimization leave it out. */
    fprintf(stderr, "a QUIC connection returns %d\n", rv);
    abort();
  }
}

static void take_events(quic_pair *pair, int end) {
  ngp_quic *quic = pair->ends[end];
  ngp_quic_event event;

  take_owners(quic);
  while (ngp_quic_next_report(quic, &event)) {
  }
  while (ngp_quic_next_event(quic, &event)) {
    if (event.type == NGP_QUIC_EVENT_TERMINATED) {
      pair->terminated[end] = 1;
    }
    pair->resets[end] += event.type == NGP_QUIC_EVENT_STREAM_RESET;
    pair->pings[end] += event.type == NGP_QUIC_EVENT_PING_ACKED;
    pair->dgrams[end] += event.type == NGP_QUIC_EVENT_DATAGRAM;
    if (event.type != NGP_QUIC_EVENT_STREAM_DATA) {
      continue;
    }
    pair->received[end] += event.len;
    pair->ended[end] += event.end_stream;
    pair->sum[end] = quic_pair_sum(pair->sum[end], event.data, event.len);
    if (event.len) {
      borrow(pair, quic, &event);
    }
    if (end == 1 && pair->echo) {
      int held;
      int rv = ngp_quic_send_framed(quic, event.stream_id, NULL, 0, event.data,
                                    event.len, NULL, event.end_stream, &held);

      if (rv == NGHTTP2_ERR_NOMEM) {
        pair->failed = 1;
      }
    }
  }
}

static const ngp_quic_addr addrs[2] = {{.ip = {0xfd, [15] = 1}, .port = 5000},
                                       {.ip = {0xfd, [15] = 2}, .port = 443}};

void quic_pair_connect(quic_pair *pair) {
  int rv = ngp_quic_connect(pair->ends[0], &addrs[1], pair->now);

  /* It can be called once. */
  keep_result(pair, rv == NGP_QUIC_ERR_STATE ? 0 : rv);
}

static void carry(quic_pair *pair, int from) {
  const ngp_quic_packet *packets;
  ngp_quic_addr addr = addrs[from];
  size_t n;
  size_t i;

  if (from == 0) {
    addr.port = pair->client_port;
  }
  keep_result(pair, ngp_quic_send(pair->ends[from], pair->now));
  take_events(pair, from);
  packets = ngp_quic_packets(pair->ends[from], &n);
  for (i = 0; i < n; ++i) {
    pair->seed = pair->seed * 1664525u + 1013904223u;
    if ((pair->seed >> 16) % 100 >= pair->loss) {
      keep_result(pair, ngp_quic_recv(pair->ends[!from], packets[i].data,
                                      packets[i].len, &addr, 0, pair->now));
      take_events(pair, !from);
    }
  }
}

void quic_pair_run(quic_pair *pair, int steps) {
  int end;

  while (steps--) {
    carry(pair, 0);
    carry(pair, 1);
    pair->now += MILLISECOND;
    for (end = 0; end < 2; ++end) {
      if (ngp_quic_get_timer(pair->ends[end]) <= pair->now) {
        keep_result(pair, ngp_quic_handle_timer(pair->ends[end], pair->now));
        take_events(pair, end);
      }
    }
  }
}
