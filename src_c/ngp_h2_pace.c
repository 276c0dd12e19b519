/*
 * The pace of bodies: whether the peer sends and receives them as fast as it
 * must. SPDX-License-Identifier: MIT
 *
 * There is no clock here: the caller checks from time to time, and passes the
 * time.  Between two checks only counters change.
 */
#include <string.h>

#include "ngp_h2_int.h"

#define SLOW_REQUEST "the request's body makes no progress"
#define SLOW_RESPONSE "flow control of the stream holds its body back"

/* Checks within the time of a bound: progress is measured over a part of it, so
   that a burst does not make up for the silence before it. */
#define LOOKS 4

/*
 * Returns nonzero if the counter of |mark| has been too slow for |bound|
 * seconds; |count| is its value now.
 */
static int is_slow(ngp_h2_mark *mark, int64_t count, double now, double bound,
                   double min_rate) {
  double elapsed = now - mark->since;

  if (!mark->on) {
    *mark = (ngp_h2_mark){.since = now, .count = count, .on = 1};
    return 0;
  }
  /* A timer may be a little early. */
  if (elapsed * LOOKS < 0.9 * bound) {
    return 0;
  }
  if (count > mark->count &&
      (double)(count - mark->count) >= min_rate * elapsed) {
    mark->since = now;
    mark->count = count;
    return 0;
  }
  return elapsed >= bound;
}

/* Nonzero if |stream| is a request with an incomplete body and no response yet.
   Tunnels may be silent for any time. */
static int owes_body(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  const uint32_t exempt = NGP_H2_FLAG_REMOTE_END | NGP_H2_FLAG_LOCAL_HEADERS |
                          NGP_H2_FLAG_CONNECT | NGP_H2_FLAG_PUSHED |
                          NGP_H2_FLAG_DOOMED | NGP_H2_FLAG_RESET_LOCAL |
                          NGP_H2_FLAG_EXPECTS_100;

  return !h2->options.is_client &&
         (stream->flags & NGP_H2_FLAG_REMOTE_HEADERS) &&
         !(stream->flags & exempt);
}

int ngp_h2_expects_continue(const ngp_h2_field *fields, size_t nfields) {
  static const char expected[] = "100-continue";
  size_t i, j;

  for (i = 0; i < nfields; ++i) {
    nghttp2_vec name = nghttp2_rcbuf_get_buf(fields[i].name);
    nghttp2_vec value = nghttp2_rcbuf_get_buf(fields[i].value);

    if (fields[i].token != NGP_TOKEN_OTHER || name.len != 6 ||
        value.len != sizeof(expected) - 1 ||
        memcmp(name.base, "expect", 6) != 0) {
      continue;
    }
    /* The value is compared without case. */
    for (j = 0; j < value.len && (value.base[j] | 0x20) == (expected[j] | 0x20);
         ++j) {
    }
    return j == value.len;
  }
  return 0;
}

/* Nonzero if the application withholds the credit for the body of |stream|. */
static int we_hold_back(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  nghttp2_session *session = h2->session;
  int32_t window;

  if (!h2->options.manual_credit) {
    return 0;
  }
  if (nghttp2_session_get_local_window_size(session) <= 0) {
    return 1;
  }
  /* A peer may wait instead of sending a short frame for the last bytes of a
     window; nghttp2 sends WINDOW_UPDATE when half of it can be returned. */
  window = nghttp2_session_get_stream_effective_local_window_size(session,
                                                                  stream->id);
  return window <= 0 || stream->unacked >= ((size_t)window + 1) / 2;
}

/* Nonzero if |stream| has body bytes to send. */
static int has_output(const ngp_h2_stream *stream) {
  const uint32_t exempt = NGP_H2_FLAG_LOCAL_END_SENT | NGP_H2_FLAG_UNSENT |
                          NGP_H2_FLAG_DOOMED | NGP_H2_FLAG_RESET_LOCAL;

  if (!(stream->flags & NGP_H2_FLAG_LOCAL_HEADERS) ||
      (stream->flags & exempt)) {
    return 0;
  }
  return stream->body.queued || (stream->flags & NGP_H2_FLAG_LOCAL_END) ||
         ((stream->flags & NGP_H2_FLAG_SOURCE) &&
          !(stream->flags & NGP_H2_FLAG_DEFERRED));
}

int ngp_h2_check_pace(ngp_h2 *h2, double now, const ngp_h2_bounds *bounds,
                      int reset, ngp_h2_pace *ppace) {
  ngp_h2_stream *stream;
  int window_used_up;
  size_t place = 0;
  int rv;

  *ppace = (ngp_h2_pace){.slow = 0};
  if (h2->end.dead) {
    return 0;
  }
  window_used_up = nghttp2_session_get_remote_window_size(h2->session) <= 0;
  while ((stream = ngp_map_next(&h2->streams, &place))) {
    const char *reason = NULL;

    if (bounds->body > 0 && owes_body(h2, stream)) {
      ppace->watched = 1;
      if (we_hold_back(h2, stream)) {
        stream->recv_mark.on = 0;
      } else if (is_slow(&stream->recv_mark, (int64_t)stream->received, now,
                         bounds->body, bounds->min_rate)) {
        reason = SLOW_REQUEST;
      }
    }
    if (bounds->response > 0 && has_output(stream)) {
      ppace->watched = 1;
      ppace->stalled |= window_used_up;
      if (nghttp2_session_get_stream_remote_window_size(h2->session,
                                                        stream->id) > 0) {
        stream->send_mark.on = 0;
      } else if (is_slow(&stream->send_mark,
                         stream->body_len - (int64_t)stream->body.queued, now,
                         bounds->response, bounds->min_rate)) {
        reason = SLOW_RESPONSE;
      }
    }
    if (reason) {
      ++ppace->slow;
      if (reset) {
        rv = ngp_h2_reset(h2, stream, NGHTTP2_CANCEL, reason);
        if (rv != 0) {
          return rv;
        }
      }
    }
  }
  if (!ppace->stalled) {
    h2->bodies.send_mark.on = 0;
    return 0;
  }
  ppace->stalled = is_slow(&h2->bodies.send_mark, (int64_t)h2->bodies.sent, now,
                           bounds->response, bounds->min_rate);
  return 0;
}
