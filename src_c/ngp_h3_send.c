/* SPDX-License-Identifier: MIT */
#include "ngp_h3_int.h"

#include <string.h>

/* Makes the record of a stream on which the first frame is sent.  NULL means
   out of memory. */
static ngp_h3_stream *local_stream(ngp_h3 *h3, int64_t stream_id) {
  ngp_h3_stream *stream = ngp_h3_find(h3, stream_id);

  if (!stream) {
    stream = ngp_h3_add_stream(h3, stream_id, NGP_H3_STREAM_REQUEST);
    if (stream && ngp_h3_is_uni(stream_id)) {
      stream->type = NGP_H3_STREAM_PUSH;
      stream->recv_ended = 1;
    }
  }
  return stream;
}

static int unexpected(ngp_h3 *h3, const char *phrase) {
  ngp_h3_phrase_set(&h3->refusal.phrase, phrase);
  return NGP_H3_ERR_FRAME_UNEXPECTED;
}

static int check_fields(ngp_h3 *h3, ngp_h3_checker *checker,
                        ngp_fields_section section, const nghttp3_nv *nva,
                        size_t nvlen) {
  size_t i;
  int rv;

  unsigned flags = NGP_FIELDS_OUTGOING;

  if (!ngp_h3_is_strict(h3)) {
    flags |= NGP_FIELDS_AIOQUIC;
  }
  if (section == NGP_FIELDS_RESPONSE) {
    flags |= NGP_FIELDS_EITHER;
  }
  ngp_h3_checker_init(checker, section, flags, &h3->refusal.phrase);
  for (i = 0; i < nvlen; ++i) {
    rv = ngp_h3_checker_field(checker, nva[i].name, nva[i].namelen,
                              nva[i].value, nva[i].valuelen);
    if (rv != 0) {
      return rv;
    }
  }
  return ngp_h3_checker_end(checker);
}

/* Reads from unchecked fields what the state depends on. */
static void scan_fields(ngp_h3_checker *checker, const nghttp3_nv *nva,
                        size_t nvlen) {
  ngp_fields *fields = &checker->fields;
  size_t i;

  *checker = (ngp_h3_checker){.phrase = NULL};
  fields->content_length = NGP_FIELDS_NO_LENGTH;
  for (i = 0; i < nvlen && nva[i].namelen && nva[i].name[0] == ':'; ++i) {
    const nghttp3_nv *nv = &nva[i];

    if (nv->namelen == 7 && memcmp(nv->name, ":status", 7) == 0) {
      /* aioquic treats any status that begins with 1 as interim. */
      fields->status = nv->valuelen && nv->value[0] == '1' ? 100 : 200;
    } else if (nv->namelen == 7 && memcmp(nv->name, ":method", 7) == 0) {
      fields->head = nv->valuelen == 4 && memcmp(nv->value, "HEAD", 4) == 0;
      fields->connect =
          nv->valuelen == 7 && memcmp(nv->value, "CONNECT", 7) == 0;
    } else if (nv->namelen == 9 && memcmp(nv->name, ":protocol", 9) == 0) {
      fields->seen |= 1u << NGP_TOKEN__PROTOCOL;
      checker->webtransport =
          nv->valuelen >= 12 && memcmp(nv->value, "webtransport", 12) == 0;
    }
  }
}

/* Records the refusal of a body that would have |actual| bytes. */
static int bad_length(ngp_h3 *h3, uint64_t expected, uint64_t actual) {
  h3->refusal.expected = expected;
  h3->refusal.actual = actual;
  return NGP_H3_ERR_BODY_LENGTH;
}

/* Returns the length of the body that our message on |stream| announces by its
   fields; a response without content has no body, whatever its
   content-length. */
static uint64_t announced(const ngp_h3 *h3, const ngp_h3_stream *stream,
                          const ngp_fields *fields) {
  int status = fields->status;

  if (!ngp_h3_is_strict(h3)) {
    return NGP_FIELDS_NO_LENGTH;
  }
  if ((stream && stream->send_no_body) || status == 204 || status == 304) {
    return 0;
  }
  return stream && stream->connect && status / 100 == 2
             ? NGP_FIELDS_NO_LENGTH
             : fields->content_length;
}

