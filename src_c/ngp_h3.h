/*
 * ngp_h3: one end of an HTTP/3 connection (RFC 9114), without a transport.
 * SPDX-License-Identifier: MIT
 *
 * Bytes of QUIC streams enter by ngp_h3_recv_stream() and its siblings, which
 * record events; calls of the application enter by ngp_h3_send_*().  Both
 * record operations: what the QUIC connection must do, in this order.
 *
 * Stream identifiers are the QUIC connection's: the caller gets one from it
 * before a call here that opens a stream.
 */
#ifndef NGP_H3_H
#define NGP_H3_H

#include "ngp_h3_fields.h"
#include "ngp_qpack.h"

typedef struct ngp_h3 ngp_h3;

typedef enum ngp_h3_error {
  /* The peer has broken the protocol: ngp_h3_closing() returns how. */
  NGP_H3_ERR_PROTOCOL = -2111,
  /* The frame is not allowed in this state of the stream. */
  NGP_H3_ERR_FRAME_UNEXPECTED = -2112,
  /* The call does not apply to streams of this kind. */
  NGP_H3_ERR_STREAM_TYPE = -2113,
  /* All push identifiers that the peer allowed are used up. */
  NGP_H3_ERR_NO_PUSH_ID = -2114,
  /* The peer has not enabled what the call needs. */
  NGP_H3_ERR_NOT_ENABLED = -2115,
  /* The peer accepts no more requests, or the connection is closing. */
  NGP_H3_ERR_GOING_AWAY = -2116,
  /* Only the other role may make this call. */
  NGP_H3_ERR_ROLE = -2117,
  /* A number is outside its range. */
  NGP_H3_ERR_RANGE = -2118,
  /* The body does not fit its content-length: ngp_h3_body_error() has both. */
  NGP_H3_ERR_BODY_LENGTH = -2119,
  /* The peer's SETTINGS, on which the call depends, have not arrived. */
  NGP_H3_ERR_NO_SETTINGS = -2120
} ngp_h3_error;

const char *ngp_h3_strerror(int code);

/* Error codes of HTTP/3 that we send (RFC 9114, 8.1; RFC 9204, 6; RFC 9297,
   5.2; draft-ietf-webtrans-http3, 9.5). */
#define NGP_H3_DATAGRAM_ERROR 0x33u
#define NGP_H3_GENERAL_PROTOCOL_ERROR 0x101u
#define NGP_H3_STREAM_CREATION_ERROR 0x103u
#define NGP_H3_CLOSED_CRITICAL_STREAM 0x104u
#define NGP_H3_FRAME_UNEXPECTED 0x105u
#define NGP_H3_FRAME_ERROR 0x106u
#define NGP_H3_EXCESSIVE_LOAD 0x107u
#define NGP_H3_ID_ERROR 0x108u
#define NGP_H3_SETTINGS_ERROR 0x109u
#define NGP_H3_MISSING_SETTINGS 0x10au
#define NGP_H3_REQUEST_REJECTED 0x10bu
#define NGP_H3_REQUEST_INCOMPLETE 0x10du
#define NGP_H3_MESSAGE_ERROR 0x10eu
#define NGP_H3_QPACK_DECOMPRESSION_FAILED 0x200u
#define NGP_H3_QPACK_ENCODER_STREAM_ERROR 0x201u
#define NGP_H3_QPACK_DECODER_STREAM_ERROR 0x202u
#define NGP_H3_WT_BUFFERED_STREAM_REJECTED 0x3994bd84u
#define NGP_H3_WT_SESSION_GONE 0x170d7b68u

/* Frame types (RFC 9114, 7.2; RFC 9218, 7.2; RFC 9412, 2.1). */
#define NGP_H3_FRAME_DATA 0x0u
#define NGP_H3_FRAME_HEADERS 0x1u
#define NGP_H3_FRAME_CANCEL_PUSH 0x3u
#define NGP_H3_FRAME_SETTINGS 0x4u
#define NGP_H3_FRAME_PUSH_PROMISE 0x5u
#define NGP_H3_FRAME_GOAWAY 0x7u
#define NGP_H3_FRAME_ORIGIN 0xcu
#define NGP_H3_FRAME_MAX_PUSH_ID 0xdu
#define NGP_H3_FRAME_WEBTRANSPORT 0x41u
#define NGP_H3_FRAME_PRIORITY_UPDATE_REQUEST 0xf0700u
#define NGP_H3_FRAME_PRIORITY_UPDATE_PUSH 0xf0701u

