/*
 * What the peer does wrong is an event; what the caller does wrong is a code.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

static end end_with(int client) {
  const ngp_h2_options options = {.is_client = client ? 1 : 0};

  return end_greeted(&options);
}

static int give(end *e, wire *w) {
  int rv = end_recv_wire(e, w);

  wire_free(w);
  return rv;
}

/* Asserts that |e| has ended the connection, told why, and told the peer. */
static void assert_ended(end *e, uint32_t error_code) {
  const seen *s = end_saw(e, NGP_H2_EVENT_CONNECTION_CLOSED, 0);
  wire_view goaway;

  assert_int_equal(s->event.error_code, error_code);
  assert_int_equal(s->event.remote, 0);
  assert_true(s->data.len > 0);
  assert_false(ngp_h2_alive(e->h2));
  assert_true(ngp_h2_want_write(e->h2));
  assert_ok(end_send(e));
  assert_int_equal(wire_count(&e->out, NGHTTP2_GOAWAY), 1);
  goaway = wire_find(&e->out, NGHTTP2_GOAWAY, 0);
  assert_int_equal(get_u32(goaway.payload + 4), error_code);
  assert_false(ngp_h2_want_write(e->h2));
}

/* Asserts that only |stream_id| was reset, by us. */
static void assert_reset(end *e, int32_t stream_id, uint32_t error_code) {
  const seen *s = end_saw(e, NGP_H2_EVENT_STREAM_RESET, stream_id);
  wire_view rst;

  assert_int_equal(s->event.error_code, error_code);
  assert_int_equal(s->event.remote, 0);
  assert_true(s->data.len > 0);
  assert_ok(end_send(e));
  rst = wire_find(&e->out, NGHTTP2_RST_STREAM, 0);
  assert_int_equal(rst.stream_id, stream_id);
  assert_int_equal(get_u32(rst.payload), error_code);
  assert_int_equal(end_count(e, NGP_H2_EVENT_STREAM_RESET, stream_id), 1);
  assert_int_equal(end_count(e, NGP_H2_EVENT_STREAM_CLOSED, stream_id), 1);
  assert_true(ngp_h2_alive(e->h2));
}

static void anything_but_the_preface_ends_the_connection(void **state) {
  const ngp_h2_options options = {0};
  end e;

  (void)state;
  assert_ok(end_init(&e, &options, NULL));
  assert_ok(end_recv(&e, "GET / HTTP/1.1\r\n\r\n", 18));
  assert_ended(&e, NGHTTP2_PROTOCOL_ERROR);
  end_free(&e);
}

