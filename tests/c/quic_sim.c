/*
 * The course of a run: clocks, the server's front, the network, and what must
 * hold.  SPDX-License-Identifier: MIT
 */
#include "quic_sim.h"

#include "ngp_quic_int.h"
#include "ngp_quic_packet.h"
#include "quic_pair.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run that has more steps, or so many at one time, goes in circles. */
#define MAX_STEPS 400000
#define MAX_STEPS_AT_ONCE 3000

/* No transfer takes as long. */
#define MAX_TIME (7200 * SECOND)

#define CLOSE_CODE 7
#define BURST 3000
/* RFC 9000, 20.1. */
#define CONNECTION_ID_LIMIT 0x9
#define PROTOCOL_VIOLATION 0xa
#define APPLICATION_ERROR 0xc
#define IDLE "Idle timeout"
#define NO_VERSION "Could not find a common protocol version"

static const ngp_quic_addr server_addr = {.ip = {0xfd, [15] = 2}, .port = 443};
static const uint8_t secret[32] = {1, 2, 3};

/* Where the connections of the run get their random bytes: connection ids and
   what ngtcp2 asks for are of the seed, too. */
static quic_random bytes;

#ifdef NGP_WRAP_RANDOM
int __wrap_ngp_tls_random(void *dest, size_t len);
void __wrap_ngp_tls_nonce(void *dest, size_t len);

void __wrap_ngp_tls_nonce(void *dest, size_t len) {
  size_t i;

  for (i = 0; i < len; ++i) {
    ((uint8_t *)dest)[i] = (uint8_t)quic_random_next(&bytes);
  }
}

int __wrap_ngp_tls_random(void *dest, size_t len) {
  __wrap_ngp_tls_nonce(dest, len);
  return 0;
}
#endif

static void say(const sim *s, const char *format, va_list args) {
  printf("seed %" PRIu64 ", %.6f s: ", s->seed,
         (double)(s->net.now - 1000 * SECOND) / 1e9);
  vprintf(format, args);
  printf("\n");
}

void sim_say(const sim *s, const char *format, ...) {
  va_list args;

  if (s->verbose) {
    va_start(args, format);
    say(s, format, args);
    va_end(args);
  }
}

void sim_fail(sim *s, const char *format, ...) {
  va_list args;

  if (!s->failed) {
    va_start(args, format);
    say(s, format, args);
    va_end(args);
  }
  s->failed = 1;
}

/* ---- Clocks ---- */

static uint64_t told(const sim *s, int end) {
  const sim_clock *clock = &s->ends[end].clock;

  if (s->net.now < clock->frozen_until) {
    return clock->frozen_at;
  }
  return (uint64_t)((int64_t)s->net.now + clock->offset);
}

/* When the clock of |end| shows |time|. */
static uint64_t when(const sim *s, int end, uint64_t time) {
  const sim_clock *clock = &s->ends[end].clock;
  uint64_t at;

  if (time == UINT64_MAX) {
    return time;
  }
  at = (uint64_t)((int64_t)time - clock->offset);
  return at < clock->frozen_until ? clock->frozen_until : at;
}

/* What a connection is told; it takes a clock that runs back as one that stands
   still. */
static uint64_t tell(sim *s, int end) {
  uint64_t now = told(s, end);

  if (s->ends[end].clock.told < now) {
    s->ends[end].clock.told = now;
  }
  return now;
}

/* ---- The server's front ---- */

static int make_end(sim *s, int end) {
  const char *reason = "";
  int rv =
      ngp_quic_new(&s->ends[end].quic, &s->ends[end].options, NULL, &reason);

  if (rv != 0) {
    sim_fail(s, "no connection: %d %s", rv, reason);
  }
  return rv;
}

static void del_end(sim *s, int end) {
  sim_end *e = &s->ends[end];

  if (e->quic) {
    ngp_quic_abandon(e->quic);
    while (ngp_quic_take_owner(e->quic)) {
      --s->owners;
    }
    ngp_quic_del(e->quic);
    e->quic = NULL;
  }
}

static void answer(sim *s, const quic_flight *flight, const uint8_t *data,
                   size_t len) {
  ngp_quic_packet packet = {.data = data, .len = len, .addr = flight->from};

  if (len) {
    quic_network_send(&s->net, 1, &server_addr, &packet);
  }
}

/* Does what a server does with a datagram that belongs to no connection;
   returns nonzero if there is one now. */
