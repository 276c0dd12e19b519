/* SPDX-License-Identifier: MIT */
#include "ngp_h3_int.h"

#include <string.h>

/*
 * The code and the phrase of CONNECTION_CLOSE for every rule that the peer may
 * break.  The first part is aioquic's; the phrases are part of its behaviour.
 * The second part is ours.
 */
static const struct {
  uint64_t code;
  const char *phrase;
} violations[] = {
    [NGP_H3_V_MISSING_SETTINGS] = {NGP_H3_MISSING_SETTINGS, ""},
    [NGP_H3_V_SECOND_SETTINGS] = {NGP_H3_FRAME_UNEXPECTED,
                                  "SETTINGS have already been received"},
    [NGP_H3_V_CONTROL_FRAME] = {NGP_H3_FRAME_UNEXPECTED,
                                "Invalid frame type on control stream"},
    [NGP_H3_V_REQUEST_FRAME] = {NGP_H3_FRAME_UNEXPECTED,
                                "Invalid frame type on request stream"},
    [NGP_H3_V_PUSH_FRAME] = {NGP_H3_FRAME_UNEXPECTED,
                             "Invalid frame type on push stream"},
    [NGP_H3_V_SERVER_MAX_PUSH_ID] = {NGP_H3_FRAME_UNEXPECTED,
                                     "Servers must not send MAX_PUSH_ID"},
    [NGP_H3_V_CLIENT_PUSH_PROMISE] = {NGP_H3_FRAME_UNEXPECTED,
                                      "Clients must not send PUSH_PROMISE"},
    [NGP_H3_V_CLIENT_PUSH_STREAM] = {NGP_H3_STREAM_CREATION_ERROR,
                                     "Clients must not open push streams"},
    [NGP_H3_V_CONTROL_CLOSED] = {NGP_H3_CLOSED_CRITICAL_STREAM,
                                 "Closing control stream is not allowed"},
    [NGP_H3_V_CRITICAL_RESET] = {NGP_H3_CLOSED_CRITICAL_STREAM,
                                 "Resetting a critical stream is not allowed"},
    [NGP_H3_V_CRITICAL_STOPPED] = {NGP_H3_CLOSED_CRITICAL_STREAM,
                                   "Stopping a critical stream is not allowed"},
    [NGP_H3_V_SECOND_CONTROL] = {NGP_H3_STREAM_CREATION_ERROR,
                                 "Only one control stream is allowed"},
    [NGP_H3_V_SECOND_ENCODER] = {NGP_H3_STREAM_CREATION_ERROR,
                                 "Only one QPACK encoder stream is allowed"},
    [NGP_H3_V_SECOND_DECODER] = {NGP_H3_STREAM_CREATION_ERROR,
                                 "Only one QPACK decoder stream is allowed"},
    [NGP_H3_V_DATAGRAM_UNSUPPORTED] =
        {NGP_H3_SETTINGS_ERROR,
         "H3_DATAGRAM requires max_datagram_frame_size transport parameter"},
    [NGP_H3_V_WEBTRANSPORT_NO_DATAGRAM] =
        {NGP_H3_SETTINGS_ERROR, "ENABLE_WEBTRANSPORT requires H3_DATAGRAM"},
    [NGP_H3_V_DATA_STATE] = {NGP_H3_FRAME_UNEXPECTED,
                             "DATA frame is not allowed in this state"},
    [NGP_H3_V_HEADERS_STATE] = {NGP_H3_FRAME_UNEXPECTED,
                                "HEADERS frame is not allowed in this state"},
    [NGP_H3_V_INTERIM_END] = {NGP_H3_MESSAGE_ERROR,
                              "Interim response cannot end the stream"},
    [NGP_H3_V_CONTENT_LENGTH] = {NGP_H3_MESSAGE_ERROR,
                                 "content-length does not match data size"},
    [NGP_H3_V_NO_RESPONSE] = {NGP_H3_MESSAGE_ERROR,
                              "The stream ended without a response"},
    [NGP_H3_V_NO_REQUEST] = {NGP_H3_REQUEST_INCOMPLETE,
                             "The stream ended without a request"},
    [NGP_H3_V_BODY] = {NGP_H3_MESSAGE_ERROR,
                       "The response must not have a body"},
    [NGP_H3_V_FIELD_COUNT] = {NGP_H3_EXCESSIVE_LOAD,
                              "Field section has too many fields"},
    [NGP_H3_V_RESETS] = {NGP_H3_EXCESSIVE_LOAD,
                         "Too many requests do not end well"},
    [NGP_H3_V_TRUNCATED] = {NGP_H3_FRAME_ERROR,
                            "Frame is truncated by the end of the stream"},
    [NGP_H3_V_SETTINGS_PARSE] = {NGP_H3_FRAME_ERROR,
                                 "Could not parse SETTINGS frame"},
    [NGP_H3_V_MAX_PUSH_ID_PARSE] = {NGP_H3_FRAME_ERROR,
                                    "Could not parse MAX_PUSH_ID frame"},
    [NGP_H3_V_MAX_PUSH_ID_TRAILING] = {NGP_H3_FRAME_ERROR,
                                       "MAX_PUSH_ID frame has trailing data"},
    [NGP_H3_V_MAX_PUSH_ID_REDUCED] =
        {NGP_H3_ID_ERROR, "MAX_PUSH_ID reduced the maximum push ID"},
    [NGP_H3_V_PUSH_PROMISE_PARSE] = {NGP_H3_FRAME_ERROR,
                                     "Could not parse PUSH_PROMISE frame"},
    [NGP_H3_V_PUSH_ID] = {NGP_H3_ID_ERROR,
                          "Push ID exceeds the maximum push ID"},
    [NGP_H3_V_DATAGRAM_PARSE] = {NGP_H3_DATAGRAM_ERROR,
                                 "Could not parse quarter stream ID"},
    [NGP_H3_V_DECOMPRESSION_FAILED] = {NGP_H3_QPACK_DECOMPRESSION_FAILED, ""},
    [NGP_H3_V_ENCODER_STREAM] = {NGP_H3_QPACK_ENCODER_STREAM_ERROR, ""},
    [NGP_H3_V_DECODER_STREAM] = {NGP_H3_QPACK_DECODER_STREAM_ERROR, ""},

    [NGP_H3_V_SERVER_PRIORITY_UPDATE] =
        {NGP_H3_FRAME_UNEXPECTED, "Servers must not send PRIORITY_UPDATE"},
    [NGP_H3_V_ENCODER_CLOSED] = {NGP_H3_CLOSED_CRITICAL_STREAM,
                                 "Closing QPACK encoder stream is not allowed"},
    [NGP_H3_V_DECODER_CLOSED] = {NGP_H3_CLOSED_CRITICAL_STREAM,
                                 "Closing QPACK decoder stream is not allowed"},
    [NGP_H3_V_SETTINGS_SIZE] = {NGP_H3_EXCESSIVE_LOAD,
                                "SETTINGS frame is too large"},
    [NGP_H3_V_GOAWAY_PARSE] = {NGP_H3_FRAME_ERROR,
                               "Could not parse GOAWAY frame"},
    [NGP_H3_V_GOAWAY_TRAILING] = {NGP_H3_FRAME_ERROR,
                                  "GOAWAY frame has trailing data"},
    [NGP_H3_V_GOAWAY_RAISED] = {NGP_H3_ID_ERROR,
                                "GOAWAY raised the identifier"},
    [NGP_H3_V_GOAWAY_ID] = {NGP_H3_ID_ERROR, "GOAWAY does not name a request"},
    [NGP_H3_V_CANCEL_PUSH_PARSE] = {NGP_H3_FRAME_ERROR,
                                    "Could not parse CANCEL_PUSH frame"},
    [NGP_H3_V_CANCEL_PUSH_TRAILING] = {NGP_H3_FRAME_ERROR,
                                       "CANCEL_PUSH frame has trailing data"},
    [NGP_H3_V_CANCEL_PUSH_ID] = {NGP_H3_ID_ERROR,
                                 "CANCEL_PUSH does not name a push"},
    [NGP_H3_V_PRIORITY_UPDATE_PARSE] =
        {NGP_H3_FRAME_ERROR, "Could not parse PRIORITY_UPDATE frame"},
    [NGP_H3_V_PRIORITY_UPDATE_SIZE] = {NGP_H3_EXCESSIVE_LOAD,
                                       "PRIORITY_UPDATE frame is too large"},
    [NGP_H3_V_PRIORITY_UPDATE_ID] =
        {NGP_H3_ID_ERROR, "PRIORITY_UPDATE does not name a request or push"},
    [NGP_H3_V_PRIORITY_UPDATE_VALUE] = {NGP_H3_GENERAL_PROTOCOL_ERROR,
                                        "Could not parse priority field value"},
    [NGP_H3_V_ORIGIN_PARSE] = {NGP_H3_FRAME_ERROR,
                               "Could not parse ORIGIN frame"},
    [NGP_H3_V_DATAGRAM_ID] = {NGP_H3_DATAGRAM_ERROR,
                              "Quarter stream ID is too large"},
    [NGP_H3_V_SECTION_SIZE] = {NGP_H3_EXCESSIVE_LOAD,
                               "Field section is too large"},
    [NGP_H3_V_BUFFERED] = {NGP_H3_EXCESSIVE_LOAD, "Too much data is waiting"},
    [NGP_H3_V_GLITCHES] = {NGP_H3_EXCESSIVE_LOAD,
                           "Too many frames carry nothing"},
    [NGP_H3_V_PUSH_TWICE] = {NGP_H3_ID_ERROR, "Push ID was used before"},
    [NGP_H3_V_SERVER_BIDI] = {NGP_H3_STREAM_CREATION_ERROR,
                              "Servers must not open bidirectional streams"},
    [NGP_H3_V_WEBTRANSPORT_FRAME] =
        {NGP_H3_FRAME_ERROR, "WEBTRANSPORT_STREAM must be the first frame"},
    [NGP_H3_V_SESSION_ID] = {NGP_H3_ID_ERROR, "Session ID is not a request"},
    [NGP_H3_V_CAPSULE_SIZE] = {NGP_H3_EXCESSIVE_LOAD, "Capsule is too large"},
    [NGP_H3_V_CAPSULE_CLOSE] = {NGP_H3_DATAGRAM_ERROR,
                                "Could not parse CLOSE_WEBTRANSPORT_SESSION"},
};

