/*
 * The life of a connection: bytes in, bytes out, its streams' ends and its
 * own.  SPDX-License-Identifier: MIT
 */
#include "ngp_h2_int.h"

#include <string.h>

/* nghttp2 gets at most this much input at a time.  A frame has at least 9
   bytes, so this also bounds the events of a batch: to a few hundred KiB. */
#define RECV_SLICE 65536

/* Beyond this much output, nothing is gathered before the caller asks: see
 * gather_early(). */
#define MAX_EARLY_OUTPUT 65536

/* A larger gather buffer is freed, so that an idle connection stays small. */
#define KEEP_OUTPUT 4096

/* RFC 9113, 6.5.2. */
#define INITIAL_WINDOW_SIZE 65535

/* ---- Life ---- */

static void set_extension_types(const ngp_h2 *h2, nghttp2_option *option) {
  unsigned int type;

  nghttp2_option_set_builtin_recv_extension_type(option, NGHTTP2_ALTSVC);
  nghttp2_option_set_builtin_recv_extension_type(option, NGHTTP2_ORIGIN);
  nghttp2_option_set_builtin_recv_extension_type(option,
                                                 NGHTTP2_PRIORITY_UPDATE);
  if (h2->options.recv_extensions) {
    for (type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; ++type) {
      if (type != NGHTTP2_ALTSVC && type != NGHTTP2_ORIGIN &&
          type != NGHTTP2_PRIORITY_UPDATE) {
        nghttp2_option_set_user_recv_extension_type(option, (uint8_t)type);
      }
    }
  }
}

#define SET(NAME)                                                              \
  if (o->NAME) {                                                               \
    nghttp2_option_set_##NAME(option, o->NAME);                                \
  }

static void set_options(const ngp_h2 *h2, nghttp2_option *option) {
  const ngp_h2_options *o = &h2->options;

  nghttp2_option_set_no_auto_window_update(option, o->manual_credit);
  nghttp2_option_set_no_auto_ping_ack(option, o->no_auto_ping_ack);
  nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(
      option, o->lenient_fields);
  SET(peer_max_concurrent_streams)
  SET(max_reserved_remote_streams)
  SET(max_send_header_block_length)
  SET(max_deflate_dynamic_table_size)
  SET(max_outbound_ack)
  SET(max_settings)
#ifdef NGP_HAVE_OPTION_SET_MAX_CONTINUATIONS
  SET(max_continuations)
#endif
#ifdef NGP_HAVE_OPTION_SET_MAX_OUTBOUND_QUEUE_SIZE
  SET(max_outbound_queue_size)
#endif
#ifdef NGP_HAVE_OPTION_SET_STREAM_RESET_RATE_LIMIT
  if (o->stream_reset_burst) {
    nghttp2_option_set_stream_reset_rate_limit(option, o->stream_reset_burst,
                                               o->stream_reset_rate);
  }
#endif
#ifdef NGP_HAVE_OPTION_SET_GLITCH_RATE_LIMIT
  if (o->glitch_burst) {
    nghttp2_option_set_glitch_rate_limit(option, o->glitch_burst,
                                         o->glitch_rate);
  }
#endif
  if (o->no_deflate_table) {
    nghttp2_option_set_max_deflate_dynamic_table_size(option, 0);
  }
  set_extension_types(h2, option);
}

static const ngp_h2_options defaults = {
    .max_header_list_bytes = 65536,
    /* A block of 64 KiB can encode thousands. */
    .max_header_list_count = 256,
    .max_body_queue = 1048576,
    .max_data_frame = 1048576,
    .max_provoked_resets = 1000,
    .max_glitches = 10000,
};

void ngp_h2_options_default(ngp_h2_options *options) { *options = defaults; }

#define DEFAULT(NAME)                                                          \
  if (!h2->options.NAME) {                                                     \
    h2->options.NAME = defaults.NAME;                                          \
  }

