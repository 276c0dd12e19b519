/*
 * How streams end, and what ends a connection that a peer wears out.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

static const size_t sizes[] = {0, 1, 7};

/* Returns a greeted end that is fed |chunk| bytes at a time; a server if
   |options| is NULL. */
static end begin(const ngp_h2_options *options, size_t chunk) {
  static const ngp_h2_options server;
  end e = end_greeted(options ? options : &server);

  e.chunk = chunk;
  return e;
}

/* Feeds |w| to |e|, gathers what it says to that, and empties |w|. */
static int give(end *e, wire *w) {
  int rv = end_recv_wire(e, w);

  wire_free(w);
  return rv != 0 ? rv : end_send(e);
}

/* The same with input that ends the connection; cut in pieces, the rest of it
   is refused. */
static void give_the_last(end *e, wire *w) {
  int rv = end_recv_wire(e, w);

  wire_free(w);
  assert_true(rv == 0 || rv == NGP_ERR_CONNECTION_CLOSED);
  assert_ok(end_send(e));
  assert_false(ngp_h2_alive(e->h2));
}

static void assert_end(const end *e, uint32_t error_code, int complete) {
  const seen *s = end_saw(e, NGP_H2_EVENT_STREAM_CLOSED, 1);

  assert_int_equal(s->event.error_code, error_code);
  assert_int_equal(s->event.complete, complete);
  assert_int_equal(end_count(e, NGP_H2_EVENT_STREAM_CLOSED, 1), 1);
}

static void no_error_in_the_middle_is_no_good_end(void **state) {
  const ngp_h2_options client = {.is_client = 1};
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    end e = begin(NULL, sizes[i]);
    wire w = {0};

    wire_headers(&w, 0, 1, POST);
    wire_frame(&w, NGHTTP2_DATA, 0, 1, "half", 4);
    wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 1, NGHTTP2_NO_ERROR);
    assert_ok(give(&e, &w));
    assert_end(&e, NGHTTP2_CANCEL, 0);
    end_free(&e);

    e = begin(&client, sizes[i]);
    submit_request(&e, GET, 1);
    assert_ok(end_send(&e));
    wire_headers(&w, 0, 1, ":status=200\n");
    wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 1, NGHTTP2_NO_ERROR);
    assert_ok(give(&e, &w));
    assert_end(&e, NGHTTP2_CANCEL, 0);
    end_free(&e);
  }
}

static void no_error_after_the_response_is_a_good_end(void **state) {
  const ngp_h2_options client = {.is_client = 1};
  end e = begin(&client, 0);
  wire w = {0};

  (void)state;
  submit_request(&e, POST, 0);
  assert_ok(end_send(&e));
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 1, ":status=200\n");
  wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 1, NGHTTP2_NO_ERROR);
  assert_ok(give(&e, &w));
  assert_end(&e, NGHTTP2_NO_ERROR, 1);
  end_free(&e);
}

static void a_refusal_in_the_last_frame_is_no_good_end(void **state) {
  const ngp_h2_options client = {.is_client = 1, .max_header_list_count = 3};
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    end e = begin(&client, sizes[i]);
    wire w = {0};

    submit_request(&e, GET, 1);
    assert_ok(end_send(&e));
    wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 1,
                 ":status=200\na=1\nb=2\nc=3\n");
    assert_ok(give(&e, &w));
    assert_end(&e, NGHTTP2_ENHANCE_YOUR_CALM, 0);
    end_free(&e);
  }
}

static void a_whole_response_goes_out_before_a_reset(void **state) {
  end e = begin(NULL, 0);
  wire w = {0};

  (void)state;
  wire_headers(&w, 0, 1, POST);
  assert_ok(give(&e, &w));
  e.out.len = 0;
  assert_ok(submit_response(&e, 1, ":status=413\n", 1));
  assert_ok(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_ENHANCE_YOUR_CALM, 0));
  assert_ok(end_send(&e));
  assert_int_equal(wire_count(&e.out, NGHTTP2_HEADERS), 1);
  assert_int_equal(get_u32(wire_find(&e.out, NGHTTP2_RST_STREAM, 0).payload),
                   NGHTTP2_ENHANCE_YOUR_CALM);
  assert_end(&e, NGHTTP2_ENHANCE_YOUR_CALM, 0);
  end_free(&e);
}

static void a_reset_after_the_end_waits_for_another_send(void **state) {
  end e = begin(NULL, 0);
  wire w = {0};
  size_t n, len;

  (void)state;
  wire_headers(&w, 0, 1, POST);
  assert_ok(give(&e, &w));
  assert_ok(submit_response(&e, 1, ":status=413\n", 1));
  assert_ok(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_NO_ERROR, 1));
  assert_ok(ngp_h2_send(e.h2, SIZE_MAX, 0));
  assert_ok(ngp_h2_send(e.h2, SIZE_MAX, 0));
  assert_int_equal(ngp_h2_held_resets(e.h2), 1);
  assert_non_null(ngp_h2_output(e.h2, &n, &len));
  ngp_h2_clear_output(e.h2);
  assert_true(ngp_h2_want_write(e.h2));
  assert_ok(ngp_h2_send(e.h2, SIZE_MAX, 0));
  assert_int_equal(ngp_h2_held_resets(e.h2), 0);
  assert_non_null(ngp_h2_output(e.h2, &n, &len));
  assert_int_equal(len, 13);
  ngp_h2_clear_output(e.h2);
  end_collect(&e);
  assert_end(&e, NGHTTP2_NO_ERROR, 1);
  end_free(&e);
}

