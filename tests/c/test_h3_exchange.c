/*
 * Messages between two ends, whole and byte by byte.
 * SPDX-License-Identifier: MIT
 */
#include "h3_pair.h"

#include "ngp_h3_int.h"

static void extended(ngp_h3_options *options) {
  options->extended = 1;
  options->webtransport = 1;
}

static void logged(ngp_h3_options *options) { options->log = 1; }

static void make(h3_pair *p, void (*change)(ngp_h3_options *options)) {
  assert_int_equal(h3_pair_init(p, change, NULL), 0);
  h3_log(&p->client);
  h3_log(&p->server);
}

static void a_request_and_its_response(void **state) {
  h3_pair p;
  int i;

  (void)state;
  make(&p, NULL);
  for (i = 0; i < 5; ++i) {
    char expected[200];

    assert_int_equal(h3_headers(&p.client, 4 * i, H3_GET, 0), 0);
    assert_int_equal(h3_data(&p.client, 4 * i, "body", 1), 0);
    assert_int_equal(h3_pump(&p), 0);
    snprintf(expected, sizeof(expected),
             "headers %d :method=GET :scheme=https :authority=a.example "
             ":path=/\ndata %d+ 'body'\n",
             4 * i, 4 * i);
    assert_string_equal(h3_log(&p.server), expected);
    assert_int_equal(h3_headers(&p.server, 4 * i, H3_OK, 1), 0);
    assert_int_equal(h3_pump(&p), 0);
    snprintf(expected, sizeof(expected), "headers %d+ :status=200 server=ngp\n",
             4 * i);
    assert_string_equal(h3_log(&p.client), expected);
  }
  h3_pair_free(&p);
}

static void bytes_may_come_one_by_one(void **state) {
  h3_pair p;

  (void)state;
  make(&p, NULL);
  p.chunk = 1;
  assert_int_equal(h3_headers(&p.client, 0, H3_GET, 1), 0);
  assert_int_equal(h3_pump(&p), 0);
  assert_int_equal(h3_headers(&p.server, 0, ":status=103\n", 0), 0);
  assert_int_equal(h3_headers(&p.server, 0, H3_OK, 0), 0);
  assert_int_equal(h3_data(&p.server, 0, "ab", 0), 0);
  assert_int_equal(h3_headers(&p.server, 0, "x-sum=1\n", 1), 0);
  assert_int_equal(h3_promise(&p.server, 4, H3_GET, 15), 0);
  assert_int_equal(h3_pump(&p), 0);
  assert_string_equal(h3_log(&p.client),
                      "headers 0 :status=103\n"
                      "headers 0 :status=200 server=ngp\n"
                      "data 0 'a'\ndata 0 'b'\n"
                      "headers 0+ x-sum=1\n"
                      "promise 4 push 0 :method=GET :scheme=https "
                      ":authority=a.example :path=/\n");
  h3_pair_free(&p);
}

static void what_is_logged(void **state) {
  h3_pair p;

  (void)state;
  make(&p, logged);
  assert_int_equal(h3_headers(&p.client, 0, H3_GET, 0), 0);
  assert_int_equal(h3_data(&p.client, 0, "body", 1), 0);
  assert_int_equal(h3_pump(&p), 0);
  assert_non_null(strstr(h3_log(&p.server), "log_data 0 4\ndata 0+ 'body'\n"));
  h3_pair_free(&p);
}

static void a_closed_connection_takes_and_says_nothing(void **state) {
  h3_pair p;
  size_t n;

  (void)state;
  make(&p, NULL);
  assert_int_equal(h3_recv(&p.server, 0, "\0\0", 2, 0), NGP_H3_ERR_PROTOCOL);
  assert_string_equal(h3_log(&p.server),
                      "close 105 'DATA frame is not allowed in this state'\n");
  assert_int_equal(h3_recv(&p.server, 4, "\0\0", 2, 0), 0);
  assert_int_equal(ngp_h3_recv_reset(p.server.h3, 4, 0), 0);
  assert_int_equal(ngp_h3_recv_stop_sending(p.server.h3, 4, 0), 0);
  assert_int_equal(ngp_h3_recv_datagram(p.server.h3, NULL, 0), 0);
  ngp_h3_events(p.server.h3, &n);
  assert_int_equal(n, 0);
  ngp_h3_ops(p.server.h3, &n);
  assert_int_equal(n, 0);
  h3_pair_free(&p);
}

static void many_streams_at_once(void **state) {
  enum { N = 500 };
  h3_pair p;
  ngp_h3_stream_info info;
  size_t place = 0, n = 0;
  int i;

  (void)state;
  make(&p, NULL);
  for (i = 0; i < N; ++i) {
    assert_int_equal(h3_headers(&p.client, 4 * i, H3_GET, 1), 0);
  }
  assert_int_equal(h3_pump(&p), 0);
  while (ngp_h3_next_stream(p.server.h3, &place, &info)) {
    ++n;
  }
  assert_int_equal(n, N + 3);
  /* In an order in which gaps in the table have to be closed. */
  for (i = 0; i < N; ++i) {
    assert_int_equal(h3_headers(&p.server, 4 * (i * 7 % N), H3_OK, 1), 0);
  }
  assert_int_equal(h3_pump(&p), 0);
  for (place = 0, n = 0; ngp_h3_next_stream(p.client.h3, &place, &info);) {
    ++n;
  }
  assert_int_equal(n, 3);
  h3_pair_free(&p);
}