static void a_preface_that_begins_well_is_read_to_its_end(void **state) {
  const ngp_h2_options options = {0};
  end e;

  (void)state;
  assert_ok(end_init(&e, &options, NULL));
  e.chunk = 1;
  assert_int_equal(end_recv(&e, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r_!!!", 28),
                   NGP_ERR_CONNECTION_CLOSED);
  assert_ended(&e, NGHTTP2_PROTOCOL_ERROR);
  end_free(&e);
}

static void connection_errors_are_told_and_answered(void **state) {
  static const struct {
    uint8_t type;
    uint8_t flags;
    int32_t stream_id;
    const char *payload;
    size_t len;
    uint32_t error_code;
  } frames[] = {
      /* DATA, HEADERS, RST_STREAM on stream 0. */
      {NGHTTP2_DATA, 0, 0, "abc", 3, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_HEADERS, 4, 0, "\x82", 1, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_RST_STREAM, 0, 0, "\0\0\0\x8", 4, NGHTTP2_PROTOCOL_ERROR},
      /* Connection frames on a stream. */
      {NGHTTP2_SETTINGS, 0, 1, "", 0, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_PING, 0, 1, "12345678", 8, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_GOAWAY, 0, 1, "\0\0\0\0\0\0\0\0", 8, NGHTTP2_PROTOCOL_ERROR},
      /* Wrong lengths. */
      {NGHTTP2_SETTINGS, 0, 0, "\0", 1, NGHTTP2_FRAME_SIZE_ERROR},
      {NGHTTP2_PING, 0, 0, "1234567", 7, NGHTTP2_FRAME_SIZE_ERROR},
      {NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\1", 3, NGHTTP2_FRAME_SIZE_ERROR},
      {NGHTTP2_SETTINGS, 1, 0, "\0\3\0\0\0\1", 6, NGHTTP2_FRAME_SIZE_ERROR},
      /* Frames for a stream that was never opened. */
      {NGHTTP2_DATA, 0, 1, "abc", 3, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_RST_STREAM, 0, 1, "\0\0\0\x8", 4, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4, NGHTTP2_PROTOCOL_ERROR},
      /* A stream of the server's. */
      {NGHTTP2_HEADERS, 5, 2, "\x82", 1, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_CONTINUATION, 4, 1, "", 0, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_PUSH_PROMISE, 4, 1, "\0\0\0\2\x82", 5, NGHTTP2_PROTOCOL_ERROR},
      /* A window past 2^31-1, and a window update of nothing. */
      {NGHTTP2_WINDOW_UPDATE, 0, 0, "\x7f\xff\xff\xff", 4,
       NGHTTP2_FLOW_CONTROL_ERROR},
      {NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_SETTINGS, 0, 0, "\0\4\x80\0\0\0", 6, NGHTTP2_FLOW_CONTROL_ERROR},
      {NGHTTP2_SETTINGS, 0, 0, "\0\2\0\0\0\2", 6, NGHTTP2_PROTOCOL_ERROR},
      {NGHTTP2_SETTINGS, 0, 0, "\0\5\0\0\0\0", 6, NGHTTP2_PROTOCOL_ERROR},
      /* HPACK: index 0, and an index past the table. */
      {NGHTTP2_HEADERS, 5, 1, "\x80", 1, NGHTTP2_COMPRESSION_ERROR},
      {NGHTTP2_HEADERS, 5, 1, "\xff\x7f", 2, NGHTTP2_COMPRESSION_ERROR},
      /* Padding longer than the frame. */
      {NGHTTP2_HEADERS, 13, 1, "\x9\x82", 2, NGHTTP2_PROTOCOL_ERROR},
  };
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(frames) / sizeof(*frames); ++i) {
    end e = end_with(0);
    wire w = {0};

    wire_frame(&w, frames[i].type, frames[i].flags, frames[i].stream_id,
               frames[i].payload, frames[i].len);
    assert_ok(give(&e, &w));
    if (!end_find(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0, 0)) {
      fail_msg("frame %zu did not end the connection", i);
    }
    assert_ended(&e, frames[i].error_code);
    end_free(&e);
  }
}

static void a_frame_larger_than_we_allow_ends_the_connection(void **state) {
  static uint8_t payload[16385];
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_headers(&w, 0, 1, POST);
  wire_frame(&w, NGHTTP2_DATA, 0, 1, payload, sizeof(payload));
  assert_ok(give(&e, &w));
  assert_non_null(end_saw(&e, NGP_H2_EVENT_STREAM_CLOSED, 1));
  assert_ended(&e, NGHTTP2_FRAME_SIZE_ERROR);
  end_free(&e);
}

static void malformed_requests_are_reset_alone(void **state) {
  static const char *const requests[] = {
      ":scheme=https\n:path=/\n:authority=a\n",
      ":method=GET\n:path=/\n:authority=a\n",
      ":method=GET\n:scheme=https\n:authority=a\n",
      ":method=GET\n:scheme=https\n:path=\n:authority=a\n",
      GET ":status=200\n",
      GET ":method=GET\n",
      "a=1\n" GET,
      GET "Upper=1\n",
      GET "connection=close\n",
      GET "te=gzip\n",
      GET "transfer-encoding=chunked\n",
      GET "content-length=abc\n",
      GET "host=other.example\n",
      GET "a b=1\n",
      GET "a=1\r\n",
  };
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(requests) / sizeof(*requests); ++i) {
    end e = end_with(0);
    wire w = {0};

    wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 1, requests[i]);
    wire_get(&w, 3);
    assert_ok(give(&e, &w));
    if (end_find(&e, NGP_H2_EVENT_REQUEST, 1, 0)) {
      fail_msg("request %zu was let through", i);
    }
    assert_reset(&e, 1, NGHTTP2_PROTOCOL_ERROR);
    assert_non_null(end_saw(&e, NGP_H2_EVENT_REQUEST, 3));
    end_free(&e);
  }
}

