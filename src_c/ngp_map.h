/*
 * A table of records by number, such as streams by id: open addressing with
 * linear probing.  SPDX-License-Identifier: MIT
 *
 * A map that is all zero is empty and has no memory.  It owns its slots, but
 * not the records.
 */
#ifndef NGP_MAP_H
#define NGP_MAP_H

#include "ngp.h"

typedef struct ngp_map_slot {
  int64_t id;
  /* value is NULL if the slot is free. */
  void *value;
} ngp_map_slot;

typedef struct ngp_map {
  /* slots is owned; nslots is 0 or a power of 2. */
  ngp_map_slot *slots;
  size_t nslots;
  /* size is the number of records: at most half of nslots, so that searches are
     short and end. */
  size_t size;
} ngp_map;

/*
 * ngp_map_home returns the slot where the search for |id| begins.  Ids of one
 * kind are 2 or 4 apart: the multiplication spreads them.
 */
static inline size_t ngp_map_home(const ngp_map *map, int64_t id) {
  return (size_t)((uint64_t)id * 0x9e3779b97f4a7c15ULL >> 32) &
         (map->nslots - 1);
}

/*
 * ngp_map_find returns the record of |id|, or NULL.
 */
static inline void *ngp_map_find(const ngp_map *map, int64_t id) {
  size_t i;

  if (!map->size) {
    return NULL;
  }
  for (i = ngp_map_home(map, id); map->slots[i].value;
       i = (i + 1) & (map->nslots - 1)) {
    if (map->slots[i].id == id) {
      return map->slots[i].value;
    }
  }
  return NULL;
}

/*
 * ngp_map_add adds |value|, which is not NULL, as the record of |id|, which has
 * none yet. |mem| must be the same in all calls for one map.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM, which leaves
 * |map| unchanged.
 */
int ngp_map_add(ngp_map *map, nghttp2_mem *mem, int64_t id, void *value);

/*
 * ngp_map_remove removes the record of |id|, which has one.
 */
void ngp_map_remove(ngp_map *map, int64_t id);

/*
 * ngp_map_next returns the first record in slot |*pplace| or later, and sets
 * |*pplace| to the slot after it; NULL if there is none left.  A loop over all
 * records begins with 0, and must not add any.  If it removes the record that
 * it has just got, it must continue one slot before, because another record may
 * have moved there.
 */
static inline void *ngp_map_next(const ngp_map *map, size_t *pplace) {
  while (*pplace < map->nslots) {
    void *value = map->slots[(*pplace)++].value;

    if (value) {
      return value;
    }
  }
  return NULL;
}

void ngp_map_free(ngp_map *map, nghttp2_mem *mem);

#endif /* NGP_MAP_H */
