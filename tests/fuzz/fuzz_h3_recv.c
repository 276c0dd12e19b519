/*
 * One end of HTTP/3, whose peer sends anything, while calls are made on it.
 * SPDX-License-Identifier: MIT
 *
 * The first byte chooses the role and the options.  Then each byte says what
 * comes next: bytes of a stream, a frame of our making, an end, or a call.
 */
#include "ops.h"

#include "ngp_h3.h"

/* Reads all that a call left behind, so that a sanitizer sees each byte. */
static void look(ngp_h3 *h3, int rv) {
  static volatile uint8_t sink;
  const nghttp3_qpack_nv *fields = ngp_h3_fields(h3);
  const uint8_t *output = ngp_h3_output(h3);
  const ngp_h3_event *events;
  const ngp_h3_op *ops;
  uint64_t code;
  size_t i, j, n;

  CHECK(rv == 0 || rv == NGP_H3_ERR_PROTOCOL);
  CHECK((rv == NGP_H3_ERR_PROTOCOL) <= (ngp_h3_closing(h3, &code) != NULL));
  events = ngp_h3_events(h3, &n);
  CHECK(rv == 0 || n == 0);
  for (i = 0; i < n; ++i) {
    for (j = 0; j < events[i].len; ++j) {
      sink = (uint8_t)(sink + events[i].data[j]);
    }
    for (j = 0; j < events[i].nfields; ++j) {
      const nghttp3_qpack_nv *nv = &fields[events[i].field + j];

      sink = (uint8_t)(sink + nghttp3_rcbuf_get_buf(nv->name).len +
                       nghttp3_rcbuf_get_buf(nv->value).len);
    }
  }
  ops = ngp_h3_ops(h3, &n);
  for (i = 0; i < n; ++i) {
    for (j = 0; j < ops[i].len; ++j) {
      sink = (uint8_t)(sink + output[ops[i].offset + j]);
    }
  }
}

static int64_t take_stream(input *in) { return (int64_t)take_below(in, 20); }

#define SECTION(TEXT)                                                          \
  { TEXT, sizeof(TEXT) - 1 }

/* Sections that use the static table only, and one that waits for the other. */
static const struct {
  const char *text;
  size_t len;
} sections[] = {
    /* GET https a / */
    SECTION("\x00\x00\xd1\xd7\x50\x01"
            "a\xc1"),
    /* :status 200, 103 */
    SECTION("\x00\x00\xd9"),
    SECTION("\x00\x00\xd8"),
    /* CONNECT webtransport */
    SECTION("\x00\x00\xcf\x27\x02:protocol\x0cwebtransport\xd7\x50\x01"
            "a\xc1"),
    /* x: y */
    SECTION("\x00\x00\x21x\x01y"),
    SECTION("\x02\x00\x80"),
};

#define NSECTIONS (sizeof(sections) / sizeof(*sections))

static void give_frame(ngp_h3 *h3, input *in) {
  static const uint64_t types[] = {0,    1,    1,    1,    3,       4,
                                   5,    7,    0xc,  0xd,  0x21,    0x41,
                                   0x40, 0x54, 0x02, 0x21, 0xf0700, 0xf0701};
  uint8_t text[300];
  uint8_t payload[256];
  int64_t stream_id = take_stream(in);
  uint64_t type = types[take_below(in, sizeof(types) / sizeof(*types))];
  size_t n, len = take(in);
  size_t chunk = take(in);
  size_t i;
  int rv = 0;

  if ((type == 1 || type == 5) && len < NSECTIONS * 8) {
    size_t which = len % NSECTIONS;

    len = 0;
    if (type == 5) {
      payload[len++] = (uint8_t)(which % 9);
    }
    memcpy(payload + len, sections[which].text, sections[which].len);
    len += sections[which].len;
  } else {
    len %= 64;
    for (i = 0; i < len; ++i) {
      payload[i] = take(in);
    }
  }
  n = ngp_put_varint(text, type);
  n += ngp_put_varint(text + n, len);
  memcpy(text + n, payload, len);
  n += len;
  if (chunk < 128) {
    look(h3, ngp_h3_recv_stream(h3, stream_id, text, n, chunk % 5 == 4));
    return;
  }
  for (i = 0; rv == 0 && i < n; i += chunk - 127) {
    size_t size = n - i < chunk - 127 ? n - i : chunk - 127;

    rv = ngp_h3_recv_stream(h3, stream_id, text + i, size, 0);
    look(h3, rv);
  }
}

static void give_bytes(ngp_h3 *h3, input *in) {
  int64_t stream_id = take_stream(in);
  uint8_t how = take(in);
  size_t n = how / 2;
  const uint8_t *data = take_bytes(in, &n);

  look(h3, ngp_h3_recv_stream(h3, stream_id, data, n, how & 1));
}

