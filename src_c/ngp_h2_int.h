/*
 * What the files of ngp_h2 share.  SPDX-License-Identifier: MIT
 */
#ifndef NGP_H2_INT_H
#define NGP_H2_INT_H

#include "ngp_body.h"
#include "ngp_h2.h"
#include "ngp_map.h"

/*
 * ngp_h2_header_list is a copy of a header list that is sent later than it was
 * submitted.  The names and values follow |nva| in the same block of memory.
 */
typedef struct ngp_h2_header_list {
  size_t nvlen;
  nghttp2_nv nva[];
} ngp_h2_header_list;

/*
 * ngp_h2_mark is the value and the time of a counter when it was last fast
 * enough: see ngp_h2_pace.c.
 */
typedef struct ngp_h2_mark {
  double since;
  int64_t count;
  /* on is 0 while there is nothing to wait for. */
  uint8_t on;
} ngp_h2_mark;

/*
 * ngp_h2_stream is the record of a stream, from its first frame or the
 * submission of it until nghttp2 closes it.
 */
typedef struct ngp_h2_stream {
  int32_t id;
  /* flags are NGP_H2_FLAG_REMOTE_HEADERS and so on. */
  uint32_t flags;
  /* rst_code is that of the caller's reset. */
  uint32_t rst_code;
  /* fault is the error code for which the peer's message was refused. */
  uint32_t fault;
  /* update_batch and update_event locate the event of a WINDOW_UPDATE: see
     record_update() in ngp_h2_recv_callbacks.c. */
  uint64_t update_batch;
  size_t update_event;
  /* unacked is the number of bytes received and not credited. */
  size_t unacked;
  /* received is the number of bytes of the body received. */
  uint64_t received;
  /* The pace of the incoming body, and of the outgoing one. */
  ngp_h2_mark recv_mark;
  ngp_h2_mark send_mark;
  /* low is the queue length at which a watched body counts as drained. */
  size_t low;
  /* wanted is how many bytes the data provider was last asked for. */
  size_t wanted;
  /* body is the queue; the owners hold its bytes. */
  ngp_body body;
  /* reserved is how much of the queue the stream's own window allows to send:
     see ngp_h2_reserve(). */
  int64_t reserved;
  /* content_length is that of our message, or -1; body_len is how much of its
     body was queued. */
  int64_t content_length;
  int64_t body_len;
  /* trailers wait for the end of the body; owned, or NULL. */
  ngp_h2_header_list *trailers;
  /* response waits for the PUSH_PROMISE of its stream to be sent; owned, or
     NULL. */
  ngp_h2_header_list *response;
  /* priority, a field value, waits for the request to be sent if
     priority_waits is nonzero. */
  ngp_buf priority;
  uint8_t priority_waits;
  uint8_t response_end;
} ngp_h2_stream;

/*
 * ngp_h2_batch has the events recorded since the last clearing, and their
 * fields.  Fields beyond |committed| belong to a block that is still being
 * received.
 */
typedef struct ngp_h2_batch {
  /* Both arrays are owned; a field holds its two buffers. */
  ngp_h2_event *events;
  size_t nevents;
  size_t events_cap;
  ngp_h2_field *fields;
  size_t nfields;
  size_t fields_cap;
  size_t committed;
  /* number counts the clearings, from 1. */
  uint64_t number;
} ngp_h2_batch;

/*
 * ngp_h2_extension is a queued frame's payload.  The connection owns it, in a
 * list; nghttp2 borrows it until the frame is packed.
 */
typedef struct ngp_h2_extension {
  struct ngp_h2_extension *next;
  size_t len;
  uint8_t payload[];
} ngp_h2_extension;

/*
 * ngp_h2_ref is a run of output in a chunk of |owner|, which goes before the
 * byte |offset| of the gather buffer.  Both pointers are borrowed until the
 * output is cleared: no owner is released before that.
 */
typedef struct ngp_h2_ref {
  size_t offset;
  const uint8_t *base;
  size_t len;
  void *owner;
} ngp_h2_ref;

