/*
 * nghttp2's callbacks.  They record, check bounds and queue; none of them
 * calls out.  SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "ngp_h2_int.h"

/* The padding field and the padding (RFC 9113, 6.1) take at most this. */
#define MAX_PADDING 256

/* Body runs from this size on are told as segments: below it a copy costs
   less than another object and another iovec. */
#define MIN_REF 4096

#define OVERFLOW                                                               \
  "SETTINGS: INITIAL_WINDOW_SIZE makes a window larger than 2^31-1"

#define CANNOT_SEND "the header section could not be sent"

/* A source is asked for at most this at a time. */
#define SOURCE_CHUNK 65536

/* Callbacks answer want of memory, the one thing they cannot cope with, by
   this: nghttp2 then gives the session up. */
#define FAIL NGHTTP2_ERR_CALLBACK_FAILURE

static size_t frame_slot(uint8_t type) {
  return type < NGP_H2_FRAME_TYPES - 1 ? type : NGP_H2_FRAME_TYPES - 1;
}

/* Nonzero if what comes in on |stream| is nobody's business any more. */
static int ignored(const ngp_h2_stream *stream) {
  return !stream || (stream->flags & (NGP_H2_RESET_LOCAL | NGP_H2_DOOMED));
}

/* ---- Receiving ---- */

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd,
                          void *user_data) {
  ngp_h2 *h2 = user_data;

  (void)session;
  ++h2->counters.frames_received[frame_slot(hd->type)];
  if (hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_PUSH_PROMISE ||
      hd->type == NGHTTP2_CONTINUATION) {
    h2->counters.header_block_bytes_received += hd->length;
  }
  return 0;
}

static int on_begin_headers(nghttp2_session *session,
                            const nghttp2_frame *frame, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;
  int32_t id = frame->hd.stream_id;

  (void)session;
  ngp_h2_block_begin(h2);
  if (frame->hd.type == NGHTTP2_PUSH_PROMISE) {
    id = frame->push_promise.promised_stream_id;
    ngp_h2_note_opened(h2, id);
  } else if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
    return 0;
  }
  if (ngp_h2_stream_find(h2, id)) {
    return 0;
  }
  stream = ngp_h2_stream_add(h2, id);
  if (!stream) {
    return FAIL;
  }
  if (id > h2->last_remote_id) {
    h2->last_remote_id = id;
  }
  if (frame->hd.type == NGHTTP2_PUSH_PROMISE) {
    /* A client says nothing on a pushed stream (RFC 9113, 8.4). */
    stream->flags = NGP_H2_PUSHED | NGP_H2_LOCAL_HEADERS | NGP_H2_LOCAL_END |
                    NGP_H2_LOCAL_END_SENT;
  }
  return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame,
                     nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags,
                     void *user_data) {
  ngp_h2 *h2 = user_data;

  (void)session;
  (void)frame;
  return ngp_h2_block_add(h2, name, value, flags & NGHTTP2_NV_FLAG_NO_INDEX) ==
                 0
             ? 0
             : FAIL;
}

