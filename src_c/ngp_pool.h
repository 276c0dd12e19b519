/*
 * ngp_pool: an allocator for small blocks that live as long as a stream, a
 * frame or a table entry.  SPDX-License-Identifier: MIT
 *
 * A freed block of at most NGP_POOL_LARGEST bytes goes to a list of the thread
 * that frees it, and the next allocation of that size in this thread takes it
 * from there.  Each block comes from malloc(), and so any thread may free it.
 * A thread keeps at most NGP_POOL_KEPT blocks of a size, which is about 1 MB
 * for all sizes together, and frees them when it ends.
 *
 * Blocks are aligned to 8 bytes, which is enough for integers and pointers.
 */
#ifndef NGP_POOL_H
#define NGP_POOL_H

#include <stddef.h>

#include <nghttp2/nghttp2.h>

/* Sizes are rounded up to a multiple of NGP_POOL_STEP. */
#define NGP_POOL_STEP 16
#define NGP_POOL_LARGEST 512
#define NGP_POOL_KEPT 128

/*
 * ngp_pool returns the allocator, which is static.
 */
nghttp2_mem *ngp_pool(void);

/*
 * ngp_pool_kept returns how many blocks of |size| bytes the calling thread
 * keeps.
 */
size_t ngp_pool_kept(size_t size);

/*
 * ngp_mem_default returns the allocator for connections and coders: the pool,
 * or NULL, the C library's malloc, in builds for debugging, sanitizers, tests
 * in C and fuzzers.  There each use of a freed block has to be found.
 */
nghttp2_mem *ngp_mem_default(void);

#endif /* NGP_POOL_H */
