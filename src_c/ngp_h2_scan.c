/*
 * The input on its way to nghttp2, frame header by frame header.
 * SPDX-License-Identifier: MIT
 *
 * nghttp2 forgets a stream when it is closed, and ignores later frames on it.
 * RFC 9113, 5.1 requires an error, unless we have closed it: then the peer may
 * not have known.  So frame headers are checked here, before nghttp2 sees them.
 */
#include <string.h>

#include "ngp_h2_int.h"

#define HEAD_LEN 9

/* A PRIORITY frame's payload (RFC 9113, 6.3). */
#define PRIORITY_LEN 5

static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
         p[3];
}

static int32_t id_of(const uint8_t *head) {
  return (int32_t)(get32(head + 5) & 0x7fffffffU);
}

void ngp_h2_remember_closed(ngp_h2 *h2, int32_t id, int ours) {
  h2->ids.closed[h2->ids.nclosed++ % NGP_H2_CLOSED] =
      (uint32_t)id << 1 | (ours ? 1U : 0U);
}

void ngp_h2_mark_used(ngp_h2 *h2, int32_t id) {
  int32_t first;

  if (id <= h2->ids.highest_remote) {
    return;
  }
  first = h2->ids.highest_remote + 2;
  if (id > first) {
    h2->ids.skipped[h2->ids.nskipped++ % NGP_H2_SKIPPED] =
        (ngp_h2_id_range){.first = first, .end = id};
  }
  h2->ids.highest_remote = id;
}

/* Nonzero if the peer has skipped |id|. */
static int was_skipped(const ngp_h2 *h2, int32_t id) {
  size_t n =
      h2->ids.nskipped < NGP_H2_SKIPPED ? h2->ids.nskipped : NGP_H2_SKIPPED;
  size_t i;

  if (ngp_h2_is_local_id(h2, id)) {
    return 0;
  }
  for (i = 0; i < n; ++i) {
    if (id >= h2->ids.skipped[i].first && id < h2->ids.skipped[i].end) {
      return 1;
    }
  }
  return 0;
}

/* Returns what is remembered of the closed stream |id|; 0 if nothing is. */
static uint32_t find_closed(const ngp_h2 *h2, int32_t id) {
  size_t n = h2->ids.nclosed < NGP_H2_CLOSED ? h2->ids.nclosed : NGP_H2_CLOSED;
  size_t i;

  for (i = 0; i < n; ++i) {
    if (h2->ids.closed[i] >> 1 == (uint32_t)id) {
      return h2->ids.closed[i];
    }
  }
  return 0;
}

/* Nonzero if a frame with this |head| lacks the padding's length. */
static int lacks_padding(const uint8_t *head) {
  return (head[4] & NGHTTP2_FLAG_PADDED) && get32(head) >> 8 == 0;
}

/* Nonzero if |stream| is promised by us and not answered: reserved (local). */
static int is_reserved(const ngp_h2 *h2, const ngp_h2_stream *stream) {
  return !h2->options.is_client && (stream->flags & NGP_H2_FLAG_PUSHED) &&
         !(stream->flags & NGP_H2_FLAG_LOCAL_HEADERS);
}

/* Nonzero if a frame with this |head| may be an error that nghttp2 ignores, or
   answers by another error. */
static int suspicious(ngp_h2 *h2, const uint8_t *head) {
  int32_t id = id_of(head);
  const ngp_h2_stream *stream;

  switch (head[3]) {
  case NGHTTP2_HEADERS:
    if (id > h2->ids.highest_remote && !h2->options.is_client &&
        !ngp_h2_is_local_id(h2, id)) {
      ngp_h2_mark_used(h2, id);
      return lacks_padding(head);
    }
    /* fall through */
  case NGHTTP2_DATA:
    stream = ngp_h2_stream_find(h2, id);
    return lacks_padding(head) || (!stream && id != 0) ||
           (stream && is_reserved(h2, stream));
  case NGHTTP2_PUSH_PROMISE:
    return lacks_padding(head);
  case NGHTTP2_PRIORITY:
    return id == 0;
  default:
    return 0;
  }
}

/*
 * Checks a suspicious frame when nghttp2 has processed everything before it.
 * Returns the reason to end the connection with |*pcode|, or NULL.
 */
