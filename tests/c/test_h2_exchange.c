/*
 * Messages from end to end, the input whole and byte by byte.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

/* Every test runs with each of these numbers of bytes a read. */
static size_t chunk_size;

static pair connect_with(const ngp_h2_options *client,
                         const ngp_h2_options *server) {
  pair p;

  pair_init(&p, client, server);
  p.client.chunk = p.server.chunk = chunk_size;
  pair_greet(&p);
  return p;
}

static pair connected(void) { return connect_with(NULL, NULL); }

static void a_request_and_its_response_arrive(void **state) {
  pair p = connected();
  const seen *s;
  int32_t id = submit_request(&p.client, GET "user-agent=test\n", 1);
  wire body;

  (void)state;
  assert_int_equal(id, 1);
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_REQUEST, 1);
  assert_text(s->fields, GET "user-agent=test\n");
  assert_int_equal(s->event.end_stream, 1);
  assert_ok(submit_response(&p.server, 1, ":status=200\nserver=ngp\n", 0));
  assert_ok(end_push(&p.server, 1, "hello", 5, 1));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_RESPONSE, 1);
  assert_text(s->fields, ":status=200\nserver=ngp\n");
  assert_int_equal(s->event.end_stream, 0);
  assert_int_equal(end_body(&p.client, 1, &body), 1);
  assert_text(body, "hello");
  wire_free(&body);
  s = end_saw(&p.client, NGP_H2_STREAM_CLOSED, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_NO_ERROR);
  assert_non_null(end_saw(&p.server, NGP_H2_STREAM_CLOSED, 1));
  assert_null(end_find(&p.client, NGP_H2_STREAM_RESET, -1, 0));
  assert_int_equal(ngp_h2_stream_count(p.client.h2, NULL), 0);
  assert_int_equal(ngp_h2_stream_count(p.server.h2, NULL), 0);
  pair_free(&p);
}

static void bodies_go_both_ways_past_the_windows(void **state) {
  const size_t len = chunk_size == 1 ? 40000 : 300000;
  pair p = connected();
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
  pair p = connected();
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
  pair p = connected();
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push(&p.client, 1, "abc", 3, 0));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.server, NGP_H2_DATA, 1),
                   chunk_size == 1 ? 3 : 1);
  end_forget(&p.server);
  assert_ok(end_push(&p.client, 1, NULL, 0, 1));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_DATA, 1);
  assert_int_equal(s->event.len, 0);
  assert_int_equal(s->event.end_stream, 1);
  pair_free(&p);
}

static void trailers_follow_the_body_in_both_directions(void **state) {
  pair p = connected();
  const seen *s;
  wire body;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push(&p.client, 1, "abc", 3, 0));
  assert_ok(submit_trailers(&p.client, 1, "digest=1\n"));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_TRAILERS, 1);
  assert_text(s->fields, "digest=1\n");
  assert_int_equal(end_body(&p.server, 1, &body), 1);
  assert_text(body, "abc");
  wire_free(&body);
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 0));
  /* No body at all: the trailers end it. */
  assert_ok(submit_trailers(&p.server, 1, "digest=2\n"));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_TRAILERS, 1);
  assert_text(s->fields, "digest=2\n");
  assert_int_equal(s->event.end_stream, 1);
  assert_int_equal(ngp_h2_stream_count(p.server.h2, NULL), 0);
  pair_free(&p);
}

static void trailers_wait_for_a_body_that_waits_for_its_window(void **state) {
  pair p = connected();
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
  assert_non_null(end_saw(&p.server, NGP_H2_TRAILERS, 1));
  pair_free(&p);
}

static void informational_responses_come_before_the_final_one(void **state) {
  pair p = connected();

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(submit_informational(&p.server, 1, ":status=103\nlink=a\n"));
  assert_ok(submit_informational(&p.server, 1, ":status=103\nlink=b\n"));
  assert_ok(submit_response(&p.server, 1, ":status=204\n", 1));
  assert_int_equal(submit_informational(&p.server, 1, ":status=103\n"),
                   NGHTTP2_ERR_STREAM_CLOSED);
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.client, NGP_H2_INFORMATIONAL, 1), 2);
  assert_text(end_find(&p.client, NGP_H2_INFORMATIONAL, 1, 1)->fields,
              ":status=103\nlink=b\n");
  assert_text(end_saw(&p.client, NGP_H2_RESPONSE, 1)->fields, ":status=204\n");
  pair_free(&p);
}