static int peer_takes(const ngp_h3 *h3, const nghttp3_nv *nva, size_t nvlen) {
  uint64_t bound = ngp_h3_setting_value(
      h3, NGP_H3_SETTING_MAX_FIELD_SECTION_SIZE, UINT64_MAX);
  uint64_t size = 0;
  size_t i;

  if (bound == UINT64_MAX) {
    return 1;
  }
  for (i = 0; i < nvlen; ++i) {
    size += nva[i].namelen + nva[i].valuelen + 32; /* RFC 9114, 4.2.2 */
  }
  return size <= bound;
}

/* Sends the encoder stream's part of |encoded|, then a frame of |type| whose
   payload is |before|, the prefix and the section. */
static int send_section(ngp_h3 *h3, int64_t stream_id, uint64_t type,
                        const uint8_t *before, size_t beforelen,
                        nghttp3_nv *nva, size_t nvlen, int end_stream) {
  ngp_qpack_encoded encoded;
  uint8_t header[NGP_H3_MAX_FRAME_HEADER];
  size_t len, n;
  int rv;

  rv = ngp_qpack_encoder_encode(&h3->encoder, stream_id, nva, nvlen, &encoded);
  if (rv == 0 && encoded.stream.len) {
    h3->qpack_bytes.encoder_sent += encoded.stream.len;
    rv = ngp_h3_send_bytes(h3, h3->local.qpack_encoder, encoded.stream.base,
                           encoded.stream.len, 0);
  }
  if (rv == 0) {
    rv = ngp_h3_begin_send(h3, stream_id);
  }
  if (rv != 0) {
    return rv;
  }
  len = beforelen + encoded.prefix.len + encoded.section.len;
  n = ngp_put_varint(header, type);
  n += ngp_put_varint(header + n, len);
  rv = ngp_buf_reserve(&h3->results.out, n + len);
  if (rv == 0) {
    /* This cannot fail: there is room. */
    ngp_buf_add(&h3->results.out, header, n);
    ngp_buf_add(&h3->results.out, before, beforelen);
    ngp_buf_add(&h3->results.out, encoded.prefix.base, encoded.prefix.len);
    ngp_buf_add(&h3->results.out, encoded.section.base, encoded.section.len);
  }
  ngp_h3_end_send(h3, end_stream);
  h3->section_len = len;
  return rv;
}

