/*
 * What both ends of a run do with their connection: they send what the plan
 * says, and check what they get.  SPDX-License-Identifier: MIT
 */
#include "quic_sim.h"

#include <inttypes.h>
#include <string.h>

/* Bytes repeat after this prime: none that is out of place fits. */
#define PERIOD 65521
#define CHUNK_MAX 65536

/* How much of a stream waits in the connection. */
#define MAX_QUEUED 30000

#define RESET_CODE 41
#define STOP_CODE 42

static uint8_t pattern[PERIOD + CHUNK_MAX];

static const uint8_t *bytes_at(const sim_stream *stream, int sender,
                               uint64_t offset) {
  uint64_t key = (uint64_t)stream->id * 7919 + (uint64_t)sender * 104729;

  if (!pattern[1]) {
    quic_random r = {1};
    size_t i;

    for (i = 0; i < PERIOD; ++i) {
      pattern[i] = (uint8_t)quic_random_next(&r);
    }
    pattern[1] |= 1;
    for (; i < sizeof(pattern); ++i) {
      pattern[i] = pattern[i - PERIOD];
    }
  }
  return &pattern[(key + offset) % PERIOD];
}

static sim_stream *find(sim *s, int64_t id) {
  size_t i;

  for (i = 0; i < s->nstreams; ++i) {
    if (s->streams[i].opened && s->streams[i].id == id) {
      return &s->streams[i];
    }
  }
  sim_fail(s, "stream %" PRId64 " is nobody's", id);
  return NULL;
}

/* ---- Sending ---- */

static int may_fail(const sim *s, const sim_half *half, int end, int rv) {
  /* What the peer has stopped ends under the sender's hands. */
  return s->failed || half->stopped || s->ends[end].terminated ||
         rv == NGHTTP2_ERR_NOMEM;
}

static void give_up(sim *s, int end, sim_stream *stream) {
  sim_half *half = &stream->halves[end];
  int rv = ngp_quic_reset_stream(s->ends[end].quic, stream->id, RESET_CODE);

  half->reset = 1;
  sim_say(s, "%d resets %" PRId64, end, stream->id);
  if (rv != 0 && !may_fail(s, half, end, rv)) {
    sim_fail(s, "reset of stream %" PRId64 ": %d", stream->id, rv);
  }
}

/* Queues bytes, now and then with a head. */
static int send_bytes(sim *s, int end, const sim_stream *stream,
                      const uint8_t *data, size_t n, int end_stream) {
  ngp_quic *quic = s->ends[end].quic;
  size_t head = 0;
  int held = 0;
  int rv;

  if (quic_random_chance(&s->random, 30)) {
    head = quic_random_below(&s->random, n < 20 ? (uint32_t)n + 1 : 20);
  }
  rv = ngp_quic_send_framed(quic, stream->id, data, head, data + head, n - head,
                            &s->owners, end_stream, &held);
  s->owners += held;
  return rv;
}

static void write_half(sim *s, int end, sim_stream *stream) {
  ngp_quic *quic = s->ends[end].quic;
  sim_half *half = &stream->halves[end];

  while (!half->fin_queued && !half->reset && !half->stop_seen &&
         ngp_quic_queued(quic, stream->id) < MAX_QUEUED) {
    int resets = half->reset_at <= half->size;
    uint64_t n = (resets ? half->reset_at : half->size) - half->queued;
    int end_stream;
    int rv;

    if (resets && !n) {
      give_up(s, end, stream);
      return;
    }
    n = n > half->chunk ? half->chunk : n;
    end_stream = !resets && half->queued + n == half->size;
    rv = send_bytes(s, end, stream, bytes_at(stream, end, half->queued), n,
                    end_stream);
    if (rv != 0) {
      if (!may_fail(s, half, end, rv)) {
        sim_fail(s, "stream %" PRId64 " takes no bytes: %d", stream->id, rv);
      }
      return;
    }
    half->queued += n;
    half->fin_queued = (uint8_t)end_stream;
    if (s->ends[end].closed) {
      return;
    }
  }
}

static void open_stream(sim *s, sim_stream *stream) {
  stream->id = ngp_quic_next_stream_id(s->ends[stream->opener].quic,
                                       stream->unidirectional);
  stream->opened = 1;
}