/* Settings (RFC 9114, 7.2.4.1; RFC 9204, 5; RFC 9220, 3; RFC 9297, 2.1.1).
   The last is that of draft-ietf-webtrans-http3-02. */
#define NGP_H3_SETTING_QPACK_MAX_TABLE_CAPACITY 0x1u
#define NGP_H3_SETTING_MAX_FIELD_SECTION_SIZE 0x6u
#define NGP_H3_SETTING_QPACK_BLOCKED_STREAMS 0x7u
#define NGP_H3_SETTING_ENABLE_CONNECT_PROTOCOL 0x8u
#define NGP_H3_SETTING_H3_DATAGRAM 0x33u
#define NGP_H3_SETTING_ENABLE_WEBTRANSPORT 0x2b603742u

/* What a stream carries.  The first five are the types that unidirectional
   streams name themselves (RFC 9114, 6.2). */
#define NGP_H3_STREAM_CONTROL 0x0u
#define NGP_H3_STREAM_PUSH 0x1u
#define NGP_H3_STREAM_QPACK_ENCODER 0x2u
#define NGP_H3_STREAM_QPACK_DECODER 0x3u
#define NGP_H3_STREAM_WEBTRANSPORT 0x54u
/* A bidirectional stream, unless its first frame makes it another type. */
#define NGP_H3_STREAM_REQUEST (1ull << 62)
/* A bidirectional stream of WebTransport. */
#define NGP_H3_STREAM_WEBTRANSPORT_BIDI ((1ull << 62) + 1)
/* The type of a unidirectional stream has not arrived. */
#define NGP_H3_STREAM_NO_TYPE ((1ull << 62) + 2)
/* A stream whose bytes are dropped. */
#define NGP_H3_STREAM_IGNORED ((1ull << 62) + 3)

/* No push identifier. */
#define NGP_H3_NO_ID (-1)

/*
 * ngp_h3_options holds the options of a connection. ngp_h3_options_default()
 * fills it; the reason of each bound is there.
 */
typedef struct ngp_h3_options {
  /* is_client is nonzero for the client's end. */
  uint8_t is_client;
  /* webtransport is nonzero if we announce WebTransport. */
  uint8_t webtransport;
  /* extended is nonzero if events beyond those of aioquic are recorded, and
     WebTransport sessions are kept. */
  uint8_t extended;
  /* stream_errors is nonzero if a malformed message, and a field section over
     its bounds, ends only its stream (RFC 9114, 4.1.2), by
     NGP_H3_EVENT_ABORTED.  Otherwise it closes the connection, as with
     aioquic. */
  uint8_t stream_errors;
  /* spaces is nonzero if received values may have white space around them. */
  uint8_t spaces;
  /* log is nonzero if NGP_H3_EVENT_LOG_* are recorded. */
  uint8_t log;
  /* qpack_capacity and qpack_blocked_streams are what we announce for our QPACK
     decoder. */
  size_t qpack_capacity;
  size_t qpack_blocked_streams;
  /* qpack_encoder_capacity bounds what our QPACK encoder uses. */
  size_t qpack_encoder_capacity;
  /* max_field_section_size bounds the size of one field section, encoded and
     decoded. */
  uint64_t max_field_section_size;
  /* max_field_count bounds the number of fields of one. */
  size_t max_field_count;
  /* max_buffered bounds the bytes that wait on all streams: for the rest of a
     field section, for the encoder stream, for a WebTransport session. */
  size_t max_buffered;
  /* max_sessions bounds the WebTransport sessions that are open at once, if
     they are kept; requests for more are rejected. */
  uint32_t max_sessions;
  /* max_glitches bounds the frames without effect. */
  uint32_t max_glitches;
  /* max_reset_streams bounds the requests, in excess of those that end well,
     that the peer resets before they are answered, does not finish, or makes us
     refuse. */
  uint32_t max_reset_streams;
} ngp_h3_options;

