/*
 * Each allocation fails once, and then all from there on: no crash, no leak,
 * a clear code.  SPDX-License-Identifier: MIT
 */
#include "h3_pair.h"

typedef int (*scenario)(h3_pair *p);

#define TRY(EXPR)                                                              \
  do {                                                                         \
    int try_rv = (EXPR);                                                       \
    if (try_rv < 0) {                                                          \
      return try_rv;                                                           \
    }                                                                          \
  } while (0)

static void extended(ngp_h3_options *options) {
  options->extended = 1;
  options->webtransport = 1;
  options->stream_errors = 1;
  options->log = 1;
}

static int exchange_messages(h3_pair *p) {
  int64_t i;

  /* As many as MAX_PUSH_ID allows pushes. */
  for (i = 0; i < 36; i += 4) {
    TRY(h3_headers(&p->client, i, H3_GET "cookie=abc\nx-a=0123456789\n", 0));
    TRY(h3_data(&p->client, i, "body", 0));
    TRY(h3_headers(&p->client, i, "x-sum=1\n", 1));
    if (i == 16) {
      p->chunk = 3;
    }
    TRY(h3_pump(p));
    TRY(h3_headers(&p->server, i, ":status=103\n", 0));
    TRY(h3_headers(&p->server, i, H3_OK, 0));
    TRY(h3_promise(&p->server, i, H3_GET, 15 + i));
    TRY(h3_headers(&p->server, 15 + i, H3_OK, 1));
    TRY(h3_data(&p->server, i, "body", 1));
    if (i < 32) {
      TRY(h3_pump(p));
    }
  }
  return 0;
}

static int control(h3_pair *p) {
  static const uint8_t text[] = "\0\1a";

  TRY(ngp_h3_send_origin(p->server.h3, text, 3));
  h3_take_ops(&p->server);
  TRY(ngp_h3_send_goaway(p->server.h3, 400));
  h3_take_ops(&p->server);
  TRY(ngp_h3_send_priority_update(p->client.h3, 0, 0, (const uint8_t *)"u=1",
                                  3));
  h3_take_ops(&p->client);
  TRY(ngp_h3_send_max_push_id(p->client.h3, 10));
  h3_take_ops(&p->client);
  p->chunk = 1;
  TRY(h3_pump(p));
  TRY(ngp_h3_send_cancel_push(p->client.h3, 1));
  h3_take_ops(&p->client);
  TRY(h3_headers(&p->client, 0, H3_GET, 0));
  TRY(h3_pump(p) == NGP_H3_ERR_PROTOCOL ? 0 : NGHTTP2_ERR_NOMEM);
  return 0;
}

static int block_and_unblock(h3_pair *p) {
  /* See tests/test_h3_qpack.py. */
  static const char section[] = "\x01\x03\x02\x00\x80";
  static const char insert[] = "\x43"
                               "x-a"
                               "\x01"
                               "1";

  TRY(h3_headers(&p->client, 0, H3_GET, 1));
  TRY(h3_recv(&p->client, 0, "\x01\x03\x00\x00\xd9", 5, 0));
  TRY(h3_recv(&p->client, 0, section, 5, 0));
  TRY(h3_recv(&p->client, 0, "", 0, 1));
  TRY(h3_recv(&p->client, 7, insert, 6, 0));
  TRY(h3_headers(&p->client, 4, H3_GET, 1));
  TRY(h3_recv(&p->client, 4, "\x01\x03\x03\x00\x80\x00\x05", 7, 0));
  TRY(ngp_h3_recv_reset(p->client.h3, 4, 7));
  return 0;
}

