/*
 * WebTransport over HTTP/3 (draft-ietf-webtrans-http3) and capsules
 * (RFC 9297).  SPDX-License-Identifier: MIT
 *
 * Without options.extended no sessions are kept: as in aioquic, everything that
 * names a session is passed to the application.
 */
#include "ngp_h3_int.h"

#include <string.h>

#define CAPSULE_CLOSE 0x2843u
#define CAPSULE_DRAIN 0x78aeu

/* The longest message of CLOSE_WEBTRANSPORT_SESSION. */
#define MAX_MESSAGE 1024

/* A capsule is reported completely, so it has a bound; a longer one of an
   unknown type is skipped. */
#define MAX_CAPSULE 16384

/* How many streams and datagrams may wait for their sessions: enough for what a
   client sends behind the requests of a few sessions. */
#define MAX_WAITING 64

/* The error codes of applications have a range of their own among those of
   HTTP/3: from FIRST on, without the numbers that are reserved for greasing. */
#define FIRST_ERROR 0x52e4a40fa8dbu
#define LAST_ERROR 0x52e5ac983162u

/* The settings by which drafts announce WebTransport: 02, from 07 on, from 14
   on. */
static const uint64_t settings[] = {NGP_H3_SETTING_ENABLE_WEBTRANSPORT,
                                    0xc671706au, 0x2c7cf000u};

int ngp_h3_wt_enabled(const ngp_h3 *h3) {
  size_t i;

  for (i = 0; i < sizeof(settings) / sizeof(settings[0]); ++i) {
    if (ngp_h3_setting_value(h3, settings[i], 0) > 0) {
      return 1;
    }
  }
  return 0;
}

uint64_t ngp_h3_wt_to_http(uint32_t code) {
  return FIRST_ERROR + code + code / 0x1e;
}

int ngp_h3_wt_from_http(uint64_t code, uint32_t *pcode) {
  uint64_t n;

  if (code < FIRST_ERROR || code > LAST_ERROR || (code - 0x21) % 0x1f == 0) {
    return -1;
  }
  n = code - FIRST_ERROR;
  *pcode = (uint32_t)(n - n / 0x1f);
  return 0;
}

static ngp_h3_stream *find_session(const ngp_h3 *h3, int64_t session_id) {
  ngp_h3_stream *session = ngp_h3_find(h3, session_id);

  return session && session->session == NGP_H3_SESSION_OPEN ? session : NULL;
}

int ngp_h3_session_is_open(const ngp_h3 *h3, int64_t session_id) {
  return find_session(h3, session_id) != NULL;
}

/* Nonzero if the session may still be established. */
static int may_come(const ngp_h3 *h3, int64_t session_id) {
  const ngp_h3_stream *session = ngp_h3_find(h3, session_id);

  if (session) {
    return session->session == NGP_H3_SESSION_REQUESTED ||
           (!h3->options.is_client && session->type == NGP_H3_STREAM_REQUEST &&
            session->recv_state == NGP_H3_STATE_INITIAL);
  }
  return !h3->options.is_client &&
         !ngp_h3_window_has(&h3->requests, (uint64_t)session_id / 4);
}

static int reject(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t error_code) {
  return ngp_h3_abort(h3, stream, error_code, 1);
}

/* Calls |what| for all streams of the session. */
static int for_streams(ngp_h3 *h3, int64_t session_id,
                       int (*what)(ngp_h3 *h3, ngp_h3_stream *stream)) {
  ngp_h3_stream *stream;
  size_t place = 0;
  int rv;

  /* |what| does not add or remove streams. */
  while ((stream = ngp_map_next(&h3->streams, &place))) {
    if (stream->session_id == session_id &&
        stream->type != NGP_H3_STREAM_IGNORED) {
      rv = what(h3, stream);
      if (rv != 0) {
        return rv;
      }
    }
  }
  return 0;
}

int ngp_h3_wt_check_session(ngp_h3 *h3, ngp_h3_stream *stream) {
  if (!h3->options.extended) {
    return 0;
  }
  if (!ngp_h3_is_request(stream->session_id)) {
    return ngp_h3_violate(h3, NGP_H3_V_SESSION_ID);
  }
  if (find_session(h3, stream->session_id)) {
    return 0;
  }
  if (!may_come(h3, stream->session_id)) {
    return reject(h3, stream, NGP_H3_WT_SESSION_GONE);
  }
  if (h3->waiting.nstreams >= MAX_WAITING) {
    return reject(h3, stream, NGP_H3_WT_BUFFERED_STREAM_REJECTED);
  }
  ++h3->waiting.nstreams;
  stream->held = 1;
  return 0;
}

