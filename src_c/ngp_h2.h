/*
 * One end of an HTTP/2 connection, without I/O: bytes in become events,
 * calls become bytes out.  SPDX-License-Identifier: MIT
 *
 * An ngp_h2 owns one nghttp2_session.  Its callbacks only record events, which
 * the caller reads when the function that caused them has returned.  All
 * functions but ngp_h2_recv() and ngp_h2_send() only queue.
 *
 * An error of the peer is an event, never a return code.
 */
#ifndef NGP_H2_H
#define NGP_H2_H

#include "ngp.h"
#include "ngp_fields.h"

typedef struct ngp_h2 ngp_h2;

/*
 * ngp_h2_options holds the options, which are fixed for the life of a
 * connection.  Zero means the default, unless a member's comment says
 * otherwise.
 */
typedef struct ngp_h2_options {
  /* is_client is nonzero for the client's end. */
  uint8_t is_client;
  /* manual_credit is nonzero if received DATA is only credited to the peer by
     ngp_h2_consume(). */
  uint8_t manual_credit;
  /* default_incremental is nonzero if a stream whose request has no priority
     field shares bandwidth with its like (RFC 9218, 4.2). */
  uint8_t default_incremental;
  /* recv_extensions is nonzero if frames of unknown types are events. */
  uint8_t recv_extensions;
  /* no_deflate_table is nonzero if what we send uses no dynamic table:
     max_deflate_dynamic_table_size 0 means the default. */
  uint8_t no_deflate_table;
  /* no_auto_ping_ack is nonzero if the caller answers PINGs itself. */
  uint8_t no_auto_ping_ack;
  /* lenient_fields is nonzero if white space around received field values is
     allowed: the caller then has to strip it. */
  uint8_t lenient_fields;
  /* HEADERS and DATA payloads are padded to a multiple of pad_multiple bytes
     (RFC 9113, 6.1); 0 means no padding. */
  uint32_t pad_multiple;
  /* max_header_list_bytes bounds the sum of name + value + 32 of a received
     block (RFC 9113, 6.5.2), max_header_list_count its number of fields:
     nghttp2 bounds neither. */
  size_t max_header_list_bytes;
  size_t max_header_list_count;
  /* max_body_queue bounds the bytes queued on a stream.  An empty queue accepts
     a single larger piece, because its bytes exist already. */
  size_t max_body_queue;
  /* max_data_frame bounds the payload of a DATA frame below the peer's
     SETTINGS_MAX_FRAME_SIZE, since nghttp2 keeps a buffer of that size. */
  size_t max_data_frame;
  /* max_provoked_resets is how many streams, in excess of those that end well,
     the peer may make us reset before the connection is ended. */
  uint32_t max_provoked_resets;
  /* max_glitches is how many frames without effect the peer may send, in excess
     of those that the bodies and streams of the connection allow, before the
     connection is ended.  Each second allows 330 more: see
     ngp_h2_time_passed(). */
  uint32_t max_glitches;
  /* These are nghttp2's options of the same names. */
  uint32_t peer_max_concurrent_streams;
  uint32_t max_reserved_remote_streams;
  size_t max_send_header_block_length;
  size_t max_deflate_dynamic_table_size;
  size_t max_outbound_ack;
  size_t max_settings;
  size_t max_continuations;
  size_t max_outbound_queue_size;
  uint64_t stream_reset_burst;
  uint64_t stream_reset_rate;
  uint64_t glitch_burst;
  uint64_t glitch_rate;
} ngp_h2_options;

/*
 * ngp_h2_options_default fills |options| with the defaults; 0 stands for
 * nghttp2's default.
 */
void ngp_h2_options_default(ngp_h2_options *options);