static void a_push_is_promised_answered_and_closed(void **state) {
  pair p = connected();
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
  s = end_saw(&p.client, NGP_H2_PUSH_PROMISE, 1);
  assert_int_equal(s->event.other_id, 2);
  assert_text(s->fields, ":method=GET\n:scheme=https\n:path=/style.css\n"
                         ":authority=example.org\n");
  assert_text(end_saw(&p.client, NGP_H2_RESPONSE, 2)->fields, ":status=200\n");
  assert_int_equal(end_body(&p.client, 2, &body), 1);
  assert_text(body, "p {}");
  wire_free(&body);
  assert_non_null(end_saw(&p.client, NGP_H2_STREAM_CLOSED, 2));
  assert_non_null(end_saw(&p.server, NGP_H2_STREAM_CLOSED, 2));
  pair_free(&p);
}

static void a_peer_that_takes_no_pushes_gets_none(void **state) {
  const nghttp2_settings_entry off = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
  pair p = connected();

  (void)state;
  assert_ok(ngp_h2_submit_settings(p.client.h2, &off, 1));
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_int_equal(submit_push(&p.server, 1, GET), NGHTTP2_ERR_PUSH_DISABLED);
  pair_free(&p);
}

static void a_reset_is_told_to_both_ends_once(void **state) {
  pair p = connected();
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
  assert_int_equal(end_count(&p.server, NGP_H2_STREAM_RESET, 1), 1);
  s = end_saw(&p.server, NGP_H2_STREAM_RESET, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_CANCEL);
  assert_int_equal(s->event.remote, 1);
  assert_int_equal(s->event.unprocessed, 0);
  /* Who resets knows of it. */
  assert_int_equal(end_count(&p.client, NGP_H2_STREAM_RESET, 1), 0);
  s = end_saw(&p.client, NGP_H2_STREAM_CLOSED, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_CANCEL);
  assert_int_equal(end_count(&p.server, NGP_H2_STREAM_CLOSED, 1), 1);
  pair_free(&p);
}

static void a_refused_stream_was_not_processed(void **state) {
  pair p = connected();

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_rst(p.server.h2, 1, NGHTTP2_REFUSED_STREAM, 0));
  assert_ok(pair_pump(&p));
  assert_int_equal(
      end_saw(&p.client, NGP_H2_STREAM_RESET, 1)->event.unprocessed, 1);
  pair_free(&p);
}

static void a_reset_after_the_end_lets_the_response_out_first(void **state) {
  pair p = connected();
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
  assert_int_equal(end_saw(&p.client, NGP_H2_STREAM_RESET, 1)->event.error_code,
                   NGHTTP2_NO_ERROR);
  assert_non_null(end_saw(&p.server, NGP_H2_STREAM_CLOSED, 1));
  pair_free(&p);
}

static void a_reset_after_the_end_is_left_out_if_the_peer_ended(void **state) {
  pair p = connected();

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(ngp_h2_submit_rst(p.server.h2, 1, NGHTTP2_NO_ERROR, 1));
  assert_ok(end_send(&p.server));
  assert_int_equal(wire_count(&p.server.out, NGHTTP2_RST_STREAM), 0);
  pair_free(&p);
}

static void pings_are_answered_with_their_bytes(void **state) {
  pair p = connected();
  const seen *s;

  (void)state;
  assert_ok(ngp_h2_submit_ping(p.client.h2, (const uint8_t *)"12345678", 0));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_PING, 0);
  assert_memory_equal(s->event.opaque, "12345678", 8);
  s = end_saw(&p.client, NGP_H2_PING_ACK, 0);
  assert_memory_equal(s->event.opaque, "12345678", 8);
  pair_free(&p);
}

