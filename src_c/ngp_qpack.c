/* SPDX-License-Identifier: MIT */
#include "ngp_qpack.h"

#include <string.h>

/*
 * Each field counts 32 bytes more against the size bound, so the list of fields
 * is bounded as well.
 */
#define FIELD_OVERHEAD 32

/*
 * An attacker who sees sizes can guess a cookie shorter than this (RFC 9204,
 * 7.1.2), so it is never indexed. libnghttp2 has the same bound for HPACK.
 */
#define SHORT_COOKIE 20

const char *ngp_qpack_strerror(int code) {
  switch (code) {
  case NGP_QPACK_ERR_DECOMPRESSION_FAILED:
    return "The encoded field section is malformed";
  case NGP_QPACK_ERR_ENCODER_STREAM:
    return "The encoder stream is malformed";
  case NGP_QPACK_ERR_DECODER_STREAM:
    return "The decoder stream is malformed";
  case NGP_QPACK_ERR_BLOCKED:
    return "The field section is blocked";
  case NGP_QPACK_ERR_TOO_LARGE:
    return "The field section is too large";
  case NGP_QPACK_ERR_TOO_MANY:
    return "The field section has too many fields";
  default:
    return ngp_strerror(code);
  }
}

/*
 * Returns libnghttp3's form of |mem|, which has the same members under other
 * names.
 */
static nghttp3_mem convert_mem(nghttp2_mem *mem) {
  if (!mem) {
    return *nghttp3_mem_default();
  }
  return (nghttp3_mem){
      .user_data = mem->mem_user_data,
      .malloc = mem->malloc,
      .free = mem->free,
      .calloc = mem->calloc,
      .realloc = mem->realloc,
  };
}

void ngp_qpack_fields_init(ngp_qpack_fields *fields, nghttp2_mem *mem) {
  *fields = (ngp_qpack_fields){.mem = mem};
}

void ngp_qpack_fields_clear(ngp_qpack_fields *fields, size_t from) {
  while (fields->len > from) {
    nghttp3_qpack_nv *nv = &fields->nv[--fields->len];

    nghttp3_rcbuf_decref(nv->name);
    nghttp3_rcbuf_decref(nv->value);
  }
}

void ngp_qpack_fields_free(ngp_qpack_fields *fields) {
  ngp_qpack_fields_clear(fields, 0);
  ngp_free(fields->mem, fields->nv);
  fields->nv = NULL;
  fields->cap = 0;
}

/* Takes the references of |nv|, even if it fails. */
static int fields_add(ngp_qpack_fields *fields, const nghttp3_qpack_nv *nv) {
  if (fields->len == fields->cap) {
    size_t cap = fields->cap ? 2 * fields->cap : 16;
    nghttp3_qpack_nv *p =
        ngp_realloc(fields->mem, fields->nv, cap * sizeof(*p));

    if (!p) {
      nghttp3_rcbuf_decref(nv->name);
      nghttp3_rcbuf_decref(nv->value);
      return NGHTTP2_ERR_NOMEM;
    }
    fields->nv = p;
    fields->cap = cap;
  }
  fields->nv[fields->len++] = *nv;
  return 0;
}

/* ---- Pairs ---- */

/* Returns the first of the two slots of a field. */
static size_t first_slot(const nghttp3_qpack_nv *nv) {
  /* Fibonacci hashing: the upper bits of the product depend on all others. */
  uint64_t hash = ((uint64_t)(uintptr_t)nv->name * 3 + (uintptr_t)nv->value) *
                  0x9e3779b97f4a7c15u;

  return (size_t)((hash >> 32) % (NGP_QPACK_PAIRS / 2) * 2);
}

static int is_pair(const ngp_qpack_pair *pair, const nghttp3_qpack_nv *nv) {
  return pair->name == nv->name && pair->value == nv->value;
}

ngp_qpack_pair *ngp_qpack_pairs_find(const ngp_qpack_pairs *pairs,
                                     const nghttp3_qpack_nv *nv) {
  ngp_qpack_pair *pair;

  if (!(nv->flags & NGP_QPACK_FLAG_ENTRY) || !pairs->slots) {
    return NULL;
  }
  pair = &pairs->slots[first_slot(nv)];
  return is_pair(pair, nv) ? pair : is_pair(pair + 1, nv) ? pair + 1 : NULL;
}

