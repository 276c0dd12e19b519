/*
 * What happens in a run, drawn from its seed.  SPDX-License-Identifier: MIT
 */
#include "quic_sim.h"

#include <string.h>

/* The limits that a ticket promises for early data: a server that takes it may
   not have lower ones (RFC 9000, 7.4.1). */
#define TICKET_DATA 16384
#define TICKET_STREAM_DATA 8192
#define TICKET_STREAMS 4
#define TICKET_DATAGRAM 1200

#define RESERVED_VERSION 0x1a2a3a4au

static const uint8_t alpn[] = "\4test";

static void common_options(sim *s, int end) {
  ngp_quic_options *o = &s->ends[end].options;

  ngp_quic_options_default(o);
  o->is_client = end == 0;
  o->max_data = TICKET_DATA;
  o->max_stream_data = TICKET_STREAM_DATA;
  o->max_streams_bidi = o->max_streams_uni = TICKET_STREAMS;
  o->idle_timeout = 20 * SECOND;
  o->initial_rtt = 50 * MILLISECOND;
  o->max_datagram_frame_size = TICKET_DATAGRAM;
  o->max_datagram_queue = 1 << 16;
  o->versions[0] = NGTCP2_PROTO_VER_V1;
  o->nversions = 1;
  o->tls.alpn = alpn;
  o->tls.alpn_len = sizeof(alpn) - 1;
  o->tls.send_tickets = o->tls.take_tickets = 1;
  o->tls.early_data = 1;
  if (end == 0) {
    o->tls.sni = o->tls.verify_name = "localhost";
    o->tls_config = s->shared->client;
  } else {
    o->tls_config = s->shared->servers[0];
  }
}

static void common_plan(sim *s) {
  int end;

  s->net.random.state = s->seed * 0x2545f4914f6cdd1du + 1;
  s->random.state = s->seed;
  s->net.now = 1000 * SECOND;
  s->client_addr = (ngp_quic_addr){.ip = {0xfd, [15] = 1}, .port = 5000};
  for (end = 0; end < 2; ++end) {
    s->net.ways[end].delay = 10 * MILLISECOND;
    s->ends[end].clock.told = s->ends[end].heard = s->net.now;
    common_options(s, end);
  }
}

void sim_plan_plain(sim *s, int server) {
  int end;

  common_plan(s);
  s->ends[1].options.tls_config = s->shared->servers[server];
  s->nstreams = 1;
  for (end = 0; end < 2; ++end) {
    s->streams[0].halves[end] = (sim_half){.size = 10,
                                           .chunk = 10,
                                           .reset_at = UINT64_MAX,
                                           .stop_at = UINT64_MAX,
                                           .exists = 1,
                                           .known = end == 0};
  }
}

/* ---- Options ---- */

static uint64_t draw_window(quic_random *r, uint64_t least) {
  uint64_t n = (uint64_t)1 << quic_random_between(r, 10, 20);

  n += quic_random_below(r, 1000);
  return n < least ? least : n;
}

static void draw_versions(sim *s) {
  static const uint32_t lists[4][2] = {
      {NGTCP2_PROTO_VER_V1, NGTCP2_PROTO_VER_V2},
      {NGTCP2_PROTO_VER_V2, NGTCP2_PROTO_VER_V1},
      {NGTCP2_PROTO_VER_V1, 0},
      {NGTCP2_PROTO_VER_V2, 0}};
  uint32_t choice[2];
  int end;

  for (end = 0; end < 2; ++end) {
    ngp_quic_options *o = &s->ends[end].options;

    choice[end] = quic_random_below(&s->random, 4);
    memcpy(o->versions, lists[choice[end]], sizeof(lists[0]));
    o->nversions = choice[end] < 2 ? 2 : 1;
  }
  s->incompatible =
      choice[0] >= 2 && choice[1] >= 2 && choice[0] != choice[1] ? 1 : 0;
  if (quic_random_chance(&s->random, 10)) {
    /* The server will not know it, and say which ones it knows. */
    s->ends[0].options.original_version = RESERVED_VERSION;
  }
}