int ngp_h2_new(ngp_h2 **ph2, const ngp_h2_options *options, nghttp2_mem *mem) {
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *option;
  ngp_h2 *h2 = ngp_calloc(mem, 1, sizeof(*h2));

  if (!h2) {
    return NGHTTP2_ERR_NOMEM;
  }
  h2->mem = mem;
  h2->options = *options;
  h2->window.remote_initial = INITIAL_WINDOW_SIZE;
  h2->goaway.last = INT32_MAX;
  /* The peer's first id is 1 or 2. */
  h2->ids.highest_remote = options->is_client ? 0 : -1;
  h2->scan.left = options->is_client ? 0 : NGHTTP2_CLIENT_MAGIC_LEN;
  DEFAULT(max_header_list_bytes)
  DEFAULT(max_header_list_count)
  DEFAULT(max_body_queue)
  DEFAULT(max_data_frame)
  DEFAULT(max_provoked_resets)
  DEFAULT(max_glitches)
  h2->batch.number = 1;
  ngp_h2_glitch_init(h2);
  ngp_buf_init(&h2->out.bytes, mem);
  ngp_buf_init(&h2->extension, mem);
  ngp_buf_init(&h2->goaway.sent, mem);
  if (nghttp2_session_callbacks_new(&callbacks) != 0) {
    goto fail_callbacks;
  }
  ngp_h2_set_recv_callbacks(callbacks);
  ngp_h2_set_send_callbacks(callbacks, h2->options.pad_multiple != 0);
  if (nghttp2_option_new(&option) != 0) {
    goto fail_option;
  }
  set_options(h2, option);
  if ((options->is_client ? nghttp2_session_client_new3
                          : nghttp2_session_server_new3)(
          &h2->session, callbacks, h2, option, mem) != 0) {
    goto fail_session;
  }
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  *ph2 = h2;
  return 0;

fail_session:
  nghttp2_option_del(option);
fail_option:
  nghttp2_session_callbacks_del(callbacks);
fail_callbacks:
  ngp_free(mem, h2);
  return NGHTTP2_ERR_NOMEM;
}

void ngp_h2_del(ngp_h2 *h2) {
  nghttp2_mem *mem;

  if (!h2) {
    return;
  }
  mem = h2->mem;
  nghttp2_session_del(h2->session);
  while (h2->extensions) {
    ngp_h2_extension_free(h2, h2->extensions);
  }
  ngp_h2_batch_free(h2);
  ngp_h2_streams_free(h2);
  ngp_buf_free(&h2->out.bytes);
  ngp_buf_free(&h2->extension);
  ngp_buf_free(&h2->goaway.sent);
  ngp_free(mem, h2->out.refs);
  ngp_free(mem, h2->out.segments);
  ngp_free(mem, h2->bodies.wanted);
  ngp_free(mem, h2->end.reason);
  ngp_free(mem, h2);
}

void ngp_h2_abandon_bodies(ngp_h2 *h2) {
  ngp_h2_stream *stream;
  size_t place = 0;

  while ((stream = ngp_map_next(&h2->streams, &place))) {
    ngp_body_abandon(&stream->body, &h2->bodies.tray);
  }
  h2->out.nrefs = 0;
  h2->out.refs_len = 0;
  h2->end.dead = 1;
}

void *ngp_h2_take_owner(ngp_h2 *h2) {
  /* The output may still point into any of them. */
  return h2->out.nrefs ? NULL : ngp_tray_take(&h2->bodies.tray, h2->mem);
}

/* ---- Ends ---- */

static void put32(uint8_t *p, uint32_t n) {
  int i;

  for (i = 0; i < 4; ++i) {
    p[i] = (uint8_t)(n >> (24 - 8 * i));
  }
}

static void drop_reason(ngp_h2 *h2) {
  ngp_free(h2->mem, h2->end.reason);
  h2->end.reason = NULL;
  h2->end.reason_len = 0;
}

