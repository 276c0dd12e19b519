/*
 * The table of streams by id.  SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include "ngp_map.h"

/* The model is an array with a place for each id that is used. */
#define IDS 512

typedef struct model {
  ngp_map map;
  int present[IDS];
  size_t size;
  /* Ids of the map are step apart, as those of HTTP/2 (2) and QUIC (4). */
  int64_t step;
} model;

static int records[IDS];
static uint32_t seed;

static uint32_t next_random(void) {
  seed = seed * 1664525U + 1013904223U;
  return seed >> 8;
}

static void model_add(model *m, size_t i) {
  assert_ok(ngp_map_add(&m->map, NULL, (int64_t)i * m->step, &records[i]));
  m->present[i] = 1;
  ++m->size;
}

static void model_remove(model *m, size_t i) {
  ngp_map_remove(&m->map, (int64_t)i * m->step);
  m->present[i] = 0;
  --m->size;
}

/* Every id is found or not, as the model says, and a loop meets each once. */
static void compare(const model *m) {
  int met[IDS] = {0};
  size_t i, place = 0;
  int *record;

  assert_int_equal(m->map.size, m->size);
  for (i = 0; i < IDS; ++i) {
    assert_ptr_equal(ngp_map_find(&m->map, (int64_t)i * m->step),
                     m->present[i] ? &records[i] : NULL);
  }
  while ((record = ngp_map_next(&m->map, &place))) {
    ++met[record - records];
  }
  assert_memory_equal(met, m->present, sizeof(met));
}

static void a_map_that_is_all_zero_is_empty(void **state) {
  ngp_map map = {0};
  size_t place = 0;

  (void)state;
  assert_null(ngp_map_find(&map, 0));
  assert_null(ngp_map_next(&map, &place));
  ngp_map_free(&map, NULL);
}

static void many_deletions_leave_every_other_id_found(void **state) {
  static const int64_t steps[] = {1, 2, 4, 3 << 20, (int64_t)1 << 40};
  size_t s, i, round;

  (void)state;
  for (s = 0; s < sizeof(steps) / sizeof(steps[0]); ++s) {
    model m = {.step = steps[s]};

    seed = (uint32_t)s;
    for (round = 0; round < 200; ++round) {
      /* It fills up in one half of the rounds and empties in the other. */
      uint32_t adds = round % 40 < 20 ? 3 : 1;
      size_t n;

      for (n = 0; n < 40; ++n) {
        i = next_random() % IDS;
        if (m.present[i]) {
          if (next_random() % 4 >= adds) {
            model_remove(&m, i);
          }
        } else if (next_random() % 4 < adds) {
          model_add(&m, i);
        }
      }
      compare(&m);
    }
    for (i = 0; i < IDS; ++i) {
      if (m.present[i]) {
        model_remove(&m, i);
      }
    }
    compare(&m);
    ngp_map_free(&m.map, NULL);
  }
}

static void a_loop_may_remove_what_it_has_met(void **state) {
  model m = {.step = 2};
  size_t i, place;
  int *record;

  (void)state;
  for (i = 0; i < IDS; ++i) {
    model_add(&m, i);
  }
  for (place = 0; (record = ngp_map_next(&m.map, &place));) {
    i = (size_t)(record - records);
    if (i % 3) {
      model_remove(&m, i);
      --place;
    }
  }
  /* One that moved from the end to a place before stays for the next loop. */
  for (place = 0; (record = ngp_map_next(&m.map, &place));) {
    i = (size_t)(record - records);
    if (i % 3) {
      model_remove(&m, i);
      --place;
    }
  }
  assert_int_equal(m.size, (IDS + 2) / 3);
  compare(&m);
  ngp_map_free(&m.map, NULL);
}

static void negative_ids_are_ids_too(void **state) {
  ngp_map map = {0};

  (void)state;
  assert_null(ngp_map_find(&map, -1));
  assert_ok(ngp_map_add(&map, NULL, -1, &records[0]));
  assert_ptr_equal(ngp_map_find(&map, -1), &records[0]);
  assert_null(ngp_map_find(&map, 0));
  ngp_map_remove(&map, -1);
  assert_null(ngp_map_find(&map, -1));
  ngp_map_free(&map, NULL);
}

static void an_addition_that_fails_changes_nothing(void **state) {
  counting memory;
  ngp_map map = {0};
  int64_t id, before;

  (void)state;
  counting_init(&memory);
  memory.fail_at = 0;
  assert_int_equal(ngp_map_add(&map, &memory.mem, 0, &records[0]),
                   NGHTTP2_ERR_NOMEM);
  assert_null(ngp_map_find(&map, 0));
  assert_int_equal(map.size, 0);
  /* Each growth fails once, and then succeeds. */
  memory.fail_at = SIZE_MAX;
  for (id = 0; id < IDS; ++id) {
    if (map.size * 2 >= map.nslots) {
      memory.fail_at = memory.calls;
      assert_int_equal(ngp_map_add(&map, &memory.mem, id, &records[id]),
                       NGHTTP2_ERR_NOMEM);
      assert_null(ngp_map_find(&map, id));
      for (before = 0; before < id; ++before) {
        assert_ptr_equal(ngp_map_find(&map, before), &records[before]);
      }
      memory.fail_at = SIZE_MAX;
    }
    assert_ok(ngp_map_add(&map, &memory.mem, id, &records[id]));
  }
  assert_int_equal(map.size, IDS);
  ngp_map_free(&map, &memory.mem);
  assert_int_equal(memory.live, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_map_that_is_all_zero_is_empty),
      cmocka_unit_test(many_deletions_leave_every_other_id_found),
      cmocka_unit_test(a_loop_may_remove_what_it_has_met),
      cmocka_unit_test(negative_ids_are_ids_too),
      cmocka_unit_test(an_addition_that_fails_changes_nothing),
  };

  return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
