/*
 * Bodies on their way: sources, windows and credit, the input whole and byte by
 * byte. SPDX-License-Identifier: MIT
 */
#include "pair.h"

static void a_body_pushed_later_wakes_a_stream_that_waited(void **state) {
  pair p = pair_connect(NULL, NULL);
  wire body;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(pair_pump(&p));
  assert_ok(end_push(&p.client, 1, "a", 1, 0));
  assert_ok(pair_pump(&p));
  assert_ok(pair_pump(&p));
  assert_ok(end_push(&p.client, 1, "b", 1, 0));
  assert_ok(end_push(&p.client, 1, "c", 1, 0));
  assert_ok(pair_pump(&p));
  assert_ok(end_push(&p.client, 1, NULL, 0, 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_body(&p.server, 1, &body), 1);
  assert_text(body, "abc");
  wire_free(&body);
  pair_free(&p);
}

static void a_source_is_asked_when_the_stream_could_send(void **state) {
  pair p = pair_connect(NULL, NULL);
  size_t asked = 0, n;
  int32_t id;
  wire body;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_false(ngp_h2_take_wanted(p.client.h2, &id, &n));
  assert_ok(ngp_h2_set_source(p.client.h2, 1, 1));
  assert_ok(pair_pump(&p));
  while (ngp_h2_take_wanted(p.client.h2, &id, &n)) {
    assert_int_equal(id, 1);
    assert_true(n > 0);
    assert_ok(end_push_pattern(&p.client, 1, 1000, ++asked == 100));
    assert_ok(pair_pump(&p));
  }
  assert_int_equal(asked, 100);
  assert_int_equal(end_body(&p.server, 1, &body), 1);
  assert_int_equal(body.len, 100000);
  wire_free(&body);
  pair_free(&p);
}

static void a_source_that_is_gone_is_not_asked(void **state) {
  pair p = pair_connect(NULL, NULL);
  int32_t id;
  size_t n;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(ngp_h2_set_source(p.client.h2, 1, 1));
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_set_source(p.client.h2, 1, 0));
  assert_false(ngp_h2_take_wanted(p.client.h2, &id, &n));
  assert_ok(ngp_h2_set_source(p.client.h2, 1, 1));
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_rst(p.client.h2, 1, NGHTTP2_CANCEL, 0));
  assert_ok(pair_pump(&p));
  assert_false(ngp_h2_take_wanted(p.client.h2, &id, &n));
  pair_free(&p);
}

static void large_chunks_go_out_by_reference_whatever_the_limit(void **state) {
  static const size_t limits[] = {1, 100, 5000, 70000, SIZE_MAX};
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(limits) / sizeof(*limits); ++i) {
    pair p = pair_connect(NULL, NULL);
    wire body;
    size_t j;

    p.client.limit = limits[i];
    p.client.by_reference = 1;
    submit_request(&p.client, POST, 0);
    for (j = 0; j < 20; ++j) {
      assert_ok(end_push_pattern(&p.client, 1, 7777, j == 19));
    }
    assert_ok(pair_pump(&p));
    assert_true(p.client.nrefs > 0);
    assert_int_equal(p.client.released, 20);
    assert_int_equal(end_body(&p.server, 1, &body), 1);
    assert_int_equal(body.len, 20 * 7777);
    for (j = 0; j < body.len; ++j) {
      assert_int_equal(body.base[j], j % 7777 % 251);
    }
    wire_free(&body);
    pair_free(&p);
  }
}

static void padding_makes_payloads_multiples_and_is_not_told(void **state) {
  const ngp_h2_options options = {.pad_multiple = 64};
  static const size_t lens[] = {0, 1, 63, 64, 65, 16384, 16000};
  pair p = pair_connect(&options, &options);
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(lens) / sizeof(*lens); ++i) {
    int32_t id = submit_request(&p.client, POST, 0);
    wire_view view;
    wire body;
    size_t j;

    assert_ok(end_push_pattern(&p.client, id, lens[i], 1));
    assert_ok(end_send(&p.client));
    view = wire_find(&p.client.out, NGHTTP2_HEADERS, 0);
    assert_int_equal(view.len % 64, 0);
    for (j = 0; j < wire_count(&p.client.out, NGHTTP2_DATA); ++j) {
      view = wire_find(&p.client.out, NGHTTP2_DATA, j);
      assert_true(view.len % 64 == 0 || view.len >= 16384);
    }
    assert_ok(pair_pump(&p));
    assert_int_equal(end_body(&p.server, id, &body), 1);
    assert_int_equal(body.len, lens[i]);
    wire_free(&body);
  }
  pair_free(&p);
}