static int welcome(sim *s, const quic_flight *flight) {
  ngp_quic_options *o = &s->ends[1].options;
  uint8_t packet[NGP_QUIC_PACKET_MAX];
  ngp_quic_header header;
  size_t i;

  if (ngp_quic_header_decode(&header, flight->data, flight->len, o->cid_len) !=
          0 ||
      !header.is_long || flight->len < 1200) {
    return 0;
  }
  for (i = 0; i < o->nversions && o->versions[i] != header.version; ++i) {
  }
  if (i == o->nversions) {
    s->negotiated = 1;
    answer(s, flight, packet,
           ngp_quic_write_version_negotiation(packet, &header, o->versions,
                                              o->nversions));
    return 0;
  }
  if (!header.is_initial) {
    return 0;
  }
  o->original_dcid.datalen = o->retry_scid.datalen = 0;
  if (s->retry) {
    if (!header.token_len) {
      s->retried = 1;
      answer(s, flight, packet,
             ngp_quic_write_retry(packet, &header, &flight->from, NULL, secret,
                                  sizeof(secret), tell(s, 1)));
      return 0;
    }
    if (ngp_quic_verify_retry(&o->original_dcid, &header, &flight->from, secret,
                              sizeof(secret), 3600 * SECOND, tell(s, 1)) != 0) {
      return 0;
    }
    ngtcp2_cid_init(&o->retry_scid, header.dcid, header.dcid_len);
  }
  if (s->ends[1].quic) {
    del_end(s, 1);
    s->ends[1].terminated = 0;
  }
  /* The clock may have gone back before there was a connection. */
  s->ends[1].heard = s->ends[1].clock.told = told(s, 1);
  return make_end(s, 1) == 0;
}

/* Whether a datagram may begin a connection: a server whose connection came to
   nothing, because its first packet was damaged, waits for another. */
static int is_vacant(const sim *s) {
  const sim_end *e = &s->ends[1];
  size_t i;

  if (!e->quic) {
    return 1;
  }
  if (!e->terminated || e->completed || e->closed) {
    return 0;
  }
  for (i = 0; i < s->nstreams; ++i) {
    const sim_stream *stream = &s->streams[i];

    if (stream->halves[0].received || stream->halves[0].ended ||
        stream->halves[1].queued || (stream->opened && stream->opener == 1)) {
      return 0;
    }
  }
  return 1;
}

/* ---- Steps ---- */

static void check_rv(sim *s, int end, int rv, const char *what) {
  if (rv != 0) {
    sim_fail(s, "%d: %s: %d", end, what, rv);
  }
}

static int is_alive(const sim *s, int end) {
  return s->ends[end].quic && !s->ends[end].vanished;
}

static int same_addr(const ngp_quic_addr *a, const ngp_quic_addr *b) {
  return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0 && a->port == b->port;
}

static void deliver(sim *s, const quic_flight *flight) {
  int end = flight->to;
  sim_end *e = &s->ends[end];

  if (e->vanished || (end == 0 && !same_addr(&flight->dest, &s->client_addr)) ||
      (end == 1 && is_vacant(s) && !welcome(s, flight))) {
    return;
  }
  if (end == 1 && !same_addr(&flight->dest, &server_addr)) {
    sim_fail(s, "a datagram to the wrong server");
  }
  check_rv(s, end,
           ngp_quic_recv(e->quic, flight->data, flight->len, &flight->from,
                         flight->ecn, tell(s, end)),
           "recv");
  /* Once the handshake is complete its packets may be for keys that are gone;
     before, others may wait for keys.  Version negotiation counts for
     nothing. */
  if (!e->terminated && flight->genuine &&
      e->completed == !(flight->data[0] & 0x80) &&
      (e->completed || memcmp(flight->data + 1, "\0\0\0\0", 4) != 0)) {
    e->heard = e->clock.told;
  }
  sim_take_events(s, end);
}

