/*
 * What the C tests share: ends of a connection in memory, a frame builder of
 * our own, so that faults of nghttp2's do not cancel out, and an allocator
 * that fails when it is told to.  SPDX-License-Identifier: MIT
 */
#ifndef PAIR_H
#define PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ngp_h2.h"

/* ---- Bytes on the wire ---- */

/*
 * wire is a growable run of bytes.
 */
typedef struct wire {
  uint8_t *base;
  size_t len;
  size_t cap;
} wire;

void wire_free(wire *w);
void wire_add(wire *w, const void *data, size_t len);

/* Drops the first |n| bytes. */
void wire_shift(wire *w, size_t n);

/* The client's connection preface, and an empty SETTINGS. */
void wire_preface(wire *w);

void wire_frame(wire *w, uint8_t type, uint8_t flags, int32_t stream_id,
                const void *payload, size_t len);

/* A frame whose payload is one 32-bit number. */
void wire_frame_u32(wire *w, uint8_t type, uint8_t flags, int32_t stream_id,
                    uint32_t value);

void wire_setting(wire *w, uint16_t id, uint32_t value);

/*
 * wire_block appends a header block.  |fields| holds "name=value" with a line
 * feed after each.  All are literals without indexing (RFC 7541, 6.2.2).
 */
void wire_block(wire *w, const char *fields);

/* A HEADERS frame with END_HEADERS besides |flags|. */
void wire_headers(wire *w, uint8_t flags, int32_t stream_id,
                  const char *fields);

/* The usual GET, which ends its stream. */
void wire_get(wire *w, int32_t stream_id);

/*
 * wire_view is a frame found in bytes.
 */
typedef struct wire_view {
  size_t len;
  uint8_t type;
  uint8_t flags;
  int32_t stream_id;
  const uint8_t *payload;
} wire_view;

/* Reads the frame at |*pos| and moves on; 0 at the end. */
int wire_next(const wire *w, size_t *pos, wire_view *view);

/* Finds the |nth| (from 0) frame of |type|; fails the test if it is missing. */
wire_view wire_find(const wire *w, uint8_t type, size_t nth);

size_t wire_count(const wire *w, uint8_t type);

uint32_t get_u32(const uint8_t *p);

/* ---- Memory ---- */

/*
 * counting is an allocator that counts what lives and fails the call number
 * |fail_at|, from 0; if |forever| is nonzero, all after it too.
 */
typedef struct counting {
  nghttp2_mem mem;
  size_t calls;
  size_t fail_at;
  int forever;
  size_t failed;
  size_t live;
} counting;

void counting_init(counting *c);

/* ---- One end ---- */

/*
 * seen is an event with copies of all that it names.
 */
typedef struct seen {
  ngp_h2_event event;
  /* fields holds "name=value\n" for each; never-indexed ones have "!" before
     them. */
  wire fields;
  wire data;
  wire data2;
} seen;

/*
 * end is one end of a connection, with what it has told and sent.
 */
typedef struct end {
  ngp_h2 *h2;
  seen *log;
  size_t nlog;
  size_t log_cap;
  /* out is what was sent and not delivered yet. */
  wire out;
  /* limit and by_reference are those of ngp_h2_send(). */
  size_t limit;
  int by_reference;
  /* chunk is how many bytes are fed at a time; 0 is all. */
  size_t chunk;
  /* given and released count the owners given and got back. */
  size_t given;
  size_t released;
  /* nrefs is how many segments were told by reference. */
  size_t nrefs;
} end;

/* Returns what ngp_h2_new() does. */
int end_init(end *e, const ngp_h2_options *options, nghttp2_mem *mem);
void end_free(end *e);

/* Feeds bytes, each piece from a buffer of just its size, and keeps the
   events. */
int end_recv(end *e, const void *data, size_t len);
int end_recv_wire(end *e, const wire *w);

/* Takes all that is to be sent to |e->out|. */
int end_send(end *e);

/* Copies the events not logged yet, and clears them. */
void end_collect(end *e);

/* Takes all owners back, and frees them. */
void end_release(end *e);

void end_forget(end *e);

/* Queues a copy of |len| bytes, owned by the chunk. */
int end_push(end *e, int32_t stream_id, const void *data, size_t len,
             int end_stream);
/* The same with |len| bytes of a pattern: byte i is i % 251. */
int end_push_pattern(end *e, int32_t stream_id, size_t len, int end_stream);