const char *ngp_h3_strerror(int code) {
  switch (code) {
  case NGP_H3_ERR_PROTOCOL:
    return "The peer broke the protocol";
  case NGP_H3_ERR_FRAME_UNEXPECTED:
    return "The frame is not allowed in this state";
  case NGP_H3_ERR_STREAM_TYPE:
    return "The stream is of the wrong kind";
  case NGP_H3_ERR_NO_PUSH_ID:
    return "No push ID is available";
  case NGP_H3_ERR_NOT_ENABLED:
    return "The peer's SETTINGS do not allow Extended CONNECT (RFC 9220, 3)";
  case NGP_H3_ERR_GOING_AWAY:
    return "The peer takes no more requests";
  case NGP_H3_ERR_ROLE:
    return "Only the other end of a connection may send this";
  case NGP_H3_ERR_RANGE:
    return "A number is out of its range";
  case NGP_H3_ERR_BODY_LENGTH:
    return "The body does not fit its content-length";
  case NGP_H3_ERR_NO_SETTINGS:
    return "The peer's SETTINGS, which must allow Extended CONNECT, have not "
           "arrived (RFC 9220, 3)";
  case NGP_H3_ERR_MALFORMED:
    return "A field must not stand in this section";
  default:
    return ngp_qpack_strerror(code);
  }
}