static void send_packets(sim *s, int end) {
  ngp_quic *quic = s->ends[end].quic;
  const ngp_quic_packet *packets;
  size_t left = SIZE_MAX;
  size_t n;
  size_t i;

  if (quic_random_chance(&s->random, 20)) {
    left = BURST;
    /* The rest is written when it is asked for. */
    check_rv(s, end, ngp_quic_send_burst(quic, BURST, tell(s, end)), "send");
  } else {
    check_rv(s, end, ngp_quic_send(quic, tell(s, end)), "send");
  }
  sim_take_events(s, end);
  packets = ngp_quic_packets(quic, &n);
  for (i = 0; i < n && !s->failed; ++i) {
    if (!packets[i].len || packets[i].len > 1500) {
      sim_fail(s, "a datagram of %zu bytes", packets[i].len);
      return;
    }
    left = packets[i].len < left ? left - packets[i].len : 0;
    quic_network_send(&s->net, end, end ? &server_addr : &s->client_addr,
                      &packets[i]);
  }
  if (left < 1500) {
    /* It may have stopped for want of room. */
    s->wake = s->net.now + 1;
  }
}

static void leap_clock(sim *s, const sim_action *action) {
  sim_clock *clock = &s->ends[action->end].clock;

  switch (action->type) {
  case SIM_FREEZE:
    clock->frozen_at = told(s, action->end);
    clock->frozen_until = s->net.now + action->value;
    if (action->value & 1) {
      /* It goes on from where it stood. */
      clock->offset -= (int64_t)action->value;
    }
    break;
  case SIM_CLOCK_BACK:
    clock->offset -= (int64_t)action->value;
    break;
  default:
    clock->offset += (int64_t)action->value;
  }
}

static void set_mtu(sim *s, size_t mtu) {
  int end;

  for (end = 0; end < 2; ++end) {
    const ngp_quic_options *o = &s->ends[end].options;

    s->net.ways[end].mtu = mtu;
    /* Who sends longer datagrams than the path takes waits for another path;
       this one gets better. */
    s->net.ways[end].mtu_until = o->pmtud || o->max_datagram_size > mtu
                                     ? s->net.now + 2 * SECOND
                                     : UINT64_MAX;
  }
}

/* A client whose address has changed has to say something, or the server does
   not know where to send to. */
static void say_something(sim *s) {
  sim_end *e = &s->ends[0];

  s->say_at = UINT64_MAX;
  if (e->quic && !e->closed && !e->terminated &&
      e->pings_sent < SIM_MAX_MARKS) {
    check_rv(s, 0, ngp_quic_ping(e->quic, e->pings_sent++), "ping");
  }
}

static void act(sim *s, const sim_action *action) {
  static const char *const names[] = {
      "pings",     "updates keys", "changes ids", "moves", "mtu",
      "dark",      "freezes",      "leaps back",  "leaps", "priority",
      "holds one", "closes",       "vanishes"};
  sim_end *e = &s->ends[action->end];
  const sim_stream *stream = &s->streams[action->value % s->nstreams];

  sim_say(s, "%d %s (%" PRIu64 ")", action->end, names[action->type],
          action->value);
  switch (action->type) {
  case SIM_REBIND:
    /* Before the handshake is confirmed no address may change (RFC 9000, 9). */
    if (s->ends[1].completed && s->ends[0].quic->handshake.confirmed) {
      s->client_addr.port = (uint16_t)(1024 + action->value % 60000);
      s->client_addr.ip[15] = (uint8_t)(action->value >> 16 & 3);
      s->client_addr.ip[14] = 9;
      s->moved = 1;
      s->say_at = s->net.now + 4 * s->net.ways[0].delay;
    }
    return;
  case SIM_MTU:
    set_mtu(s, action->value);
    return;
  case SIM_DARK:
    s->net.dark_until = s->net.now + action->value;
    return;
  case SIM_FREEZE:
  case SIM_CLOCK_BACK:
  case SIM_CLOCK_FORWARD:
    leap_clock(s, action);
    return;
  case SIM_VANISH:
    e->vanished = 1;
    return;
  default:
    break;
  }
  if (!e->quic || e->closed || e->terminated) {
    return;
  }
  switch (action->type) {
  case SIM_PING:
    check_rv(s, action->end, ngp_quic_ping(e->quic, e->pings_sent++), "ping");
    break;
  case SIM_KEY_UPDATE:
    ngp_quic_update_key(e->quic);
    break;
  case SIM_CHANGE_CID:
    ngp_quic_change_cid(e->quic);
    s->changed_cid |= action->end == 0;
    break;
  case SIM_PRIORITY:
    if (stream->opened) {
      (void)ngp_quic_set_priority(e->quic, stream->id, action->value >> 8 & 7,
                                  action->value >> 16 & 1);
    }
    break;
  case SIM_HOLD:
    if (stream->opened) {
      ngp_quic_hold_credit(e->quic, stream->id, 1);
      ngp_quic_consume(e->quic, stream->id, 0);
      ngp_quic_hold_credit(e->quic, stream->id, 0);
    }
    break;
  default:
    e->closed = 1;
    check_rv(s, action->end,
             ngp_quic_close(e->quic, action->value, 1, 0, "bye", 3), "close");
  }
}