static void a_stream_that_depends_on_itself_is_reset(void **state) {
  static const uint8_t own[] = {0x80, 0, 0, 1, 15};
  static const uint8_t idle[] = {0, 0, 0, 9, 15};
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    end e = begin(NULL, sizes[i]);
    wire w = {0};
    wire block = {0};

    wire_headers(&w, 0, 1, POST);
    wire_frame(&w, NGHTTP2_PRIORITY, 0, 9, idle, sizeof(idle));
    wire_frame(&w, NGHTTP2_PRIORITY, 0, 1, own, sizeof(own));
    wire_add(&block, "\0\0\0\3\17", 5);
    wire_block(&block, GET);
    wire_frame(&w, NGHTTP2_HEADERS,
               NGHTTP2_FLAG_PRIORITY | NGHTTP2_FLAG_END_HEADERS, 3, block.base,
               block.len);
    wire_free(&block);
    wire_get(&w, 5);
    assert_ok(give(&e, &w));
    assert_end(&e, NGHTTP2_PROTOCOL_ERROR, 0);
    assert_int_equal(wire_count(&e.out, NGHTTP2_RST_STREAM), 3);
    assert_int_equal(wire_count(&e.out, NGHTTP2_GOAWAY), 0);
    assert_int_equal(wire_find(&e.out, NGHTTP2_RST_STREAM, 0).stream_id, 9);
    assert_null(end_find(&e, NGP_H2_EVENT_REQUEST, 3, 0));
    assert_non_null(end_saw(&e, NGP_H2_EVENT_REQUEST, 5));
    end_free(&e);
  }
}

static void frames_that_do_nothing_are_bounded(void **state) {
  const ngp_h2_options options = {.max_glitches = 50};
  size_t i, k;

  (void)state;
  for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    end e = begin(&options, sizes[i]);
    wire w = {0};

    wire_headers(&w, 0, 1, POST);
    for (k = 0; k < 40; ++k) {
      wire_frame_u32(&w, NGHTTP2_WINDOW_UPDATE, 0, 1, 1);
    }
    assert_ok(give(&e, &w));
    assert_true(ngp_h2_alive(e.h2));
    ngp_h2_time_passed(e.h2, 1);
    for (k = 0; k < 40; ++k) {
      wire_frame(&w, NGHTTP2_DATA, 0, 1, NULL, 0);
    }
    assert_ok(give(&e, &w));
    assert_true(ngp_h2_alive(e.h2));
    for (k = 0; k < 40; ++k) {
      wire_frame(&w, 0xab, 0, 0, NULL, 0);
    }
    give_the_last(&e, &w);
    assert_int_equal(get_u32(wire_find(&e.out, NGHTTP2_GOAWAY, 0).payload + 4),
                     NGHTTP2_ENHANCE_YOUR_CALM);
    end_free(&e);
  }
}

static void a_block_many_times_the_limit_ends_the_connection(void **state) {
  size_t i, k;

  (void)state;
  for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {
    end e = begin(NULL, sizes[i]);
    /* A literal of 3,000 bytes that goes to the table (RFC 7541, 6.2.1), and
       that entry again and again. */
    static const uint8_t literal[] = {0x40, 1, 'x', 0x7f, 0xb9, 0x16};
    uint8_t value[3000];
    wire block = {0};
    wire w = {0};

    memset(value, 'y', sizeof(value));
    wire_block(&block, GET);
    wire_add(&block, literal, sizeof(literal));
    wire_add(&block, value, sizeof(value));
    for (k = 0; k < 10000; ++k) {
      wire_add(&block, "\xbe", 1);
    }
    wire_frame(&w, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, block.base,
               block.len);
    wire_free(&block);
    give_the_last(&e, &w);
    assert_int_equal(get_u32(wire_find(&e.out, NGHTTP2_GOAWAY, 0).payload + 4),
                     NGHTTP2_ENHANCE_YOUR_CALM);
    assert_true(ngp_h2_get_counters(e.h2)->header_bytes_received < 300000);
    end_free(&e);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(no_error_in_the_middle_is_no_good_end),
      cmocka_unit_test(no_error_after_the_response_is_a_good_end),
      cmocka_unit_test(a_refusal_in_the_last_frame_is_no_good_end),
      cmocka_unit_test(a_whole_response_goes_out_before_a_reset),
      cmocka_unit_test(a_reset_after_the_end_waits_for_another_send),
      cmocka_unit_test(a_stream_that_depends_on_itself_is_reset),
      cmocka_unit_test(frames_that_do_nothing_are_bounded),
      cmocka_unit_test(a_block_many_times_the_limit_ends_the_connection),
  };

  return cmocka_run_group_tests_name("ends", tests, NULL, NULL);
}