/* Closed streams that are remembered: the peer may still be sending on them
   for a round trip. */
#define NGP_H2_CLOSED 128

/* How many runs of stream ids that the peer has skipped are remembered.  Few
   peers ever skip one. */
#define NGP_H2_SKIPPED 8

/*
 * ngp_h2_id_range is the peer's ids from |first| to before |end|.
 */
typedef struct ngp_h2_id_range {
  int32_t first;
  int32_t end;
} ngp_h2_id_range;

struct ngp_h2 {
  /* mem is borrowed for life, or NULL. */
  nghttp2_mem *mem;
  /* session is owned; its streams' data providers borrow our records. */
  nghttp2_session *session;
  ngp_h2_options options;
  /* streams has an ngp_h2_stream, owned, for each id. */
  ngp_map streams;
  ngp_h2_batch batch;
  ngp_h2_counters counters;
  /* out is the output that ngp_h2_send() has gathered. */
  struct {
    /* bytes gathers frames; refs, owned, are the large body runs between them,
       of refs_len bytes. */
    ngp_buf bytes;
    ngp_h2_ref *refs;
    size_t nrefs;
    size_t refs_cap;
    size_t refs_len;
    /* segments, owned, has room for the output that refs make; whole is the
       output without any. */
    ngp_h2_segment *segments;
    ngp_h2_segment whole;
    /* DATA has to wait while there are data_limit bytes of output or more. */
    size_t data_limit;
    /* by_reference is nonzero while large body runs become refs. */
    uint8_t by_reference;
  } out;
  /* bodies is the state of the bodies of all streams. */
  struct {
    /* tray has the chunks whose owners the caller has to take. */
    ngp_tray tray;
    /* wanted, owned, has the ids of streams whose source is asked. */
    int32_t *wanted;
    size_t nwanted;
    size_t wanted_cap;
    /* queued is the sum of all streams' queues; reserved that of their
       |reserved|. */
    size_t queued;
    int64_t reserved;
    /* sent counts the body bytes of all streams that were sent; send_mark is
       their pace while the connection's window is used up. */
    uint64_t sent;
    ngp_h2_mark send_mark;
  } bodies;
  /* unsent is the number of queued requests. */
  size_t unsent;
  /* block is the header block that is being received. */
  struct {
    size_t bytes;
    /* count is the number of its fields. */
    size_t count;
    /* overflow is nonzero once the block exceeds a bound. */
    uint8_t overflow;
  } block;
  /* ids is the history of stream ids. */
  struct {
    /* last_remote is the highest id that the peer has opened. */
    int32_t last_remote;
    int32_t last_local;
    /* Requests up to waiting_upto did not fit the peer's limit at the last
       send. */
    int32_t waiting_upto;
    /* highest_remote is the highest that the peer has used, whether the stream
       was accepted, refused, or is about to reach nghttp2; skipped holds the
       last runs of ids that it has skipped, and nskipped counts all runs. */
    int32_t highest_remote;
    ngp_h2_id_range skipped[NGP_H2_SKIPPED];
    size_t nskipped;
    /* closed holds the last closed streams: id << 1, and the lowest bit is set
       if we have reset them.  nclosed counts all that ever were. */
    uint32_t closed[NGP_H2_CLOSED];
    size_t nclosed;
  } ids;
  /* window is the flow control of what we send. */
  struct {
    /* remote_initial is the peer's last SETTINGS_INITIAL_WINDOW_SIZE; growth is
       by how much it last grew. */
    uint32_t remote_initial;
    uint32_t growth;
    /* update_batch and update_event are as a stream's, for the connection. */
    uint64_t update_batch;
    size_t update_event;
  } window;
  /* expected counts the frames queued because of this input that are no errors:
     see gather_early() in ngp_h2.c. */
  size_t expected;
  /* extensions, owned, are queued and not packed yet. */
  ngp_h2_extension *extensions;
  /* extension is the payload of an extension frame that is being received. */
  ngp_buf extension;
  struct {
    /* queued is how many GOAWAY of the caller are queued; last is the last
       stream id of the latest. */
    size_t queued;
    int32_t last;
    /* sent is the payload of the last GOAWAY sent: last stream and error code,
       then debug data; it is empty before the first. */
    ngp_buf sent;
    /* dropped is nonzero if the frame that nghttp2 has just sent repeats it,
       and is not output. */
    uint8_t dropped;
    /* terminated is nonzero once the caller has ended the connection: nothing
       is submitted after that, because another GOAWAY would be taken for the
       last one. */
    uint8_t terminated;
  } goaway;
  /* limits is how much of each bound is left to the peer: see
     ngp_h2_bounds.c. */
  struct {
    /* reset_balance is the provoked resets minus the streams that ended
       well. */
    uint32_t reset_balance;
    /* glitch_credit is how many more frames without effect may come. */
    uint64_t glitch_credit;
    /* calm, static text, is the reason to end the connection with
       ENHANCE_YOUR_CALM, or NULL. */
    const char *calm;
  } limits;
  struct {
    /* held is the number of streams whose reset waits; hold is nonzero if only
       ngp_h2_release_resets() releases them. */
    size_t held;
    uint8_t hold;
  } resets;
  /* end is how the connection ends. */
  struct {
    /* reason is the text of the last error, owned, or NULL. */
    uint8_t *reason;
    size_t reason_len;
    /* failed is nonzero once a GOAWAY with |code| was sent that ends the
       connection. */
    uint32_t code;
    uint8_t failed;
    /* dead is nonzero once the session must not be called again, because the
       connection has ended or memory was missing; recorded is nonzero once
       CONNECTION_CLOSED was recorded. */
    uint8_t dead;
    uint8_t recorded;
  } end;
  /* scan is the state of ngp_h2_scan.c. */
  struct {
    /* left is how many bytes of the current frame's payload (at first of the
       client's magic) are still to come; head is an incomplete frame header of
       len bytes.
     */
    size_t left;
    size_t len;
    uint8_t head[9];
    /* An incomplete priority field (RFC 7540, 6.3): prefix_head is its frame's
       header, prefix_want the number of payload bytes up to its end, prefix the
       prefix_len bytes received of these. */
    uint8_t prefix_head[9];
    uint8_t prefix[5];
    size_t prefix_want;
    size_t prefix_len;
    /* self_dependent is the stream of a HEADERS frame that depends on itself,
       or 0. */
    int32_t self_dependent;
    /* serial counts frames, and a header block as one; type is the current
       frame's type, and block is nonzero within a header block. */
    uint32_t serial;
    uint8_t type;
    uint8_t block;
  } scan;
};

