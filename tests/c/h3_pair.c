/* SPDX-License-Identifier: MIT */
#include "h3_pair.h"

static void say(h3_end *e, const char *format, ...) {
  va_list args;
  int n;

  va_start(args, format);
  n = vsnprintf(e->log + e->log_len, sizeof(e->log) - e->log_len, format, args);
  va_end(args);
  e->log_len += (size_t)n;
  assert_true(e->log_len < sizeof(e->log));
}

static void say_event(h3_end *e, const ngp_h3_event *event) {
  static const char *const names[] = {
      [NGP_H3_EVENT_HEADERS] = "headers",
      [NGP_H3_EVENT_DATA] = "data",
      [NGP_H3_EVENT_PUSH_PROMISE] = "promise",
      [NGP_H3_EVENT_DATAGRAM] = "datagram",
      [NGP_H3_EVENT_WEBTRANSPORT_DATA] = "webtransport",
      [NGP_H3_EVENT_SETTINGS] = "settings",
      [NGP_H3_EVENT_GOAWAY] = "goaway",
      [NGP_H3_EVENT_MAX_PUSH_ID] = "max_push_id",
      [NGP_H3_EVENT_CANCEL_PUSH] = "cancel_push",
      [NGP_H3_EVENT_PRIORITY_UPDATE] = "priority_update",
      [NGP_H3_EVENT_ORIGIN] = "origin",
      [NGP_H3_EVENT_STREAM_RESET] = "reset",
      [NGP_H3_EVENT_STOP_SENDING] = "stop",
      [NGP_H3_EVENT_CAPSULE] = "capsule",
      [NGP_H3_EVENT_SESSION_DRAINED] = "drained",
      [NGP_H3_EVENT_SESSION_CLOSED] = "closed",
      [NGP_H3_EVENT_LOG_DATA_FRAME] = "log_data",
      [NGP_H3_EVENT_LOG_STREAM_TYPE] = "log_type",
  };
  const nghttp3_qpack_nv *fields = ngp_h3_fields(e->h3);
  size_t i;

  say(e, "%s", names[event->type]);
  if (event->stream_id != NGP_H3_NO_ID) {
    say(e, " %d", (int)event->stream_id);
  }
  if (event->push_id != NGP_H3_NO_ID) {
    say(e, " push %d", (int)event->push_id);
  }
  say(e, "%s", event->end_stream ? "+" : "");
  for (i = event->field; i < event->field + event->nfields; ++i) {
    nghttp3_vec name = nghttp3_rcbuf_get_buf(fields[i].name);
    nghttp3_vec value = nghttp3_rcbuf_get_buf(fields[i].value);

    say(e, " %.*s=%.*s", (int)name.len, (const char *)name.base, (int)value.len,
        (const char *)value.base);
  }
  if (event->value) {
    say(e, " %llx", (unsigned long long)event->value);
  }
  if (event->len) {
    say(e, " '%.*s'", (int)event->len, (const char *)event->data);
  }
  say(e, "\n");
}

/* Logs what came of an input. */
static int keep_result(h3_end *e, int rv) {
  const ngp_h3_event *events;
  const ngp_h3_phrase *phrase;
  uint64_t code = 0;
  size_t i, n;

  if (rv == NGP_H3_ERR_PROTOCOL) {
    phrase = ngp_h3_closing(e->h3, &code);
    say(e, "close %llx '%.*s'\n", (unsigned long long)code, (int)phrase->len,
        phrase->text);
  }
  events = ngp_h3_events(e->h3, &n);
  assert_true(rv == 0 || rv != NGP_H3_ERR_PROTOCOL || n == 0);
  for (i = 0; rv == 0 && i < n; ++i) {
    say_event(e, &events[i]);
  }
  h3_take_ops(e);
  return rv;
}