static void pings_are_left_to_a_caller_who_wants_them(void **state) {
  const ngp_h2_options options = {.no_auto_ping_ack = 1};
  pair p = connect_with(NULL, &options);

  (void)state;
  assert_ok(ngp_h2_submit_ping(p.client.h2, NULL, 0));
  assert_ok(pair_pump(&p));
  assert_null(end_find(&p.client, NGP_H2_PING_ACK, 0, 0));
  assert_ok(ngp_h2_submit_ping(p.server.h2, (const uint8_t *)"abcdefgh", 1));
  assert_ok(pair_pump(&p));
  assert_memory_equal(end_saw(&p.client, NGP_H2_PING_ACK, 0)->event.opaque,
                      "abcdefgh", 8);
  pair_free(&p);
}

static void settings_are_told_and_acknowledged(void **state) {
  const nghttp2_settings_entry iv[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 100000},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 7}};
  nghttp2_settings_entry got[2];
  pair p = connected();
  const seen *s;

  (void)state;
  assert_int_equal(end_count(&p.client, NGP_H2_SETTINGS, 0), 1);
  assert_int_equal(end_count(&p.client, NGP_H2_SETTINGS_ACK, 0), 1);
  end_forget(&p.client);
  assert_ok(ngp_h2_submit_settings(p.server.h2, iv, 2));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_SETTINGS, 0);
  assert_int_equal(s->event.value, 2);
  assert_int_equal(s->data.len, sizeof(got));
  memcpy(got, s->data.base, sizeof(got));
  assert_int_equal(got[0].settings_id, iv[0].settings_id);
  assert_int_equal(got[1].value, 7);
  /* Streams may send more: that is told as a window update of them all. */
  assert_non_null(end_saw(&p.client, NGP_H2_WINDOW_UPDATE, 0));
  assert_int_equal(end_count(&p.server, NGP_H2_SETTINGS_ACK, 0), 2);
  pair_free(&p);
}

static void goaway_is_told_with_its_debug_data(void **state) {
  pair p = connected();
  const seen *s;

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_goaway(p.server.h2, -1, NGHTTP2_NO_ERROR,
                                 (const uint8_t *)"bye", 3));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_GOAWAY, 0);
  assert_int_equal(s->event.other_id, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_NO_ERROR);
  assert_text(s->data, "bye");
  assert_int_equal(submit_request(&p.client, GET, 1),
                   NGHTTP2_ERR_START_STREAM_NOT_ALLOWED);
  /* What was begun goes on. */
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.client, NGP_H2_RESPONSE, 1));
  pair_free(&p);
}

static void
requests_past_the_last_stream_of_goaway_were_not_processed(void **state) {
  pair p = connected();
  const seen *s;

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  submit_request(&p.client, POST, 0);
  assert_ok(end_send(&p.client));
  wire_shift(&p.client.out, p.client.out.len);
  assert_ok(ngp_h2_submit_goaway(p.server.h2, -1, NGHTTP2_NO_ERROR, NULL, 0));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_STREAM_RESET, 3);
  assert_int_equal(s->event.error_code, NGHTTP2_REFUSED_STREAM);
  assert_int_equal(s->event.unprocessed, 1);
  assert_null(end_find(&p.client, NGP_H2_STREAM_RESET, 1, 0));
  pair_free(&p);
}

static void the_shutdown_notice_still_lets_requests_in(void **state) {
  pair p = connected();

  (void)state;
  assert_int_equal(ngp_h2_submit_shutdown_notice(p.client.h2),
                   NGHTTP2_ERR_INVALID_STATE);
  submit_request(&p.client, GET, 1);
  assert_ok(ngp_h2_submit_shutdown_notice(p.server.h2));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_saw(&p.client, NGP_H2_GOAWAY, 0)->event.other_id,
                   INT32_MAX);
  assert_non_null(end_saw(&p.server, NGP_H2_REQUEST, 1));
  assert_true(ngp_h2_alive(p.server.h2));
  pair_free(&p);
}