static int on_invalid_header(nghttp2_session *session,
                             const nghttp2_frame *frame, nghttp2_rcbuf *name,
                             nghttp2_rcbuf *value, uint8_t flags,
                             void *user_data) {
  (void)session;
  (void)frame;
  (void)name;
  (void)value;
  (void)flags;
  (void)user_data;
  /* Left to itself nghttp2 would drop the field and go on; RFC 9113, 8.1.1
     has the message malformed.  This makes nghttp2 reset the stream. */
  return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* The first digit of :status, or 0 if there is none. */
static uint8_t status_class(const ngp_h2 *h2) {
  const ngp_h2_batch *batch = &h2->batch;
  nghttp2_vec value;
  size_t i;

  for (i = batch->committed; i < batch->nfields; ++i) {
    if (batch->fields[i].token == NGP_TOKEN__STATUS) {
      value = nghttp2_rcbuf_get_buf(batch->fields[i].value);
      return value.len ? value.base[0] : '0';
    }
  }
  return 0;
}

static ngp_h2_event_type message_type(const ngp_h2 *h2,
                                      const ngp_h2_stream *stream) {
  uint8_t digit;

  if (!h2->options.client) {
    return stream->flags & NGP_H2_REMOTE_HEADERS ? NGP_H2_TRAILERS
                                                 : NGP_H2_REQUEST;
  }
  /* nghttp2 gives the final response after an informational one and the
     trailers the same category. */
  digit = status_class(h2);
  if (!digit) {
    return NGP_H2_TRAILERS;
  }
  return digit == '1' ? NGP_H2_INFORMATIONAL : NGP_H2_RESPONSE;
}

static int on_headers_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  ngp_h2_batch *batch = &h2->batch;
  ngp_h2_event_type type;
  ngp_h2_event *event;
  const char *reason;
  uint32_t flags;
  int has_priority;

  if (ignored(stream)) {
    return 0;
  }
  type = message_type(h2, stream);
  reason = type == NGP_H2_TRAILERS && (stream->flags & NGP_H2_TUNNEL)
               ? "a connected CONNECT has no trailers (RFC 9113, 8.5)"
           : type == NGP_H2_RESPONSE && status_class(h2) == '0'
               ? ":status must be 100 or more (RFC 9110, 15)"
               : NULL;
  if (reason) {
    return ngp_h2_reset(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason) == 0 ? 0
                                                                         : FAIL;
  }
  if (h2->block_overflow) {
    return ngp_h2_reset(h2, stream, NGHTTP2_ENHANCE_YOUR_CALM,
                        "the header list is larger than the limit") == 0
               ? 0
               : FAIL;
  }
  if (type == NGP_H2_REQUEST) {
    reason = ngp_h2_check_request(batch->fields + batch->committed,
                                  batch->nfields - batch->committed, &flags,
                                  &has_priority);
    if (reason) {
      return ngp_h2_reset(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason) == 0
                 ? 0
                 : FAIL;
    }
    stream->flags |= flags;
    if (h2->options.default_incremental && !has_priority) {
      ngp_h2_set_priority(h2, stream->id, NGHTTP2_EXTPRI_DEFAULT_URGENCY, 1, 0);
    }
  }
  if (type == NGP_H2_RESPONSE && status_class(h2) == '2' &&
      (stream->flags & NGP_H2_CONNECT) && !(stream->flags & NGP_H2_EXTENDED)) {
    stream->flags |= NGP_H2_TUNNEL;
  }
  event = ngp_h2_record(h2, type, stream->id);
  if (!event) {
    return FAIL;
  }
  ngp_h2_block_commit(h2, event);
  if (type != NGP_H2_INFORMATIONAL) {
    stream->flags |= NGP_H2_REMOTE_HEADERS;
  }
  if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
    stream->flags |= NGP_H2_REMOTE_END;
    event->end_stream = 1;
  }
  return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t frame_flags,
                         int32_t stream_id, const uint8_t *data, size_t len,
                         void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);
  ngp_h2_event *event;

  (void)session;
  (void)frame_flags;
  if (ignored(stream)) {
    return h2->options.manual_credit ? ngp_h2_return_credit(h2, len) : 0;
  }
  event = ngp_h2_record(h2, NGP_H2_DATA, stream_id);
  if (!event) {
    return FAIL;
  }
  event->data = data;
  event->len = len;
  if (h2->options.manual_credit) {
    stream->unacked += len;
  }
  return 0;
}

static int on_data_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  ngp_h2_batch *batch = &h2->batch;
  ngp_h2_event *event;

  if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) || ignored(stream)) {
    return 0;
  }
  stream->flags |= NGP_H2_REMOTE_END;
  /* The end goes with the last piece, if that came in with this input. */
  event = batch->nevents ? &batch->events[batch->nevents - 1] : NULL;
  if (!event || event->type != NGP_H2_DATA || event->stream_id != stream->id) {
    event = ngp_h2_record(h2, NGP_H2_DATA, stream->id);
    if (!event) {
      return FAIL;
    }
  }
  event->end_stream = 1;
  return 0;
}