void ngp_h2_set_reason(ngp_h2 *h2, const char *text, size_t len) {
  drop_reason(h2);
  h2->end.reason = len ? ngp_malloc(h2->mem, len) : NULL;
  /* Without memory for it, the text is left out: it is only an explanation. */
  if (h2->end.reason) {
    memcpy(h2->end.reason, text, len);
    h2->end.reason_len = len;
  }
}

/* Sets the reason of |event|: nghttp2's, or else the name of the error code. */
static void take_reason(ngp_h2 *h2, ngp_h2_event *event) {
  if (!h2->end.reason) {
    if (event->error_code != NGHTTP2_NO_ERROR && !event->remote) {
      event->data = (const uint8_t *)nghttp2_http2_strerror(event->error_code);
      event->len = strlen((const char *)event->data);
    }
    return;
  }
  event->owned = h2->end.reason;
  event->data = h2->end.reason;
  event->len = h2->end.reason_len;
  h2->end.reason = NULL;
  h2->end.reason_len = 0;
}

int ngp_h2_return_credit(ngp_h2 *h2, size_t n) {
  size_t before = nghttp2_session_get_outbound_queue_size(h2->session);
  int rv = nghttp2_session_consume_connection(h2->session, n);

  h2->expected += nghttp2_session_get_outbound_queue_size(h2->session) - before;
  /* Any error but want of memory would mean that more is returned than was
     received, which |unacked| prevents. */
  return rv == NGHTTP2_ERR_NOMEM ? rv : 0;
}

int ngp_h2_reset(ngp_h2 *h2, ngp_h2_stream *stream, uint32_t error_code,
                 const char *reason) {
  ngp_h2_event *event =
      ngp_h2_record(h2, NGP_H2_EVENT_STREAM_RESET, stream->id);

  if (!event || ngp_h2_event_copy(h2, event, reason, strlen(reason)) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->error_code = error_code;
  stream->flags |= NGP_H2_FLAG_DOOMED | NGP_H2_FLAG_RESET_REPORTED;
  stream->fault = error_code;
  return nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                   error_code);
}