static void terminate_ends_the_connection_and_every_stream(void **state) {
  pair p = connected();
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 1, 200000, 1));
  assert_ok(end_send(&p.client));
  assert_ok(ngp_h2_terminate(p.client.h2, NGHTTP2_INTERNAL_ERROR));
  assert_ok(end_send(&p.client));
  assert_non_null(end_saw(&p.client, NGP_H2_STREAM_CLOSED, 1));
  s = end_saw(&p.client, NGP_H2_CONNECTION_CLOSED, 0);
  assert_int_equal(s->event.error_code, NGHTTP2_INTERNAL_ERROR);
  assert_int_equal(s->event.remote, 0);
  assert_int_equal(wire_count(&p.client.out, NGHTTP2_GOAWAY), 1);
  assert_false(ngp_h2_alive(p.client.h2));
  assert_int_equal(submit_request(&p.client, GET, 1),
                   NGP_ERR_CONNECTION_CLOSED);
  assert_int_equal(p.client.released, 1);
  pair_free(&p);
}

static void a_body_pushed_later_wakes_a_stream_that_waited(void **state) {
  pair p = connected();
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
  pair p = connected();
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
  pair p = connected();
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
    pair p = connected();
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
  pair p = connect_with(&options, &options);
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

static void extension_frames_pass_if_they_are_wanted(void **state) {
  const ngp_h2_options options = {.recv_extensions = 1};
  pair p = connect_with(NULL, &options);
  const seen *s;

  (void)state;
  assert_ok(ngp_h2_submit_extension(p.client.h2, 0xf0, 5, 0,
                                    (const uint8_t *)"payload", 7));
  assert_ok(ngp_h2_submit_extension(p.client.h2, 0x20, 0, 0, NULL, 0));
  assert_ok(ngp_h2_submit_extension(p.server.h2, 0xf0, 0, 0, NULL, 0));
  assert_int_equal(
      ngp_h2_submit_extension(p.client.h2, NGHTTP2_DATA, 0, 1, NULL, 0),
      NGHTTP2_ERR_INVALID_ARGUMENT);
  assert_ok(pair_pump(&p));
  s = end_find(&p.server, NGP_H2_EXTENSION, 0, 0);
  assert_int_equal(s->event.frame_type, 0xf0);
  assert_int_equal(s->event.flags, 5);
  assert_text(s->data, "payload");
  s = end_find(&p.server, NGP_H2_EXTENSION, 0, 1);
  assert_int_equal(s->event.frame_type, 0x20);
  assert_int_equal(s->event.len, 0);
  assert_null(end_find(&p.client, NGP_H2_EXTENSION, -1, 0));
  pair_free(&p);
}

static void altsvc_origin_and_priority_update_are_told(void **state) {
  nghttp2_origin_entry origins[] = {{(uint8_t *)"https://a.example", 17},
                                    {(uint8_t *)"https://b.example", 17}};
  pair p = connected();
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(
      ngp_h2_submit_priority_update(p.client.h2, 1, (const uint8_t *)"u=1", 3));
  assert_ok(ngp_h2_submit_origin(p.server.h2, origins, 2));
  assert_ok(ngp_h2_submit_altsvc(p.server.h2, 0, (const uint8_t *)"https://a",
                                 9, (const uint8_t *)"h3=\":443\"", 9));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_PRIORITY_UPDATE, 0);
  assert_int_equal(s->event.other_id, 1);
  assert_text(s->data, "u=1");
  s = end_saw(&p.client, NGP_H2_ALTSVC, 0);
  assert_text(s->data, "https://a");
  assert_text(s->data2, "h3=\":443\"");
  assert_int_equal(end_count(&p.client, NGP_H2_ORIGIN, 0), 2);
  assert_text(end_find(&p.client, NGP_H2_ORIGIN, 0, 1)->data,
              "https://b.example");
  pair_free(&p);
}

static void a_priority_update_waits_for_its_request(void **state) {
  const nghttp2_settings_entry one = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      1};
  pair p = connected();

  (void)state;
  assert_ok(ngp_h2_submit_settings(p.server.h2, &one, 1));
  assert_ok(pair_pump(&p));
  submit_request(&p.client, GET, 1);
  submit_request(&p.client, GET, 1);
  assert_ok(
      ngp_h2_submit_priority_update(p.client.h2, 3, (const uint8_t *)"u=1", 3));
  assert_ok(ngp_h2_submit_priority_update(p.client.h2, 3, NULL, 0));
  assert_ok(pair_pump(&p));
  assert_null(end_find(&p.server, NGP_H2_PRIORITY_UPDATE, 0, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.server, NGP_H2_REQUEST, 3));
  assert_int_equal(end_count(&p.server, NGP_H2_PRIORITY_UPDATE, 0), 1);
  assert_int_equal(end_saw(&p.server, NGP_H2_PRIORITY_UPDATE, 0)->data.len, 0);
  assert_true(ngp_h2_alive(p.server.h2));
  pair_free(&p);
}