void ngp_h3_options_default(ngp_h3_options *options);

typedef enum ngp_h3_event_type {
  /* A field section: stream_id, push_id, end_stream, fields. */
  NGP_H3_EVENT_HEADERS,
  /* A piece of a body: stream_id, push_id, end_stream, data. */
  NGP_H3_EVENT_DATA,
  /* stream_id, push_id, fields. */
  NGP_H3_EVENT_PUSH_PROMISE,
  /* stream_id, data. */
  NGP_H3_EVENT_DATAGRAM,
  /* stream_id, session_id, end_stream, data. */
  NGP_H3_EVENT_WEBTRANSPORT_DATA,
  /* ngp_h3_peer_settings() has them. */
  NGP_H3_EVENT_SETTINGS,

  /* The following are recorded if options.extended is set. */
  /* value is the first identifier that was not and will not be processed. */
  NGP_H3_EVENT_GOAWAY,
  /* value is the new maximum. */
  NGP_H3_EVENT_MAX_PUSH_ID,
  /* push_id. */
  NGP_H3_EVENT_CANCEL_PUSH,
  /* stream_id or push_id (the other is NGP_H3_NO_ID), data is the field
     value. */
  NGP_H3_EVENT_PRIORITY_UPDATE,
  /* data is the payload of an ORIGIN frame, whose form has been checked. */
  NGP_H3_EVENT_ORIGIN,
  /* stream_id, session_id, value is the code. */
  NGP_H3_EVENT_STREAM_RESET,
  /* The same. */
  NGP_H3_EVENT_STOP_SENDING,
  /* stream_id is the session's; value is the type, data the value. */
  NGP_H3_EVENT_CAPSULE,
  /* stream_id. */
  NGP_H3_EVENT_SESSION_DRAINED,
  /* stream_id; value is the application's error code, data its message. */
  NGP_H3_EVENT_SESSION_CLOSED,

  /* Recorded if options.stream_errors is set: we have ended both sides of a
     stream because of what came in on it.  stream_id, push_id, value is the
     code, data the reason. */
  NGP_H3_EVENT_ABORTED,

  /* The following are recorded if options.log is set. */
  /* stream_id, value is the length. */
  NGP_H3_EVENT_LOG_DATA_FRAME,
  /* stream_id, push_id, value is the type. */
  NGP_H3_EVENT_LOG_STREAM_TYPE
} ngp_h3_event_type;

/*
 * ngp_h3_event is one event that processing input has caused.  Its pointers are
 * borrowed from the input and from the connection, until the next call of a
 * function whose connection is not const.
 */
typedef struct ngp_h3_event {
  ngp_h3_event_type type;
  /* end_stream is nonzero if the peer sends nothing more on the stream. */
  uint8_t end_stream;
  int64_t stream_id;
  int64_t push_id;
  /* session_id is that of a WebTransport stream. */
  int64_t session_id;
  uint64_t value;
  const uint8_t *data;
  size_t len;
  /* The fields are ngp_h3_fields() from |field| on. */
  size_t field;
  size_t nfields;
  /* frame_len is the length of the payload for HEADERS and PUSH_PROMISE. */
  uint64_t frame_len;
} ngp_h3_event;

typedef enum ngp_h3_op_type {
  /* Send |len| bytes, then end the stream if |end_stream|. */
  NGP_H3_OP_SEND,
  /* Reset our side with |error_code|. */
  NGP_H3_OP_RESET,
  /* Ask the peer to stop sending, with |error_code|. */
  NGP_H3_OP_STOP
} ngp_h3_op_type;

/*
 * ngp_h3_op is one operation that the QUIC connection must do.  The bytes that
 * it sends are in ngp_h3_output() from |offset| on.
 */
typedef struct ngp_h3_op {
  ngp_h3_op_type type;
  uint8_t end_stream;
  /* best_effort is nonzero if the stream may be gone at the QUIC layer,
     because the application writes to it without telling us. */
  uint8_t best_effort;
  int64_t stream_id;
  uint64_t error_code;
  size_t offset;
  size_t len;
} ngp_h3_op;

