/*
 * One QUIC connection (RFC 9000): owns an ngtcp2_conn and its TLS session.
 * SPDX-License-Identifier: MIT
 *
 * ngtcp2's callbacks only record; ngp_quic_next_event() returns the events when
 * a function has returned.  Functions without a time parameter only queue;
 * ngp_quic_send() writes what they have queued.
 *
 * Times are nanoseconds of any clock of the caller's.  If it goes back, the
 * latest time is used.
 */
#ifndef NGP_QUIC_H
#define NGP_QUIC_H

#include "ngp_quic_cid.h"
#include "ngp_tls_gnutls.h"

#include <ngtcp2/ngtcp2.h>

/*
 * Our error codes; NGHTTP2_ERR_NOMEM and NGHTTP2_ERR_INVALID_ARGUMENT are used,
 * too.
 */
typedef enum ngp_quic_error {
  /* The stream is the peer's, and we cannot send on it. */
  NGP_QUIC_ERR_RECEIVE_ONLY = -2201,
  /* The stream is ours, and the peer cannot send on it. */
  NGP_QUIC_ERR_SEND_ONLY = -2202,
  /* The peer has not opened this stream. */
  NGP_QUIC_ERR_UNKNOWN_STREAM = -2203,
  /* The stream is over. */
  NGP_QUIC_ERR_FINISHED_STREAM = -2204,
  /* The end of the stream is queued. */
  NGP_QUIC_ERR_AFTER_FIN = -2205,
  /* The stream was reset, by us or because of STOP_SENDING. */
  NGP_QUIC_ERR_AFTER_RESET = -2206,
  /* The stream's id is too far ahead of the last one. */
  NGP_QUIC_ERR_STREAM_AHEAD = -2207,
  /* The call does not fit the state of the connection. */
  NGP_QUIC_ERR_STATE = -2208
} ngp_quic_error;

#define NGP_QUIC_MAX_VERSIONS 8
/* A NEW_TOKEN frame must fit in a packet of the smallest size with the longest
   header. */
#define NGP_QUIC_MAX_TOKEN 1024

/*
 * ngp_quic_addr is the peer's address, IPv6 or IPv4 mapped to IPv6, and our
 * address to which the peer has sent.
 */
typedef struct ngp_quic_addr {
  uint8_t ip[16];
  /* local is zero if it is not known.  Only a server uses it, to answer from
     the address at which it was reached (RFC 9000, 9). */
  uint8_t local[16];
  uint32_t scope;
  uint32_t local_scope;
  uint16_t port;
} ngp_quic_addr;

/*
 * ngp_quic_options is borrowed for the call of ngp_quic_new(), which checks it.
 */
