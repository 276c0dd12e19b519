/*
 * What the caller sends.  Everything here only queues.
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "ngp_h2_int.h"

/* nghttp2 packs an extension frame into a buffer of this size. */
#define MAX_EXTENSION_PAYLOAD 16384

/* The room of a PRIORITY_UPDATE after the stream id. */
#define MAX_PRIORITY_VALUE (16384 - 4)

/* nghttp2's default of max_send_header_block_length. */
#define DEFAULT_MAX_HEADER_BLOCK 65536

/* ---- Streams ---- */

/* Nonzero if no frame has opened or skipped |id| yet. */
static int is_idle(const ngp_h2 *h2, int32_t id) {
  return id <= 0 || id > (ngp_h2_is_local_id(h2, id) ? h2->ids.last_local
                                                     : h2->ids.last_remote);
}

/*
 * Nonzero if no frame may be submitted any more, except on open streams, with
 * which it is dropped.
 */
static int is_over(const ngp_h2 *h2) {
  return h2->end.dead || h2->goaway.terminated;
}

/* Finds a stream that the caller names. */
static int find(const ngp_h2 *h2, int32_t id, ngp_h2_stream **pstream) {
  if (h2->end.dead) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  *pstream = ngp_h2_stream_find(h2, id);
  if (*pstream) {
    return 0;
  }
  return is_idle(h2, id) ? NGHTTP2_ERR_INVALID_STREAM_ID
                         : NGHTTP2_ERR_STREAM_CLOSED;
}

/* Finds a stream that the caller may still send on. */
static int find_writable(const ngp_h2 *h2, int32_t id,
                         ngp_h2_stream **pstream) {
  int rv = find(h2, id, pstream);

  if (rv != 0) {
    return rv;
  }
  return (*pstream)->flags & (NGP_H2_FLAG_LOCAL_END | NGP_H2_FLAG_RESET_LOCAL |
                              NGP_H2_FLAG_RESET_REMOTE | NGP_H2_FLAG_DOOMED |
                              NGP_H2_FLAG_MUTED)
             ? NGHTTP2_ERR_STREAM_CLOSED
             : 0;
}

/* For calls that are no-ops on a closed stream. */
static int unless_closed(int rv) {
  return rv == NGHTTP2_ERR_STREAM_CLOSED ? 0 : rv;
}

ngp_h2_stream_state ngp_h2_stream_get(ngp_h2 *h2, int32_t stream_id,
                                      uint32_t *pflags) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);

  if (stream) {
    *pflags = stream->flags;
    return NGP_H2_STATE_OPEN;
  }
  return is_idle(h2, stream_id) ? NGP_H2_STATE_IDLE : NGP_H2_STATE_CLOSED;
}

size_t ngp_h2_stream_count(const ngp_h2 *h2, size_t *pqueued) {
  if (pqueued) {
    *pqueued = h2->unsent;
  }
  return h2->streams.size;
}

/* ---- Header sections ---- */

/* nghttp2 refuses larger header sections only when it sends them; the caller
   should get the error now. */
static int check_size(const ngp_h2 *h2, const nghttp2_nv *nva, size_t nvlen,
                      ngp_h2_header_error *perror) {
  size_t max = h2->options.max_send_header_block_length;
  size_t size = 0;
  size_t i;

  if (!max) {
    max = DEFAULT_MAX_HEADER_BLOCK;
  }
  for (i = 0; i < nvlen; ++i) {
    size += nva[i].namelen + nva[i].valuelen;
    if (size > max) {
      perror->index = i;
      perror->reason = "the header section is larger than "
                       "max_send_header_block_length";
      return NGP_ERR_BAD_HEADERS;
    }
  }
  return 0;
}

static int check(const ngp_h2 *h2, ngp_h2_message message, nghttp2_nv *nva,
                 size_t nvlen, uint32_t *pflags, int64_t *pcontent_length,
                 ngp_h2_header_error *perror) {
  int rv = check_size(h2, nva, nvlen, perror);

  return rv != 0 ? rv
                 : ngp_h2_check_outgoing(message, nva, nvlen, pflags,
                                         pcontent_length, perror);
}

/* A message without a body must not announce one. */
static int check_no_body(int64_t content_length) {
  return content_length > 0 ? NGP_ERR_BODY_LENGTH : 0;
}