static void send_something(ngp_h3 *h3, input *in) {
  nghttp3_nv nva[] = {
      {.name = (uint8_t *)":method",
       .value = (uint8_t *)"CONNECT",
       .namelen = 7,
       .valuelen = 7},
      {.name = (uint8_t *)":protocol",
       .value = (uint8_t *)"webtransport",
       .namelen = 9,
       .valuelen = 12},
      {.name = (uint8_t *)":scheme",
       .value = (uint8_t *)"https",
       .namelen = 7,
       .valuelen = 5},
      {.name = (uint8_t *)":path",
       .value = (uint8_t *)"/",
       .namelen = 5,
       .valuelen = 1},
      {.name = (uint8_t *)":authority",
       .value = (uint8_t *)"a.example",
       .namelen = 10,
       .valuelen = 9},
      {.name = (uint8_t *)":status",
       .value = (uint8_t *)"200",
       .namelen = 7,
       .valuelen = 3},
  };
  uint8_t text[NGP_H3_MAX_FRAME_HEADER];
  int64_t stream_id = take_stream(in);
  uint8_t n = take(in);
  int64_t push_id;
  size_t len;

  switch (n % 12) {
  case 0:
    ngp_h3_send_headers(h3, stream_id, nva, 5, n & 16, 1);
    break;
  case 1:
    ngp_h3_send_headers(h3, stream_id, nva + 5, 1, n & 16, 1);
    break;
  case 2:
    ngp_h3_send_data(h3, stream_id, n, n & 16, text, &len);
    break;
  case 3:
    if (ngp_h3_send_push_promise(h3, stream_id, nva, 5, 0, &push_id) == 0) {
      ngp_h3_open_push(h3, 1003 + 4 * push_id, push_id);
    }
    break;
  case 4:
    ngp_h3_send_goaway(h3, (uint64_t)(4 * (n / 10)));
    break;
  case 5:
    /* The QUIC connection gives an identifier once. */
    ngp_h3_open_webtransport(h3, 2000 + 4 * (int64_t)in->left, 0, 0);
    break;
  case 6:
    ngp_h3_close_session(h3, stream_id, n, text, 0);
    break;
  case 7:
    ngp_h3_send_capsule(h3, stream_id, n, (const uint8_t *)"capsule", 7);
    break;
  case 8:
    ngp_h3_end_webtransport(h3, stream_id);
    break;
  case 9:
    ngp_h3_reset_stream(h3, stream_id, n);
    break;
  case 10:
    ngp_h3_stop_stream(h3, stream_id, n);
    break;
  default:
    ngp_h3_send_headers(h3, stream_id, nva, 6, 0, 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  ngp_h3_options config;
  ngp_h3_stream_info info;
  uint8_t options = take(&in);
  size_t place = 0;
  ngp_h3 *h3;

  ngp_h3_options_default(&config);
  config.is_client = !(options & 1);
  config.webtransport = options >> 1 & 1;
  config.extended = options >> 2 & 1;
  config.log = options >> 3 & 1;
  if (options & 16) {
    config.max_field_section_size = 100;
    config.max_buffered = 200;
    config.max_glitches = 5;
    config.max_field_count = 6;
    config.max_reset_streams = 3;
  }
  config.stream_errors = options >> 6 & 1;
  config.spaces = options >> 7 & 1;
  CHECK(ngp_h3_new(&h3, &config, NULL) == 0);
  ngp_h3_set_peer_datagrams(h3, options & 32);
  CHECK(ngp_h3_open(h3, NGP_H3_STREAM_CONTROL, 2 + !config.is_client) == 0);
  CHECK(ngp_h3_open(h3, NGP_H3_STREAM_QPACK_ENCODER, 6 + !config.is_client) ==
        0);
  CHECK(ngp_h3_open(h3, NGP_H3_STREAM_QPACK_DECODER, 10 + !config.is_client) ==
        0);
  while (in.left) {
    switch (take(&in) % 8) {
    case 0:
    case 1:
      give_bytes(h3, &in);
      break;
    case 2:
    case 3:
    case 4:
      give_frame(h3, &in);
      break;
    case 5:
      look(h3, ngp_h3_recv_reset(h3, take_stream(&in), take(&in)));
      look(h3, ngp_h3_recv_stop_sending(h3, take_stream(&in), take(&in)));
      break;
    case 6: {
      size_t n = take_below(&in, 16);
      const uint8_t *datagram = take_bytes(&in, &n);

      look(h3, ngp_h3_recv_datagram(h3, datagram, n));
      break;
    }
    default:
      send_something(h3, &in);
    }
  }
  while (ngp_h3_next_stream(h3, &place, &info)) {
    CHECK(info.recv_state < 3 && info.send_state < 3);
  }
  ngp_h3_del(h3);
  return 0;
}