static void draw_options(sim *s) {
  quic_random *r = &s->random;
  int end;

  s->retry = quic_random_chance(r, 25) ? 1 : 0;
  s->use_ticket = quic_random_chance(r, 50) ? 1 : 0;
  s->foreign_ticket = quic_random_chance(r, 40) ? 1 : 0;
  draw_versions(s);
  for (end = 0; end < 2; ++end) {
    ngp_quic_options *o = &s->ends[end].options;
    int promised = end == 1 && s->use_ticket;

    o->cc_algo = (uint8_t)quic_random_below(r, 3);
    o->manual_credit = quic_random_chance(r, 30) ? 1 : 0;
    o->pmtud = quic_random_chance(r, 30) ? 1 : 0;
    if (quic_random_chance(r, 20)) {
      o->max_datagram_size = quic_random_between(r, 1200, 1500);
    }
    if (end == 0 && quic_random_chance(r, 20)) {
      o->cid_len = 0;
    } else {
      o->cid_len = quic_random_between(r, 4, 20);
    }
    o->max_data = draw_window(r, promised ? TICKET_DATA : 0);
    o->max_stream_data = draw_window(r, promised ? TICKET_STREAM_DATA : 0);
    o->max_streams_bidi =
        quic_random_between(r, promised ? TICKET_STREAMS : 1, 12);
    o->max_streams_uni =
        quic_random_between(r, promised ? TICKET_STREAMS : 1, 12);
    if (quic_random_chance(r, 50)) {
      o->max_window = o->max_data * 4;
      o->max_stream_window = o->max_stream_data * 4;
    }
    o->idle_timeout = quic_random_between(r, 8 * SECOND, 30 * SECOND);
    o->initial_rtt = quic_random_between(r, 5 * MILLISECOND, 333 * MILLISECOND);
    o->max_ack_delay = quic_random_between(r, 0, 50) * MILLISECOND;
    if (!promised && quic_random_chance(r, 30)) {
      o->max_datagram_frame_size = 0;
    }
    o->max_datagram_queue = quic_random_between(r, 0, 1 << 14);
    o->key_log = quic_random_chance(r, 10) ? 1 : 0;
    s->ends[end].dgrams_wanted =
        quic_random_chance(r, 40) ? quic_random_below(r, SIM_MAX_MARKS) : 0;
  }
  s->ends[1].options.ask_tickets = quic_random_chance(r, 30) ? 1 : 0;
  s->deny_ticket = quic_random_chance(r, 30) ? 1 : 0;
}

/* ---- The network ---- */

static void draw_network(sim *s) {
  quic_random *r = &s->random;
  uint64_t delay = quic_random_between(r, MILLISECOND / 10, 80 * MILLISECOND);
  int hostile = quic_random_chance(r, 50);
  int end;

  for (end = 0; end < 2; ++end) {
    quic_way *way = &s->net.ways[end];

    way->delay = delay;
    if (quic_random_chance(r, 20)) {
      way->delay = quic_random_between(r, MILLISECOND, 80 * MILLISECOND);
    }
    if (quic_random_chance(r, 80)) {
      way->loss = quic_random_below(r, 31);
    }
    if (quic_random_chance(r, 40)) {
      way->jitter = quic_random_between(r, 0, way->delay);
    }
    if (quic_random_chance(r, 20)) {
      /* Fewer of them, so that as many datagrams are lost. */
      way->burst = 1 + quic_random_below(r, 8);
      way->loss /= (way->burst + 1) / 2;
    }
    way->ecn = (uint8_t)quic_random_below(r, 3);
    if (hostile) {
      way->duplication = quic_random_below(r, 31);
      way->reordering = quic_random_below(r, 61);
      way->damage = quic_random_below(r, 6);
      way->garbage = quic_random_below(r, 11);
      if (end == 0 && quic_random_chance(r, 20)) {
        way->strangers = quic_random_below(r, 4);
      }
    }
    if (s->tolerance < 6 * way->delay + way->jitter) {
      s->tolerance = 6 * way->delay + way->jitter;
    }
    if (way->loss > 20) {
      /* So much of it that silence may last, now and then. */
      s->ends[0].options.idle_timeout = s->ends[1].options.idle_timeout =
          30 * SECOND;
    }
  }
}

/* ---- The transfers ---- */

static uint64_t draw_size(quic_random *r) {
  switch (quic_random_below(r, 10)) {
  case 0:
    return 0;
  case 1:
  case 2:
  case 3:
    return quic_random_between(r, 1, 300);
  case 4:
  case 5:
  case 6:
    return quic_random_between(r, 300, 4000);
  case 7:
  case 8:
    return quic_random_between(r, 4000, 20000);
  default:
    return quic_random_between(r, 20000, 60000);
  }
}

static void draw_half(quic_random *r, sim_half *half) {
  half->exists = 1;
  half->size = draw_size(r);
  half->chunk = quic_random_chance(r, 50)
                    ? half->size + 1
                    : quic_random_between(r, 1 + half->size / 16, 4000);
  half->reset_at = half->stop_at = UINT64_MAX;
  if (quic_random_chance(r, 8)) {
    half->reset_at = quic_random_between(r, 0, half->size);
  }
  if (quic_random_chance(r, 8)) {
    half->stop_at = quic_random_between(r, 0, half->size);
  }
}