static void send_dgrams(sim *s, int end) {
  sim_end *e = &s->ends[end];
  uint8_t data[1100];
  uint32_t i;

  if (!e->completed || e->dgrams_sent == e->dgrams_wanted) {
    return;
  }
  i = e->dgrams_sent++;
  memset(data, (int)i, sizeof(data));
  if (ngp_quic_send_datagram(e->quic, data,
                             1 + quic_random_below(&s->random, 1100)) != 0) {
    sim_fail(s, "a datagram is refused");
  }
}

static void consume(sim *s, int end) {
  sim_end *e = &s->ends[end];
  size_t i;

  if (!e->options.manual_credit) {
    return;
  }
  for (i = 0; i < s->nstreams; ++i) {
    sim_half *half = &s->streams[i].halves[!end];

    if (!half->unconsumed) {
      continue;
    }
    if (quic_random_chance(&s->random, 50)) {
      ngp_quic_consume(e->quic, s->streams[i].id, half->unconsumed);
      half->unconsumed = 0;
    } else {
      s->wake = s->net.now + MILLISECOND;
    }
  }
}

void sim_write(sim *s, int end) {
  size_t i;

  consume(s, end);
  send_dgrams(s, end);
  for (i = 0; i < s->nstreams; ++i) {
    sim_stream *stream = &s->streams[i];

    if (!stream->opened && stream->opener == end &&
        stream->open_at <= s->net.now) {
      open_stream(s, stream);
    }
    if (stream->opened && stream->halves[end].exists &&
        stream->halves[end].known) {
      write_half(s, end, stream);
    }
  }
}

/* ---- Receiving ---- */

static void stop_reading(sim *s, int end, sim_stream *stream) {
  sim_half *half = &stream->halves[!end];
  int rv = ngp_quic_stop_stream(s->ends[end].quic, stream->id, STOP_CODE);

  half->stopped = 1;
  sim_say(s, "%d stops %" PRId64, end, stream->id);
  if (rv != 0) {
    sim_fail(s, "stop of stream %" PRId64 ": %d", stream->id, rv);
  }
}

static void return_loan(sim *s, sim_loan *loan) {
  if (loan->store && memcmp(loan->data, loan->expected, loan->len) != 0) {
    sim_fail(s, "what was lent has changed");
  }
  ngp_quic_store_release(loan->store);
  *loan = (sim_loan){.store = NULL};
}

void sim_return_loans(sim *s) {
  size_t i;

  for (i = 0; i < SIM_MAX_LOANS; ++i) {
    if (s->loans[i].store) {
      return_loan(s, &s->loans[i]);
    }
  }
}

/* Keeps the data of an event for a while. */
static void borrow(sim *s, int end, const ngp_quic_event *event,
                   const uint8_t *expected) {
  sim_loan *loan = &s->loans[s->nloans++ % SIM_MAX_LOANS];

  if (loan->store) {
    return_loan(s, loan);
  }
  *loan = (sim_loan){.store = ngp_quic_lend(s->ends[end].quic, event->len),
                     .data = event->data,
                     .expected = expected,
                     .len = event->len};
}

static void take_data(sim *s, int end, const ngp_quic_event *event) {
  sim_stream *stream = find(s, event->stream_id);
  sim_half *half;

  if (!stream) {
    return;
  }
  half = &stream->halves[!end];
  stream->halves[end].known = 1;
  if (!half->exists || half->ended || half->reset_seen) {
    sim_fail(s, "data on stream %" PRId64 " after its end", stream->id);
    return;
  }
  if (half->received + event->len > half->queued ||
      (event->len && memcmp(bytes_at(stream, !end, half->received), event->data,
                            event->len) != 0)) {
    sim_fail(s, "wrong bytes on stream %" PRId64 " at %" PRIu64, stream->id,
             half->received);
    return;
  }
  if (event->len && quic_random_chance(&s->random, 20)) {
    borrow(s, end, event, bytes_at(stream, !end, half->received));
  }
  half->received += event->len;
  half->unconsumed += event->len;
  if (event->end_stream) {
    half->ended = 1;
    if (half->received != half->size || !half->fin_queued) {
      sim_fail(s, "stream %" PRId64 " ends at %" PRIu64, stream->id,
               half->received);
    }
  } else if (!half->stopped && half->received >= half->stop_at) {
    stop_reading(s, end, stream);
  }
}

