/* SPDX-License-Identifier: MIT */
#include "pair.h"

/* ---- Bytes on the wire ---- */

void wire_free(wire *w) {
  free(w->base);
  *w = (wire){0};
}

void wire_add(wire *w, const void *data, size_t len) {
  if (len > w->cap - w->len) {
    w->cap = (w->len + len) * 2;
    w->base = realloc(w->base, w->cap);
    assert_non_null(w->base);
  }
  if (len) {
    memcpy(w->base + w->len, data, len);
    w->len += len;
  }
}

void wire_shift(wire *w, size_t n) {
  assert_true(n <= w->len);
  if (n) {
    memmove(w->base, w->base + n, w->len - n);
    w->len -= n;
  }
}

static void put_u32(uint8_t *p, uint32_t value) {
  p[0] = (uint8_t)(value >> 24);
  p[1] = (uint8_t)(value >> 16);
  p[2] = (uint8_t)(value >> 8);
  p[3] = (uint8_t)value;
}

uint32_t get_u32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
         p[3];
}

void wire_frame(wire *w, uint8_t type, uint8_t flags, int32_t stream_id,
                const void *payload, size_t len) {
  uint8_t hd[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len,
                   type, flags};

  put_u32(hd + 5, (uint32_t)stream_id);
  wire_add(w, hd, sizeof(hd));
  wire_add(w, payload, len);
}

void wire_frame_u32(wire *w, uint8_t type, uint8_t flags, int32_t stream_id,
                    uint32_t value) {
  uint8_t payload[4];

  put_u32(payload, value);
  wire_frame(w, type, flags, stream_id, payload, sizeof(payload));
}

void wire_setting(wire *w, uint16_t id, uint32_t value) {
  uint8_t payload[6] = {(uint8_t)(id >> 8), (uint8_t)id};

  put_u32(payload + 2, value);
  wire_frame(w, NGHTTP2_SETTINGS, 0, 0, payload, sizeof(payload));
}

