/*
 * What the files of ngp_quic share.  SPDX-License-Identifier: MIT
 */
#ifndef NGP_QUIC_INT_H
#define NGP_QUIC_INT_H

#include "ngp_quic.h"
#include "ngp_quic_stream.h"

/*
 * ngp_quic_store is the memory of events' bytes.  Its queue holds it, and so do
 * events that borrow from it: while there are any, bytes are only added at its
 * end.
 */
struct ngp_quic_store {
  nghttp2_mem *mem;
  ngp_refs refs;
  size_t len;
  size_t cap;
  uint8_t data[];
};

/*
 * ngp_quic_queue is a queue of recorded events, and of their bytes.  Offsets
 * count from the connection's first byte; |base| is that of the first byte in
 * |store|, which is NULL until it is needed.
 */
typedef struct ngp_quic_queue {
  nghttp2_mem *mem;
  ngp_quic_event *events;
  size_t first;
  size_t end;
  size_t cap;
  ngp_quic_store *store;
  uint64_t base;
} ngp_quic_queue;

typedef struct ngp_quic_dgram {
  struct ngp_quic_dgram *next;
  size_t len;
  uint8_t data[];
} ngp_quic_dgram;

/* Returns what a datagram with |len| bytes of payload counts in its queue: an
   empty one must count, too. */
static inline size_t ngp_quic_dgram_cost(size_t len) { return len ? len : 1; }

/*
 * ngp_quic_ping_wait is a PING that is not acknowledged yet.
 */
typedef struct ngp_quic_ping_wait {
  uint64_t value;
  /* pkt_num is of the packet that carries it, or -1. */
  int64_t pkt_num;
  /* own is nonzero for a PING of ours, 0 for one of the caller's. */
  uint8_t own;
} ngp_quic_ping_wait;

/*
 * ngp_quic_stop is a received STOP_SENDING frame.
 */
typedef struct ngp_quic_stop {
  int64_t stream_id;
  uint64_t error_code;
} ngp_quic_stop;

/*
 * ngp_quic_tap is the state of reading unprotected packets: see ngp_quic_tap.c.
 */
typedef struct ngp_quic_tap {
  ngp_quic_ping_wait *pings;
  size_t npings;
  size_t pings_cap;
  /* stops has those of the datagram that is being read. */
  ngp_quic_stop *stops;
  size_t nstops;
  size_t stops_cap;
  /* next_pkt_num is one more than the last 1-RTT packet number that we used. */
  int64_t next_pkt_num;
} ngp_quic_tap;

/*
 * ngp_quic_ask is the state of a server that asks the caller whether to accept
 * session tickets: see ngp_quic_ticket.c.
 */
typedef struct ngp_quic_ask {
  enum {
    /* The caller need not be asked, or has answered. */
    NGP_QUIC_ASK_DONE,
    /* The ClientHello is read first. */
    NGP_QUIC_ASK_FIRST,
    /* Tickets were presented, and the caller has not answered. */
    NGP_QUIC_ASK_WAITING
  } state;
  /* hello is the ClientHello received so far. */
  ngp_buf hello;
  ngp_buf datagrams;
} ngp_quic_ask;

/* Streams of one type, bidirectional or not, that we open. */
typedef struct ngp_quic_local {
  /* next_id is the id that the caller gets next, next_open the one that ngtcp2
     opens next. */
  int64_t next_id;
  int64_t next_open;
} ngp_quic_local;

/* RFC 9000, 2.1: the two low bits of a stream's id. */
static inline int ngp_quic_is_uni(int64_t id) { return (id & 2) != 0; }
static inline int ngp_quic_is_of_client(int64_t id) { return (id & 1) == 0; }

/* The most connection ids of ours that ngtcp2 keeps in use. */
#define NGP_QUIC_MAX_EARLY_CIDS 8

