/*
 * nghttp2's callbacks while it receives.  They record, check bounds and queue;
 * none of them calls out.  SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "ngp_h2_int.h"

/* Nonzero if what is received on |stream| is dropped. */
static int ignored(const ngp_h2_stream *stream) {
  return !stream || (stream->flags & (NGP_H2_FLAG_RESET_LOCAL |
                                      NGP_H2_FLAG_DOOMED | NGP_H2_FLAG_MUTED));
}

/* Notes the end of the peer's half of a muted stream: its reset is not
   needed. */
static void note_end(ngp_h2_stream *stream, uint8_t frame_flags) {
  if (stream && (stream->flags & NGP_H2_FLAG_MUTED) &&
      (frame_flags & NGHTTP2_FLAG_END_STREAM)) {
    stream->flags |= NGP_H2_FLAG_REMOTE_END;
  }
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd,
                          void *user_data) {
  ngp_h2 *h2 = user_data;

  (void)session;
  ++h2->counters.frames_received[ngp_h2_frame_slot(hd->type)];
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
    ngp_h2_mark_used(h2, id);
  } else if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
    return 0;
  }
  if (ngp_h2_stream_find(h2, id)) {
    return 0;
  }
  stream = ngp_h2_stream_add(h2, id);
  if (!stream) {
    return NGP_H2_FAIL;
  }
  if (id > h2->ids.last_remote) {
    h2->ids.last_remote = id;
  }
  if (frame->hd.type == NGHTTP2_PUSH_PROMISE) {
    /* A client sends no message on a pushed stream (RFC 9113, 8.4). */
    stream->flags = NGP_H2_FLAG_PUSHED | NGP_H2_FLAG_LOCAL_HEADERS |
                    NGP_H2_FLAG_LOCAL_END | NGP_H2_FLAG_LOCAL_END_SENT;
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
             : NGP_H2_FAIL;
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
  /* By default nghttp2 would drop the field and continue, but the message is
     malformed (RFC 9113, 8.1.1).  This return value makes nghttp2 reset the
     stream. */
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

  if (!h2->options.is_client) {
    return stream->flags & NGP_H2_FLAG_REMOTE_HEADERS ? NGP_H2_EVENT_TRAILERS
                                                      : NGP_H2_EVENT_REQUEST;
  }
  /* nghttp2 has one category for the final response after an informational one
     and for trailers. */
  digit = status_class(h2);
  if (!digit) {
    return NGP_H2_EVENT_TRAILERS;
  }
  return digit == '1' ? NGP_H2_EVENT_INFORMATIONAL : NGP_H2_EVENT_RESPONSE;
}

/* ngp_h2_reset() for a callback. */
static int refuse(ngp_h2 *h2, ngp_h2_stream *stream, uint32_t error_code,
                  const char *reason) {
  return ngp_h2_reset(h2, stream, error_code, reason) == 0 ? 0 : NGP_H2_FAIL;
}

/* A refused block counts as a frame for each KiB, because it was decoded. */
static size_t glitches_of_block(const ngp_h2 *h2) {
  return 1 + h2->block.bytes / 1024;
}