int ngp_h3_send_headers(ngp_h3 *h3, int64_t stream_id, nghttp3_nv *nva,
                        size_t nvlen, int end_stream, int check) {
  ngp_h3_stream *stream;
  ngp_h3_checker checker;
  ngp_fields_section section;
  uint64_t expected = NGP_FIELDS_NO_LENGTH;
  int known, initial, interim;
  int rv;

  ngp_h3_begin(h3);
  stream = ngp_h3_find(h3, stream_id);
  known = stream != NULL;
  initial = !known || stream->send_state == NGP_H3_STATE_INITIAL;
  if (known &&
      (stream->send_state == NGP_H3_STATE_AFTER_TRAILERS || stream->tunnel)) {
    return unexpected(h3, "HEADERS frame is not allowed in this state");
  }
  if (check) {
    section = !initial                 ? NGP_FIELDS_TRAILERS
              : !h3->options.is_client ? NGP_FIELDS_RESPONSE
                                       : NGP_FIELDS_REQUEST;
    rv = check_fields(h3, &checker, section, nva, nvlen);
    if (rv != 0) {
      return rv;
    }
  } else {
    scan_fields(&checker, nva, nvlen);
  }
  interim = !h3->options.is_client && initial && checker.fields.status &&
            checker.fields.status < 200;
  if (end_stream) {
    if (interim) {
      return unexpected(h3, "Interim response cannot end the stream");
    }
    if (known && stream->send_ended) {
      return unexpected(h3, "stream was already ended");
    }
  }
  if (initial && !interim) {
    expected = announced(h3, stream, &checker.fields);
    if (end_stream && expected && expected != NGP_FIELDS_NO_LENGTH) {
      return bad_length(h3, expected, 0);
    }
  } else if (!initial && stream->send_expected != NGP_FIELDS_NO_LENGTH &&
             stream->send_expected != stream->send_length) {
    return bad_length(h3, stream->send_expected, stream->send_length);
  }
  if (h3->options.is_client && !known) {
    if ((uint64_t)stream_id >= h3->goaway.received) {
      return NGP_H3_ERR_GOING_AWAY;
    }
    if (h3->options.extended &&
        NGP_FIELDS_SEEN(&checker.fields, NGP_TOKEN__PROTOCOL) &&
        (!h3->peer.connect_protocol ||
         (checker.webtransport && !ngp_h3_wt_enabled(h3)))) {
      return h3->peer.settings_received ? NGP_H3_ERR_NOT_ENABLED
                                        : NGP_H3_ERR_NO_SETTINGS;
    }
  }
  if (check && !peer_takes(h3, nva, nvlen)) {
    return NGP_QPACK_ERR_TOO_LARGE;
  }

  stream = local_stream(h3, stream_id);
  if (!stream) {
    return NGHTTP2_ERR_NOMEM;
  }
  rv = send_section(h3, stream_id, NGP_H3_FRAME_HEADERS, NULL, 0, nva, nvlen,
                    end_stream);
  if (rv != 0) {
    return rv;
  }
  if (!initial) {
    stream->send_state = NGP_H3_STATE_AFTER_TRAILERS;
  } else if (!interim) {
    stream->send_state = NGP_H3_STATE_AFTER_HEADERS;
  }
  if (initial && !interim) {
    stream->send_expected = expected;
  }
  if (h3->options.is_client && initial) {
    stream->no_body = checker.fields.head;
    stream->connect = (uint8_t)NGP_FIELDS_IS_TUNNEL(&checker.fields);
    if (h3->options.extended && h3->options.webtransport &&
        checker.fields.connect && checker.webtransport) {
      stream->session = NGP_H3_SESSION_REQUESTED;
    }
  } else if (!h3->options.is_client && initial &&
             checker.fields.status / 100 == 2) {
    stream->tunnel = stream->connect;
  } else if (!h3->options.is_client && initial &&
             stream->session == NGP_H3_SESSION_OPEN &&
             checker.fields.status >= 300) {
    /* The application has refused the session. */
    rv = ngp_h3_wt_refused(h3, stream);
  }
  if (end_stream) {
    stream->send_ended = 1;
    ngp_h3_remove_if_ended(h3, stream);
  }
  return rv;
}

int ngp_h3_send_data(ngp_h3 *h3, int64_t stream_id, size_t len, int end_stream,
                     uint8_t *header, size_t *pheaderlen) {
  ngp_h3_stream *stream;
  uint64_t length;
  size_t n;

  ngp_h3_begin(h3);
  stream = ngp_h3_find(h3, stream_id);
  if (!stream || stream->send_state != NGP_H3_STATE_AFTER_HEADERS) {
    return unexpected(h3, "DATA frame is not allowed in this state");
  }
  if (end_stream && stream->send_ended) {
    return unexpected(h3, "stream was already ended");
  }
  length = stream->send_length + len;
  if (stream->send_expected != NGP_FIELDS_NO_LENGTH &&
      (length > stream->send_expected ||
       (end_stream && length != stream->send_expected))) {
    return bad_length(h3, stream->send_expected, length);
  }
  stream->send_length = length;
  if (end_stream) {
    stream->send_ended = 1;
    ngp_h3_remove_if_ended(h3, stream);
  }
  n = ngp_put_varint(header, NGP_H3_FRAME_DATA);
  *pheaderlen = n + ngp_put_varint(header + n, len);
  return 0;
}

int ngp_h3_open(ngp_h3 *h3, uint64_t type, int64_t stream_id) {
  uint8_t text[8];

  ngp_h3_begin(h3);
  switch (type) {
  case NGP_H3_STREAM_CONTROL:
    h3->local.control = stream_id;
    break;
  case NGP_H3_STREAM_QPACK_ENCODER:
    h3->local.qpack_encoder = stream_id;
    break;
  default:
    h3->local.qpack_decoder = stream_id;
  }
  return ngp_h3_send_bytes(h3, stream_id, text, ngp_put_varint(text, type), 0);
}

