/*
 * What concerns a connection and not its messages, the input whole and byte by
 * byte. SPDX-License-Identifier: MIT
 */
#include "pair.h"

static void pings_are_answered_with_their_bytes(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  assert_ok(ngp_h2_submit_ping(p.client.h2, (const uint8_t *)"12345678", 0));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_EVENT_PING, 0);
  assert_memory_equal(s->event.opaque, "12345678", 8);
  s = end_saw(&p.client, NGP_H2_EVENT_PING_ACK, 0);
  assert_memory_equal(s->event.opaque, "12345678", 8);
  pair_free(&p);
}

static void pings_are_left_to_a_caller_who_wants_them(void **state) {
  const ngp_h2_options options = {.no_auto_ping_ack = 1};
  pair p = pair_connect(NULL, &options);

  (void)state;
  assert_ok(ngp_h2_submit_ping(p.client.h2, NULL, 0));
  assert_ok(pair_pump(&p));
  assert_null(end_find(&p.client, NGP_H2_EVENT_PING_ACK, 0, 0));
  assert_ok(ngp_h2_submit_ping(p.server.h2, (const uint8_t *)"abcdefgh", 1));
  assert_ok(pair_pump(&p));
  assert_memory_equal(
      end_saw(&p.client, NGP_H2_EVENT_PING_ACK, 0)->event.opaque, "abcdefgh",
      8);
  pair_free(&p);
}

static void settings_are_told_and_acknowledged(void **state) {
  const nghttp2_settings_entry iv[] = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 100000},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 7}};
  nghttp2_settings_entry got[2];
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_SETTINGS, 0), 1);
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_SETTINGS_ACK, 0), 1);
  end_forget(&p.client);
  assert_ok(ngp_h2_submit_settings(p.server.h2, iv, 2));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_EVENT_SETTINGS, 0);
  assert_int_equal(s->event.value, 2);
  assert_int_equal(s->data.len, sizeof(got));
  memcpy(got, s->data.base, sizeof(got));
  assert_int_equal(got[0].settings_id, iv[0].settings_id);
  assert_int_equal(got[1].value, 7);
  /* Streams may send more: that is told as a window update of them all. */
  assert_non_null(end_saw(&p.client, NGP_H2_EVENT_WINDOW_UPDATE, 0));
  assert_int_equal(end_count(&p.server, NGP_H2_EVENT_SETTINGS_ACK, 0), 2);
  pair_free(&p);
}

static void goaway_is_told_with_its_debug_data(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_goaway(p.server.h2, -1, NGHTTP2_NO_ERROR,
                                 (const uint8_t *)"bye", 3));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_EVENT_GOAWAY, 0);
  assert_int_equal(s->event.other_id, 1);
  assert_int_equal(s->event.error_code, NGHTTP2_NO_ERROR);
  assert_text(s->data, "bye");
  assert_int_equal(submit_request(&p.client, GET, 1),
                   NGHTTP2_ERR_START_STREAM_NOT_ALLOWED);
  /* What was begun goes on. */
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.client, NGP_H2_EVENT_RESPONSE, 1));
  pair_free(&p);
}

static void
requests_past_the_last_stream_of_goaway_were_not_processed(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  submit_request(&p.client, POST, 0);
  assert_ok(end_send(&p.client));
  wire_shift(&p.client.out, p.client.out.len);
  assert_ok(ngp_h2_submit_goaway(p.server.h2, -1, NGHTTP2_NO_ERROR, NULL, 0));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.client, NGP_H2_EVENT_STREAM_RESET, 3);
  assert_int_equal(s->event.error_code, NGHTTP2_REFUSED_STREAM);
  assert_int_equal(s->event.unprocessed, 1);
  assert_null(end_find(&p.client, NGP_H2_EVENT_STREAM_RESET, 1, 0));
  pair_free(&p);
}

static void the_shutdown_notice_still_lets_requests_in(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  assert_int_equal(ngp_h2_submit_shutdown_notice(p.client.h2),
                   NGHTTP2_ERR_INVALID_STATE);
  submit_request(&p.client, GET, 1);
  assert_ok(ngp_h2_submit_shutdown_notice(p.server.h2));
  assert_ok(pair_pump(&p));
  assert_int_equal(end_saw(&p.client, NGP_H2_EVENT_GOAWAY, 0)->event.other_id,
                   INT32_MAX);
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 1));
  assert_true(ngp_h2_alive(p.server.h2));
  pair_free(&p);
}