static int malformed(h3_pair *p) {
  /* A request without :path, whole and in pieces, and behind entries that are
     missing. */
  static const char request[] = "\x01\x07\x00\x00\xd1\xd7\x50\x01"
                                "a";
  static const char section[] = "\x01\x03\x02\x00\x80";
  static const char insert[] = "\x43"
                               "x-a"
                               "\x01"
                               "1";

  TRY(h3_recv(&p->server, 0, request, 9, 0));
  TRY(h3_recv(&p->server, 4, request, 5, 0));
  TRY(h3_recv(&p->server, 4, request + 5, 4, 1));
  TRY(h3_recv(&p->server, 8, "", 0, 1));
  TRY(h3_recv(&p->server, 12, section, 5, 0));
  TRY(h3_recv(&p->server, 12, request, 9, 1));
  TRY(h3_recv(&p->server, 6, insert, 6, 0));
  TRY(ngp_h3_recv_reset(p->server.h3, 0, 7));
  TRY(h3_headers(&p->client, 16, H3_GET, 0));
  TRY(ngp_h3_stop_stream(p->client.h3, 16, 7));
  h3_take_ops(&p->client);
  TRY(ngp_h3_reset_stream(p->client.h3, 16, 7));
  h3_take_ops(&p->client);
  return 0;
}

static int sessions(h3_pair *p) {
  TRY(h3_recv(&p->server, 8, "\x40\x41\x00stream", 9, 0));
  TRY(h3_recv(&p->server, 14, "\x40\x54\x00uni", 6, 1));
  TRY(ngp_h3_recv_datagram(p->server.h3, (const uint8_t *)"\0gram", 5));
  TRY(h3_headers(&p->client, 0, H3_CONNECT, 0));
  TRY(h3_pump(p));
  TRY(h3_headers(&p->server, 0, ":status=200\n", 0));
  TRY(h3_pump(p));
  TRY(ngp_h3_open_webtransport(p->client.h3, 4, 0, 0));
  h3_take_ops(&p->client);
  p->chunk = 2;
  TRY(ngp_h3_send_capsule(p->client.h3, 0, 0x17, (const uint8_t *)"abc", 3));
  h3_take_ops(&p->client);
  TRY(h3_pump(p));
  TRY(ngp_h3_drain_session(p->client.h3, 0));
  h3_take_ops(&p->client);
  TRY(ngp_h3_close_session(p->client.h3, 0, 5, (const uint8_t *)"bye", 3));
  h3_take_ops(&p->client);
  return h3_pump(p);
}

/* Runs |run| with allocation |fail_at| failing.  Returns nonzero if it ended
   before that. */
static int run_once(scenario run, size_t fail_at, int forever) {
  counting memory;
  h3_pair *p = malloc(sizeof(*p));
  int rv;

  counting_init(&memory);
  memory.fail_at = fail_at;
  memory.forever = forever;
  rv = h3_pair_init(p, extended, &memory.mem);
  if (rv == 0) {
    rv = run(p);
  }
  if (rv != (memory.failed ? NGHTTP2_ERR_NOMEM : 0)) {
    fail_msg("allocation %zu failed, and the code is %d", fail_at, rv);
  }
  h3_pair_free(p);
  free(p);
  assert_int_equal(memory.live, 0);
  return memory.failed == 0;
}

static void run_all(scenario run) { FAIL_EACH_ALLOCATION(run_once, run); }

static void messages_survive_want_of_memory(void **state) {
  (void)state;
  run_all(exchange_messages);
}

static void malformed_messages_survive_want_of_memory(void **state) {
  (void)state;
  run_all(malformed);
}

static void the_control_stream_survives_want_of_memory(void **state) {
  (void)state;
  run_all(control);
}

static void blocked_streams_survive_want_of_memory(void **state) {
  (void)state;
  run_all(block_and_unblock);
}

static void sessions_survive_want_of_memory(void **state) {
  (void)state;
  run_all(sessions);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(messages_survive_want_of_memory),
      cmocka_unit_test(malformed_messages_survive_want_of_memory),
      cmocka_unit_test(the_control_stream_survives_want_of_memory),
      cmocka_unit_test(blocked_streams_survive_want_of_memory),
      cmocka_unit_test(sessions_survive_want_of_memory),
  };

  return cmocka_run_group_tests_name("h3_memory", tests, NULL, NULL);
}
