/*
 * Every queue has its bound.  SPDX-License-Identifier: MIT
 */
#include "pair.h"

/* Feeds |w| to |e|, gathers what it says to that, and empties |w|. */
static int give(end *e, wire *w) {
  int rv = end_recv_wire(e, w);

  wire_free(w);
  return rv != 0 ? rv : end_send(e);
}

static void a_header_list_with_too_many_fields_is_refused(void **state) {
  const ngp_h2_options options = {.max_header_list_count = 5};
  end e = end_greeted(&options);
  const seen *s;
  wire w = {0};

  (void)state;
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 1, GET "a=1\n");
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 3, GET "a=1\nb=2\n");
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 5, GET "a=1\n");
  assert_ok(give(&e, &w));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_REQUEST, 1));
  assert_null(end_find(&e, NGP_H2_EVENT_REQUEST, 3, 0));
  s = end_saw(&e, NGP_H2_EVENT_STREAM_RESET, 3);
  assert_int_equal(s->event.error_code, NGHTTP2_ENHANCE_YOUR_CALM);
  assert_int_equal(s->event.remote, 0);
  assert_text(s->data, "the header list is larger than the limit");
  assert_int_equal(get_u32(wire_find(&e.out, NGHTTP2_RST_STREAM, 0).payload),
                   NGHTTP2_ENHANCE_YOUR_CALM);
  /* The next request is none the worse. */
  assert_text(end_saw(&e, NGP_H2_EVENT_REQUEST, 5)->fields, GET "a=1\n");
  end_free(&e);
}

static void a_header_list_with_too_many_bytes_is_refused(void **state) {
  /* The names and values of GET, and 32 for each of its four fields. */
  const size_t usual = 7 + 3 + 7 + 5 + 5 + 1 + 10 + 11 + 4 * 32;
  const ngp_h2_options options = {.max_header_list_bytes = usual + 36};
  end e = end_greeted(&options);
  wire w = {0};

  (void)state;
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 1, GET "aa=11\n");
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 3, GET "aa=111\n");
  assert_ok(give(&e, &w));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_REQUEST, 1));
  assert_null(end_find(&e, NGP_H2_EVENT_REQUEST, 3, 0));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_STREAM_RESET, 3));
  end_free(&e);
}

static void a_block_of_continuations_is_bounded(void **state) {
  const ngp_h2_options options = {.max_header_list_count = 20};
  end e = end_greeted(&options);
  wire block = {0};
  wire w = {0};
  size_t i;

  (void)state;
  wire_block(&block, GET);
  wire_frame(&w, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, block.base,
             block.len);
  wire_free(&block);
  wire_block(&block, "a=1\nb=2\nc=3\nd=4\n");
  for (i = 0; i < 7; ++i) {
    wire_frame(&w, NGHTTP2_CONTINUATION,
               i == 6 ? NGHTTP2_FLAG_END_HEADERS : NGHTTP2_FLAG_NONE, 1,
               block.base, block.len);
  }
  wire_free(&block);
  assert_ok(give(&e, &w));
  assert_null(end_find(&e, NGP_H2_EVENT_REQUEST, 1, 0));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_STREAM_RESET, 1));
  end_free(&e);
}

static void endless_continuations_end_the_connection(void **state) {
  const ngp_h2_options options = {0};
  end e = end_greeted(&options);
  wire w = {0};
  size_t i;

  (void)state;
  wire_frame(&w, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, NULL, 0);
  for (i = 0; i < 20; ++i) {
    wire_frame(&w, NGHTTP2_CONTINUATION, 0, 1, NULL, 0);
  }
  assert_ok(give(&e, &w));
  assert_int_equal(
      end_saw(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0)->event.error_code,
      NGHTTP2_ENHANCE_YOUR_CALM);
  assert_int_equal(wire_count(&e.out, NGHTTP2_GOAWAY), 1);
  end_free(&e);
}