static int on_settings_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_event *event;
  uint32_t window;

  if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
    return ngp_h2_record(h2, NGP_H2_SETTINGS_ACK, 0) ? 0 : FAIL;
  }
  ++h2->expected;
  event = ngp_h2_record(h2, NGP_H2_SETTINGS, 0);
  if (!event || ngp_h2_event_copy(h2, event, frame->settings.iv,
                                  frame->settings.niv *
                                      sizeof(*frame->settings.iv)) != 0) {
    return FAIL;
  }
  event->value = (int64_t)frame->settings.niv;
  window = nghttp2_session_get_remote_settings(
      h2->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
  if (window > h2->remote_initial_window ||
      (window < h2->remote_initial_window && h2->queued_body)) {
    /* Every stream may send more (RFC 9113, 6.9.2); or some less than is
       queued, which leaves more for the others. */
    event = ngp_h2_record(h2, NGP_H2_WINDOW_UPDATE, 0);
    if (!event) {
      return FAIL;
    }
  }
  if (window != h2->remote_initial_window) {
    h2->window_growth = window > h2->remote_initial_window
                            ? window - h2->remote_initial_window
                            : 0;
    h2->remote_initial_window = window;
    ngp_h2_reserve_all(h2);
  }
  return 0;
}

static int on_ping_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  int ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
  ngp_h2_event *event =
      ngp_h2_record(h2, ack ? NGP_H2_PING_ACK : NGP_H2_PING, 0);

  if (!event) {
    return FAIL;
  }
  memcpy(event->opaque, frame->ping.opaque_data, sizeof(event->opaque));
  if (!ack && !h2->options.no_auto_ping_ack) {
    ++h2->expected;
  }
  return 0;
}

/*
 * No queued request will be sent after GOAWAY; nghttp2 would tell each when
 * its turn comes, which may be when a long response ends.
 */
static int refuse_unsent(ngp_h2 *h2) {
  int32_t *ids;
  size_t i, n;
  int rv = 0;

  if (!h2->unsent) {
    return 0;
  }
  if (ngp_h2_stream_ids(h2, NGP_H2_UNSENT, &ids, &n) != 0) {
    return FAIL;
  }
  for (i = 0; i < n && rv == 0; ++i) {
    rv = ngp_h2_close_stream(h2, ngp_h2_stream_find(h2, ids[i]),
                             NGHTTP2_REFUSED_STREAM);
  }
  ngp_free(h2->mem, ids);
  return rv == 0 ? 0 : FAIL;
}

static int on_goaway_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_GOAWAY, 0);

  if (!event || ngp_h2_event_copy(h2, event, frame->goaway.opaque_data,
                                  frame->goaway.opaque_data_len) != 0) {
    return FAIL;
  }
  event->other_id = frame->goaway.last_stream_id;
  event->error_code = frame->goaway.error_code;
  return refuse_unsent(h2);
}

static int on_rst_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  ngp_h2_event *event;

  if (ignored(stream)) {
    return 0;
  }
  stream->flags |= NGP_H2_RESET_REMOTE;
  event = ngp_h2_record(h2, NGP_H2_STREAM_RESET, stream->id);
  if (!event) {
    return FAIL;
  }
  event->remote = 1;
  event->error_code = frame->rst_stream.error_code;
  event->unprocessed = frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM &&
                       ngp_h2_is_local_id(h2, stream->id);
  return 0;
}

static int on_push_promise_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  int32_t promised = frame->push_promise.promised_stream_id;
  ngp_h2_stream *parent = ngp_h2_stream_find(h2, frame->hd.stream_id);
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, promised);
  const ngp_h2_batch *batch = &h2->batch;
  const char *reason;
  ngp_h2_event *event;

  if (ignored(stream)) {
    return 0;
  }
  if (ignored(parent) || h2->block_overflow) {
    /* Nobody waits for it. */
    return ngp_h2_reset(h2, stream, NGHTTP2_CANCEL,
                        "nobody waits for this promise") == 0
               ? 0
               : FAIL;
  }
  reason = ngp_h2_check_promise(batch->fields + batch->committed,
                                batch->nfields - batch->committed);
  if (reason) {
    return ngp_h2_reset(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason) == 0 ? 0
                                                                         : FAIL;
  }
  event = ngp_h2_record(h2, NGP_H2_PUSH_PROMISE, frame->hd.stream_id);
  if (!event) {
    return FAIL;
  }
  event->other_id = promised;
  ngp_h2_block_commit(h2, event);
  return 0;
}