/* ---- ngp_h2_stream.c ---- */

static inline ngp_h2_stream *ngp_h2_stream_find(const ngp_h2 *h2, int32_t id) {
  return ngp_map_find(&h2->streams, id);
}

/* Returns NULL for want of memory. */
ngp_h2_stream *ngp_h2_stream_add(ngp_h2 *h2, int32_t id);

/* Forgets |stream|, and moves its queue to the tray. */
void ngp_h2_stream_remove(ngp_h2 *h2, ngp_h2_stream *stream);

/*
 * ngp_h2_stream_ids stores the ids of all streams that have one of |flags|, or
 * of all streams if it is 0, in |*pids|, in order, and their number in |*pn|.
 * The caller frees the array, which is NULL if there are none.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h2_stream_ids(const ngp_h2 *h2, uint32_t flags, int32_t **pids,
                      size_t *pn);

/* Frees everything; bodies must have been abandoned. */
void ngp_h2_streams_free(ngp_h2 *h2);

int ngp_h2_is_local_id(const ngp_h2 *h2, int32_t id);

/* The flags of |stream|, a CONNECT, once it has got 2xx. */
static inline uint32_t ngp_h2_connected(const ngp_h2_stream *stream) {
  return stream->flags & NGP_H2_FLAG_EXTENDED
             ? NGP_H2_FLAG_CONNECTED
             : NGP_H2_FLAG_CONNECTED | NGP_H2_FLAG_TUNNEL;
}

