/*
 * Transfers between two connections over a hostile network, everything drawn
 * from a seed.  SPDX-License-Identifier: MIT
 */
#ifndef QUIC_SIM_H
#define QUIC_SIM_H

#include "quic_network.h"

#define MILLISECOND ((uint64_t)1000000)
#define SECOND (1000 * MILLISECOND)

#define SIM_MAX_STREAMS 24
#define SIM_MAX_ACTIONS 24
/* Each end sends no more PINGs, nor DATAGRAM frames: a bit for each. */
#define SIM_MAX_MARKS 32
#define SIM_MAX_LOANS 8

/* What does not vary with the seed: made once a program. */
typedef struct sim_shared {
  ngp_tls_config *client;
  /* The second server does not know the tickets of the first. */
  ngp_tls_config *servers[2];
  /* Tickets of the servers, for early data. */
  uint8_t *tickets[2];
  size_t ticket_lens[2];
} sim_shared;

/* One direction of a stream. */
typedef struct sim_half {
  uint64_t size;
  uint64_t queued;
  uint64_t received;
  /* chunk is how much is queued at once. */
  uint64_t chunk;
  /* The sender gives up at reset_at, and the receiver at stop_at. */
  uint64_t reset_at;
  uint64_t stop_at;
  /* unconsumed is what the receiver has not given credit for. */
  uint64_t unconsumed;
  uint8_t exists;
  /* known is nonzero once the sender knows of the stream. */
  uint8_t known;
  uint8_t fin_queued;
  uint8_t reset;
  uint8_t stopped;
  uint8_t ended;
  uint8_t reset_seen;
  uint8_t stop_seen;
} sim_half;

typedef struct sim_stream {
  int64_t id;
  int opener;
  int unidirectional;
  uint8_t opened;
  uint64_t open_at;
  /* halves[e] is what the end e sends. */
  sim_half halves[2];
} sim_stream;

/* What a connection has lent, and what it must be. */
typedef struct sim_loan {
  ngp_quic_store *store;
  const uint8_t *data;
  const uint8_t *expected;
  size_t len;
} sim_loan;

/* The clock of an end. */
typedef struct sim_clock {
  int64_t offset;
  uint64_t frozen_at;
  uint64_t frozen_until;
  /* told is the latest time that the connection was told. */
  uint64_t told;
} sim_clock;

typedef struct sim_end {
  ngp_quic *quic;
  ngp_quic_options options;
  sim_clock clock;
  /* heard is when the last genuine datagram came, by its own clock. */
  uint64_t heard;
  uint8_t completed;
  uint8_t terminated;
  uint8_t vanished;
  uint8_t closed;
  uint8_t early_accepted;
  uint8_t resumed;
  ngp_quic_event end;
  char reason[257];
  uint32_t pings_sent;
  uint32_t pings_acked;
  uint32_t dgrams_sent;
  uint32_t dgrams_received;
  uint32_t dgrams_wanted;
} sim_end;

typedef enum sim_action_type {
  SIM_PING,
  SIM_KEY_UPDATE,
  SIM_CHANGE_CID,
  SIM_REBIND,
  SIM_MTU,
  SIM_DARK,
  SIM_FREEZE,
  SIM_CLOCK_BACK,
  SIM_CLOCK_FORWARD,
  SIM_PRIORITY,
  SIM_HOLD,
  SIM_CLOSE,
  SIM_VANISH
} sim_action_type;

typedef struct sim_action {
  uint64_t at;
  sim_action_type type;
  int end;
  uint64_t value;
} sim_action;

/* The results of the run, for statistics. */
typedef struct sim_counts {
  uint64_t runs;
  uint64_t complete;
  uint64_t bytes;
  uint64_t datagrams;
  uint64_t retried;
  uint64_t negotiated;
  uint64_t early_accepted;
  uint64_t early_rejected;
  uint64_t moved;
  uint64_t idle;
} sim_counts;

typedef struct sim {
  const sim_shared *shared;
  uint64_t seed;
  int verbose;
  quic_random random;
  quic_network net;
  sim_end ends[2];
  sim_stream streams[SIM_MAX_STREAMS];
  size_t nstreams;
  sim_action actions[SIM_MAX_ACTIONS];
  size_t nactions;
  size_t next_action;
  ngp_quic_addr client_addr;
  /* wake is when the application wants to go on. */
  uint64_t wake;
  /* say_at is when the client says something of a new address. */
  uint64_t say_at;
  /* leap is the largest leap of a clock, tolerance how late a repetition may
     come. */
  uint64_t leap;
  uint64_t tolerance;
  int owners;
  sim_loan loans[SIM_MAX_LOANS];
  size_t nloans;
  uint8_t retry;
  uint8_t use_ticket;
  uint8_t foreign_ticket;
  /* deny_ticket is nonzero if a server that is asked takes no ticket; it
     answers at answer_at. */
  uint8_t deny_ticket;
  uint64_t answer_at;
  /* excused is nonzero if what was drawn may end the connection early. */
  uint8_t excused;
  uint8_t incompatible;
  uint8_t retried;
  uint8_t negotiated;
  uint8_t moved;
  uint8_t changed_cid;
  uint8_t finishing;
  uint8_t failed;
} sim;

/* ---- quic_sim.c ---- */

/* Runs one seed; returns 0, or -1 and has said why. */
int sim_run(const sim_shared *shared, uint64_t seed, int verbose,
            sim_counts *counts);

/* Makes what is shared; returns 0, or -1. */
int sim_setup(sim_shared *shared);
void sim_teardown(sim_shared *shared);

/* Says what is wrong with the run; it ends. */
void sim_fail(sim *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void sim_say(const sim *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- quic_sim_app.c: what both ends do with their connection ---- */

void sim_write(sim *s, int end);
void sim_take_events(sim *s, int end);
/* Gives back what was lent; it must not have changed. */
void sim_return_loans(sim *s);
/* Whether all bytes are where they were to go. */
int sim_is_complete(const sim *s);

/* ---- quic_sim_plan.c ---- */

/* Draws everything from the seed. */
void sim_plan(sim *s);
/* A plan without faults, for a first connection that gets a ticket. */
void sim_plan_plain(sim *s, int server);

#endif /* QUIC_SIM_H */