struct ngp_quic {
  nghttp2_mem *mem;
  ngtcp2_conn *conn;
  ngp_tls *tls;
  ngp_quic_options options;
  ngp_quic_streams streams;
  ngp_quic_local local[2];
  /* remote_next is one more than the highest stream id of the peer, by type. */
  int64_t remote_next[2];
  ngp_quic_queue events;
  ngp_quic_queue reports;
  ngp_quic_tap tap;
  ngp_quic_ask ask;
  ngp_quic_stats stats;
  /* dgrams has the datagrams to send; bytes is the sum of what they count,
     received that of the datagrams in |events|. */
  struct {
    ngp_quic_dgram *head;
    ngp_quic_dgram *tail;
    size_t bytes;
    size_t received;
  } dgrams;
  /* out has what ngp_quic_send() has written. */
  struct {
    /* bytes gathers packets. */
    ngp_buf bytes;
    ngp_quic_packet *packets;
    size_t npackets;
    size_t packets_cap;
    size_t burst;
    /* max_len bounds the length of a datagram: see ngp_quic_refused(). */
    size_t max_len;
  } out;
  /* now is the latest time that the caller has passed. */
  uint64_t now;
  /* keep_alive is the interval of ngp_quic_set_keep_alive(), or 0. */
  uint64_t keep_alive;
  struct {
    ngtcp2_sockaddr_union local;
    ngtcp2_sockaddr_union remote;
    /* deadline is when the validation of a new address ends, or UINT64_MAX: see
       ngp_quic_path_moved(). */
    uint64_t deadline;
  } path;
  /* close is how the connection ends. */
  struct {
    /* error is that of the CONNECTION_CLOSE, sent or still to be sent, with
       |reason|. */
    ngtcp2_ccerr error;
    uint8_t reason[256];
    uint64_t until;
    /* packet is kept to send it again, after twice as many packets of the peer
       each time. */
    uint8_t *packet;
    size_t len;
    uint32_t heard;
    uint32_t due;
    ngp_quic_addr addr;
    uint8_t pending;
    uint8_t again;
    /* by_peer is nonzero if the peer has ended the connection. */
    uint8_t by_peer;
    uint8_t stateless_reset;
  } close;
  struct {
    ngtcp2_cid host;
    ngtcp2_cid original_dcid;
    /* early has those that were issued before the handshake was complete. */
    ngtcp2_cid early[NGP_QUIC_MAX_EARLY_CIDS];
    size_t nearly;
  } cids;
  /* copies, owned, are of what the caller's options borrow. */
  struct {
    uint8_t *alpn;
    char *sni;
    char *verify_name;
    uint8_t *token;
    uint8_t *ticket;
    uint8_t *reset_secret;
    ngp_cid_layout *cid_layout;
    uint8_t verify_ip[16];
  } copies;
  struct {
    uint64_t remote_max_datagram;
    /* retry_version is the version to restart with, or 0. */
    uint32_t retry_version;
    uint8_t completed;
    uint8_t confirmed;
    /* can_shut is nonzero at a server, and at a client that has written a
       packet after its handshake: see shut_streams() in ngp_quic_send.c. */
    uint8_t can_shut;
    /* can_send is nonzero once there are keys for application data. */
    uint8_t can_send;
    uint8_t early_data;
  } handshake;
  /* pending is what the caller has requested and ngtcp2 has not been asked
     yet. */
  struct {
    uint8_t key_update;
    uint8_t change_cid;
  } pending;
  uint8_t state;
  /* no_memory is set by callbacks; the function that caused them returns the
     error. */
  uint8_t no_memory;
  /* merge is nonzero while data can be added to the last event: it is
     STREAM_DATA, and was not returned yet. */
  uint8_t merge;
  /* unclosed is a stream that the peer has reset and ngtcp2 has not closed yet,
     or NULL; forgotten counts those that it never closes: see
     ngp_quic_close_forgotten(). */
  ngp_quic_stream *unclosed;
  uint32_t forgotten;
};

/* Nonzero if our side opens the stream |id|. */
static inline int ngp_quic_is_local(const ngp_quic *quic, int64_t id) {
  return ngp_quic_is_of_client(id) == (quic->options.is_client != 0);
}

/* ---- ngp_quic_event.c ---- */

void ngp_quic_queue_init(ngp_quic_queue *queue, nghttp2_mem *mem);
void ngp_quic_queue_free(ngp_quic_queue *queue);

/* Frees memory, if the queue is empty. */
void ngp_quic_trim(ngp_quic_queue *queue);

/* Appends an event with a copy of |len| bytes.  Returns NULL and sets no_memory
   for want of memory. */
ngp_quic_event *ngp_quic_record(ngp_quic *quic, ngp_quic_queue *queue,
                                ngp_quic_event_type type, const void *data,
                                size_t len);

/* Adds to the data of the last event. */
int ngp_quic_record_more(ngp_quic *quic, ngp_quic_queue *queue,
                         const void *data, size_t len);

/* Records stream data; adds them to the last event if that is the stream's. */
int ngp_quic_record_data(ngp_quic *quic, int64_t stream_id, const uint8_t *data,
                         size_t len, int end_stream);

/* ---- ngp_quic_callbacks.c ---- */