/* Adds an item with |len| bytes, to be filled in, to the queue of |e|. */
static h3_item *add_item(h3_end *e, ngp_h3_op_type type, int64_t stream_id,
                         size_t len) {
  h3_item *item = calloc(1, sizeof(*item) + len);

  assert_non_null(item);
  item->type = type;
  item->stream_id = stream_id;
  item->len = len;
  if (e->last) {
    e->last->next = item;
  } else {
    e->first = item;
  }
  e->last = item;
  return item;
}

void h3_take_ops(h3_end *e) {
  size_t i, n;
  const ngp_h3_op *ops = ngp_h3_ops(e->h3, &n);
  const uint8_t *output = ngp_h3_output(e->h3);

  for (i = 0; i < n; ++i) {
    h3_item *item = add_item(e, ops[i].type, ops[i].stream_id, ops[i].len);

    item->error_code = ops[i].error_code;
    item->end_stream = ops[i].end_stream;
    if (item->len) {
      memcpy(item->data, output + ops[i].offset, item->len);
    }
  }
}

static h3_item *next_item(h3_end *e) {
  h3_item *item = e->first;

  if (item) {
    e->first = item->next;
    if (!e->first) {
      e->last = NULL;
    }
  }
  return item;
}

int h3_recv(h3_end *e, int64_t stream_id, const void *data, size_t len,
            int end_stream) {
  return keep_result(
      e, ngp_h3_recv_stream(e->h3, stream_id, data, len, end_stream));
}

int h3_reset(h3_end *e, int64_t stream_id, uint64_t error_code) {
  return keep_result(e, ngp_h3_recv_reset(e->h3, stream_id, error_code));
}

int h3_stop(h3_end *e, int64_t stream_id, uint64_t error_code) {
  return keep_result(e, ngp_h3_recv_stop_sending(e->h3, stream_id, error_code));
}

static int give(h3_end *to, const h3_item *item, size_t chunk) {
  size_t i;
  int rv = 0;

  switch (item->type) {
  case NGP_H3_OP_RESET:
    return h3_reset(to, item->stream_id, item->error_code);
  case NGP_H3_OP_STOP:
    return h3_stop(to, item->stream_id, item->error_code);
  default:
    break;
  }
  if (chunk == 0 || item->len == 0) {
    return h3_recv(to, item->stream_id, item->data, item->len,
                   item->end_stream);
  }
  for (i = 0; rv == 0 && i < item->len; i += chunk) {
    size_t n = item->len - i < chunk ? item->len - i : chunk;

    rv = h3_recv(to, item->stream_id, item->data + i, n,
                 item->end_stream && i + n == item->len);
  }
  return rv;
}

int h3_pump(h3_pair *p) {
  h3_item *item;
  int rv = 0;

  while (rv == 0 && (p->client.first || p->server.first)) {
    h3_end *from = p->client.first ? &p->client : &p->server;

    item = next_item(from);
    rv = give(from == &p->client ? &p->server : &p->client, item, p->chunk);
    free(item);
  }
  return rv;
}

static int h3_end_init(h3_end *e, const ngp_h3_options *options,
                       nghttp2_mem *mem) {
  static const ngp_h3_setting settings[] = {
      {NGP_H3_SETTING_QPACK_MAX_TABLE_CAPACITY, 4096},
      {NGP_H3_SETTING_QPACK_BLOCKED_STREAMS, 16},
      {NGP_H3_SETTING_ENABLE_CONNECT_PROTOCOL, 1},
      {NGP_H3_SETTING_H3_DATAGRAM, 1},
      {NGP_H3_SETTING_ENABLE_WEBTRANSPORT, 1},
  };
  static const uint64_t types[] = {NGP_H3_STREAM_CONTROL,
                                   NGP_H3_STREAM_QPACK_ENCODER,
                                   NGP_H3_STREAM_QPACK_DECODER};
  size_t i;
  int rv = ngp_h3_new(&e->h3, options, mem);

  if (rv != 0) {
    return rv;
  }
  ngp_h3_set_peer_datagrams(e->h3, 1);
  for (i = 0; i < 3; ++i) {
    rv = ngp_h3_open(e->h3, types[i],
                     (int64_t)(4 * i + 2) + !options->is_client);
    if (rv != 0) {
      return rv;
    }
    h3_take_ops(e);
    if (i == 0) {
      rv = ngp_h3_send_settings(e->h3, settings, 5);
      if (rv != 0) {
        return rv;
      }
      h3_take_ops(e);
    }
  }
  if (options->is_client) {
    rv = ngp_h3_send_max_push_id(e->h3, 8);
    if (rv == 0) {
      h3_take_ops(e);
    }
  }
  return rv;
}