int32_t ngp_h2_submit_request(ngp_h2 *h2, nghttp2_nv *nva, size_t nvlen,
                              int end_stream, ngp_h2_header_error *perror) {
  nghttp2_data_provider2 provider;
  ngp_h2_stream *stream;
  int64_t content_length;
  uint32_t flags;
  int32_t id;
  int rv;

  if (is_over(h2)) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  if (!h2->options.is_client) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  rv = check(h2, NGP_H2_MESSAGE_REQUEST, nva, nvlen, &flags, &content_length,
             perror);
  if (rv == 0 && end_stream) {
    rv = check_no_body(content_length);
  }
  if (rv != 0) {
    return rv;
  }
  if ((flags & NGP_H2_FLAG_EXTENDED) &&
      !nghttp2_session_get_remote_settings(
          h2->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL)) {
    perror->index = nvlen;
    perror->reason = "the peer has not sent SETTINGS_ENABLE_CONNECT_PROTOCOL "
                     "(RFC 8441, 3)";
    return NGP_ERR_BAD_HEADERS;
  }
  if (!nghttp2_session_check_request_allowed(h2->session)) {
    return NGHTTP2_ERR_START_STREAM_NOT_ALLOWED;
  }
  id = (int32_t)nghttp2_session_get_next_stream_id(h2->session);
  stream = ngp_h2_stream_add(h2, id);
  if (!stream) {
    return NGHTTP2_ERR_NOMEM;
  }
  stream->flags = flags | NGP_H2_FLAG_LOCAL_HEADERS | NGP_H2_FLAG_UNSENT;
  if (end_stream) {
    stream->flags |= NGP_H2_FLAG_LOCAL_END;
  }
  stream->content_length = content_length;
  provider = ngp_h2_data_provider(stream);
  ++h2->unsent;
  rv = nghttp2_submit_request2(h2->session, NULL, nva, nvlen,
                               end_stream ? NULL : &provider, NULL);
  if (rv < 0) {
    ngp_h2_stream_remove(h2, stream);
    return rv;
  }
  h2->ids.last_local = id;
  return id;
}

int ngp_h2_submit_response(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                           size_t nvlen, int end_stream,
                           ngp_h2_header_error *perror) {
  nghttp2_data_provider2 provider;
  ngp_h2_stream *stream;
  int64_t content_length;
  uint32_t flags;
  int rv = find_writable(h2, stream_id, &stream);

  if (rv != 0) {
    return rv;
  }
  if (h2->options.is_client || (stream->flags & NGP_H2_FLAG_LOCAL_HEADERS)) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  rv = check(h2, NGP_H2_MESSAGE_RESPONSE, nva, nvlen, &flags, &content_length,
             perror);
  if (rv != 0) {
    return rv;
  }
  if ((flags & NGP_H2_FLAG_TUNNEL) && (stream->flags & NGP_H2_FLAG_CONNECT)) {
    /* What follows is not content, whatever the status (RFC 9110, 9.3.6). */
    content_length = -1;
  } else if ((stream->flags & NGP_H2_FLAG_HEAD) ||
             (flags & NGP_H2_FLAG_NO_CONTENT)) {
    /* These may state a length that they do not have (RFC 9110, 8.6). */
    content_length = 0;
  } else if (end_stream && content_length > 0) {
    return NGP_ERR_BODY_LENGTH;
  }
  if (stream->flags & NGP_H2_FLAG_UNSENT) {
    stream->response = ngp_h2_header_list_new(h2, nva, nvlen);
    if (!stream->response) {
      return NGHTTP2_ERR_NOMEM;
    }
    stream->response_end = end_stream ? 1 : 0;
  } else {
    provider = ngp_h2_data_provider(stream);
    rv = nghttp2_submit_response2(h2->session, stream_id, nva, nvlen,
                                  end_stream ? NULL : &provider);
    if (rv != 0) {
      return rv;
    }
  }
  stream->flags |= NGP_H2_FLAG_LOCAL_HEADERS;
  if ((flags & NGP_H2_FLAG_TUNNEL) && (stream->flags & NGP_H2_FLAG_CONNECT)) {
    stream->flags |= ngp_h2_connected(stream);
  }
  stream->content_length = content_length;
  if (end_stream) {
    stream->flags |= NGP_H2_FLAG_LOCAL_END;
  }
  return 0;
}

