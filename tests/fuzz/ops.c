/* SPDX-License-Identifier: MIT */
#include "ops.h"

uint8_t take(input *in) {
  if (!in->left) {
    return 0;
  }
  --in->left;
  return *in->p++;
}

size_t take_below(input *in, size_t n) {
  size_t value = take(in);

  if (n > 256) {
    value = value << 8 | take(in);
  }
  return value % n;
}

uint64_t take_number(input *in) {
  uint8_t b = take(in);

  return b < 128 ? b : (uint64_t)take(in) << (b & 63);
}

const uint8_t *take_bytes(input *in, size_t *pn) {
  const uint8_t *p = in->p;

  if (*pn > in->left) {
    *pn = in->left;
  }
  in->p += *pn;
  in->left -= *pn;
  return p;
}

int32_t take_stream_id(input *in) {
  static const int32_t odd[] = {0, -1, INT32_MAX, INT32_MIN, 257};
  uint8_t byte = take(in);

  return byte < 250 ? byte % 16 : odd[byte % 5];
}

ngp_h2_options take_options(input *in) {
  uint8_t flags = take(in);
  uint8_t limits = take(in);
  ngp_h2_options options = {.manual_credit = flags >> 1 & 1,
                            .default_incremental = flags >> 2 & 1,
                            .recv_extensions = flags >> 3 & 1,
                            .no_auto_ping_ack = flags >> 4 & 1,
                            .pad_multiple = flags & 0x20 ? 16 : 0,
                            .max_provoked_resets = 20};

  if (limits & 1) {
    options.max_header_list_bytes = 400;
    options.max_header_list_count = 6;
  }
  if (limits & 2) {
    options.max_body_queue = 5000;
  }
  if (limits & 4) {
    options.max_data_frame = 100;
  }
  if (limits & 8) {
    options.peer_max_concurrent_streams = 2;
    options.max_reserved_remote_streams = 2;
    options.max_outbound_ack = 10;
    options.max_settings = 3;
    options.max_continuations = 2;
  }
  if (limits & 16) {
    options.stream_reset_burst = 10;
    options.stream_reset_rate = 1;
  }
  return options;
}

uint8_t op_body_byte(int32_t stream_id, uint64_t offset) {
  return (uint8_t)(((uint64_t)stream_id + offset) % 251);
}

int op_push(end *e, int32_t stream_id, size_t len, int end_stream) {
  int64_t expected, queued;
  uint8_t *data = malloc(len + 1);
  size_t i;
  int rv;

  CHECK(data);
  ngp_h2_body_lengths(e->h2, stream_id, &expected, &queued);
  for (i = 0; i < len; ++i) {
    data[i] = op_body_byte(stream_id, (uint64_t)queued + i);
  }
  rv = end_push(e, stream_id, data, len, end_stream);
  free(data);
  return rv;
}

/* ---- Calls ---- */

static void run_request(end *e, input *in) {
  static const char *const lists[] = {
      GET,
      POST,
      POST "content-length=300\n",
      GET "cookie=a=b\nx-a=b\nx-b=c\nAuthorization=secret\npriority=u=1,i\n",
      GET "te=trailers\nx-empty=\n",
  };

  submit_request(e, lists[take_below(in, 5)], take(in) & 1);
}

static void run_response(end *e, input *in) {
  static const char *const lists[] = {
      ":status=200\n", ":status=200\ncontent-length=300\n",
      ":status=404\nserver=ngp\nx-a=b\nset-cookie=a=b\n"};
  int32_t id = take_stream_id(in);

  submit_response(e, id, lists[take_below(in, 3)], take(in) & 1);
}

static void run_queue_body(end *e, input *in) {
  int32_t id = take_stream_id(in);
  size_t len = take_below(in, 20000);

  op_push(e, id, len, take(in) & 1);
}

static void run_settings(end *e, input *in, op_set set) {
  static const uint32_t windows[] = {0, 1, 100, 65535, 1000000};
  static const uint32_t tables[] = {0, 64, 4096, 65536};
  nghttp2_settings_entry iv[3];
  size_t n = take_below(in, 4);
  size_t i;

  for (i = 0; i < n; ++i) {
    switch (take_below(in, 5)) {
    case 0:
      /* nghttp2 ends a connection that lowers it below what is unread. */
      iv[i] = (nghttp2_settings_entry){
          NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
          windows[set == OPS_SANE ? 4 : take_below(in, 5)]};
      break;
    case 1:
      iv[i] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_HEADER_TABLE_SIZE,
                                       tables[take_below(in, 4)]};
      break;
    case 2:
      iv[i] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_FRAME_SIZE,
                                       16384 + (uint32_t)take_below(in, 65536)};
      break;
    case 3:
      iv[i] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                       (uint32_t)take_below(in, 10)};
      break;
    default:
      iv[i] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
                                       (uint32_t)take_below(in, 65536)};
      break;
    }
  }
  ngp_h2_submit_settings(e->h2, iv, n);
}