/* When there is something to do next. */
static uint64_t next_time(const sim *s) {
  uint64_t next = quic_network_next(&s->net);
  size_t i;
  int end;

  for (end = 0; end < 2; ++end) {
    if (is_alive(s, end)) {
      uint64_t at = when(s, end, ngp_quic_get_timer(s->ends[end].quic));

      next = at < next ? at : next;
    }
  }
  if (s->next_action < s->nactions && s->actions[s->next_action].at < next) {
    next = s->actions[s->next_action].at;
  }
  if (s->wake && s->wake < next) {
    next = s->wake;
  }
  if (s->say_at < next) {
    next = s->say_at;
  }
  if (s->answer_at < next) {
    next = s->answer_at;
  }
  for (i = 0; i < s->nstreams; ++i) {
    const sim_stream *stream = &s->streams[i];

    if (!stream->opened && stream->open_at > s->net.now &&
        stream->open_at < next) {
      next = stream->open_at;
    }
  }
  return next;
}

static void step(sim *s) {
  int end;

  if (s->wake <= s->net.now) {
    s->wake = 0;
  }
  if (s->say_at <= s->net.now) {
    say_something(s);
  }
  if (s->answer_at <= s->net.now) {
    s->answer_at = UINT64_MAX;
    check_rv(s, 1, ngp_quic_take_tickets(s->ends[1].quic, !s->deny_ticket),
             "take_tickets");
    sim_take_events(s, 1);
  }
  while (s->next_action < s->nactions &&
         s->actions[s->next_action].at <= s->net.now) {
    act(s, &s->actions[s->next_action++]);
  }
  while (!s->failed && quic_network_next(&s->net) <= s->net.now) {
    quic_flight flight = quic_network_take(&s->net);

    deliver(s, &flight);
    free(flight.data);
  }
  for (end = 0; end < 2 && !s->failed; ++end) {
    sim_end *e = &s->ends[end];

    if (!is_alive(s, end)) {
      continue;
    }
    if (ngp_quic_get_timer(e->quic) <= told(s, end)) {
      check_rv(s, end, ngp_quic_handle_timer(e->quic, tell(s, end)), "timer");
      sim_take_events(s, end);
    }
    if (!e->closed && !e->terminated) {
      sim_write(s, end);
    }
    send_packets(s, end);
  }
  s->net.steal = s->ends[1].completed && s->ends[0].quic->handshake.confirmed;
}

/* ---- What must hold ---- */

static uint64_t idle_of(const sim *s) {
  uint64_t a = s->ends[0].options.idle_timeout;
  uint64_t b = s->ends[1].options.idle_timeout;

  return a < b ? a : b;
}

/* Nobody stays who has heard nothing for longer than the timeout: that is,
   since a packet of its own that asked for an answer (RFC 9000, 10.1), or for
   three times the probe timeout, which leaps of the clock make long. */
static void check_silence(sim *s) {
  int end;

  for (end = 0; end < 2; ++end) {
    const sim_end *e = &s->ends[end];

    if (is_alive(s, end) && !e->terminated &&
        ngp_quic_get_state(e->quic) != NGP_QUIC_STATE_NEW &&
        e->clock.told > e->heard + 2 * e->options.idle_timeout + 20 * SECOND +
                            20 * s->leap) {
      sim_fail(s, "%d hangs", end);
    }
  }
}

static int is_over(const sim *s) {
  int end;

  for (end = 0; end < 2; ++end) {
    if (is_alive(s, end) && !s->ends[end].terminated) {
      return 0;
    }
  }
  return 1;
}

