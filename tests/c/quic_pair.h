/*
 * Two QUIC connections and a network between them that loses what it likes.
 * SPDX-License-Identifier: MIT
 */
#ifndef QUIC_PAIR_H
#define QUIC_PAIR_H

#include "ngp_quic.h"

#define QUIC_PAIR_LOANS 5

/* A loan is the data of an event that a program keeps. */
typedef struct quic_pair_loan {
  ngp_quic_store *store;
  const uint8_t *data;
  size_t len;
  uint64_t sum;
} quic_pair_loan;

/* ends[0] is the client.  received counts the stream bytes of each end, ended
   the streams that came to their end, and sum adds up the bytes; pings are
   those of its own that were acknowledged. */
typedef struct quic_pair {
  ngp_quic *ends[2];
  ngp_tls_config *configs[2];
  nghttp2_mem *mem;
  uint64_t now;
  uint64_t received[2];
  uint64_t sum[2];
  int ended[2];
  int resets[2];
  int pings[2];
  int dgrams[2];
  int terminated[2];
  /* client_port is the port that the server sees. */
  uint16_t client_port;
  /* echo is nonzero to have the server send back what it gets. */
  int echo;
  /* loss is how many of 100 datagrams get lost, by |seed|. */
  uint32_t loss;
  uint32_t seed;
  /* loans are the last events' of both ends; spoiled counts those that were not
     the same when they were given back. */
  quic_pair_loan loans[QUIC_PAIR_LOANS];
  size_t nloans;
  int spoiled;
  /* failed is nonzero once a function had no memory. */
  int failed;
} quic_pair;

/* Makes certificates; once a program. */
void quic_pair_setup(void);
void quic_pair_teardown(void);

/* Makes what the ends share: a client's configuration, which trusts the
   certificate, or a server's, which has it and makes a key of its own for
   tickets. */
int quic_pair_config(ngp_tls_config **pconfig, int is_client, nghttp2_mem *mem);

/* Returns 0, or the error of ngp_quic_new(); then there is nothing to free. */
int quic_pair_init(quic_pair *pair, nghttp2_mem *mem);
void quic_pair_free(quic_pair *pair);

/* Adds up bytes, from |sum| on. */
uint64_t quic_pair_sum(uint64_t sum, const uint8_t *data, size_t len);

void quic_pair_connect(quic_pair *pair);

/* Lets time pass, |steps| milliseconds of it. */
void quic_pair_run(quic_pair *pair, int steps);

/* Sends bytes that the program keeps, with an owner that is counted. */
int quic_pair_send(quic_pair *pair, int end, int64_t stream_id,
                   const uint8_t *data, size_t len, int end_stream);

/* How many owners are held. */
int quic_pair_owners(void);

#endif /* QUIC_PAIR_H */
