/*
 * Each allocation fails once, and then all from there on: no crash, no leak,
 * and every owner comes back.  ngtcp2 and GnuTLS allocate by themselves.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include "ngp_quic_packet.h"
#include "quic_pair.h"

typedef void (*scenario)(quic_pair *p);

static uint8_t body[20000];

static int setup(void **state) {
  (void)state;
  quic_pair_setup();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  quic_pair_teardown();
  return 0;
}

static void exchange_and_close(quic_pair *p) {
  quic_pair_connect(p);
  (void)quic_pair_send(p, 0, 0, body, sizeof(body), 1);
  (void)quic_pair_send(p, 0, 2, body, 100, 0);
  (void)ngp_quic_send_datagram(p->ends[0], body, 100);
  (void)ngp_quic_ping(p->ends[0], 1);
  quic_pair_run(p, 60);
  (void)ngp_quic_close(p->ends[0], 0, 1, 0, "", 0);
  quic_pair_run(p, 5);
}

/* A server that knows version 2 alone answers the client's first packet; then
   there is another that knows both. */
static void negotiate_a_version(quic_pair *p) {
  static const ngp_quic_addr server = {.ip = {0xfd, [15] = 2}, .port = 443};
  static const uint32_t versions[] = {NGTCP2_PROTO_VER_V2};
  uint8_t answer[NGP_QUIC_PACKET_MAX];
  const ngp_quic_packet *packets;
  ngp_quic_header header;
  size_t n;

  quic_pair_connect(p);
  (void)ngp_quic_send(p->ends[0], p->now);
  packets = ngp_quic_packets(p->ends[0], &n);
  if (n) {
    assert_ok(
        ngp_quic_header_decode(&header, packets[0].data, packets[0].len, 8));
    n = ngp_quic_write_version_negotiation(answer, &header, versions, 1);
    (void)ngp_quic_recv(p->ends[0], answer, n, &server, 0, p->now);
  }
  quic_pair_run(p, 60);
}

/* Runs |run| with allocation |fail_at| failing.  Returns nonzero if it ended
   before that. */
static int run_once(scenario run, size_t fail_at, int forever) {
  counting memory;
  quic_pair p;

  counting_init(&memory);
  memory.fail_at = fail_at;
  memory.forever = forever;
  if (quic_pair_init(&p, &memory.mem) == 0) {
    p.echo = 1;
    run(&p);
    /* Some blocks can be done without. */
    assert_true(memory.failed || !p.failed);
    quic_pair_free(&p);
  }
  assert_int_equal(quic_pair_owners(), 0);
  assert_int_equal(memory.live, 0);
  return memory.failed == 0;
}

static void connections_survive_want_of_memory(void **state) {
  (void)state;
  FAIL_EACH_ALLOCATION(run_once, exchange_and_close);
}

static void negotiation_survives_want_of_memory(void **state) {
  (void)state;
  FAIL_EACH_ALLOCATION(run_once, negotiate_a_version);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(connections_survive_want_of_memory),
      cmocka_unit_test(negotiation_survives_want_of_memory),
  };

  return cmocka_run_group_tests_name("quic_memory", tests, setup, teardown);
}