typedef struct ngp_h3_setting {
  uint64_t id;
  uint64_t value;
} ngp_h3_setting;

/*
 * ngp_h3_new makes a connection. |mem| is borrowed until ngp_h3_del(); NULL
 * means the C library's allocator.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h3_new(ngp_h3 **ph3, const ngp_h3_options *options, nghttp2_mem *mem);

void ngp_h3_del(ngp_h3 *h3);

const ngp_h3_options *ngp_h3_get_options(const ngp_h3 *h3);

/*
 * ngp_h3_open opens the local stream of |type|, one of CONTROL, QPACK_ENCODER
 * and QPACK_DECODER, as |stream_id|.  All three must be open before anything
 * else is sent or received.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h3_open(ngp_h3 *h3, uint64_t type, int64_t stream_id);

/*
 * ngp_h3_send_settings sends SETTINGS.  It must follow ngp_h3_open() of the
 * control stream.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_RANGE
 *     A number does not fit in a variable-length integer.
 */
int ngp_h3_send_settings(ngp_h3 *h3, const ngp_h3_setting *settings, size_t n);

/*
 * ngp_h3_set_peer_datagrams sets whether the peer's transport parameters allow
 * DATAGRAM frames; otherwise it must not send SETTINGS_H3_DATAGRAM.
 */
void ngp_h3_set_peer_datagrams(ngp_h3 *h3, int allowed);

/*
 * The following functions process what the QUIC connection has received: |len|
 * bytes of |stream_id|, followed by its end if |end_stream| is nonzero; the
 * reset of a stream; the request to stop sending on one; a datagram.  After
 * each, the events and operations are those of this call.  |data| must not
 * change until the events have been read.
 *
 * They return 0 if they succeed, or one of the following negative error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.  The connection must not be used any more.
 * NGP_H3_ERR_PROTOCOL
 *     The peer has broken the protocol.  There are no events; the QUIC
 *     connection must be closed with the code and phrase of ngp_h3_closing().
 *     From then on, input is ignored.
 */
int ngp_h3_recv_stream(ngp_h3 *h3, int64_t stream_id, const uint8_t *data,
                       size_t len, int end_stream);
int ngp_h3_recv_reset(ngp_h3 *h3, int64_t stream_id, uint64_t error_code);
int ngp_h3_recv_stop_sending(ngp_h3 *h3, int64_t stream_id,
                             uint64_t error_code);
int ngp_h3_recv_datagram(ngp_h3 *h3, const uint8_t *data, size_t len);

const ngp_h3_event *ngp_h3_events(const ngp_h3 *h3, size_t *pn);
const nghttp3_qpack_nv *ngp_h3_fields(const ngp_h3 *h3);

/*
 * ngp_h3_pairs returns the pairs of the QPACK decoder, whose objects are the
 * caller's: it takes them before ngp_h3_del().
 */
ngp_qpack_pairs *ngp_h3_pairs(ngp_h3 *h3);

/*
 * ngp_h3_ops returns the operations of the last call, and ngp_h3_output() the
 * bytes that they send.  Both are borrowed until the next call of a function
 * whose connection is not const.
 */
const ngp_h3_op *ngp_h3_ops(const ngp_h3 *h3, size_t *pn);
const uint8_t *ngp_h3_output(const ngp_h3 *h3);

/*
 * ngp_h3_closing returns the phrase, and the code in |*pcode|, with which the
 * connection must be closed; or NULL if it need not be.
 */
const ngp_h3_phrase *ngp_h3_closing(const ngp_h3 *h3, uint64_t *pcode);

/*
 * ngp_h3_body_error returns the details of the last NGP_H3_ERR_BODY_LENGTH: the
 * announced length, and that of the body including the refused part.
 */
void ngp_h3_body_error(const ngp_h3 *h3, uint64_t *pexpected,
                       uint64_t *pactual);

/*
 * ngp_h3_phrase_of_error returns the phrase for the last
 * NGP_H3_ERR_FRAME_UNEXPECTED or NGP_H3_ERR_MALFORMED of a send function.
 */
const ngp_h3_phrase *ngp_h3_phrase_of_error(const ngp_h3 *h3);