static void draw_streams(sim *s) {
  quic_random *r = &s->random;
  uint64_t delay = s->net.ways[0].delay;
  size_t i;

  s->nstreams =
      1 + quic_random_below(r, quic_random_chance(r, 15) ? SIM_MAX_STREAMS
                                                         : SIM_MAX_STREAMS / 4);
  for (i = 0; i < s->nstreams; ++i) {
    sim_stream *stream = &s->streams[i];

    stream->opener = i ? (int)quic_random_below(r, 2) : 0;
    stream->unidirectional = quic_random_chance(r, 30);
    stream->open_at = s->net.now;
    if (quic_random_chance(r, 30)) {
      stream->open_at += quic_random_between(r, 0, 30 * delay);
    }
    draw_half(r, &stream->halves[stream->opener]);
    stream->halves[stream->opener].known = 1;
    if (!stream->unidirectional) {
      draw_half(r, &stream->halves[!stream->opener]);
    }
  }
}

/* ---- What happens meanwhile ---- */

static void add_action(sim *s, sim_action_type type, uint64_t value) {
  quic_random *r = &s->random;
  uint64_t span = 60 * s->net.ways[0].delay;
  sim_action action = {.at = s->net.now + quic_random_between(r, 0, span),
                       .type = type,
                       .end = (int)quic_random_below(r, 2),
                       .value = value};
  size_t i = s->nactions;

  if (s->nactions == SIM_MAX_ACTIONS) {
    return;
  }
  ++s->nactions;
  for (; i && action.at < s->actions[i - 1].at; --i) {
    s->actions[i] = s->actions[i - 1];
  }
  s->actions[i] = action;
}

static void draw_clocks(sim *s) {
  quic_random *r = &s->random;
  /* Leaps over more than a third of the idle timeout may end it. */
  uint64_t most =
      (s->ends[0].options.idle_timeout < s->ends[1].options.idle_timeout
           ? s->ends[0].options.idle_timeout
           : s->ends[1].options.idle_timeout) /
      3;
  uint32_t n = quic_random_below(r, 4);

  while (n--) {
    sim_action_type type =
        (sim_action_type)(SIM_FREEZE + quic_random_below(r, 3));
    uint64_t leap = quic_random_between(r, 0, most / 3);

    if (quic_random_chance(r, 5)) {
      leap *= 12;
      s->excused = 1;
    }
    if (s->leap < leap) {
      s->leap = leap;
    }
    add_action(s, type, leap);
  }
}

static void draw_actions(sim *s) {
  quic_random *r = &s->random;
  uint64_t least = s->ends[0].options.idle_timeout;
  uint32_t n;

  for (n = quic_random_below(r, 8); n; --n) {
    add_action(s, (sim_action_type)quic_random_below(r, SIM_REBIND), 0);
  }
  if (quic_random_chance(r, 30)) {
    for (n = 1 + quic_random_below(r, 4); n; --n) {
      add_action(s, SIM_REBIND, quic_random_next(r));
    }
  }
  if (quic_random_chance(r, 30)) {
    for (n = 1 + quic_random_below(r, 3); n; --n) {
      add_action(s, SIM_MTU, quic_random_between(r, 1200, 1600));
    }
  }
  if (quic_random_chance(r, 10)) {
    add_action(s, SIM_DARK, quic_random_between(r, 0, least / 8));
  }
  if (quic_random_chance(r, 25)) {
    draw_clocks(s);
  }
  for (n = quic_random_below(r, 4); n; --n) {
    add_action(s, quic_random_chance(r, 50) ? SIM_PRIORITY : SIM_HOLD,
               quic_random_next(r));
  }
  if (quic_random_chance(r, 8)) {
    add_action(s, SIM_CLOSE, quic_random_below(r, 1000));
    s->excused = 1;
  }
  if (quic_random_chance(r, 5)) {
    add_action(s, SIM_VANISH, 0);
    s->excused = 1;
  }
}

/* ---- All of it ---- */

void sim_plan(sim *s) {
  int server;

  common_plan(s);
  draw_options(s);
  draw_network(s);
  draw_streams(s);
  draw_actions(s);
  if (s->use_ticket) {
    server = s->foreign_ticket ? 1 : 0;
    s->ends[0].options.ticket = s->shared->tickets[server];
    s->ends[0].options.ticket_len = s->shared->ticket_lens[server];
  }
}