static int on_headers_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  ngp_h2_batch *batch = &h2->batch;
  ngp_h2_event_type type;
  ngp_h2_event *event;
  const char *reason;
  uint32_t flags;
  int has_priority,
      self_dependent = h2->scan.self_dependent == frame->hd.stream_id;

  h2->scan.self_dependent = 0;
  if (ignored(stream)) {
    note_end(stream, frame->hd.flags);
    return 0;
  }
  type = message_type(h2, stream);
  reason = type == NGP_H2_EVENT_TRAILERS && (stream->flags & NGP_H2_FLAG_TUNNEL)
               ? "a connected CONNECT has no trailers (RFC 9113, 8.5)"
           : self_dependent ? NGP_H2_SELF_DEPENDENT
                            : NULL;
  if (reason) {
    return refuse(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason);
  }
  if (h2->block.overflow) {
    return ngp_h2_glitch(h2, glitches_of_block(h2)) != 0
               ? NGP_H2_FAIL
               : refuse(h2, stream, NGHTTP2_ENHANCE_YOUR_CALM,
                        "the header list is larger than the limit");
  }
  if (type == NGP_H2_EVENT_REQUEST) {
    reason = ngp_h2_check_request(batch->fields + batch->committed,
                                  batch->nfields - batch->committed, &flags,
                                  &has_priority);
    if (reason) {
      return refuse(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason);
    }
    stream->flags |= flags;
    if (h2->options.default_incremental && !has_priority) {
      ngp_h2_set_priority(h2, stream->id, NGHTTP2_EXTPRI_DEFAULT_URGENCY, 1, 0);
    }
  }
  if (type != NGP_H2_EVENT_REQUEST) {
    reason = ngp_h2_check_other(
        type == NGP_H2_EVENT_RESPONSE   ? NGP_H2_MESSAGE_RESPONSE
        : type == NGP_H2_EVENT_TRAILERS ? NGP_H2_MESSAGE_TRAILERS
                                        : NGP_H2_MESSAGE_INFORMATIONAL,
        batch->fields + batch->committed, batch->nfields - batch->committed);
    if (reason) {
      return refuse(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason);
    }
  }
  if (type == NGP_H2_EVENT_RESPONSE && status_class(h2) == '2' &&
      (stream->flags & NGP_H2_FLAG_CONNECT)) {
    stream->flags |= ngp_h2_connected(stream);
  }
  event = ngp_h2_record(h2, type, stream->id);
  if (!event) {
    return NGP_H2_FAIL;
  }
  if (type == NGP_H2_EVENT_REQUEST &&
      !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
      ngp_h2_expects_continue(batch->fields + batch->committed,
                              batch->nfields - batch->committed)) {
    stream->flags |= NGP_H2_FLAG_EXPECTS_100;
  }
  ngp_h2_block_commit(h2, event);
  if (type != NGP_H2_EVENT_INFORMATIONAL) {
    stream->flags |= NGP_H2_FLAG_REMOTE_HEADERS;
  }
  if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
    stream->flags |= NGP_H2_FLAG_REMOTE_END;
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
    return h2->options.manual_credit && ngp_h2_return_credit(h2, len) != 0
               ? NGP_H2_FAIL
               : 0;
  }
  event = ngp_h2_record(h2, NGP_H2_EVENT_DATA, stream_id);
  if (!event) {
    return NGP_H2_FAIL;
  }
  event->data = data;
  event->len = len;
  ngp_h2_earn_bytes(h2, len);
  stream->received += len;
  stream->flags &= ~NGP_H2_FLAG_EXPECTS_100;
  if (h2->options.manual_credit) {
    stream->unacked += len;
  }
  return 0;
}

static int on_data_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  ngp_h2_batch *batch = &h2->batch;
  ngp_h2_event *event;

  if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
    /* An empty frame was counted by its header. */
    return frame->hd.length && frame->hd.length == frame->data.padlen
               ? ngp_h2_glitch(h2, 1)
               : 0;
  }
  if (ignored(stream)) {
    note_end(stream, frame->hd.flags);
    return 0;
  }
  stream->flags |= NGP_H2_FLAG_REMOTE_END;
  /* The last piece of the body carries the end, if it was in this input. */
  event = batch->nevents ? &batch->events[batch->nevents - 1] : NULL;
  if (!event || event->type != NGP_H2_EVENT_DATA ||
      event->stream_id != stream->id) {
    event = ngp_h2_record(h2, NGP_H2_EVENT_DATA, stream->id);
    if (!event) {
      return NGP_H2_FAIL;
    }
  }
  event->end_stream = 1;
  return 0;
}