int ngp_h3_send_settings(ngp_h3 *h3, const ngp_h3_setting *settings, size_t n) {
  ngp_buf payload;
  uint8_t text[16];
  size_t i, len;
  int rv = 0;

  ngp_h3_begin(h3);
  for (i = 0; i < n; ++i) {
    if (settings[i].id > NGP_MAX_VARINT || settings[i].value > NGP_MAX_VARINT) {
      return NGP_H3_ERR_RANGE;
    }
    if (settings[i].id == NGP_H3_SETTING_ENABLE_CONNECT_PROTOCOL) {
      h3->local.connect_protocol = settings[i].value == 1;
    }
  }
  ngp_buf_init(&payload, h3->mem);
  for (i = 0; rv == 0 && i < n; ++i) {
    len = ngp_put_varint(text, settings[i].id);
    len += ngp_put_varint(text + len, settings[i].value);
    rv = ngp_buf_add(&payload, text, len);
  }
  if (rv == 0) {
    rv = ngp_h3_send_frame(h3, h3->local.control, NGP_H3_FRAME_SETTINGS,
                           payload.base, payload.len, 0);
  }
  ngp_buf_free(&payload);
  return rv;
}

int ngp_h3_send_push_promise(ngp_h3 *h3, int64_t stream_id, nghttp3_nv *nva,
                             size_t nvlen, int check, int64_t *ppush_id) {
  ngp_h3_stream *stream;
  ngp_h3_checker checker;
  uint8_t id[8];
  int rv;

  ngp_h3_begin(h3);
  if (h3->options.is_client) {
    return NGP_H3_ERR_ROLE;
  }
  if (!ngp_h3_is_request(stream_id)) {
    return NGP_H3_ERR_STREAM_TYPE;
  }
  if (ngp_h3_next_push_id(h3) == NGP_H3_NO_ID) {
    return NGP_H3_ERR_NO_PUSH_ID;
  }
  stream = ngp_h3_find(h3, stream_id);
  if (stream && stream->send_ended) {
    return unexpected(h3, "stream was already ended");
  }
  if (check) {
    rv = check_fields(h3, &checker, NGP_FIELDS_PROMISE, nva, nvlen);
    if (rv != 0) {
      return rv;
    }
    if (!peer_takes(h3, nva, nvlen)) {
      return NGP_QPACK_ERR_TOO_LARGE;
    }
  }
  rv = send_section(h3, stream_id, NGP_H3_FRAME_PUSH_PROMISE, id,
                    ngp_put_varint(id, (uint64_t)h3->push.next_id), nva, nvlen,
                    0);
  if (rv == 0) {
    *ppush_id = h3->push.next_id++;
  }
  return rv;
}

int ngp_h3_open_push(ngp_h3 *h3, int64_t stream_id, int64_t push_id) {
  ngp_h3_stream *stream;
  uint8_t text[16];
  size_t n;

  ngp_h3_begin(h3);
  stream = ngp_h3_add_stream(h3, stream_id, NGP_H3_STREAM_PUSH);
  if (!stream) {
    return NGHTTP2_ERR_NOMEM;
  }
  stream->recv_ended = 1;
  stream->push_id = push_id;
  n = ngp_put_varint(text, NGP_H3_STREAM_PUSH);
  n += ngp_put_varint(text + n, (uint64_t)push_id);
  return ngp_h3_send_bytes(h3, stream_id, text, n, 0);
}

int ngp_h3_reset_stream(ngp_h3 *h3, int64_t stream_id, uint64_t error_code) {
  ngp_h3_stream *stream;
  int rv;

  ngp_h3_begin(h3);
  if (error_code > NGP_MAX_VARINT) {
    return NGP_H3_ERR_RANGE;
  }
  stream = ngp_h3_find(h3, stream_id);
  if (!stream || stream->send_ended) {
    return 0;
  }
  stream->send_ended = 1;
  /* The request has ended badly, but we have caused that. */
  stream->counted = 1;
  rv = ngp_h3_add_op(h3, NGP_H3_OP_RESET, stream_id, error_code, 1);
  ngp_h3_remove_if_ended(h3, stream);
  return rv;
}