/* The |nth| event of |type| on |stream_id| (-1: on any), or NULL. */
const seen *end_find(const end *e, ngp_h2_event_type type, int32_t stream_id,
                     size_t nth);
/* The first one; fails the test if it is missing. */
const seen *end_saw(const end *e, ngp_h2_event_type type, int32_t stream_id);
size_t end_count(const end *e, ngp_h2_event_type type, int32_t stream_id);

/* Joins the DATA of |stream_id| in |body|; returns how often it ended. */
size_t end_body(const end *e, int32_t stream_id, wire *body);

/* ---- Messages ---- */

#define MAX_NV 64

/*
 * nvlist is a header list for the submit functions, made from the same text
 * that wire_block() takes, which it borrows.
 */
typedef struct nvlist {
  nghttp2_nv nva[MAX_NV];
  size_t nvlen;
} nvlist;

nvlist nv_of(const char *fields);

#define GET ":method=GET\n:scheme=https\n:path=/\n:authority=example.org\n"
#define POST ":method=POST\n:scheme=https\n:path=/\n:authority=example.org\n"
#define HEAD ":method=HEAD\n:scheme=https\n:path=/\n:authority=example.org\n"

int32_t submit_request(end *e, const char *fields, int end_stream);
int submit_response(end *e, int32_t stream_id, const char *fields,
                    int end_stream);
int submit_informational(end *e, int32_t stream_id, const char *fields);
int submit_trailers(end *e, int32_t stream_id, const char *fields);
int32_t submit_push(end *e, int32_t stream_id, const char *fields);

/* ---- Two ends ---- */

/* Returns an end, a server unless |options| say otherwise, that has greeted and
   got the peer's greeting. */
end end_greeted(const ngp_h2_options *options);

typedef struct pair {
  end client;
  end server;
} pair;

/* |client| and |server| may be NULL; the role is set here. */
void pair_init(pair *p, const ngp_h2_options *client,
               const ngp_h2_options *server);
void pair_free(pair *p);

/* Carries bytes both ways until both ends are silent.  Returns the first error
   code. */
int pair_pump(pair *p);

/* Sends the first SETTINGS of both, with NO_RFC7540_PRIORITIES, and pumps. */
void pair_greet(pair *p);

/* How many bytes the ends of pair_connect() are fed at a time; 0 is all. */
extern size_t pair_chunk;

/* Returns two ends that have greeted. */
pair pair_connect(const ngp_h2_options *client, const ngp_h2_options *server);

/* Runs |TESTS| with each of some numbers of bytes a read; adds the number of
   those that fail to |FAILED|. */
#define RUN_IN_PIECES(NAME, TESTS, FAILED)                                     \
  do {                                                                         \
    static const size_t sizes[] = {0, 1, 7};                                   \
    size_t i;                                                                  \
                                                                               \
    for (i = 0; i < sizeof(sizes) / sizeof(*sizes); ++i) {                     \
      pair_chunk = sizes[i];                                                   \
      FAILED += cmocka_run_group_tests_name(                                   \
          pair_chunk ? NAME " in pieces" : NAME, TESTS, NULL, NULL);           \
    }                                                                          \
  } while (0)

/* Calls |RUN_ONCE| with |RUN|, the number of the allocation that is to fail,
   and whether all after it do, until it returns nonzero: there were no more. */
#define FAIL_EACH_ALLOCATION(RUN_ONCE, RUN)                                    \
  do {                                                                         \
    size_t fail_at;                                                            \
    int forever;                                                               \
                                                                               \
    for (forever = 0; forever < 2; ++forever) {                                \
      for (fail_at = 0; !RUN_ONCE(RUN, fail_at, forever); ++fail_at) {         \
      }                                                                        \
      assert_true(fail_at > 10);                                               \
    }                                                                          \
  } while (0)

#define assert_ok(EXPR) assert_int_equal(EXPR, 0)

/* Asserts that the bytes of |W| are those of the string literal |TEXT|. */
#define assert_text(W, TEXT)                                                   \
  do {                                                                         \
    assert_int_equal((W).len, sizeof(TEXT) - 1);                               \
    if ((W).len) {                                                             \
      assert_memory_equal((W).base, TEXT, sizeof(TEXT) - 1);                   \
    }                                                                          \
  } while (0)

#endif /* PAIR_H */