/* Copies a list; NULL for want of memory. */
ngp_h2_header_list *ngp_h2_header_list_new(ngp_h2 *h2, const nghttp2_nv *nva,
                                           size_t nvlen);

/* ---- ngp_h2_event.c ---- */

/*
 * ngp_h2_record appends an event with all members 0.  NULL for want of memory.
 * It is valid until the next call.
 */
ngp_h2_event *ngp_h2_record(ngp_h2 *h2, ngp_h2_event_type type,
                            int32_t stream_id);

/* Sets the data of |event| to a copy of |len| bytes at |data|. */
int ngp_h2_event_copy(ngp_h2 *h2, ngp_h2_event *event, const void *data,
                      size_t len);

/* Drops the fields of a block that was not finished. */
void ngp_h2_block_begin(ngp_h2 *h2);

int ngp_h2_block_add(ngp_h2 *h2, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                     int never_indexed);

/* Moves the block's fields to |event|. */
void ngp_h2_block_commit(ngp_h2 *h2, ngp_h2_event *event);

void ngp_h2_batch_free(ngp_h2 *h2);

/* ---- ngp_h2_fields.c ---- */

/*
 * ngp_h2_check_outgoing checks a list, and marks the fields that must never be
 * indexed.  It stores NGP_H2_FLAG_HEAD, NGP_H2_FLAG_CONNECT and
 * NGP_H2_FLAG_EXTENDED of a request, NGP_H2_FLAG_NO_CONTENT and
 * NGP_H2_FLAG_TUNNEL of a response (the latter as for CONNECT), in |*pflags|,
 * and content-length, or -1, in |*pcontent_length|.
 */
int ngp_h2_check_outgoing(ngp_h2_message message, nghttp2_nv *nva, size_t nvlen,
                          uint32_t *pflags, int64_t *pcontent_length,
                          ngp_h2_header_error *perror);

/*
 * ngp_h2_check_request checks the rules for a received request that nghttp2
 * does not check; it returns the reason to refuse the request, or NULL.
 * |*pflags| is as above, and |*phas_priority| is nonzero if there is a priority
 * field.
 */
const char *ngp_h2_check_request(const ngp_h2_field *fields, size_t nfields,
                                 uint32_t *pflags, int *phas_priority);

/* Checks a received response or trailers in the same way. */
const char *ngp_h2_check_other(ngp_h2_message message, const ngp_h2_field *list,
                               size_t n);

/* Checks a received promise in the same way (RFC 9113, 8.4). */
const char *ngp_h2_check_promise(const ngp_h2_field *fields, size_t nfields);

/* ---- ngp_h2_recv_callbacks.c and ngp_h2_send_callbacks.c ---- */

/* Callbacks return this for want of memory, the one error that they cannot
   handle: nghttp2 then ends the session. */
#define NGP_H2_FAIL NGHTTP2_ERR_CALLBACK_FAILURE

void ngp_h2_set_recv_callbacks(nghttp2_session_callbacks *callbacks);

/* |padding| is nonzero if DATA frames are padded. */
void ngp_h2_set_send_callbacks(nghttp2_session_callbacks *callbacks,
                               int padding);

/* Returns the counter of frames of |type|. */
static inline size_t ngp_h2_frame_slot(uint8_t type) {
  return type < NGP_H2_FRAME_TYPES - 1 ? type : NGP_H2_FRAME_TYPES - 1;
}

/* Returns the data provider of |stream|. */
nghttp2_data_provider2 ngp_h2_data_provider(ngp_h2_stream *stream);

/* ---- ngp_h2.c ---- */

/* Keeps |len| bytes at |text| as the reason of the event that follows. */
void ngp_h2_set_reason(ngp_h2 *h2, const char *text, size_t len);

/*
 * ngp_h2_reset refuses what the peer sent on |stream|: it queues RST_STREAM and
 * records an event with |reason|.
 */
