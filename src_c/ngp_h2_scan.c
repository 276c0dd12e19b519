/*
 * The input on its way to nghttp2, frame header by frame header.
 * SPDX-License-Identifier: MIT
 *
 * nghttp2 forgets a stream when it is closed, and ignores what comes in on it
 * later.  RFC 9113, 5.1 wants an error, unless it was us who closed it: then
 * the peer may not have known.  So the headers are looked at here, before
 * nghttp2 sees them.
 */
#include <string.h>

#include "ngp_h2_int.h"

#define HEAD_LEN 9

static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
         p[3];
}

static int32_t id_of(const uint8_t *head) {
  return (int32_t)(get32(head + 5) & 0x7fffffffU);
}

void ngp_h2_note_closed(ngp_h2 *h2, int32_t id, int ours) {
  h2->closed[h2->nclosed++ % NGP_H2_CLOSED] =
      (uint32_t)id << 1 | (ours ? 1U : 0U);
}

/* What is remembered of the closed stream |id|; 0 if nothing is. */
static uint32_t find_closed(const ngp_h2 *h2, int32_t id) {
  size_t n = h2->nclosed < NGP_H2_CLOSED ? h2->nclosed : NGP_H2_CLOSED;
  size_t i;

  for (i = 0; i < n; ++i) {
    if (h2->closed[i] >> 1 == (uint32_t)id) {
      return h2->closed[i];
    }
  }
  return 0;
}

/* Nonzero if a frame with this |head| may be a fault that nghttp2 ignores. */
static int suspicious(ngp_h2 *h2, const uint8_t *head) {
  int32_t id = id_of(head);

  switch (head[3]) {
  case NGHTTP2_HEADERS:
    if (id > h2->scan_top && ngp_h2_is_idle(h2, id)) {
      h2->scan_top = id;
      return 0;
    }
    /* fall through */
  case NGHTTP2_DATA:
    return id != 0 && !ngp_h2_stream_find(h2, id);
  case NGHTTP2_PRIORITY:
    return id == 0;
  default:
    return 0;
  }
}

/*
 * Looks at a suspicious frame once nghttp2 has seen all that came before it.
 * Returns the reason to end the connection with |*pcode|, or NULL.
 */
static const char *judge(const ngp_h2 *h2, const uint8_t *head,
                         uint32_t *pcode) {
  int32_t id = id_of(head);
  uint32_t closed;

  *pcode = NGHTTP2_PROTOCOL_ERROR;
  if (head[3] == NGHTTP2_PRIORITY) {
    return "PRIORITY: stream_id == 0";
  }
  if (ngp_h2_stream_find(h2, id) || ngp_h2_is_idle(h2, id)) {
    return NULL;
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
  /* Skipped, or closed too long ago to be remembered. */
  return h2->nclosed <= NGP_H2_CLOSED && head[3] == NGHTTP2_HEADERS
             ? "HEADERS: stream_id is smaller than an earlier one"
             : NULL;
}

static int feed(ngp_h2 *h2, const uint8_t *data, size_t len) {
  nghttp2_ssize n;

  if (!len) {
    return 0;
  }
  n = nghttp2_session_mem_recv2(h2->session, data, len);
  return n < 0 ? (int)n : 0;
}

int ngp_h2_scan(ngp_h2 *h2, const uint8_t *data, size_t len,
                const char **preason, uint32_t *pcode) {
  /* What is before |start| was fed, what is before |pos| was looked at. */
  size_t start = 0, pos = 0;
  const uint8_t *head;
  size_t n;
  int rv;

  *preason = NULL;
  while (pos < len) {
    if (h2->scan_left) {
      n = len - pos < h2->scan_left ? len - pos : h2->scan_left;
      pos += n;
      h2->scan_left -= n;
      continue;
    }
    head = data + pos;
    if (h2->scan_len || len - pos < HEAD_LEN) {
      /* A header in pieces is kept until it is whole: nghttp2 before 1.70
         counts each piece of one as another CONTINUATION. */
      rv = feed(h2, data + start, pos - start);
      if (rv != 0) {
        return rv;
      }
      n = HEAD_LEN - h2->scan_len;
      if (n > len - pos) {
        n = len - pos;
      }
      memcpy(h2->scan_head + h2->scan_len, head, n);
      h2->scan_len += n;
      pos += n;
      start = pos;
      if (h2->scan_len < HEAD_LEN) {
        return 0;
      }
      head = h2->scan_head;
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
    h2->scan_left = get32(head) >> 8;
    if (h2->scan_len) {
      h2->scan_len = 0;
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