static const char *judge(const ngp_h2 *h2, const uint8_t *head,
                         uint32_t *pcode) {
  int32_t id = id_of(head);
  const ngp_h2_stream *stream = ngp_h2_stream_find(h2, id);
  uint32_t closed;

  if (lacks_padding(head)) {
    *pcode = NGHTTP2_FRAME_SIZE_ERROR;
    return "PADDED without a padding length";
  }
  *pcode = NGHTTP2_PROTOCOL_ERROR;
  if (head[3] == NGHTTP2_PRIORITY) {
    return "PRIORITY: stream_id == 0";
  }
  if (stream) {
    return is_reserved(h2, stream) ? "DATA or HEADERS: stream is reserved"
                                   : NULL;
  }
  if (was_skipped(h2, id)) {
    return "DATA or HEADERS: stream_id is smaller than an earlier one";
  }
  closed = find_closed(h2, id);
  if (closed & 1) {
    return NULL;
  }
  if (closed) {
    *pcode = NGHTTP2_STREAM_CLOSED;
    return head[3] == NGHTTP2_DATA ? "DATA: stream closed"
                                   : "HEADERS: stream closed";
  }
  /* Idle, refused and not reported yet, or closed too long ago to be
     remembered. */
  return NULL;
}

static int feed(ngp_h2 *h2, const uint8_t *data, size_t len) {
  nghttp2_ssize n;

  if (!len) {
    return 0;
  }
  n = nghttp2_session_mem_recv2(h2->session, data, len);
  return n < 0 ? (int)n : 0;
}

/* Returns the number of bytes of a frame's payload up to the end of the stream
   id in its priority field (RFC 7540, 6.2 and 6.3); 0 if it has none, or is too
   short for one, which nghttp2 checks. */
static size_t priority_prefix(const uint8_t *head) {
  size_t len = get32(head) >> 8;
  size_t n = 4;

  if (head[3] == NGHTTP2_PRIORITY) {
    return len == PRIORITY_LEN ? n : 0;
  }
  if (head[3] != NGHTTP2_HEADERS || !(head[4] & NGHTTP2_FLAG_PRIORITY)) {
    return 0;
  }
  n += head[4] & NGHTTP2_FLAG_PADDED ? 1 : 0;
  return len > n ? n : 0;
}

/*
 * Answers a frame whose stream depends on itself by a stream error. nghttp2
 * does not: it ignores PRIORITY and ends the connection for HEADERS.  The
 * header block must still be decoded.
 */
static int refuse_self_dependent(ngp_h2 *h2, uint8_t type, int32_t id) {
  ngp_h2_stream *stream;

  if (type == NGHTTP2_HEADERS) {
    h2->scan.self_dependent = id;
    return 0;
  }
  stream = ngp_h2_stream_find(h2, id);
  if (stream) {
    return stream->flags & (NGP_H2_FLAG_RESET_LOCAL | NGP_H2_FLAG_DOOMED |
                            NGP_H2_FLAG_MUTED)
               ? 0
               : ngp_h2_reset(h2, stream, NGHTTP2_PROTOCOL_ERROR,
                              NGP_H2_SELF_DEPENDENT);
  }
  /* What comes in on a closed stream is ignored. */
  return ngp_h2_is_local_id(h2, id) || id <= h2->ids.highest_remote
             ? 0
             : ngp_h2_reset_idle(h2, id, NGHTTP2_PROTOCOL_ERROR);
}

/* Nonzero if |prefix|, which is complete, names the frame's own stream. */
static int depends_on_itself(const ngp_h2 *h2, const uint8_t *prefix) {
  int32_t id = id_of(h2->scan.prefix_head);

  return id != 0 && (int32_t)(get32(prefix + h2->scan.prefix_want - 4) &
                              0x7fffffffU) == id;
}

/* Passes the complete prefix to nghttp2.  A dependency of a stream on itself is
   replaced by none. */
static int feed_prefix(ngp_h2 *h2) {
  int rv = 0;

  if (depends_on_itself(h2, h2->scan.prefix)) {
    memset(h2->scan.prefix + h2->scan.prefix_want - 4, 0, 4);
    rv = refuse_self_dependent(h2, h2->scan.prefix_head[3],
                               id_of(h2->scan.prefix_head));
  }
  return rv == 0 ? feed(h2, h2->scan.prefix, h2->scan.prefix_want) : rv;
}