typedef enum ngp_h2_event_type {
  /* A header block is complete: |fields| are set, and |end_stream|. */
  NGP_H2_EVENT_REQUEST = 1,
  NGP_H2_EVENT_RESPONSE,
  NGP_H2_EVENT_INFORMATIONAL,
  NGP_H2_EVENT_TRAILERS,
  /* |other_id| is the promised stream; |fields| its request. */
  NGP_H2_EVENT_PUSH_PROMISE,
  /* |data| is a piece of a body; |end_stream| is nonzero with the
     last. */
  NGP_H2_EVENT_DATA,
  /* The peer (|remote|) or the C library reset the stream.  |unprocessed| is
     nonzero if the peer says that it never acted on it. */
  NGP_H2_EVENT_STREAM_RESET,
  /* The last event of a stream, which is forgotten.  |value| bytes of body were
     sent on it.  |complete| is nonzero if both halves ended by END_STREAM, or
     if the response did and NO_ERROR declined the rest of the request (RFC
     9113, 8.1), whatever ends the stream then.  Otherwise |error_code| is not
     0, unless the caller has reset the stream with 0.
   */
  NGP_H2_EVENT_STREAM_CLOSED,
  /* |stream_id| may send |value| bytes more; 0 is the connection. */
  NGP_H2_EVENT_WINDOW_UPDATE,
  /* |data| holds |value| settings entries: nghttp2_settings_entry[]. */
  NGP_H2_EVENT_SETTINGS,
  NGP_H2_EVENT_SETTINGS_ACK,
  /* |opaque| is set. */
  NGP_H2_EVENT_PING,
  NGP_H2_EVENT_PING_ACK,
  /* |other_id| is the last stream id, |data| the debug data. */
  NGP_H2_EVENT_GOAWAY,
  /* |data| is the priority field value for |other_id|. */
  NGP_H2_EVENT_PRIORITY_UPDATE,
  /* |data| is the origin, |data2| the field value. */
  NGP_H2_EVENT_ALTSVC,
  /* One for each origin of a frame: |data|. */
  NGP_H2_EVENT_ORIGIN,
  /* A frame of a type unknown to nghttp2: |frame_type|, |flags|, |data|. */
  NGP_H2_EVENT_EXTENSION,
  /* The peer's limit of streams has admitted a queued request, and it was
     sent. */
  NGP_H2_EVENT_REQUEST_SENT,
  /* The queue of a stream watched by ngp_h2_watch_body() has fallen to the
     bound. */
  NGP_H2_EVENT_BODY_DRAINED,
  /* The connection has ended; |remote| is 0 if we ended it. |error_code| was
     sent in GOAWAY; |data| is the reason. */
  NGP_H2_EVENT_CONNECTION_CLOSED
} ngp_h2_event_type;

/*
 * ngp_h2_field is a received header field.  Both buffers are held until the
 * event is cleared; a field from the HPACK table has the same pointers as long
 * as it stays there, so they can be the key of a cache that holds them.
 */
typedef struct ngp_h2_field {
  nghttp2_rcbuf *name;
  nghttp2_rcbuf *value;
  /* token is an ngp_token. */
  uint8_t token;
  /* never_indexed is nonzero if the sender has marked the field so (RFC 7541,
     7.1.3). */
  uint8_t never_indexed;
} ngp_h2_field;

/*
 * ngp_h2_event is one event.  Members that its type does not name are 0.
 * |data| of NGP_H2_EVENT_DATA points into the input of ngp_h2_recv();
 * everything else is owned by the event, or static; all of it is borrowed until
 * ngp_h2_clear_events().
 */
typedef struct ngp_h2_event {
  uint8_t type;
  uint8_t end_stream;
  uint8_t remote;
  uint8_t unprocessed;
  uint8_t complete;
  int32_t stream_id;
  int32_t other_id;
  uint32_t error_code;
  const uint8_t *data;
  size_t len;
  const uint8_t *data2;
  size_t len2;
  /* The fields are at ngp_h2_fields() + first_field. */
  size_t first_field;
  size_t nfields;
  int64_t value;
  uint8_t opaque[8];
  uint8_t frame_type;
  uint8_t flags;
  /* owned is the memory of |data| and |data2|, or NULL. */
  uint8_t *owned;
} ngp_h2_event;

/*
 * ngp_h2_counters counts from the beginning of the connection.  The last
 * element counts frames of types above 0x10.
 */
#define NGP_H2_FRAME_TYPES 18
typedef struct ngp_h2_counters {
  uint64_t frames_received[NGP_H2_FRAME_TYPES];
  uint64_t frames_sent[NGP_H2_FRAME_TYPES];
  uint64_t bytes_received;
  uint64_t bytes_sent;
  uint64_t header_bytes_received;
  uint64_t header_block_bytes_received;
  uint64_t header_bytes_sent;
  uint64_t header_block_bytes_sent;
  uint64_t streams_opened;
  uint64_t provoked_resets;
  uint64_t glitches;
} ngp_h2_counters;