static void terminate_ends_the_connection_and_every_stream(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 1, 200000, 1));
  assert_ok(end_send(&p.client));
  assert_ok(ngp_h2_terminate(p.client.h2, NGHTTP2_INTERNAL_ERROR));
  assert_ok(end_send(&p.client));
  assert_non_null(end_saw(&p.client, NGP_H2_EVENT_STREAM_CLOSED, 1));
  s = end_saw(&p.client, NGP_H2_EVENT_CONNECTION_CLOSED, 0);
  assert_int_equal(s->event.error_code, NGHTTP2_INTERNAL_ERROR);
  assert_int_equal(s->event.remote, 0);
  assert_int_equal(wire_count(&p.client.out, NGHTTP2_GOAWAY), 1);
  assert_false(ngp_h2_alive(p.client.h2));
  assert_int_equal(submit_request(&p.client, GET, 1),
                   NGP_ERR_CONNECTION_CLOSED);
  assert_int_equal(p.client.released, 1);
  pair_free(&p);
}

static void extension_frames_pass_if_they_are_wanted(void **state) {
  const ngp_h2_options options = {.recv_extensions = 1};
  pair p = pair_connect(NULL, &options);
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
  s = end_find(&p.server, NGP_H2_EVENT_EXTENSION, 0, 0);
  assert_int_equal(s->event.frame_type, 0xf0);
  assert_int_equal(s->event.flags, 5);
  assert_text(s->data, "payload");
  s = end_find(&p.server, NGP_H2_EVENT_EXTENSION, 0, 1);
  assert_int_equal(s->event.frame_type, 0x20);
  assert_int_equal(s->event.len, 0);
  assert_null(end_find(&p.client, NGP_H2_EVENT_EXTENSION, -1, 0));
  pair_free(&p);
}

static void altsvc_origin_and_priority_update_are_told(void **state) {
  nghttp2_origin_entry origins[] = {{(uint8_t *)"https://a.example", 17},
                                    {(uint8_t *)"https://b.example", 17}};
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  assert_ok(
      ngp_h2_submit_priority_update(p.client.h2, 1, (const uint8_t *)"u=1", 3));
  assert_ok(ngp_h2_submit_origin(p.server.h2, origins, 2));
  assert_ok(ngp_h2_submit_altsvc(p.server.h2, 0, (const uint8_t *)"https://a",
                                 9, (const uint8_t *)"h3=\":443\"", 9));
  assert_ok(pair_pump(&p));
  s = end_saw(&p.server, NGP_H2_EVENT_PRIORITY_UPDATE, 0);
  assert_int_equal(s->event.other_id, 1);
  assert_text(s->data, "u=1");
  s = end_saw(&p.client, NGP_H2_EVENT_ALTSVC, 0);
  assert_text(s->data, "https://a");
  assert_text(s->data2, "h3=\":443\"");
  assert_int_equal(end_count(&p.client, NGP_H2_EVENT_ORIGIN, 0), 2);
  assert_text(end_find(&p.client, NGP_H2_EVENT_ORIGIN, 0, 1)->data,
              "https://b.example");
  pair_free(&p);
}

/* The server takes one stream at a time. */
static pair pair_with_one_place(void) {
  const nghttp2_settings_entry one = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      1};
  pair p = pair_connect(NULL, NULL);

  assert_ok(ngp_h2_submit_settings(p.server.h2, &one, 1));
  assert_ok(pair_pump(&p));
  return p;
}

static void a_priority_update_waits_for_its_request(void **state) {
  pair p = pair_with_one_place();

  (void)state;
  submit_request(&p.client, GET, 1);
  submit_request(&p.client, GET, 1);
  assert_ok(
      ngp_h2_submit_priority_update(p.client.h2, 3, (const uint8_t *)"u=1", 3));
  assert_ok(ngp_h2_submit_priority_update(p.client.h2, 3, NULL, 0));
  assert_ok(pair_pump(&p));
  assert_null(end_find(&p.server, NGP_H2_EVENT_PRIORITY_UPDATE, 0, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 3));
  assert_int_equal(end_count(&p.server, NGP_H2_EVENT_PRIORITY_UPDATE, 0), 1);
  assert_int_equal(
      end_saw(&p.server, NGP_H2_EVENT_PRIORITY_UPDATE, 0)->data.len, 0);
  assert_true(ngp_h2_alive(p.server.h2));
  pair_free(&p);
}