/* Collects bytes of a prefix, and passes it to nghttp2 when it is complete;
   what precedes it was passed before.  Returns how many bytes it has used, or
   nghttp2's error code. */
static nghttp2_ssize take_prefix(ngp_h2 *h2, const uint8_t *data, size_t len) {
  size_t n = h2->scan.prefix_want - h2->scan.prefix_len;
  int rv;

  if (n > len) {
    n = len;
  }
  memcpy(h2->scan.prefix + h2->scan.prefix_len, data, n);
  h2->scan.prefix_len += n;
  h2->scan.left -= n;
  if (h2->scan.prefix_len == h2->scan.prefix_want) {
    rv = feed_prefix(h2);
    h2->scan.prefix_want = h2->scan.prefix_len = 0;
    if (rv != 0) {
      return rv;
    }
  }
  return (nghttp2_ssize)n;
}

uint32_t ngp_h2_mid_frame(const ngp_h2 *h2) {
  /* Serial 0 is the client's magic. */
  int payload = h2->scan.left && h2->scan.type != NGHTTP2_DATA;

  return !h2->end.dead && (h2->scan.len || payload || h2->scan.block)
             ? h2->scan.serial
             : 0;
}

int ngp_h2_scan(ngp_h2 *h2, const uint8_t *data, size_t len,
                const char **preason, uint32_t *pcode) {
  /* Bytes before |start| were passed to nghttp2, bytes before |pos| were
     checked. */
  size_t start = 0, pos = 0;
  const uint8_t *head;
  size_t n;
  int rv;

  *preason = NULL;
  while (pos < len) {
    if (h2->scan.prefix_want && !h2->scan.prefix_len &&
        len - pos >= h2->scan.prefix_want &&
        !depends_on_itself(h2, data + pos)) {
      /* The usual case: the header is complete and need not be copied. */
      h2->scan.prefix_want = 0;
    }
    if (h2->scan.prefix_want) {
      nghttp2_ssize taken;

      rv = feed(h2, data + start, pos - start);
      taken = rv == 0 ? take_prefix(h2, data + pos, len - pos) : rv;
      if (taken < 0) {
        return (int)taken;
      }
      pos += (size_t)taken;
      start = pos;
      continue;
    }
    if (h2->scan.left) {
      n = len - pos < h2->scan.left ? len - pos : h2->scan.left;
      pos += n;
      h2->scan.left -= n;
      continue;
    }
    head = data + pos;
    if (!h2->scan.len && !h2->scan.block) {
      ++h2->scan.serial;
    }
    if (h2->scan.len || len - pos < HEAD_LEN) {
      /* An incomplete header is kept until it is complete: nghttp2 before 1.70
         counts each piece of one as another CONTINUATION. */
      rv = feed(h2, data + start, pos - start);
      if (rv != 0) {
        return rv;
      }
      n = HEAD_LEN - h2->scan.len;
      if (n > len - pos) {
        n = len - pos;
      }
      memcpy(h2->scan.head + h2->scan.len, head, n);
      h2->scan.len += n;
      pos += n;
      start = pos;
      if (h2->scan.len < HEAD_LEN) {
        return 0;
      }
      head = h2->scan.head;
    }
    if (suspicious(h2, head)) {
      rv = feed(h2, data + start, pos - start);
      start = pos;
      if (rv != 0) {
        return rv;
      }
      *preason = judge(h2, head, pcode);
      if (*preason) {
        return 0;
      }
    }
    h2->scan.left = get32(head) >> 8;
    h2->scan.type = head[3];
    if (head[3] == NGHTTP2_HEADERS || head[3] == NGHTTP2_PUSH_PROMISE ||
        head[3] == NGHTTP2_CONTINUATION) {
      h2->scan.block = !(head[4] & NGHTTP2_FLAG_END_HEADERS);
    }
    rv = ngp_h2_count_frame(h2, head[3], head[4], id_of(head), h2->scan.left);
    if (rv != 0) {
      return rv;
    }
    h2->scan.prefix_want = priority_prefix(head);
    if (h2->scan.prefix_want) {
      memcpy(h2->scan.prefix_head, head, HEAD_LEN);
    }
    if (h2->scan.len) {
      h2->scan.len = 0;
      rv = feed(h2, head, HEAD_LEN);
      if (rv != 0) {
        return rv;
      }
    } else {
      pos += HEAD_LEN;
    }
  }
  return feed(h2, data + start, len - start);
}