void ngp_h3_options_default(ngp_h3_options *options) {
  *options = (ngp_h3_options){
      /* aioquic's value, with which programs have been measured. */
      .qpack_capacity = 4096,
      .qpack_blocked_streams = 16,
      .qpack_encoder_capacity = 4096,
      /* The same two bounds as over HTTP/2; aioquic has none. */
      .max_field_section_size = 65536,
      .max_field_count = 256,
      /* A lost packet of the encoder stream blocks what arrives in a round
         trip: this allows 100 ms of 300 Mbit/s. */
      .max_buffered = 4 * 1024 * 1024,
      /* A session costs no more than a request stream, and QUIC bounds
         those. */
      .max_sessions = 256,
      /* A peer that greases sends a few of these in a connection. */
      .max_glitches = 1000,
      /* As over HTTP/2.  A page whose images are all cancelled has a few
         hundred. */
      .max_reset_streams = 1000,
  };
}

/* ---- Streams ---- */

ngp_h3_stream *ngp_h3_add_stream(ngp_h3 *h3, int64_t stream_id, uint64_t type) {
  ngp_h3_stream *stream;
  size_t i;

  stream = ngp_malloc(h3->mem, sizeof(*stream));
  if (!stream || ngp_map_add(&h3->streams, h3->mem, stream_id, stream) != 0) {
    ngp_free(h3->mem, stream);
    return NULL;
  }
  *stream = (ngp_h3_stream){
      .id = stream_id,
      .type = type,
      .push_id = NGP_H3_NO_ID,
      .session_id = NGP_H3_NO_ID,
      .expected = NGP_FIELDS_NO_LENGTH,
      .send_expected = NGP_FIELDS_NO_LENGTH,
      .urgency = NGHTTP3_DEFAULT_URGENCY,
  };
  ngp_buf_init(&stream->buf, h3->mem);
  ngp_buf_init(&stream->capsule, h3->mem);
  for (i = 0; i < h3->nearly; ++i) {
    if (h3->early[i].stream_id == stream_id) {
      stream->urgency = h3->early[i].urgency;
      stream->incremental = h3->early[i].incremental;
      stream->reprioritized = 1;
      h3->early[i] = h3->early[--h3->nearly];
      break;
    }
  }
  return stream;
}