static void run_extension(end *e, input *in, op_set set) {
  uint8_t payload[256] = {0};
  uint8_t type = take(in);
  size_t len = take(in);

  if (set == OPS_SANE) {
    /* Below are types that have a form. */
    type |= 0x20;
  }
  ngp_h2_submit_extension(e->h2, type, take(in), take(in) & 15, payload, len);
}

/* Sends once, to a limit, and keeps what that gives. */
static void run_send(end *e, input *in) {
  size_t limit = 1 + take_below(in, 65536);
  size_t i, n, len;
  const ngp_h2_segment *segments;

  CHECK(ngp_h2_send(e->h2, limit, take(in) & 1) == 0);
  segments = ngp_h2_output(e->h2, &n, &len);
  for (i = 0; i < n; ++i) {
    wire_add(&e->out, segments[i].base, segments[i].len);
  }
  ngp_h2_clear_output(e->h2);
  end_release(e);
}

static void run_source(end *e, input *in) {
  int32_t id;
  size_t n;

  if (ngp_h2_take_wanted(e->h2, &id, &n)) {
    uint32_t flags;
    size_t len = take_below(in, 65536);

    CHECK(n > 0);
    CHECK(ngp_h2_stream_get(e->h2, id, &flags) == NGP_H2_STATE_OPEN);
    op_push(e, id, len < n ? len : n, take(in) & 1);
  }
}

static void run_queries(end *e, input *in) {
  int32_t id = take_stream_id(in);
  int64_t expected, queued;
  uint32_t flags, urgency;
  int incremental;
  size_t sendable = ngp_h2_sendable(e->h2, id);

  CHECK(sendable <= INT32_MAX);
  CHECK(ngp_h2_queued_body(e->h2, id) <= ngp_h2_queued_body(e->h2, 0));
  ngp_h2_stream_get(e->h2, id, &flags);
  ngp_h2_body_lengths(e->h2, id, &expected, &queued);
  ngp_h2_get_priority(e->h2, id, &urgency, &incremental);
  ngp_h2_want_read(e->h2);
  ngp_h2_want_write(e->h2);
}

static void run_consume(end *e, input *in) {
  int32_t id = take_stream_id(in);
  size_t unacked = ngp_h2_unacked(e->h2, id);
  size_t n = take(in) & 1 ? unacked : take_below(in, 65536);

  if (n <= unacked && unacked) {
    CHECK(ngp_h2_consume(e->h2, id, n) == 0);
  } else {
    CHECK(ngp_h2_consume(e->h2, id, n + 1) != 0 || unacked == 0);
  }
}

static void run_end(end *e, input *in) {
  switch (take_below(in, 5)) {
  case 0:
    ngp_h2_submit_goaway(e->h2, take(in) & 1 ? -1 : take_stream_id(in),
                         NGHTTP2_NO_ERROR, (const uint8_t *)"bye", 3);
    break;
  case 1:
    ngp_h2_submit_shutdown_notice(e->h2);
    break;
  case 2:
    ngp_h2_terminate(e->h2, take_below(in, 14));
    break;
  case 3:
    ngp_h2_recv_eof(e->h2, take_below(in, 14));
    break;
  default: {
    static const uint8_t settings[] = {0, 4, 0, 0, 0, 10};

    ngp_h2_upgrade(e->h2, settings, take_below(in, 7), take(in) & 1);
    break;
  }
  }
}

/* Frames that only few programs send. */
static void run_rare(end *e, input *in, op_set set) {
  nghttp2_origin_entry origin = {(uint8_t *)"https://a.example", 17};
  int32_t id;

  switch (take_below(in, 6)) {
  case 0:
    ngp_h2_submit_priority_update(e->h2, take_stream_id(in),
                                  (const uint8_t *)"u=7,i", take_below(in, 6));
    break;
  case 1:
    id = take_stream_id(in);
    ngp_h2_set_priority(e->h2, id, take(in) & 7, take(in) & 1, take(in) & 1);
    break;
  case 2:
    ngp_h2_submit_altsvc(e->h2, take_stream_id(in),
                         (const uint8_t *)"https://a", take_below(in, 10),
                         (const uint8_t *)"h3", 2);
    break;
  case 3:
    ngp_h2_submit_origin(e->h2, &origin, take(in) & 1);
    break;
  case 4:
    run_extension(e, in, set);
    break;
  default:
    ngp_h2_submit_ping(e->h2, NULL, set == OPS_ALL && (take(in) & 1));
    break;
  }
}

