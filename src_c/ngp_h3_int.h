/*
 * What the files of ngp_h3 share among themselves.
 * SPDX-License-Identifier: MIT
 */
#ifndef NGP_H3_INT_H
#define NGP_H3_INT_H

#include "ngp_h3.h"
#include "ngp_map.h"

/* The state of a message, in either direction. */
typedef enum ngp_h3_message_state {
  NGP_H3_STATE_INITIAL,
  NGP_H3_STATE_AFTER_HEADERS,
  NGP_H3_STATE_AFTER_TRAILERS
} ngp_h3_message_state;

/* The state of the WebTransport session of a CONNECT stream. */
typedef enum ngp_h3_session_state {
  NGP_H3_SESSION_NONE,
  NGP_H3_SESSION_REQUESTED,
  NGP_H3_SESSION_OPEN,
  NGP_H3_SESSION_CLOSED
} ngp_h3_session_state;

typedef struct ngp_h3_stream {
  int64_t id;
  uint64_t type;
  /* header is the beginning of an incomplete stream type, identifier or frame
     header. */
  uint8_t header[NGP_H3_MAX_FRAME_HEADER];
  uint8_t header_len;
  uint8_t in_frame;
  /* skip is nonzero if the payload of this frame is dropped. */
  uint8_t skip;
  /* blocked is nonzero if the frame at the start of |buf|, of |blocked_len|
     bytes, waits for the encoder stream; the bytes that followed are behind
     it. */
  uint8_t blocked;
  /* held is nonzero if |buf| waits for a WebTransport session. */
  uint8_t held;
  uint8_t recv_ended;
  uint8_t send_ended;
  /* recv_state and send_state are an ngp_h3_message_state. */
  uint8_t recv_state;
  uint8_t send_state;
  /* interim is nonzero once an interim response has arrived. */
  uint8_t interim;
  /* no_body is nonzero if the response has no body, whatever its
     content-length. */
  uint8_t no_body;
  /* connect is nonzero if the request is CONNECT without :protocol. */
  uint8_t connect;
  /* tunnel is nonzero if a CONNECT was answered by 2xx: only DATA may
     follow. */
  uint8_t tunnel;
  /* counted is nonzero if the stream was counted as one that ended badly. */
  uint8_t counted;
  /* unwanted is nonzero if we have asked the peer to stop: what arrives is
     dropped. */
  uint8_t unwanted;
  /* send_no_body is nonzero if our message has no body, whatever its
     content-length. */
  uint8_t send_no_body;
  /* session is an ngp_h3_session_state. */
  uint8_t session;
  /* capsules is nonzero if DATA carries capsules, to be reported. */
  uint8_t capsules;
  uint8_t urgency;
  uint8_t incremental;
  /* reprioritized is nonzero if PRIORITY_UPDATE overrides the field. */
  uint8_t reprioritized;
  /* frames counts those whose header is complete. */
  uint64_t frames;
  uint64_t frame_type;
  /* frame_left is how many bytes of the payload are missing. */
  uint64_t frame_left;
  /* buf is an incomplete payload. */
  ngp_buf buf;
  size_t blocked_len;
  /* required is the insert count that ends the blocking. */
  uint64_t required;
  int64_t push_id;
  int64_t session_id;
  /* expected is the content-length, or NGP_FIELDS_NO_LENGTH; length is that of
     the DATA so far. send_expected and send_length are the same for our
     message. */
  uint64_t expected;
  uint64_t length;
  uint64_t send_expected;
  uint64_t send_length;
  /* capsule is an incomplete capsule; capsule_left bytes have to be skipped. */
  ngp_buf capsule;
  uint64_t capsule_left;
} ngp_h3_stream;

/* The priority of a request that has not arrived. */
typedef struct ngp_h3_early_priority {
  int64_t stream_id;
  uint8_t urgency;
  uint8_t incremental;
} ngp_h3_early_priority;

/* PRIORITY_UPDATE may arrive before its request; of more than this many, the
   oldest are dropped. */
#define NGP_H3_MAX_EARLY_PRIORITIES 16

/*
 * Numbers that have been seen, which come mostly in order: |next| is one more
 * than the largest, and |seen| has a bit for each of the 64 before it, bit 0
 * for the last.
 */
typedef struct ngp_h3_window {
  uint64_t next;
  uint64_t seen;
} ngp_h3_window;