typedef struct ngp_quic_options {
  uint8_t is_client;
  /* manual_credit is nonzero if only ngp_quic_consume() returns credit;
     otherwise ngp_quic_next_event() does, for the data that it returns. */
  uint8_t manual_credit;
  /* cc_algo is an ngtcp2_cc_algo. */
  uint8_t cc_algo;
  /* pmtud is nonzero to probe for packets larger than max_datagram_size. */
  uint8_t pmtud;
  /* key_log is nonzero to record TLS secrets. */
  uint8_t key_log;
  /* log_packets is nonzero to record packets without their protection. */
  uint8_t log_packets;
  /* cid_len is the length of the connection ids that we issue. */
  size_t cid_len;
  /* cid_layout is how they are made, or NULL for random ones; cid_len is then
     the length that it gives. */
  const ngp_cid_layout *cid_layout;
  size_t max_datagram_size;
  uint64_t max_data;
  uint64_t max_stream_data;
  uint64_t max_streams_bidi;
  uint64_t max_streams_uni;
  uint64_t idle_timeout;
  /* handshake_timeout bounds the handshake; 0 means no bound but
     idle_timeout. */
  uint64_t handshake_timeout;
  uint64_t initial_rtt;
  uint64_t max_ack_delay;
  /* max_datagram_frame_size is 0 to accept no DATAGRAM frames. */
  uint64_t max_datagram_frame_size;
  /* max_window and max_stream_window bound the growth of the windows; 0 means
     no growth. */
  uint64_t max_window;
  uint64_t max_stream_window;
  /* max_datagram_queue bounds the queued bytes of DATAGRAM payload, in each
     direction; an empty payload counts as one byte. */
  size_t max_datagram_queue;
  /* versions are in order of preference. */
  uint32_t versions[NGP_QUIC_MAX_VERSIONS];
  size_t nversions;
  /* original_version is the version that a client begins with, or 0 for the
     first. */
  uint32_t original_version;
  /* token is the token that a client presents. */
  const uint8_t *token;
  size_t token_len;
  /* For a server after Retry, original_dcid is that of the first Initial
     packet, and retry_scid its replacement in the Retry packet; otherwise their
     length is 0. */
  ngtcp2_cid original_dcid;
  ngtcp2_cid retry_scid;
  /* address_validated is nonzero for a server if the first Initial packet has a
     valid token of a NEW_TOKEN frame. */
  uint8_t address_validated;
  /* ask_tickets is nonzero for a server that asks the caller before it accepts
     a ticket. */
  uint8_t ask_tickets;
  /* Stateless reset tokens are derived from reset_secret; without one they are
     random.
   */
  const uint8_t *reset_secret;
  size_t reset_secret_len;
  /* ticket is the data of an earlier NGP_QUIC_EVENT_SESSION_TICKET, or NULL.
   */
  const uint8_t *ticket;
  size_t ticket_len;
  ngp_tls_config *tls_config;
  /* tls is for the session; the members hooks, user and session are set
     here. */
  ngp_tls_session_options tls;
} ngp_quic_options;

/*
 * ngp_quic_options_default fills |options| with the defaults, which are
 * aioquic's where it has the option; other members are 0.
 */
void ngp_quic_options_default(ngp_quic_options *options);

typedef enum ngp_quic_event_type {
  NGP_QUIC_EVENT_PROTOCOL_NEGOTIATED = 1,
  NGP_QUIC_EVENT_HANDSHAKE_COMPLETED,
  NGP_QUIC_EVENT_STREAM_DATA,
  NGP_QUIC_EVENT_STREAM_RESET,
  NGP_QUIC_EVENT_STOP_SENDING,
  NGP_QUIC_EVENT_DATAGRAM,
  NGP_QUIC_EVENT_PING_ACKED,
  NGP_QUIC_EVENT_CID_ISSUED,
  NGP_QUIC_EVENT_CID_RETIRED,
  NGP_QUIC_EVENT_TERMINATED,
  /* These come from _next_report(), not from ngp_quic_next_event().  The data
     of a client's SESSION_TICKET resume the session, those of a server's are
     the NewSessionTicket message (RFC 8446, 4.6.1) that it sends.
     TICKET_PRESENTED has the ticket of such a message, and
     ngp_quic_take_tickets() answers it. */
  NGP_QUIC_EVENT_SESSION_TICKET,
  NGP_QUIC_EVENT_TICKET_PRESENTED,
  NGP_QUIC_EVENT_NEW_TOKEN,
  NGP_QUIC_EVENT_KEY_LOG,
  /* The data of these are a packet: its header, of |value| bytes, and its
     frames. */
  NGP_QUIC_EVENT_PACKET_SENT,
  NGP_QUIC_EVENT_PACKET_RECEIVED
} ngp_quic_event_type;

/*
 * ngp_quic_event is one event.
 */
