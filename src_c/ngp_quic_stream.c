/* SPDX-License-Identifier: MIT */
#include "ngp_quic_stream.h"

#include <string.h>

#define FIRST_BUCKETS 16

/* Bytes up to this size are copied: a reference costs more. */
#define COPY_MAX 256

/* Copied bytes share blocks of this size. */
#define BLOCK_SIZE 1024

/* RFC 9218, 4.1. */
#define DEFAULT_URGENCY (3 + 1)

/*
 * block is a chunk with its own bytes.  They never move, because ngtcp2 points
 * to them.
 */
typedef struct block {
  ngp_chunk chunk;
  size_t cap;
  uint8_t data[];
} block;

void ngp_quic_streams_init(ngp_quic_streams *streams, nghttp2_mem *mem) {
  *streams = (ngp_quic_streams){.mem = mem};
}

static size_t bucket_of(const ngp_quic_streams *streams, int64_t id) {
  /* The two low bits are the type of the stream; consecutive ids are spread
     evenly over the buckets. */
  return (size_t)((uint64_t)id >> 2 ^ ((uint64_t)id & 3) << 3) &
         (streams->nbuckets - 1);
}

ngp_quic_stream *ngp_quic_stream_find(const ngp_quic_streams *streams,
                                      int64_t id) {
  ngp_quic_stream *stream;

  if (!streams->nbuckets) {
    return NULL;
  }
  stream = streams->buckets[bucket_of(streams, id)];
  while (stream && stream->id != id) {
    stream = stream->map_next;
  }
  return stream;
}

static void insert(ngp_quic_streams *streams, ngp_quic_stream *stream) {
  ngp_quic_stream **bucket = &streams->buckets[bucket_of(streams, stream->id)];

  stream->map_next = *bucket;
  *bucket = stream;
}

static int grow(ngp_quic_streams *streams) {
  size_t nold = streams->nbuckets;
  ngp_quic_stream **old = streams->buckets;
  size_t n = nold ? nold * 2 : FIRST_BUCKETS;
  ngp_quic_stream **buckets = ngp_calloc(streams->mem, n, sizeof(*buckets));
  size_t i;

  if (!buckets) {
    return NGHTTP2_ERR_NOMEM;
  }
  streams->buckets = buckets;
  streams->nbuckets = n;
  for (i = 0; i < nold; ++i) {
    ngp_quic_stream *stream = old[i];

    while (stream) {
      ngp_quic_stream *next = stream->map_next;

      insert(streams, stream);
      stream = next;
    }
  }
  ngp_free(streams->mem, old);
  return 0;
}

ngp_quic_stream *ngp_quic_stream_add(ngp_quic_streams *streams, int64_t id) {
  ngp_quic_stream *stream;

  if (streams->size >= streams->nbuckets && grow(streams) != 0) {
    return NULL;
  }
  stream = ngp_calloc(streams->mem, 1, sizeof(*stream));
  if (!stream) {
    return NULL;
  }
  stream->id = id;
  stream->urgency = DEFAULT_URGENCY;
  /* Streams without a priority share the connection. */
  stream->incremental = 1;
  insert(streams, stream);
  ++streams->size;
  return stream;
}

static void release(ngp_quic_streams *streams, ngp_chunk *chunk) {
  if (chunk->owner) {
    ngp_tray_add(&streams->tray, chunk);
  } else {
    ngp_free(streams->mem, chunk);
  }
}

void ngp_quic_stream_remove(ngp_quic_streams *streams,
                            ngp_quic_stream *stream) {
  ngp_quic_stream **link = &streams->buckets[bucket_of(streams, stream->id)];

  while (*link != stream) {
    link = &(*link)->map_next;
  }
  *link = stream->map_next;
  --streams->size;
  ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_NONE);
  streams->queued -= stream->queued - stream->acked;
  while (stream->head) {
    ngp_chunk *chunk = stream->head;

    stream->head = chunk->next;
    release(streams, chunk);
  }
  ngp_free(streams->mem, stream);
}

void ngp_quic_streams_free(ngp_quic_streams *streams) {
  size_t i;

  for (i = 0; i < streams->nbuckets; ++i) {
    while (streams->buckets[i]) {
      ngp_quic_stream_remove(streams, streams->buckets[i]);
    }
  }
  ngp_free(streams->mem, streams->buckets);
  streams->buckets = NULL;
  streams->nbuckets = 0;
}

/* ---- The queue ---- */

static void append(ngp_quic_stream *stream, ngp_chunk *chunk) {
  if (stream->tail) {
    stream->tail->next = chunk;
  } else {
    stream->head = chunk;
  }
  stream->tail = chunk;
  if (!stream->unsent) {
    stream->unsent = chunk;
    stream->unsent_pos = 0;
  }
}

/* Returns the block at the end of the queue, with room for |len| bytes. */
static block *get_block(ngp_quic_streams *streams, ngp_quic_stream *stream,
                        size_t len) {
  block *last = (block *)stream->tail;
  size_t cap = len < BLOCK_SIZE ? BLOCK_SIZE : len;

  if (last && !last->chunk.owner && last->cap - last->chunk.len >= len) {
    return last;
  }
  last = ngp_malloc(streams->mem, sizeof(*last) + cap);
  if (last) {
    last->chunk = (ngp_chunk){.base = last->data};
    last->cap = cap;
  }
  return last;
}

