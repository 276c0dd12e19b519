/* SPDX-License-Identifier: MIT */
#include "ngp_map.h"

/* The size of the first table: most connections have few streams at a time. */
#define MIN_SLOTS 16

static void put(ngp_map *map, ngp_map_slot slot) {
  size_t i = ngp_map_home(map, slot.id);

  while (map->slots[i].value) {
    i = (i + 1) & (map->nslots - 1);
  }
  map->slots[i] = slot;
}

static int grow(ngp_map *map, nghttp2_mem *mem) {
  ngp_map grown = {.nslots = map->nslots ? map->nslots * 2 : MIN_SLOTS,
                   .size = map->size};
  size_t i;

  grown.slots = ngp_calloc(mem, grown.nslots, sizeof(*grown.slots));
  if (!grown.slots) {
    return NGHTTP2_ERR_NOMEM;
  }
  for (i = 0; i < map->nslots; ++i) {
    if (map->slots[i].value) {
      put(&grown, map->slots[i]);
    }
  }
  ngp_free(mem, map->slots);
  *map = grown;
  return 0;
}

int ngp_map_add(ngp_map *map, nghttp2_mem *mem, int64_t id, void *value) {
  if (map->size * 2 >= map->nslots && grow(map, mem) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  put(map, (ngp_map_slot){.id = id, .value = value});
  ++map->size;
  return 0;
}

void ngp_map_remove(ngp_map *map, int64_t id) {
  size_t mask = map->nslots - 1;
  size_t hole = ngp_map_home(map, id);
  size_t i;

  while (map->slots[hole].id != id || !map->slots[hole].value) {
    hole = (hole + 1) & mask;
  }
  /* Close the gap: a record whose search passed the hole moves into it, so that
     every search still finds the records behind. */
  for (i = (hole + 1) & mask; map->slots[i].value; i = (i + 1) & mask) {
    size_t home = ngp_map_home(map, map->slots[i].id);

    if (((i - home) & mask) >= ((i - hole) & mask)) {
      map->slots[hole] = map->slots[i];
      hole = i;
    }
  }
  map->slots[hole].value = NULL;
  --map->size;
}

void ngp_map_free(ngp_map *map, nghttp2_mem *mem) {
  ngp_free(mem, map->slots);
  *map = (ngp_map){.size = 0};
}