static int on_altsvc_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  const nghttp2_ext_altsvc *altsvc = frame->ext.payload;
  ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_ALTSVC, frame->hd.stream_id);
  size_t len = altsvc->origin_len + altsvc->field_value_len;

  if (!event) {
    return FAIL;
  }
  if (len) {
    event->owned = ngp_malloc(h2->mem, len);
    if (!event->owned) {
      return FAIL;
    }
    if (altsvc->origin_len) {
      memcpy(event->owned, altsvc->origin, altsvc->origin_len);
    }
    if (altsvc->field_value_len) {
      memcpy(event->owned + altsvc->origin_len, altsvc->field_value,
             altsvc->field_value_len);
    }
    event->data = event->owned;
    event->data2 = event->owned + altsvc->origin_len;
  }
  event->len = altsvc->origin_len;
  event->len2 = altsvc->field_value_len;
  return 0;
}

static int on_origin_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  const nghttp2_ext_origin *origin = frame->ext.payload;
  size_t i;

  for (i = 0; i < origin->nov; ++i) {
    ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_ORIGIN, 0);

    if (!event || ngp_h2_event_copy(h2, event, origin->ov[i].origin,
                                    origin->ov[i].origin_len) != 0) {
      return FAIL;
    }
  }
  return 0;
}

static int on_priority_update_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  const nghttp2_ext_priority_update *update = frame->ext.payload;
  ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_PRIORITY_UPDATE, 0);

  if (!event || ngp_h2_event_copy(h2, event, update->field_value,
                                  update->field_value_len) != 0) {
    return FAIL;
  }
  event->other_id = update->stream_id;
  return 0;
}

static int on_extension_chunk(nghttp2_session *session,
                              const nghttp2_frame_hd *hd, const uint8_t *data,
                              size_t len, void *user_data) {
  ngp_h2 *h2 = user_data;

  (void)session;
  (void)hd;
  /* nghttp2 bounds a frame by our SETTINGS_MAX_FRAME_SIZE. */
  return ngp_buf_add(&h2->extension, data, len) == 0 ? 0 : FAIL;
}

static int on_extension_unpack(nghttp2_session *session, void **payload,
                               const nghttp2_frame_hd *hd, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_EXTENSION, hd->stream_id);

  (void)session;
  *payload = NULL;
  if (!event || ngp_h2_event_copy(h2, event, h2->extension.base,
                                  h2->extension.len) != 0) {
    return FAIL;
  }
  event->frame_type = hd->type;
  event->flags = hd->flags;
  ngp_buf_clear(&h2->extension, 0);
  return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame,
                         void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;
  ngp_h2_event *event;

  (void)session;
  switch (frame->hd.type) {
  case NGHTTP2_DATA:
    return on_data_recv(h2, frame);
  case NGHTTP2_HEADERS:
    return on_headers_recv(h2, frame);
  case NGHTTP2_RST_STREAM:
    return on_rst_recv(h2, frame);
  case NGHTTP2_SETTINGS:
    return on_settings_recv(h2, frame);
  case NGHTTP2_PUSH_PROMISE:
    return on_push_promise_recv(h2, frame);
  case NGHTTP2_PING:
    return on_ping_recv(h2, frame);
  case NGHTTP2_GOAWAY:
    return on_goaway_recv(h2, frame);
  case NGHTTP2_WINDOW_UPDATE:
    event = ngp_h2_record(h2, NGP_H2_WINDOW_UPDATE, frame->hd.stream_id);
    if (!event) {
      return FAIL;
    }
    event->value = frame->window_update.window_size_increment;
    stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
    if (stream) {
      ngp_h2_reserve(h2, stream);
    }
    return 0;
  case NGHTTP2_ALTSVC:
    return on_altsvc_recv(h2, frame);
  case NGHTTP2_ORIGIN:
    return on_origin_recv(h2, frame);
  case NGHTTP2_PRIORITY_UPDATE:
    return on_priority_update_recv(h2, frame);
  default:
    return 0;
  }
}

