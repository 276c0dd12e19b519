/*
 * ngp_qpack: owner of libnghttp3's QPACK coder (RFC 9204).
 * SPDX-License-Identifier: MIT
 *
 * An encoder turns field lists into encoded field sections and encoder
 * stream bytes; a decoder does the reverse and writes decoder stream bytes.
 * Neither knows frames, streams or messages.
 */
#ifndef NGP_QPACK_H
#define NGP_QPACK_H

#include <nghttp3/nghttp3.h>

#include "ngp.h"

/*
 * libnghttp3's codes overlap with libnghttp2's internal ones, so they never
 * leave ngp_qpack.c; these replace them.
 */
typedef enum ngp_qpack_error {
  /* An encoded field section is malformed (RFC 9204, 2.2). */
  NGP_QPACK_ERR_DECOMPRESSION_FAILED = -2101,
  /* The peer's encoder stream is malformed. */
  NGP_QPACK_ERR_ENCODER_STREAM = -2102,
  /* The peer's decoder stream is malformed. */
  NGP_QPACK_ERR_DECODER_STREAM = -2103,
  /* The field section refers to entries that have not arrived yet. */
  NGP_QPACK_ERR_BLOCKED = -2104,
  /* A field section, or a single field, is larger than its bound. */
  NGP_QPACK_ERR_TOO_LARGE = -2105,
  /* The section has more fields than is allowed. */
  NGP_QPACK_ERR_TOO_MANY = -2106
} ngp_qpack_error;

const char *ngp_qpack_strerror(int code);

/*
 * ngp_qpack_fields is a list of decoded fields.  Each holds one reference to
 * its name and one to its value; ngp_qpack_fields_clear() drops them.
 */
typedef struct ngp_qpack_fields {
  nghttp3_qpack_nv *nv;
  size_t len;
  size_t cap;
  nghttp2_mem *mem;
} ngp_qpack_fields;

void ngp_qpack_fields_init(ngp_qpack_fields *fields, nghttp2_mem *mem);
void ngp_qpack_fields_free(ngp_qpack_fields *fields);

/*
 * ngp_qpack_fields_clear drops the fields from index |from| on.
 */
void ngp_qpack_fields_clear(ngp_qpack_fields *fields, size_t from);

/* In the flags of a decoded field: its name and its value are the buffers of a
   table entry, which come with the same addresses each time.  libnghttp3 uses
   the low bits. */
#define NGP_QPACK_FLAG_ENTRY 0x80u

/* How many entries a decoder keeps in ngp_qpack_pairs, in two slots for each
   hash, and how many bytes the name and the value of one may have together.  A
   buffer of libnghttp3 has twice the size of its Huffman code, which has up to
   28 bits for an octet that a value may have: a peer can make a connection keep
   about 230 KiB, and 70 KiB of objects, that its table no longer has. */
#define NGP_QPACK_PAIRS 128
#define NGP_QPACK_MAX_PAIR 256

/*
 * ngp_qpack_pair is an entry that field sections have named, and what is known
 * of it.  While it holds both buffers, no other entry can have their addresses.
 */
typedef struct ngp_qpack_pair {
  nghttp3_rcbuf *name;  /* held */
  nghttp3_rcbuf *value; /* held */
  /* object is the caller's form of the field, which the caller owns. */
  void *object;
  /* If checked is nonzero, the characters of both are those of a field, and
     token is an ngp_token. */
  uint8_t checked;
  uint8_t token;
} ngp_qpack_pair;

typedef struct ngp_qpack_pairs {
  ngp_qpack_pair *slots; /* owned; NULL until there is a pair */
  nghttp2_mem *mem;
} ngp_qpack_pairs;

/*
 * ngp_qpack_pairs_find returns the pair of |nv|, or NULL.
 */
ngp_qpack_pair *ngp_qpack_pairs_find(const ngp_qpack_pairs *pairs,
                                     const nghttp3_qpack_nv *nv);