typedef struct ngp_quic_event {
  uint8_t type;
  /* end_stream is set for STREAM_DATA. */
  uint8_t end_stream;
  /* application is nonzero if an application, not QUIC, has caused
     TERMINATED. */
  uint8_t application;
  uint8_t early_data_accepted;
  uint8_t session_resumed;
  /* early is nonzero if some of STREAM_DATA came as early data. */
  uint8_t early;
  /* stream_id is -1 but for stream events; value is that of a PING, or the
     length of a packet's header. */
  int64_t stream_id;
  uint64_t error_code;
  uint64_t frame_type;
  uint64_t value;
  /* data is stream or datagram bytes, ALPN, a connection id, a reason, a
     ticket, a token, a line of the key log, a packet.  It is valid until the
     next call for the connection, or until the end of ngp_quic_lend()'s
     loan. */
  const uint8_t *data;
  size_t len;
  /* offset is where data is in the connection's store. */
  uint64_t offset;
} ngp_quic_event;

typedef enum ngp_quic_state {
  /* A client that has not connected, or a server that has received nothing. */
  NGP_QUIC_STATE_NEW,
  NGP_QUIC_STATE_ACTIVE,
  NGP_QUIC_STATE_CLOSING,
  NGP_QUIC_STATE_DRAINING,
  NGP_QUIC_STATE_DEAD
} ngp_quic_state;

/* ngp_quic_packet is a datagram to send; |data| is borrowed until the next
   ngp_quic_send(). */
typedef struct ngp_quic_packet {
  const uint8_t *data;
  size_t len;
  ngp_quic_addr addr;
  uint8_t ecn;
} ngp_quic_packet;

typedef struct ngp_quic_stats {
  uint64_t packets_sent;
  uint64_t packets_received;
  uint64_t bytes_sent;
  uint64_t bytes_received;
  uint64_t datagrams_dropped;
  uint64_t latest_rtt;
  uint64_t min_rtt;
  uint64_t smoothed_rtt;
  uint64_t rtt_variance;
  uint64_t cwnd;
  uint64_t bytes_in_flight;
} ngp_quic_stats;

typedef struct ngp_quic ngp_quic;

/*
 * ngp_quic_new makes a connection.  It allocates by |mem|, which is borrowed
 * for the connection's life, or NULL. ngtcp2 always allocates by malloc,
 * because its release 1.11 has dangling pointers after some allocations have
 * failed.
 *
 * This function returns 0 if it succeeds, NGHTTP2_ERR_NOMEM, or
 * NGHTTP2_ERR_INVALID_ARGUMENT, and then |*preason| is a static text.
 */
int ngp_quic_new(ngp_quic **pquic, const ngp_quic_options *options,
                 nghttp2_mem *mem, const char **preason);

/*
 * ngp_quic_try_tls makes a TLS session and frees it, to check options before
 * there is a peer.  It returns what ngp_quic_connect() does.
 */
int ngp_quic_try_tls(ngp_quic *quic);

/*
 * ngp_quic_del frees |quic|.  All owners must have been taken after
 * ngp_quic_abandon().
 */
void ngp_quic_del(ngp_quic *quic);

/* ngp_quic_abandon ends the connection at once, so that all owners can be
   taken. */
void ngp_quic_abandon(ngp_quic *quic);

/* ngp_quic_take_owner returns an owner of bytes that are no longer needed, or
   NULL. */
void *ngp_quic_take_owner(ngp_quic *quic);

/*
 * ngp_quic_connect starts a client's handshake with |addr|.
 *
 * This function returns 0 if it succeeds, NGP_QUIC_ERR_STATE if it was called
 * before or for a server, NGHTTP2_ERR_NOMEM, or NGHTTP2_ERR_INVALID_ARGUMENT
 * for options that GnuTLS or ngtcp2 refuses.
 */
int ngp_quic_connect(ngp_quic *quic, const ngp_quic_addr *addr, uint64_t now);

/*
 * ngp_quic_recv processes a datagram that came from |addr| with the ECN bits
 * |ecn|.  An invalid datagram is no error of this function.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM; for a server's
 * first packet also what ngp_quic_connect() returns for such options.
 */
