/*
 * The allocator that keeps freed blocks.  SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include <pthread.h>

#include "ngp_pool.h"

/* Each test runs in a thread of its own, whose lists are empty. */
static void *run_body(void *arg) {
  void (*body)(nghttp2_mem *) = *(void (**)(nghttp2_mem *))arg;

  body(ngp_pool());
  return NULL;
}

static void in_a_thread(void (*body)(nghttp2_mem *)) {
  pthread_t thread;

  assert_int_equal(pthread_create(&thread, NULL, run_body, &body), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
}

static void *get(nghttp2_mem *mem, size_t size) {
  void *ptr = mem->malloc(size, NULL);

  assert_non_null(ptr);
  assert_int_equal((uintptr_t)ptr % 8, 0);
  memset(ptr, 0xa5, size);
  return ptr;
}

static void reuse(nghttp2_mem *mem) {
  size_t size;

  for (size = 0; size <= NGP_POOL_LARGEST; ++size) {
    void *first = get(mem, size);
    size_t rounded = size ? (size + 15) / 16 * 16 : 16;

    mem->free(first, NULL);
    assert_int_equal(ngp_pool_kept(size), 1);
    /* Every size that is rounded to the same takes it. */
    assert_ptr_equal(get(mem, rounded), first);
    assert_int_equal(ngp_pool_kept(size), 0);
    mem->free(first, NULL);
    assert_ptr_equal(get(mem, rounded - 15), first);
    mem->free(first, NULL);
    /* The thread frees what it keeps; a size has one here. */
    assert_int_equal(ngp_pool_kept(size), 1);
  }
}

static void a_freed_block_is_used_again(void **state) {
  (void)state;
  in_a_thread(reuse);
}

static void bound(nghttp2_mem *mem) {
  void *blocks[NGP_POOL_KEPT + 50];
  size_t size, i;

  for (size = 1; size <= NGP_POOL_LARGEST; size += NGP_POOL_STEP) {
    for (i = 0; i < sizeof(blocks) / sizeof(blocks[0]); ++i) {
      blocks[i] = get(mem, size);
    }
    for (i = 0; i < sizeof(blocks) / sizeof(blocks[0]); ++i) {
      mem->free(blocks[i], NULL);
    }
    assert_int_equal(ngp_pool_kept(size), NGP_POOL_KEPT);
  }
}

static void a_thread_keeps_a_bounded_number_of_blocks(void **state) {
  (void)state;
  in_a_thread(bound);
}

static void large(nghttp2_mem *mem) {
  void *ptr = get(mem, NGP_POOL_LARGEST + 1);

  mem->free(ptr, NULL);
  assert_int_equal(ngp_pool_kept(NGP_POOL_LARGEST + 1), 0);
  assert_int_equal(ngp_pool_kept(NGP_POOL_LARGEST), 0);
  mem->free(NULL, NULL);
}

static void large_blocks_are_not_kept(void **state) {
  (void)state;
  in_a_thread(large);
}

static void zero(nghttp2_mem *mem) {
  static const size_t sizes[] = {0, 1, 40, 512, 513, 4096};
  size_t i, j;

  for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
    uint8_t *ptr;

    mem->free(get(mem, sizes[i]), NULL);
    ptr = mem->calloc(sizes[i], 1, NULL);
    assert_non_null(ptr);
    for (j = 0; j < sizes[i]; ++j) {
      assert_int_equal(ptr[j], 0);
    }
    mem->free(ptr, NULL);
  }
  assert_null(mem->calloc(SIZE_MAX / 2, 3, NULL));
  assert_null(mem->calloc(3, SIZE_MAX / 2, NULL));
  mem->free(mem->calloc(0, 8, NULL), NULL);
  mem->free(mem->calloc(8, 0, NULL), NULL);
}

static void calloc_clears_a_used_block_and_refuses_an_overflow(void **state) {
  (void)state;
  in_a_thread(zero);
}

static void resize(nghttp2_mem *mem) {
  static const size_t sizes[] = {0, 1, 16, 17, 100, 512, 513, 5000};
  const size_t n = sizeof(sizes) / sizeof(sizes[0]);
  size_t i, j, k;

  for (i = 0; i < n; ++i) {
    for (j = 0; j < n; ++j) {
      uint8_t *ptr = get(mem, sizes[i]);
      size_t common = sizes[i] < sizes[j] ? sizes[i] : sizes[j];

      ptr = mem->realloc(ptr, sizes[j], NULL);
      assert_non_null(ptr);
      for (k = 0; k < common; ++k) {
        assert_int_equal(ptr[k], 0xa5);
      }
      memset(ptr, 0x5a, sizes[j]);
      mem->free(ptr, NULL);
    }
  }
  mem->free(mem->realloc(NULL, 24, NULL), NULL);
}

