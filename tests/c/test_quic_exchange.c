/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ngp_quic_int.h"
#include "ngp_quic_packet.h"
#include "quic_pair.h"

static uint8_t body[300000];

static int setup(void **state) {
  size_t i;

  (void)state;
  quic_pair_setup();
  for (i = 0; i < sizeof(body); ++i) {
    body[i] = (uint8_t)(i * 7 + i / 256);
  }
  return 0;
}

static int teardown(void **state) {
  (void)state;
  quic_pair_teardown();
  return 0;
}

/* A pair that has had |steps| milliseconds to connect. */
static quic_pair connected(int echo, int steps) {
  quic_pair pair;

  assert_int_equal(quic_pair_init(&pair, NULL), 0);
  pair.echo = echo;
  quic_pair_connect(&pair);
  quic_pair_run(&pair, steps);
  return pair;
}

static void exchange(uint32_t loss, uint32_t seed) {
  quic_pair pair = connected(1, 0);

  pair.loss = loss;
  pair.seed = seed;
  assert_int_equal(quic_pair_send(&pair, 0, 0, body, sizeof(body), 1), 0);
  for (int i = 0; i < 600 && !pair.ended[0] && !pair.terminated[0]; ++i) {
    quic_pair_run(&pair, 100);
  }
  if (pair.ended[0]) {
    assert_int_equal(pair.received[0], sizeof(body));
    assert_true(pair.sum[0] == quic_pair_sum(0, body, sizeof(body)));
  } else {
    /* Only so much silence ends a connection. */
    assert_true(loss > 10 && pair.terminated[0]);
  }
  quic_pair_free(&pair);
  assert_int_equal(pair.spoiled, 0);
  assert_int_equal(quic_pair_owners(), 0);
}

static void bytes_go_both_ways(void **state) {
  (void)state;
  exchange(0, 0);
}

static void bytes_survive_loss(void **state) {
  uint32_t seed;

  (void)state;
  for (seed = 0; seed < 60; ++seed) {
    exchange(seed % 31, seed);
  }
}

static void streams_wait_for_their_turn(void **state) {
  quic_pair pair = connected(1, 0);
  int64_t id;

  (void)state;
  for (id = 0; id < 4 * 100; id += 4) {
    assert_int_equal(quic_pair_send(&pair, 0, id, body, 3000, 1), 0);
  }
  for (int i = 0; i < 100 && pair.ended[0] < 100; ++i) {
    quic_pair_run(&pair, 100);
  }
  assert_int_equal(pair.ended[0], 100);
  quic_pair_free(&pair);
  assert_int_equal(quic_pair_owners(), 0);
}

static void what_is_queued_is_given_back(void **state) {
  quic_pair pair = connected(0, 0);
  int64_t id;

  (void)state;
  for (id = 0; id < 4 * 10; id += 4) {
    assert_int_equal(quic_pair_send(&pair, 0, id, body, sizeof(body), 0), 0);
  }
  quic_pair_run(&pair, 3);
  for (id = 0; id < 4 * 10; id += 8) {
    assert_int_equal(ngp_quic_reset_stream(pair.ends[0], id, 1), 0);
    (void)ngp_quic_stop_stream(pair.ends[1], id + 4, 1);
  }
  quic_pair_run(&pair, 30);
  assert_int_equal(
      ngp_quic_close(pair.ends[0], 1, 1, 0, (const char *)body, 5000), 0);
  quic_pair_run(&pair, 2000);
  assert_int_equal(pair.terminated[0], 1);
  assert_int_equal(pair.terminated[1], 1);
  assert_int_equal(quic_pair_owners(), 0);
  quic_pair_free(&pair);
}

static void streams_are_shut_before_the_handshake(void **state) {
  quic_pair pair;

  (void)state;
  assert_int_equal(quic_pair_init(&pair, NULL), 0);
  assert_int_equal(quic_pair_send(&pair, 0, 0, body, 2000, 1), 0);
  assert_int_equal(quic_pair_send(&pair, 0, 4, body, 300, 0), 0);
  assert_int_equal(ngp_quic_reset_stream(pair.ends[0], 4, 7), 0);
  assert_int_equal(ngp_quic_stop_stream(pair.ends[0], 4, 7), 0);
  assert_int_equal(quic_pair_send(&pair, 0, 8, body, 20000, 1), 0);
  quic_pair_connect(&pair);
  quic_pair_run(&pair, 100);
  assert_int_equal(pair.received[1], 22000);
  assert_int_equal(pair.resets[1], 1);
  /* The server answers STOP_SENDING with RESET_STREAM (RFC 9000, 3.5). */
  assert_int_equal(pair.resets[0], 1);
  quic_pair_free(&pair);
  assert_int_equal(quic_pair_owners(), 0);
}