static void requests_over_the_peers_limit_wait_for_their_place(void **state) {
  pair p = pair_with_one_place();
  size_t queued;

  (void)state;
  assert_int_equal(submit_request(&p.client, GET, 1), 1);
  assert_int_equal(submit_request(&p.client, GET, 1), 3);
  assert_ok(pair_pump(&p));
  assert_int_equal(ngp_h2_stream_count(p.client.h2, &queued), 2);
  assert_int_equal(queued, 1);
  assert_null(end_find(&p.server, NGP_H2_EVENT_REQUEST, 3, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.client, NGP_H2_EVENT_REQUEST_SENT, 3));
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 3));
  pair_free(&p);
}

static void a_waiting_request_can_be_cancelled(void **state) {
  pair p = pair_with_one_place();

  (void)state;
  submit_request(&p.client, GET, 1);
  submit_request(&p.client, POST, 0);
  assert_ok(end_push_pattern(&p.client, 3, 100, 1));
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_submit_rst(p.client.h2, 3, NGHTTP2_CANCEL, 0));
  assert_ok(submit_response(&p.server, 1, ":status=200\n", 1));
  assert_ok(pair_pump(&p));
  assert_int_equal(
      end_saw(&p.client, NGP_H2_EVENT_STREAM_CLOSED, 3)->event.error_code,
      NGHTTP2_CANCEL);
  assert_null(end_find(&p.server, NGP_H2_EVENT_REQUEST, 3, 0));
  assert_int_equal(p.client.released, 1);
  pair_free(&p);
}

static void counters_count_frames_and_bytes(void **state) {
  pair p = pair_connect(NULL, NULL);
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

static void the_end_of_input_closes_every_stream(void **state) {
  pair p = pair_connect(NULL, NULL);
  const seen *s;

  (void)state;
  submit_request(&p.client, POST, 0);
  submit_request(&p.client, GET, 1);
  assert_ok(pair_pump(&p));
  assert_ok(ngp_h2_recv_eof(p.server.h2, NGHTTP2_CANCEL));
  assert_ok(ngp_h2_recv_eof(p.server.h2, NGHTTP2_CANCEL));
  end_collect(&p.server);
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_STREAM_CLOSED, 1));
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_STREAM_CLOSED, 3));
  s = end_saw(&p.server, NGP_H2_EVENT_CONNECTION_CLOSED, 0);
  assert_int_equal(s->event.remote, 1);
  assert_int_equal(end_count(&p.server, NGP_H2_EVENT_CONNECTION_CLOSED, 0), 1);
  assert_false(ngp_h2_want_read(p.server.h2));
  assert_false(ngp_h2_want_write(p.server.h2));
  pair_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pings_are_answered_with_their_bytes),
      cmocka_unit_test(pings_are_left_to_a_caller_who_wants_them),
      cmocka_unit_test(settings_are_told_and_acknowledged),
      cmocka_unit_test(goaway_is_told_with_its_debug_data),
      cmocka_unit_test(
          requests_past_the_last_stream_of_goaway_were_not_processed),
      cmocka_unit_test(the_shutdown_notice_still_lets_requests_in),
      cmocka_unit_test(terminate_ends_the_connection_and_every_stream),
      cmocka_unit_test(extension_frames_pass_if_they_are_wanted),
      cmocka_unit_test(altsvc_origin_and_priority_update_are_told),
      cmocka_unit_test(a_priority_update_waits_for_its_request),
      cmocka_unit_test(requests_over_the_peers_limit_wait_for_their_place),
      cmocka_unit_test(a_waiting_request_can_be_cancelled),
      cmocka_unit_test(counters_count_frames_and_bytes),
      cmocka_unit_test(the_end_of_input_closes_every_stream),
  };
  int failed = 0;

  RUN_IN_PIECES("connection", tests, failed);
  return failed;
}