static int on_settings_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_event *event;
  uint32_t window;

  if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
    return ngp_h2_record(h2, NGP_H2_EVENT_SETTINGS_ACK, 0) ? 0 : NGP_H2_FAIL;
  }
  ++h2->expected;
  event = ngp_h2_record(h2, NGP_H2_EVENT_SETTINGS, 0);
  if (!event || ngp_h2_event_copy(h2, event, frame->settings.iv,
                                  frame->settings.niv *
                                      sizeof(*frame->settings.iv)) != 0) {
    return NGP_H2_FAIL;
  }
  event->value = (int64_t)frame->settings.niv;
  window = nghttp2_session_get_remote_settings(
      h2->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
  if (window > h2->window.remote_initial ||
      (window < h2->window.remote_initial && h2->bodies.queued)) {
    /* Every stream may send more (RFC 9113, 6.9.2); or some may send less than
       they have queued, which leaves more for the others. */
    event = ngp_h2_record(h2, NGP_H2_EVENT_WINDOW_UPDATE, 0);
    if (!event) {
      return NGP_H2_FAIL;
    }
  }
  if (window != h2->window.remote_initial) {
    h2->window.growth = window > h2->window.remote_initial
                            ? window - h2->window.remote_initial
                            : 0;
    h2->window.remote_initial = window;
    ngp_h2_reserve_all(h2);
  }
  return 0;
}

static int on_ping_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  int ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
  ngp_h2_event *event =
      ngp_h2_record(h2, ack ? NGP_H2_EVENT_PING_ACK : NGP_H2_EVENT_PING, 0);

  if (!event) {
    return NGP_H2_FAIL;
  }
  memcpy(event->opaque, frame->ping.opaque_data, sizeof(event->opaque));
  if (!ack && !h2->options.no_auto_ping_ack) {
    ++h2->expected;
  }
  return 0;
}

/*
 * Closes all queued requests, which are not sent after GOAWAY: nghttp2 would
 * report each only when its turn comes, possibly after a long response.
 */
static int refuse_unsent(ngp_h2 *h2) {
  int32_t *ids;
  size_t i, n;
  int rv = 0;

  if (!h2->unsent) {
    return 0;
  }
  if (ngp_h2_stream_ids(h2, NGP_H2_FLAG_UNSENT, &ids, &n) != 0) {
    return NGP_H2_FAIL;
  }
  for (i = 0; i < n && rv == 0; ++i) {
    rv = ngp_h2_close_stream(h2, ngp_h2_stream_find(h2, ids[i]),
                             NGHTTP2_REFUSED_STREAM);
  }
  ngp_free(h2->mem, ids);
  return rv == 0 ? 0 : NGP_H2_FAIL;
}