/* Empties |pair| and returns its object. */
static void *drop_pair(ngp_qpack_pair *pair) {
  void *object = pair->object;

  if (object) {
    nghttp3_rcbuf_decref(pair->name);
    nghttp3_rcbuf_decref(pair->value);
    *pair = (ngp_qpack_pair){.object = NULL};
  }
  return object;
}

void *ngp_qpack_pairs_keep(ngp_qpack_pairs *pairs, const nghttp3_qpack_nv *nv,
                           void *object) {
  ngp_qpack_pair *pair;
  void *dropped;

  if (!(nv->flags & NGP_QPACK_FLAG_ENTRY) ||
      nghttp3_rcbuf_get_buf(nv->name).len +
              nghttp3_rcbuf_get_buf(nv->value).len >
          NGP_QPACK_MAX_PAIR) {
    return object;
  }
  if (!pairs->slots) {
    pairs->slots =
        ngp_calloc(pairs->mem, NGP_QPACK_PAIRS, sizeof(*pairs->slots));
    if (!pairs->slots) {
      return object;
    }
  }
  pair = &pairs->slots[first_slot(nv)];
  /* The older of both is in the second slot, and leaves. */
  dropped = drop_pair(pair + 1);
  pair[1] = pair[0];
  nghttp3_rcbuf_incref(nv->name);
  nghttp3_rcbuf_incref(nv->value);
  *pair =
      (ngp_qpack_pair){.name = nv->name, .value = nv->value, .object = object};
  return dropped;
}

void *ngp_qpack_pairs_take(ngp_qpack_pairs *pairs) {
  size_t i;

  for (i = 0; pairs->slots && i < NGP_QPACK_PAIRS; ++i) {
    if (pairs->slots[i].object) {
      return drop_pair(&pairs->slots[i]);
    }
  }
  return NULL;
}

static void pairs_free(ngp_qpack_pairs *pairs) {
  while (ngp_qpack_pairs_take(pairs)) {
  }
  ngp_free(pairs->mem, pairs->slots);
  pairs->slots = NULL;
}

/* ---- The encoder ---- */

int ngp_qpack_encoder_init(ngp_qpack_encoder *encoder, size_t max_capacity,
                           nghttp2_mem *mem) {
  *encoder = (ngp_qpack_encoder){.mem = convert_mem(mem),
                                 .max_capacity = max_capacity};
  nghttp3_buf_init(&encoder->prefix);
  nghttp3_buf_init(&encoder->section);
  nghttp3_buf_init(&encoder->stream);
  if (nghttp3_qpack_encoder_new(&encoder->coder, max_capacity, &encoder->mem) !=
      0) {
    return NGHTTP2_ERR_NOMEM;
  }
  return 0;
}

void ngp_qpack_encoder_free(ngp_qpack_encoder *encoder) {
  if (!encoder->coder) {
    return;
  }
  nghttp3_qpack_encoder_del(encoder->coder);
  nghttp3_buf_free(&encoder->prefix, &encoder->mem);
  nghttp3_buf_free(&encoder->section, &encoder->mem);
  nghttp3_buf_free(&encoder->stream, &encoder->mem);
  encoder->coder = NULL;
}

int ngp_qpack_encoder_apply(ngp_qpack_encoder *encoder, uint64_t capacity,
                            uint64_t blocked_streams) {
  nghttp3_qpack_encoder *coder;

  /* libnghttp3 takes the capacity given to _new for that of the peer, which the
     Required Insert Count depends on.  Nothing refers to the first coder: it
     had no table. */
  if (!encoder->applied && capacity) {
    if (capacity > NGP_QPACK_MAX_PEER_CAPACITY) {
      encoder->max_capacity = 0;
    } else if (nghttp3_qpack_encoder_new(&coder, (size_t)capacity,
                                         &encoder->mem) != 0) {
      return NGHTTP2_ERR_NOMEM;
    } else {
      nghttp3_qpack_encoder_del(encoder->coder);
      encoder->coder = coder;
    }
    encoder->applied = 1;
  }
  nghttp3_qpack_encoder_set_max_dtable_capacity(
      encoder->coder, capacity < encoder->max_capacity ? (size_t)capacity
                                                       : encoder->max_capacity);
  encoder->blocked_streams =
      blocked_streams > 65535 ? 65535 : (size_t)blocked_streams;
  return 0;
}