/*
 * ngp_h3_peer_settings returns the peer's settings, or NULL if they have not
 * arrived.
 */
const ngp_h3_setting *ngp_h3_peer_settings(const ngp_h3 *h3, size_t *pn);

/* The errors of ngp_h3_parse_settings(). */
#define NGP_H3_SETTINGS_TRUNCATED 1
#define NGP_H3_SETTINGS_RESERVED 2
#define NGP_H3_SETTINGS_TWICE 3

/*
 * ngp_h3_parse_settings parses the payload of SETTINGS to |settings|, which has
 * room for |len| / 2, and writes their number to |*pn|.  It returns 0, or one
 * of the above; for the last two, |*pid| is the wrong identifier.
 */
int ngp_h3_parse_settings(const uint8_t *payload, size_t len,
                          ngp_h3_setting *settings, size_t *pn, uint64_t *pid);

/*
 * ngp_h3_max_push_id returns the largest push identifier that is allowed, or
 * NGP_H3_NO_ID.
 */
int64_t ngp_h3_max_push_id(const ngp_h3 *h3);

/*
 * ngp_h3_next_push_id returns the identifier of the next push that a server
 * promises, or NGP_H3_NO_ID if the client allows none, or no more.
 */
int64_t ngp_h3_next_push_id(const ngp_h3 *h3);

/*
 * ngp_h3_section_len returns the length of the payload of the last HEADERS or
 * PUSH_PROMISE that was sent.
 */
uint64_t ngp_h3_section_len(const ngp_h3 *h3);

/*
 * ngp_h3_send_headers sends HEADERS on |stream_id|.  If |check| is nonzero,
 * the fields are checked first.
 *
 * This function returns 0 if it succeeds.  Otherwise it returns one of the
 * following negative error codes, and nothing has been sent:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_FRAME_UNEXPECTED
 *     HEADERS cannot follow what was sent on the stream.
 * NGP_H3_ERR_MALFORMED
 *     The fields must not be sent.
 * NGP_H3_ERR_NOT_ENABLED, NGP_H3_ERR_NO_SETTINGS
 *     The request has :protocol, but the peer's settings do not allow it, or
 *     have not arrived.
 * NGP_H3_ERR_BODY_LENGTH
 *     The message ends, but its body is shorter than its content-length, and
 *     options.extended is set.
 * NGP_H3_ERR_GOING_AWAY
 *     The peer has sent GOAWAY, and will not process this new request.
 * NGP_QPACK_ERR_TOO_LARGE
 *     The peer's MAX_FIELD_SECTION_SIZE is smaller, and |check| is nonzero.
 */
int ngp_h3_send_headers(ngp_h3 *h3, int64_t stream_id, nghttp3_nv *nva,
                        size_t nvlen, int end_stream, int check);

/* Type and length of a frame. */
#define NGP_H3_MAX_FRAME_HEADER 16

/*
 * ngp_h3_send_data begins a DATA frame of |len| bytes on |stream_id|.  It
 * records no operation: the caller sends the |*pheaderlen| bytes at |header|,
 * then the body, then the end of the stream if |end_stream| is nonzero.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGP_H3_ERR_FRAME_UNEXPECTED
 *     DATA cannot follow what was sent on the stream.
 * NGP_H3_ERR_BODY_LENGTH
 *     The body would not fit its content-length, or the response has none, and
 *     options.extended is set.
 */
int ngp_h3_send_data(ngp_h3 *h3, int64_t stream_id, size_t len, int end_stream,
                     uint8_t *header, size_t *pheaderlen);

/*
 * ngp_h3_send_push_promise promises a response on the request stream
 * |stream_id|, under the next push identifier, which it writes to |*ppush_id|.
 * ngp_h3_open_push() must follow.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_ROLE
 *     We are the client.
 * NGP_H3_ERR_STREAM_TYPE
 *     |stream_id| is not a request.
 * NGP_H3_ERR_NO_PUSH_ID
 *     The peer allows no more pushes.
 * NGP_H3_ERR_MALFORMED
 *     The fields must not be sent.
 */
