/*
 * Messages from end to end, the input whole and byte by byte.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

static void a_request_and_its_response_arrive(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;
  int32_t id = submit_request(&p.client, GET "user-agent=test\n", 1);
  wire body;

  (void)state;
  assert_int_equal(id, 1);
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_EVENT_REQUEST, 1);
  assert_text(s->fields, GET "user-agent=test\n");
  assert_int_equal(s->event.end_stream, 1);
  assert_ok(submit_response(&p.server, 1, ":status=200\nserver=ngp\n", 0));
  assert_ok(end_push(&p.server, 1, "hello", 5, 1));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_EVENT_RESPONSE, 1);
  assert_text(s->fields, ":status=200\nserver=ngp\n");
  assert_int_equal(s->event.end_stream, 0);
  assert_int_equal(end_body(&p.client, 1, &body), 1);
  assert_text(body, "hello");
  wire_free(&body);
  s = end_saw(&p.client, NGP_H2_EVENT_STREAM_CLOSED, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_NO_ERROR);
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_STREAM_CLOSED, 1));
  assert_null(end_find(&p.client, NGP_H2_EVENT_STREAM_RESET, -1, 0));
  assert_int_equal(ngp_h2_stream_count(p.client.h2, NULL), 0);
  assert_int_equal(ngp_h2_stream_count(p.server.h2, NULL), 0);
  pair_free(&p);
}

static void bodies_go_both_ways_past_the_windows(void **state) {
  const size_t len = pair_chunk == 1 ? 40000 : 300000;
  pair p = pair_connect(NULL, NULL);
  wire body;
  size_t i;

  (void)state;
  assert_int_equal(submit_request(&p.client, POST, 0), 1);
  assert_ok(end_push_pattern(&p.client, 1, len, 0));
  assert_ok(end_push_pattern(&p.client, 1, len, 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_body(&p.server, 1, &body), 1);
  assert_int_equal(body.len, 2 * len);
  for (i = 0; i < body.len; ++i) {
    assert_int_equal(body.base[i], i % len % 251);
  }
  wire_free(&body);
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 0));
  assert_ok(end_push_pattern(&p.server, 1, len, 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_body(&p.client, 1, &body), 1);
  assert_int_equal(body.len, len);
  wire_free(&body);
  assert_int_equal(p.client.released, 2);
  assert_int_equal(p.server.released, 1);
  assert_int_equal(ngp_h2_queued_body(p.client.h2, 0), 0);
  pair_free(&p);
}

static void the_end_goes_with_the_last_bytes(void **state) {
  pair p = pair_connect(NULL, NULL);
  wire_view data;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push(&p.client, 1, "abc", 3, 1));
  assert_ok(end_send(&p.client));
  assert_int_equal(wire_count(&p.client.out, NGHTTP2_DATA), 1);
  data = wire_find(&p.client.out, NGHTTP2_DATA, 0);
  assert_int_equal(data.len, 3);
  assert_int_equal(data.flags, NGHTTP2_FLAG_END_STREAM);
  pair_free(&p);
}

static void an_end_without_bytes_is_an_empty_frame(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push(&p.client, 1, "abc", 3, 0));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.server, NGP_H2_EVENT_DATA, 1),
                   pair_chunk == 1 ? 3 : 1);
  end_forget(&p.server);
  assert_ok(end_push(&p.client, 1, NULL, 0, 1));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_EVENT_DATA, 1);
  assert_int_equal(s->event.len, 0);
  assert_int_equal(s->event.end_stream, 1);
  pair_free(&p);
}

static void trailers_follow_the_body_in_both_directions(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;
  wire body;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push(&p.client, 1, "abc", 3, 0));
  assert_ok(submit_trailers(&p.client, 1, "digest=1\n"));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_EVENT_TRAILERS, 1);
  assert_text(s->fields, "digest=1\n");
  assert_int_equal(end_body(&p.server, 1, &body), 1);
  assert_text(body, "abc");
  wire_free(&body);
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 0));
  /* No body at all: the trailers end it. */
  assert_ok(submit_trailers(&p.server, 1, "digest=2\n"));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_EVENT_TRAILERS, 1);
  assert_text(s->fields, "digest=2\n");
  assert_int_equal(s->event.end_stream, 1);
  assert_int_equal(ngp_h2_stream_count(p.server.h2, NULL), 0);
  pair_free(&p);
}

static void trailers_wait_for_a_body_that_waits_for_its_window(void **state) {
  pair p = pair_connect(NULL, NULL);
  wire body;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 1, 200000, 0));
  assert_ok(end_send(&p.client));
  assert_ok(submit_trailers(&p.client, 1, "digest=1\n"));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_body(&p.server, 1, &body), 1);
  assert_int_equal(body.len, 200000);
  wire_free(&body);
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_TRAILERS, 1));
  pair_free(&p);
}