int h3_pair_init(h3_pair *p, void (*change)(ngp_h3_options *options),
                 nghttp2_mem *mem) {
  ngp_h3_options options;
  int rv;

  memset(p, 0, sizeof(*p));
  ngp_h3_options_default(&options);
  options.is_client = 1;
  if (change) {
    change(&options);
  }
  rv = h3_end_init(&p->client, &options, mem);
  if (rv == 0) {
    options.is_client = 0;
    rv = h3_end_init(&p->server, &options, mem);
  }
  if (rv == 0) {
    rv = h3_pump(p);
  }
  return rv;
}

static void h3_end_free(h3_end *e) {
  h3_item *item;

  while ((item = next_item(e))) {
    free(item);
  }
  ngp_h3_del(e->h3);
}

void h3_pair_free(h3_pair *p) {
  h3_end_free(&p->client);
  h3_end_free(&p->server);
}

/* Reads "name=value" lines; the list points into |text|. */
static size_t read_fields(const char *text, nghttp3_nv *nva, size_t max) {
  size_t n = 0;

  while (*text) {
    const char *equals = strchr(text + 1, '=');
    const char *newline = strchr(text, '\n');

    assert_true(n < max);
    nva[n++] = (nghttp3_nv){
        .name = (uint8_t *)text,
        .namelen = (size_t)(equals - text),
        .value = (uint8_t *)equals + 1,
        .valuelen = (size_t)(newline - equals - 1),
    };
    text = newline + 1;
  }
  return n;
}

int h3_headers(h3_end *e, int64_t stream_id, const char *text, int end_stream) {
  nghttp3_nv nva[32];
  int rv = ngp_h3_send_headers(e->h3, stream_id, nva,
                               read_fields(text, nva, 32), end_stream, 1);

  if (rv == 0) {
    h3_take_ops(e);
  }
  return rv;
}

int h3_data(h3_end *e, int64_t stream_id, const char *text, int end_stream) {
  uint8_t header[NGP_H3_MAX_FRAME_HEADER];
  size_t n, len = strlen(text);
  h3_item *item;
  int rv = ngp_h3_send_data(e->h3, stream_id, len, end_stream, header, &n);

  if (rv != 0) {
    return rv;
  }
  item = add_item(e, NGP_H3_OP_SEND, stream_id, n + len);
  item->end_stream = end_stream;
  memcpy(item->data, header, n);
  memcpy(item->data + n, text, len);
  return 0;
}

int h3_promise(h3_end *e, int64_t stream_id, const char *text,
               int64_t push_stream_id) {
  nghttp3_nv nva[32];
  int64_t push_id;
  int rv = ngp_h3_send_push_promise(e->h3, stream_id, nva,
                                    read_fields(text, nva, 32), 1, &push_id);

  if (rv == 0) {
    h3_take_ops(e);
    rv = ngp_h3_open_push(e->h3, push_stream_id, push_id);
  }
  if (rv == 0) {
    h3_take_ops(e);
  }
  return rv;
}

const char *h3_log(h3_end *e) {
  static char text[sizeof(e->log)];

  memcpy(text, e->log, e->log_len);
  text[e->log_len] = '\0';
  e->log_len = 0;
  return text;
}