/* Nonzero if |n| has been seen.  Numbers that are too old count as seen. */
static inline int ngp_h3_window_has(const ngp_h3_window *window, uint64_t n) {
  uint64_t age = window->next - 1 - n;

  return n < window->next && (age >= 64 || (window->seen >> age & 1));
}

/* Nonzero if |n| is known to have been seen: not if it is too old. */
static inline int ngp_h3_window_knows(const ngp_h3_window *window, uint64_t n) {
  return window->next - 1 - n < 64 && ngp_h3_window_has(window, n);
}

static inline void ngp_h3_window_add(ngp_h3_window *window, uint64_t n) {
  if (n >= window->next) {
    uint64_t shift = n + 1 - window->next;

    window->seen = shift < 64 ? window->seen << shift : 0;
    window->next = n + 1;
  }
  if (window->next - 1 - n < 64) {
    window->seen |= (uint64_t)1 << (window->next - 1 - n);
  }
}

/* A datagram whose session does not exist yet. */
typedef struct ngp_h3_datagram {
  int64_t stream_id;
  ngp_buf buf;
} ngp_h3_datagram;

struct ngp_h3 {
  nghttp2_mem *mem;
  ngp_h3_options options;
  ngp_qpack_encoder encoder;
  ngp_qpack_decoder decoder;
  /* streams has an ngp_h3_stream, owned, for each id. */
  ngp_map streams;
  /* results has what a call has recorded. */
  struct {
    ngp_h3_event *events;
    size_t nevents;
    size_t events_cap;
    ngp_qpack_fields fields;
    ngp_h3_op *ops;
    size_t nops;
    size_t ops_cap;
    ngp_buf out;
    /* held has buffers that events point into. */
    ngp_buf *held;
    size_t nheld;
    size_t held_cap;
  } results;
  /* waiting has what cannot be processed yet. */
  struct {
    /* blocked has the streams that wait for the encoder stream, the oldest wait
       first. */
    int64_t *blocked;
    size_t nblocked;
    size_t blocked_cap;
    /* bytes is the size of |buf| of all streams but the control stream, whose
       frames have bounds of their own, and of |datagrams|. */
    size_t bytes;
    /* nstreams is the number of streams that wait for a session; datagrams wait
       for one, too. */
    size_t nstreams;
    ngp_h3_datagram *datagrams;
    size_t ndatagrams;
  } waiting;
  struct {
    uint32_t glitches;
    /* reset_balance is the requests that ended badly minus those that ended
       well. */
    uint32_t reset_balance;
  } limits;
  /* close is how the connection ends. */
  struct {
    uint64_t code;
    ngp_h3_phrase phrase;
    uint8_t closed;
  } close;
  /* refusal is the reason why the caller's message was not sent. */
  struct {
    ngp_h3_phrase phrase;
    uint64_t expected;
    uint64_t actual;
  } refusal;
  /* local has the streams that we have opened and the settings that we have
     announced; a stream that is not open is NGP_H3_NO_ID, as in |peer|. */
  struct {
    int64_t control;
    int64_t qpack_encoder;
    int64_t qpack_decoder;
    /* connect_protocol is nonzero if our SETTINGS announce it. */
    uint8_t connect_protocol;
  } local;
  struct {
    int64_t control;
    int64_t qpack_encoder;
    int64_t qpack_decoder;
    ngp_h3_setting *settings;
    size_t nsettings;
    uint8_t settings_received;
    uint8_t datagrams;
    uint8_t connect_protocol;
  } peer;
  struct {
    /* max_id is the largest push identifier that the client allows, or
       NGP_H3_NO_ID. */
    int64_t max_id;
    int64_t next_id;
    /* seen has the push streams that the peer has opened. */
    ngp_h3_window seen;
  } push;
  /* goaway has the identifiers of GOAWAY, UINT64_MAX if there was none. */
  struct {
    uint64_t sent;
    uint64_t received;
  } goaway;
  /* requests has the requests that the peer has opened, by a quarter of their
     identifier. */
  ngp_h3_window requests;
  ngp_h3_early_priority early[NGP_H3_MAX_EARLY_PRIORITIES];
  size_t nearly;
  ngp_h3_qpack_bytes qpack_bytes;
  /* section_len is the length of the payload of the last HEADERS or
     PUSH_PROMISE sent. */
  uint64_t section_len;
};

/* Streams are identified as QUIC does (RFC 9000, 2.1). */
static inline int ngp_h3_is_uni(int64_t stream_id) {
  return (stream_id & 2) != 0;
}