static void informational_responses_come_before_the_final_one(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(submit_informational(&p.server, 1, ":status=103\nlink=a\n"));
  assert_ok(submit_informational(&p.server, 1, ":status=103\nlink=b\n"));
  assert_ok(submit_response(&p.server, 1, ":status=204\n", 1));
  assert_int_equal(submit_informational(&p.server, 1, ":status=103\n"),
                   NGHTTP2_ERR_STREAM_CLOSED);
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_INFORMATIONAL, 1), 2);
  assert_text(end_find(&p.client, NGP_H2_EVENT_INFORMATIONAL, 1, 1)->fields,
              ":status=103\nlink=b\n");
  assert_text(end_saw(&p.client, NGP_H2_EVENT_RESPONSE, 1)->fields,
              ":status=204\n");
  pair_free(&p);
}

static void a_push_is_promised_answered_and_closed(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;
  int32_t id;
  wire body;

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  id = submit_push(&p.server, 1,
                   ":method=GET\n:scheme=https\n:path=/style.css\n"
                   ":authority=example.org\n");
  assert_int_equal(id, 2);
  /* The response may be queued before the promise is out. */
  assert_ok(submit_response(&p.server, 2, ":status=200\n", 0));
  assert_ok(end_push(&p.server, 2, "p {}", 4, 1));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_EVENT_PUSH_PROMISE, 1);
  assert_int_equal(s->event.other_id, 2);
  assert_text(s->fields, ":method=GET\n:scheme=https\n:path=/style.css\n"
                         ":authority=example.org\n");
  assert_text(end_saw(&p.client, NGP_H2_EVENT_RESPONSE, 2)->fields,
              ":status=200\n");
  assert_int_equal(end_body(&p.client, 2, &body), 1);
  assert_text(body, "p {}");
  wire_free(&body);
  assert_non_null(end_saw(&p.client, NGP_H2_EVENT_STREAM_CLOSED, 2));
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_STREAM_CLOSED, 2));
  pair_free(&p);
}

static void a_peer_that_takes_no_pushes_gets_none(void **state) {
  const nghttp2_settings_entry off = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
  pair p = pair_connect(NULL, NULL);

  (void)state;
  assert_ok(ngp_h2_submit_settings(p.client.h2, &off, 1));
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_int_equal(submit_push(&p.server, 1, GET), NGHTTP2_ERR_PUSH_DISABLED);
  pair_free(&p);
}

static void a_reset_is_told_to_both_ends_once(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push(&p.client, 1, "abc", 3, 0));
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_rst(p.client.h2, 1, NGHTTP2_CANCEL, 0));
  assert_ok(ngp_h2_submit_rst(p.client.h2, 1, NGHTTP2_CANCEL, 0));
  assert_int_equal(end_push(&p.client, 1, "d", 1, 0),
                   NGHTTP2_ERR_STREAM_CLOSED);
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.server, NGP_H2_EVENT_STREAM_RESET, 1), 1);
  s = end_saw(&p.server, NGP_H2_EVENT_STREAM_RESET, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_CANCEL);
  assert_int_equal(s->event.remote, 1);
  assert_int_equal(s->event.unprocessed, 0);
  /* The end that resets gets no event. */
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_STREAM_RESET, 1), 0);
  s = end_saw(&p.client, NGP_H2_EVENT_STREAM_CLOSED, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_CANCEL);
  assert_int_equal(end_count(&p.server, NGP_H2_EVENT_STREAM_CLOSED, 1), 1);
  pair_free(&p);
}

static void a_refused_stream_was_not_processed(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_rst(p.server.h2, 1, NGHTTP2_REFUSED_STREAM, 0));
  assert_ok(pair_pump(&p));
  assert_int_equal(
      end_saw(&p.client, NGP_H2_EVENT_STREAM_RESET, 1)->event.unprocessed, 1);
  pair_free(&p);
}

static void a_reset_after_the_end_lets_the_response_out_first(void **state) {
  pair p = pair_connect(NULL, NULL);
  wire body;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(pair_pump(&p));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 0));
  assert_ok(end_push_pattern(&p.server, 1, 100000, 1));
  assert_ok(ngp_h2_submit_rst(p.server.h2, 1, NGHTTP2_NO_ERROR, 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_body(&p.client, 1, &body), 1);
  assert_int_equal(body.len, 100000);
  wire_free(&body);
  assert_int_equal(
      end_saw(&p.client, NGP_H2_EVENT_STREAM_RESET, 1)->event.error_code,
      NGHTTP2_NO_ERROR);
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_STREAM_CLOSED, 1));
  pair_free(&p);
}