static int on_invalid_frame_recv(nghttp2_session *session,
                                 const nghttp2_frame *frame, int lib_error,
                                 void *user_data) {
  ngp_h2 *h2 = user_data;
  int32_t id = frame->hd.type == NGHTTP2_PUSH_PROMISE
                   ? frame->push_promise.promised_stream_id
                   : frame->hd.stream_id;
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, id);

  (void)session;
  if (stream) {
    stream->flags |= NGP_H2_DOOMED;
  }
  if (!h2->reason) {
    const char *reason = nghttp2_strerror(lib_error);

    ngp_h2_set_reason(h2, reason, strlen(reason));
  }
  return 0;
}

static int on_error(nghttp2_session *session, int lib_error, const char *msg,
                    size_t len, void *user_data) {
  ngp_h2 *h2 = user_data;

  (void)session;
  (void)lib_error;
  ngp_h2_set_reason(h2, msg, len);
  return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id,
                           uint32_t error_code, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);

  (void)session;
  if (!stream) {
    return 0;
  }
  return ngp_h2_close_stream(h2, stream, error_code) == 0 ? 0 : FAIL;
}

/* ---- Sending ---- */

/* Takes |n| bytes of |stream|'s body to the output. */
static int gather_body(ngp_h2 *h2, ngp_h2_stream *stream, size_t n) {
  ngp_chunk *chunk;
  size_t left = n;

  for (chunk = stream->body.head; left; chunk = chunk->next) {
    size_t len = chunk->len - chunk->pos;
    const uint8_t *base = chunk->base + chunk->pos;

    if (len > left) {
      len = left;
    }
    if (h2->by_reference && len >= MIN_REF) {
      if (ngp_h2_add_ref(h2, base, len, chunk->owner) != 0) {
        return FAIL;
      }
    } else if (ngp_buf_add(&h2->out, base, len) != 0) {
      return FAIL;
    }
    left -= len;
  }
  ngp_body_shift(&stream->body, n, &h2->tray);
  h2->queued_body -= n;
  return 0;
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame,
                     const uint8_t *framehd, size_t length,
                     nghttp2_data_source *source, void *user_data) {
  static const uint8_t zeros[MAX_PADDING];
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream = source->ptr;
  size_t padlen = frame->data.padlen;
  uint8_t pad_field;

  (void)session;
  if (ngp_buf_add(&h2->out, framehd, 9) != 0) {
    return FAIL;
  }
  if (padlen) {
    /* |padlen| counts the field itself. */
    pad_field = (uint8_t)(padlen - 1);
    if (ngp_buf_add(&h2->out, &pad_field, 1) != 0) {
      return FAIL;
    }
  }
  if (gather_body(h2, stream, length) != 0 ||
      (padlen && ngp_buf_add(&h2->out, zeros, padlen - 1) != 0)) {
    return FAIL;
  }
  if ((stream->flags & NGP_H2_WATCHED) && stream->body.queued <= stream->low) {
    stream->flags &= ~NGP_H2_WATCHED;
    if (!ngp_h2_record(h2, NGP_H2_BODY_DRAINED, stream->id)) {
      return FAIL;
    }
  }
  return 0;
}

static nghttp2_ssize read_body(nghttp2_session *session, int32_t stream_id,
                               uint8_t *buf, size_t length,
                               uint32_t *data_flags,
                               nghttp2_data_source *source, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream = source->ptr;
  size_t n = stream->body.queued;
  int rv;

  (void)buf;
  if (h2->out.len + h2->refs_len >= h2->data_limit) {
    /* Only what is urgent is gathered now.  This leaves the frame where it
       is; held back any later it would hold back the others, too. */
    return NGHTTP2_ERR_PAUSE;
  }
  if (n == 0 && !(stream->flags & NGP_H2_LOCAL_END)) {
    stream->flags |= NGP_H2_DEFERRED;
    if ((stream->flags & NGP_H2_SOURCE) && ngp_h2_want(h2, stream, length)) {
      return FAIL;
    }
    return NGHTTP2_ERR_DEFERRED;
  }
  *data_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (n > length) {
    return (nghttp2_ssize)length;
  }
  if (stream->flags & NGP_H2_LOCAL_END) {
    *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailers) {
      /* nghttp2 wants trailers submitted here: earlier they would overtake
         the body. */
      *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      rv = nghttp2_submit_trailer(session, stream_id, stream->trailers->nva,
                                  stream->trailers->nvlen);
      if (rv != 0) {
        return FAIL;
      }
      ngp_free(h2->mem, stream->trailers);
      stream->trailers = NULL;
    }
  }
  return (nghttp2_ssize)n;
}