static void a_body_queue_is_bounded_but_takes_one_large_chunk(void **state) {
  const ngp_h2_options options = {.max_body_queue = 100};
  end e = end_greeted(&options);
  wire w = {0};

  (void)state;
  wire_get(&w, 1);
  assert_ok(give(&e, &w));
  assert_ok(submit_response(&e, 1, ":status=200\n", 0));
  assert_ok(end_push_pattern(&e, 1, 60, 0));
  assert_int_equal(end_push_pattern(&e, 1, 41, 0), NGP_ERR_BODY_FULL);
  assert_ok(end_push_pattern(&e, 1, 40, 0));
  assert_int_equal(end_push_pattern(&e, 1, 1, 1), NGP_ERR_BODY_FULL);
  assert_int_equal(ngp_h2_queued_body(e.h2, 1), 100);
  assert_ok(end_send(&e));
  assert_int_equal(ngp_h2_queued_body(e.h2, 0), 0);
  /* What is refused leaves the stream open. */
  assert_ok(end_push_pattern(&e, 1, 500, 0));
  assert_int_equal(end_push_pattern(&e, 1, 1, 1), NGP_ERR_BODY_FULL);
  assert_ok(end_send(&e));
  assert_ok(end_push_pattern(&e, 1, 1, 1));
  end_free(&e);
}

static void a_body_must_be_as_long_as_its_content_length(void **state) {
  const ngp_h2_options options = {0};
  end e = end_greeted(&options);
  int64_t expected, queued;
  wire w = {0};

  (void)state;
  wire_get(&w, 1);
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 3, HEAD);
  assert_ok(give(&e, &w));
  assert_ok(submit_response(&e, 1, ":status=200\ncontent-length=10\n", 0));
  assert_int_equal(end_push_pattern(&e, 1, 11, 0), NGP_ERR_BODY_LENGTH);
  assert_int_equal(end_push_pattern(&e, 1, 9, 1), NGP_ERR_BODY_LENGTH);
  assert_ok(end_push_pattern(&e, 1, 9, 0));
  ngp_h2_body_lengths(e.h2, 1, &expected, &queued);
  assert_int_equal(expected, 10);
  assert_int_equal(queued, 9);
  assert_int_equal(submit_trailers(&e, 1, "digest=1\n"), NGP_ERR_BODY_LENGTH);
  assert_ok(end_push_pattern(&e, 1, 1, 0));
  assert_ok(submit_trailers(&e, 1, "digest=1\n"));
  /* The response to HEAD has the length of what GET would get. */
  assert_ok(submit_response(&e, 3, ":status=200\ncontent-length=10\n", 1));
  ngp_h2_body_lengths(e.h2, 5, &expected, &queued);
  assert_int_equal(expected, -1);
  end_free(&e);
}

static void a_request_that_ends_at_once_must_promise_no_body(void **state) {
  const ngp_h2_options options = {.is_client = 1};
  end e;

  (void)state;
  assert_ok(end_init(&e, &options, NULL));
  assert_int_equal(submit_request(&e, POST "content-length=1\n", 1),
                   NGP_ERR_BODY_LENGTH);
  assert_int_equal(submit_request(&e, POST "content-length=0\n", 1), 1);
  end_free(&e);
}

static void one_input_is_taken_in_slices(void **state) {
  const ngp_h2_options options = {0};
  end e = end_greeted(&options);
  size_t consumed = 0;
  uint8_t *p;
  wire w = {0};
  size_t i, n;

  (void)state;
  for (i = 0; i < 20000; ++i) {
    wire_frame(&w, 0xf0, 0, 0, NULL, 0);
  }
  p = w.base;
  assert_ok(ngp_h2_recv(e.h2, p, w.len, &consumed));
  assert_in_range(consumed, 1, 65536);
  ngp_h2_events(e.h2, &n);
  assert_int_equal(n, 0);
  wire_free(&w);
  end_free(&e);
}

static void a_flood_of_pings_ends_the_connection(void **state) {
  const ngp_h2_options options = {.max_outbound_ack = 100};
  end e = end_greeted(&options);
  wire w = {0};
  size_t i;

  (void)state;
  for (i = 0; i < 200; ++i) {
    wire_frame(&w, NGHTTP2_PING, 0, 0, "12345678", 8);
  }
  assert_ok(give(&e, &w));
  assert_int_equal(
      end_saw(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0)->event.error_code,
      NGHTTP2_ENHANCE_YOUR_CALM);
  end_free(&e);
}