/*
 * ngp_h2_segment is a part of the output: bytes of the gather buffer if |owner|
 * is NULL, otherwise of a chunk of |owner|.
 */
typedef struct ngp_h2_segment {
  const uint8_t *base;
  size_t len;
  void *owner;
} ngp_h2_segment;

/* ---- Life ---- */

/*
 * ngp_h2_new makes a connection in |*ph2|.  |options| is borrowed for the
 * call, |mem| (NULL for malloc) until ngp_h2_del() and until the last held
 * field is cleared.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h2_new(ngp_h2 **ph2, const ngp_h2_options *options, nghttp2_mem *mem);

/*
 * ngp_h2_del frees |h2|, which may be NULL.  The owners of all bodies must
 * have been taken: see ngp_h2_abandon_bodies().
 */
void ngp_h2_del(ngp_h2 *h2);

/* ---- Bytes and events ---- */

/*
 * ngp_h2_recv processes up to |len| bytes at |data| and stores in |*pconsumed|
 * how many it has processed: at most 64 KiB, which bounds the events.  Read the
 * events, clear them and call again with the rest.  After a connection error
 * the bytes behind it count as consumed.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.  The connection is closed.
 * NGP_ERR_CONNECTION_CLOSED
 *     The connection was closed before; nothing was processed.
 */
int ngp_h2_recv(ngp_h2 *h2, const uint8_t *data, size_t len, size_t *pconsumed);

/*
 * ngp_h2_recv_eof reports that the peer will send nothing more: it closes every
 * stream with |error_code|, and the connection.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h2_recv_eof(ngp_h2 *h2, uint32_t error_code);

/*
 * ngp_h2_send gathers frames, in order, until none is left or at least
 * |limit| bytes are gathered.  If |by_reference| is nonzero, body bytes of
 * large chunks stay where they are and become segments of their own.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM, after which
 * the connection is closed.
 */
int ngp_h2_send(ngp_h2 *h2, size_t limit, int by_reference);

/*
 * ngp_h2_output returns the gathered bytes as |*pn| segments, borrowed until
 * ngp_h2_clear_output() or the next ngp_h2_send() or ngp_h2_recv(), and stores
 * the sum of their lengths in |*plen|.  It returns NULL if there are none.
 */
const ngp_h2_segment *ngp_h2_output(ngp_h2 *h2, size_t *pn, size_t *plen);

void ngp_h2_clear_output(ngp_h2 *h2);

/*
 * ngp_h2_take_owner returns the owner of a finished chunk, which then belongs
 * to the caller; NULL if there is none, or while segments of the output may
 * point into one: see ngp_h2_clear_output().
 */
void *ngp_h2_take_owner(ngp_h2 *h2);

/*
 * ngp_h2_abandon_bodies drops all queued body bytes, and those gathered by
 * reference, so that every owner can be taken.  Only ngp_h2_del() may follow.
 */
void ngp_h2_abandon_bodies(ngp_h2 *h2);

const ngp_h2_event *ngp_h2_events(const ngp_h2 *h2, size_t *pn);

const ngp_h2_field *ngp_h2_fields(const ngp_h2 *h2);

void ngp_h2_clear_events(ngp_h2 *h2);

/*
 * ngp_h2_take_wanted finds a stream that has a source, has nothing queued and
 * could send now, and stores its id in |*pstream_id| and the number of bytes in
 * |*pn|.  It returns 0 if there is none.
 */
int ngp_h2_take_wanted(ngp_h2 *h2, int32_t *pstream_id, size_t *pn);

/* ---- Sending messages ---- */

/*
 * ngp_h2_header_error is the reason why a header list was refused.
 */
typedef struct ngp_h2_header_error {
  /* index is the field's index in the list, or the list's length if a field is
     missing. */
  size_t index;
  /* reason is static text. */
  const char *reason;
} ngp_h2_header_error;

typedef enum ngp_h2_message {
  NGP_H2_MESSAGE_REQUEST,
  NGP_H2_MESSAGE_RESPONSE,
  NGP_H2_MESSAGE_INFORMATIONAL,
  NGP_H2_MESSAGE_TRAILERS,
  /* A promised request, to which more rules apply. */
  NGP_H2_MESSAGE_PROMISE
} ngp_h2_message;