int ngp_h2_submit_informational(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                                size_t nvlen, ngp_h2_header_error *perror) {
  ngp_h2_stream *stream;
  int64_t content_length;
  uint32_t flags;
  int rv = find_writable(h2, stream_id, &stream);

  if (rv != 0) {
    return rv;
  }
  if (h2->options.is_client ||
      (stream->flags & (NGP_H2_FLAG_LOCAL_HEADERS | NGP_H2_FLAG_UNSENT))) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  rv = check(h2, NGP_H2_MESSAGE_INFORMATIONAL, nva, nvlen, &flags,
             &content_length, perror);
  if (rv != 0) {
    return rv;
  }
  rv = nghttp2_submit_headers(h2->session, NGHTTP2_FLAG_NONE, stream_id, NULL,
                              nva, nvlen, NULL);
  if (rv < 0) {
    return rv;
  }
  /* The client waits for 100 only.  The list was checked: its first field is
     :status, with three digits. */
  if (memcmp(nva[0].value, "100", 3) == 0) {
    stream->flags &= ~NGP_H2_FLAG_EXPECTS_100;
  }
  return 0;
}

/* Makes nghttp2 call the data provider again. */
static int resume(ngp_h2 *h2, ngp_h2_stream *stream) {
  int rv;

  if (!(stream->flags & NGP_H2_FLAG_DEFERRED)) {
    return 0;
  }
  stream->flags &= ~NGP_H2_FLAG_DEFERRED;
  rv = nghttp2_session_resume_data(h2->session, stream->id);
  return rv == NGHTTP2_ERR_NOMEM ? rv : 0;
}

/* Nonzero if |stream|'s body may not end here. */
static int wrong_length(const ngp_h2_stream *stream, size_t len,
                        int end_stream) {
  int64_t total = stream->body_len + (int64_t)len;

  return stream->content_length >= 0 &&
         (total > stream->content_length ||
          (end_stream && total != stream->content_length));
}

int ngp_h2_check_trailers(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                          size_t nvlen, size_t len,
                          ngp_h2_header_error *perror) {
  ngp_h2_stream *stream;
  int64_t content_length;
  uint32_t flags;
  int rv = find_writable(h2, stream_id, &stream);

  if (rv != 0) {
    return rv;
  }
  if (!(stream->flags & NGP_H2_FLAG_LOCAL_HEADERS)) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  rv = check(h2, NGP_H2_MESSAGE_TRAILERS, nva, nvlen, &flags, &content_length,
             perror);
  if (rv == 0 && nvlen && (stream->flags & NGP_H2_FLAG_TUNNEL)) {
    perror->index = nvlen;
    perror->reason = "a connected CONNECT has no trailers (RFC 9113, 8.5)";
    rv = NGP_ERR_BAD_HEADERS;
  }
  if (rv != 0) {
    return rv;
  }
  return len != SIZE_MAX && wrong_length(stream, len, 1) ? NGP_ERR_BODY_LENGTH
                                                         : 0;
}

int ngp_h2_submit_trailers(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                           size_t nvlen, ngp_h2_header_error *perror) {
  ngp_h2_stream *stream;
  int rv = ngp_h2_check_trailers(h2, stream_id, nva, nvlen, 0, perror);

  if (rv != 0) {
    return rv;
  }
  stream = ngp_h2_stream_find(h2, stream_id);
  if (nvlen) {
    stream->trailers = ngp_h2_header_list_new(h2, nva, nvlen);
    if (!stream->trailers) {
      return NGHTTP2_ERR_NOMEM;
    }
  }
  stream->flags |= NGP_H2_FLAG_LOCAL_END;
  return resume(h2, stream);
}

