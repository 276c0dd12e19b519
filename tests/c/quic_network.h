/*
 * A network between two ends that loses, repeats, reorders, damages and delays
 * datagrams: the same ones for the same seed.  SPDX-License-Identifier: MIT
 */
#ifndef QUIC_NETWORK_H
#define QUIC_NETWORK_H

#include "ngp_quic.h"

/* Numbers that look random and depend on the seed alone. */
typedef struct quic_random {
  uint64_t state;
} quic_random;

uint32_t quic_random_next(quic_random *random);
/* From 0 to |n| - 1. */
uint32_t quic_random_below(quic_random *random, uint32_t n);
/* From |low| to |high|. */
uint64_t quic_random_between(quic_random *random, uint64_t low, uint64_t high);
/* True |percent| times of 100. */
int quic_random_chance(quic_random *random, uint32_t percent);

/* quic_way is what may happen to datagrams in one direction. */
typedef struct quic_way {
  /* Chances of 100. */
  uint32_t loss;
  uint32_t duplication;
  uint32_t reordering;
  uint32_t damage;
  uint32_t garbage;
  /* strangers is how many of 100 are copied by somebody, who sends the copy
     from another address, and it gets there first. */
  uint32_t strangers;
  /* burst is how many are lost at once. */
  uint32_t burst;
  uint32_t lose_next;
  /* ecn is what becomes of ECN marks: 0 keeps them, 1 clears them, 2 says
     "congestion" now and then. */
  uint8_t ecn;
  uint64_t delay;
  uint64_t jitter;
  /* Until mtu_until longer datagrams than mtu are lost. */
  size_t mtu;
  uint64_t mtu_until;
} quic_way;

/* quic_flight is a datagram that has not arrived. */
typedef struct quic_flight {
  uint64_t at;
  uint64_t number;
  /* to is the end that gets it. */
  int to;
  ngp_quic_addr from;
  ngp_quic_addr dest;
  uint8_t ecn;
  /* genuine is nonzero for the first copy of what an end has sent. */
  uint8_t genuine;
  size_t len;
  uint8_t *data;
} quic_flight;

typedef struct quic_network {
  quic_random random;
  uint64_t now;
  /* ways[e] leads from the end e to the other. */
  quic_way ways[2];
  /* dark_until is when the network works again. */
  uint64_t dark_until;
  /* flights is a heap: the first of them arrives first. */
  quic_flight *flights;
  size_t n;
  size_t cap;
  uint64_t sent;
  /* steal is nonzero while strangers are there. */
  uint8_t steal;
} quic_network;

void quic_network_free(quic_network *net);

/* Sends a copy of a packet that the end |from| has written. */
void quic_network_send(quic_network *net, int from, const ngp_quic_addr *addr,
                       const ngp_quic_packet *packet);

/* When the next datagram arrives, or UINT64_MAX. */
uint64_t quic_network_next(const quic_network *net);

/* Takes the datagram that arrives next; its data is the caller's to free. */
quic_flight quic_network_take(quic_network *net);

#endif /* QUIC_NETWORK_H */
