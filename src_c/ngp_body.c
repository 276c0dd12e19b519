/* SPDX-License-Identifier: MIT */
#include "ngp_body.h"

int ngp_body_queue(ngp_body *body, nghttp2_mem *mem, const uint8_t *base,
                   size_t len, void *owner) {
  ngp_chunk *chunk = ngp_malloc(mem, sizeof(*chunk));

  if (!chunk) {
    return NGHTTP2_ERR_NOMEM;
  }
  *chunk = (ngp_chunk){.base = base, .len = len, .owner = owner};
  if (body->tail) {
    body->tail->next = chunk;
  } else {
    body->head = chunk;
  }
  body->tail = chunk;
  body->queued += len;
  return 0;
}

void ngp_tray_add(ngp_tray *tray, ngp_chunk *chunk) {
  chunk->next = tray->head;
  tray->head = chunk;
}

void ngp_body_shift(ngp_body *body, size_t n, ngp_tray *tray) {
  body->queued -= n;
  while (body->head) {
    ngp_chunk *chunk = body->head;
    size_t left = chunk->len - chunk->pos;

    if (n < left) {
      chunk->pos += n;
      return;
    }
    n -= left;
    body->head = chunk->next;
    if (!body->head) {
      body->tail = NULL;
    }
    ngp_tray_add(tray, chunk);
  }
}

void ngp_body_abandon(ngp_body *body, ngp_tray *tray) {
  ngp_body_shift(body, body->queued, tray);
}

void *ngp_tray_take(ngp_tray *tray, nghttp2_mem *mem) {
  ngp_chunk *chunk = tray->head;
  void *owner;

  if (!chunk) {
    return NULL;
  }
  tray->head = chunk->next;
  owner = chunk->owner;
  ngp_free(mem, chunk);
  return owner;
}