int32_t ngp_h2_submit_push_promise(ngp_h2 *h2, int32_t stream_id,
                                   nghttp2_nv *nva, size_t nvlen,
                                   ngp_h2_header_error *perror) {
  ngp_h2_stream *stream;
  int64_t content_length;
  uint32_t flags;
  int32_t id;
  int rv = find_writable(h2, stream_id, &stream);

  if (rv != 0) {
    return rv;
  }
  if (h2->options.is_client || (stream_id & 1) == 0) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  rv = check(h2, NGP_H2_MESSAGE_PROMISE, nva, nvlen, &flags, &content_length,
             perror);
  if (rv != 0) {
    return rv;
  }
  /* This comes last, so that the caller's errors do not depend on the peer's
     settings. */
  if (!nghttp2_session_get_remote_settings(h2->session,
                                           NGHTTP2_SETTINGS_ENABLE_PUSH)) {
    return NGHTTP2_ERR_PUSH_DISABLED;
  }
  id = (int32_t)nghttp2_session_get_next_stream_id(h2->session);
  stream = ngp_h2_stream_add(h2, id);
  if (!stream) {
    return NGHTTP2_ERR_NOMEM;
  }
  /* A pushed request is complete when it is promised. */
  stream->flags = flags | NGP_H2_FLAG_PUSHED | NGP_H2_FLAG_UNSENT |
                  NGP_H2_FLAG_REMOTE_HEADERS | NGP_H2_FLAG_REMOTE_END;
  rv = nghttp2_submit_push_promise(h2->session, NGHTTP2_FLAG_NONE, stream_id,
                                   nva, nvlen, NULL);
  if (rv < 0) {
    ngp_h2_stream_remove(h2, stream);
    return rv;
  }
  h2->ids.last_local = id;
  return id;
}

/* ---- Bodies ---- */

static int push(ngp_h2 *h2, int32_t stream_id, const uint8_t *data, size_t len,
                void *owner, int end_stream, size_t max_queue) {
  ngp_h2_stream *stream;
  int rv = find_writable(h2, stream_id, &stream);

  if (rv != 0) {
    return rv;
  }
  if (!(stream->flags & NGP_H2_FLAG_LOCAL_HEADERS)) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  if (wrong_length(stream, len, end_stream)) {
    return NGP_ERR_BODY_LENGTH;
  }
  if (len) {
    if (stream->body.queued && (stream->body.queued > max_queue ||
                                len > max_queue - stream->body.queued)) {
      return NGP_ERR_BODY_FULL;
    }
    rv = resume(h2, stream);
    if (rv == 0) {
      rv = ngp_body_queue(&stream->body, h2->mem, data, len, owner);
    }
    if (rv != 0) {
      return rv;
    }
    h2->bodies.queued += len;
    stream->body_len += (int64_t)len;
    ngp_h2_reserve(h2, stream);
  }
  if (!end_stream) {
    return 0;
  }
  stream->flags |= NGP_H2_FLAG_LOCAL_END;
  return resume(h2, stream);
}

int ngp_h2_queue_body(ngp_h2 *h2, int32_t stream_id, const uint8_t *data,
                      size_t len, void *owner, int end_stream) {
  int rv = push(h2, stream_id, data, len, owner, end_stream,
                h2->options.max_body_queue);

  if (rv == 0 && len) {
    ngp_h2_stream_find(h2, stream_id)->flags |= NGP_H2_FLAG_QUEUES;
  }
  return rv;
}

int ngp_h2_queue_data(ngp_h2 *h2, int32_t stream_id, const uint8_t *data,
                      size_t len, void *owner, int end_stream) {
  return push(h2, stream_id, data, len, owner, end_stream, SIZE_MAX);
}

void ngp_h2_body_lengths(ngp_h2 *h2, int32_t stream_id, int64_t *pexpected,
                         int64_t *pqueued) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);

  *pexpected = stream ? stream->content_length : -1;
  *pqueued = stream ? stream->body_len : 0;
}

int ngp_h2_set_source(ngp_h2 *h2, int32_t stream_id, int has_source) {
  ngp_h2_stream *stream;
  int rv = find_writable(h2, stream_id, &stream);

  if (rv != 0) {
    return rv;
  }
  if (!(stream->flags & NGP_H2_FLAG_LOCAL_HEADERS)) {
    return NGHTTP2_ERR_INVALID_STREAM_STATE;
  }
  if (!has_source) {
    stream->flags &= ~(NGP_H2_FLAG_SOURCE | NGP_H2_FLAG_WANTS);
    return 0;
  }
  stream->flags |= NGP_H2_FLAG_SOURCE;
  return resume(h2, stream);
}