int ngp_h3_send_push_promise(ngp_h3 *h3, int64_t stream_id, nghttp3_nv *nva,
                             size_t nvlen, int check, int64_t *ppush_id);

/*
 * ngp_h3_open_push opens the push stream |stream_id| for |push_id|.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_h3_open_push(ngp_h3 *h3, int64_t stream_id, int64_t push_id);

/*
 * ngp_h3_datagram_header writes the header of a datagram of |stream_id| to
 * |dest|, which has room for 8 bytes (RFC 9297, 2.1).
 *
 * This function returns 0 if it succeeds, or NGP_H3_ERR_STREAM_TYPE if
 * |stream_id| is not a request.
 */
int ngp_h3_datagram_header(int64_t stream_id, uint8_t *dest, size_t *plen);

/*
 * ngp_h3_send_goaway announces that requests (sent by a server) or pushes (sent
 * by a client) with the identifier |id| and above will not be processed (RFC
 * 9114, 5.2).
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_RANGE
 *     |id| is larger than in an earlier GOAWAY, or is not the identifier of a
 *     request.
 */
int ngp_h3_send_goaway(ngp_h3 *h3, uint64_t id);

/*
 * ngp_h3_next_request returns the smallest identifier of a request that the
 * peer has not opened, which is what a server's last GOAWAY carries.
 */
uint64_t ngp_h3_next_request(const ngp_h3 *h3);

/*
 * ngp_h3_send_max_push_id lets the server push up to and including |id|
 * (RFC 9114, 7.2.7).
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_ROLE
 *     We are the server.
 * NGP_H3_ERR_RANGE
 *     |id| is smaller than before.
 */
int ngp_h3_send_max_push_id(ngp_h3 *h3, uint64_t id);

/*
 * ngp_h3_send_cancel_push cancels |push_id|: a client does not want it, or a
 * server will not send it (RFC 9114, 7.2.3).
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_RANGE
 *     |push_id| was never allowed or promised.
 */
int ngp_h3_send_cancel_push(ngp_h3 *h3, uint64_t push_id);

/*
 * ngp_h3_send_priority_update sends the priority |value| of |len| bytes for a
 * request stream, or a push if |push| is nonzero (RFC 9218, 7.2).
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_ROLE
 *     We are the server.
 * NGP_H3_ERR_STREAM_TYPE
 *     |id| is not a request.
 */
int ngp_h3_send_priority_update(ngp_h3 *h3, uint64_t id, int push,
                                const uint8_t *value, size_t len);

/*
 * ngp_h3_send_origin sends an ORIGIN frame whose payload is |payload|
 * (RFC 9412, 2.1).
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_ROLE
 *     We are the client.
 */
int ngp_h3_send_origin(ngp_h3 *h3, const uint8_t *payload, size_t len);

/*
 * ngp_h3_priority returns the urgency (0 to 7) of the response to |stream_id|,
 * and in |*pincremental| whether it may be interleaved, as the request or the
 * last PRIORITY_UPDATE says (RFC 9218, 4).
 */
int ngp_h3_priority(const ngp_h3 *h3, int64_t stream_id, int *pincremental);

/*
 * ngp_h3_reset_stream and ngp_h3_stop_stream break off what we send, or what
 * the peer sends, on a stream; a second call is a no-op.  Unlike a call of the
 * QUIC connection alone, they free the state of the stream.
 *
 * They return 0 if they succeed, or one of the following negative error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_RANGE
 *     |error_code| does not fit in a variable-length integer.
 */
int ngp_h3_reset_stream(ngp_h3 *h3, int64_t stream_id, uint64_t error_code);
int ngp_h3_stop_stream(ngp_h3 *h3, int64_t stream_id, uint64_t error_code);

/* ---- WebTransport (ngp_h3_webtransport.c) ---- */

/*
 * ngp_h3_open_webtransport opens |stream_id| as a stream of the session
 * |session_id|, unidirectional if |uni| is nonzero.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_STREAM_TYPE
 *     |session_id| is not a variable-length integer; or, with
 *     options.extended, it is not an open session.
 */
int ngp_h3_open_webtransport(ngp_h3 *h3, int64_t stream_id, uint64_t session_id,
                             int uni);