static void a_reset_after_the_end_is_left_out_if_the_peer_ended(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(ngp_h2_submit_rst(p.server.h2, 1, NGHTTP2_NO_ERROR, 1));
  assert_ok(end_send(&p.server));
  assert_int_equal(wire_count(&p.server.out, NGHTTP2_RST_STREAM), 0);
  pair_free(&p);
}

static void an_upgraded_request_is_answered_on_stream_1(void **state) {
  /* INITIAL_WINDOW_SIZE = 10. */
  static const uint8_t settings[] = {0, 4, 0, 0, 0, 10};
  pair p;
  wire body;

  (void)state;
  pair_init(&p, NULL, NULL);
  p.client.chunk = p.server.chunk = pair_chunk;
  assert_ok(ngp_h2_upgrade(p.client.h2, settings, sizeof(settings), 0));
  assert_ok(ngp_h2_upgrade(p.server.h2, settings, sizeof(settings), 0));
  assert_ok(ngp_h2_submit_settings(
      p.client.h2,
      &(nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 10}, 1));
  assert_ok(ngp_h2_submit_settings(p.server.h2, NULL, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 0));
  assert_int_equal(ngp_h2_sendable(p.server.h2, 1), 10);
  assert_ok(end_push_pattern(&p.server, 1, 1000, 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.client, NGP_H2_EVENT_RESPONSE, 1));
  assert_int_equal(end_body(&p.client, 1, &body), 1);
  assert_int_equal(body.len, 1000);
  wire_free(&body);
  assert_int_equal(submit_request(&p.client, GET, 1), 3);
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 3));
  pair_free(&p);
}

static void many_streams_at_once_keep_apart(void **state) {
  const nghttp2_settings_entry many = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                       500};
  const int32_t n = 200;
  pair p = pair_connect(NULL, NULL);
  int32_t i;

  (void)state;
  assert_ok(ngp_h2_submit_settings(p.server.h2, &many, 1));
  assert_ok(pair_pump(&p));
  for (i = 0; i < n; ++i) {
    assert_int_equal(submit_request(&p.client, POST, 0), 2 * i + 1);
    assert_ok(end_push_pattern(&p.client, 2 * i + 1, (size_t)i, 1));
  }
  assert_ok(pair_pump(&p));
  /* Answered from both ends towards the middle. */
  for (i = 0; i < n; ++i) {
    int32_t id = 2 * (i % 2 ? n - 1 - i / 2 : i / 2) + 1;

    assert_ok(submit_response(&p.server, id, ":status=200\n", 0));
    assert_ok(end_push_pattern(&p.server, id, (size_t)id, 1));
    if (i % 16 == 0) {
      assert_ok(pair_pump(&p));
    }
  }
  assert_ok(pair_pump(&p));
  for (i = 0; i < n; ++i) {
    wire body;

    assert_int_equal(end_body(&p.server, 2 * i + 1, &body), 1);
    assert_int_equal(body.len, i);
    wire_free(&body);
    assert_int_equal(end_body(&p.client, 2 * i + 1, &body), 1);
    assert_int_equal(body.len, 2 * i + 1);
    wire_free(&body);
  }
  assert_int_equal(ngp_h2_stream_count(p.client.h2, NULL), 0);
  pair_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_request_and_its_response_arrive),
      cmocka_unit_test(bodies_go_both_ways_past_the_windows),
      cmocka_unit_test(the_end_goes_with_the_last_bytes),
      cmocka_unit_test(an_end_without_bytes_is_an_empty_frame),
      cmocka_unit_test(trailers_follow_the_body_in_both_directions),
      cmocka_unit_test(trailers_wait_for_a_body_that_waits_for_its_window),
      cmocka_unit_test(informational_responses_come_before_the_final_one),
      cmocka_unit_test(a_push_is_promised_answered_and_closed),
      cmocka_unit_test(a_peer_that_takes_no_pushes_gets_none),
      cmocka_unit_test(a_reset_is_told_to_both_ends_once),
      cmocka_unit_test(a_refused_stream_was_not_processed),
      cmocka_unit_test(a_reset_after_the_end_lets_the_response_out_first),
      cmocka_unit_test(a_reset_after_the_end_is_left_out_if_the_peer_ended),
      cmocka_unit_test(an_upgraded_request_is_answered_on_stream_1),
      cmocka_unit_test(many_streams_at_once_keep_apart),
  };
  int failed = 0;

  RUN_IN_PIECES("exchange", tests, failed);
  return failed;
}