int ngp_h2_watch_body(ngp_h2 *h2, int32_t stream_id, size_t low) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);

  if (!stream || stream->body.queued <= low) {
    return 1;
  }
  stream->low = low;
  stream->flags |= NGP_H2_FLAG_WATCHED;
  return 0;
}

size_t ngp_h2_queued_body(ngp_h2 *h2, int32_t stream_id) {
  ngp_h2_stream *stream;

  if (stream_id == 0) {
    return h2->bodies.queued;
  }
  stream = ngp_h2_stream_find(h2, stream_id);
  return stream ? stream->body.queued : 0;
}

/* Returns how many bytes the window of |stream| allows. */
static int64_t window_of(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  int32_t window =
      nghttp2_session_get_stream_remote_window_size(h2->session, stream->id);

  /* -1: not open yet; it will have the peer's initial window. */
  return window < 0 ? (int64_t)h2->window.remote_initial : window;
}

/*
 * The connection's window is reserved for those queued bytes of a stream that
 * the stream's own window allows: the rest must not block other streams.
 */
void ngp_h2_reserve(ngp_h2 *h2, ngp_h2_stream *stream) {
  int64_t n = (int64_t)stream->body.queued;

  if (n) {
    int64_t window = window_of(h2, stream);

    n = n < window ? n : window;
  }
  h2->bodies.reserved += n - stream->reserved;
  stream->reserved = n;
}

void ngp_h2_reserve_all(ngp_h2 *h2) {
  ngp_h2_stream *stream;
  size_t place = 0;

  while ((stream = ngp_map_next(&h2->streams, &place))) {
    ngp_h2_reserve(h2, stream);
  }
}

size_t ngp_h2_sendable(ngp_h2 *h2, int32_t stream_id) {
  ngp_h2_stream *stream;
  int64_t window, room;

  if (find_writable(h2, stream_id, &stream) != 0) {
    return 0;
  }
  window = window_of(h2, stream) - (int64_t)stream->body.queued;
  room = nghttp2_session_get_remote_window_size(h2->session);
  if (room - (int64_t)h2->bodies.queued < window) {
    room -= h2->bodies.reserved;
    if (room < window) {
      window = room;
    }
  }
  return window > 0 ? (size_t)window : 0;
}

int ngp_h2_under_way(ngp_h2 *h2, int32_t stream_id) {
  const ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);

  return !stream || !stream->body.queued ||
         (window_of(h2, stream) >= (int64_t)stream->body.queued &&
          nghttp2_session_get_remote_window_size(h2->session) >=
              h2->bodies.reserved);
}

static void unhold(ngp_h2 *h2, ngp_h2_stream *stream) {
  if (stream->flags & NGP_H2_FLAG_HELD) {
    stream->flags &= ~NGP_H2_FLAG_HELD;
    --h2->resets.held;
  }
}

int ngp_h2_send_rst(ngp_h2 *h2, ngp_h2_stream *stream) {
  /* The queued body is kept until nghttp2 closes the stream: a DATA frame may
     be partly sent. */
  int rv = nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                     stream->rst_code);

  if (rv == 0) {
    stream->flags |= NGP_H2_FLAG_RESET_LOCAL;
    unhold(h2, stream);
  }
  return rv;
}

void ngp_h2_hold(ngp_h2 *h2, ngp_h2_stream *stream) {
  if (!(stream->flags & (NGP_H2_FLAG_REMOTE_END | NGP_H2_FLAG_HELD))) {
    stream->flags |= NGP_H2_FLAG_HELD;
    ++h2->resets.held;
  }
}

void ngp_h2_hold_resets(ngp_h2 *h2, int hold) {
  h2->resets.hold = hold ? 1 : 0;
}

size_t ngp_h2_held_resets(const ngp_h2 *h2) { return h2->resets.held; }

