/* SPDX-License-Identifier: MIT */
#include "quic_network.h"

#include <stdlib.h>
#include <string.h>

#define GARBAGE_MAX 1500

/* ---- Random numbers (splitmix64's steps) ---- */

uint32_t quic_random_next(quic_random *random) {
  uint64_t z = random->state += 0x9e3779b97f4a7c15u;

  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (uint32_t)(z >> 32);
}

uint32_t quic_random_below(quic_random *random, uint32_t n) {
  return (uint32_t)((uint64_t)quic_random_next(random) * n >> 32);
}

uint64_t quic_random_between(quic_random *random, uint64_t low, uint64_t high) {
  uint64_t r = (uint64_t)quic_random_next(random) << 32;

  r |= quic_random_next(random);
  return low + r % (high - low + 1);
}

int quic_random_chance(quic_random *random, uint32_t percent) {
  return quic_random_below(random, 100) < percent;
}

/* ---- The heap ---- */

static int before(const quic_flight *a, const quic_flight *b) {
  return a->at != b->at ? a->at < b->at : a->number < b->number;
}

static void push(quic_network *net, const quic_flight *flight) {
  size_t i = net->n++;

  if (net->n > net->cap) {
    net->cap = net->cap ? net->cap * 2 : 64;
    net->flights = realloc(net->flights, net->cap * sizeof(*net->flights));
    if (!net->flights) {
      abort();
    }
  }
  for (; i && before(flight, &net->flights[(i - 1) / 2]); i = (i - 1) / 2) {
    net->flights[i] = net->flights[(i - 1) / 2];
  }
  net->flights[i] = *flight;
}

quic_flight quic_network_take(quic_network *net) {
  quic_flight first = net->flights[0];
  quic_flight last = net->flights[--net->n];
  size_t i = 0;
  size_t child;

  while ((child = 2 * i + 1) < net->n) {
    if (child + 1 < net->n &&
        before(&net->flights[child + 1], &net->flights[child])) {
      ++child;
    }
    if (!before(&net->flights[child], &last)) {
      break;
    }
    net->flights[i] = net->flights[child];
    i = child;
  }
  net->flights[i] = last;
  return first;
}

uint64_t quic_network_next(const quic_network *net) {
  return net->n ? net->flights[0].at : UINT64_MAX;
}

void quic_network_free(quic_network *net) {
  while (net->n) {
    free(net->flights[--net->n].data);
  }
  free(net->flights);
}

/* ---- What happens to datagrams ---- */

static void fly(quic_network *net, const quic_way *way, quic_flight flight,
                const uint8_t *data) {
  quic_random *random = &net->random;

  flight.at = net->now + way->delay;
  if (way->jitter) {
    flight.at += quic_random_between(random, 0, way->jitter);
  }
  if (quic_random_chance(random, way->reordering)) {
    flight.at += quic_random_between(random, 0, 4 * way->delay);
  }
  flight.number = net->sent++;
  flight.data = malloc(flight.len ? flight.len : 1);
  if (!flight.data) {
    abort();
  }
  memcpy(flight.data, data, flight.len);
  push(net, &flight);
}

/* Sends what no end has written. */
static void fly_garbage(quic_network *net, const quic_way *way,
                        quic_flight flight) {
  quic_random *random = &net->random;
  uint8_t data[GARBAGE_MAX];
  size_t i;

  flight.len = quic_random_below(random, sizeof(data) + 1);
  flight.genuine = 0;
  for (i = 0; i < flight.len; ++i) {
    data[i] = (uint8_t)quic_random_next(random);
  }
  if (flight.len && quic_random_chance(random, 50)) {
    /* It looks like a packet with a short header. */
    data[0] = (uint8_t)((data[0] & 0x3f) | 0x40);
  }
  fly(net, way, flight, data);
}

static void damage(quic_random *random, quic_flight *flight, uint8_t *data) {
  size_t changes = 1 + quic_random_below(random, 4);

  flight->genuine = 0;
  if (quic_random_chance(random, 30)) {
    flight->len = quic_random_below(random, (uint32_t)flight->len);
    return;
  }
  while (changes--) {
    data[quic_random_below(random, (uint32_t)flight->len)] ^=
        (uint8_t)(1u << quic_random_below(random, 8));
  }
}

static int is_lost(quic_network *net, quic_way *way, size_t len) {
  quic_random *random = &net->random;

  if (way->lose_next) {
    --way->lose_next;
    return 1;
  }
  if ((len > way->mtu && net->now < way->mtu_until) ||
      net->now < net->dark_until) {
    return 1;
  }
  if (!quic_random_chance(random, way->loss)) {
    return 0;
  }
  if (way->burst) {
    way->lose_next = quic_random_below(random, way->burst);
  }
  return 1;
}

void quic_network_send(quic_network *net, int from, const ngp_quic_addr *addr,
                       const ngp_quic_packet *packet) {
  quic_random *random = &net->random;
  quic_way *way = &net->ways[from];
  quic_flight flight = {.to = !from,
                        .from = *addr,
                        .dest = packet->addr,
                        .ecn = packet->ecn,
                        .genuine = 1,
                        .len = packet->len};
  uint8_t copy[65536];

  if (quic_random_chance(random, way->garbage)) {
    fly_garbage(net, way, flight);
  }
  if (is_lost(net, way, packet->len)) {
    return;
  }
  if (way->ecn == 1) {
    flight.ecn = 0;
  } else if (way->ecn == 2 && flight.ecn && quic_random_chance(random, 10)) {
    flight.ecn = 3;
  }
  if (net->steal && quic_random_chance(random, way->strangers)) {
    quic_flight stolen = flight;
    quic_way fast = *way;

    /* The copy is what counts: the datagram itself will be a repetition. */
    flight.genuine = 0;
    stolen.from.port ^= 1;
    fast.delay /= 2;
    fast.reordering = 0;
    fly(net, &fast, stolen, packet->data);
  }
  /* Nothing protects version negotiation but UDP's checksum. */
  if (quic_random_chance(random, way->damage) &&
      memcmp(packet->data + 1, "\0\0\0\0", 4) != 0) {
    memcpy(copy, packet->data, packet->len);
    damage(random, &flight, copy);
    fly(net, way, flight, copy);
    return;
  }
  fly(net, way, flight, packet->data);
  while (quic_random_chance(random, way->duplication)) {
    flight.genuine = 0;
    fly(net, way, flight, packet->data);
  }
}
