/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "ngp_h2_int.h"

/* The first table: most connections have few streams at a time. */
#define MIN_SLOTS 16

static size_t slot_of(const ngp_h2_stream_map *map, int32_t id) {
  /* Ids of one side differ by 2: the lowest bit tells the side. */
  return ((uint32_t)id * 0x9e3779b1U >> 7) & (map->nslots - 1);
}

ngp_h2_stream *ngp_h2_stream_find(const ngp_h2 *h2, int32_t id) {
  const ngp_h2_stream_map *map = &h2->streams;
  size_t i;

  if (!map->size) {
    return NULL;
  }
  for (i = slot_of(map, id); map->slots[i]; i = (i + 1) & (map->nslots - 1)) {
    if (map->slots[i]->id == id) {
      return map->slots[i];
    }
  }
  return NULL;
}

static void map_put(ngp_h2_stream_map *map, ngp_h2_stream *stream) {
  size_t i = slot_of(map, stream->id);

  while (map->slots[i]) {
    i = (i + 1) & (map->nslots - 1);
  }
  map->slots[i] = stream;
}

static int map_grow(ngp_h2 *h2) {
  ngp_h2_stream_map *map = &h2->streams;
  ngp_h2_stream_map grown = {.nslots =
                                 map->nslots ? map->nslots * 2 : MIN_SLOTS};
  size_t i;

  grown.slots = ngp_calloc(h2->mem, grown.nslots, sizeof(*grown.slots));
  if (!grown.slots) {
    return NGHTTP2_ERR_NOMEM;
  }
  for (i = 0; i < map->nslots; ++i) {
    if (map->slots[i]) {
      map_put(&grown, map->slots[i]);
    }
  }
  grown.size = map->size;
  ngp_free(h2->mem, map->slots);
  *map = grown;
  return 0;
}

ngp_h2_stream *ngp_h2_stream_add(ngp_h2 *h2, int32_t id) {
  ngp_h2_stream_map *map = &h2->streams;
  ngp_h2_stream *stream;

  /* At most half of the slots are used, which keeps the runs short. */
  if (map->size * 2 >= map->nslots && map_grow(h2) != 0) {
    return NULL;
  }
  stream = ngp_calloc(h2->mem, 1, sizeof(*stream));
  if (!stream) {
    return NULL;
  }
  stream->id = id;
  stream->content_length = -1;
  ngp_buf_init(&stream->priority, h2->mem);
  map_put(map, stream);
  ++map->size;
  ++h2->counters.streams_opened;
  return stream;
}

static void map_remove(ngp_h2_stream_map *map, const ngp_h2_stream *stream) {
  size_t mask = map->nslots - 1;
  size_t hole = slot_of(map, stream->id);
  size_t i;

  while (map->slots[hole] != stream) {
    hole = (hole + 1) & mask;
  }
  /* Close the gap: what probed past the hole moves into it. */
  for (i = (hole + 1) & mask; map->slots[i]; i = (i + 1) & mask) {
    size_t home = slot_of(map, map->slots[i]->id);

    if (((i - home) & mask) >= ((i - hole) & mask)) {
      map->slots[hole] = map->slots[i];
      hole = i;
    }
  }
  map->slots[hole] = NULL;
  --map->size;
}

static void stream_free(ngp_h2 *h2, ngp_h2_stream *stream) {
  ngp_free(h2->mem, stream->trailers);
  ngp_free(h2->mem, stream->response);
  ngp_buf_free(&stream->priority);
  ngp_free(h2->mem, stream);
}

void ngp_h2_stream_remove(ngp_h2 *h2, ngp_h2_stream *stream) {
  h2->queued_body -= stream->body.queued;
  h2->reserved -= stream->reserved;
  ngp_body_abandon(&stream->body, &h2->tray);
  if ((stream->flags & NGP_H2_FLAG_UNSENT) &&
      !(stream->flags & NGP_H2_FLAG_PUSHED)) {
    --h2->unsent;
  }
  if (stream->flags & NGP_H2_FLAG_HELD) {
    --h2->held;
  }
  map_remove(&h2->streams, stream);
  stream_free(h2, stream);
}

static int compare_ids(const void *a, const void *b) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

  return (x > y) - (x < y);
}

int ngp_h2_stream_ids(const ngp_h2 *h2, uint32_t flags, int32_t **pids,
                      size_t *pn) {
  const ngp_h2_stream_map *map = &h2->streams;
  int32_t *ids;
  size_t i;

  *pids = NULL;
  *pn = 0;
  if (!map->size) {
    return 0;
  }
  ids = ngp_malloc(h2->mem, map->size * sizeof(*ids));
  if (!ids) {
    return NGHTTP2_ERR_NOMEM;
  }
  for (i = 0; i < map->nslots; ++i) {
    if (map->slots[i] && (!flags || (map->slots[i]->flags & flags))) {
      ids[(*pn)++] = map->slots[i]->id;
    }
  }
  qsort(ids, *pn, sizeof(*ids), compare_ids);
  *pids = ids;
  return 0;
}

void ngp_h2_streams_free(ngp_h2 *h2) {
  size_t i;

  for (i = 0; i < h2->streams.nslots; ++i) {
    if (h2->streams.slots[i]) {
      stream_free(h2, h2->streams.slots[i]);
    }
  }
  ngp_free(h2->mem, h2->streams.slots);
}

int ngp_h2_is_local_id(const ngp_h2 *h2, int32_t id) {
  /* Clients open odd streams, servers even ones (RFC 9113, 5.1.1). */
  return (id & 1) == h2->options.client;
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
