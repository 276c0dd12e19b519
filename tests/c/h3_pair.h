/*
 * What the C tests of HTTP/3 share: two ends, with streams that arrive in
 * order between them, and a log of what each saw.
 * SPDX-License-Identifier: MIT
 */
#ifndef H3_PAIR_H
#define H3_PAIR_H

#include "pair.h"

#include "ngp_h3.h"

/*
 * h3_item is one thing on its way to the peer.
 */
typedef struct h3_item {
  struct h3_item *next;
  ngp_h3_op_type type;
  int64_t stream_id;
  uint64_t error_code;
  int end_stream;
  size_t len;
  uint8_t data[];
} h3_item;

/*
 * h3_end is one end.  |log| has a line for each event: its name, the stream,
 * "+" if that has ended, then the fields, or what else there is.
 */
typedef struct h3_end {
  ngp_h3 *h3;
  h3_item *first;
  h3_item *last;
  char log[65536];
  size_t log_len;
} h3_end;

typedef struct h3_pair {
  h3_end client;
  h3_end server;
  /* At most this many bytes come at once; 0 is as many as were sent. */
  size_t chunk;
} h3_pair;

/* Makes both ends and exchanges what they say first.  |change| may be NULL.
   Returns the first error code; h3_pair_free() must follow in any case. */
int h3_pair_init(h3_pair *p, void (*change)(ngp_h3_options *options),
                 nghttp2_mem *mem);

void h3_pair_free(h3_pair *p);

/* Moves the operations of the last call on |e| to its queue. */
void h3_take_ops(h3_end *e);

/* Exchanges until both are silent.  Returns the first error code. */
int h3_pump(h3_pair *p);

/* Gives |len| bytes of a stream to |e|; logs what comes of it. */
int h3_recv(h3_end *e, int64_t stream_id, const void *data, size_t len,
            int end_stream);

/* Tells |e| that a stream was reset, or that nothing more of it is wanted; logs
   what comes of it. */
int h3_reset(h3_end *e, int64_t stream_id, uint64_t error_code);
int h3_stop(h3_end *e, int64_t stream_id, uint64_t error_code);

/* Sends the fields in |text|: "name=value" in lines.  |check| is nonzero. */
int h3_headers(h3_end *e, int64_t stream_id, const char *text, int end_stream);

int h3_data(h3_end *e, int64_t stream_id, const char *text, int end_stream);

int h3_promise(h3_end *e, int64_t stream_id, const char *text,
               int64_t push_stream_id);

/* What the log says since the last call of this. */
const char *h3_log(h3_end *e);

#define H3_GET ":method=GET\n:scheme=https\n:authority=a.example\n:path=/\n"
#define H3_OK ":status=200\nserver=ngp\n"
#define H3_CONNECT                                                             \
  ":method=CONNECT\n:protocol=webtransport\n:scheme=https\n"                   \
  ":authority=a.example\n:path=/\n"

#endif /* H3_PAIR_H */