/* RFC 9000, 4.6: streams that are over make room for others. */
static void streams_that_are_only_reset_count_no_longer(void **state) {
  quic_pair pair = connected(0, 50);
  int64_t id;

  (void)state;
  for (id = 2; id < 4 * 60; id += 4) {
    assert_int_equal(quic_pair_send(&pair, 0, id, body, 300, 0), 0);
    assert_int_equal(ngp_quic_reset_stream(pair.ends[0], id, 1), 0);
  }
  quic_pair_run(&pair, 300);
  assert_int_equal(pair.resets[1], 60);
  quic_pair_free(&pair);
}

/* RFC 9000, 9: a client that moves and comes back at once.  What the server has
   sent to the other address is not lost for good. */
static void a_client_comes_back_to_its_address(void **state) {
  quic_pair pair = connected(1, 50);
  int i;

  (void)state;
  for (i = 0; i < 20; ++i) {
    pair.client_port = 6000;
    assert_int_equal(quic_pair_send(&pair, 0, 4 * i, body, 700, 1), 0);
    quic_pair_run(&pair, 1);
    pair.loss = i & 1 ? 100 : 0;
    assert_int_equal(quic_pair_send(&pair, 1, 4 * i + 3, body, 700, 1), 0);
    quic_pair_run(&pair, 1);
    pair.loss = 0;
    pair.client_port = 5000;
    assert_int_equal(ngp_quic_ping(pair.ends[0], 1), 0);
    quic_pair_run(&pair, 1000);
  }
  assert_int_equal(pair.ended[0], 40);
  assert_int_equal(pair.terminated[0], 0);
  quic_pair_free(&pair);
}

/* Has an end send, and the other get every |nth| packet after 100 ms, from
   |addr|. */
static void deliver(quic_pair *pair, int from, const ngp_quic_addr *addr,
                    size_t nth) {
  const ngp_quic_packet *packets;
  size_t n;
  size_t i;

  assert_int_equal(ngp_quic_send(pair->ends[from], pair->now), 0);
  packets = ngp_quic_packets(pair->ends[from], &n);
  pair->now += 100 * 1000000;
  for (i = 0; i < n; i += nth) {
    assert_int_equal(ngp_quic_recv(pair->ends[!from], packets[i].data,
                                   packets[i].len, addr, 0, pair->now),
                     0);
  }
}

/* Whether an end sends anything to |port| before it is idle for too long. */
static int sends_to(quic_pair *pair, int end, uint16_t port) {
  const ngp_quic_packet *packets;
  size_t n;
  size_t i;

  do {
    assert_int_equal(ngp_quic_send(pair->ends[end], pair->now), 0);
    packets = ngp_quic_packets(pair->ends[end], &n);
    for (i = 0; i < n; ++i) {
      if (packets[i].addr.port == port) {
        return 1;
      }
    }
    if (ngp_quic_get_timer(pair->ends[end]) > pair->now) {
      pair->now = ngp_quic_get_timer(pair->ends[end]);
    }
    assert_int_equal(ngp_quic_handle_timer(pair->ends[end], pair->now), 0);
  } while (ngp_quic_get_state(pair->ends[end]) == NGP_QUIC_STATE_ACTIVE);
  return 0;
}

/* RFC 9000, 9.3.2: somebody sends the client's packet on, from an address of
   his own and ahead of the client.  The server gives that address up, and what
   it has sent before is not lost for good, though the client says no more.
   Gaps make the packet longer, and with it what the server may send there. */
static void an_address_that_does_not_answer_is_given_up(void **state) {
  static const ngp_quic_addr client = {.ip = {0xfd, [15] = 1}, .port = 5000};
  static const ngp_quic_addr server = {.ip = {0xfd, [15] = 2}, .port = 443};
  static const ngp_quic_addr stranger = {.ip = {0xfd, [15] = 3}, .port = 6000};
  int ndgrams;

  (void)state;
  for (ndgrams = 0; ndgrams < 20; ++ndgrams) {
    quic_pair pair = connected(0, 50);
    int i;

    for (i = 0; i < 4; ++i) {
      assert_int_equal(quic_pair_send(&pair, 1, 3, body, 3000, 0), 0);
      deliver(&pair, 1, &server, 1);
      deliver(&pair, 0, &client, 1);
    }
    for (i = 0; i < ndgrams; ++i) {
      assert_int_equal(ngp_quic_send_datagram(pair.ends[1], body, 1000), 0);
    }
    deliver(&pair, 1, &server, 2);
    assert_int_equal(quic_pair_send(&pair, 1, 3, body, 700, 1), 0);
    assert_int_equal(ngp_quic_send(pair.ends[1], pair.now), 0);
    deliver(&pair, 0, &stranger, 1);
    assert_true(sends_to(&pair, 1, client.port));
    quic_pair_free(&pair);
  }
}