int ngp_quic_recv(ngp_quic *quic, const uint8_t *data, size_t len,
                  const ngp_quic_addr *addr, uint8_t ecn, uint64_t now);

/*
 * ngp_quic_send writes what can be sent now.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_quic_send(ngp_quic *quic, uint64_t now);

/* ngp_quic_send_burst does the same, but stops before it exceeds |max| bytes
   (the first packet may): the next call writes more. */
int ngp_quic_send_burst(ngp_quic *quic, size_t max, uint64_t now);

/* ngp_quic_packets returns the packets that the last ngp_quic_send() has
   written. */
const ngp_quic_packet *ngp_quic_packets(ngp_quic *quic, size_t *pn);

/* ngp_quic_get_timer returns when ngp_quic_handle_timer() must be called, or
   UINT64_MAX; it is 0 while a client's first packet waits to be sent. */
uint64_t ngp_quic_get_timer(ngp_quic *quic);

/*
 * ngp_quic_handle_timer does what was due by |now|.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM.
 */
int ngp_quic_handle_timer(ngp_quic *quic, uint64_t now);

/* Each returns 1 and fills |*event|, or 0 if there is none. */
int ngp_quic_next_event(ngp_quic *quic, ngp_quic_event *event);
int ngp_quic_next_report(ngp_quic *quic, ngp_quic_event *event);

/*
 * ngp_quic_take_tickets answers all NGP_QUIC_EVENT_TICKET_PRESENTED so far: if
 * |allowed| is nonzero, the session may be resumed, otherwise there is a full
 * handshake.  Until then the connection is suspended.  It is a no-op if there
 * is nothing to answer.
 *
 * This function returns what ngp_quic_recv() does.
 */
int ngp_quic_take_tickets(ngp_quic *quic, int allowed);

/*
 * ngp_quic_store is the memory of events' data.
 */
typedef struct ngp_quic_store ngp_quic_store;

/*
 * ngp_quic_lend keeps the |len| bytes of data of the event that
 * ngp_quic_next_event() has just returned in place, until
 * ngp_quic_store_release() is called for the result of this function; that may
 * be after ngp_quic_del(). _hold() adds another holder.
 *
 * It returns NULL if much more memory than the data would be kept: then copy
 * them.
 */
ngp_quic_store *ngp_quic_lend(ngp_quic *quic, size_t len);
ngp_quic_store *ngp_quic_store_hold(ngp_quic_store *store);
void ngp_quic_store_release(ngp_quic_store *store);

/*
 * ngp_quic_consume returns credit for |n| bytes of |stream_id| to the peer.
 */
void ngp_quic_consume(ngp_quic *quic, int64_t stream_id, uint64_t n);

/*
 * ngp_quic_hold_credit makes ngp_quic_consume() withhold a stream's own credit
 * while |hold| is nonzero; the connection's credit is returned, so that other
 * streams continue.
 */
void ngp_quic_hold_credit(ngp_quic *quic, int64_t stream_id, int hold);

/*
 * ngp_quic_close queues a CONNECTION_CLOSE frame.  Later calls are no-ops.
 * |reason| is copied, and truncated if it is long.
 *
 * This function returns 0, NGHTTP2_ERR_NOMEM, or NGHTTP2_ERR_INVALID_ARGUMENT
 * if a number is larger than NGP_MAX_VARINT.
 */
int ngp_quic_close(ngp_quic *quic, uint64_t error_code, int application,
                   uint64_t frame_type, const char *reason, size_t len);

/*
 * ngp_quic_get_end fills |*event| with the NGP_QUIC_EVENT_TERMINATED to come,
 * as soon as the connection is closing; its |value| is nonzero if the peer has
 * closed it, or does not answer any more.  It returns 0 before.
 */
int ngp_quic_get_end(const ngp_quic *quic, ngp_quic_event *event);

