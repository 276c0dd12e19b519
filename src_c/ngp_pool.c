/* SPDX-License-Identifier: MIT */
#include "ngp_pool.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES (NGP_POOL_LARGEST / NGP_POOL_STEP)

/*
 * block is an allocation.  The caller gets the address of body, which is the
 * next block of the list while the block is in one.
 */
typedef struct block {
  /* class is the index of the list, or CLASSES for a larger block. */
  uint64_t class;
  union {
    struct block *next;
    uint64_t align;
  } body;
} block;

#define HEAD offsetof(block, body)

/* The largest block: sizes that no object has are refused here, because the
   tools that check memory report them. */
#define LARGEST (PTRDIFF_MAX - HEAD)

typedef struct lists {
  block *first[CLASSES];
  uint32_t n[CLASSES];
} lists;

/*
 * The lists of a thread, which its first free() makes.  Only a pointer is in
 * the memory that the thread's start reserves: the offset of an "initial-exec"
 * variable is read without a call, but all libraries that a process loads late
 * share less than 2 KiB for theirs.  musl has no such memory.
 */
#if defined(__GLIBC__)
#  define THREAD_LOCAL                                                         \
    static __thread __attribute__((tls_model("initial-exec")))
#else
#  define THREAD_LOCAL static __thread
#endif
THREAD_LOCAL lists *pool;

/* Nonzero once the thread has freed its lists: it makes no others, because
   nothing would free them. */
static __thread int thread_ends;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int key_made;

static void free_lists(void *ptr) {
  lists *l = ptr;
  size_t i;

  pool = NULL;
  thread_ends = 1;
  for (i = 0; i < CLASSES; ++i) {
    while (l->first[i]) {
      block *b = l->first[i];

      l->first[i] = b->body.next;
      free(b);
    }
  }
  free(l);
}

static void make_key(void) { key_made = !pthread_key_create(&key, free_lists); }

/* Returns NULL if the lists cannot be freed later, or for want of memory. */
static lists *make_lists(void) {
  lists *l;

  pthread_once(&once, make_key);
  if (!key_made || thread_ends) {
    return NULL;
  }
  l = calloc(1, sizeof(*l));
  if (l && pthread_setspecific(key, l) != 0) {
    free(l);
    return NULL;
  }
  pool = l;
  return l;
}

static size_t class_of(size_t size) {
  return size ? (size - 1) / NGP_POOL_STEP : 0;
}

static block *block_of(void *ptr) {
  return (block *)(void *)((uint8_t *)ptr - HEAD);
}

static void *pool_malloc(size_t size, void *user_data) {
  size_t class = class_of(size);
  lists *l = pool;
  block *b;

  (void)user_data;
  if (class < CLASSES) {
    if (l && l->first[class]) {
      b = l->first[class];
      l->first[class] = b->body.next;
      --l->n[class];
      return &b->body;
    }
    size = (class + 1) * NGP_POOL_STEP;
  } else {
    class = CLASSES;
    if (size > LARGEST) {
      return NULL;
    }
  }
  b = malloc(HEAD + size);
  if (!b) {
    return NULL;
  }
  b->class = class;
  return &b->body;
}

static void pool_free(void *ptr, void *user_data) {
  lists *l = pool;
  block *b;

  (void)user_data;
  if (!ptr) {
    return;
  }
  b = block_of(ptr);
  if (b->class < CLASSES && (l || (l = make_lists())) &&
      l->n[b->class] < NGP_POOL_KEPT) {
    b->body.next = l->first[b->class];
    l->first[b->class] = b;
    ++l->n[b->class];
    return;
  }
  free(b);
}

static void *pool_calloc(size_t n, size_t size, void *user_data) {
  void *ptr;

  if (size && n > SIZE_MAX / size) {
    return NULL;
  }
  ptr = pool_malloc(n * size, user_data);
  if (ptr) {
    memset(ptr, 0, n * size);
  }
  return ptr;
}

static void *pool_realloc(void *ptr, size_t size, void *user_data) {
  block *b;
  void *moved;
  size_t had;

  if (!ptr) {
    return pool_malloc(size, user_data);
  }
  b = block_of(ptr);
  if (b->class == CLASSES) {
    /* It stays a large block, even if it shrinks. */
    if (size > LARGEST) {
      return NULL;
    }
    b = realloc(b, HEAD + (size > sizeof(b->body) ? size : sizeof(b->body)));
    return b ? &b->body : NULL;
  }
  had = (b->class + 1) * NGP_POOL_STEP;
  if (size <= had) {
    return ptr;
  }
  moved = pool_malloc(size, user_data);
  if (moved) {
    memcpy(moved, ptr, had);
    pool_free(ptr, user_data);
  }
  return moved;
}

nghttp2_mem *ngp_pool(void) {
  static nghttp2_mem mem = {.malloc = pool_malloc,
                            .free = pool_free,
                            .calloc = pool_calloc,
                            .realloc = pool_realloc};

  return &mem;
}

size_t ngp_pool_kept(size_t size) {
  size_t class = class_of(size);

  return pool && class < CLASSES ? pool->n[class] : 0;
}

nghttp2_mem *ngp_mem_default(void) {
#ifdef NGP_POOL
  return ngp_pool();
#else
  return NULL;
#endif
}