nghttp2_data_provider2 ngp_h2_data_provider(ngp_h2_stream *stream) {
  return (nghttp2_data_provider2){.source = {.ptr = stream},
                                  .read_callback = read_body};
}

/*
 * nghttp2 would stop at 16 KiB; its contract wants a length in [1, ...].  It
 * keeps a buffer of the largest length ever answered.
 */
static nghttp2_ssize read_length(nghttp2_session *session, uint8_t frame_type,
                                 int32_t stream_id,
                                 int32_t session_remote_window_size,
                                 int32_t stream_remote_window_size,
                                 uint32_t remote_max_frame_size,
                                 void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);
  size_t n = remote_max_frame_size;

  (void)session;
  (void)frame_type;
  if (n > h2->options.max_data_frame) {
    n = h2->options.max_data_frame;
  }
  /* nghttp2 makes its buffer as large as this answer, so that it is not more
     than there is. */
  if (stream) {
    size_t have = stream->body.queued;

    if (!have) {
      have = stream->flags & NGP_H2_SOURCE ? SOURCE_CHUNK : 1;
    }
    if (h2->options.pad_multiple) {
      /* It bounds the padding, too. */
      have += MAX_PADDING;
    }
    if (n > have) {
      n = have;
    }
  }
  if (n > (size_t)session_remote_window_size) {
    n = (size_t)session_remote_window_size;
  }
  if (n > (size_t)stream_remote_window_size) {
    n = (size_t)stream_remote_window_size;
  }
  return (nghttp2_ssize)(n ? n : 1);
}

static nghttp2_ssize select_padding(nghttp2_session *session,
                                    const nghttp2_frame *frame,
                                    size_t max_payloadlen, void *user_data) {
  ngp_h2 *h2 = user_data;
  size_t multiple = h2->options.pad_multiple;
  size_t len = frame->hd.length;
  size_t padded = (len + multiple - 1) / multiple * multiple;

  (void)session;
  if (padded > len + MAX_PADDING) {
    padded = len + MAX_PADDING;
  }
  if (padded > max_payloadlen) {
    padded = max_payloadlen;
  }
  return (nghttp2_ssize)(padded < len ? len : padded);
}

static int on_goaway_send(ngp_h2 *h2, const nghttp2_frame *frame) {
  const uint8_t *debug = frame->goaway.opaque_data;

  if (h2->own_goaways) {
    --h2->own_goaways;
    return 0;
  }
  /* The last frame of this connection; ngp_h2_send() ends it, for streams
     must not be freed while nghttp2 sends.  The debug data are its reason. */
  h2->failed = 1;
  h2->fail_code = frame->goaway.error_code;
  if (frame->goaway.opaque_data_len) {
    ngp_h2_set_reason(h2, (const char *)debug, frame->goaway.opaque_data_len);
  }
  return 0;
}

/* Our half of |stream| has ended. */
static int on_end_sent(ngp_h2 *h2, ngp_h2_stream *stream) {
  stream->flags |= NGP_H2_LOCAL_END | NGP_H2_LOCAL_END_SENT;
  if ((stream->flags & NGP_H2_RST_AFTER_END) &&
      !(stream->flags & NGP_H2_REMOTE_END)) {
    stream->flags |= NGP_H2_RESET_LOCAL;
    ++h2->expected;
    return nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                     stream->rst_code);
  }
  return 0;
}

