/*
 * A stream's outgoing body: a queue of borrowed chunks, from which nghttp2
 * pulls.  SPDX-License-Identifier: MIT
 */
#ifndef NGP_BODY_H
#define NGP_BODY_H

#include "ngp.h"

/*
 * ngp_chunk is a run of body bytes that belongs to |owner|.  The bytes are
 * borrowed until the chunk is in a tray and the caller has taken its owner.
 */
typedef struct ngp_chunk {
  /* The queue or tray that a chunk is in owns it. */
  struct ngp_chunk *next;
  const uint8_t *base;
  size_t len;
  /* pos is how much of it has been sent. */
  size_t pos;
  /* owner keeps |base| alive.  It is opaque to C, which never frees it. */
  void *owner;
} ngp_chunk;

/*
 * ngp_tray collects finished chunks until the caller takes their owners: only
 * the caller can release an owner.
 */
typedef struct ngp_tray {
  ngp_chunk *head;
} ngp_tray;

/*
 * ngp_body is the queue of one stream.
 */
typedef struct ngp_body {
  ngp_chunk *head;
  ngp_chunk *tail;
  /* queued is the number of bytes not sent yet. */
  size_t queued;
} ngp_body;

/*
 * ngp_body_queue queues |len| bytes at |base|, and holds |owner| until the
 * chunk is in |tray|.  On failure nothing is held.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_body_queue(ngp_body *body, nghttp2_mem *mem, const uint8_t *base,
                   size_t len, void *owner);

/*
 * ngp_body_shift drops |n| bytes, at most |body->queued|, from the head, and
 * moves each chunk that is used up to |tray|.
 */
void ngp_body_shift(ngp_body *body, size_t n, ngp_tray *tray);

/*
 * ngp_body_abandon moves all chunks to |tray|.
 */
void ngp_body_abandon(ngp_body *body, ngp_tray *tray);

/*
 * ngp_tray_add adds |chunk|, which is in no queue, to |tray|.
 */
void ngp_tray_add(ngp_tray *tray, ngp_chunk *chunk);

/*
 * ngp_tray_take removes one chunk from |tray|, frees it and returns its owner,
 * which then belongs to the caller; NULL if the tray is empty.
 */
void *ngp_tray_take(ngp_tray *tray, nghttp2_mem *mem);

#endif /* NGP_BODY_H */