/* Says how far everything has come. */
static void say_state(const sim *s) {
  size_t i;
  int end;

  for (end = 0; end < 2; ++end) {
    const sim_end *e = &s->ends[end];
    ngp_quic_stats stats;

    if (e->quic) {
      ngp_quic_get_stats(e->quic, &stats);
      sim_say(s,
              "%d: version %x, %" PRIu64 " in flight of %" PRIu64 ", %" PRIu64
              " queued, pings %x of %u",
              end, ngp_quic_version(e->quic), stats.bytes_in_flight, stats.cwnd,
              ngp_quic_queued(e->quic, -1), e->pings_acked, e->pings_sent);
    }
  }
  for (i = 0; i < s->nstreams; ++i) {
    for (end = 0; end < 2; ++end) {
      const sim_half *half = &s->streams[i].halves[end];

      if (half->exists) {
        sim_say(s,
                "stream %" PRId64 " from %d: %" PRIu64 " of %" PRIu64
                " of %" PRIu64 "%s%s%s%s",
                s->streams[i].id, end, half->received, half->queued, half->size,
                half->reset ? ", reset" : "", half->stopped ? ", stopped" : "",
                half->ended ? ", ended" : "",
                half->reset_seen ? ", reset seen" : "");
      }
    }
  }
}

/* If a client moves again before its last address was validated, and changes
   the connection id, ngtcp2 (1.11 to 1.24) retires one that it still uses and
   counts. */
static int lost_count(const sim *s, const sim_end *e) {
  return s->moved && s->changed_cid &&
         (e->end.error_code == CONNECTION_ID_LIMIT ||
          e->end.error_code == PROTOCOL_VIOLATION);
}

static void check_end(sim *s, int end) {
  const sim_end *e = &s->ends[end];

  if (!e->terminated || s->failed) {
    return;
  }
  if (strcmp(e->reason, IDLE) == 0) {
    /* What comes to an old connection id of this end does not count, nor what
       comes too early or too late for its keys. */
    if (e->heard + idle_of(s) > e->clock.told + s->tolerance && e->completed &&
        !(s->moved && s->changed_cid)) {
      sim_fail(s, "%d was not idle: it has heard something %.3f s ago", end,
               (double)(e->clock.told - e->heard) / 1e9);
    }
  } else if (lost_count(s, e)) {
    return;
  } else if (strcmp(e->reason, NO_VERSION) == 0) {
    if (!s->incompatible) {
      sim_fail(s, "%d finds no version", end);
    }
  } else if (e->end.error_code == APPLICATION_ERROR && s->ends[!end].closed) {
    /* What an application says before the handshake is complete is put so. */
  } else if (!e->end.application && (e->completed || end == 0)) {
    sim_fail(s, "%d ends with %" PRIu64 " (%" PRIu64 ") %s", end,
             e->end.error_code, e->end.frame_type, e->reason);
  }
  if (s->use_ticket && (e->early_accepted || e->resumed) &&
      (s->foreign_ticket ||
       (s->deny_ticket && s->ends[1].options.ask_tickets))) {
    sim_fail(s, "%d resumes with a ticket that is not taken", end);
  }
}

static int is_idle(const sim_end *e) {
  ngp_quic_stats stats;

  if (!e->completed) {
    return 0;
  }
  ngp_quic_get_stats(e->quic, &stats);
  return stats.bytes_in_flight == 0;
}

/* ngtcp2 never closes a stream that was stopped while a part of it was missing,
   if the peer has sent all of it: the peer may open one less. */
static int misses_stream(const sim *s) {
  size_t i;
  int end;

  for (i = 0; i < s->nstreams; ++i) {
    for (end = 0; end < 2; ++end) {
      const sim_half *half = &s->streams[i].halves[end];

      if (half->stopped && !half->ended && !half->reset_seen &&
          half->fin_queued) {
        return 1;
      }
    }
  }
  return 0;
}

/* If it is not excused, only silence of the network may end a run before it is
   complete; and then somebody has waited for an answer. */
static void check_completeness(sim *s) {
  const sim_end *a = &s->ends[0];
  const sim_end *b = &s->ends[1];

  if (s->finishing || s->excused || s->incompatible || s->failed) {
    return;
  }
  if (is_idle(a) && is_idle(b)) {
    if (!misses_stream(s)) {
      sim_fail(s, "it stands still");
    }
  } else if (strcmp(a->reason, IDLE) != 0 && strcmp(b->reason, IDLE) != 0 &&
             !lost_count(s, a)) {
    sim_fail(s, "it ends before it is complete");
  }
}

static void finish(sim *s) {
  sim_end *e;
  int end = (int)quic_random_below(&s->random, 2);

  s->finishing = 1;
  e = &s->ends[end];
  if (!e->closed && !e->terminated) {
    e->closed = 1;
    check_rv(s, end, ngp_quic_close(e->quic, CLOSE_CODE, 1, 0, "", 0), "close");
  }
}