static void a_body_that_is_not_as_long_as_it_said_is_reset(void **state) {
  size_t i;

  (void)state;
  for (i = 1; i < 4; i += 2) {
    end e = end_with(0);
    wire w = {0};

    wire_headers(&w, 0, 1, POST "content-length=2\n");
    wire_frame(&w, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, "abc", i);
    assert_ok(give(&e, &w));
    assert_reset(&e, 1, NGHTTP2_PROTOCOL_ERROR);
    end_free(&e);
  }
}

static void trailers_must_end_their_stream(void **state) {
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_headers(&w, 0, 1, POST);
  wire_headers(&w, 0, 1, "digest=1\n");
  assert_ok(give(&e, &w));
  assert_null(end_find(&e, NGP_H2_EVENT_TRAILERS, 1, 0));
  assert_reset(&e, 1, NGHTTP2_PROTOCOL_ERROR);
  end_free(&e);
}

static void malformed_responses_are_reset_alone(void **state) {
  static const char *const responses[] = {
      "a=1\n",
      ":status=2000\n",
      ":status=abc\n",
      ":status=101\n",
      ":status=200\n:status=200\n",
      ":method=GET\n:status=200\n",
      ":status=200\nconnection=close\n",
      ":status=204\ncontent-length=1\n",
  };
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(responses) / sizeof(*responses); ++i) {
    end e = end_with(1);
    wire w = {0};

    assert_int_equal(submit_request(&e, GET, 1), 1);
    assert_ok(end_send(&e));
    wire_shift(&e.out, e.out.len);
    wire_headers(&w, 0, 1, responses[i]);
    assert_ok(give(&e, &w));
    if (end_find(&e, NGP_H2_EVENT_RESPONSE, 1, 0)) {
      fail_msg("response %zu was let through", i);
    }
    assert_reset(&e, 1, NGHTTP2_PROTOCOL_ERROR);
    end_free(&e);
  }
}

static void data_before_a_response_end_the_connection(void **state) {
  end e = end_with(1);
  wire w = {0};

  (void)state;
  submit_request(&e, GET, 1);
  assert_ok(end_send(&e));
  wire_shift(&e.out, e.out.len);
  wire_frame(&w, NGHTTP2_DATA, 0, 1, "abc", 3);
  assert_ok(give(&e, &w));
  assert_null(end_find(&e, NGP_H2_EVENT_DATA, 1, 0));
  assert_ended(&e, NGHTTP2_PROTOCOL_ERROR);
  end_free(&e);
}

static void data_after_the_end_end_the_connection(void **state) {
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_get(&w, 1);
  wire_frame(&w, NGHTTP2_DATA, 0, 1, "abc", 3);
  assert_ok(give(&e, &w));
  assert_null(end_find(&e, NGP_H2_EVENT_DATA, 1, 0));
  assert_ended(&e, NGHTTP2_STREAM_CLOSED);
  end_free(&e);
}

static void a_window_past_its_bound_is_a_flow_control_error(void **state) {
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_headers(&w, 0, 1, POST);
  wire_frame_u32(&w, NGHTTP2_WINDOW_UPDATE, 0, 1, 0x7fffffff);
  assert_ok(give(&e, &w));
  /* RFC 9113, 6.9.1 has the stream reset; newer nghttp2 ends the connection. */
  if (ngp_h2_alive(e.h2)) {
    assert_reset(&e, 1, NGHTTP2_FLOW_CONTROL_ERROR);
  } else {
    assert_ended(&e, NGHTTP2_FLOW_CONTROL_ERROR);
  }
  end_free(&e);
}