static void take_stream_event(sim *s, int end, const ngp_quic_event *event) {
  sim_stream *stream = find(s, event->stream_id);

  if (!stream) {
    return;
  }
  stream->halves[end].known = 1;
  if (event->type == NGP_QUIC_EVENT_STREAM_RESET) {
    sim_half *half = &stream->halves[!end];

    if (half->reset_seen || half->ended || !(half->reset || half->stopped)) {
      sim_fail(s, "stream %" PRId64 " is reset", stream->id);
    }
    half->reset_seen = 1;
  } else {
    sim_half *half = &stream->halves[end];

    if (half->stop_seen || !half->stopped || event->error_code != STOP_CODE) {
      sim_fail(s, "stream %" PRId64 " is stopped", stream->id);
    }
    half->stop_seen = 1;
  }
}

static void take_mark(sim *s, uint32_t *marks, uint64_t i, uint32_t sent,
                      const char *what) {
  if (i >= sent || *marks >> i & 1) {
    sim_fail(s, "%s %" PRIu64 " was not sent, or comes again", what, i);
  } else {
    *marks |= 1u << i;
  }
}

static void take_end(sim *s, int end, const ngp_quic_event *event) {
  sim_end *e = &s->ends[end];

  if (e->terminated) {
    sim_fail(s, "%d ends twice", end);
  }
  e->terminated = 1;
  e->end = *event;
  if (event->len) {
    memcpy(e->reason, event->data, event->len);
  }
  e->reason[event->len] = '\0';
  sim_say(s, "%d ends: %" PRIu64 " %s", end, event->error_code, e->reason);
}

/* Sees whether the server is asked about a ticket. */
static void take_notes(sim *s) {
  ngp_quic_event report;

  while (ngp_quic_next_report(s->ends[1].quic, &report)) {
    if (report.type == NGP_QUIC_EVENT_TICKET_PRESENTED) {
      s->answer_at = s->net.now;
      if (quic_random_chance(&s->random, 50)) {
        s->answer_at += 4 * s->net.ways[0].delay;
      }
    }
  }
}

void sim_take_events(sim *s, int end) {
  sim_end *e = &s->ends[end];
  ngp_quic_event event;
  int *owner;

  while ((owner = ngp_quic_take_owner(e->quic)) != NULL) {
    --*owner;
  }
  if (end == 1) {
    take_notes(s);
  }
  while (!s->failed && ngp_quic_next_event(e->quic, &event)) {
    switch (event.type) {
    case NGP_QUIC_EVENT_HANDSHAKE_COMPLETED:
      e->completed = 1;
      if (end == 1 && quic_random_chance(&s->random, 30)) {
        (void)ngp_quic_send_token(e->quic, pattern, 1 + s->seed % 500);
      }
      e->early_accepted = event.early_data_accepted;
      e->resumed = event.session_resumed;
      sim_say(s, "%d completes its handshake", end);
      break;
    case NGP_QUIC_EVENT_STREAM_DATA:
      take_data(s, end, &event);
      break;
    case NGP_QUIC_EVENT_STREAM_RESET:
    case NGP_QUIC_EVENT_STOP_SENDING:
      take_stream_event(s, end, &event);
      break;
    case NGP_QUIC_EVENT_DATAGRAM:
      take_mark(s, &e->dgrams_received, event.len ? event.data[0] : 99,
                s->ends[!end].dgrams_sent, "datagram");
      break;
    case NGP_QUIC_EVENT_PING_ACKED:
      take_mark(s, &e->pings_acked, event.value, e->pings_sent, "ping");
      break;
    case NGP_QUIC_EVENT_TERMINATED:
      take_end(s, end, &event);
      break;
    default:
      break;
    }
  }
}

/* ---- The end ---- */

static int half_is_complete(const sim_half *half) {
  return !half->exists || half->ended || half->reset_seen || half->stopped;
}

int sim_is_complete(const sim *s) {
  size_t i;
  int end;

  for (i = 0; i < s->nstreams; ++i) {
    const sim_stream *stream = &s->streams[i];

    if (!stream->opened || !half_is_complete(&stream->halves[0]) ||
        !half_is_complete(&stream->halves[1])) {
      return 0;
    }
  }
  for (end = 0; end < 2; ++end) {
    const sim_end *e = &s->ends[end];

    if ((uint64_t)e->pings_acked + 1 != (uint64_t)1 << e->pings_sent) {
      return 0;
    }
  }
  return 1;
}