/* ngp_quic_next_stream_id returns the id of our next stream. */
int64_t ngp_quic_next_stream_id(const ngp_quic *quic, int unidirectional);

/* ngp_quic_streams_left returns how many more of our streams the peer's limit
   allows now; streams that wait for it are counted as open. */
uint64_t ngp_quic_streams_left(const ngp_quic *quic, int unidirectional);

/*
 * ngp_quic_send_framed queues |head_len| bytes at |head|, which are copied,
 * then |len| bytes at |data|, and the end of the stream if |end_stream| is
 * nonzero: all of it or nothing.  On success with |*pheld| nonzero |owner| is
 * held until ngp_quic_take_owner() returns it; otherwise the bytes at |data|
 * were copied, too.
 *
 * This function returns 0 if it succeeds, or NGHTTP2_ERR_NOMEM,
 * NGP_QUIC_ERR_RECEIVE_ONLY, NGP_QUIC_ERR_UNKNOWN_STREAM,
 * NGP_QUIC_ERR_FINISHED_STREAM, NGP_QUIC_ERR_AFTER_FIN,
 * NGP_QUIC_ERR_AFTER_RESET, NGP_QUIC_ERR_STREAM_AHEAD.
 */
int ngp_quic_send_framed(ngp_quic *quic, int64_t stream_id, const uint8_t *head,
                         size_t head_len, const uint8_t *data, size_t len,
                         void *owner, int end_stream, int *pheld);

/* ngp_quic_reset_stream resets our half of a stream; what is queued is dropped.
   Errors are those of ngp_quic_send_framed() except AFTER_FIN. */
int ngp_quic_reset_stream(ngp_quic *quic, int64_t stream_id,
                          uint64_t error_code);

/*
 * ngp_quic_stop_stream asks the peer to stop sending on a stream.  It returns
 * 0, NGHTTP2_ERR_NOMEM, NGP_QUIC_ERR_SEND_ONLY, NGP_QUIC_ERR_UNKNOWN_STREAM or
 * NGHTTP2_ERR_INVALID_ARGUMENT.
 */
int ngp_quic_stop_stream(ngp_quic *quic, int64_t stream_id,
                         uint64_t error_code);

/*
 * ngp_quic_stream_settled is nonzero if our half needs no more waiting after
 * its end: the peer has acknowledged all, or the stream was reset, or is over.
 */
int ngp_quic_stream_settled(const ngp_quic *quic, int64_t stream_id);

/* ngp_quic_unsettled returns the number of streams whose end is queued and that
   are not settled. */
size_t ngp_quic_unsettled(const ngp_quic *quic);

/* ngp_quic_stream_early is nonzero if bytes of the stream came as early data,
   which an attacker may replay (RFC 8446, 8). */
int ngp_quic_stream_early(const ngp_quic *quic, int64_t stream_id);

/* ngp_quic_can_send is nonzero if data may be queued on the stream. */
int ngp_quic_can_send(const ngp_quic *quic, int64_t stream_id);

/* ngp_quic_set_priority sets a stream's urgency (0 to 7, RFC 9218). */
int ngp_quic_set_priority(ngp_quic *quic, int64_t stream_id, uint8_t urgency,
                          int incremental);

/* ngp_quic_set_critical makes a stream be served before those of any urgency.
   This is for streams on which all others depend. */
int ngp_quic_set_critical(ngp_quic *quic, int64_t stream_id);

/* ngp_quic_queued returns the bytes queued and not yet acknowledged, of one
   stream, or of all if |stream_id| is -1. */
uint64_t ngp_quic_queued(const ngp_quic *quic, int64_t stream_id);

/* ngp_quic_unsent returns the bytes queued on a stream that were not sent. */
uint64_t ngp_quic_unsent(const ngp_quic *quic, int64_t stream_id);

