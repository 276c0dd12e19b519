/*
 * nghttp2's callbacks while it sends, and the bodies that it asks for.  They
 * record, check bounds and queue; none of them calls out.
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "ngp_h2_int.h"

/* The most bytes of the Pad Length field and the padding (RFC 9113, 6.1). */
#define MAX_PADDING 256

/* Body runs from this size on become segments of their own: for smaller ones a
   copy costs less than another object and another iovec. */
#define MIN_REF 4096

#define OVERFLOW                                                               \
  "SETTINGS: INITIAL_WINDOW_SIZE makes a window larger than 2^31-1"

#define CANNOT_SEND "the header section could not be sent"

/* A source is asked for at most this at a time. */
#define SOURCE_CHUNK 65536

/* Moves |n| bytes of |stream|'s body to the output. */
static int gather_body(ngp_h2 *h2, ngp_h2_stream *stream, size_t n) {
  ngp_chunk *chunk;
  size_t left = n;

  for (chunk = stream->body.head; left; chunk = chunk->next) {
    size_t len = chunk->len - chunk->pos;
    const uint8_t *base = chunk->base + chunk->pos;

    if (len > left) {
      len = left;
    }
    if (h2->out.by_reference && len >= MIN_REF) {
      if (ngp_h2_add_ref(h2, base, len, chunk->owner) != 0) {
        return NGP_H2_FAIL;
      }
    } else if (ngp_buf_add(&h2->out.bytes, base, len) != 0) {
      return NGP_H2_FAIL;
    }
    left -= len;
  }
  ngp_body_shift(&stream->body, n, &h2->bodies.tray);
  h2->bodies.queued -= n;
  ngp_h2_earn_bytes(h2, n);
  h2->bodies.sent += n;
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
  if (ngp_buf_add(&h2->out.bytes, framehd, 9) != 0) {
    return NGP_H2_FAIL;
  }
  if (padlen) {
    /* |padlen| counts the field itself. */
    pad_field = (uint8_t)(padlen - 1);
    if (ngp_buf_add(&h2->out.bytes, &pad_field, 1) != 0) {
      return NGP_H2_FAIL;
    }
  }
  if (gather_body(h2, stream, length) != 0 ||
      (padlen && ngp_buf_add(&h2->out.bytes, zeros, padlen - 1) != 0)) {
    return NGP_H2_FAIL;
  }
  if ((stream->flags & NGP_H2_FLAG_WATCHED) &&
      stream->body.queued <= stream->low) {
    stream->flags &= ~NGP_H2_FLAG_WATCHED;
    if (!ngp_h2_record(h2, NGP_H2_EVENT_BODY_DRAINED, stream->id)) {
      return NGP_H2_FAIL;
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
  if (h2->out.bytes.len + h2->out.refs_len >= h2->out.data_limit) {
    /* Only urgent frames are gathered now.  This leaves the frame in its place;
       deferring it later would block the others, too. */
    return NGHTTP2_ERR_PAUSE;
  }
  if (n == 0 && !(stream->flags & NGP_H2_FLAG_LOCAL_END)) {
    stream->flags |= NGP_H2_FLAG_DEFERRED;
    if ((stream->flags & NGP_H2_FLAG_SOURCE) &&
        ngp_h2_want(h2, stream, length)) {
      return NGP_H2_FAIL;
    }
    return NGHTTP2_ERR_DEFERRED;
  }
  *data_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (n > length) {
    return (nghttp2_ssize)length;
  }
  if (stream->flags & NGP_H2_FLAG_LOCAL_END) {
    *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailers) {
      /* Trailers must be submitted here: earlier they would overtake the
         body. */
      *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      rv = nghttp2_submit_trailer(session, stream_id, stream->trailers->nva,
                                  stream->trailers->nvlen);
      if (rv != 0) {
        return NGP_H2_FAIL;
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
 * Without this callback nghttp2 would send at most 16 KiB.  The result must be
 * at least 1. nghttp2 keeps a buffer of the largest length ever returned.
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
  /* nghttp2 makes its buffer as large as the result, so it is not more than
     what is queued. */
  if (stream) {
    size_t have = stream->body.queued;

    if (!have) {
      have = stream->flags & NGP_H2_FLAG_SOURCE ? SOURCE_CHUNK : 1;
    }
    if (h2->options.pad_multiple) {
      /* This bounds the padding, too. */
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

  if (h2->goaway.queued) {
    --h2->goaway.queued;
    return 0;
  }
  /* The last frame of this connection. ngp_h2_send() ends it later, because
     streams must not be freed while nghttp2 sends.  The debug data are its
     reason. */
  h2->end.failed = 1;
  h2->end.code = frame->goaway.error_code;
  if (frame->goaway.opaque_data_len) {
    ngp_h2_set_reason(h2, (const char *)debug, frame->goaway.opaque_data_len);
  }
  return 0;
}

/*
 * Checks whether GOAWAY |frame| differs from the previous one.  If not, it is
 * not output: a call was made twice, or terminate comes after a GOAWAY of the
 * caller.
 */
static int on_goaway_begun(ngp_h2 *h2, const nghttp2_goaway *frame) {
  ngp_buf *sent = &h2->goaway.sent;
  const uint32_t fixed[2] = {(uint32_t)frame->last_stream_id,
                             frame->error_code};
  const size_t len = frame->opaque_data_len;

  if (sent->len && memcmp(sent->base, fixed, sizeof(fixed)) == 0 &&
      (len == 0 ||
       (sent->len == sizeof(fixed) + len &&
        memcmp(sent->base + sizeof(fixed), frame->opaque_data, len) == 0))) {
    h2->goaway.dropped = 1;
    return 0;
  }
  sent->len = 0;
  return ngp_buf_add(sent, fixed, sizeof(fixed)) == 0 &&
                 (len == 0 || ngp_buf_add(sent, frame->opaque_data, len) == 0)
             ? 0
             : NGP_H2_FAIL;
}

/* Our half of |stream| has ended. */
static int on_end_sent(ngp_h2 *h2, ngp_h2_stream *stream) {
  stream->flags |= NGP_H2_FLAG_LOCAL_END | NGP_H2_FLAG_LOCAL_END_SENT;
  if (!(stream->flags & NGP_H2_FLAG_RST_AFTER_END) ||
      (stream->flags & NGP_H2_FLAG_REMOTE_END)) {
    return 0;
  }
  if ((stream->flags & NGP_H2_FLAG_MUTED) && !h2->resets.hold) {
    /* The caller has asked for the reset. */
    ++h2->expected;
    return ngp_h2_send_rst(h2, stream);
  }
  ngp_h2_hold(h2, stream);
  return 0;
}

/* The PUSH_PROMISE of |stream| was sent: the response may follow. */
static int on_promise_sent(ngp_h2 *h2, ngp_h2_stream *stream) {
  nghttp2_data_provider2 provider = ngp_h2_data_provider(stream);
  ngp_h2_header_list *response = stream->response;
  int rv;

  stream->flags &= ~NGP_H2_FLAG_UNSENT;
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

/* The peer's limit has admitted the request of |stream|. */
static int on_request_begun(ngp_h2 *h2, ngp_h2_stream *stream) {
  int rv = 0;

  stream->flags &= ~NGP_H2_FLAG_UNSENT;
  --h2->unsent;
  if (stream->id <= h2->ids.waiting_upto &&
      !ngp_h2_record(h2, NGP_H2_EVENT_REQUEST_SENT, stream->id)) {
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
 * From here on the frame will be sent, possibly in pieces. nghttp2 attaches
 * |stream|'s body when the last one was sent, so the record must be kept.
 */
static int before_frame_send(nghttp2_session *session,
                             const nghttp2_frame *frame, void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;

  (void)session;
  if (frame->hd.type == NGHTTP2_GOAWAY) {
    return on_goaway_begun(h2, &frame->goaway);
  }
  if (frame->hd.type != NGHTTP2_HEADERS || !h2->options.is_client) {
    return 0;
  }
  stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
  if (!stream || !(stream->flags & NGP_H2_FLAG_UNSENT)) {
    return 0;
  }
  return on_request_begun(h2, stream) == 0 ? 0 : NGP_H2_FAIL;
}

/*
 * Nonzero if the last growth of SETTINGS_INITIAL_WINDOW_SIZE made |stream|'s
 * window overflow: nghttp2 then leaves the window unchanged and resets the
 * stream.
 */
static int overflows(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  int32_t window =
      nghttp2_session_get_stream_remote_window_size(h2->session, stream->id);

  return h2->window.growth &&
         (int64_t)window + h2->window.growth > NGHTTP2_MAX_WINDOW_SIZE;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame,
                         void *user_data) {
  ngp_h2 *h2 = user_data;
  ngp_h2_stream *stream;
  size_t i;

  if (!h2->goaway.dropped) {
    ++h2->counters.frames_sent[ngp_h2_frame_slot(frame->hd.type)];
  }
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
    return stream && on_promise_sent(h2, stream) != 0 ? NGP_H2_FAIL : 0;
  case NGHTTP2_GOAWAY:
    return on_goaway_send(h2, frame) == 0 ? 0 : NGP_H2_FAIL;
  case NGHTTP2_RST_STREAM:
    stream = ngp_h2_stream_find(h2, frame->hd.stream_id);
    if (!stream) {
      /* The stream was refused before it had a record. */
      ngp_h2_remember_closed(h2, frame->hd.stream_id, 1);
    } else if (stream->flags & NGP_H2_FLAG_RESET_LOCAL) {
      return 0;
    } else {
      /* Whatever the reason, the peer has not seen it yet. */
      stream->flags |= NGP_H2_FLAG_DOOMED;
      if (frame->rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR &&
          overflows(h2, stream)) {
        /* RFC 9113, 6.9.2 requires a connection error. */
        ngp_h2_set_reason(h2, OVERFLOW, sizeof(OVERFLOW) - 1);
        if (nghttp2_session_terminate_session(session,
                                              NGHTTP2_FLOW_CONTROL_ERROR)) {
          return NGP_H2_FAIL;
        }
      }
    }
    return ngp_h2_count_provoked(h2) == 0 ? 0 : NGP_H2_FAIL;
  default:
    return 0;
  }
  if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
      on_end_sent(h2, stream) != 0) {
    return NGP_H2_FAIL;
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
    if (stream && !(stream->flags & NGP_H2_FLAG_UNSENT)) {
      if (lib_error == NGHTTP2_ERR_STREAM_CLOSED ||
          lib_error == NGHTTP2_ERR_STREAM_CLOSING) {
        return 0;
      }
      /* A message that cannot be sent must not leave its stream open. */
      stream->flags |= NGP_H2_FLAG_DOOMED;
      ngp_h2_set_reason(h2, CANNOT_SEND, sizeof(CANNOT_SEND) - 1);
      return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id,
                                       NGHTTP2_INTERNAL_ERROR) == 0
                 ? 0
                 : NGP_H2_FAIL;
    }
    break;
  case NGHTTP2_GOAWAY:
    if (h2->goaway.queued) {
      --h2->goaway.queued;
    }
    return 0;
  default:
    return 0;
  }
  if (!stream) {
    return 0;
  }
  /* The stream was never opened: nghttp2 does not report its end. */
  return ngp_h2_close_stream(h2, stream,
                             stream->flags & NGP_H2_FLAG_RESET_LOCAL
                                 ? stream->rst_code
                                 : NGHTTP2_REFUSED_STREAM) == 0
             ? 0
             : NGP_H2_FAIL;
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

void ngp_h2_set_send_callbacks(nghttp2_session_callbacks *cbs, int padding) {
  nghttp2_session_callbacks_set_send_data_callback(cbs, send_data);
  nghttp2_session_callbacks_set_data_source_read_length_callback2(cbs,
                                                                  read_length);
  if (padding) {
    nghttp2_session_callbacks_set_select_padding_callback2(cbs, select_padding);
  }
  nghttp2_session_callbacks_set_before_frame_send_callback(cbs,
                                                           before_frame_send);
  nghttp2_session_callbacks_set_on_frame_send_callback(cbs, on_frame_send);
  nghttp2_session_callbacks_set_on_frame_not_send_callback(cbs,
                                                           on_frame_not_send);
  nghttp2_session_callbacks_set_pack_extension_callback2(cbs, pack_extension);
}