int ngp_h2_release_resets(ngp_h2 *h2, int all) {
  const uint32_t over = NGP_H2_FLAG_REMOTE_END | NGP_H2_FLAG_RESET_LOCAL |
                        NGP_H2_FLAG_RESET_REMOTE | NGP_H2_FLAG_DOOMED;
  int32_t *ids;
  size_t i, n;
  int rv = 0;

  if (!h2->resets.held || h2->end.dead) {
    return 0;
  }
  if (ngp_h2_stream_ids(h2, NGP_H2_FLAG_HELD, &ids, &n) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  for (i = 0; i < n && rv == 0; ++i) {
    ngp_h2_stream *stream = ngp_h2_stream_find(h2, ids[i]);

    if (!all && !(stream->flags & (NGP_H2_FLAG_AGED | over))) {
      stream->flags |= NGP_H2_FLAG_AGED;
      continue;
    }
    unhold(h2, stream);
    if (!(stream->flags & over)) {
      rv = ngp_h2_send_rst(h2, stream);
    }
  }
  ngp_free(h2->mem, ids);
  return rv;
}

/* Nonzero if the response of |stream| counts as sent though it is queued: it is
   complete, and the windows allow all of it. */
static int is_response_queued(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  const uint32_t all = NGP_H2_FLAG_LOCAL_HEADERS | NGP_H2_FLAG_LOCAL_END;
  const uint32_t none =
      NGP_H2_FLAG_LOCAL_END_SENT | NGP_H2_FLAG_UNSENT | NGP_H2_FLAG_QUEUES;
  int64_t window;

  if (h2->options.is_client || (stream->flags & (all | none)) != all) {
    return 0;
  }
  window = nghttp2_session_get_remote_window_size(h2->session);
  return (int64_t)stream->body.queued <= window_of(h2, stream) &&
         (!stream->body.queued || h2->bodies.reserved <= window);
}

int ngp_h2_submit_rst(ngp_h2 *h2, int32_t stream_id, uint32_t error_code,
                      int after_end) {
  ngp_h2_stream *stream;
  int rv = find(h2, stream_id, &stream);

  if (rv != 0) {
    return unless_closed(rv);
  }
  if (stream->flags & (NGP_H2_FLAG_RESET_LOCAL | NGP_H2_FLAG_RESET_REMOTE |
                       NGP_H2_FLAG_DOOMED | NGP_H2_FLAG_MUTED)) {
    return 0;
  }
  stream->rst_code = error_code;
  if (after_end) {
    if (error_code == NGHTTP2_NO_ERROR &&
        (stream->flags & NGP_H2_FLAG_CONNECTED)) {
      /* NO_ERROR declines the rest of a request (RFC 9113, 8.1), but breaks a
         tunnel off. */
      stream->rst_code = NGHTTP2_CANCEL;
    }
    stream->flags |= NGP_H2_FLAG_RST_AFTER_END;
    if (stream->flags & NGP_H2_FLAG_LOCAL_END_SENT) {
      ngp_h2_hold(h2, stream);
    }
    return 0;
  }
  if (is_response_queued(h2, stream)) {
    /* nghttp2 would drop the queued response. */
    stream->flags |= NGP_H2_FLAG_RST_AFTER_END | NGP_H2_FLAG_MUTED;
    return 0;
  }
  rv = ngp_h2_send_rst(h2, stream);
  if (rv != 0) {
    return rv;
  }
  if ((stream->flags & NGP_H2_FLAG_UNSENT) && h2->options.is_client) {
    /* nghttp2 withdraws the request, but reports it only when its turn comes.
       The peer has not seen it: its end can be recorded now. */
    return ngp_h2_close_stream(h2, stream, error_code);
  }
  return 0;
}

/* ---- Receive credit ---- */

int ngp_h2_consume(ngp_h2 *h2, int32_t stream_id, size_t n) {
  ngp_h2_stream *stream;
  int rv = find(h2, stream_id, &stream);

  if (rv != 0) {
    return unless_closed(rv);
  }
  if (n > stream->unacked) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  /* A stream that is about to be reset gets no credit: what the peer would send
     until the reset goes out is dropped. */
  rv = stream->flags & NGP_H2_FLAG_HELD
           ? nghttp2_session_consume_connection(h2->session, n)
           : nghttp2_session_consume(h2->session, stream_id, n);
  if (rv == 0) {
    stream->unacked -= n;
  }
  return rv;
}

size_t ngp_h2_unacked(ngp_h2 *h2, int32_t stream_id) {
  ngp_h2_stream *stream = ngp_h2_stream_find(h2, stream_id);

  return stream ? stream->unacked : 0;
}

/* ---- The connection ---- */

nghttp2_session *ngp_h2_session(ngp_h2 *h2) { return h2->session; }

const ngp_h2_counters *ngp_h2_get_counters(const ngp_h2 *h2) {
  return &h2->counters;
}

int ngp_h2_submit_settings(ngp_h2 *h2, const nghttp2_settings_entry *iv,
                           size_t niv) {
  return is_over(h2)
             ? NGP_ERR_CONNECTION_CLOSED
             : nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, iv, niv);
}