/*
 * ngp_qpack_pairs_keep adds |object|, the caller's form of |nv|, which has no
 * pair yet.  It returns an object that is not kept, or no longer, and that the
 * caller has to release: that of an older pair, |object| if |nv| is no entry or
 * too large or there is no memory, or NULL.
 */
void *ngp_qpack_pairs_keep(ngp_qpack_pairs *pairs, const nghttp3_qpack_nv *nv,
                           void *object);

/*
 * ngp_qpack_pairs_take removes a pair and returns its object, or NULL if there
 * are none.
 */
void *ngp_qpack_pairs_take(ngp_qpack_pairs *pairs);

/* How many sent fields the encoder remembers, and for how many sections:
   entries that repeat later than that would only evict entries that repeat
   sooner. */
#define NGP_QPACK_HISTORY 256
#define NGP_QPACK_RECENT 16

/*
 * ngp_qpack_encoder must not move in memory between _init and _free.
 */
typedef struct ngp_qpack_encoder {
  nghttp3_mem mem;
  nghttp3_qpack_encoder *coder; /* owned */
  nghttp3_buf prefix;           /* owned, as are the next two */
  nghttp3_buf section;
  nghttp3_buf stream;
  size_t max_capacity;
  /* Whether the peer's capacity is known, which is not 0. */
  int applied;
  /* The peer's QPACK_BLOCKED_STREAMS. */
  size_t blocked_streams;
  /* Fields that were sent, each in one of the two slots of its hash, and the
     number of the section. */
  struct {
    uint32_t hash;
    uint32_t section;
  } history[NGP_QPACK_HISTORY];
  uint32_t nsections;
} ngp_qpack_encoder;

/*
 * ngp_qpack_encoded is the result of one encoding.  All three are borrowed
 * from the encoder until its next call.  The encoded field section is |prefix|
 * followed by |section|; |stream| goes to the encoder stream, before it.
 */
typedef struct ngp_qpack_encoded {
  nghttp3_vec prefix;
  nghttp3_vec section;
  nghttp3_vec stream;
} ngp_qpack_encoded;

/*
 * ngp_qpack_encoder_init makes an encoder which never uses more than
 * |max_capacity| bytes of dynamic table, and none before
 * ngp_qpack_encoder_apply().  |mem| is borrowed until _free.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_qpack_encoder_init(ngp_qpack_encoder *encoder, size_t max_capacity,
                           nghttp2_mem *mem);

void ngp_qpack_encoder_free(ngp_qpack_encoder *encoder);

/* A peer's QPACK_MAX_TABLE_CAPACITY beyond which its table is not used: the
   encoder's index of entries has a quarter of that size, however few bytes of
   the table it uses.  Browsers have 65,536. */
#define NGP_QPACK_MAX_PEER_CAPACITY 65536u

/*
 * ngp_qpack_encoder_apply applies the peer's settings
 * QPACK_MAX_TABLE_CAPACITY and QPACK_BLOCKED_STREAMS (RFC 9204, 5).  The first
 * capacity counts for how sections name the entries that they need (RFC 9204,
 * 4.5.1.1); a later one, which no peer may send, can only limit the table's
 * size further.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_qpack_encoder_apply(ngp_qpack_encoder *encoder, uint64_t capacity,
                            uint64_t blocked_streams);

/*
 * ngp_qpack_encoder_encode encodes |nvlen| fields at |nva| for |stream_id|. It
 * sets the flags of |nva|, that is, which fields may enter the dynamic table
 * (RFC 9204, 7.1), and decides whether the stream may be blocked: it may if
 * half of its fields were sent recently. A field that comes with
 * NGHTTP3_NV_FLAG_NEVER_INDEX keeps this flag; the flags of others must be 0.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM, after which
 * the encoder must not be used.
 */
int ngp_qpack_encoder_encode(ngp_qpack_encoder *encoder, int64_t stream_id,
                             nghttp3_nv *nva, size_t nvlen,
                             ngp_qpack_encoded *pres);