void wire_preface(wire *w) {
  wire_add(w, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
  wire_frame(w, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

/* A string literal without Huffman coding (RFC 7541, 5.2). */
static void wire_string(wire *w, const char *s, size_t len) {
  uint8_t byte = (uint8_t)(len < 127 ? len : 127);

  wire_add(w, &byte, 1);
  if (len >= 127) {
    size_t rest = len - 127;

    while (rest >= 128) {
      byte = (uint8_t)(rest % 128 + 128);
      wire_add(w, &byte, 1);
      rest /= 128;
    }
    byte = (uint8_t)rest;
    wire_add(w, &byte, 1);
  }
  wire_add(w, s, len);
}

/* Takes one field off |*pfields|; 0 at the end. */
static int next_field(const char **pfields, const char **pname,
                      size_t *pnamelen, const char **pvalue,
                      size_t *pvaluelen) {
  const char *line = *pfields;
  const char *equals, *feed;

  if (!*line) {
    return 0;
  }
  feed = strchr(line, '\n');
  equals = strchr(line, '=');
  assert_true(feed && equals && equals < feed);
  *pname = line;
  *pnamelen = (size_t)(equals - line);
  *pvalue = equals + 1;
  *pvaluelen = (size_t)(feed - equals - 1);
  *pfields = feed + 1;
  return 1;
}

void wire_block(wire *w, const char *fields) {
  const char *name, *value;
  size_t namelen, valuelen;

  while (next_field(&fields, &name, &namelen, &value, &valuelen)) {
    wire_add(w, "\0", 1);
    wire_string(w, name, namelen);
    wire_string(w, value, valuelen);
  }
}

void wire_headers(wire *w, uint8_t flags, int32_t stream_id,
                  const char *fields) {
  wire block = {0};

  wire_block(&block, fields);
  wire_frame(w, NGHTTP2_HEADERS, (uint8_t)(flags | NGHTTP2_FLAG_END_HEADERS),
             stream_id, block.base, block.len);
  wire_free(&block);
}

void wire_get(wire *w, int32_t stream_id) {
  wire_headers(w, NGHTTP2_FLAG_END_STREAM, stream_id, GET);
}

int wire_next(const wire *w, size_t *pos, wire_view *view) {
  const uint8_t *p = w->base + *pos;

  if (*pos == w->len) {
    return 0;
  }
  assert_true(w->len - *pos >= 9);
  view->len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
  view->type = p[3];
  view->flags = p[4];
  view->stream_id = (int32_t)get_u32(p + 5);
  view->payload = p + 9;
  assert_true(w->len - *pos - 9 >= view->len);
  *pos += 9 + view->len;
  return 1;
}

/* Where frames begin: a client's output may have its preface first. */
static size_t first_frame(const wire *w) {
  return w->len >= NGHTTP2_CLIENT_MAGIC_LEN &&
                 memcmp(w->base, NGHTTP2_CLIENT_MAGIC,
                        NGHTTP2_CLIENT_MAGIC_LEN) == 0
             ? NGHTTP2_CLIENT_MAGIC_LEN
             : 0;
}

wire_view wire_find(const wire *w, uint8_t type, size_t nth) {
  size_t pos = first_frame(w);
  wire_view view = {0};

  while (wire_next(w, &pos, &view)) {
    if (view.type == type && nth-- == 0) {
      return view;
    }
  }
  fail_msg("no frame of type %d was sent", type);
  return view;
}

size_t wire_count(const wire *w, uint8_t type) {
  size_t pos = first_frame(w);
  size_t n = 0;
  wire_view view;

  while (wire_next(w, &pos, &view)) {
    n += view.type == type;
  }
  return n;
}

/* ---- Memory ---- */

/* Nonzero if this call is to fail. */
static int count_call(counting *c) {
  size_t call = c->calls++;

  if (call == c->fail_at || (c->forever && call > c->fail_at)) {
    ++c->failed;
    return 1;
  }
  return 0;
}

static void *counting_malloc(size_t size, void *user_data) {
  counting *c = user_data;
  void *ptr = count_call(c) ? NULL : malloc(size);

  c->live += ptr != NULL;
  return ptr;
}

static void *counting_calloc(size_t n, size_t size, void *user_data) {
  counting *c = user_data;
  void *ptr = count_call(c) ? NULL : calloc(n, size);

  c->live += ptr != NULL;
  return ptr;
}

/* nghttp2 before 1.64 frees a DATA frame's item twice if the first four places
   of a queue of streams are not to be had: they are let through. */
static int must_not_fail(const void *old, size_t size) {
  return NGHTTP2_VERSION_NUM < 0x014000 && !old && size == 4 * sizeof(void *);
}

static void *counting_realloc(void *old, size_t size, void *user_data) {
  counting *c = user_data;
  int fails = !must_not_fail(old, size) && count_call(c);
  void *ptr = fails ? NULL : realloc(old, size);

  c->live += ptr && !old;
  return ptr;
}

static void counting_free(void *ptr, void *user_data) {
  counting *c = user_data;

  c->live -= ptr != NULL;
  free(ptr);
}

void counting_init(counting *c) {
  *c = (counting){.mem = {.mem_user_data = c,
                          .malloc = counting_malloc,
                          .free = counting_free,
                          .calloc = counting_calloc,
                          .realloc = counting_realloc},
                  .fail_at = SIZE_MAX};
}

/* ---- One end ---- */

int end_init(end *e, const ngp_h2_options *options, nghttp2_mem *mem) {
  *e = (end){.limit = SIZE_MAX};
  return ngp_h2_new(&e->h2, options, mem);
}

void end_forget(end *e) {
  size_t i;

  for (i = 0; i < e->nlog; ++i) {
    wire_free(&e->log[i].fields);
    wire_free(&e->log[i].data);
    wire_free(&e->log[i].data2);
  }
  e->nlog = 0;
}

void end_release(end *e) {
  void *owner;

  while ((owner = ngp_h2_take_owner(e->h2)) != NULL) {
    ++e->released;
    free(owner);
  }
}

void end_free(end *e) {
  if (e->h2) {
    ngp_h2_abandon_bodies(e->h2);
    end_release(e);
  }
  ngp_h2_del(e->h2);
  end_forget(e);
  free(e->log);
  wire_free(&e->out);
  /* Every owner that was taken comes back, whatever happened. */
  assert_int_equal(e->given, e->released);
}

static void copy_fields(const end *e, seen *s) {
  const ngp_h2_field *fields = ngp_h2_fields(e->h2);
  size_t i;

  for (i = 0; i < s->event.nfields; ++i) {
    const ngp_h2_field *field = &fields[s->event.first_field + i];
    nghttp2_vec name = nghttp2_rcbuf_get_buf(field->name);
    nghttp2_vec value = nghttp2_rcbuf_get_buf(field->value);

    if (field->never_indexed) {
      wire_add(&s->fields, "!", 1);
    }
    wire_add(&s->fields, name.base, name.len);
    wire_add(&s->fields, "=", 1);
    wire_add(&s->fields, value.base, value.len);
    wire_add(&s->fields, "\n", 1);
  }
}

void end_collect(end *e) {
  size_t i, n;
  const ngp_h2_event *events = ngp_h2_events(e->h2, &n);

  for (i = 0; i < n; ++i) {
    seen *s;

    if (e->nlog == e->log_cap) {
      e->log_cap = e->log_cap ? e->log_cap * 2 : 16;
      e->log = realloc(e->log, e->log_cap * sizeof(*e->log));
      assert_non_null(e->log);
    }
    s = &e->log[e->nlog++];
    *s = (seen){.event = events[i]};
    wire_add(&s->data, events[i].data, events[i].len);
    wire_add(&s->data2, events[i].data2, events[i].len2);
    copy_fields(e, s);
  }
  ngp_h2_clear_events(e->h2);
}

int end_recv(end *e, const void *data, size_t len) {
  const uint8_t *p = data;

  while (len) {
    size_t n = e->chunk && e->chunk < len ? e->chunk : len;
    size_t consumed = 0;
    uint8_t *piece = malloc(n);
    int rv;

    assert_non_null(piece);
    memcpy(piece, p, n);
    rv = ngp_h2_recv(e->h2, piece, n, &consumed);
    end_collect(e);
    free(piece);
    if (rv != 0) {
      return rv;
    }
    assert_true(consumed && consumed <= n);
    p += consumed;
    len -= consumed;
  }
  return 0;
}

int end_recv_wire(end *e, const wire *w) {
  return end_recv(e, w->base, w->len);
}

int end_send(end *e) {
  for (;;) {
    int rv = ngp_h2_send(e->h2, e->limit, e->by_reference);
    size_t i, n, len, sum = 0;
    const ngp_h2_segment *segments = ngp_h2_output(e->h2, &n, &len);

    if (segments) {
      for (i = 0; i < n; ++i) {
        assert_true(segments[i].len > 0);
        e->nrefs += segments[i].owner != NULL;
        sum += segments[i].len;
        wire_add(&e->out, segments[i].base, segments[i].len);
      }
      assert_int_equal(sum, len);
    }
    ngp_h2_clear_output(e->h2);
    end_release(e);
    end_collect(e);
    if (rv != 0 || !segments) {
      return rv;
    }
  }
}

int end_push(end *e, int32_t stream_id, const void *data, size_t len,
             int end_stream) {
  uint8_t *owner = malloc(len ? len : 1);
  int rv;

  assert_non_null(owner);
  if (len) {
    memcpy(owner, data, len);
  }
  rv = ngp_h2_queue_body(e->h2, stream_id, owner, len, owner, end_stream);
  if (rv == 0 && len) {
    ++e->given;
  } else {
    free(owner);
  }
  return rv;
}

int end_push_pattern(end *e, int32_t stream_id, size_t len, int end_stream) {
  uint8_t *data = malloc(len + 1);
  size_t i;
  int rv;

  assert_non_null(data);
  for (i = 0; i < len; ++i) {
    data[i] = (uint8_t)(i % 251);
  }
  rv = end_push(e, stream_id, data, len, end_stream);
  free(data);
  return rv;
}

const seen *end_find(const end *e, ngp_h2_event_type type, int32_t stream_id,
                     size_t nth) {
  size_t i;

  for (i = 0; i < e->nlog; ++i) {
    const ngp_h2_event *event = &e->log[i].event;

    if (event->type == type &&
        (stream_id < 0 || event->stream_id == stream_id) && nth-- == 0) {
      return &e->log[i];
    }
  }
  return NULL;
}

const seen *end_saw(const end *e, ngp_h2_event_type type, int32_t stream_id) {
  const seen *s = end_find(e, type, stream_id, 0);

  if (!s) {
    fail_msg("no event %d on stream %d", (int)type, (int)stream_id);
  }
  return s;
}

size_t end_count(const end *e, ngp_h2_event_type type, int32_t stream_id) {
  size_t n = 0;

  while (end_find(e, type, stream_id, n)) {
    ++n;
  }
  return n;
}

size_t end_body(const end *e, int32_t stream_id, wire *body) {
  size_t ends = 0;
  size_t i;

  *body = (wire){0};
  for (i = 0; i < e->nlog; ++i) {
    const ngp_h2_event *event = &e->log[i].event;

    if (event->stream_id != stream_id) {
      continue;
    }
    if (event->type == NGP_H2_EVENT_DATA) {
      wire_add(body, e->log[i].data.base, e->log[i].data.len);
    }
    ends += event->end_stream;
  }
  return ends;
}

/* ---- Messages ---- */

nvlist nv_of(const char *fields) {
  nvlist list = {.nvlen = 0};
  const char *name, *value;
  size_t namelen, valuelen;

  while (next_field(&fields, &name, &namelen, &value, &valuelen)) {
    assert_true(list.nvlen < MAX_NV);
    list.nva[list.nvlen++] = (nghttp2_nv){.name = (uint8_t *)name,
                                          .value = (uint8_t *)value,
                                          .namelen = namelen,
                                          .valuelen = valuelen};
  }
  return list;
}

int32_t submit_request(end *e, const char *fields, int end_stream) {
  ngp_h2_header_error error;
  nvlist list = nv_of(fields);

  return ngp_h2_submit_request(e->h2, list.nva, list.nvlen, end_stream, &error);
}

int submit_response(end *e, int32_t stream_id, const char *fields,
                    int end_stream) {
  ngp_h2_header_error error;
  nvlist list = nv_of(fields);

  return ngp_h2_submit_response(e->h2, stream_id, list.nva, list.nvlen,
                                end_stream, &error);
}

int submit_informational(end *e, int32_t stream_id, const char *fields) {
  ngp_h2_header_error error;
  nvlist list = nv_of(fields);

  return ngp_h2_submit_informational(e->h2, stream_id, list.nva, list.nvlen,
                                     &error);
}

int submit_trailers(end *e, int32_t stream_id, const char *fields) {
  ngp_h2_header_error error;
  nvlist list = nv_of(fields);

  return ngp_h2_submit_trailers(e->h2, stream_id, list.nva, list.nvlen, &error);
}

int32_t submit_push(end *e, int32_t stream_id, const char *fields) {
  ngp_h2_header_error error;
  nvlist list = nv_of(fields);

  return ngp_h2_submit_push_promise(e->h2, stream_id, list.nva, list.nvlen,
                                    &error);
}

/* ---- Two ends ---- */

void pair_init(pair *p, const ngp_h2_options *client,
               const ngp_h2_options *server) {
  ngp_h2_options options = client ? *client : (ngp_h2_options){0};

  options.is_client = 1;
  assert_ok(end_init(&p->client, &options, NULL));
  options = server ? *server : (ngp_h2_options){0};
  options.is_client = 0;
  assert_ok(end_init(&p->server, &options, NULL));
}

void pair_free(pair *p) {
  end_free(&p->client);
  end_free(&p->server);
}

/* Sends what |from| has and feeds it to |to|; |*pmoved| gets how much. */
static int carry(end *from, end *to, size_t *pmoved) {
  int rv = end_send(from);

  *pmoved += from->out.len;
  if (rv == 0 && from->out.len && ngp_h2_alive(to->h2)) {
    rv = end_recv_wire(to, &from->out);
    if (rv == NGP_ERR_CONNECTION_CLOSED) {
      /* What follows the frame that ended it is not read any more. */
      rv = 0;
    }
  }
  wire_shift(&from->out, from->out.len);
  return rv;
}

int pair_pump(pair *p) {
  size_t moved;
  int rv;

  do {
    moved = 0;
    rv = carry(&p->client, &p->server, &moved);
    if (rv == 0) {
      rv = carry(&p->server, &p->client, &moved);
    }
  } while (rv == 0 && moved);
  return rv;
}

void pair_greet(pair *p) {
  const nghttp2_settings_entry first = {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES,
                                        1};

  assert_ok(ngp_h2_submit_settings(p->client.h2, &first, 1));
  assert_ok(ngp_h2_submit_settings(p->server.h2, &first, 1));
  assert_ok(pair_pump(p));
}

size_t pair_chunk;

pair pair_connect(const ngp_h2_options *client, const ngp_h2_options *server) {
  pair p;

  pair_init(&p, client, server);
  p.client.chunk = p.server.chunk = pair_chunk;
  pair_greet(&p);
  return p;
}

end end_greeted(const ngp_h2_options *options) {
  wire w = {0};
  end e;

  assert_ok(end_init(&e, options, NULL));
  assert_ok(ngp_h2_submit_settings(e.h2, NULL, 0));
  if (options && options->is_client) {
    wire_frame(&w, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
  } else {
    wire_preface(&w);
  }
  assert_ok(end_recv_wire(&e, &w));
  wire_free(&w);
  assert_ok(end_send(&e));
  wire_shift(&e.out, e.out.len);
  end_forget(&e);
  return e;
}