static void an_upgraded_request_is_answered_on_stream_1(void **state) {
  /* INITIAL_WINDOW_SIZE = 10. */
  static const uint8_t settings[] = {0, 4, 0, 0, 0, 10};
  pair p;
  wire body;

  (void)state;
  pair_init(&p, NULL, NULL);
  p.client.chunk = p.server.chunk = chunk_size;
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
  assert_non_null(end_saw(&p.client, NGP_H2_RESPONSE, 1));
  assert_int_equal(end_body(&p.client, 1, &body), 1);
  assert_int_equal(body.len, 1000);
  wire_free(&body);
  assert_int_equal(submit_request(&p.client, GET, 1), 3);
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.server, NGP_H2_REQUEST, 3));
  pair_free(&p);
}

static void credit_by_hand_holds_the_sender_back(void **state) {
  const ngp_h2_options options = {.manual_credit = 1};
  pair p = connect_with(NULL, &options);

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
  pair p = connect_with(NULL, &options);
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
  pair p = connected();

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_sendable(p.client.h2, 1), 65535);
  assert_ok(ngp_h2_submit_window_update(p.server.h2, 1, 1000));
  assert_ok(ngp_h2_set_local_window_size(p.server.h2, 0, 70000));
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_sendable(p.client.h2, 1), 66535);
  assert_int_equal(end_saw(&p.client, NGP_H2_WINDOW_UPDATE, 1)->event.value,
                   1000);
  assert_int_equal(end_saw(&p.client, NGP_H2_WINDOW_UPDATE, 0)->event.value,
                   70000 - 65535);
  pair_free(&p);
}

static void a_watched_body_tells_when_it_has_drained(void **state) {
  pair p = connected();

  (void)state;
  assert_true(ngp_h2_watch_body(p.client.h2, 1, 0));
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 1, 100000, 1));
  assert_true(ngp_h2_watch_body(p.client.h2, 1, 100000));
  assert_false(ngp_h2_watch_body(p.client.h2, 1, 50000));
  assert_ok(end_send(&p.client));
  assert_int_equal(end_count(&p.client, NGP_H2_BODY_DRAINED, 1), 1);
  assert_ok(pair_pump(&p));
  assert_int_equal(end_count(&p.client, NGP_H2_BODY_DRAINED, 1), 1);
  pair_free(&p);
}

static void requests_over_the_peers_limit_wait_for_their_place(void **state) {
  const nghttp2_settings_entry one = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      1};
  pair p = connected();
  size_t queued;

  (void)state;
  assert_ok(ngp_h2_submit_settings(p.server.h2, &one, 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(submit_request(&p.client, GET, 1), 1);
  assert_int_equal(submit_request(&p.client, GET, 1), 3);
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_stream_count(p.client.h2, &queued), 2);
  assert_int_equal(queued, 1);
  assert_null(end_find(&p.server, NGP_H2_REQUEST, 3, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.client, NGP_H2_REQUEST_SENT, 3));
  assert_non_null(end_saw(&p.server, NGP_H2_REQUEST, 3));
  pair_free(&p);
}

static void a_waiting_request_can_be_cancelled(void **state) {
  const nghttp2_settings_entry one = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      1};
  pair p = connected();

  (void)state;
  assert_ok(ngp_h2_submit_settings(p.server.h2, &one, 1));
  assert_ok(pair_pump(&p));
  submit_request(&p.client, GET, 1);
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 3, 100, 1));
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_rst(p.client.h2, 3, NGHTTP2_CANCEL, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(
      end_saw(&p.client, NGP_H2_STREAM_CLOSED, 3)->event.error_code,
      NGHTTP2_CANCEL);
  assert_null(end_find(&p.server, NGP_H2_REQUEST, 3, 0));
  assert_int_equal(p.client.released, 1);
  pair_free(&p);
}