static void run(sim *s) {
  uint64_t steps;
  int at_once = 0;

  if (make_end(s, 0) != 0) {
    return;
  }
  sim_write(s, 0);
  check_rv(s, 0, ngp_quic_connect(s->ends[0].quic, &server_addr, tell(s, 0)),
           "connect");
  for (steps = 0; !s->failed; ++steps) {
    uint64_t next;

    step(s);
    check_silence(s);
    if (!s->finishing && sim_is_complete(s)) {
      finish(s);
      step(s);
    }
    if (is_over(s) || s->failed) {
      break;
    }
    next = next_time(s);
    at_once = next > s->net.now ? 0 : at_once + 1;
    if (next > s->net.now) {
      s->net.now = next;
    }
    if (next == UINT64_MAX || s->net.now > 1000 * SECOND + MAX_TIME) {
      sim_fail(s, "nothing more happens");
    } else if (at_once > MAX_STEPS_AT_ONCE || steps > MAX_STEPS) {
      sim_fail(s, "it goes in circles");
    }
  }
}

static void count(const sim *s, sim_counts *counts) {
  const sim_end *client = &s->ends[0];
  size_t i;

  ++counts->runs;
  counts->complete += s->finishing;
  counts->datagrams += s->net.sent;
  counts->retried += s->retried;
  counts->negotiated += s->negotiated;
  counts->moved += s->moved;
  counts->idle += strcmp(client->reason, IDLE) == 0;
  if (s->use_ticket && client->completed) {
    ++*(client->early_accepted ? &counts->early_accepted
                               : &counts->early_rejected);
  }
  for (i = 0; i < s->nstreams; ++i) {
    counts->bytes +=
        s->streams[i].halves[0].received + s->streams[i].halves[1].received;
  }
}

static void end_run(sim *s) {
  del_end(s, 0);
  del_end(s, 1);
  sim_return_loans(s);
  quic_network_free(&s->net);
  if (s->owners) {
    sim_fail(s, "%d pieces are not given back", s->owners);
  }
}

int sim_run(const sim_shared *shared, uint64_t seed, int verbose,
            sim_counts *counts) {
  sim s = {.shared = shared,
           .seed = seed,
           .verbose = verbose,
           .say_at = UINT64_MAX,
           .answer_at = UINT64_MAX};

  bytes.state = ~seed;
  sim_plan(&s);
  run(&s);
  say_state(&s);
  check_end(&s, 0);
  check_end(&s, 1);
  check_completeness(&s);
  count(&s, counts);
  end_run(&s);
  return s.failed ? -1 : 0;
}

/* ---- What is shared ---- */

/* Lets a client meet |server|, and keeps its ticket. */
static int get_ticket(sim_shared *shared, int server) {
  sim s = {.shared = shared, .say_at = UINT64_MAX, .answer_at = UINT64_MAX};
  ngp_quic_event report;

  bytes.state = (uint64_t)server;
  sim_plan_plain(&s, server);
  run(&s);
  while (!s.failed && ngp_quic_next_report(s.ends[0].quic, &report)) {
    if (report.type == NGP_QUIC_EVENT_SESSION_TICKET &&
        !shared->tickets[server]) {
      shared->tickets[server] = malloc(report.len);
      if (shared->tickets[server]) {
        memcpy(shared->tickets[server], report.data, report.len);
        shared->ticket_lens[server] = report.len;
      }
    }
  }
  end_run(&s);
  return shared->tickets[server] ? 0 : -1;
}

int sim_setup(sim_shared *shared) {
  int i;

  quic_pair_setup();
  memset(shared, 0, sizeof(*shared));
  if (quic_pair_config(&shared->client, 1, NULL) != 0) {
    return -1;
  }
  for (i = 0; i < 2; ++i) {
    if (quic_pair_config(&shared->servers[i], 0, NULL) != 0 ||
        get_ticket(shared, i) != 0) {
      return -1;
    }
  }
  return 0;
}

void sim_teardown(sim_shared *shared) {
  int i;

  ngp_tls_config_decref(shared->client);
  for (i = 0; i < 2; ++i) {
    ngp_tls_config_decref(shared->servers[i]);
    free(shared->tickets[i]);
  }
  quic_pair_teardown();
}