static void fill_block(ngp_quic_stream *stream, block *last,
                       const uint8_t *data, size_t len) {
  if (!len) {
    return;
  }
  memcpy(last->data + last->chunk.len, data, len);
  if ((ngp_chunk *)last != stream->tail) {
    append(stream, &last->chunk);
  } else if (!stream->unsent) {
    stream->unsent = &last->chunk;
    stream->unsent_pos = last->chunk.len;
  }
  last->chunk.len += len;
}

int ngp_quic_stream_queue(ngp_quic_streams *streams, ngp_quic_stream *stream,
                          const uint8_t *head, size_t head_len,
                          const uint8_t *data, size_t len, void *owner,
                          int *pheld) {
  int copied = len <= COPY_MAX || !owner;
  size_t in_block = head_len + (copied ? len : 0);
  ngp_chunk *chunk = NULL;
  block *last = NULL;

  *pheld = 0;
  if (!copied) {
    chunk = ngp_malloc(streams->mem, sizeof(*chunk));
    if (!chunk) {
      return NGHTTP2_ERR_NOMEM;
    }
    *chunk = (ngp_chunk){.base = data, .len = len, .owner = owner};
  }
  if (in_block) {
    last = get_block(streams, stream, in_block);
    if (!last) {
      ngp_free(streams->mem, chunk);
      return NGHTTP2_ERR_NOMEM;
    }
    fill_block(stream, last, head, head_len);
    fill_block(stream, last, data, in_block - head_len);
  }
  if (chunk) {
    append(stream, chunk);
    *pheld = 1;
  }
  stream->queued += head_len + len;
  streams->queued += head_len + len;
  return 0;
}

size_t ngp_quic_stream_peek(const ngp_quic_stream *stream, ngtcp2_vec *vec,
                            size_t nvec, size_t *plen) {
  const ngp_chunk *chunk = stream->unsent;
  size_t pos = stream->unsent_pos;
  size_t n = 0;

  *plen = 0;
  for (; chunk && n < nvec; chunk = chunk->next, pos = 0) {
    vec[n].base = (uint8_t *)chunk->base + pos;
    vec[n].len = chunk->len - pos;
    *plen += vec[n++].len;
  }
  return n;
}

void ngp_quic_stream_sent(ngp_quic_stream *stream, uint64_t n) {
  stream->sent += n;
  while (n) {
    uint64_t left = stream->unsent->len - stream->unsent_pos;

    if (n < left) {
      stream->unsent_pos += (size_t)n;
      return;
    }
    n -= left;
    stream->unsent = stream->unsent->next;
    stream->unsent_pos = 0;
  }
}

void ngp_quic_stream_acked(ngp_quic_streams *streams, ngp_quic_stream *stream,
                           uint64_t offset) {
  while (stream->head && stream->acked < offset) {
    ngp_chunk *chunk = stream->head;
    uint64_t left = chunk->len - chunk->pos;
    uint64_t n = offset - stream->acked < left ? offset - stream->acked : left;

    stream->acked += n;
    streams->queued -= n;
    chunk->pos += (size_t)n;
    if (chunk->pos < chunk->len || chunk == stream->unsent) {
      return;
    }
    stream->head = chunk->next;
    if (!stream->head) {
      stream->tail = NULL;
    }
    release(streams, chunk);
  }
}

void ngp_quic_stream_rewind(ngp_quic_streams *streams,
                            ngp_quic_stream *stream) {
  ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_NONE);
  stream->unsent = stream->head;
  stream->unsent_pos = 0;
  stream->sent = 0;
  stream->fin_sent = stream->fin_alone = stream->fin_acked = 0;
  stream->opened = 0;
}

/* ---- Lists ---- */

static ngp_quic_ring *ring_of(ngp_quic_streams *streams,
                              const ngp_quic_stream *stream) {
  return stream->list == NGP_QUIC_LIST_READY ? &streams->ready[stream->urgency]
                                             : &streams->blocked;
}

void ngp_quic_stream_enlist(ngp_quic_streams *streams, ngp_quic_stream *stream,
                            ngp_quic_list list) {
  ngp_quic_ring *ring;

  if (stream->list != NGP_QUIC_LIST_NONE) {
    ring = ring_of(streams, stream);
    *(stream->prev ? &stream->prev->next : &ring->first) = stream->next;
    *(stream->next ? &stream->next->prev : &ring->last) = stream->prev;
    stream->prev = stream->next = NULL;
  }
  stream->list = (uint8_t)list;
  if (list != NGP_QUIC_LIST_NONE) {
    ring = ring_of(streams, stream);
    stream->prev = ring->last;
    *(ring->last ? &ring->last->next : &ring->first) = stream;
    ring->last = stream;
  }
}

void ngp_quic_stream_schedule(ngp_quic_streams *streams,
                              ngp_quic_stream *stream) {
  int wants = stream->opened && !stream->reset &&
              (stream->unsent || (stream->end_stream && !stream->fin_sent));

  if (!wants) {
    ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_NONE);
  } else if (stream->list == NGP_QUIC_LIST_NONE) {
    ngp_quic_stream_enlist(streams, stream, NGP_QUIC_LIST_READY);
  }
}

ngp_quic_stream *ngp_quic_streams_first(const ngp_quic_streams *streams) {
  size_t i;

  for (i = 0; i < NGP_QUIC_URGENCIES; ++i) {
    if (streams->ready[i].first) {
      return streams->ready[i].first;
    }
  }
  return NULL;
}