/*
 * Common to the functions that send header fields: |nva| is borrowed for the
 * call, and names may have upper case letters, which are sent in lower case.
 * They check the list (RFC 9113, 8.2 and 8.3), and besides the codes that each
 * one names return
 *
 * NGP_ERR_BAD_HEADERS
 *     The list must not be sent; |*perror| is the reason.
 * NGP_ERR_CONNECTION_CLOSED
 *     The connection accepts no more calls.
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGHTTP2_ERR_INVALID_STREAM_ID
 *     There never was such a stream.
 * NGHTTP2_ERR_STREAM_CLOSED
 *     The stream, or our half of it, is closed.
 * NGHTTP2_ERR_INVALID_STREAM_STATE
 *     The message is not allowed in the stream's state.
 */

/*
 * ngp_h2_submit_request queues a request and returns its stream id (> 0), or
 * a negative code.  If |end_stream| is 0 its body is fed by
 * ngp_h2_queue_body().
 */
int32_t ngp_h2_submit_request(ngp_h2 *h2, nghttp2_nv *nva, size_t nvlen,
                              int end_stream, ngp_h2_header_error *perror);

/*
 * ngp_h2_submit_response queues a final response.  It returns
 * NGP_ERR_BODY_LENGTH if |end_stream| is nonzero and content-length announces a
 * body.
 */
int ngp_h2_submit_response(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                           size_t nvlen, int end_stream,
                           ngp_h2_header_error *perror);

int ngp_h2_submit_informational(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                                size_t nvlen, ngp_h2_header_error *perror);

/*
 * ngp_h2_submit_trailers ends the stream with a trailer section, after its
 * queued body.  It returns NGP_ERR_BODY_LENGTH if the body differs from
 * content-length.
 */
int ngp_h2_submit_trailers(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                           size_t nvlen, ngp_h2_header_error *perror);

/*
 * ngp_h2_check_trailers returns what ngp_h2_submit_trailers() would return
 * after |len| more bytes of the body; |len| is SIZE_MAX if their number is not
 * known yet.
 */
int ngp_h2_check_trailers(ngp_h2 *h2, int32_t stream_id, nghttp2_nv *nva,
                          size_t nvlen, size_t len,
                          ngp_h2_header_error *perror);

/*
 * ngp_h2_submit_push_promise promises a response on a new stream, whose id it
 * returns (> 0), or a negative code:
 *
 * NGHTTP2_ERR_PUSH_DISABLED
 *     The peer accepts no pushes.
 */
int32_t ngp_h2_submit_push_promise(ngp_h2 *h2, int32_t stream_id,
                                   nghttp2_nv *nva, size_t nvlen,
                                   ngp_h2_header_error *perror);

/*
 * ngp_h2_queue_body queues |len| bytes at |data| as body of |stream_id|, and
 * its end if |end_stream| is nonzero.  The bytes are not copied: on success
 * |owner| is held until ngp_h2_take_owner() gives it back.  On failure the
 * caller keeps it.  With |len| 0 nothing is held, and |owner| stays with the
 * caller.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM, NGP_ERR_CONNECTION_CLOSED, NGHTTP2_ERR_INVALID_STREAM_ID,
 * NGHTTP2_ERR_STREAM_CLOSED, NGHTTP2_ERR_INVALID_STREAM_STATE
 *     As above; the last one means that no header section was sent yet.
 * NGP_ERR_BODY_FULL
 *     The queue is at its bound.
 * NGP_ERR_BODY_LENGTH
 *     The body would differ from the content-length that was sent.
 */
int ngp_h2_queue_body(ngp_h2 *h2, int32_t stream_id, const uint8_t *data,
                      size_t len, void *owner, int end_stream);

/*
 * ngp_h2_queue_data does the same with at most ngp_h2_sendable() bytes.  The
 * peer's windows bound those, so max_body_queue does not apply.
 */
int ngp_h2_queue_data(ngp_h2 *h2, int32_t stream_id, const uint8_t *data,
                      size_t len, void *owner, int end_stream);

/*
 * ngp_h2_body_lengths stores the content-length of what is sent on |stream_id|,
 * or -1, in |*pexpected|, and the number of bytes queued so far in |*pqueued|.
 */
void ngp_h2_body_lengths(ngp_h2 *h2, int32_t stream_id, int64_t *pexpected,
                         int64_t *pqueued);