static void stream_del(ngp_h3 *h3, ngp_h3_stream *stream) {
  ngp_buf_free(&stream->buf);
  ngp_buf_free(&stream->capsule);
  ngp_free(h3->mem, stream);
}

void ngp_h3_forget_blocked(ngp_h3 *h3, ngp_h3_stream *stream) {
  size_t i;

  for (i = 0; h3->waiting.blocked[i] != stream->id; ++i)
    ;
  --h3->waiting.nblocked;
  memmove(&h3->waiting.blocked[i], &h3->waiting.blocked[i + 1],
          (h3->waiting.nblocked - i) * sizeof(h3->waiting.blocked[0]));
  stream->blocked = 0;
}

void ngp_h3_drop_buffer(ngp_h3 *h3, ngp_h3_stream *stream) {
  if (stream->blocked) {
    ngp_h3_forget_blocked(h3, stream);
  }
  if (stream->held) {
    stream->held = 0;
    --h3->waiting.nstreams;
  }
  h3->waiting.bytes -= stream->buf.len;
  ngp_buf_clear(&stream->buf, 0);
  stream->header_len = 0;
  stream->in_frame = 0;
}

void ngp_h3_remove_stream(ngp_h3 *h3, ngp_h3_stream *stream) {
  ngp_h3_drop_buffer(h3, stream);
  ngp_map_remove(&h3->streams, stream->id);
  stream_del(h3, stream);
}

void ngp_h3_remove_if_ended(ngp_h3 *h3, ngp_h3_stream *stream) {
  if (stream->recv_ended && stream->send_ended && !stream->blocked &&
      !stream->held) {
    if (h3->limits.reset_balance && !stream->counted &&
        stream->type == NGP_H3_STREAM_REQUEST) {
      --h3->limits.reset_balance;
    }
    ngp_h3_remove_stream(h3, stream);
  }
}

ngp_h3_stream *ngp_h3_find_push(const ngp_h3 *h3, int64_t push_id) {
  ngp_h3_stream *stream;
  size_t place = 0;

  do {
    stream = ngp_map_next(&h3->streams, &place);
  } while (stream && stream->push_id != push_id);
  return stream;
}

/* ---- The results of a call ---- */

/* Buffers up to this size are kept between calls. */
#define KEEP 16384

void ngp_h3_begin(ngp_h3 *h3) {
  h3->results.nevents = 0;
  h3->results.nops = 0;
  ngp_qpack_fields_clear(&h3->results.fields, 0);
  ngp_buf_clear(&h3->results.out, KEEP);
  while (h3->results.nheld) {
    ngp_buf_free(&h3->results.held[--h3->results.nheld]);
  }
}

