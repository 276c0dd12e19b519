/*
 * The streams of a QUIC connection: what waits to be sent on each, and which
 * is served next.  SPDX-License-Identifier: MIT
 */
#ifndef NGP_QUIC_STREAM_H
#define NGP_QUIC_STREAM_H

#include "ngp_body.h"

#include <ngtcp2/ngtcp2.h>

/* The number of urgencies: those of RFC 9218, and 0 before them all. */
#define NGP_QUIC_URGENCIES 9

/*
 * ngp_quic_stream is the record of a stream, from its first mention until
 * ngtcp2 closes it.  Queued bytes do not move until they are acknowledged,
 * because ngtcp2 keeps pointers to them.
 */
typedef struct ngp_quic_stream {
  int64_t id;
  struct ngp_quic_stream *map_next;
  /* The neighbours in the stream's list. */
  struct ngp_quic_stream *prev;
  struct ngp_quic_stream *next;
  ngp_chunk *head;
  ngp_chunk *tail;
  /* unsent is the first chunk with unsent bytes, which begin at unsent_pos. */
  ngp_chunk *unsent;
  size_t unsent_pos;
  /* Offsets in the stream; head begins at |acked|. */
  uint64_t acked;
  uint64_t sent;
  uint64_t queued;
  uint64_t reset_code;
  uint64_t stop_code;
  /* kept is the credit that is withheld while hold is nonzero. */
  uint64_t kept;
  /* list is an ngp_quic_list. */
  uint8_t list;
  uint8_t urgency;
  uint8_t incremental;
  /* opened is nonzero if ngtcp2 knows the stream. */
  uint8_t opened;
  uint8_t end_stream;
  uint8_t fin_sent;
  /* reset and stop are nonzero if they were requested. */
  uint8_t reset;
  uint8_t stop;
  /* stopped is nonzero once the peer's STOP_SENDING was reported. */
  uint8_t stopped;
  uint8_t hold;
  /* remote_done is nonzero once the peer will send no more. */
  uint8_t remote_done;
  /* fin_alone is nonzero if the end was written in a frame without bytes, and
     fin_acked once such a frame was acknowledged. */
  uint8_t fin_alone;
  uint8_t fin_acked;
  /* early is nonzero if received bytes came as early data. */
  uint8_t early;
} ngp_quic_stream;

typedef enum ngp_quic_list {
  NGP_QUIC_LIST_NONE,
  /* The stream has something to send, which flow control allows or may
     allow. */
  NGP_QUIC_LIST_READY,
  NGP_QUIC_LIST_BLOCKED
} ngp_quic_list;

typedef struct ngp_quic_ring {
  ngp_quic_stream *first;
  ngp_quic_stream *last;
} ngp_quic_ring;

/*
 * ngp_quic_streams finds streams by id, and holds the lists.
 */
typedef struct ngp_quic_streams {
  nghttp2_mem *mem;
  ngp_quic_stream **buckets;
  size_t nbuckets;
  size_t size;
  ngp_quic_ring ready[NGP_QUIC_URGENCIES];
  ngp_quic_ring blocked;
  /* tray has the chunks that are no longer needed; see ngp_body.h. */
  ngp_tray tray;
  /* queued is the number of all streams' bytes that are not acknowledged. */
  uint64_t queued;
} ngp_quic_streams;

void ngp_quic_streams_init(ngp_quic_streams *streams, nghttp2_mem *mem);

/* Frees all streams; their queues are then in the tray. */
void ngp_quic_streams_free(ngp_quic_streams *streams);

ngp_quic_stream *ngp_quic_stream_find(const ngp_quic_streams *streams,
                                      int64_t id);

/* Returns NULL for want of memory. */
ngp_quic_stream *ngp_quic_stream_add(ngp_quic_streams *streams, int64_t id);

/* Frees the stream; its queue is then in the tray. */
void ngp_quic_stream_remove(ngp_quic_streams *streams, ngp_quic_stream *stream);

/*
 * ngp_quic_stream_queue queues the bytes at |head|, which are copied, and those
 * at |data|.  If |*pheld| is nonzero afterwards, |owner| is held until it is in
 * the tray; otherwise the bytes at |data| were copied, too.  On failure nothing
 * is queued.
 */
int ngp_quic_stream_queue(ngp_quic_streams *streams, ngp_quic_stream *stream,
                          const uint8_t *head, size_t head_len,
                          const uint8_t *data, size_t len, void *owner,
                          int *pheld);

/* Fills |vec| with what to send next; returns the number of elements, and the
   sum of their lengths in |*plen|. */
size_t ngp_quic_stream_peek(const ngp_quic_stream *stream, ngtcp2_vec *vec,
                            size_t nvec, size_t *plen);

/* Records that |n| bytes were sent. */
void ngp_quic_stream_sent(ngp_quic_stream *stream, uint64_t n);

/* Records that everything before |offset| is acknowledged. */
void ngp_quic_stream_acked(ngp_quic_streams *streams, ngp_quic_stream *stream,
                           uint64_t offset);

/* Makes everything be sent again: nothing was acknowledged. */
void ngp_quic_stream_rewind(ngp_quic_streams *streams, ngp_quic_stream *stream);

/* Puts the stream at the end of a list, or in none. */
void ngp_quic_stream_enlist(ngp_quic_streams *streams, ngp_quic_stream *stream,
                            ngp_quic_list list);

/* Puts the stream in the ready list if it has something to send. */
void ngp_quic_stream_schedule(ngp_quic_streams *streams,
                              ngp_quic_stream *stream);

/* Returns the stream to serve next, or NULL. */
ngp_quic_stream *ngp_quic_streams_first(const ngp_quic_streams *streams);

#endif /* NGP_QUIC_STREAM_H */