static void realloc_keeps_what_both_sizes_have(void **state) {
  (void)state;
  in_a_thread(resize);
}

static void refuse(nghttp2_mem *mem) {
  static const size_t sizes[] = {8, 600};
  size_t i;

  assert_null(mem->malloc(SIZE_MAX, NULL));
  assert_null(mem->malloc((size_t)PTRDIFF_MAX, NULL));
  for (i = 0; i < 2; ++i) {
    uint8_t *ptr = get(mem, sizes[i]);

    /* The block stays as it is. */
    assert_null(mem->realloc(ptr, SIZE_MAX, NULL));
    assert_null(mem->realloc(ptr, (size_t)PTRDIFF_MAX, NULL));
    assert_int_equal(ptr[7], 0xa5);
    mem->free(ptr, NULL);
  }
}

static void impossible_sizes_are_refused(void **state) {
  (void)state;
  in_a_thread(refuse);
}

static void *passed[NGP_POOL_KEPT * 2];

static void make_passed(nghttp2_mem *mem) {
  size_t i;

  for (i = 0; i < sizeof(passed) / sizeof(passed[0]); ++i) {
    passed[i] = get(mem, i * 4);
  }
}

static void free_passed(nghttp2_mem *mem) {
  size_t i, kept = 0;

  for (i = 0; i < sizeof(passed) / sizeof(passed[0]); ++i) {
    mem->free(passed[i], NULL);
  }
  for (i = NGP_POOL_STEP; i <= NGP_POOL_LARGEST; i += NGP_POOL_STEP) {
    kept += ngp_pool_kept(i);
  }
  /* Those of the largest size, 512 bytes, and all below. */
  assert_int_equal(kept, NGP_POOL_LARGEST / 4 + 1);
}

static void another_thread_may_free_a_block(void **state) {
  (void)state;
  in_a_thread(make_passed);
  in_a_thread(free_passed);
}

static pthread_key_t late_key;

static void free_late(void *ptr) {
  nghttp2_mem *mem = ngp_pool();

  mem->free(ptr, NULL);
  /* This may run before or after the lists are freed. */
  mem->free(mem->malloc(32, NULL), NULL);
}

static void leave_one(nghttp2_mem *mem) {
  mem->free(get(mem, 64), NULL);
  assert_int_equal(pthread_setspecific(late_key, get(mem, 64)), 0);
}

static void leave_all(nghttp2_mem *mem) {
  assert_int_equal(pthread_setspecific(late_key, get(mem, 64)), 0);
}

/* The leak sanitizer, and the allocator's own count, see what is left. */
static void
blocks_that_are_freed_while_a_thread_ends_are_not_lost(void **state) {
  (void)state;
  assert_int_equal(pthread_key_create(&late_key, free_late), 0);
  in_a_thread(leave_one);
  in_a_thread(leave_all);
  assert_int_equal(pthread_key_delete(late_key), 0);
}

static void a_session_lives_on_the_pool(void **state) {
  ngp_h2_options options;
  pair p;
  int i;

  (void)state;
  ngp_h2_options_default(&options);
  assert_ok(end_init(&p.server, &options, ngp_pool()));
  options.is_client = 1;
  assert_ok(end_init(&p.client, &options, ngp_pool()));
  pair_greet(&p);
  for (i = 1; i < 40; i += 2) {
    assert_int_equal(submit_request(&p.client, GET, 1), i);
    assert_ok(pair_pump(&p));
    assert_ok(submit_response(&p.server, i, ":status=200\n", 1));
    assert_ok(pair_pump(&p));
    end_saw(&p.client, NGP_H2_EVENT_RESPONSE, i);
  }
  assert_true(ngp_pool_kept(64) > 0);
  pair_free(&p);
}

static void a_build_for_debugging_has_no_pool(void **state) {
  (void)state;
  assert_null(ngp_mem_default());
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_freed_block_is_used_again),
      cmocka_unit_test(a_thread_keeps_a_bounded_number_of_blocks),
      cmocka_unit_test(large_blocks_are_not_kept),
      cmocka_unit_test(calloc_clears_a_used_block_and_refuses_an_overflow),
      cmocka_unit_test(realloc_keeps_what_both_sizes_have),
      cmocka_unit_test(impossible_sizes_are_refused),
      cmocka_unit_test(another_thread_may_free_a_block),
      cmocka_unit_test(blocks_that_are_freed_while_a_thread_ends_are_not_lost),
      cmocka_unit_test(a_session_lives_on_the_pool),
      cmocka_unit_test(a_build_for_debugging_has_no_pool),
  };

  return cmocka_run_group_tests(tests, NULL, NULL);
}