static inline int ngp_h3_is_request(int64_t stream_id) {
  return (stream_id & 3) == 0;
}

static inline int ngp_h3_is_local(const ngp_h3 *h3, int64_t stream_id) {
  return (stream_id & 1) == !h3->options.is_client;
}

/*
 * The violations of the protocol that have a fixed code and phrase: the table
 * is in ngp_h3.c.
 */
typedef enum ngp_h3_violation {
  NGP_H3_V_MISSING_SETTINGS,
  NGP_H3_V_SECOND_SETTINGS,
  NGP_H3_V_CONTROL_FRAME,
  NGP_H3_V_REQUEST_FRAME,
  NGP_H3_V_PUSH_FRAME,
  NGP_H3_V_SERVER_MAX_PUSH_ID,
  NGP_H3_V_SERVER_PRIORITY_UPDATE,
  NGP_H3_V_CLIENT_PUSH_PROMISE,
  NGP_H3_V_CLIENT_PUSH_STREAM,
  NGP_H3_V_CONTROL_CLOSED,
  NGP_H3_V_ENCODER_CLOSED,
  NGP_H3_V_DECODER_CLOSED,
  NGP_H3_V_CRITICAL_RESET,
  NGP_H3_V_CRITICAL_STOPPED,
  NGP_H3_V_SECOND_CONTROL,
  NGP_H3_V_SECOND_ENCODER,
  NGP_H3_V_SECOND_DECODER,
  NGP_H3_V_DATAGRAM_UNSUPPORTED,
  NGP_H3_V_WEBTRANSPORT_NO_DATAGRAM,
  NGP_H3_V_DATA_STATE,
  NGP_H3_V_HEADERS_STATE,
  NGP_H3_V_INTERIM_END,
  NGP_H3_V_CONTENT_LENGTH,
  NGP_H3_V_NO_RESPONSE,
  NGP_H3_V_NO_REQUEST,
  NGP_H3_V_BODY,
  NGP_H3_V_FIELD_COUNT,
  NGP_H3_V_RESETS,
  NGP_H3_V_TRUNCATED,
  NGP_H3_V_SETTINGS_PARSE,
  NGP_H3_V_SETTINGS_SIZE,
  NGP_H3_V_MAX_PUSH_ID_PARSE,
  NGP_H3_V_MAX_PUSH_ID_TRAILING,
  NGP_H3_V_MAX_PUSH_ID_REDUCED,
  NGP_H3_V_PUSH_PROMISE_PARSE,
  NGP_H3_V_PUSH_ID,
  NGP_H3_V_PUSH_TWICE,
  NGP_H3_V_GOAWAY_PARSE,
  NGP_H3_V_GOAWAY_TRAILING,
  NGP_H3_V_GOAWAY_RAISED,
  NGP_H3_V_GOAWAY_ID,
  NGP_H3_V_CANCEL_PUSH_PARSE,
  NGP_H3_V_CANCEL_PUSH_TRAILING,
  NGP_H3_V_CANCEL_PUSH_ID,
  NGP_H3_V_PRIORITY_UPDATE_PARSE,
  NGP_H3_V_PRIORITY_UPDATE_SIZE,
  NGP_H3_V_PRIORITY_UPDATE_ID,
  NGP_H3_V_PRIORITY_UPDATE_VALUE,
  NGP_H3_V_ORIGIN_PARSE,
  NGP_H3_V_DATAGRAM_PARSE,
  NGP_H3_V_DATAGRAM_ID,
  NGP_H3_V_DECOMPRESSION_FAILED,
  NGP_H3_V_ENCODER_STREAM,
  NGP_H3_V_DECODER_STREAM,
  NGP_H3_V_SECTION_SIZE,
  NGP_H3_V_BUFFERED,
  NGP_H3_V_GLITCHES,
  NGP_H3_V_SERVER_BIDI,
  NGP_H3_V_WEBTRANSPORT_FRAME,
  NGP_H3_V_SESSION_ID,
  NGP_H3_V_CAPSULE_SIZE,
  NGP_H3_V_CAPSULE_CLOSE
} ngp_h3_violation;

/*
 * ngp_h3_violate records that the peer has broken the protocol, and returns
 * NGP_H3_ERR_PROTOCOL.
 */
int ngp_h3_violate(ngp_h3 *h3, ngp_h3_violation violation);

/*
 * ngp_h3_violate_with does the same with |code| and the phrase that is already
 * in |h3->close.phrase|.
 */