int ngp_h3_wt_recv(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                   size_t len, int end_stream) {
  if (stream->type == NGP_H3_STREAM_IGNORED) {
    return 0;
  }
  if (!stream->held) {
    return len || end_stream
               ? ngp_h3_add_data(h3, NGP_H3_EVENT_WEBTRANSPORT_DATA, stream,
                                 data, len, end_stream)
               : 0;
  }
  if (len > h3->options.max_buffered - h3->waiting.bytes) {
    return reject(h3, stream, NGP_H3_WT_BUFFERED_STREAM_REJECTED);
  }
  if (ngp_buf_add(&stream->buf, data, len) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  h3->waiting.bytes += len;
  return 0;
}

/* Reports what has waited on |stream|. */
static int release(ngp_h3 *h3, ngp_h3_stream *stream) {
  ngp_buf held;
  int rv;

  if (!stream->held) {
    return 0;
  }
  stream->held = 0;
  --h3->waiting.nstreams;
  h3->waiting.bytes -= stream->buf.len;
  rv = ngp_h3_hold(h3, &stream->buf, &held);
  if (rv == 0 && (held.len || stream->recv_ended)) {
    rv = ngp_h3_add_data(h3, NGP_H3_EVENT_WEBTRANSPORT_DATA, stream, held.base,
                         held.len, stream->recv_ended);
  }
  return rv;
}

/* Streams that ended while they waited, or that were rejected, are over. */
static void sweep(ngp_h3 *h3, int64_t session_id) {
  ngp_h3_stream *stream;
  size_t place = 0;

  while ((stream = ngp_map_next(&h3->streams, &place))) {
    if (stream->session_id == session_id && stream->recv_ended &&
        stream->send_ended) {
      /* Another may move to its slot, or to one that was checked already: then
         the next sweep removes it. */
      ngp_h3_remove_stream(h3, stream);
      --place;
    }
  }
}

int ngp_h3_wt_hold_datagram(ngp_h3 *h3, int64_t stream_id, const uint8_t *data,
                            size_t len, int *pheld) {
  ngp_h3_datagram *datagram;

  *pheld = 0;
  if (!h3->options.webtransport || !may_come(h3, stream_id)) {
    return 0;
  }
  /* Datagrams over the bound are dropped, as datagrams may be lost. */
  *pheld = 1;
  if (h3->waiting.ndatagrams >= MAX_WAITING ||
      len > h3->options.max_buffered - h3->waiting.bytes) {
    return 0;
  }
  if (!h3->waiting.datagrams) {
    h3->waiting.datagrams =
        ngp_malloc(h3->mem, MAX_WAITING * sizeof(*h3->waiting.datagrams));
    if (!h3->waiting.datagrams) {
      return NGHTTP2_ERR_NOMEM;
    }
  }
  datagram = &h3->waiting.datagrams[h3->waiting.ndatagrams];
  datagram->stream_id = stream_id;
  ngp_buf_init(&datagram->buf, h3->mem);
  if (ngp_buf_add(&datagram->buf, data, len) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  ++h3->waiting.ndatagrams;
  h3->waiting.bytes += len;
  return 0;
}

/* Removes the datagrams of the session from the list; reports them if |wanted|
   is nonzero. */
static int take_datagrams(ngp_h3 *h3, int64_t session_id, int wanted) {
  size_t i, kept = 0;
  int rv = 0;

  for (i = 0; i < h3->waiting.ndatagrams; ++i) {
    ngp_h3_datagram *datagram = &h3->waiting.datagrams[i];
    ngp_h3_event *event;
    ngp_buf held;

    if (datagram->stream_id != session_id || rv != 0) {
      h3->waiting.datagrams[kept++] = *datagram;
      continue;
    }
    h3->waiting.bytes -= datagram->buf.len;
    if (!wanted) {
      ngp_buf_free(&datagram->buf);
      continue;
    }
    rv = ngp_h3_hold(h3, &datagram->buf, &held);
    if (rv != 0) {
      h3->waiting.bytes += datagram->buf.len;
      h3->waiting.datagrams[kept++] = *datagram;
      continue;
    }
    event = ngp_h3_add_event(h3, NGP_H3_EVENT_DATAGRAM, NULL);
    if (!event) {
      rv = NGHTTP2_ERR_NOMEM;
      continue;
    }
    event->stream_id = session_id;
    event->data = held.base;
    event->len = held.len;
  }
  h3->waiting.ndatagrams = kept;
  return rv;
}

int ngp_h3_wt_is_full(const ngp_h3 *h3) {
  const ngp_h3_stream *stream;
  size_t place = 0;
  size_t n = 0;

  while ((stream = ngp_map_next(&h3->streams, &place))) {
    n += stream->session == NGP_H3_SESSION_REQUESTED ||
         stream->session == NGP_H3_SESSION_OPEN;
  }
  return n >= h3->options.max_sessions;
}

int ngp_h3_wt_open(ngp_h3 *h3, ngp_h3_stream *session) {
  int64_t id = session->id;
  int rv;

  session->session = NGP_H3_SESSION_OPEN;
  rv = for_streams(h3, id, release);
  if (rv == 0) {
    rv = take_datagrams(h3, id, 1);
  }
  if (rv == 0) {
    sweep(h3, id);
  }
  return rv;
}

static int reject_gone(ngp_h3 *h3, ngp_h3_stream *stream) {
  return reject(h3, stream, NGP_H3_WT_SESSION_GONE);
}

int ngp_h3_wt_refused(ngp_h3 *h3, ngp_h3_stream *session) {
  int rv;

  if (session->session == NGP_H3_SESSION_CLOSED) {
    return 0;
  }
  if (session->session != NGP_H3_SESSION_NONE) {
    session->session = NGP_H3_SESSION_CLOSED;
    session->capsules = 0;
  } else if (h3->waiting.nstreams == 0 && h3->waiting.ndatagrams == 0) {
    return 0;
  }
  rv = for_streams(h3, session->id, reject_gone);
  if (rv == 0) {
    rv = take_datagrams(h3, session->id, 0);
  }
  if (rv == 0) {
    sweep(h3, session->id);
  }
  return rv;
}

int ngp_h3_wt_close(ngp_h3 *h3, ngp_h3_stream *session, uint64_t error_code,
                    const uint8_t *message, size_t len) {
  ngp_h3_event *event;
  int was_open = session->session == NGP_H3_SESSION_OPEN;
  int rv = ngp_h3_wt_refused(h3, session);

  if (rv != 0 || !was_open) {
    return rv;
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_SESSION_CLOSED, session);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->value = error_code;
  event->data = message;
  event->len = len;
  return 0;
}

/* ---- Capsules ---- */

static int recv_capsule(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t type,
                        const uint8_t *value, size_t len) {
  ngp_h3_event *event;

  if (stream->session) {
    switch (type) {
    case CAPSULE_CLOSE:
      if (len < 4 || len > 4 + MAX_MESSAGE) {
        return ngp_h3_violate(h3, NGP_H3_V_CAPSULE_CLOSE);
      }
      return ngp_h3_wt_close(h3, stream,
                             (uint64_t)value[0] << 24 |
                                 (uint64_t)value[1] << 16 |
                                 (uint64_t)value[2] << 8 | value[3],
                             value + 4, len - 4);
    case CAPSULE_DRAIN:
      return ngp_h3_add_event(h3, NGP_H3_EVENT_SESSION_DRAINED, stream)
                 ? 0
                 : NGHTTP2_ERR_NOMEM;
    }
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_CAPSULE, stream);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->value = type;
  event->data = value;
  event->len = len;
  return 0;
}

/*
 * Reads the header of the capsule at |data|, of |*psize| bytes at |*pstart|.
 * Returns 0 if the header, or a value that has to be complete, is incomplete.
 */
static int read_capsule(const uint8_t *data, size_t len, uint64_t *ptype,
                        uint64_t *psize, size_t *pstart) {
  size_t n = ngp_get_varint(data, len, ptype);
  size_t m = n ? ngp_get_varint(data + n, len - n, psize) : 0;

  *pstart = n + m;
  return m && (*psize > MAX_CAPSULE || len - *pstart >= *psize);
}

int ngp_h3_wt_recv_capsules(ngp_h3 *h3, ngp_h3_stream *stream,
                            const uint8_t *data, size_t len) {
  ngp_buf *capsule = &stream->capsule;
  uint64_t type, size;
  ngp_buf held;
  size_t n, start;
  int rv;

  n = stream->capsule_left < len ? (size_t)stream->capsule_left : len;
  stream->capsule_left -= n;
  data += n;
  len -= n;
  if (capsule->len) {
    /* The collected bytes belong to the capsule that continues in |data|. */
    rv = ngp_buf_add(capsule, data, len);
    if (rv != 0 ||
        !read_capsule(capsule->base, capsule->len, &type, &size, &start)) {
      return rv;
    }
    rv = ngp_h3_hold(h3, capsule, &held);
    if (rv != 0) {
      return rv;
    }
    data = held.base;
    len = held.len;
  }
  while (read_capsule(data, len, &type, &size, &start)) {
    data += start;
    len -= start;
    n = size < len ? (size_t)size : len;
    if (size <= MAX_CAPSULE) {
      rv = recv_capsule(h3, stream, type, data, n);
      if (rv != 0) {
        return rv;
      }
      if (stream->session == NGP_H3_SESSION_CLOSED) {
        /* Nothing may follow that capsule. */
        return 0;
      }
    } else if (type == CAPSULE_CLOSE || type == CAPSULE_DRAIN) {
      return ngp_h3_violate(h3, NGP_H3_V_CAPSULE_SIZE);
    } else {
      stream->capsule_left = size - n;
    }
    data += n;
    len -= n;
  }
  return ngp_buf_add(capsule, data, len);
}

/* ---- Calls of the application ---- */

int ngp_h3_open_webtransport(ngp_h3 *h3, int64_t stream_id, uint64_t session_id,
                             int uni) {
  ngp_h3_stream *stream;
  uint8_t text[16];
  size_t n;

  ngp_h3_begin(h3);
  if (session_id > NGP_MAX_VARINT ||
      (h3->options.extended && !find_session(h3, (int64_t)session_id))) {
    return NGP_H3_ERR_STREAM_TYPE;
  }
  if (!uni || h3->options.extended) {
    /* What the peer sends on it has no header and belongs to the session. */
    stream = ngp_h3_add_stream(h3, stream_id,
                               uni ? NGP_H3_STREAM_WEBTRANSPORT
                                   : NGP_H3_STREAM_WEBTRANSPORT_BIDI);
    if (!stream) {
      return NGHTTP2_ERR_NOMEM;
    }
    stream->session_id = (int64_t)session_id;
    stream->recv_ended = (uint8_t)(uni != 0);
  }
  n = ngp_put_varint(text, uni ? NGP_H3_STREAM_WEBTRANSPORT
                               : NGP_H3_FRAME_WEBTRANSPORT);
  n += ngp_put_varint(text + n, session_id);
  return ngp_h3_send_bytes(h3, stream_id, text, n, 0);
}

void ngp_h3_end_webtransport(ngp_h3 *h3, int64_t stream_id) {
  ngp_h3_stream *stream;

  ngp_h3_begin(h3);
  stream = ngp_h3_find(h3, stream_id);
  if (stream && stream->session_id != NGP_H3_NO_ID) {
    stream->send_ended = 1;
    ngp_h3_remove_if_ended(h3, stream);
  }
}

int ngp_h3_send_capsule(ngp_h3 *h3, int64_t stream_id, uint64_t type,
                        const uint8_t *data, size_t len) {
  uint8_t header[NGP_H3_MAX_FRAME_HEADER];
  uint8_t frame[NGP_H3_MAX_FRAME_HEADER];
  size_t headerlen, framelen;
  int rv;

  if (type > NGP_MAX_VARINT) {
    return NGP_H3_ERR_RANGE;
  }
  headerlen = ngp_put_varint(header, type);
  headerlen += ngp_put_varint(header + headerlen, len);
  rv = ngp_h3_send_data(h3, stream_id, headerlen + len, 0, frame, &framelen);
  if (rv == 0) {
    rv = ngp_h3_send_bytes(h3, stream_id, frame, framelen, 0);
  }
  if (rv == 0) {
    rv = ngp_h3_send_bytes(h3, stream_id, header, headerlen, 0);
  }
  if (rv == 0) {
    rv = ngp_h3_send_bytes(h3, stream_id, data, len, 0);
  }
  return rv;
}

int ngp_h3_drain_session(ngp_h3 *h3, int64_t session_id) {
  if (!find_session(h3, session_id)) {
    ngp_h3_begin(h3);
    return NGP_H3_ERR_STREAM_TYPE;
  }
  return ngp_h3_send_capsule(h3, session_id, CAPSULE_DRAIN, NULL, 0);
}

int ngp_h3_close_session(ngp_h3 *h3, int64_t session_id, uint32_t error_code,
                         const uint8_t *message, size_t len) {
  ngp_h3_stream *session = find_session(h3, session_id);
  uint8_t value[4 + MAX_MESSAGE];
  int rv;

  if (!session) {
    ngp_h3_begin(h3);
    return NGP_H3_ERR_STREAM_TYPE;
  }
  if (len > MAX_MESSAGE) {
    ngp_h3_begin(h3);
    return NGP_H3_ERR_RANGE;
  }
  value[0] = (uint8_t)(error_code >> 24);
  value[1] = (uint8_t)(error_code >> 16);
  value[2] = (uint8_t)(error_code >> 8);
  value[3] = (uint8_t)error_code;
  if (len) {
    memcpy(value + 4, message, len);
  }
  rv = ngp_h3_send_capsule(h3, session_id, CAPSULE_CLOSE, value, 4 + len);
  if (rv == 0) {
    rv = ngp_h3_send_bytes(h3, session_id, NULL, 0, 1);
  }
  if (rv == 0) {
    session->send_ended = 1;
    rv = ngp_h3_wt_refused(h3, session);
  }
  if (rv == 0) {
    ngp_h3_remove_if_ended(h3, session);
  }
  return rv;
}