static void credit_by_hand_holds_the_sender_back(void **state) {
  const ngp_h2_options options = {.manual_credit = 1};
  pair p = pair_connect(NULL, &options);

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 1, 100000, 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_unacked(p.server.h2, 1), 65535);
  assert_int_equal(ngp_h2_queued_body(p.client.h2, 1), 100000 - 65535);
  assert_int_equal(ngp_h2_consume(p.server.h2, 1, 65536),
                   NGHTTP2_ERR_INVALID_ARGUMENT);
  assert_ok(ngp_h2_consume(p.server.h2, 1, 65535));
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_unacked(p.server.h2, 1), 100000 - 65535);
  assert_int_equal(ngp_h2_queued_body(p.client.h2, 1), 0);
  pair_free(&p);
}

static void what_nobody_took_of_a_closed_stream_is_credited(void **state) {
  const ngp_h2_options options = {.manual_credit = 1};
  pair p = pair_connect(NULL, &options);
  size_t i;

  (void)state;
  for (i = 0; i < 4; ++i) {
    int32_t id = submit_request(&p.client, POST, 0);

    assert_ok(end_push_pattern(&p.client, id, 65535, 0));
    assert_ok(pair_pump(&p));
    assert_int_equal(ngp_h2_unacked(p.server.h2, id), 65535);
    assert_ok(ngp_h2_submit_rst(p.server.h2, id, NGHTTP2_CANCEL, 0));
    assert_ok(pair_pump(&p));
    assert_ok(ngp_h2_consume(p.server.h2, id, 10));
    assert_int_equal(
        nghttp2_session_get_remote_window_size(ngp_h2_session(p.client.h2)),
        65535);
  }
  pair_free(&p);
}

static void windows_can_be_grown_by_hand(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_sendable(p.client.h2, 1), 65535);
  assert_ok(ngp_h2_submit_window_update(p.server.h2, 1, 1000));
  assert_ok(ngp_h2_set_local_window_size(p.server.h2, 0, 70000));
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_sendable(p.client.h2, 1), 66535);
  assert_int_equal(
      end_saw(&p.client, NGP_H2_EVENT_WINDOW_UPDATE, 1)->event.value, 1000);
  assert_int_equal(
      end_saw(&p.client, NGP_H2_EVENT_WINDOW_UPDATE, 0)->event.value,
      70000 - 65535);
  pair_free(&p);
}

static void a_watched_body_tells_when_it_has_drained(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  assert_true(ngp_h2_watch_body(p.client.h2, 1, 0));
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 1, 100000, 1));
  assert_true(ngp_h2_watch_body(p.client.h2, 1, 100000));
  assert_false(ngp_h2_watch_body(p.client.h2, 1, 50000));
  assert_ok(end_send(&p.client));
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_BODY_DRAINED, 1), 1);
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_BODY_DRAINED, 1), 1);
  pair_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_body_pushed_later_wakes_a_stream_that_waited),
      cmocka_unit_test(a_source_is_asked_when_the_stream_could_send),
      cmocka_unit_test(a_source_that_is_gone_is_not_asked),
      cmocka_unit_test(large_chunks_go_out_by_reference_whatever_the_limit),
      cmocka_unit_test(padding_makes_payloads_multiples_and_is_not_told),
      cmocka_unit_test(credit_by_hand_holds_the_sender_back),
      cmocka_unit_test(what_nobody_took_of_a_closed_stream_is_credited),
      cmocka_unit_test(windows_can_be_grown_by_hand),
      cmocka_unit_test(a_watched_body_tells_when_it_has_drained),
  };
  int failed = 0;

  RUN_IN_PIECES("flow", tests, failed);
  return failed;
}