/* The PUSH_PROMISE of |stream| is out: the response may follow. */
static int on_promise_sent(ngp_h2 *h2, ngp_h2_stream *stream) {
  nghttp2_data_provider2 provider = ngp_h2_data_provider(stream);
  ngp_h2_header_list *response = stream->response;
  int rv;

  stream->flags &= ~NGP_H2_UNSENT;
  if (!response) {
    return 0;
  }
  rv = nghttp2_submit_response2(h2->session, stream->id, response->nva,
                                response->nvlen,
                                stream->response_end ? NULL : &provider);
  ngp_free(h2->mem, response);
  stream->response = NULL;
  return rv;
}

/* The request of |stream| has got its place. */
static int on_request_begun(ngp_h2 *h2, ngp_h2_stream *stream) {
  int rv = 0;

  stream->flags &= ~NGP_H2_UNSENT;
  --h2->unsent;
  if (stream->id <= h2->waiting_upto &&
      !ngp_h2_record(h2, NGP_H2_REQUEST_SENT, stream->id)) {
    return NGHTTP2_ERR_NOMEM;
  }
  if (stream->priority_waits) {
    rv = nghttp2_submit_priority_update(h2->session, NGHTTP2_FLAG_NONE,
                                        stream->id, stream->priority.base,
                                        stream->priority.len);
    stream->priority_waits = 0;
    ngp_buf_free(&stream->priority);
  }
  return rv;
}

/*
 * From here on the frame is sent, if perhaps in pieces: nghttp2 will attach
 * |stream|'s body when the last one is out, so that the record has to stay.
 */
static int before_frame_send(nghttp2_session *session,
                             const nghttp2_frame *frame, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;

  (void)session;
  if (frame->hd.type != NGHTTP2_HEADERS || !h2->options.client) {
    return 0;
  }
  stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  if (!stream || !(stream->flags & NGP_H2_UNSENT)) {
    return 0;
  }
  return on_request_begun(h2, stream) == 0 ? 0 : FAIL;
}

/*
 * Nonzero if the last growth of SETTINGS_INITIAL_WINDOW_SIZE was too much for
 * |stream|: nghttp2 then leaves its window as it was and resets it.
 */
static int overflows(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  int32_t window =
      nghttp2_session_get_stream_remote_window_size(h2->session, stream->id);

  return h2->window_growth &&
         (int64_t)window + h2->window_growth > NGHTTP2_MAX_WINDOW_SIZE;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame,
                         void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;
  size_t i;

  ++h2->counters.frames_sent[frame_slot(frame->hd.type)];
  switch (frame->hd.type) {
  case NGHTTP2_HEADERS:
    h2->counters.header_block_bytes_sent += frame->hd.length;
    for (i = 0; i < frame->headers.nvlen; ++i) {
      h2->counters.header_bytes_sent +=
          frame->headers.nva[i].namelen + frame->headers.nva[i].valuelen;
    }
    /* fall through */
  case NGHTTP2_DATA:
    stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
    if (stream) {
      ngp_h2_reserve(h2, stream);
    }
    break;
  case NGHTTP2_PUSH_PROMISE:
    stream = ngp_h2_stream_find(h2, frame->push_promise.promised_stream_id);
    return stream && on_promise_sent(h2, stream) != 0 ? FAIL : 0;
  case NGHTTP2_GOAWAY:
    return on_goaway_send(h2, frame) == 0 ? 0 : FAIL;
  case NGHTTP2_RST_STREAM:
    stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
    if (!stream) {
      /* It was refused before it had a record. */
      ngp_h2_note_closed(h2, frame->hd.stream_id, 1);
    } else if (stream->flags & NGP_H2_RESET_LOCAL) {
      return 0;
    } else {
      /* Whatever the reason, the peer does not know of it yet. */
      stream->flags |= NGP_H2_DOOMED;
      if (frame->rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR &&
          overflows(h2, stream)) {
        /* RFC 9113, 6.9.2 wants the connection ended. */
        ngp_h2_set_reason(h2, OVERFLOW, sizeof(OVERFLOW) - 1);
        if (nghttp2_session_terminate_session(session,
                                              NGHTTP2_FLOW_CONTROL_ERROR)) {
          return FAIL;
        }
      }
    }
    return ngp_h2_count_provoked(h2) == 0 ? 0 : FAIL;
  default:
    return 0;
  }
  if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
      on_end_sent(h2, stream) != 0) {
    return FAIL;
  }
  return 0;
}