static void what_comes_on_a_rejected_request_is_not_told(void **state) {
  h3_pair p;

  (void)state;
  make(&p, extended);
  assert_int_equal(ngp_h3_send_goaway(p.server.h3, 0), 0);
  assert_int_equal(h3_headers(&p.client, 0, H3_GET, 0), 0);
  assert_int_equal(h3_data(&p.client, 0, "body", 0), 0);
  assert_int_equal(h3_pump(&p), 0);
  assert_string_equal(h3_log(&p.client), "stop 0 10b\nreset 0 10b\n");
  /* The client gave it up before it heard of that. */
  h3_stop(&p.server, 0, 0x10c);
  h3_reset(&p.server, 0, 0x10c);
  assert_string_equal(h3_log(&p.server), "");
  h3_pair_free(&p);
}

static void a_session_of_webtransport(void **state) {
  h3_pair p;

  (void)state;
  make(&p, extended);
  assert_int_equal(h3_headers(&p.client, 0, H3_CONNECT, 0), 0);
  assert_int_equal(h3_pump(&p), 0);
  assert_int_equal(h3_headers(&p.server, 0, ":status=200\n", 0), 0);
  assert_int_equal(h3_pump(&p), 0);
  h3_log(&p.server);

  assert_int_equal(ngp_h3_open_webtransport(p.client.h3, 4, 0, 0), 0);
  h3_take_ops(&p.client);
  assert_int_equal(h3_pump(&p), 0);
  assert_int_equal(h3_recv(&p.server, 4, "x", 1, 0), 0);
  assert_int_equal(h3_recv(&p.client, 4, "y", 1, 1), 0);
  assert_int_equal(
      ngp_h3_close_session(p.client.h3, 0, 5, (const uint8_t *)"bye", 3), 0);
  h3_take_ops(&p.client);
  assert_int_equal(h3_pump(&p), 0);
  assert_non_null(strstr(h3_log(&p.server), "closed 0 5 'bye'\n"));
  assert_int_equal(ngp_h3_session_is_open(p.client.h3, 0), 0);
  assert_int_equal(ngp_h3_open_webtransport(p.client.h3, 8, 0, 0),
                   NGP_H3_ERR_STREAM_TYPE);
  h3_pair_free(&p);
}

/* A capsule that comes in many DATA frames is gathered once, not kept again
   with each of them. */
static void a_capsule_in_pieces_is_kept_once(void **state) {
  enum { LEN = 10000 };
  static uint8_t bytes[8 + LEN];
  const ngp_h3_event *events;
  h3_pair p;
  wire frames = {0};
  size_t kept = 0;
  size_t i, n;

  (void)state;
  make(&p, extended);
  assert_int_equal(h3_headers(&p.client, 0, H3_CONNECT, 0), 0);
  assert_int_equal(h3_pump(&p), 0);
  n = ngp_put_varint(bytes, 0x17);
  n += ngp_put_varint(bytes + n, LEN);
  for (i = 0; i < n + LEN; ++i) {
    uint8_t frame[3] = {NGP_H3_FRAME_DATA, 1, bytes[i]};

    wire_add(&frames, frame, sizeof(frame));
  }
  assert_int_equal(
      ngp_h3_recv_stream(p.server.h3, 0, frames.base, frames.len, 0), 0);
  events = ngp_h3_events(p.server.h3, &n);
  assert_int_equal(n, 1);
  assert_int_equal(events[0].type, NGP_H3_EVENT_CAPSULE);
  assert_int_equal(events[0].len, LEN);
  for (i = 0; i < p.server.h3->results.nheld; ++i) {
    kept += p.server.h3->results.held[i].cap;
  }
  assert_in_range(kept, LEN, 4 * LEN);
  wire_free(&frames);
  h3_pair_free(&p);
}

static void every_code_has_a_text(void **state) {
  int code;

  (void)state;
  for (code = NGP_H3_ERR_NO_SETTINGS; code <= NGP_H3_ERR_PROTOCOL; ++code) {
    assert_true(strlen(ngp_h3_strerror(code)) > 10);
    assert_string_not_equal(ngp_h3_strerror(code), ngp_strerror(code));
  }
  for (code = NGP_QPACK_ERR_TOO_MANY;
       code <= NGP_QPACK_ERR_DECOMPRESSION_FAILED; ++code) {
    assert_true(strlen(ngp_h3_strerror(code)) > 10);
    assert_string_not_equal(ngp_h3_strerror(code), ngp_strerror(code));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_request_and_its_response),
      cmocka_unit_test(bytes_may_come_one_by_one),
      cmocka_unit_test(what_is_logged),
      cmocka_unit_test(a_closed_connection_takes_and_says_nothing),
      cmocka_unit_test(many_streams_at_once),
      cmocka_unit_test(what_comes_on_a_rejected_request_is_not_told),
      cmocka_unit_test(a_session_of_webtransport),
      cmocka_unit_test(a_capsule_in_pieces_is_kept_once),
      cmocka_unit_test(every_code_has_a_text),
  };

  return cmocka_run_group_tests_name("h3_exchange", tests, NULL, NULL);
}