ngp_h3_event *ngp_h3_add_event(ngp_h3 *h3, ngp_h3_event_type type,
                               const ngp_h3_stream *stream) {
  ngp_h3_event *event;

  if (h3->results.nevents == h3->results.events_cap) {
    size_t cap = h3->results.events_cap ? 2 * h3->results.events_cap : 8;

    event = ngp_realloc(h3->mem, h3->results.events, cap * sizeof(*event));
    if (!event) {
      return NULL;
    }
    h3->results.events = event;
    h3->results.events_cap = cap;
  }
  event = &h3->results.events[h3->results.nevents++];
  *event = (ngp_h3_event){
      .type = type,
      .stream_id = stream ? stream->id : NGP_H3_NO_ID,
      .push_id = stream ? stream->push_id : NGP_H3_NO_ID,
      .session_id = stream ? stream->session_id : NGP_H3_NO_ID,
  };
  return event;
}

int ngp_h3_add_data(ngp_h3 *h3, ngp_h3_event_type type,
                    const ngp_h3_stream *stream, const uint8_t *data,
                    size_t len, int ended) {
  ngp_h3_event *event = ngp_h3_add_event(h3, type, stream);

  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->data = data;
  event->len = len;
  event->end_stream = (uint8_t)(ended != 0);
  return 0;
}

static ngp_h3_op *add_op(ngp_h3 *h3) {
  ngp_h3_op *op;

  if (h3->results.nops == h3->results.ops_cap) {
    size_t cap = h3->results.ops_cap ? 2 * h3->results.ops_cap : 8;

    op = ngp_realloc(h3->mem, h3->results.ops, cap * sizeof(*op));
    if (!op) {
      return NULL;
    }
    h3->results.ops = op;
    h3->results.ops_cap = cap;
  }
  return &h3->results.ops[h3->results.nops++];
}

int ngp_h3_add_op(ngp_h3 *h3, ngp_h3_op_type type, int64_t stream_id,
                  uint64_t error_code, int best_effort) {
  ngp_h3_op *op = add_op(h3);

  if (!op) {
    return NGHTTP2_ERR_NOMEM;
  }
  *op = (ngp_h3_op){
      .type = type,
      .stream_id = stream_id,
      .error_code = error_code,
      .best_effort = (uint8_t)(best_effort != 0),
  };
  return 0;
}

int ngp_h3_begin_send(ngp_h3 *h3, int64_t stream_id) {
  ngp_h3_op *op =
      h3->results.nops ? &h3->results.ops[h3->results.nops - 1] : NULL;

  if (op && op->type == NGP_H3_OP_SEND && op->stream_id == stream_id &&
      !op->end_stream) {
    return 0;
  }
  op = add_op(h3);
  if (!op) {
    return NGHTTP2_ERR_NOMEM;
  }
  *op = (ngp_h3_op){
      .type = NGP_H3_OP_SEND,
      .stream_id = stream_id,
      .offset = h3->results.out.len,
  };
  return 0;
}

void ngp_h3_end_send(ngp_h3 *h3, int end_stream) {
  ngp_h3_op *op = &h3->results.ops[h3->results.nops - 1];

  op->len = h3->results.out.len - op->offset;
  op->end_stream = (uint8_t)(end_stream != 0);
}

int ngp_h3_send_bytes(ngp_h3 *h3, int64_t stream_id, const uint8_t *data,
                      size_t len, int end_stream) {
  int rv = ngp_h3_begin_send(h3, stream_id);

  if (rv == 0) {
    rv = ngp_buf_add(&h3->results.out, data, len);
    ngp_h3_end_send(h3, end_stream);
  }
  return rv;
}

int ngp_h3_send_frame(ngp_h3 *h3, int64_t stream_id, uint64_t type,
                      const uint8_t *payload, size_t len, int end_stream) {
  uint8_t header[NGP_H3_MAX_FRAME_HEADER];
  size_t n = ngp_put_varint(header, type);
  int rv;

  n += ngp_put_varint(header + n, len);
  rv = ngp_h3_send_bytes(h3, stream_id, header, n, 0);
  if (rv == 0) {
    rv = ngp_h3_send_bytes(h3, stream_id, payload, len, end_stream);
  }
  return rv;
}