static void pings_keys_and_connection_ids(void **state) {
  quic_pair pair = connected(1, 100);
  int i;

  (void)state;
  for (i = 0; i < 20; ++i) {
    assert_int_equal(ngp_quic_ping(pair.ends[i & 1], (uint64_t)i), 0);
    assert_int_equal(ngp_quic_send_datagram(pair.ends[i & 1], body, 1000), 0);
    assert_int_equal(ngp_quic_send_datagram(pair.ends[i & 1], NULL, 0), 0);
    ngp_quic_update_key(pair.ends[i & 1]);
    ngp_quic_change_cid(pair.ends[0]);
    assert_int_equal(quic_pair_send(&pair, 0, 4 * i, body, 10000, 1), 0);
    quic_pair_run(&pair, 50);
    /* Time stands still, or runs backwards. */
    pair.now -= 20000000;
  }
  assert_int_equal(pair.ended[0], 20);
  for (i = 0; i < 2; ++i) {
    assert_int_equal(pair.pings[i], 10);
    assert_int_equal(pair.dgrams[i], 20);
  }
  quic_pair_free(&pair);
}

static void nothing_is_queued_on_a_connection_that_is_over(void **state) {
  quic_pair pair = connected(0, 50);
  int held;
  int i;

  (void)state;
  assert_int_equal(ngp_quic_close(pair.ends[0], 1, 1, 0, "", 0), 0);
  quic_pair_run(&pair, 2000);
  assert_int_equal(pair.terminated[0], 1);
  for (i = 0; i < 3; ++i) {
    assert_int_equal(ngp_quic_ping(pair.ends[0], 1), 0);
    assert_int_equal(ngp_quic_send_datagram(pair.ends[0], body, 10), 0);
    assert_int_equal(ngp_quic_send_framed(pair.ends[0], 0, NULL, 0, body, 1000,
                                          body, 1, &held),
                     0);
    assert_int_equal(held, 0);
  }
  assert_int_equal(pair.ends[0]->tap.npings, 0);
  assert_null(pair.ends[0]->dgrams.head);
  assert_int_equal(ngp_quic_queued(pair.ends[0], -1), 0);
  quic_pair_free(&pair);
}

/* A queue of datagrams without bytes has its bound, too. */
static void empty_datagrams_are_bounded(void **state) {
  quic_pair pair = connected(0, 0);
  ngp_quic_stats stats;
  int i;

  (void)state;
  for (i = 0; i < 70000; ++i) {
    assert_int_equal(ngp_quic_send_datagram(pair.ends[0], NULL, 0), 0);
  }
  ngp_quic_get_stats(pair.ends[0], &stats);
  assert_int_equal(stats.datagrams_dropped, 70000 - 65536);
  quic_pair_run(&pair, 50);
  assert_int_equal(ngp_quic_send_datagram(pair.ends[0], body, 1000), 0);
  quic_pair_run(&pair, 50);
  assert_int_equal(pair.dgrams[1], 65536 + 1);
  quic_pair_free(&pair);
}

static void any_bytes_are_a_header_or_none(void **state) {
  uint8_t data[1400];
  uint8_t packet[NGP_QUIC_PACKET_MAX];
  static const uint8_t secret[16] = {1};
  static const uint32_t versions[] = {1};
  ngp_quic_addr addr = {.port = 1};
  uint32_t seed = 1;
  int i;

  (void)state;
  for (i = 0; i < 20000; ++i) {
    ngp_quic_header header;
    ngtcp2_cid odcid;
    size_t len;
    size_t j;

    seed = seed * 1664525u + 1013904223u;
    len = (seed >> 8) % (i & 1 ? 60 : sizeof(data));
    for (j = 0; j < len; ++j) {
      seed = seed * 1664525u + 1013904223u;
      data[j] = (uint8_t)(seed >> 24);
    }
    if (i & 2 && len > 6) {
      memcpy(data, "\xc3\0\0\0\1\x08", 6);
    }
    if (ngp_quic_header_decode(&header, data, len, 8) != 0) {
      continue;
    }
    assert_true(ngp_quic_write_version_negotiation(packet, &header, versions,
                                                   1) <= sizeof(packet));
    assert_true(ngp_quic_write_retry(packet, &header, &addr, NULL, secret,
                                     sizeof(secret), 1) <= sizeof(packet));
    assert_true(ngp_quic_write_refusal(packet, &header, 2) <= sizeof(packet));
    assert_true(ngp_quic_write_stateless_reset(packet, &header, secret,
                                               sizeof(secret), len) <= len);
    assert_int_not_equal(ngp_quic_verify_retry(&odcid, &header, &addr, secret,
                                               sizeof(secret), 1, 1),
                         0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bytes_go_both_ways),
      cmocka_unit_test(bytes_survive_loss),
      cmocka_unit_test(streams_wait_for_their_turn),
      cmocka_unit_test(what_is_queued_is_given_back),
      cmocka_unit_test(streams_are_shut_before_the_handshake),
      cmocka_unit_test(streams_that_are_only_reset_count_no_longer),
      cmocka_unit_test(a_client_comes_back_to_its_address),
      cmocka_unit_test(an_address_that_does_not_answer_is_given_up),
      cmocka_unit_test(pings_keys_and_connection_ids),
      cmocka_unit_test(nothing_is_queued_on_a_connection_that_is_over),
      cmocka_unit_test(empty_datagrams_are_bounded),
      cmocka_unit_test(any_bytes_are_a_header_or_none),
  };

  return cmocka_run_group_tests(tests, setup, teardown);
}
