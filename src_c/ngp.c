/* SPDX-License-Identifier: MIT */
#include "ngp.h"

#include <stdlib.h>
#include <string.h>

const char *ngp_strerror(int code) {
  switch (code) {
  case NGP_ERR_CONNECTION_CLOSED:
    return "The connection is closed";
  case NGP_ERR_BAD_HEADERS:
    return "A header field must not be sent";
  case NGP_ERR_BODY_FULL:
    return "The body queue is full";
  case NGP_ERR_HEADER_LIST_TOO_LARGE:
    return "The header list is too large";
  case NGP_ERR_BODY_LENGTH:
    return "The body differs from its content-length";
  default:
    return nghttp2_strerror(code);
  }
}

const ngp_feature *ngp_features(void) {
  static const ngp_feature features[] = {
#ifdef NGP_HAVE_OPTION_SET_STREAM_RESET_RATE_LIMIT
      {"stream_reset_rate_limit", 1},
#else
      {"stream_reset_rate_limit", 0},
#endif
#ifdef NGP_HAVE_OPTION_SET_MAX_CONTINUATIONS
      {"max_continuations", 1},
#else
      {"max_continuations", 0},
#endif
#ifdef NGP_HAVE_OPTION_SET_GLITCH_RATE_LIMIT
      {"glitch_rate_limit", 1},
#else
      {"glitch_rate_limit", 0},
#endif
#ifdef NGP_HAVE_OPTION_SET_MAX_OUTBOUND_QUEUE_SIZE
      {"max_outbound_queue_size", 1},
#else
      {"max_outbound_queue_size", 0},
#endif
#ifdef NGP_HAVE_SESSION_GET_EXTPRI_STREAM_PRIORITY
      {"extensible_priorities", 1},
#else
      {"extensible_priorities", 0},
#endif
#ifdef NGP_HAVE_HTTP3
      {"http3", 1},
#else
      {"http3", 0},
#endif
#ifdef NGP_HAVE_QUIC
      {"quic", 1},
#else
      {"quic", 0},
#endif
      {NULL, 0},
  };

  return features;
}

const ngp_feature *ngp_built_in(void) {
  static const ngp_feature libraries[] = {
#ifdef NGP_BUILT_IN_NGHTTP2
      {"nghttp2", 1},
#else
      {"nghttp2", 0},
#endif
#ifdef NGP_BUILT_IN_NGHTTP3
      {"nghttp3", 1},
#else
      {"nghttp3", 0},
#endif
#ifdef NGP_BUILT_IN_NGTCP2
      {"ngtcp2", 1},
#else
      {"ngtcp2", 0},
#endif
      {NULL, 0},
  };

  return libraries;
}

void *ngp_malloc(nghttp2_mem *mem, size_t size) {
  return mem ? mem->malloc(size, mem->mem_user_data) : malloc(size);
}

void *ngp_calloc(nghttp2_mem *mem, size_t n, size_t size) {
  return mem ? mem->calloc(n, size, mem->mem_user_data) : calloc(n, size);
}

void *ngp_realloc(nghttp2_mem *mem, void *ptr, size_t size) {
  return mem ? mem->realloc(ptr, size, mem->mem_user_data) : realloc(ptr, size);
}

void ngp_free(nghttp2_mem *mem, void *ptr) {
  if (mem) {
    mem->free(ptr, mem->mem_user_data);
  } else {
    free(ptr);
  }
}

void ngp_buf_init(ngp_buf *buf, nghttp2_mem *mem) {
  *buf = (ngp_buf){.mem = mem};
}

void ngp_buf_free(ngp_buf *buf) {
  ngp_free(buf->mem, buf->base);
  buf->base = NULL;
  buf->len = buf->cap = 0;
}

int ngp_buf_reserve(ngp_buf *buf, size_t n) {
  size_t cap = buf->cap ? buf->cap : 512;
  uint8_t *base;

  if (n <= buf->cap - buf->len) {
    return 0;
  }
  if (n > SIZE_MAX / 2 - buf->len) {
    return NGHTTP2_ERR_NOMEM;
  }
  while (cap < buf->len + n) {
    cap *= 2;
  }
  base = ngp_realloc(buf->mem, buf->base, cap);
  if (!base) {
    return NGHTTP2_ERR_NOMEM;
  }
  buf->base = base;
  buf->cap = cap;
  return 0;
}

int ngp_buf_add(ngp_buf *buf, const void *data, size_t n) {
  int rv = ngp_buf_reserve(buf, n);

  if (rv != 0) {
    return rv;
  }
  if (n) {
    memcpy(buf->base + buf->len, data, n);
    buf->len += n;
  }
  return 0;
}

void ngp_buf_clear(ngp_buf *buf, size_t keep) {
  if (buf->cap > keep) {
    ngp_buf_free(buf);
  } else {
    buf->len = 0;
  }
}

size_t ngp_put_varint(uint8_t *dest, uint64_t value) {
  size_t n, i;

  if (value < 0x40) {
    dest[0] = (uint8_t)value;
    return 1;
  }
  n = value < 0x4000 ? 2 : value < 0x40000000 ? 4 : 8;
  for (i = n; i > 0; --i) {
    dest[i - 1] = (uint8_t)value;
    value >>= 8;
  }
  dest[0] |= (uint8_t)(n == 2 ? 0x40 : n == 4 ? 0x80 : 0xc0);
  return n;
}

size_t ngp_get_varint(const uint8_t *src, size_t len, uint64_t *pvalue) {
  size_t n, i;
  uint64_t value;

  if (len == 0) {
    return 0;
  }
  n = (size_t)1 << (src[0] >> 6);
  if (len < n) {
    return 0;
  }
  value = src[0] & 0x3f;
  for (i = 1; i < n; ++i) {
    value = value << 8 | src[i];
  }
  *pvalue = value;
  return n;
}

int ngp_equal_caseless(const void *a, size_t alen, const void *b, size_t blen) {
  const uint8_t *p = a, *q = b;
  size_t i;

  if (alen != blen) {
    return 0;
  }
  for (i = 0; i < alen; ++i) {
    if (ngp_lower(p[i]) != ngp_lower(q[i])) {
      return 0;
    }
  }
  return 1;
}
