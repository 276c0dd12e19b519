/*
 * What the fuzzers share: bytes of input become calls.
 * SPDX-License-Identifier: MIT
 */
#ifndef OPS_H
#define OPS_H

#include "pair.h"

/* The entry that libFuzzer calls, and standalone.c. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * input is what is left of a fuzzer's input, which it borrows.
 */
typedef struct input {
  const uint8_t *p;
  size_t left;
} input;

/* One byte; 0 when there is none left. */
uint8_t take(input *in);

/* A number below |n|, which is at most 65536. */
size_t take_below(input *in, size_t n);

/* A number of any size, the small ones more often. */
uint64_t take_number(input *in);

/* The next |*pn| bytes, or as many as are left; |*pn| becomes how many. */
const uint8_t *take_bytes(input *in, size_t *pn);

/* Mostly a small stream id, now and then an odd one. */
int32_t take_stream_id(input *in);

/* Options that change what a connection does. */
ngp_h2_options take_options(input *in);

#define CHECK(EXPR)                                                            \
  do {                                                                         \
    if (!(EXPR)) {                                                             \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #EXPR);               \
      abort();                                                                 \
    }                                                                          \
  } while (0)

/* Calls that a sane caller makes, and those that a peer must not be given. */
typedef enum op_set { OPS_ALL, OPS_SANE } op_set;

/* Makes one call on |e|. */
void op_run(end *e, input *in, op_set set);

/* Queues |len| bytes on |stream_id|, each byte told by its place. */
int op_push(end *e, int32_t stream_id, size_t len, int end_stream);

/* The byte at |offset| of any body on |stream_id|. */
uint8_t op_body_byte(int32_t stream_id, uint64_t offset);

/*
 * op_state is what op_watch() knows of an end.
 */
#define STATE_IDS 1024
typedef struct op_state {
  /* By stream id. */
  uint8_t ended[STATE_IDS];
  uint8_t closed[STATE_IDS];
  uint64_t received[STATE_IDS];
  /* over is nonzero once CONNECTION_CLOSED was seen, with over_code. */
  uint8_t over;
  uint32_t over_code;
} op_state;

/*
 * op_watch looks at what has been logged, and forgets it: events must follow
 * one another as they may.  If |sane| is nonzero the peer is one of ours that
 * keeps to the rules, and makes its bodies by op_push().
 */
void op_watch(end *e, op_state *state, int sane);

#endif /* OPS_H */