int ngp_h2_submit_ping(ngp_h2 *h2, const uint8_t *opaque, int ack) {
  return is_over(h2)
             ? NGP_ERR_CONNECTION_CLOSED
             : nghttp2_submit_ping(h2->session,
                                   ack ? NGHTTP2_FLAG_ACK : NGHTTP2_FLAG_NONE,
                                   opaque);
}

int ngp_h2_submit_goaway(ngp_h2 *h2, int32_t last_stream_id,
                         uint32_t error_code, const uint8_t *debug,
                         size_t len) {
  int rv;

  if (is_over(h2)) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  if (last_stream_id < 0) {
    last_stream_id = nghttp2_session_get_last_proc_stream_id(h2->session);
  }
  if (last_stream_id > h2->goaway.last) {
    /* The last stream id must not increase (RFC 9113, 6.8). */
    last_stream_id = h2->goaway.last;
  }
  rv = nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, last_stream_id,
                             error_code, debug, len);
  if (rv == 0) {
    ++h2->goaway.queued;
    h2->goaway.last = last_stream_id;
  }
  return rv;
}

int ngp_h2_submit_shutdown_notice(ngp_h2 *h2) {
  int rv;

  if (is_over(h2)) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  if (h2->options.is_client) {
    /* Only servers send the warning (RFC 9113, 6.8). */
    return NGHTTP2_ERR_INVALID_STATE;
  }
  rv = nghttp2_submit_shutdown_notice(h2->session);
  if (rv == 0) {
    ++h2->goaway.queued;
  }
  return rv;
}

int ngp_h2_terminate(ngp_h2 *h2, uint32_t error_code) {
  int rv;

  if (h2->end.dead) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  rv = nghttp2_session_terminate_session(h2->session, error_code);
  if (rv == 0) {
    h2->goaway.terminated = 1;
  }
  return rv;
}

int ngp_h2_submit_window_update(ngp_h2 *h2, int32_t stream_id,
                                int32_t increment) {
  return is_over(h2)
             ? NGP_ERR_CONNECTION_CLOSED
             : nghttp2_submit_window_update(h2->session, NGHTTP2_FLAG_NONE,
                                            stream_id, increment);
}

int ngp_h2_set_local_window_size(ngp_h2 *h2, int32_t stream_id, int32_t size) {
  return is_over(h2) ? NGP_ERR_CONNECTION_CLOSED
                     : nghttp2_session_set_local_window_size(
                           h2->session, NGHTTP2_FLAG_NONE, stream_id, size);
}

int ngp_h2_upgrade(ngp_h2 *h2, const uint8_t *settings, size_t len,
                   int head_request) {
  ngp_h2_stream *stream;
  int rv;

  if (h2->end.dead) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  rv = nghttp2_session_upgrade2(h2->session, settings, len,
                                head_request ? 1 : 0, NULL);
  if (rv != 0 && !nghttp2_is_fatal(rv)) {
    return rv;
  }
  /* A fatal error means want of memory, in nghttp2 or a callback, which leaves
     the session half upgraded. */
  stream = rv == 0 ? ngp_h2_stream_add(h2, 1) : NULL;
  if (!stream) {
    h2->end.dead = 1;
    return NGHTTP2_ERR_NOMEM;
  }
  if (h2->options.is_client) {
    stream->flags = NGP_H2_FLAG_LOCAL_HEADERS | NGP_H2_FLAG_LOCAL_END |
                    NGP_H2_FLAG_LOCAL_END_SENT;
    h2->ids.last_local = 1;
  } else {
    stream->flags = NGP_H2_FLAG_REMOTE_HEADERS | NGP_H2_FLAG_REMOTE_END;
    h2->ids.last_remote = 1;
    ngp_h2_mark_used(h2, 1);
    h2->window.remote_initial = nghttp2_session_get_remote_settings(
        h2->session, NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE);
  }
  if (head_request) {
    stream->flags |= NGP_H2_FLAG_HEAD;
  }
  return 0;
}

