/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "ngp_h2_int.h"

ngp_h2_stream *ngp_h2_stream_add(ngp_h2 *h2, int32_t id) {
  ngp_h2_stream *stream = ngp_calloc(h2->mem, 1, sizeof(*stream));

  if (!stream || ngp_map_add(&h2->streams, h2->mem, id, stream) != 0) {
    ngp_free(h2->mem, stream);
    return NULL;
  }
  stream->id = id;
  stream->content_length = -1;
  ngp_buf_init(&stream->priority, h2->mem);
  ++h2->counters.streams_opened;
  return stream;
}

static void stream_free(ngp_h2 *h2, ngp_h2_stream *stream) {
  ngp_free(h2->mem, stream->trailers);
  ngp_free(h2->mem, stream->response);
  ngp_buf_free(&stream->priority);
  ngp_free(h2->mem, stream);
}

void ngp_h2_stream_remove(ngp_h2 *h2, ngp_h2_stream *stream) {
  h2->bodies.queued -= stream->body.queued;
  h2->bodies.reserved -= stream->reserved;
  ngp_body_abandon(&stream->body, &h2->bodies.tray);
  if ((stream->flags & NGP_H2_FLAG_UNSENT) &&
      !(stream->flags & NGP_H2_FLAG_PUSHED)) {
    --h2->unsent;
  }
  if (stream->flags & NGP_H2_FLAG_HELD) {
    --h2->resets.held;
  }
  ngp_map_remove(&h2->streams, stream->id);
  stream_free(h2, stream);
}

static int compare_ids(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

  return (x > y) - (x < y);
}

int ngp_h2_stream_ids(const ngp_h2 *h2, uint32_t flags, int32_t **pids,
                      size_t *pn) {
  const ngp_h2_stream *stream;
  int32_t *ids;
  size_t place = 0;

  *pids = NULL;
  *pn = 0;
  if (!h2->streams.size) {
    return 0;
  }
  ids = ngp_malloc(h2->mem, h2->streams.size * sizeof(*ids));
  if (!ids) {
    return NGHTTP2_ERR_NOMEM;
  }
  while ((stream = ngp_map_next(&h2->streams, &place))) {
    if (!flags || (stream->flags & flags)) {
      ids[(*pn)++] = stream->id;
    }
  }
  qsort(ids, *pn, sizeof(*ids), compare_ids);
  *pids = ids;
  return 0;
}

void ngp_h2_streams_free(ngp_h2 *h2) {
  ngp_h2_stream *stream;
  size_t place = 0;

  while ((stream = ngp_map_next(&h2->streams, &place))) {
    stream_free(h2, stream);
  }
  ngp_map_free(&h2->streams, h2->mem);
}

int ngp_h2_is_local_id(const ngp_h2 *h2, int32_t id) {
  /* Clients open odd streams, servers even ones (RFC 9113, 5.1.1). */
  return (id & 1) == h2->options.is_client;
}

ngp_h2_header_list *ngp_h2_header_list_new(ngp_h2 *h2, const nghttp2_nv *nva,
                                           size_t nvlen) {
  ngp_h2_header_list *list;
  size_t size = sizeof(*list) + nvlen * sizeof(*nva);
  uint8_t *p;
  size_t i;

  for (i = 0; i < nvlen; ++i) {
    size += nva[i].namelen + nva[i].valuelen;
  }
  list = ngp_malloc(h2->mem, size);
  if (!list) {
    return NULL;
  }
  list->nvlen = nvlen;
  p = (uint8_t *)(list->nva + nvlen);
  for (i = 0; i < nvlen; ++i) {
    list->nva[i] = nva[i];
    list->nva[i].name = p;
    memcpy(p, nva[i].name, nva[i].namelen);
    p += nva[i].namelen;
    list->nva[i].value = p;
    if (nva[i].valuelen) {
      memcpy(p, nva[i].value, nva[i].valuelen);
      p += nva[i].valuelen;
    }
  }
  return list;
}