int ngp_h3_hold(ngp_h3 *h3, ngp_buf *buf, ngp_buf *pheld) {
  if (h3->results.nheld == h3->results.held_cap) {
    size_t cap = h3->results.held_cap ? 2 * h3->results.held_cap : 4;
    ngp_buf *p = ngp_realloc(h3->mem, h3->results.held, cap * sizeof(*p));

    if (!p) {
      return NGHTTP2_ERR_NOMEM;
    }
    h3->results.held = p;
    h3->results.held_cap = cap;
  }
  h3->results.held[h3->results.nheld++] = *buf;
  *pheld = *buf;
  ngp_buf_init(buf, h3->mem);
  return 0;
}

int ngp_h3_violate_with(ngp_h3 *h3, uint64_t code) {
  ngp_h3_begin(h3);
  h3->close.closed = 1;
  h3->close.code = code;
  return NGP_H3_ERR_PROTOCOL;
}

int ngp_h3_violate(ngp_h3 *h3, ngp_h3_violation violation) {
  ngp_h3_phrase_set(&h3->close.phrase, violations[violation].phrase);
  return ngp_h3_violate_with(h3, violations[violation].code);
}

int ngp_h3_count_reset(ngp_h3 *h3, ngp_h3_stream *stream) {
  if (h3->options.is_client || (stream && stream->counted)) {
    return 0;
  }
  if (stream) {
    stream->counted = 1;
  }
  if (++h3->limits.reset_balance > h3->options.max_reset_streams) {
    return ngp_h3_violate(h3, NGP_H3_V_RESETS);
  }
  return 0;
}

int ngp_h3_abort(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t error_code,
                 int best_effort) {
  int rv = 0;

  ngp_h3_drop_buffer(h3, stream);
  if (!stream->recv_ended) {
    rv = ngp_h3_add_op(h3, NGP_H3_OP_STOP, stream->id, error_code, best_effort);
  }
  if (rv == 0 && !stream->send_ended) {
    rv =
        ngp_h3_add_op(h3, NGP_H3_OP_RESET, stream->id, error_code, best_effort);
  }
  stream->type = NGP_H3_STREAM_IGNORED;
  stream->send_ended = 1;
  return rv;
}

int ngp_h3_malformed_with(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t code) {
  ngp_h3_event *event;
  ngp_buf reason, held;
  int rv;

  if (!h3->options.stream_errors) {
    return ngp_h3_violate_with(h3, code);
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_ABORTED, stream);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->value = code;
  /* The phrase may be written again before the event is read. */
  ngp_buf_init(&reason, h3->mem);
  rv = ngp_buf_add(&reason, h3->close.phrase.text, h3->close.phrase.len);
  if (rv == 0) {
    event->data = reason.base;
    event->len = reason.len;
    rv = ngp_h3_hold(h3, &reason, &held);
  }
  if (rv != 0) {
    ngp_buf_free(&reason);
    return rv;
  }
  if (stream->session != NGP_H3_SESSION_NONE) {
    rv = ngp_h3_wt_close(h3, stream, 0, NULL, 0);
  }
  if (rv == 0) {
    /* The stream's field sections will not be decoded (RFC 9204, 2.2.2.2). */
    rv = ngp_h3_cancel_section(h3, stream->id);
  }
  if (rv == 0) {
    rv = ngp_h3_abort(h3, stream, code, 1);
  }
  return rv != 0 ? rv : ngp_h3_count_reset(h3, stream);
}

int ngp_h3_malformed(ngp_h3 *h3, ngp_h3_stream *stream,
                     ngp_h3_violation violation) {
  ngp_h3_phrase_set(&h3->close.phrase, violations[violation].phrase);
  return ngp_h3_malformed_with(h3, stream, violations[violation].code);
}

int ngp_h3_glitch(ngp_h3 *h3) {
  if (++h3->limits.glitches > h3->options.max_glitches) {
    return ngp_h3_violate(h3, NGP_H3_V_GLITCHES);
  }
  return 0;
}

int ngp_h3_parse_priority(const uint8_t *value, size_t len, uint8_t *purgency,
                          uint8_t *pincremental) {
  nghttp3_pri pri = {.urgency = *purgency, .inc = *pincremental};

  if (nghttp3_pri_parse_priority(&pri, value, len) != 0) {
    return -1;
  }
  *purgency = (uint8_t)pri.urgency;
  *pincremental = pri.inc;
  return 0;
}