int ngp_h2_submit_priority_update(ngp_h2 *h2, int32_t stream_id,
                                  const uint8_t *value, size_t len) {
  ngp_h2_stream *stream;
  int rv;

  if (is_over(h2)) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  if (!h2->options.is_client) {
    return NGHTTP2_ERR_INVALID_STATE;
  }
  if (len > MAX_PRIORITY_VALUE) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  rv = find(h2, stream_id, &stream);
  if (rv != 0) {
    return unless_closed(rv);
  }
  if (stream->flags & NGP_H2_FLAG_UNSENT) {
    /* The frame would overtake the request, and count against the server's
       bound of idle streams (RFC 9218, 7.1). */
    stream->priority.len = 0;
    stream->priority_waits = 1;
    return ngp_buf_add(&stream->priority, value, len);
  }
  return nghttp2_submit_priority_update(h2->session, NGHTTP2_FLAG_NONE,
                                        stream_id, value, len);
}

int ngp_h2_set_priority(ngp_h2 *h2, int32_t stream_id, uint32_t urgency,
                        int incremental, int ignore_client) {
  nghttp2_extpri priority = {.urgency = urgency, .inc = incremental ? 1 : 0};

  return h2->end.dead ? NGP_ERR_CONNECTION_CLOSED
                      : nghttp2_session_change_extpri_stream_priority(
                            h2->session, stream_id, &priority, ignore_client);
}

int ngp_h2_get_priority(ngp_h2 *h2, int32_t stream_id, uint32_t *purgency,
                        int *pincremental) {
#ifdef NGP_HAVE_SESSION_GET_EXTPRI_STREAM_PRIORITY
  nghttp2_extpri priority;
  int rv;

  if (h2->end.dead) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  rv = nghttp2_session_get_extpri_stream_priority(h2->session, &priority,
                                                  stream_id);
  if (rv == 0) {
    *purgency = priority.urgency;
    *pincremental = priority.inc;
  }
  return rv;
#else
  (void)h2;
  (void)stream_id;
  (void)purgency;
  (void)pincremental;
  return NGHTTP2_ERR_INVALID_STATE;
#endif
}

int ngp_h2_submit_altsvc(ngp_h2 *h2, int32_t stream_id, const uint8_t *origin,
                         size_t origin_len, const uint8_t *value, size_t len) {
  return is_over(h2)
             ? NGP_ERR_CONNECTION_CLOSED
             : nghttp2_submit_altsvc(h2->session, NGHTTP2_FLAG_NONE, stream_id,
                                     origin, origin_len, value, len);
}

int ngp_h2_submit_origin(ngp_h2 *h2, const nghttp2_origin_entry *ov,
                         size_t nov) {
  return is_over(h2)
             ? NGP_ERR_CONNECTION_CLOSED
             : nghttp2_submit_origin(h2->session, NGHTTP2_FLAG_NONE, ov, nov);
}

void ngp_h2_extension_free(ngp_h2 *h2, ngp_h2_extension *extension) {
  ngp_h2_extension **p = &h2->extensions;

  while (*p != extension) {
    p = &(*p)->next;
  }
  *p = extension->next;
  ngp_free(h2->mem, extension);
}

int ngp_h2_submit_extension(ngp_h2 *h2, uint8_t type, uint8_t flags,
                            int32_t stream_id, const uint8_t *payload,
                            size_t len) {
  ngp_h2_extension *extension;
  int rv;

  if (is_over(h2)) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  if (type <= NGHTTP2_CONTINUATION || len > MAX_EXTENSION_PAYLOAD) {
    return NGHTTP2_ERR_INVALID_ARGUMENT;
  }
  extension = ngp_malloc(h2->mem, sizeof(*extension) + len);
  if (!extension) {
    return NGHTTP2_ERR_NOMEM;
  }
  extension->len = len;
  if (len) {
    memcpy(extension->payload, payload, len);
  }
  rv = nghttp2_submit_extension(h2->session, type, flags, stream_id, extension);
  if (rv != 0) {
    ngp_free(h2->mem, extension);
    return rv;
  }
  extension->next = h2->extensions;
  h2->extensions = extension;
  return 0;
}