#ifdef NGP_HAVE_OPTION_SET_STREAM_RESET_RATE_LIMIT
static void streams_that_the_peer_opens_and_resets_are_bounded(void **state) {
  const ngp_h2_options options = {.stream_reset_burst = 10,
                                  .stream_reset_rate = 1};
  end e = end_greeted(&options);
  wire w = {0};
  int32_t i;

  (void)state;
  for (i = 0; i < 20; ++i) {
    wire_get(&w, 2 * i + 1);
    wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 2 * i + 1, NGHTTP2_CANCEL);
  }
  assert_ok(give(&e, &w));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0));
  assert_false(ngp_h2_alive(e.h2));
  end_free(&e);
}
#endif

static void resets_that_the_peer_provokes_are_bounded(void **state) {
  const ngp_h2_options options = {.max_provoked_resets = 10};
  end e = end_greeted(&options);
  wire w = {0};
  int32_t i;

  (void)state;
  for (i = 0; i < 11; ++i) {
    assert_true(ngp_h2_alive(e.h2));
    wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 2 * i + 1, GET "host=other\n");
    assert_ok(give(&e, &w));
  }
  assert_int_equal(
      end_saw(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0)->event.error_code,
      NGHTTP2_ENHANCE_YOUR_CALM);
  assert_int_equal(ngp_h2_get_counters(e.h2)->provoked_resets, 11);
  end_free(&e);
}

static void streams_that_end_well_make_up_for_provoked_resets(void **state) {
  const ngp_h2_options options = {.max_provoked_resets = 2};
  end e = end_greeted(&options);
  wire w = {0};
  int32_t id = 1;
  size_t i;

  (void)state;
  for (i = 0; i < 20; ++i) {
    wire_headers(&w, NGHTTP2_FLAG_END_STREAM, id, GET "host=other\n");
    wire_get(&w, id + 2);
    assert_ok(give(&e, &w));
    assert_ok(submit_response(&e, id + 2, ":status=200\n", 1));
    assert_ok(end_send(&e));
    id += 4;
  }
  assert_true(ngp_h2_alive(e.h2));
  end_free(&e);
}

static void data_frames_are_as_large_as_peer_and_option_allow(void **state) {
  const ngp_h2_options options = {.max_data_frame = 30000};
  end e = end_greeted(&options);
  wire w = {0};
  size_t i, longest = 0;

  (void)state;
  wire_setting(&w, NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 50000);
  wire_setting(&w, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1000000);
  wire_frame_u32(&w, NGHTTP2_WINDOW_UPDATE, 0, 0, 1000000);
  wire_get(&w, 1);
  assert_ok(give(&e, &w));
  assert_ok(submit_response(&e, 1, ":status=200\n", 0));
  assert_ok(end_push_pattern(&e, 1, 100000, 1));
  assert_ok(end_send(&e));
  for (i = 0; i < wire_count(&e.out, NGHTTP2_DATA); ++i) {
    wire_view data = wire_find(&e.out, NGHTTP2_DATA, i);

    longest = data.len > longest ? data.len : longest;
  }
  assert_int_equal(longest, 30000);
  end_free(&e);
}

static void the_limit_of_a_send_is_kept_to_a_frame(void **state) {
  const ngp_h2_options options = {0};
  end e = end_greeted(&options);
  size_t n, len;
  wire w = {0};

  (void)state;
  wire_get(&w, 1);
  assert_ok(give(&e, &w));
  assert_ok(submit_response(&e, 1, ":status=200\n", 0));
  assert_ok(end_push_pattern(&e, 1, 60000, 1));
  assert_ok(ngp_h2_send(e.h2, 1000, 0));
  assert_non_null(ngp_h2_output(e.h2, &n, &len));
  assert_int_equal(n, 1);
  assert_in_range(len, 1000, 1000 + 16384 + 9);
  /* Without room there is nothing more. */
  assert_ok(ngp_h2_send(e.h2, 1000, 0));
  assert_non_null(ngp_h2_output(e.h2, &n, &len));
  assert_in_range(len, 1000, 1000 + 16384 + 9);
  assert_true(ngp_h2_want_write(e.h2));
  end_free(&e);
}