static int name_is(const nghttp3_nv *nv, const char *name, size_t len) {
  return nv->namelen == len && memcmp(nv->name, name, len) == 0;
}

/* Continues a hash over |len| bytes, eight at a time. */
static uint64_t hash_bytes(uint64_t hash, const uint8_t *data, size_t len) {
  uint64_t word;

  for (; len >= sizeof(word); data += sizeof(word), len -= sizeof(word)) {
    memcpy(&word, data, sizeof(word));
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  }
  if (len) {
    word = 0;
    memcpy(&word, data, len);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  }
  return hash;
}

/* Nonzero if the field was sent recently.  Notes that it is sent now. */
static int seen_lately(ngp_qpack_encoder *encoder, const nghttp3_nv *nv) {
  /* The ends of a long value are enough: a collision costs only an entry. */
  size_t head = nv->valuelen < 32 ? nv->valuelen : 32;
  size_t tail = nv->valuelen - head < 32 ? nv->valuelen - head : 32;
  uint64_t hash = nv->namelen << 16 ^ nv->valuelen;
  uint32_t tag;
  size_t i;
  int seen;

  hash = hash_bytes(hash, nv->name, nv->namelen);
  hash = hash_bytes(hash, nv->value, head);
  hash = hash_bytes(hash, nv->value + nv->valuelen - tail, tail);
  /* Multiplication mixes towards the upper bits. */
  tag = (uint32_t)(hash >> 24);
  i = (hash >> 56) % NGP_QPACK_HISTORY;
  if (encoder->history[i].hash != tag) {
    /* Each field has two slots, so that two repeated fields do not evict each
       other; the older one is replaced. */
    if (encoder->history[i ^ 1].hash == tag ||
        encoder->history[i ^ 1].section < encoder->history[i].section) {
      i ^= 1;
    }
  }
  seen = encoder->history[i].hash == tag &&
         encoder->nsections - encoder->history[i].section <= NGP_QPACK_RECENT;
  encoder->history[i].hash = tag;
  encoder->history[i].section = encoder->nsections;
  return seen;
}

/*
 * Decides which fields may enter the dynamic table. libnghttp3 by itself would
 * leave out every unknown name, but these repeat most; a field that was sent
 * once may never be sent again.
 */
static uint8_t index_flags(const nghttp3_nv *nv, int seen) {
  if (nv->flags & NGHTTP3_NV_FLAG_NEVER_INDEX) {
    return NGHTTP3_NV_FLAG_NEVER_INDEX;
  }
  switch (nv->namelen) {
  case 6:
    if (name_is(nv, "cookie", 6) && nv->valuelen < SHORT_COOKIE) {
      return NGHTTP3_NV_FLAG_NEVER_INDEX;
    }
    break;
  case 13:
    if (name_is(nv, "authorization", 13)) {
      return NGHTTP3_NV_FLAG_NEVER_INDEX;
    }
    break;
  case 14:
    /* Its values rarely repeat: each would evict an entry that does. */
    if (name_is(nv, "content-length", 14)) {
      return NGHTTP3_NV_FLAG_NONE;
    }
    break;
  case 19:
    if (name_is(nv, "proxy-authorization", 19)) {
      return NGHTTP3_NV_FLAG_NEVER_INDEX;
    }
    break;
  }
  return seen ? NGHTTP3_NV_FLAG_TRY_INDEX : NGHTTP3_NV_FLAG_NONE;
}

static nghttp3_vec vec_of(const nghttp3_buf *buf) {
  return (nghttp3_vec){.base = buf->pos, .len = nghttp3_buf_len(buf)};
}