/*
 * ngp_qpack_encoder_read_decoder processes |len| bytes of the peer's decoder
 * stream.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_QPACK_ERR_DECODER_STREAM
 *     The bytes are malformed, or acknowledge what was never sent.
 */
int ngp_qpack_encoder_read_decoder(ngp_qpack_encoder *encoder,
                                   const uint8_t *data, size_t len);

/*
 * ngp_qpack_decoder must not move in memory between _init and _free, and must
 * outlive every ngp_qpack_fields that it filled.  Before _free the caller takes
 * the objects of |pairs|.
 */
typedef struct ngp_qpack_decoder {
  nghttp3_mem mem;
  nghttp3_qpack_decoder *coder; /* owned */
  ngp_qpack_pairs pairs;
} ngp_qpack_decoder;

/*
 * ngp_qpack_decoder_init makes a decoder with a dynamic table of |capacity|
 * bytes at most.  The table has that capacity from the start: an encoder that
 * inserts without a Set Dynamic Table Capacity instruction is accepted, as
 * ls-qpack's decoder does.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_qpack_decoder_init(ngp_qpack_decoder *decoder, size_t capacity,
                           size_t blocked_streams, nghttp2_mem *mem);

void ngp_qpack_decoder_free(ngp_qpack_decoder *decoder);

/*
 * ngp_qpack_decoder_read_encoder processes |len| bytes of the peer's encoder
 * stream.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_QPACK_ERR_ENCODER_STREAM
 *     The bytes are malformed.
 */
int ngp_qpack_decoder_read_encoder(ngp_qpack_decoder *decoder,
                                   const uint8_t *data, size_t len);

/*
 * ngp_qpack_decoder_insert_count returns how many entries have been inserted
 * by the peer's encoder stream.
 */
uint64_t ngp_qpack_decoder_insert_count(const ngp_qpack_decoder *decoder);

/*
 * ngp_qpack_decoder_decode decodes the whole field section of |len| bytes at
 * |data| and appends its fields to |fields|.  |max_size| bounds the sum of
 * name length, value length and 32 over all fields (RFC 9114, 4.2.2),
 * |max_count| their number.
 *
 * This function returns 0 if it succeeds.  Otherwise it returns one of the
 * following negative error codes, and |fields| is unchanged:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_QPACK_ERR_BLOCKED
 *     Entries are missing.  |*prequired| is the insert count from which on the
 *     same call succeeds; no state of this call is kept.
 * NGP_QPACK_ERR_DECOMPRESSION_FAILED
 *     The section is malformed.
 * NGP_QPACK_ERR_TOO_LARGE
 *     The section is larger than |max_size|, or one of its fields is larger
 *     than libnghttp3 accepts.
 * NGP_QPACK_ERR_TOO_MANY
 *     There are more than |max_count| fields.
 */
int ngp_qpack_decoder_decode(ngp_qpack_decoder *decoder, int64_t stream_id,
                             const uint8_t *data, size_t len, uint64_t max_size,
                             size_t max_count, ngp_qpack_fields *fields,
                             uint64_t *prequired);

/*
 * ngp_qpack_decoder_cancel writes Stream Cancellation for |stream_id| (RFC
 * 9204, 2.2.2.2).
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_qpack_decoder_cancel(ngp_qpack_decoder *decoder, int64_t stream_id);

/*
 * ngp_qpack_decoder_pending and ngp_qpack_decoder_take must be called after
 * each of the above: libnghttp3 buffers some hundred bytes, and fails when
 * there are more.
 *
 * ngp_qpack_decoder_pending returns how many decoder stream bytes are pending.
 */
size_t ngp_qpack_decoder_pending(const ngp_qpack_decoder *decoder);

/*
 * ngp_qpack_decoder_take appends the pending decoder stream bytes to |out|.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_qpack_decoder_take(ngp_qpack_decoder *decoder, ngp_buf *out);

#endif /* NGP_QPACK_H */
