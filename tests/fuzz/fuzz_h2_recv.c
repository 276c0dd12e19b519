/*
 * One end, whose peer sends anything, while calls are made on it.
 * SPDX-License-Identifier: MIT
 *
 * The first two bytes choose the role and the options.  Then each byte below
 * 0x60 begins a call (ops.c), one below 0xa0 a frame of our making, and others
 * say how many raw bytes come in.
 */
#include "ops.h"

static void give(end *e, const wire *w) {
  int rv;

  if (!ngp_h2_alive(e->h2)) {
    return;
  }
  rv = end_recv_wire(e, w);
  CHECK(rv == 0 || rv == NGP_ERR_CONNECTION_CLOSED);
}

static void give_raw(end *e, input *in, size_t n) {
  const uint8_t *data = take_bytes(in, &n);
  wire w = {0};

  wire_add(&w, data, n);
  give(e, &w);
  wire_free(&w);
}

static void give_frame(end *e, input *in) {
  static const char *const lists[] = {
      GET,
      POST "content-length=3\n",
      ":status=200\n",
      ":status=103\n",
      "digest=1\n",
      HEAD "host=example.org\nx-a=1\nx-b=2\nx-c=3\n",
      ":status=200\ncontent-length=3\n",
      ":method=CONNECT\n:authority=a\n",
  };
  uint8_t type = take(in);
  uint8_t flags = take(in);
  int32_t id = take_stream_id(in);
  size_t len = take(in);
  wire payload = {0};
  wire w = {0};

  type = type < 0xc0 ? type % 0x11 : type;
  if (type == NGHTTP2_HEADERS && len < 8 * 16) {
    flags = (uint8_t)((flags & NGHTTP2_FLAG_END_STREAM) |
                      (len & 8 ? 0 : NGHTTP2_FLAG_END_HEADERS));
    wire_block(&payload, lists[len % 8]);
  } else if (type == NGHTTP2_PUSH_PROMISE && len < 8 * 16) {
    flags = NGHTTP2_FLAG_END_HEADERS;
    wire_add(&payload, "\0\0\0", 3);
    wire_add(&payload, &(uint8_t){(uint8_t)(len / 8 * 2)}, 1);
    wire_block(&payload, lists[len % 8]);
  } else {
    const uint8_t *data = take_bytes(in, &len);

    wire_add(&payload, data, len);
  }
  wire_frame(&w, type, flags, id & INT32_MAX, payload.base, payload.len);
  give(e, &w);
  wire_free(&payload);
  wire_free(&w);
}

static void greet(end *e) {
  wire w = {0};

  CHECK(ngp_h2_submit_settings(e->h2,
                               &(nghttp2_settings_entry){
                                   NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
                               1) == 0);
  if (ngp_h2_session(e->h2) &&
      nghttp2_session_check_server_session(ngp_h2_session(e->h2))) {
    wire_preface(&w);
  } else {
    wire_frame(&w, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
  }
  give(e, &w);
  wire_free(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  uint8_t role = size ? data[0] : 0;
  ngp_h2_options options = take_options(&in);
  op_state state = {0};
  end e;

  options.is_client = role & 1;
  CHECK(end_init(&e, &options, NULL) == 0);
  if (!(role & 0x80)) {
    greet(&e);
  }
  e.by_reference = role >> 6 & 1;
  while (in.left) {
    uint8_t what = take(&in);

    if (what < 0x60) {
      op_run(&e, &in, OPS_ALL);
    } else if (what < 0xa0) {
      give_frame(&e, &in);
    } else {
      give_raw(&e, &in, what - 0xa0U + 1U);
    }
    op_watch(&e, &state, 0);
    wire_shift(&e.out, e.out.len);
  }
  CHECK(end_send(&e) == 0);
  op_watch(&e, &state, 0);
  end_free(&e);
  return 0;
}