static int on_frame_not_send(nghttp2_session *session,
                             const nghttp2_frame *frame, int lib_error,
                             void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;

  switch (frame->hd.type) {
  case NGHTTP2_PUSH_PROMISE:
    stream = ngp_h2_stream_find(h2, frame->push_promise.promised_stream_id);
    break;
  case NGHTTP2_HEADERS:
    stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
    if (stream && !(stream->flags & NGP_H2_UNSENT)) {
      if (lib_error == NGHTTP2_ERR_STREAM_CLOSED ||
          lib_error == NGHTTP2_ERR_STREAM_CLOSING) {
        return 0;
      }
      /* A message that cannot be sent must not leave its stream hanging. */
      stream->flags |= NGP_H2_DOOMED;
      ngp_h2_set_reason(h2, CANNOT_SEND, sizeof(CANNOT_SEND) - 1);
      return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id,
                                       NGHTTP2_INTERNAL_ERROR) == 0
                 ? 0
                 : FAIL;
    }
    break;
  case NGHTTP2_GOAWAY:
    if (h2->own_goaways) {
      --h2->own_goaways;
    }
    return 0;
  default:
    return 0;
  }
  if (!stream) {
    return 0;
  }
  /* The stream was never opened: nobody else tells its end. */
  return ngp_h2_close_stream(h2, stream,
                             stream->flags & NGP_H2_RESET_LOCAL
                                 ? stream->rst_code
                                 : NGHTTP2_REFUSED_STREAM) == 0
             ? 0
             : FAIL;
}

static nghttp2_ssize pack_extension(nghttp2_session *session, uint8_t *buf,
                                    size_t len, const nghttp2_frame *frame,
                                    void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_extension *extension = frame->ext.payload;
  nghttp2_ssize n = (nghttp2_ssize)extension->len;

  (void)session;
  /* ngp_h2_submit_extension() has checked the length against |len|. */
  (void)len;
  if (extension->len) {
    memcpy(buf, extension->payload, extension->len);
  }
  ngp_h2_extension_free(h2, extension);
  return n;
}

int ngp_h2_callbacks_new(const ngp_h2 *h2,
                         nghttp2_session_callbacks **pcallbacks) {
  nghttp2_session_callbacks *cbs;
  int rv = nghttp2_session_callbacks_new(&cbs);

  if (rv != 0) {
    return rv;
  }
  nghttp2_session_callbacks_set_on_begin_frame_callback(cbs, on_begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(cbs,
                                                          on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback2(cbs, on_header);
  nghttp2_session_callbacks_set_on_invalid_header_callback2(cbs,
                                                            on_invalid_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cbs, on_data_chunk);
  nghttp2_session_callbacks_set_on_frame_recv_callback(cbs, on_frame_recv);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
      cbs, on_invalid_frame_recv);
  nghttp2_session_callbacks_set_on_stream_close_callback(cbs, on_stream_close);
  nghttp2_session_callbacks_set_error_callback2(cbs, on_error);
  nghttp2_session_callbacks_set_on_extension_chunk_recv_callback(
      cbs, on_extension_chunk);
  nghttp2_session_callbacks_set_unpack_extension_callback(cbs,
                                                          on_extension_unpack);
  nghttp2_session_callbacks_set_send_data_callback(cbs, send_data);
  nghttp2_session_callbacks_set_data_source_read_length_callback2(cbs,
                                                                  read_length);
  if (h2->options.pad_multiple) {
    nghttp2_session_callbacks_set_select_padding_callback2(cbs, select_padding);
  }
  nghttp2_session_callbacks_set_before_frame_send_callback(cbs,
                                                           before_frame_send);
  nghttp2_session_callbacks_set_on_frame_send_callback(cbs, on_frame_send);
  nghttp2_session_callbacks_set_on_frame_not_send_callback(cbs,
                                                           on_frame_not_send);
  nghttp2_session_callbacks_set_pack_extension_callback2(cbs, pack_extension);
  *pcallbacks = cbs;
  return 0;
}