static int on_goaway_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_EVENT_GOAWAY, 0);

  if (!event || ngp_h2_event_copy(h2, event, frame->goaway.opaque_data,
                                  frame->goaway.opaque_data_len) != 0) {
    return NGP_H2_FAIL;
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
  stream->flags |= NGP_H2_FLAG_RESET_REMOTE;
  event = ngp_h2_record(h2, NGP_H2_EVENT_STREAM_RESET, stream->id);
  if (!event) {
    return NGP_H2_FAIL;
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
  if (h2->block.overflow && ngp_h2_glitch(h2, glitches_of_block(h2)) != 0) {
    return NGP_H2_FAIL;
  }
  if (ignored(parent) || h2->block.overflow) {
    /* The stream that it belongs to is dropped, or it exceeds a bound. */
    return refuse(h2, stream, NGHTTP2_CANCEL, "nobody waits for this promise");
  }
  reason = ngp_h2_check_promise(batch->fields + batch->committed,
                                batch->nfields - batch->committed);
  if (reason) {
    return refuse(h2, stream, NGHTTP2_PROTOCOL_ERROR, reason);
  }
  event = ngp_h2_record(h2, NGP_H2_EVENT_PUSH_PROMISE, frame->hd.stream_id);
  if (!event) {
    return NGP_H2_FAIL;
  }
  event->other_id = promised;
  ngp_h2_block_commit(h2, event);
  return 0;
}

/*
 * Several updates of one stream, or of the connection, become one event of a
 * batch: a peer may send thousands of them at once.
 */
static int record_update(ngp_h2 *h2, int32_t stream_id, int64_t n,
                         uint64_t *pbatch, size_t *pindex) {
  ngp_h2_batch *batch = &h2->batch;
  ngp_h2_event *event;

  if (*pbatch == batch->number) {
    batch->events[*pindex].value += n;
    return 0;
  }
  event = ngp_h2_record(h2, NGP_H2_EVENT_WINDOW_UPDATE, stream_id);
  if (!event) {
    return NGP_H2_FAIL;
  }
  event->value = n;
  *pbatch = batch->number;
  *pindex = batch->nevents - 1;
  return 0;
}

static int on_window_update_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  int64_t n = frame->window_update.window_size_increment;
  ngp_h2_stream *stream;

  if (frame->hd.stream_id == 0) {
    return record_update(h2, 0, n, &h2->window.update_batch,
                         &h2->window.update_event);
  }
  stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  if (!stream) {
    return 0;
  }
  ngp_h2_reserve(h2, stream);
  return record_update(h2, stream->id, n, &stream->update_batch,
                       &stream->update_event);
}

static int on_altsvc_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  const nghttp2_ext_altsvc *altsvc = frame->ext.payload;
  ngp_h2_event *event =
      ngp_h2_record(h2, NGP_H2_EVENT_ALTSVC, frame->hd.stream_id);
  size_t len = altsvc->origin_len + altsvc->field_value_len;

  if (!event) {
    return NGP_H2_FAIL;
  }
  if (len) {
    event->owned = ngp_malloc(h2->mem, len);
    if (!event->owned) {
      return NGP_H2_FAIL;
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
    ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_EVENT_ORIGIN, 0);

    if (!event || ngp_h2_event_copy(h2, event, origin->ov[i].origin,
                                    origin->ov[i].origin_len) != 0) {
      return NGP_H2_FAIL;
    }
  }
  return 0;
}

static int on_priority_update_recv(ngp_h2 *h2, const nghttp2_frame *frame) {
  const nghttp2_ext_priority_update *update = frame->ext.payload;
  ngp_h2_event *event = ngp_h2_record(h2, NGP_H2_EVENT_PRIORITY_UPDATE, 0);

  if (!event || ngp_h2_event_copy(h2, event, update->field_value,
                                  update->field_value_len) != 0) {
    return NGP_H2_FAIL;
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
  return ngp_buf_add(&h2->extension, data, len) == 0 ? 0 : NGP_H2_FAIL;
}

static int on_extension_unpack(nghttp2_session *session, void **payload,
                               const nghttp2_frame_hd *hd, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_event *event =
      ngp_h2_record(h2, NGP_H2_EVENT_EXTENSION, hd->stream_id);

  (void)session;
  *payload = NULL;
  if (!event || ngp_h2_event_copy(h2, event, h2->extension.base,
                                  h2->extension.len) != 0) {
    return NGP_H2_FAIL;
  }
  event->frame_type = hd->type;
  event->flags = hd->flags;
  ngp_buf_clear(&h2->extension, 0);
  return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame,
                         void *user_data) {
  ngp_h2 *h2 = user_data;

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
    return on_window_update_recv(h2, frame);
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
    stream->flags |= NGP_H2_FLAG_DOOMED;
  }
  if (!h2->end.reason) {
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
  return ngp_h2_close_stream(h2, stream, error_code) == 0 ? 0 : NGP_H2_FAIL;
}

void ngp_h2_set_recv_callbacks(nghttp2_session_callbacks *cbs) {
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
}