static void what_comes_in_after_our_reset_is_not_told(void **state) {
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_headers(&w, 0, 1, POST);
  assert_ok(give(&e, &w));
  assert_ok(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_CANCEL, 0));
  wire_frame(&w, NGHTTP2_DATA, 0, 1, "abc", 3);
  wire_headers(&w, NGHTTP2_FLAG_END_STREAM, 1, "digest=1\n");
  assert_ok(give(&e, &w));
  assert_ok(end_send(&e));
  assert_null(end_find(&e, NGP_H2_EVENT_DATA, 1, 0));
  assert_null(end_find(&e, NGP_H2_EVENT_TRAILERS, 1, 0));
  assert_int_equal(end_count(&e, NGP_H2_EVENT_STREAM_CLOSED, 1), 1);
  assert_true(ngp_h2_alive(e.h2));
  end_free(&e);
}

static void a_peer_that_resets_mid_body_gives_the_owners_back(void **state) {
  size_t limit;

  (void)state;
  for (limit = 1; limit < 40000; limit += 7000) {
    end e = end_with(0);
    wire w = {0};

    wire_get(&w, 1);
    assert_ok(give(&e, &w));
    assert_ok(submit_response(&e, 1, ":status=200\n", 0));
    assert_ok(end_push_pattern(&e, 1, 30000, 0));
    assert_ok(end_push_pattern(&e, 1, 30000, 1));
    assert_ok(ngp_h2_send(e.h2, limit, 1));
    wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 1, NGHTTP2_CANCEL);
    assert_ok(give(&e, &w));
    assert_int_equal(ngp_h2_queued_body(e.h2, 0), 0);
    assert_ok(end_send(&e));
    assert_int_equal(e.released, 2);
    assert_true(ngp_h2_alive(e.h2));
    end_free(&e);
  }
}

static void
a_peer_that_ends_the_connection_mid_frame_is_no_error(void **state) {
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_get(&w, 1);
  w.len -= 3;
  assert_ok(give(&e, &w));
  assert_ok(ngp_h2_recv_eof(e.h2, NGHTTP2_CANCEL));
  end_collect(&e);
  assert_int_equal(end_saw(&e, NGP_H2_EVENT_CONNECTION_CLOSED, 0)->event.remote,
                   1);
  end_free(&e);
}