uint64_t ngp_h3_incomplete_frame(const ngp_h3 *h3, int64_t stream_id) {
  const ngp_h3_stream *stream = ngp_h3_find(h3, stream_id);

  if (!stream || (stream->recv_ended && !stream->blocked) || stream->unwanted ||
      stream->type == NGP_H3_STREAM_IGNORED) {
    return 0;
  }
  if (stream->header_len) {
    return stream->frames + 1;
  }
  return stream->blocked ||
                 (stream->in_frame && stream->frame_type != NGP_H3_FRAME_DATA)
             ? stream->frames
             : 0;
}

int ngp_h3_gather(ngp_h3_stream *stream, const uint8_t **pp, const uint8_t *end,
                  int n, uint64_t *values) {
  const uint8_t *src = *pp;
  size_t len = (size_t)(end - src);
  size_t taken = 0, k = 0;
  int i;

  if (stream->header_len) {
    /* The rest of integers that began in an earlier call, byte by byte: this is
       rare. */
    src = stream->header;
    len = stream->header_len;
  }
  for (;;) {
    for (i = 0, taken = 0; i < n; ++i) {
      k = ngp_get_varint(src + taken, len - taken, &values[i]);
      if (k == 0) {
        break;
      }
      taken += k;
    }
    if (i == n) {
      if (stream->header_len) {
        stream->header_len = 0;
      } else {
        *pp += taken;
      }
      return 1;
    }
    if (*pp == end) {
      return 0;
    }
    /* Two integers take at most 16 bytes, so there is room. */
    stream->header[stream->header_len++] = *(*pp)++;
    src = stream->header;
    len = stream->header_len;
  }
}

/* ---- Life and inspection ---- */

int ngp_h3_new(ngp_h3 **ph3, const ngp_h3_options *options, nghttp2_mem *mem) {
  ngp_h3 *h3 = ngp_calloc(mem, 1, sizeof(*h3));

  if (!h3) {
    return NGHTTP2_ERR_NOMEM;
  }
  h3->mem = mem;
  h3->options = *options;
  h3->options.is_client = options->is_client != 0;
  ngp_qpack_fields_init(&h3->results.fields, mem);
  ngp_buf_init(&h3->results.out, mem);
  h3->local.control = h3->local.qpack_encoder = h3->local.qpack_decoder =
      NGP_H3_NO_ID;
  h3->peer.control = h3->peer.qpack_encoder = NGP_H3_NO_ID;
  h3->peer.qpack_decoder = NGP_H3_NO_ID;
  h3->push.max_id = NGP_H3_NO_ID;
  h3->goaway.sent = h3->goaway.received = UINT64_MAX;
  if (ngp_qpack_encoder_init(&h3->encoder, options->qpack_encoder_capacity,
                             mem) != 0 ||
      ngp_qpack_decoder_init(&h3->decoder, options->qpack_capacity,
                             options->qpack_blocked_streams, mem) != 0) {
    ngp_h3_del(h3);
    return NGHTTP2_ERR_NOMEM;
  }
  *ph3 = h3;
  return 0;
}

void ngp_h3_del(ngp_h3 *h3) {
  ngp_h3_stream *stream;
  size_t place = 0;
  size_t i;

  if (!h3) {
    return;
  }
  ngp_h3_begin(h3);
  while ((stream = ngp_map_next(&h3->streams, &place))) {
    stream_del(h3, stream);
  }
  ngp_map_free(&h3->streams, h3->mem);
  ngp_free(h3->mem, h3->results.events);
  ngp_qpack_fields_free(&h3->results.fields);
  ngp_free(h3->mem, h3->results.ops);
  ngp_buf_free(&h3->results.out);
  ngp_free(h3->mem, h3->results.held);
  ngp_free(h3->mem, h3->waiting.blocked);
  ngp_free(h3->mem, h3->peer.settings);
  for (i = 0; i < h3->waiting.ndatagrams; ++i) {
    ngp_buf_free(&h3->waiting.datagrams[i].buf);
  }
  ngp_free(h3->mem, h3->waiting.datagrams);
  ngp_qpack_encoder_free(&h3->encoder);
  ngp_qpack_decoder_free(&h3->decoder);
  ngp_free(h3->mem, h3);
}