int ngp_h3_stop_stream(ngp_h3 *h3, int64_t stream_id, uint64_t error_code) {
  ngp_h3_stream *stream;
  int rv;

  ngp_h3_begin(h3);
  if (error_code > NGP_MAX_VARINT) {
    return NGP_H3_ERR_RANGE;
  }
  stream = ngp_h3_find(h3, stream_id);
  if (!stream || stream->recv_ended || stream->unwanted ||
      stream->type == NGP_H3_STREAM_IGNORED) {
    return 0;
  }
  rv = ngp_h3_add_op(h3, NGP_H3_OP_STOP, stream_id, error_code, 1);
  if (rv == 0) {
    rv = ngp_h3_cancel_section(h3, stream_id);
  }
  ngp_h3_drop_buffer(h3, stream);
  stream->unwanted = 1;
  return rv;
}

int ngp_h3_datagram_header(int64_t stream_id, uint8_t *dest, size_t *plen) {
  if (!ngp_h3_is_request(stream_id)) {
    return NGP_H3_ERR_STREAM_TYPE;
  }
  *plen = ngp_put_varint(dest, (uint64_t)stream_id / 4);
  return 0;
}

/* Sends a frame that consists of one number on the control stream. */
static int send_number(ngp_h3 *h3, uint64_t type, uint64_t value) {
  uint8_t payload[8];

  return ngp_h3_send_frame(h3, h3->local.control, type, payload,
                           ngp_put_varint(payload, value), 0);
}

int ngp_h3_send_goaway(ngp_h3 *h3, uint64_t id) {
  int rv;

  ngp_h3_begin(h3);
  if (id > h3->goaway.sent || id > NGP_MAX_VARINT ||
      (!h3->options.is_client && id % 4 != 0)) {
    return NGP_H3_ERR_RANGE;
  }
  rv = send_number(h3, NGP_H3_FRAME_GOAWAY, id);
  if (rv == 0) {
    h3->goaway.sent = id;
  }
  return rv;
}

int ngp_h3_send_max_push_id(ngp_h3 *h3, uint64_t id) {
  int rv;

  ngp_h3_begin(h3);
  if (!h3->options.is_client) {
    return NGP_H3_ERR_ROLE;
  }
  if (id > NGP_MAX_VARINT || (int64_t)id < h3->push.max_id) {
    return NGP_H3_ERR_RANGE;
  }
  rv = send_number(h3, NGP_H3_FRAME_MAX_PUSH_ID, id);
  if (rv == 0) {
    h3->push.max_id = (int64_t)id;
  }
  return rv;
}

int ngp_h3_send_cancel_push(ngp_h3 *h3, uint64_t push_id) {
  int64_t limit =
      !h3->options.is_client ? h3->push.next_id - 1 : h3->push.max_id;

  ngp_h3_begin(h3);
  if (push_id > NGP_MAX_VARINT || (int64_t)push_id > limit) {
    return NGP_H3_ERR_RANGE;
  }
  return send_number(h3, NGP_H3_FRAME_CANCEL_PUSH, push_id);
}

int ngp_h3_send_priority_update(ngp_h3 *h3, uint64_t id, int push,
                                const uint8_t *value, size_t len) {
  ngp_buf payload;
  uint8_t text[8];
  int rv;

  ngp_h3_begin(h3);
  if (!h3->options.is_client) {
    return NGP_H3_ERR_ROLE;
  }
  if (id > NGP_MAX_VARINT || (!push && id % 4 != 0)) {
    return NGP_H3_ERR_STREAM_TYPE;
  }
  ngp_buf_init(&payload, h3->mem);
  rv = ngp_buf_add(&payload, text, ngp_put_varint(text, id));
  if (rv == 0) {
    rv = ngp_buf_add(&payload, value, len);
  }
  if (rv == 0) {
    rv = ngp_h3_send_frame(h3, h3->local.control,
                           push ? NGP_H3_FRAME_PRIORITY_UPDATE_PUSH
                                : NGP_H3_FRAME_PRIORITY_UPDATE_REQUEST,
                           payload.base, payload.len, 0);
  }
  ngp_buf_free(&payload);
  return rv;
}

int ngp_h3_send_origin(ngp_h3 *h3, const uint8_t *payload, size_t len) {
  ngp_h3_begin(h3);
  if (h3->options.is_client) {
    return NGP_H3_ERR_ROLE;
  }
  return ngp_h3_send_frame(h3, h3->local.control, NGP_H3_FRAME_ORIGIN, payload,
                           len, 0);
}