/*
 * ngp_h2_set_source sets whether the body of |stream_id| comes from a source,
 * which ngp_h2_take_wanted() then reports.
 *
 * This function returns 0 if it succeeds, or as ngp_h2_queue_body().
 */
int ngp_h2_set_source(ngp_h2 *h2, int32_t stream_id, int has_source);

/*
 * ngp_h2_watch_body requests NGP_H2_EVENT_BODY_DRAINED for when at most |low|
 * bytes are queued on |stream_id|.  It returns nonzero if that is so already,
 * or if there is no such stream.
 */
int ngp_h2_watch_body(ngp_h2 *h2, int32_t stream_id, size_t low);

/*
 * ngp_h2_queued_body returns the body bytes queued on |stream_id|, or on all
 * streams if it is 0.
 */
size_t ngp_h2_queued_body(ngp_h2 *h2, int32_t stream_id);

/*
 * ngp_h2_sendable returns how many body bytes could be queued on |stream_id|
 * now and all be sent without another WINDOW_UPDATE.
 */
size_t ngp_h2_sendable(ngp_h2 *h2, int32_t stream_id);

/*
 * ngp_h2_under_way returns nonzero if all body bytes that are queued on
 * |stream_id| will be sent without another WINDOW_UPDATE.
 */
int ngp_h2_under_way(ngp_h2 *h2, int32_t stream_id);

/*
 * ngp_h2_submit_rst resets |stream_id|.  What is queued on it is dropped,
 * except a complete response whose body was queued by ngp_h2_queue_data() only:
 * that is sent first.  If |after_end| is nonzero, the reset waits until our
 * half has ended and that output was cleared (a client that reads both at once
 * may lose the response), and is not sent if the peer's half has ended by then.
 *
 * This function returns 0 if it succeeds or the stream is closed already, or
 * one of the codes above.
 */
int ngp_h2_submit_rst(ngp_h2 *h2, int32_t stream_id, uint32_t error_code,
                      int after_end);

/*
 * ngp_h2_hold_resets sets whether resets that follow a response wait for
 * ngp_h2_release_resets(), so that the caller can delay them; otherwise
 * ngp_h2_send() releases those of earlier calls.
 */
void ngp_h2_hold_resets(ngp_h2 *h2, int hold);

/*
 * ngp_h2_release_resets queues the resets that wait, or, if |all| is 0, those
 * that waited already at the previous call.  It returns 0 or NGHTTP2_ERR_NOMEM.
 */
int ngp_h2_release_resets(ngp_h2 *h2, int all);

/*
 * ngp_h2_held_resets returns how many resets wait.
 */
size_t ngp_h2_held_resets(const ngp_h2 *h2);

/* ---- Receive credit ---- */

/*
 * ngp_h2_consume gives credit for |n| received bytes of |stream_id|, under
 * manual credit.  Bytes of a closed stream are ignored, because its unread
 * bytes went back to the connection's window when it closed.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_INVALID_ARGUMENT
 *     More than was received would be credited.
 * NGHTTP2_ERR_INVALID_STREAM_ID, NGP_ERR_CONNECTION_CLOSED, NGHTTP2_ERR_NOMEM
 */
int ngp_h2_consume(ngp_h2 *h2, int32_t stream_id, size_t n);

/*
 * ngp_h2_unacked returns the bytes received on |stream_id| and not credited.
 */
size_t ngp_h2_unacked(ngp_h2 *h2, int32_t stream_id);

/* ---- Streams ---- */

typedef enum ngp_h2_stream_state {
  /* No frame has opened it yet. */
  NGP_H2_STATE_IDLE,
  NGP_H2_STATE_OPEN,
  NGP_H2_STATE_CLOSED
} ngp_h2_stream_state;