int ngp_h2_reset(ngp_h2 *h2, ngp_h2_stream *stream, uint32_t error_code,
                 const char *reason);

/* Resets a stream that the peer has not opened, which nghttp2 does not do. */
int ngp_h2_reset_idle(ngp_h2 *h2, int32_t id, uint32_t error_code);

/* Records the end of |stream|, gives its unread bytes back to the connection's
   window and forgets it. */
int ngp_h2_close_stream(ngp_h2 *h2, ngp_h2_stream *stream, uint32_t error_code);

/* Returns credit for |n| bytes that the application does not get to the
   connection's window. */
int ngp_h2_return_credit(ngp_h2 *h2, size_t n);

/* Notes that the source of |stream| is asked for |n| bytes. */
int ngp_h2_want(ngp_h2 *h2, ngp_h2_stream *stream, size_t n);

/* Adds a run of output that stays in its chunk. */
int ngp_h2_add_ref(ngp_h2 *h2, const uint8_t *base, size_t len, void *owner);

/* Sends RST_STREAM for the caller. */
int ngp_h2_send_rst(ngp_h2 *h2, ngp_h2_stream *stream);

/* Holds the reset of |stream|, of which our half has ended. */
void ngp_h2_hold(ngp_h2 *h2, ngp_h2_stream *stream);

/* ---- ngp_h2_bounds.c ---- */

/* These return 0, or NGP_H2_FAIL if the connection must be ended: a callback
   returns that to nghttp2. */

/* Must be called when a field was added to the block that is being received. */
int ngp_h2_check_block(ngp_h2 *h2);

/* Counts a frame whose header was received. */
int ngp_h2_count_frame(ngp_h2 *h2, uint8_t type, uint8_t flags,
                       int32_t stream_id, size_t len);

/* Counts |n| frames without effect, or work that costs as much. */
int ngp_h2_glitch(ngp_h2 *h2, size_t n);

void ngp_h2_glitch_init(ngp_h2 *h2);

/* Counts |n| bytes of a body, in either direction. */
void ngp_h2_earn_bytes(ngp_h2 *h2, size_t n);

/* Counts a stream that has ended well. */
void ngp_h2_earn_stream(ngp_h2 *h2);

/* Counts a reset that the peer made us send; returns nghttp2's code. */
int ngp_h2_count_provoked(ngp_h2 *h2);

/* ---- ngp_h2_scan.c ---- */

#define NGP_H2_SELF_DEPENDENT                                                  \
  "a stream must not depend on itself (RFC 7540, 5.3.1)"

/* Remembers that |id| is closed; |ours| is nonzero if by our RST_STREAM. */
void ngp_h2_remember_closed(ngp_h2 *h2, int32_t id, int ours);

/* Notes that the peer uses |id|, one of its own, possibly not for the first
   time. */
void ngp_h2_mark_used(ngp_h2 *h2, int32_t id);

/*
 * ngp_h2_scan passes the input to nghttp2, and returns its error code or 0.  If
 * it finds an error that nghttp2 would ignore, it stops there: |*preason| is
 * the reason, and |*pcode| the error code to end the connection with.
 * Otherwise |*preason| is NULL.
 */
int ngp_h2_scan(ngp_h2 *h2, const uint8_t *data, size_t len,
                const char **preason, uint32_t *pcode);

/* ---- ngp_h2_pace.c ---- */

/* Nonzero if a request has "expect: 100-continue" (RFC 9110, 10.1.1). */
int ngp_h2_expects_continue(const ngp_h2_field *fields, size_t nfields);

/* ---- ngp_h2_submit.c ---- */

/* Must be called when the queue of |stream| or its window has changed. */
void ngp_h2_reserve(ngp_h2 *h2, ngp_h2_stream *stream);

void ngp_h2_reserve_all(ngp_h2 *h2);

void ngp_h2_extension_free(ngp_h2 *h2, ngp_h2_extension *extension);

#endif /* NGP_H2_INT_H */