int ngp_h3_violate_with(ngp_h3 *h3, uint64_t code);

/*
 * ngp_h3_malformed handles that the message on |stream| breaks |violation|;
 * ngp_h3_malformed_with uses |code| and the phrase in |h3->close.phrase|.  With
 * options.stream_errors they end both sides of the stream, record that, count
 * it and return 0: then the stream's type is NGP_H3_STREAM_IGNORED.  Otherwise,
 * or if the bound is exceeded, they return NGP_H3_ERR_PROTOCOL.
 */
int ngp_h3_malformed(ngp_h3 *h3, ngp_h3_stream *stream,
                     ngp_h3_violation violation);
int ngp_h3_malformed_with(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t code);

/* Counts a request that ended badly; |stream| is NULL if nothing of it had
   come.  Returns 0 or NGP_H3_ERR_PROTOCOL. */
int ngp_h3_count_reset(ngp_h3 *h3, ngp_h3_stream *stream);

/* Ends both sides of |stream|, as far as they are open, with |error_code|;
   later input on it is dropped. */
int ngp_h3_abort(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t error_code,
                 int best_effort);

/* Forgets the results of the last call. */
void ngp_h3_begin(ngp_h3 *h3);

/* Nonzero if all rules of the RFCs apply; otherwise aioquic's contract applies
   where the two differ. */
static inline int ngp_h3_is_strict(const ngp_h3 *h3) {
  return h3->options.extended || h3->options.stream_errors;
}

/* Returns the stream, or NULL. */
static inline ngp_h3_stream *ngp_h3_find(const ngp_h3 *h3, int64_t stream_id) {
  return ngp_map_find(&h3->streams, stream_id);
}

/* Makes the stream, which must not exist; NULL means out of memory. */
ngp_h3_stream *ngp_h3_add_stream(ngp_h3 *h3, int64_t stream_id, uint64_t type);

/* Removes |stream| and frees it. */
void ngp_h3_remove_stream(ngp_h3 *h3, ngp_h3_stream *stream);

/* Removes |stream| if both its directions have ended. */
void ngp_h3_remove_if_ended(ngp_h3 *h3, ngp_h3_stream *stream);

/* Returns a new event, zeroed but for its type, stream and push identifier;
   NULL means out of memory. */
ngp_h3_event *ngp_h3_add_event(ngp_h3 *h3, ngp_h3_event_type type,
                               const ngp_h3_stream *stream);

/* Records an event of |type| with |len| bytes received on |stream|, and its end
   if |ended| is nonzero. */
int ngp_h3_add_data(ngp_h3 *h3, ngp_h3_event_type type,
                    const ngp_h3_stream *stream, const uint8_t *data,
                    size_t len, int ended);

/* Rejects the request on |stream|: nothing of it was processed, and the rest is
   ignored. */
int ngp_h3_reject_request(ngp_h3 *h3, ngp_h3_stream *stream);

/* Records RESET or STOP. */
int ngp_h3_add_op(ngp_h3 *h3, ngp_h3_op_type type, int64_t stream_id,
                  uint64_t error_code, int best_effort);

/*
 * ngp_h3_begin_send begins or continues an operation that sends on |stream_id|.
 * What is then added to |h3->results.out| belongs to it; ngp_h3_end_send()
 * records that.
 */
int ngp_h3_begin_send(ngp_h3 *h3, int64_t stream_id);
void ngp_h3_end_send(ngp_h3 *h3, int end_stream);

/* Sends |len| bytes in one operation. */
int ngp_h3_send_bytes(ngp_h3 *h3, int64_t stream_id, const uint8_t *data,
                      size_t len, int end_stream);

/* Sends a frame of |type| in one operation. */
int ngp_h3_send_frame(ngp_h3 *h3, int64_t stream_id, uint64_t type,
                      const uint8_t *payload, size_t len, int end_stream);

/* Moves |buf| to where events may point into it until the next call, and leaves
   it empty. |*pheld| is the moved buffer, borrowed until the next use of this
   function. */
int ngp_h3_hold(ngp_h3 *h3, ngp_buf *buf, ngp_buf *pheld);

/* Counts a frame without effect.  Returns 0 or NGP_H3_ERR_PROTOCOL. */
int ngp_h3_glitch(ngp_h3 *h3);

/* Parses a priority value to |*purgency| and |*pincremental|, which stay
   unchanged if the value lacks them.  Returns nonzero if the value cannot be
   parsed. */