/* ngp_quic_send_credit returns how many more bytes the peer's flow control lets
   us send: on one stream, ignoring the connection's limit, or on all if
   |stream_id| is -1.  It returns 0 for a stream that ngtcp2 does not know, such
   as one beyond the peer's limit of streams. */
uint64_t ngp_quic_send_credit(const ngp_quic *quic, int64_t stream_id);

/*
 * ngp_quic_send_datagram queues a DATAGRAM frame with a copy of the bytes.  It
 * is dropped if the peer does not accept it, or if there is no room in the
 * queue.
 */
int ngp_quic_send_datagram(ngp_quic *quic, const uint8_t *data, size_t len);

/* ngp_quic_send_framed_datagram does the same with |head| before the bytes. */
int ngp_quic_send_framed_datagram(ngp_quic *quic, const uint8_t *head,
                                  size_t head_len, const uint8_t *data,
                                  size_t len);

/*
 * ngp_quic_ping queues a PING frame; its acknowledgement becomes an event with
 * |value|.
 *
 * This function returns 0 if it succeeds or the connection is over, or
 * NGHTTP2_ERR_NOMEM.
 */
int ngp_quic_ping(ngp_quic *quic, uint64_t value);

/*
 * ngp_quic_send_token queues, at a server, a NEW_TOKEN frame with a copy of the
 * token (RFC 9000, 8.1.3), which has 1 to NGP_QUIC_MAX_TOKEN bytes.
 *
 * This function returns 0 if it succeeds or the connection is over, or
 * NGHTTP2_ERR_NOMEM, NGHTTP2_ERR_INVALID_ARGUMENT for another length, or
 * NGP_QUIC_ERR_STATE at a client, or before a client's first packet.
 */
int ngp_quic_send_token(ngp_quic *quic, const uint8_t *token, size_t len);

/*
 * ngp_quic_set_keep_alive makes a PING be sent whenever nothing was sent for
 * |interval|, or for a third of the idle timeout if that is shorter; 0 means
 * none.
 */
void ngp_quic_set_keep_alive(ngp_quic *quic, uint64_t interval);

/*
 * ngp_quic_refused reports that the system has refused to send a datagram of
 * |len| bytes because the path does not carry it.  A probe of path MTU
 * discovery counts as lost; after any other datagram, datagrams have QUIC's
 * smallest size (RFC 9000, 14).
 */
void ngp_quic_refused(ngp_quic *quic, size_t len);

/* ngp_quic_update_key queues a key update. */
void ngp_quic_update_key(ngp_quic *quic);

/* ngp_quic_change_cid queues, at a client, the change to another connection id
   of the peer.  It is a no-op if there is no spare one. */
void ngp_quic_change_cid(ngp_quic *quic);

ngp_quic_state ngp_quic_get_state(const ngp_quic *quic);
int ngp_quic_handshake_completed(const ngp_quic *quic);
/* ngp_quic_peer_addr stores the address to which we send in |*addr| and returns
   1, or returns 0 if there is none yet. */
int ngp_quic_peer_addr(const ngp_quic *quic, ngp_quic_addr *addr);
/* ngp_quic_remote_max_datagram returns the length of the longest DATAGRAM frame
   that the peer accepts, or 0 if it accepts none. */
uint64_t ngp_quic_remote_max_datagram(const ngp_quic *quic);
uint32_t ngp_quic_version(const ngp_quic *quic);
const ngtcp2_cid *ngp_quic_host_cid(const ngp_quic *quic);
const ngtcp2_cid *ngp_quic_original_dcid(const ngp_quic *quic);
ngp_tls *ngp_quic_tls(const ngp_quic *quic);
/* ngp_quic_params returns our transport parameters, or the peer's, or NULL
   while they are not known; they are borrowed until the next call.
 */
const ngtcp2_transport_params *ngp_quic_params(const ngp_quic *quic,
                                               int remote);
void ngp_quic_get_stats(const ngp_quic *quic, ngp_quic_stats *stats);

#endif /* NGP_QUIC_H */