static void a_header_section_too_large_to_be_sent_is_refused(void **state) {
  const ngp_h2_options options = {.is_client = 1,
                                  .max_send_header_block_length = 100};
  ngp_h2_header_error error;
  nvlist list = nv_of(GET "a=0123456789012345678901234567890123456789"
                          "0123456789012345678901234567890123456789\n");
  end e;

  (void)state;
  assert_ok(end_init(&e, &options, NULL));
  assert_int_equal(ngp_h2_submit_request(e.h2, list.nva, list.nvlen, 1, &error),
                   NGP_ERR_BAD_HEADERS);
  assert_int_equal(error.index, 4);
  assert_int_equal(submit_request(&e, GET, 1), 1);
  end_free(&e);
}

static void the_peers_settings_entries_are_bounded(void **state) {
  const ngp_h2_options options = {.max_settings = 2};
  end e = end_greeted(&options);
  uint8_t payload[18] = {0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 4, 0, 0, 0, 9};
  wire w = {0};

  (void)state;
  wire_frame(&w, NGHTTP2_SETTINGS, 0, 0, payload, 18);
  assert_ok(give(&e, &w));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0));
  end_free(&e);
}

static void an_idle_connection_keeps_little_memory(void **state) {
  const ngp_h2_options options = {0};
  counting memory;
  wire w = {0};
  size_t live;
  int32_t i;
  end e;

  (void)state;
  counting_init(&memory);
  assert_ok(end_init(&e, &options, &memory.mem));
  /* Without it nghttp2 keeps closed streams in its tree of priorities. */
  assert_ok(ngp_h2_submit_settings(
      e.h2,
      &(nghttp2_settings_entry){NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}, 1));
  wire_preface(&w);
  assert_ok(give(&e, &w));
  live = memory.live;
  for (i = 0; i < 100; ++i) {
    wire_headers(&w, 0, 2 * i + 1, POST "a=1\n");
    wire_frame(&w, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 2 * i + 1, "abc", 3);
    assert_ok(give(&e, &w));
    assert_ok(submit_response(&e, 2 * i + 1, ":status=200\n", 0));
    assert_ok(end_push_pattern(&e, 2 * i + 1, 50, 1));
    assert_ok(end_send(&e));
    end_forget(&e);
  }
  /* The stream table, and what the coders keep. */
  assert_true(memory.live < live + 30);
  end_free(&e);
  assert_int_equal(memory.live, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_header_list_with_too_many_fields_is_refused),
      cmocka_unit_test(a_header_list_with_too_many_bytes_is_refused),
      cmocka_unit_test(a_block_of_continuations_is_bounded),
      cmocka_unit_test(endless_continuations_end_the_connection),
      cmocka_unit_test(a_body_queue_is_bounded_but_takes_one_large_chunk),
      cmocka_unit_test(a_body_must_be_as_long_as_its_content_length),
      cmocka_unit_test(a_request_that_ends_at_once_must_promise_no_body),
      cmocka_unit_test(one_input_is_taken_in_slices),
      cmocka_unit_test(a_flood_of_pings_ends_the_connection),
#ifdef NGP_HAVE_OPTION_SET_STREAM_RESET_RATE_LIMIT
      cmocka_unit_test(streams_that_the_peer_opens_and_resets_are_bounded),
#endif
      cmocka_unit_test(resets_that_the_peer_provokes_are_bounded),
      cmocka_unit_test(streams_that_end_well_make_up_for_provoked_resets),
      cmocka_unit_test(data_frames_are_as_large_as_peer_and_option_allow),
      cmocka_unit_test(the_limit_of_a_send_is_kept_to_a_frame),
      cmocka_unit_test(a_header_section_too_large_to_be_sent_is_refused),
      cmocka_unit_test(the_peers_settings_entries_are_bounded),
      cmocka_unit_test(an_idle_connection_keeps_little_memory),
  };

  return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
