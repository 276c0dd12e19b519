/*
 * ngp: the layer of nghttp2py between the nghttp2 family of C libraries and
 * Python.  SPDX-License-Identifier: MIT
 *
 * This header has what all parts share: error codes, the compatibility names
 * for older libnghttp2, the byte buffer, variable-length integers, caseless
 * comparison, and the meaning of words.
 *
 * Words with a fixed meaning in all comments: a function *takes* an object if
 * ownership moves into it; it *holds* an object until it gives it back; it
 * *borrows* an object until the moment that the comment names. |name| is a
 * parameter.
 *
 * Nothing here includes Python.h, opens a socket or reads a clock.
 */
#ifndef NGP_H
#define NGP_H

#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

/*
 * libnghttp2 1.60 renamed the functions that return ssize_t.  On every platform
 * that we build for, ssize_t and ptrdiff_t have the same width, so the
 * functions of older libraries can be called by the new names.
 */
#if NGHTTP2_VERSION_NUM < 0x013c00
typedef ssize_t nghttp2_ssize;
#  define nghttp2_data_provider2 nghttp2_data_provider
#  define nghttp2_data_source_read_callback2 nghttp2_data_source_read_callback
#  define nghttp2_hd_deflate_hd2 nghttp2_hd_deflate_hd
#  define nghttp2_hd_deflate_hd_vec2 nghttp2_hd_deflate_hd_vec
#  define nghttp2_hd_inflate_hd3 nghttp2_hd_inflate_hd2
#  define nghttp2_pack_settings_payload2 nghttp2_pack_settings_payload
#  define nghttp2_session_callbacks_set_data_source_read_length_callback2      \
    nghttp2_session_callbacks_set_data_source_read_length_callback
#  define nghttp2_session_callbacks_set_pack_extension_callback2               \
    nghttp2_session_callbacks_set_pack_extension_callback
#  define nghttp2_session_callbacks_set_select_padding_callback2               \
    nghttp2_session_callbacks_set_select_padding_callback
#  define nghttp2_session_mem_recv2 nghttp2_session_mem_recv
#  define nghttp2_session_mem_send2 nghttp2_session_mem_send
#  define nghttp2_submit_data2 nghttp2_submit_data
#  define nghttp2_submit_request2 nghttp2_submit_request
#  define nghttp2_submit_response2 nghttp2_submit_response
#endif

/*
 * Our error codes are below nghttp2's, so that one table serves both.
 */
typedef enum ngp_error {
  /* The connection accepts no more calls: it is closed or was terminated. */
  NGP_ERR_CONNECTION_CLOSED = -2001,
  /* A header field, or the list of them, must not be sent. */
  NGP_ERR_BAD_HEADERS = -2002,
  /* The body queue of a stream is at its bound. */
  NGP_ERR_BODY_FULL = -2003,
  /* A decoded header list is larger than the bound set for it. */
  NGP_ERR_HEADER_LIST_TOO_LARGE = -2004,
  /* A body differs from its content-length. */
  NGP_ERR_BODY_LENGTH = -2005
} ngp_error;

/*
 * ngp_strerror returns the text for |code|, which is one of ours, one of
 * nghttp2's, or 0.  The string is static.
 */
const char *ngp_strerror(int code);

/*
 * ngp_feature is a feature that not every build has, a function of libnghttp2
 * or the libraries of HTTP/3 and QUIC, and whether this build has it.
 */
typedef struct ngp_feature {
  const char *name;
  int present;
} ngp_feature;

/*
 * ngp_features returns a static array that ends with a NULL name.
 */
const ngp_feature *ngp_features(void);

/*
 * ngp_built_in returns a static array that ends with a NULL name: nghttp2,
 * nghttp3 and ngtcp2, and of each whether its code is part of our libraries.
 */
const ngp_feature *ngp_built_in(void);

/*
 * ngp_buf is a growable run of bytes.  |mem| is borrowed for its whole life.
 */
typedef struct ngp_buf {
  uint8_t *base;
  size_t len;
  size_t cap;
  nghttp2_mem *mem;
} ngp_buf;

/*
 * ngp_buf_init makes |buf| empty.  |mem| is NULL for the C library's malloc.
 */
void ngp_buf_init(ngp_buf *buf, nghttp2_mem *mem);

void ngp_buf_free(ngp_buf *buf);

/*
 * ngp_buf_reserve makes room for |n| more bytes.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM, which leaves
 * |buf| unchanged.
 */
int ngp_buf_reserve(ngp_buf *buf, size_t n);

/*
 * ngp_buf_add appends |n| bytes at |data|, which must not lie in |buf|.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_buf_add(ngp_buf *buf, const void *data, size_t n);

/*
 * ngp_buf_clear empties |buf|, and frees its memory if that is larger than
 * |keep| bytes.
 */
void ngp_buf_clear(ngp_buf *buf, size_t keep);

/*
 * The allocator as functions: |mem| may be NULL for the C library's.
 */
void *ngp_malloc(nghttp2_mem *mem, size_t size);
void *ngp_calloc(nghttp2_mem *mem, size_t n, size_t size);
void *ngp_realloc(nghttp2_mem *mem, void *ptr, size_t size);
void ngp_free(nghttp2_mem *mem, void *ptr);

/*
 * ngp_refs counts the owners of an object.  They may be on several threads: a
 * connection is used by one thread at a time, but its events and its TLS
 * configuration may be used by others.
 */
typedef size_t ngp_refs;

static inline void ngp_refs_inc(ngp_refs *refs) {
  __atomic_fetch_add(refs, 1, __ATOMIC_RELAXED);
}

/* ngp_refs_dec returns how many owners are left.  All memory effects of the
   other owners are visible to the last one. */
static inline size_t ngp_refs_dec(ngp_refs *refs) {
  return __atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL);
}

/* ngp_refs_get is 1 only if the caller is the last owner. */
static inline size_t ngp_refs_get(const ngp_refs *refs) {
  return __atomic_load_n(refs, __ATOMIC_ACQUIRE);
}

/* The largest number that fits in a variable-length integer (RFC 9000, 16). */
#define NGP_MAX_VARINT ((1ull << 62) - 1)

/*
 * ngp_put_varint writes |value| to |dest|, which has room for 8 bytes, and
 * returns how many bytes it wrote.  |value| is at most NGP_MAX_VARINT.
 */
size_t ngp_put_varint(uint8_t *dest, uint64_t value);

/*
 * ngp_get_varint reads a variable-length integer from the |len| bytes at |src|
 * to |*pvalue|.  It returns how many bytes it read, or 0 if the integer is
 * truncated.
 */
size_t ngp_get_varint(const uint8_t *src, size_t len, uint64_t *pvalue);

/* ngp_lower returns |c|, in lower case if it is an ASCII letter. */
static inline uint8_t ngp_lower(uint8_t c) {
  return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/* ngp_equal_caseless is nonzero if two texts differ at most in the case of
   ASCII letters. */
int ngp_equal_caseless(const void *a, size_t alen, const void *b, size_t blen);

#endif /* NGP_H */