static void calls_for_no_stream_are_refused(void **state) {
  static const int32_t ids[] = {0, -1, 1, 2, INT32_MIN, INT32_MAX};
  end e = end_with(0);
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(ids) / sizeof(*ids); ++i) {
    const int32_t id = ids[i];
    uint32_t flags;

    assert_int_equal(submit_response(&e, id, ":status=200\n", 1),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(submit_informational(&e, id, ":status=103\n"),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(submit_trailers(&e, id, "a=1\n"),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(submit_push(&e, id, GET), NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(end_push(&e, id, "a", 1, 0),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(ngp_h2_set_source(e.h2, id, 1),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(ngp_h2_submit_rst(e.h2, id, NGHTTP2_CANCEL, 0),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(ngp_h2_consume(e.h2, id, 1),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
    assert_int_equal(ngp_h2_stream_get(e.h2, id, &flags), NGP_H2_STATE_IDLE);
    assert_int_equal(ngp_h2_sendable(e.h2, id), 0);
    assert_int_equal(ngp_h2_unacked(e.h2, id), 0);
  }
  end_free(&e);
}

static void calls_in_the_wrong_state_are_refused(void **state) {
  end e = end_with(0);
  wire w = {0};
  uint32_t flags;

  (void)state;
  wire_get(&w, 1);
  assert_ok(give(&e, &w));
  assert_int_equal(submit_request(&e, GET, 1),
                   NGHTTP2_ERR_INVALID_STREAM_STATE);
  assert_int_equal(end_push(&e, 1, "a", 1, 0),
                   NGHTTP2_ERR_INVALID_STREAM_STATE);
  assert_int_equal(submit_trailers(&e, 1, "a=1\n"),
                   NGHTTP2_ERR_INVALID_STREAM_STATE);
  assert_int_equal(ngp_h2_set_source(e.h2, 1, 1),
                   NGHTTP2_ERR_INVALID_STREAM_STATE);
  assert_ok(submit_response(&e, 1, ":status=200\n", 0));
  assert_int_equal(submit_response(&e, 1, ":status=200\n", 0),
                   NGHTTP2_ERR_INVALID_STREAM_STATE);
  assert_int_equal(submit_informational(&e, 1, ":status=103\n"),
                   NGHTTP2_ERR_INVALID_STREAM_STATE);
  assert_ok(end_push(&e, 1, NULL, 0, 1));
  assert_int_equal(end_push(&e, 1, "a", 1, 0), NGHTTP2_ERR_STREAM_CLOSED);
  assert_int_equal(submit_trailers(&e, 1, "a=1\n"), NGHTTP2_ERR_STREAM_CLOSED);
  assert_ok(end_send(&e));
  /* The stream is closed: resetting or crediting it is no error. */
  assert_int_equal(submit_response(&e, 1, ":status=200\n", 1),
                   NGHTTP2_ERR_STREAM_CLOSED);
  assert_ok(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_CANCEL, 0));
  assert_ok(ngp_h2_consume(e.h2, 1, 10));
  assert_int_equal(ngp_h2_stream_get(e.h2, 1, &flags), NGP_H2_STATE_CLOSED);
  end_free(&e);
}

static void a_closed_connection_refuses_every_call(void **state) {
  const int closed = NGP_ERR_CONNECTION_CLOSED;
  end e = end_with(1);
  size_t consumed;
  int32_t id;
  size_t n;
  int i;

  (void)state;
  assert_ok(ngp_h2_recv_eof(e.h2, NGHTTP2_NO_ERROR));
  assert_int_equal(ngp_h2_recv(e.h2, (const uint8_t *)"a", 1, &consumed),
                   closed);
  assert_int_equal(submit_request(&e, GET, 1), closed);
  assert_int_equal(submit_response(&e, 1, ":status=200\n", 1), closed);
  assert_int_equal(submit_informational(&e, 1, ":status=103\n"), closed);
  assert_int_equal(submit_trailers(&e, 1, "a=1\n"), closed);
  assert_int_equal(submit_push(&e, 1, GET), closed);
  assert_int_equal(end_push(&e, 1, "a", 1, 0), closed);
  assert_int_equal(ngp_h2_set_source(e.h2, 1, 1), closed);
  assert_int_equal(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_CANCEL, 0), closed);
  assert_int_equal(ngp_h2_consume(e.h2, 1, 1), closed);
  assert_int_equal(ngp_h2_submit_settings(e.h2, NULL, 0), closed);
  assert_int_equal(ngp_h2_submit_ping(e.h2, NULL, 0), closed);
  assert_int_equal(ngp_h2_submit_goaway(e.h2, -1, 0, NULL, 0), closed);
  assert_int_equal(ngp_h2_submit_shutdown_notice(e.h2), closed);
  assert_int_equal(ngp_h2_terminate(e.h2, 0), closed);
  assert_int_equal(ngp_h2_submit_window_update(e.h2, 0, 1), closed);
  assert_int_equal(ngp_h2_set_local_window_size(e.h2, 0, 1), closed);
  assert_int_equal(ngp_h2_upgrade(e.h2, NULL, 0, 0), closed);
  assert_int_equal(ngp_h2_submit_priority_update(e.h2, 1, NULL, 0), closed);
  assert_int_equal(ngp_h2_set_priority(e.h2, 1, 3, 0, 0), closed);
  assert_int_equal(ngp_h2_submit_altsvc(e.h2, 0, NULL, 0, NULL, 0), closed);
  assert_int_equal(ngp_h2_submit_origin(e.h2, NULL, 0), closed);
  assert_int_equal(ngp_h2_submit_extension(e.h2, 0xf0, 0, 0, NULL, 0), closed);
  assert_false(ngp_h2_take_wanted(e.h2, &id, &n));
  for (i = 0; i < 2; ++i) {
    assert_ok(ngp_h2_send(e.h2, SIZE_MAX, 0));
    assert_null(ngp_h2_output(e.h2, &n, &consumed));
  }
  end_free(&e);
}

static void only_servers_push_and_only_on_requests(void **state) {
  end e = end_with(1);
  wire w = {0};

  (void)state;
  submit_request(&e, GET, 1);
  assert_int_equal(submit_push(&e, 1, GET), NGHTTP2_ERR_STREAM_CLOSED);
  submit_request(&e, POST, 0);
  assert_int_equal(submit_push(&e, 3, GET), NGHTTP2_ERR_INVALID_STREAM_STATE);
  end_free(&e);
  e = end_with(0);
  wire_get(&w, 1);
  assert_ok(give(&e, &w));
  assert_int_equal(submit_push(&e, 1, GET), 2);
  assert_int_equal(submit_push(&e, 2, GET), NGHTTP2_ERR_INVALID_STREAM_STATE);
  end_free(&e);
}

static void only_what_exists_is_prioritised(void **state) {
  static const int32_t ids[] = {0, 1, 2, -1, INT32_MIN};
  const uint8_t *value = (const uint8_t *)"u=1";
  end e = end_with(1);
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(ids) / sizeof(*ids); ++i) {
    assert_int_equal(ngp_h2_submit_priority_update(e.h2, ids[i], value, 3),
                     NGHTTP2_ERR_INVALID_STREAM_ID);
  }
  end_free(&e);
  e = end_with(0);
  assert_int_equal(ngp_h2_submit_priority_update(e.h2, 1, value, 3),
                   NGHTTP2_ERR_INVALID_STATE);
  end_free(&e);
}

/* A client whose HEADERS of stream 1 are out, but not their CONTINUATION, and
   a body queued. */
static end client_between_frames(void) {
  static char fields[40000];
  end e = end_with(1);
  size_t n, len;

  strcpy(fields, GET "x-large=");
  n = strlen(fields);
  memset(fields + n, '!', 39000);
  strcpy(fields + n + 39000, "\n");
  assert_int_equal(submit_request(&e, fields, 0), 1);
  assert_ok(end_push_pattern(&e, 1, 100, 1));
  assert_ok(ngp_h2_send(e.h2, 1, 0));
  assert_non_null(ngp_h2_output(e.h2, &n, &len));
  assert_int_equal(len, 9 + 16384);
  return e;
}

static void a_request_reset_between_its_frames_ends(void **state) {
  end e = client_between_frames();
  wire_view rst;

  (void)state;
  assert_ok(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_CANCEL, 0));
  assert_ok(end_send(&e));
  assert_int_equal(wire_count(&e.out, NGHTTP2_CONTINUATION), 2);
  rst = wire_find(&e.out, NGHTTP2_RST_STREAM, 0);
  assert_int_equal(get_u32(rst.payload), NGHTTP2_CANCEL);
  assert_int_equal(wire_count(&e.out, NGHTTP2_DATA), 0);
  assert_int_equal(end_count(&e, NGP_H2_EVENT_STREAM_CLOSED, 1), 1);
  assert_int_equal(e.released, 1);
  end_free(&e);
}

static void a_request_between_its_frames_outlives_goaway(void **state) {
  end e = client_between_frames();
  uint8_t payload[8] = {0x7f, 0xff, 0xff, 0xff};
  wire w = {0};

  (void)state;
  wire_frame(&w, NGHTTP2_GOAWAY, 0, 0, payload, sizeof(payload));
  assert_ok(give(&e, &w));
  assert_ok(end_send(&e));
  assert_int_equal(wire_count(&e.out, NGHTTP2_DATA), 1);
  assert_int_equal(ngp_h2_stream_count(e.h2, NULL), 1);
  assert_null(end_find(&e, NGP_H2_EVENT_STREAM_RESET, 1, 0));
  end_free(&e);
}

static void a_peer_may_reset_a_request_between_its_frames(void **state) {
  end e = client_between_frames();
  wire w = {0};

  (void)state;
  wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 1, NGHTTP2_REFUSED_STREAM);
  assert_ok(give(&e, &w));
  assert_ok(end_send(&e));
  assert_int_equal(wire_count(&e.out, NGHTTP2_CONTINUATION), 2);
  assert_int_equal(wire_count(&e.out, NGHTTP2_DATA), 0);
  assert_int_equal(end_saw(&e, NGP_H2_EVENT_STREAM_RESET, 1)->event.unprocessed,
                   1);
  assert_int_equal(e.released, 1);
  assert_true(ngp_h2_alive(e.h2));
  end_free(&e);
}

static void a_push_whose_parent_is_gone_is_closed_unsent(void **state) {
  end e = end_with(0);
  wire w = {0};

  (void)state;
  wire_get(&w, 1);
  assert_ok(give(&e, &w));
  assert_int_equal(submit_push(&e, 1, GET), 2);
  assert_ok(submit_response(&e, 2, ":status=200\n", 0));
  assert_ok(end_push(&e, 2, "abc", 3, 1));
  wire_frame_u32(&w, NGHTTP2_RST_STREAM, 0, 1, NGHTTP2_CANCEL);
  assert_ok(give(&e, &w));
  assert_ok(end_send(&e));
  assert_int_equal(wire_count(&e.out, NGHTTP2_PUSH_PROMISE), 0);
  assert_non_null(end_saw(&e, NGP_H2_EVENT_STREAM_CLOSED, 2));
  assert_int_equal(e.released, 1);
  assert_int_equal(ngp_h2_stream_count(e.h2, NULL), 0);
  end_free(&e);
}

static void a_promise_on_a_stream_we_reset_is_cancelled(void **state) {
  end e = end_with(1);
  wire block = {0};
  wire w = {0};

  (void)state;
  submit_request(&e, GET, 1);
  assert_ok(end_send(&e));
  assert_ok(ngp_h2_submit_rst(e.h2, 1, NGHTTP2_CANCEL, 0));
  wire_add(&block, "\0\0\0\2", 4);
  wire_block(&block, GET);
  wire_frame(&w, NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, block.base,
             block.len);
  wire_free(&block);
  assert_ok(give(&e, &w));
  assert_ok(end_send(&e));
  assert_null(end_find(&e, NGP_H2_EVENT_PUSH_PROMISE, -1, 0));
  assert_int_equal(ngp_h2_stream_count(e.h2, NULL), 0);
  assert_true(ngp_h2_alive(e.h2));
  end_free(&e);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(anything_but_the_preface_ends_the_connection),
      cmocka_unit_test(a_preface_that_begins_well_is_read_to_its_end),
      cmocka_unit_test(connection_errors_are_told_and_answered),
      cmocka_unit_test(a_frame_larger_than_we_allow_ends_the_connection),
      cmocka_unit_test(malformed_requests_are_reset_alone),
      cmocka_unit_test(a_body_that_is_not_as_long_as_it_said_is_reset),
      cmocka_unit_test(trailers_must_end_their_stream),
      cmocka_unit_test(malformed_responses_are_reset_alone),
      cmocka_unit_test(data_before_a_response_end_the_connection),
      cmocka_unit_test(data_after_the_end_end_the_connection),
      cmocka_unit_test(a_window_past_its_bound_is_a_flow_control_error),
      cmocka_unit_test(what_comes_in_after_our_reset_is_not_told),
      cmocka_unit_test(a_peer_that_resets_mid_body_gives_the_owners_back),
      cmocka_unit_test(a_peer_that_ends_the_connection_mid_frame_is_no_error),
      cmocka_unit_test(calls_for_no_stream_are_refused),
      cmocka_unit_test(calls_in_the_wrong_state_are_refused),
      cmocka_unit_test(a_closed_connection_refuses_every_call),
      cmocka_unit_test(only_servers_push_and_only_on_requests),
      cmocka_unit_test(only_what_exists_is_prioritised),
      cmocka_unit_test(a_request_reset_between_its_frames_ends),
      cmocka_unit_test(a_request_between_its_frames_outlives_goaway),
      cmocka_unit_test(a_peer_may_reset_a_request_between_its_frames),
      cmocka_unit_test(a_push_whose_parent_is_gone_is_closed_unsent),
      cmocka_unit_test(a_promise_on_a_stream_we_reset_is_cancelled),
  };

  return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
