/*
 * Bounds on what a peer makes us do that is of no use to it.
 * SPDX-License-Identifier: MIT
 */
#include "ngp_h2_int.h"

/* A header list of this many times the limit, and of at least so many bytes,
   ends the connection: decoding has to stop, and then the HPACK state that both
   sides share is lost.  A smaller one only ends its stream.  A peer that does
   not repeat large fields from its HPACK table cannot send more: nine frames of
   16 KiB (nghttp2 accepts eight CONTINUATIONs) hold 236 KiB after Huffman
   coding. */
#define HARD_FACTOR 4
#define HARD_MIN (256 * 1024)

/* Glitches that each second allows: the number of nghttp2's own limit. */
#define GLITCH_RATE 330

/* Glitches that body bytes and streams that ended well allow.  A receiver that
   returns its credit byte by byte sends two WINDOW_UPDATEs for each byte of a
   body, and each request may have a few frames of its own (WINDOW_UPDATE,
   PRIORITY_UPDATE). */
#define GLITCHES_PER_BYTE 2
#define GLITCHES_PER_STREAM 64

/* The most that can be saved up: the WINDOW_UPDATEs for a body come after
   it. */
#define MAX_GLITCH_CREDIT (1 << 21)

static int calm(ngp_h2 *h2, const char *reason) {
  h2->limits.calm = reason;
  return NGP_H2_FAIL;
}

int ngp_h2_check_block(ngp_h2 *h2) {
  size_t hard = h2->options.max_header_list_bytes * HARD_FACTOR;

  return h2->block.bytes > (hard > HARD_MIN ? hard : HARD_MIN)
             ? calm(h2, "a header list is many times larger than the limit")
             : 0;
}

int ngp_h2_count_provoked(ngp_h2 *h2) {
  ++h2->counters.provoked_resets;
  if (++h2->limits.reset_balance <= h2->options.max_provoked_resets) {
    return 0;
  }
  return nghttp2_session_terminate_session(h2->session,
                                           NGHTTP2_ENHANCE_YOUR_CALM);
}

void ngp_h2_glitch_init(ngp_h2 *h2) {
  h2->limits.glitch_credit = h2->options.max_glitches;
}

static void earn(ngp_h2 *h2, uint64_t n) {
  uint64_t max = h2->options.max_glitches;

  if (max < MAX_GLITCH_CREDIT) {
    max = MAX_GLITCH_CREDIT;
  }
  h2->limits.glitch_credit += n;
  if (h2->limits.glitch_credit > max) {
    h2->limits.glitch_credit = max;
  }
}

void ngp_h2_earn_bytes(ngp_h2 *h2, size_t n) {
  earn(h2, (uint64_t)n * GLITCHES_PER_BYTE);
}

void ngp_h2_earn_stream(ngp_h2 *h2) {
  if (h2->limits.reset_balance) {
    --h2->limits.reset_balance;
  }
  earn(h2, GLITCHES_PER_STREAM);
}

void ngp_h2_time_passed(ngp_h2 *h2, uint32_t seconds) {
  uint64_t max = h2->options.max_glitches;
  uint64_t n = (uint64_t)seconds * GLITCH_RATE;

  if (h2->limits.glitch_credit < max) {
    earn(h2, n < max - h2->limits.glitch_credit
                 ? n
                 : max - h2->limits.glitch_credit);
  }
}

int ngp_h2_glitch(ngp_h2 *h2, size_t n) {
  h2->counters.glitches += n;
  if (h2->limits.glitch_credit < n) {
    return calm(h2, "too many frames that do nothing");
  }
  h2->limits.glitch_credit -= n;
  return 0;
}

int ngp_h2_count_frame(ngp_h2 *h2, uint8_t type, uint8_t flags,
                       int32_t stream_id, size_t len) {
  switch (type) {
  case NGHTTP2_DATA:
    return len == 0 && !(flags & NGHTTP2_FLAG_END_STREAM) ? ngp_h2_glitch(h2, 1)
                                                          : 0;
  case NGHTTP2_HEADERS:
  case NGHTTP2_PUSH_PROMISE:
  case NGHTTP2_CONTINUATION:
    return 0;
  case NGHTTP2_RST_STREAM:
    /* nghttp2 bounds the frames that end a stream. */
    return ngp_h2_stream_find(h2, stream_id) ? 0 : ngp_h2_glitch(h2, 1);
  default:
    return ngp_h2_glitch(h2, 1);
  }
}