/*
 * ngp_h3_end_webtransport reports that the application has ended its side of
 * the WebTransport stream |stream_id|, if there is one.
 */
void ngp_h3_end_webtransport(ngp_h3 *h3, int64_t stream_id);

/*
 * ngp_h3_close_session closes a session with a code and a message of the
 * application.  ngp_h3_drain_session asks the peer to close it soon.
 *
 * They return 0 if they succeed, or one of the following negative error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_STREAM_TYPE
 *     There is no such session.
 * NGP_H3_ERR_RANGE
 *     The message is longer than 1,024 bytes.
 */
int ngp_h3_close_session(ngp_h3 *h3, int64_t session_id, uint32_t error_code,
                         const uint8_t *message, size_t len);
int ngp_h3_drain_session(ngp_h3 *h3, int64_t session_id);

/*
 * ngp_h3_send_capsule sends a capsule on the stream of a session or of another
 * CONNECT request (RFC 9297, 3.2), as one DATA frame.
 *
 * This function returns 0 if it succeeds, or one of the following negative
 * error codes:
 *
 * NGHTTP2_ERR_NOMEM
 *     Out of memory.
 * NGP_H3_ERR_FRAME_UNEXPECTED
 *     DATA cannot follow what was sent on the stream.
 * NGP_H3_ERR_RANGE
 *     |type| does not fit in a variable-length integer.
 */
int ngp_h3_send_capsule(ngp_h3 *h3, int64_t stream_id, uint64_t type,
                        const uint8_t *data, size_t len);

/*
 * ngp_h3_wt_to_http maps an error code of the application to one for HTTP/3;
 * ngp_h3_wt_from_http maps it back, and returns nonzero if |code| is not
 * WebTransport's (draft-ietf-webtrans-http3, 4.4).
 */
uint64_t ngp_h3_wt_to_http(uint32_t code);
int ngp_h3_wt_from_http(uint64_t code, uint32_t *pcode);

/*
 * For inspection: ngp_h3_stream_info describes one stream that is not over.
 */
typedef struct ngp_h3_stream_info {
  int64_t stream_id;
  uint64_t type;
  uint8_t blocked;
  uint8_t recv_ended;
  uint8_t send_ended;
  uint8_t recv_state;
  uint8_t send_state;
  /* frame_size is how many bytes of the current frame's payload are missing;
     in_frame is nonzero if there is one. */
  uint8_t in_frame;
  uint64_t frame_type;
  uint64_t frame_size;
  int64_t push_id;
  int64_t session_id;
  const uint8_t *buffer;
  size_t buffer_len;
} ngp_h3_stream_info;

/*
 * ngp_h3_incomplete_frame returns the number, from 1, of the incomplete frame
 * on the stream, and 0 if there is none.  DATA does not count once its header
 * is complete.  A frame that is blocked on the encoder stream counts, and so
 * does the type of a unidirectional stream.
 */
uint64_t ngp_h3_incomplete_frame(const ngp_h3 *h3, int64_t stream_id);

/*
 * ngp_h3_qpack_bytes counts the bytes on the four QPACK streams.
 */
typedef struct ngp_h3_qpack_bytes {
  uint64_t encoder_sent;
  uint64_t encoder_received;
  uint64_t decoder_sent;
  uint64_t decoder_received;
} ngp_h3_qpack_bytes;

/*
 * ngp_h3_session_is_open returns nonzero if there is such a session.
 */
int ngp_h3_session_is_open(const ngp_h3 *h3, int64_t session_id);

/*
 * ngp_h3_local_stream returns the stream given to ngp_h3_open() for |type|.
 */
int64_t ngp_h3_local_stream(const ngp_h3 *h3, uint64_t type);

const ngp_h3_qpack_bytes *ngp_h3_get_qpack_bytes(const ngp_h3 *h3);

/*
 * ngp_h3_next_stream describes the first stream in slot |*pplace| of the table
 * or later, and advances |*pplace|, which begins with 0.  It returns 0 when
 * there is none left.
 */
int ngp_h3_next_stream(const ngp_h3 *h3, size_t *pplace,
                       ngp_h3_stream_info *info);

#endif /* NGP_H3_H */