const ngp_h3_options *ngp_h3_get_options(const ngp_h3 *h3) {
  return &h3->options;
}

void ngp_h3_set_peer_datagrams(ngp_h3 *h3, int allowed) {
  h3->peer.datagrams = (uint8_t)(allowed != 0);
}

const ngp_h3_event *ngp_h3_events(const ngp_h3 *h3, size_t *pn) {
  *pn = h3->results.nevents;
  return h3->results.events;
}

const nghttp3_qpack_nv *ngp_h3_fields(const ngp_h3 *h3) {
  return h3->results.fields.nv;
}

ngp_qpack_pairs *ngp_h3_pairs(ngp_h3 *h3) { return &h3->decoder.pairs; }

const ngp_h3_op *ngp_h3_ops(const ngp_h3 *h3, size_t *pn) {
  *pn = h3->results.nops;
  return h3->results.ops;
}

const uint8_t *ngp_h3_output(const ngp_h3 *h3) { return h3->results.out.base; }

const ngp_h3_phrase *ngp_h3_closing(const ngp_h3 *h3, uint64_t *pcode) {
  if (!h3->close.closed) {
    return NULL;
  }
  *pcode = h3->close.code;
  return &h3->close.phrase;
}

const ngp_h3_phrase *ngp_h3_phrase_of_error(const ngp_h3 *h3) {
  return &h3->refusal.phrase;
}

void ngp_h3_body_error(const ngp_h3 *h3, uint64_t *pexpected,
                       uint64_t *pactual) {
  *pexpected = h3->refusal.expected;
  *pactual = h3->refusal.actual;
}

const ngp_h3_setting *ngp_h3_peer_settings(const ngp_h3 *h3, size_t *pn) {
  *pn = h3->peer.nsettings;
  return h3->peer.settings_received ? h3->peer.settings : NULL;
}

int64_t ngp_h3_max_push_id(const ngp_h3 *h3) { return h3->push.max_id; }

int64_t ngp_h3_next_push_id(const ngp_h3 *h3) {
  return h3->options.is_client || h3->push.next_id > h3->push.max_id ||
                 (uint64_t)h3->push.next_id >= h3->goaway.received
             ? NGP_H3_NO_ID
             : h3->push.next_id;
}

uint64_t ngp_h3_section_len(const ngp_h3 *h3) { return h3->section_len; }

int64_t ngp_h3_local_stream(const ngp_h3 *h3, uint64_t type) {
  switch (type) {
  case NGP_H3_STREAM_CONTROL:
    return h3->local.control;
  case NGP_H3_STREAM_QPACK_ENCODER:
    return h3->local.qpack_encoder;
  default:
    return h3->local.qpack_decoder;
  }
}

const ngp_h3_qpack_bytes *ngp_h3_get_qpack_bytes(const ngp_h3 *h3) {
  return &h3->qpack_bytes;
}

uint64_t ngp_h3_next_request(const ngp_h3 *h3) { return 4 * h3->requests.next; }

int ngp_h3_priority(const ngp_h3 *h3, int64_t stream_id, int *pincremental) {
  const ngp_h3_stream *stream = ngp_h3_find(h3, stream_id);

  *pincremental = stream ? stream->incremental : 0;
  return stream ? stream->urgency : NGHTTP3_DEFAULT_URGENCY;
}

int ngp_h3_next_stream(const ngp_h3 *h3, size_t *pplace,
                       ngp_h3_stream_info *info) {
  const ngp_h3_stream *stream = ngp_map_next(&h3->streams, pplace);

  if (stream) {
    *info = (ngp_h3_stream_info){
        .stream_id = stream->id,
        .type = stream->type,
        .blocked = stream->blocked,
        .recv_ended = stream->recv_ended,
        .send_ended = stream->send_ended,
        .recv_state = stream->recv_state,
        .send_state = stream->send_state,
        .in_frame = stream->in_frame,
        .frame_type = stream->frame_type,
        .frame_size = stream->frame_left,
        .push_id = stream->push_id,
        .session_id = stream->session_id,
        .buffer = stream->header_len ? stream->header : stream->buf.base,
        .buffer_len = stream->header_len ? stream->header_len : stream->buf.len,
    };
    return 1;
  }
  return 0;
}