/* Flags of a stream record. */
#define NGP_H2_FLAG_REMOTE_HEADERS 0x01U
#define NGP_H2_FLAG_REMOTE_END 0x02U
#define NGP_H2_FLAG_LOCAL_HEADERS 0x04U
#define NGP_H2_FLAG_LOCAL_END 0x08U
#define NGP_H2_FLAG_LOCAL_END_SENT 0x10U
#define NGP_H2_FLAG_RESET_LOCAL 0x20U
#define NGP_H2_FLAG_RESET_REMOTE 0x40U
/* The C library resets it, or we do because of an error of the peer. */
#define NGP_H2_FLAG_DOOMED 0x80U
#define NGP_H2_FLAG_HEAD 0x100U
#define NGP_H2_FLAG_CONNECT 0x200U
/* PUSH_PROMISE, or a request over the peer's limit, waits in the queue. */
#define NGP_H2_FLAG_UNSENT 0x400U
#define NGP_H2_FLAG_PUSHED 0x800U
#define NGP_H2_FLAG_SOURCE 0x1000U
#define NGP_H2_FLAG_DEFERRED 0x2000U
#define NGP_H2_FLAG_WATCHED 0x4000U
#define NGP_H2_FLAG_RST_AFTER_END 0x8000U
#define NGP_H2_FLAG_WANTS 0x10000U
/* Its reset was reported. */
#define NGP_H2_FLAG_RESET_REPORTED 0x20000U
/* CONNECT with :protocol (RFC 8441). */
#define NGP_H2_FLAG_EXTENDED 0x40000U
/* The response has no content, whatever its content-length (RFC 9110, 6.4.1).
 */
#define NGP_H2_FLAG_NO_CONTENT 0x80000U
/* CONNECT without :protocol got 2xx: only DATA may follow (RFC 9113, 8.5).
   After an extended CONNECT, its protocol decides (RFC 8441, 4). */
#define NGP_H2_FLAG_TUNNEL 0x100000U
/* Its reset waits for a later ngp_h2_send(). */
#define NGP_H2_FLAG_HELD 0x200000U
/* The caller has reset it: only its end is still reported, and the queued
   response goes out first. */
#define NGP_H2_FLAG_MUTED 0x400000U
/* CONNECT of either kind got 2xx: END_STREAM ends one direction. */
#define NGP_H2_FLAG_CONNECTED 0x800000U
/* ngp_h2_queue_body() has queued some of its body: a reset drops that. */
#define NGP_H2_FLAG_QUEUES 0x1000000U
/* Its reset waited at the last ngp_h2_release_resets(). */
#define NGP_H2_FLAG_AGED 0x2000000U
/* Its client has announced to wait for 100 (Continue) before the body. */
#define NGP_H2_FLAG_EXPECTS_100 0x4000000U

/*
 * ngp_h2_stream_get returns the state of |stream_id|, and stores the flags of
 * an open stream in |*pflags|.
 */
ngp_h2_stream_state ngp_h2_stream_get(ngp_h2 *h2, int32_t stream_id,
                                      uint32_t *pflags);

/*
 * ngp_h2_stream_count returns the number of streams that are not closed, and
 * stores how many of them are unsent requests in |*pqueued|, unless that is
 * NULL.
 */
size_t ngp_h2_stream_count(const ngp_h2 *h2, size_t *pqueued);

/* ---- The connection ---- */

/*
 * ngp_h2_session returns the session, for calls that only read its state.
 */
nghttp2_session *ngp_h2_session(ngp_h2 *h2);

const ngp_h2_counters *ngp_h2_get_counters(const ngp_h2 *h2);

/*
 * ngp_h2_alive returns nonzero until the connection has failed or ended.
 */
int ngp_h2_alive(const ngp_h2 *h2);

/*
 * ngp_h2_mid_frame returns 0 unless a frame or header block was received only
 * in part: then it returns a number that differs for each of them.  The payload
 * of DATA does not count.
 */
uint32_t ngp_h2_mid_frame(const ngp_h2 *h2);

/*
 * ngp_h2_bounds sets how fast bodies must be: a body may have less than
 * |min_rate| bytes a second for less than |body| or |response| seconds. 0 means
 * no bound.
 */
typedef struct ngp_h2_bounds {
  /* body is for requests whose response has not begun; time in which we
     withhold credit does not count. */
  double body;
  /* response is for what we send while the peer's windows block it. */
  double response;
  double min_rate;
} ngp_h2_bounds;

/*
 * ngp_h2_pace is the result of ngp_h2_check_pace().
 */
typedef struct ngp_h2_pace {
  /* slow is the number of streams that are too slow. */
  size_t slow;
  /* stalled is nonzero if the connection's window blocks all bodies. */
  int stalled;
  /* watched is nonzero if there is a body to check again. */
  int watched;
} ngp_h2_pace;