int ngp_h2_reset_idle(ngp_h2 *h2, int32_t id, uint32_t error_code) {
  uint8_t frame[13] = {0, 0, 4, NGHTTP2_RST_STREAM};

  put32(frame + 5, (uint32_t)id);
  put32(frame + 9, error_code);
  if (ngp_buf_add(&h2->out.bytes, frame, sizeof(frame)) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  ++h2->counters.frames_sent[NGHTTP2_RST_STREAM];
  return ngp_h2_count_provoked(h2);
}

/*
 * Nonzero if the exchange on |stream|, which nghttp2 closes with NO_ERROR, is
 * complete.  After a complete response, the rest of an unfinished request may
 * be declined (RFC 9113, 8.1): by the server, or by the client that has
 * received the response.
 */
static int ended_well(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  const uint32_t both = NGP_H2_FLAG_LOCAL_END_SENT | NGP_H2_FLAG_REMOTE_END;
  const uint32_t declined = NGP_H2_FLAG_RST_AFTER_END | NGP_H2_FLAG_RESET_LOCAL;
  uint32_t flags = stream->flags;

  if ((flags & both) == both) {
    return 1;
  }
  if (flags & NGP_H2_FLAG_CONNECTED) {
    return 0;
  }
  return h2->options.is_client
             ? (flags & NGP_H2_FLAG_REMOTE_END) != 0
             : (flags & NGP_H2_FLAG_LOCAL_END_SENT) && (flags & declined);
}

/*
 * Nonzero if |stream| of a server is closed while the rest of its request,
 * declined with NO_ERROR, may still come.  The reset that declines it is on its
 * way, or waits: that of the client, the end of the connection, or a rest that
 * is malformed, as one that is shorter than content-length states, is no other
 * end (RFC 9113, 8.1).
 */
static int is_only_request_cut(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  const uint32_t cut = NGP_H2_FLAG_RESET_REMOTE | NGP_H2_FLAG_DOOMED;

  return (h2->end.dead || (stream->flags & cut)) && !h2->options.is_client &&
         !(stream->flags & NGP_H2_FLAG_RESET_LOCAL) && !stream->fault &&
         stream->rst_code == NGHTTP2_NO_ERROR && ended_well(h2, stream);
}

/* Returns the code of the event that ends |stream|.  The peer's NO_ERROR is a
   good end only if all of the peer's message has come. */
static uint32_t end_code(const ngp_h2 *h2, const ngp_h2_stream *stream,
                         uint32_t error_code) {
  if (error_code != NGHTTP2_NO_ERROR) {
    return is_only_request_cut(h2, stream) ? NGHTTP2_NO_ERROR : error_code;
  }
  if (stream->flags & NGP_H2_FLAG_DOOMED) {
    /* Both halves had ended before the RST_STREAM. */
    return stream->fault ? stream->fault : NGHTTP2_PROTOCOL_ERROR;
  }
  if (stream->flags & (NGP_H2_FLAG_RESET_LOCAL | NGP_H2_FLAG_MUTED)) {
    return stream->rst_code;
  }
  return ended_well(h2, stream) ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL;
}

int ngp_h2_close_stream(ngp_h2 *h2, ngp_h2_stream *stream,
                        uint32_t error_code) {
  const uint32_t told = NGP_H2_FLAG_RESET_LOCAL | NGP_H2_FLAG_RESET_REMOTE |
                        NGP_H2_FLAG_RESET_REPORTED | NGP_H2_FLAG_MUTED;
  ngp_h2_event *event;
  int whole, rv = 0;

  error_code = end_code(h2, stream, error_code);
  whole = error_code == NGHTTP2_NO_ERROR && ended_well(h2, stream);
  if (error_code != NGHTTP2_NO_ERROR && !(stream->flags & told)) {
    event = ngp_h2_record(h2, NGP_H2_EVENT_STREAM_RESET, stream->id);
    if (!event) {
      return NGHTTP2_ERR_NOMEM;
    }
    event->error_code = error_code;
    /* nghttp2 closes the requests that the peer's GOAWAY excludes with this
       code. */
    event->unprocessed = error_code == NGHTTP2_REFUSED_STREAM &&
                         ngp_h2_is_local_id(h2, stream->id);
    event->remote = event->unprocessed;
    if (!h2->end.dead) {
      /* The connection's error code applies. */
      take_reason(h2, event);
    }
  }
  if (stream->body.queued && h2->streams.size > 1 && !h2->end.dead) {
    /* The window reserved for this body is free for the others: see
       ngp_h2_sendable(). */
    if (!ngp_h2_record(h2, NGP_H2_EVENT_WINDOW_UPDATE, 0)) {
      return NGHTTP2_ERR_NOMEM;
    }
  }
  if (whole) {
    ngp_h2_earn_stream(h2);
  }
  event = ngp_h2_record(h2, NGP_H2_EVENT_STREAM_CLOSED, stream->id);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->error_code = error_code;
  event->complete = whole ? 1 : 0;
  event->value = stream->body_len - (int64_t)stream->body.queued;
  if (stream->unacked && !h2->end.dead) {
    /* nghttp2 forgets the stream and the bytes that the application has not
       consumed: without this the connection's window would shrink
       permanently. */
    rv = ngp_h2_return_credit(h2, stream->unacked);
  }
  ngp_h2_remember_closed(h2, stream->id,
                         stream->flags &
                             (NGP_H2_FLAG_RESET_LOCAL | NGP_H2_FLAG_DOOMED));
  ngp_h2_stream_remove(h2, stream);
  return rv;
}

/*
 * Records the end of all streams, then that of the connection.  The session is
 * not called again.
 */
static int close_connection(ngp_h2 *h2, uint32_t error_code, int remote) {
  /* NO_ERROR would mean that the streams ended well. */
  uint32_t stream_code = error_code ? error_code : NGHTTP2_CANCEL;
  ngp_h2_event *event;
  int32_t *ids;
  size_t i, n;
  int rv;

  if (h2->end.recorded) {
    return 0;
  }
  h2->end.dead = 1;
  rv = ngp_h2_stream_ids(h2, 0, &ids, &n);
  for (i = 0; i < n && rv == 0; ++i) {
    ngp_h2_stream *stream = ngp_h2_stream_find(h2, ids[i]);

    if ((stream->flags & NGP_H2_FLAG_UNSENT) && h2->options.is_client) {
      /* The peer has not seen it: it may be sent again on another
         connection. */
      rv = ngp_h2_close_stream(h2, stream, NGHTTP2_REFUSED_STREAM);
    } else {
      stream->flags |= NGP_H2_FLAG_RESET_REPORTED;
      rv = ngp_h2_close_stream(h2, stream, stream_code);
    }
  }
  ngp_free(h2->mem, ids);
  event = rv == 0 ? ngp_h2_record(h2, NGP_H2_EVENT_CONNECTION_CLOSED, 0) : NULL;
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  h2->end.recorded = 1;
  event->error_code = error_code;
  event->remote = remote ? 1 : 0;
  take_reason(h2, event);
  return 0;
}

int ngp_h2_recv_eof(ngp_h2 *h2, uint32_t error_code) {
  return close_connection(h2, error_code, 1);
}

int ngp_h2_alive(const ngp_h2 *h2) { return !h2->end.dead; }

int ngp_h2_want_read(ngp_h2 *h2) {
  return !h2->end.dead && !h2->goaway.terminated &&
         nghttp2_session_want_read(h2->session);
}

int ngp_h2_want_write(ngp_h2 *h2) {
  return h2->out.bytes.len || h2->out.refs_len ||
         (!h2->end.dead &&
          (h2->resets.held || nghttp2_session_want_write(h2->session)));
}

/* ---- Bytes in ---- */

/*
 * Queues the GOAWAY that RFC 9113, 5.4.1 requires, for an error after which
 * nghttp2 sends none.
 */
static int fail_with_goaway(ngp_h2 *h2, uint32_t error_code,
                            const char *reason) {
  uint32_t last = (uint32_t)h2->ids.last_remote;
  uint8_t frame[17] = {0, 0, 8, NGHTTP2_GOAWAY};

  put32(frame + 9, last);
  put32(frame + 13, error_code);
  ngp_h2_set_reason(h2, reason, strlen(reason));
  if (ngp_buf_add(&h2->out.bytes, frame, sizeof(frame)) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  ++h2->counters.frames_sent[NGHTTP2_GOAWAY];
  return close_connection(h2, error_code, 0);
}

static int fail_recv(ngp_h2 *h2, int lib_error) {
  if (h2->limits.calm) {
    return fail_with_goaway(h2, NGHTTP2_ENHANCE_YOUR_CALM, h2->limits.calm);
  }
  switch (lib_error) {
  case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
    return fail_with_goaway(h2, NGHTTP2_PROTOCOL_ERROR,
                            nghttp2_strerror(lib_error));
  case NGHTTP2_ERR_FLOODED:
#ifdef NGP_HAVE_OPTION_SET_MAX_CONTINUATIONS
  case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
#endif
    return fail_with_goaway(h2, NGHTTP2_ENHANCE_YOUR_CALM,
                            nghttp2_strerror(lib_error));
  default:
    h2->end.dead = 1;
    return NGHTTP2_ERR_NOMEM;
  }
}

static int gather(ngp_h2 *h2, size_t limit, size_t data_limit);

/*
 * nghttp2 answers a violation by queueing RST_STREAM or GOAWAY, and calls back
 * only when that is sent.  The events of a read should include these.  So
 * output, without DATA, is gathered as soon as the queue has grown by more than
 * this input explains.
 */
static int gather_early(ngp_h2 *h2, size_t queue_before) {
  size_t queue = nghttp2_session_get_outbound_queue_size(h2->session);

  if (queue <= queue_before + h2->expected ||
      h2->out.bytes.len > MAX_EARLY_OUTPUT) {
    return 0;
  }
  return gather(h2, SIZE_MAX, 0);
}

int ngp_h2_recv(ngp_h2 *h2, const uint8_t *data, size_t len,
                size_t *pconsumed) {
  const char *reason;
  size_t queue_before;
  uint32_t code;
  int rv;

  if (h2->end.dead) {
    return NGP_ERR_CONNECTION_CLOSED;
  }
  if (len > RECV_SLICE) {
    len = RECV_SLICE;
  }
  drop_reason(h2);
  queue_before = nghttp2_session_get_outbound_queue_size(h2->session);
  h2->expected = 0;
  rv = ngp_h2_scan(h2, data, len, &reason, &code);
  h2->counters.bytes_received += len;
  *pconsumed = len;
  if (rv != 0) {
    return fail_recv(h2, rv);
  }
  rv = gather_early(h2, queue_before);
  return rv == 0 && reason && !h2->end.dead ? fail_with_goaway(h2, code, reason)
                                            : rv;
}

/* ---- Bytes out ---- */

/* Makes room for another ref, and for the segments of all refs, so that
   ngp_h2_output() needs no memory. */
static int grow_refs(ngp_h2 *h2) {
  size_t cap = h2->out.refs_cap ? h2->out.refs_cap * 2 : 8;
  ngp_h2_segment *segments;
  ngp_h2_ref *refs;

  /* There is a run of gathered bytes before each ref, and one after the
     last. */
  segments =
      ngp_realloc(h2->mem, h2->out.segments, (2 * cap + 1) * sizeof(*segments));
  if (!segments) {
    return NGHTTP2_ERR_NOMEM;
  }
  h2->out.segments = segments;
  refs = ngp_realloc(h2->mem, h2->out.refs, cap * sizeof(*refs));
  if (!refs) {
    return NGHTTP2_ERR_NOMEM;
  }
  h2->out.refs = refs;
  h2->out.refs_cap = cap;
  return 0;
}

int ngp_h2_add_ref(ngp_h2 *h2, const uint8_t *base, size_t len, void *owner) {
  if (h2->out.nrefs == h2->out.refs_cap && grow_refs(h2) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  h2->out.refs[h2->out.nrefs++] = (ngp_h2_ref){
      .offset = h2->out.bytes.len, .base = base, .len = len, .owner = owner};
  h2->out.refs_len += len;
  return 0;
}

int ngp_h2_want(ngp_h2 *h2, ngp_h2_stream *stream, size_t n) {
  stream->wanted = n;
  if (stream->flags & NGP_H2_FLAG_WANTS) {
    return 0;
  }
  if (h2->bodies.nwanted == h2->bodies.wanted_cap) {
    size_t cap = h2->bodies.wanted_cap ? h2->bodies.wanted_cap * 2 : 16;
    int32_t *wanted =
        ngp_realloc(h2->mem, h2->bodies.wanted, cap * sizeof(*wanted));

    if (!wanted) {
      return NGHTTP2_ERR_NOMEM;
    }
    h2->bodies.wanted = wanted;
    h2->bodies.wanted_cap = cap;
  }
  h2->bodies.wanted[h2->bodies.nwanted++] = stream->id;
  stream->flags |= NGP_H2_FLAG_WANTS;
  return 0;
}

int ngp_h2_take_wanted(ngp_h2 *h2, int32_t *pstream_id, size_t *pn) {
  while (h2->bodies.nwanted) {
    ngp_h2_stream *stream =
        ngp_h2_stream_find(h2, h2->bodies.wanted[--h2->bodies.nwanted]);

    if (stream && (stream->flags & NGP_H2_FLAG_WANTS)) {
      stream->flags &= ~NGP_H2_FLAG_WANTS;
      *pstream_id = stream->id;
      *pn = stream->wanted;
      return 1;
    }
  }
  return 0;
}

/*
 * Gathers frames from nghttp2 until there are |limit| bytes of output, and DATA
 * frames only until there are |data_limit|.
 */
static int gather(ngp_h2 *h2, size_t limit, size_t data_limit) {
  const uint8_t *data;
  nghttp2_ssize n;

  h2->out.data_limit = data_limit;
  while (h2->out.bytes.len + h2->out.refs_len < limit) {
    size_t before = h2->out.bytes.len + h2->out.refs_len;

    n = nghttp2_session_mem_send2(h2->session, &data);
    if (n < 0) {
      h2->end.dead = 1;
      return NGHTTP2_ERR_NOMEM;
    }
    if (h2->goaway.dropped) {
      h2->goaway.dropped = 0;
    } else if (n > 0 && ngp_buf_add(&h2->out.bytes, data, (size_t)n) != 0) {
      h2->end.dead = 1;
      return NGHTTP2_ERR_NOMEM;
    }
    if (h2->end.failed) {
      return close_connection(h2, h2->end.code, 0);
    }
    /* The send_data callback adds DATA frames to the output. */
    if (n == 0 && h2->out.bytes.len + h2->out.refs_len == before) {
      h2->ids.waiting_upto = h2->unsent ? h2->ids.last_local : 0;
      return 0;
    }
  }
  return 0;
}

int ngp_h2_send(ngp_h2 *h2, size_t limit, int by_reference) {
  int rv;

  if (h2->end.dead) {
    return 0;
  }
  if (h2->resets.held && !h2->resets.hold && !h2->out.bytes.len &&
      !h2->out.refs_len) {
    /* These resets follow ends that were in the output of an earlier call. */
    rv = ngp_h2_release_resets(h2, 1);
    if (rv != 0) {
      h2->end.dead = 1;
      return rv;
    }
  }
  h2->out.by_reference = by_reference ? 1 : 0;
  rv = gather(h2, limit, limit);
  h2->out.by_reference = 0;
  return rv;
}

const ngp_h2_segment *ngp_h2_output(ngp_h2 *h2, size_t *pn, size_t *plen) {
  size_t offset = 0;
  size_t i, n = 0;

  *pn = 0;
  *plen = h2->out.bytes.len + h2->out.refs_len;
  if (*plen == 0) {
    return NULL;
  }
  if (h2->out.nrefs == 0) {
    h2->out.whole =
        (ngp_h2_segment){.base = h2->out.bytes.base, .len = h2->out.bytes.len};
    *pn = 1;
    return &h2->out.whole;
  }
  for (i = 0; i < h2->out.nrefs; ++i) {
    const ngp_h2_ref *ref = &h2->out.refs[i];

    if (ref->offset > offset) {
      h2->out.segments[n++] = (ngp_h2_segment){
          .base = h2->out.bytes.base + offset, .len = ref->offset - offset};
      offset = ref->offset;
    }
    h2->out.segments[n++] = (ngp_h2_segment){
        .base = ref->base, .len = ref->len, .owner = ref->owner};
  }
  if (h2->out.bytes.len > offset) {
    h2->out.segments[n++] = (ngp_h2_segment){
        .base = h2->out.bytes.base + offset, .len = h2->out.bytes.len - offset};
  }
  *pn = n;
  return h2->out.segments;
}

void ngp_h2_clear_output(ngp_h2 *h2) {
  h2->counters.bytes_sent += h2->out.bytes.len + h2->out.refs_len;
  ngp_buf_clear(&h2->out.bytes, KEEP_OUTPUT);
  h2->out.nrefs = 0;
  h2->out.refs_len = 0;
}