int ngp_h3_parse_priority(const uint8_t *value, size_t len, uint8_t *purgency,
                          uint8_t *pincremental);

/* Collects |n| variable-length integers, 1 or 2, across calls.  Returns nonzero
   when they are complete. */
int ngp_h3_gather(ngp_h3_stream *stream, const uint8_t **pp, const uint8_t *end,
                  int n, uint64_t *values);

/* Removes |stream| from the list of blocked streams.  Its buffer stays. */
void ngp_h3_forget_blocked(ngp_h3 *h3, ngp_h3_stream *stream);

/* Drops all that waits on |stream|. */
void ngp_h3_drop_buffer(ngp_h3 *h3, ngp_h3_stream *stream);

/* Returns the local push stream of |push_id|, or NULL. */
ngp_h3_stream *ngp_h3_find_push(const ngp_h3 *h3, int64_t push_id);

/* ---- ngp_h3_message.c: request and push streams ---- */

/* Processes bytes of a request or push stream. */
int ngp_h3_recv_message(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                        size_t len, int end_stream);

/* Continues the streams that the encoder stream has unblocked. */
int ngp_h3_resume_all(ngp_h3 *h3);

/* Checks the push identifier that the server has named. */
int ngp_h3_check_push_id(ngp_h3 *h3, uint64_t push_id);

/* Nonzero if streams may be those of WebTransport sessions.  aioquic does not
   require the peer's consent. */
int ngp_h3_takes_webtransport(const ngp_h3 *h3);

/* Records the type of |stream|, if options.log is set. */
int ngp_h3_log_stream_type(ngp_h3 *h3, const ngp_h3_stream *stream,
                           uint64_t type);

/* Sends the pending instructions of the QPACK decoder. */
int ngp_h3_flush_decoder(ngp_h3 *h3);

/* Sends Stream Cancellation: no more field sections of |stream_id| will be
   decoded. */
int ngp_h3_cancel_section(ngp_h3 *h3, int64_t stream_id);

/* ---- ngp_h3_frames.c: frames of the control stream, and settings ---- */

/* Checks a frame whose header has arrived. */
int ngp_h3_check_control_frame(ngp_h3 *h3, uint64_t type, uint64_t len);

/* Nonzero if ngp_h3_recv_control_frame() needs the payload. */
int ngp_h3_is_control_frame(const ngp_h3 *h3, uint64_t type, uint64_t len);

/* Returns the peer's setting |id|, or |otherwise| if it has sent none. */
uint64_t ngp_h3_setting_value(const ngp_h3 *h3, uint64_t id,
                              uint64_t otherwise);

int ngp_h3_recv_control_frame(ngp_h3 *h3, uint64_t type, const uint8_t *payload,
                              size_t len);

/* ---- ngp_h3_webtransport.c ---- */

/* Nonzero if the peer's settings announce WebTransport. */
int ngp_h3_wt_enabled(const ngp_h3 *h3);

/* Processes bytes of a WebTransport stream whose session identifier is
   known. */
int ngp_h3_wt_recv(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                   size_t len, int end_stream);

/* Checks the session identifier that a stream has just named. */
int ngp_h3_wt_check_session(ngp_h3 *h3, ngp_h3_stream *stream);

/* Processes DATA of a stream whose |capsules| is set. */
int ngp_h3_wt_recv_capsules(ngp_h3 *h3, ngp_h3_stream *stream,
                            const uint8_t *data, size_t len);

/* Nonzero if there are as many sessions as there may be. */
int ngp_h3_wt_is_full(const ngp_h3 *h3);

/* Handles that the session of the CONNECT stream |session| is established: its
   streams need not wait any more. */
int ngp_h3_wt_open(ngp_h3 *h3, ngp_h3_stream *session);

/* Handles the end of the session of the CONNECT stream |session|, if there was
   one. */
int ngp_h3_wt_close(ngp_h3 *h3, ngp_h3_stream *session, uint64_t error_code,
                    const uint8_t *message, size_t len);

/* Ends what names the session of the CONNECT stream |session|, which was
   refused, is over, or never was one. */
int ngp_h3_wt_refused(ngp_h3 *h3, ngp_h3_stream *session);

/* Keeps a datagram whose session may still be established; then |*pheld| is
   nonzero. */
int ngp_h3_wt_hold_datagram(ngp_h3 *h3, int64_t stream_id, const uint8_t *data,
                            size_t len, int *pheld);

#endif /* NGP_H3_INT_H */