extern const ngtcp2_callbacks ngp_quic_client_callbacks;
extern const ngtcp2_callbacks ngp_quic_server_callbacks;
ngp_tls_hooks ngp_quic_tls_hooks(const ngp_quic *quic);
/* Closes a unidirectional stream that ngtcp2 fails to close. */
void ngp_quic_close_forgotten(ngp_quic *quic);
/* Makes a connection id of |len| bytes; returns 0, or a negative code. */
int ngp_quic_make_cid(const ngp_quic *quic, ngtcp2_cid *cid, size_t len);

/* ---- ngp_quic.c ---- */

/* Sets the time to |now| if that is later. */
void ngp_quic_set_time(ngp_quic *quic, uint64_t now);
/* Handles ngtcp2's negative return code |rv|. */
int ngp_quic_fail(ngp_quic *quic, int rv);
/* Records the end of the connection. */
void ngp_quic_terminate(ngp_quic *quic);
ngtcp2_sockaddr_in6 ngp_quic_to_sockaddr(const ngp_quic_addr *addr);
/* Copies the addresses of |path| to |*addr|. */
void ngp_quic_get_addr(const ngp_quic *quic, const ngtcp2_path *path,
                       ngp_quic_addr *addr);
/* Makes ngtcp2 send PINGs as set by ngp_quic_set_keep_alive(). */
void ngp_quic_keep_alive(ngp_quic *quic);
/* Rewinds all streams of a client whose early data were rejected or whose
   server offers another version. */
void ngp_quic_rewind_streams(ngp_quic *quic);
/* Handles a change of a client's address: it has migrated, or ngtcp2 has
   returned to the old address because the new one did not answer. ngtcp2 1.11
   returns only when it writes, and while it may not send to the new address
   (RFC 9000, 8.1) none of its timers makes it write: so there is one of ours.
   |pto| was the probe timeout before. */
int ngp_quic_path_moved(ngp_quic *quic, uint64_t pto);
/* Deletes the ngtcp2_conn and its TLS, which are then replaced by others. */
void ngp_quic_forget_conn(ngp_quic *quic);

/* ---- ngp_quic_ticket.c ---- */

/* Handles CRYPTO data before TLS gets them, at a server. */
int ngp_quic_recv_crypto(ngtcp2_conn *conn, ngtcp2_encryption_level level,
                         uint64_t offset, const uint8_t *data, size_t len,
                         void *user_data);
/* Keeps a datagram until the caller has answered. */
int ngp_quic_ask_keep(ngp_quic *quic, const uint8_t *data, size_t len,
                      const ngp_quic_addr *addr, uint8_t ecn);
void ngp_quic_ask_free(ngp_quic *quic);

/* ---- ngp_quic_open.c ---- */

/* Makes the ngtcp2_conn: a client's, or a server's for the packet |hd|. */
int ngp_quic_open_client(ngp_quic *quic, uint32_t version,
                         uint32_t original_version);
int ngp_quic_open_server(ngp_quic *quic, const ngtcp2_pkt_hd *hd);

/* Copies and checks the options. */
int ngp_quic_set_options(ngp_quic *quic, const ngp_quic_options *options,
                         const char **preason);

/* ---- ngp_quic_send.c ---- */

/* Makes ngtcp2 reset or stop the stream, if that is possible now. */
int ngp_quic_shut_stream(ngp_quic *quic, const ngp_quic_stream *stream);
void ngp_quic_drop_dgram(ngp_quic *quic);

/* ---- ngp_quic_tap.c ---- */

int ngp_quic_tap_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                         const ngtcp2_crypto_aead_ctx *aead_ctx,
                         const uint8_t *plaintext, size_t plaintextlen,
                         const uint8_t *nonce, size_t noncelen,
                         const uint8_t *aad, size_t aadlen);
int ngp_quic_tap_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead,
                         const ngtcp2_crypto_aead_ctx *aead_ctx,
                         const uint8_t *ciphertext, size_t ciphertextlen,
                         const uint8_t *nonce, size_t noncelen,
                         const uint8_t *aad, size_t aadlen);
/* Sets whose packets the two functions above get, on this thread. */
void ngp_quic_tap_begin(ngp_quic *quic);
void ngp_quic_tap_end(void);
/* Records the STOP_SENDING frames of the datagram that was read. */
int ngp_quic_tap_record_stops(ngp_quic *quic);
/* Makes a PING be sent on a new path.  There ngtcp2 starts with nothing in
   flight: it declares what was sent before as lost only when a later packet is
   acknowledged, so there has to be one. */
int ngp_quic_tap_probe_path(ngp_quic *quic);
/* Whether a PING has to be sent. */
int ngp_quic_tap_wants_ping(const ngp_quic *quic);

#endif /* NGP_QUIC_INT_H */