void op_run(end *e, input *in, op_set set) {
  int32_t id;

  switch (take_below(in, 18)) {
  case 0:
    run_request(e, in);
    break;
  case 1:
    run_response(e, in);
    break;
  case 2:
    submit_informational(e, take_stream_id(in), ":status=103\nlink=a\n");
    break;
  case 3:
    submit_trailers(e, take_stream_id(in), take(in) & 1 ? "digest=1\n" : "");
    break;
  case 4:
    submit_push(e, take_stream_id(in), GET);
    break;
  case 5:
  case 6:
    run_queue_body(e, in);
    break;
  case 7:
    id = take_stream_id(in);
    ngp_h2_set_source(e->h2, id, take(in) & 3);
    break;
  case 8:
    run_source(e, in);
    break;
  case 9:
    id = take_stream_id(in);
    ngp_h2_watch_body(e->h2, id, take_below(in, 65536));
    break;
  case 10:
    id = take_stream_id(in);
    ngp_h2_submit_rst(e->h2, id, take_below(in, 14), take(in) & 1);
    break;
  case 11:
    run_consume(e, in);
    break;
  case 12:
    run_settings(e, in, set);
    break;
  case 13:
    id = take_stream_id(in);
    if (take(in) & 1) {
      ngp_h2_submit_window_update(e->h2, id, (int32_t)take_below(in, 65536));
    } else {
      ngp_h2_set_local_window_size(e->h2, id,
                                   (int32_t)take_below(in, 65536) * 20);
    }
    break;
  case 14:
    run_queries(e, in);
    break;
  case 15:
    run_send(e, in);
    break;
  case 16:
    run_rare(e, in, set);
    break;
  default:
    if (set == OPS_ALL) {
      run_end(e, in);
    }
    break;
  }
  end_collect(e);
}

/* ---- Events ---- */

static void watch_stream(op_state *state, const seen *s, int sane) {
  const ngp_h2_event *event = &s->event;
  int32_t id = event->stream_id;
  size_t i;

  if (id >= STATE_IDS) {
    return;
  }
  CHECK(!state->closed[id] || event->type == NGP_H2_EVENT_WINDOW_UPDATE ||
        event->type == NGP_H2_EVENT_ALTSVC ||
        event->type == NGP_H2_EVENT_EXTENSION);
  switch (event->type) {
  case NGP_H2_EVENT_STREAM_RESET:
    /* With this code we reset a stream that we find fault with. */
    CHECK(!sane || event->remote ||
          event->error_code != NGHTTP2_PROTOCOL_ERROR);
    break;
  case NGP_H2_EVENT_DATA:
    CHECK(!state->ended[id]);
    for (i = 0; sane && i < s->data.len; ++i) {
      CHECK(s->data.base[i] == op_body_byte(id, state->received[id] + i));
    }
    state->received[id] += s->data.len;
    break;
  case NGP_H2_EVENT_REQUEST:
  case NGP_H2_EVENT_RESPONSE:
  case NGP_H2_EVENT_INFORMATIONAL:
  case NGP_H2_EVENT_TRAILERS:
    CHECK(!state->ended[id]);
    CHECK(s->fields.len > 0 || event->type == NGP_H2_EVENT_TRAILERS);
    break;
  case NGP_H2_EVENT_STREAM_CLOSED:
    state->closed[id] = 1;
    break;
  default:
    break;
  }
  if (event->end_stream) {
    state->ended[id] = 1;
  }
}

/* With FUZZ_TRACE in the environment every event is printed. */
static void trace(const end *e, const seen *s) {
  static int on = -1;

  if (on < 0) {
    on = getenv("FUZZ_TRACE") != NULL;
  }
  if (on) {
    fprintf(stderr, "%p: event %d stream %d code %u remote %d end %d: %.*s\n",
            (const void *)e, s->event.type, s->event.stream_id,
            s->event.error_code, s->event.remote, s->event.end_stream,
            s->event.type == NGP_H2_EVENT_DATA ? 0 : (int)s->data.len,
            s->data.base ? (const char *)s->data.base : "");
  }
}

void op_watch(end *e, op_state *state, int sane) {
  size_t i;

  for (i = 0; i < e->nlog; ++i) {
    const ngp_h2_event *event = &e->log[i].event;

    trace(e, &e->log[i]);
    CHECK(!state->over);
    CHECK(event->stream_id >= 0);
    if (event->type == NGP_H2_EVENT_CONNECTION_CLOSED) {
      state->over = 1;
      state->over_code = event->error_code;
      CHECK(!ngp_h2_alive(e->h2));
      CHECK(ngp_h2_stream_count(e->h2, NULL) == 0);
      CHECK(ngp_h2_queued_body(e->h2, 0) == 0);
    } else if (event->stream_id > 0) {
      watch_stream(state, &e->log[i], sane);
    }
  }
  end_forget(e);
}