int ngp_qpack_encoder_encode(ngp_qpack_encoder *encoder, int64_t stream_id,
                             nghttp3_nv *nva, size_t nvlen,
                             ngp_qpack_encoded *pres) {
  size_t i, repeated = 0;

  ++encoder->nsections;
  for (i = 0; i < nvlen; ++i) {
    int seen = seen_lately(encoder, &nva[i]);

    repeated += (size_t)seen;
    nva[i].flags = index_flags(&nva[i], seen);
  }
  /* A section that refers to entries that the peer may not have yet is blocked
     if the encoder stream is delayed.  That pays off for fields that repeat;
     the first sections of a connection do not risk it. */
  nghttp3_qpack_encoder_set_max_blocked_streams(
      encoder->coder, 2 * repeated >= nvlen ? encoder->blocked_streams : 0);
  nghttp3_buf_reset(&encoder->prefix);
  nghttp3_buf_reset(&encoder->section);
  nghttp3_buf_reset(&encoder->stream);
  /* It fails only for want of memory: QPACK_FATAL follows such a failure. */
  if (nghttp3_qpack_encoder_encode(encoder->coder, &encoder->prefix,
                                   &encoder->section, &encoder->stream,
                                   stream_id, nva, nvlen) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  *pres = (ngp_qpack_encoded){
      .prefix = vec_of(&encoder->prefix),
      .section = vec_of(&encoder->section),
      .stream = vec_of(&encoder->stream),
  };
  return 0;
}

int ngp_qpack_encoder_read_decoder(ngp_qpack_encoder *encoder,
                                   const uint8_t *data, size_t len) {
  nghttp3_ssize n =
      nghttp3_qpack_encoder_read_decoder(encoder->coder, data, len);

  if (n < 0) {
    return n == NGHTTP3_ERR_NOMEM ? NGHTTP2_ERR_NOMEM
                                  : NGP_QPACK_ERR_DECODER_STREAM;
  }
  return 0;
}

/* ---- The decoder ---- */

int ngp_qpack_decoder_init(ngp_qpack_decoder *decoder, size_t capacity,
                           size_t blocked_streams, nghttp2_mem *mem) {
  *decoder = (ngp_qpack_decoder){.mem = convert_mem(mem), .pairs.mem = mem};
  if (nghttp3_qpack_decoder_new(&decoder->coder, capacity, blocked_streams,
                                &decoder->mem) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  /* It fails only for a capacity above the one given to _new. */
  nghttp3_qpack_decoder_set_max_dtable_capacity(decoder->coder, capacity);
  return 0;
}

void ngp_qpack_decoder_free(ngp_qpack_decoder *decoder) {
  if (!decoder->coder) {
    return;
  }
  pairs_free(&decoder->pairs);
  nghttp3_qpack_decoder_del(decoder->coder);
  decoder->coder = NULL;
}

int ngp_qpack_decoder_read_encoder(ngp_qpack_decoder *decoder,
                                   const uint8_t *data, size_t len) {
  nghttp3_ssize n =
      nghttp3_qpack_decoder_read_encoder(decoder->coder, data, len);

  if (n < 0) {
    return n == NGHTTP3_ERR_NOMEM ? NGHTTP2_ERR_NOMEM
                                  : NGP_QPACK_ERR_ENCODER_STREAM;
  }
  return 0;
}

uint64_t ngp_qpack_decoder_insert_count(const ngp_qpack_decoder *decoder) {
  return nghttp3_qpack_decoder_get_icnt(decoder->coder);
}

static int decode_error(nghttp3_ssize rv) {
  switch (rv) {
  case NGHTTP3_ERR_NOMEM:
    return NGHTTP2_ERR_NOMEM;
  case NGHTTP3_ERR_QPACK_HEADER_TOO_LARGE:
    return NGP_QPACK_ERR_TOO_LARGE;
  default:
    return NGP_QPACK_ERR_DECOMPRESSION_FAILED;
  }
}

/* Nonzero if a field line that begins with |octet| is the index of an entry
   (RFC 9204, 4.5.2 and 4.5.3). */
static int is_index(uint8_t octet) {
  return (octet & 0x80) != 0 || (octet & 0xf0) == 0x10;
}

/* Returns how many bytes an integer has whose prefix is the bits of |mask| (RFC
   7541, 5.1). */
static size_t integer_len(const uint8_t *data, size_t len, uint8_t mask) {
  size_t n = 1;

  if (!len || (data[0] & mask) != mask) {
    return len ? 1 : 0;
  }
  while (n < len && data[n++] & 0x80) {
  }
  return n;
}

/* Returns the length of a section's prefix, which is before its first field
   line (RFC 9204, 4.5.1). */
static size_t prefix_len(const uint8_t *data, size_t len) {
  size_t n = integer_len(data, len, 0xff);

  return n + integer_len(data + n, len - n, 0x7f);
}

static int decode_section(ngp_qpack_decoder *decoder,
                          nghttp3_qpack_stream_context *sctx,
                          const uint8_t *data, size_t len, uint64_t max_size,
                          size_t max_count, ngp_qpack_fields *fields,
                          uint64_t *prequired) {
  const size_t before = fields->len;
  nghttp3_qpack_nv nv;
  uint64_t size = 0;
  uint8_t flags;
  nghttp3_ssize n;
  size_t skipped = prefix_len(data, len);
  int indexed;
  int rv;

  for (;;) {
    /* Each call returns one field. */
    indexed = skipped < len && is_index(data[skipped]);
    skipped = 0;
    n = nghttp3_qpack_decoder_read_request(decoder->coder, sctx, &nv, &flags,
                                           data, len, 1);
    if (n < 0) {
      return decode_error(n);
    }
    data += n;
    len -= (size_t)n;
    if (flags & NGHTTP3_QPACK_DECODE_FLAG_BLOCKED) {
      *prequired = nghttp3_qpack_stream_context_get_ricnt(sctx);
      return NGP_QPACK_ERR_BLOCKED;
    }
    if (flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT) {
      if (indexed) {
        nv.flags |= NGP_QPACK_FLAG_ENTRY;
      }
      rv = fields_add(fields, &nv);
      if (rv != 0) {
        return rv;
      }
      size += nghttp3_rcbuf_get_buf(nv.name).len +
              nghttp3_rcbuf_get_buf(nv.value).len + FIELD_OVERHEAD;
      if (size > max_size) {
        return NGP_QPACK_ERR_TOO_LARGE;
      }
      if (fields->len - before > max_count) {
        return NGP_QPACK_ERR_TOO_MANY;
      }
    }
    if (flags & NGHTTP3_QPACK_DECODE_FLAG_FINAL) {
      return 0;
    }
    if (n == 0 && !(flags & NGHTTP3_QPACK_DECODE_FLAG_EMIT)) {
      /* The section ends inside its last field. */
      return NGP_QPACK_ERR_DECOMPRESSION_FAILED;
    }
  }
}

int ngp_qpack_decoder_decode(ngp_qpack_decoder *decoder, int64_t stream_id,
                             const uint8_t *data, size_t len, uint64_t max_size,
                             size_t max_count, ngp_qpack_fields *fields,
                             uint64_t *prequired) {
  nghttp3_qpack_stream_context *sctx;
  size_t before = fields->len;
  int rv;

  if (nghttp3_qpack_stream_context_new(&sctx, stream_id, &decoder->mem) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  rv = decode_section(decoder, sctx, data, len, max_size, max_count, fields,
                      prequired);
  nghttp3_qpack_stream_context_del(sctx);
  if (rv != 0) {
    ngp_qpack_fields_clear(fields, before);
  }
  return rv;
}

int ngp_qpack_decoder_cancel(ngp_qpack_decoder *decoder, int64_t stream_id) {
  /* QPACK_FATAL means that too much of the decoder stream was not fetched. */
  return nghttp3_qpack_decoder_cancel_stream(decoder->coder, stream_id) == 0
             ? 0
             : NGHTTP2_ERR_NOMEM;
}

size_t ngp_qpack_decoder_pending(const ngp_qpack_decoder *decoder) {
  return nghttp3_qpack_decoder_get_decoder_streamlen(decoder->coder);
}

int ngp_qpack_decoder_take(ngp_qpack_decoder *decoder, ngp_buf *out) {
  size_t n = ngp_qpack_decoder_pending(decoder);
  nghttp3_buf buf;
  int rv;

  if (n == 0) {
    return 0;
  }
  rv = ngp_buf_reserve(out, n);
  if (rv != 0) {
    return rv;
  }
  buf = (nghttp3_buf){
      .begin = out->base + out->len,
      .end = out->base + out->len + n,
      .pos = out->base + out->len,
      .last = out->base + out->len,
  };
  nghttp3_qpack_decoder_write_decoder(decoder->coder, &buf);
  out->len += nghttp3_buf_len(&buf);
  return 0;
}