/*
 * ngp_h2_check_pace checks all bodies; |now| is in seconds of a monotonic
 * clock.  It must be called at least four times within the shorter bound.
 * Streams that are too slow are reset with CANCEL if |reset| is nonzero.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h2_check_pace(ngp_h2 *h2, double now, const ngp_h2_bounds *bounds,
                      int reset, ngp_h2_pace *ppace);

int ngp_h2_want_read(ngp_h2 *h2);
int ngp_h2_want_write(ngp_h2 *h2);

/*
 * ngp_h2_time_passed reports that |seconds| more have passed, since there is no
 * clock here.  It allows more glitches, so that keep-alive does not end an idle
 * connection.
 */
void ngp_h2_time_passed(ngp_h2 *h2, uint32_t seconds);

/*
 * The functions below queue a frame.  They return 0, or nghttp2's code, or
 * NGP_ERR_CONNECTION_CLOSED.
 */
int ngp_h2_submit_settings(ngp_h2 *h2, const nghttp2_settings_entry *iv,
                           size_t niv);
int ngp_h2_submit_ping(ngp_h2 *h2, const uint8_t *opaque, int ack);

/*
 * ngp_h2_submit_goaway announces that streams above |last_stream_id| will not
 * be served; the others continue. -1 stands for the last stream that the peer
 * opened.  A GOAWAY that repeats the previous one is not sent.
 */
int ngp_h2_submit_goaway(ngp_h2 *h2, int32_t last_stream_id,
                         uint32_t error_code, const uint8_t *debug, size_t len);
int ngp_h2_submit_shutdown_notice(ngp_h2 *h2);

/*
 * ngp_h2_terminate sends what was submitted before, then GOAWAY, and nothing
 * after that.  Calls that submit frames fail with NGP_ERR_CONNECTION_CLOSED
 * from then on; frames of open streams are dropped with their streams.
 */
int ngp_h2_terminate(ngp_h2 *h2, uint32_t error_code);

int ngp_h2_submit_window_update(ngp_h2 *h2, int32_t stream_id,
                                int32_t increment);
int ngp_h2_set_local_window_size(ngp_h2 *h2, int32_t stream_id, int32_t size);

/*
 * ngp_h2_upgrade makes stream 1 out of an HTTP/1.1 request that carried
 * |settings| (RFC 7540, 3.2).  At the server the caller has to report the
 * request to the application itself.
 */
int ngp_h2_upgrade(ngp_h2 *h2, const uint8_t *settings, size_t len,
                   int head_request);

/*
 * ngp_h2_submit_priority_update changes the priority of a request or a promised
 * push; if the request is still queued, the frame follows it.
 *
 * This function returns 0 if it succeeds or the stream is closed already, as
 * above, or
 *
 * NGHTTP2_ERR_INVALID_ARGUMENT
 *     The value is too long for a frame.
 * NGHTTP2_ERR_INVALID_STREAM_ID
 *     There never was such a stream.
 * NGHTTP2_ERR_INVALID_STATE
 *     A server sends none.
 */
int ngp_h2_submit_priority_update(ngp_h2 *h2, int32_t stream_id,
                                  const uint8_t *value, size_t len);

/*
 * ngp_h2_set_priority overrides the priority of |stream_id| (RFC 9218, 8), and,
 * if |ignore_client| is nonzero, ignores later signals of the client.
 */
int ngp_h2_set_priority(ngp_h2 *h2, int32_t stream_id, uint32_t urgency,
                        int incremental, int ignore_client);

/*
 * ngp_h2_get_priority returns NGHTTP2_ERR_INVALID_STATE if the C library does
 * not support it.
 */
int ngp_h2_get_priority(ngp_h2 *h2, int32_t stream_id, uint32_t *purgency,
                        int *pincremental);

int ngp_h2_submit_altsvc(ngp_h2 *h2, int32_t stream_id, const uint8_t *origin,
                         size_t origin_len, const uint8_t *value, size_t len);
int ngp_h2_submit_origin(ngp_h2 *h2, const nghttp2_origin_entry *ov,
                         size_t nov);

/*
 * ngp_h2_submit_extension queues a frame of a |type| above those of RFC 9113.
 * The payload is copied.
 */
int ngp_h2_submit_extension(ngp_h2 *h2, uint8_t type, uint8_t flags,
                            int32_t stream_id, const uint8_t *payload,
                            size_t len);

#endif /* NGP_H2_H */