static void counters_count_frames_and_bytes(void **state) {
  pair p = connected();
  const ngp_h2_counters *c, *s;

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 0));
  assert_ok(end_push_pattern(&p.server, 1, 50000, 1));
  assert_ok(pair_pump(&p));
  c = ngp_h2_get_counters(p.client.h2);
  s = ngp_h2_get_counters(p.server.h2);
  assert_int_equal(c->bytes_sent, s->bytes_received);
  assert_int_equal(s->bytes_sent, c->bytes_received);
  assert_int_equal(c->frames_sent[NGHTTP2_HEADERS], 1);
  assert_int_equal(s->frames_received[NGHTTP2_HEADERS], 1);
  assert_int_equal(s->frames_sent[NGHTTP2_DATA],
                   c->frames_received[NGHTTP2_DATA]);
  assert_int_equal(c->streams_opened, 1);
  assert_int_equal(s->streams_opened, 1);
  assert_int_equal(s->provoked_resets, 0);
  pair_free(&p);
}

static void many_streams_at_once_keep_apart(void **state) {
  const nghttp2_settings_entry many = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                       500};
  const int32_t n = 200;
  pair p = connected();
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

static void the_end_of_input_closes_every_stream(void **state) {
  pair p = connected();
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_recv_eof(p.server.h2, NGHTTP2_CANCEL));
  assert_ok(ngp_h2_recv_eof(p.server.h2, NGHTTP2_CANCEL));
  end_collect(&p.server);
  assert_non_null(end_saw(&p.server, NGP_H2_STREAM_CLOSED, 1));
  assert_non_null(end_saw(&p.server, NGP_H2_STREAM_CLOSED, 3));
  s = end_saw(&p.server, NGP_H2_CONNECTION_CLOSED, 0);
  assert_int_equal(s->event.remote, 1);
  assert_int_equal(end_count(&p.server, NGP_H2_CONNECTION_CLOSED, 0), 1);
  assert_false(ngp_h2_want_read(p.server.h2));
  assert_false(ngp_h2_want_write(p.server.h2));
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
      cmocka_unit_test(pings_are_answered_with_their_bytes),
      cmocka_unit_test(pings_are_left_to_a_caller_who_wants_them),
      cmocka_unit_test(settings_are_told_and_acknowledged),
      cmocka_unit_test(goaway_is_told_with_its_debug_data),
      cmocka_unit_test(
          requests_past_the_last_stream_of_goaway_were_not_processed),
      cmocka_unit_test(the_shutdown_notice_still_lets_requests_in),
      cmocka_unit_test(terminate_ends_the_connection_and_every_stream),
      cmocka_unit_test(a_body_pushed_later_wakes_a_stream_that_waited),
      cmocka_unit_test(a_source_is_asked_when_the_stream_could_send),
      cmocka_unit_test(a_source_that_is_gone_is_not_asked),
      cmocka_unit_test(large_chunks_go_out_by_reference_whatever_the_limit),
      cmocka_unit_test(padding_makes_payloads_multiples_and_is_not_told),
      cmocka_unit_test(extension_frames_pass_if_they_are_wanted),
      cmocka_unit_test(altsvc_origin_and_priority_update_are_told),
      cmocka_unit_test(a_priority_update_waits_for_its_request),
      cmocka_unit_test(an_upgraded_request_is_answered_on_stream_1),
      cmocka_unit_test(credit_by_hand_holds_the_sender_back),
      cmocka_unit_test(what_nobody_took_of_a_closed_stream_is_credited),
      cmocka_unit_test(windows_can_be_grown_by_hand),
      cmocka_unit_test(a_watched_body_tells_when_it_has_drained),
      cmocka_unit_test(requests_over_the_peers_limit_wait_for_their_place),
      cmocka_unit_test(a_waiting_request_can_be_cancelled),
      cmocka_unit_test(counters_count_frames_and_bytes),
      cmocka_unit_test(many_streams_at_once_keep_apart),
      cmocka_unit_test(the_end_of_input_closes_every_stream),
  };
  static const size_t sizes[] = {0, 1, 7};
  int failed = 0;
  size_t i;

  for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    chunk_size = sizes[i];
    failed += cmocka_run_group_tests_name(
        chunk_size ? "exchange in pieces" : "exchange", tests, NULL, NULL);
  }
  return failed;
}
