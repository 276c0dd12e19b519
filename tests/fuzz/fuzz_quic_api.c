/*
 * Calls in any order on two QUIC connections, over a network that loses, and
 * datagrams of anybody's.  SPDX-License-Identifier: MIT
 *
 * The first byte is the network's loss.  Then each byte says what is called and
 * at which side, and may be followed by arguments.
 */
#include "ops.h"

#include "ngp_quic_packet.h"
#include "quic_pair.h"

static uint8_t body[4096];

static void send_data(quic_pair *both, int side, input *in) {
  int64_t id = (int64_t)(take_number(in) & INT64_MAX);
  size_t len = (size_t)take(in) << (take(in) % 5);

  (void)quic_pair_send(both, side, id, body, len, take(in) % 8 == 0);
}

static void receive(quic_pair *both, int side, input *in) {
  static const ngp_quic_addr addr = {.ip = {0xfd, [15] = 1}, .port = 5000};
  size_t len = take(in);
  uint8_t ecn = take(in);
  const uint8_t *data = take_bytes(in, &len);
  ngp_quic_header header;

  CHECK(ngp_quic_recv(both->ends[side], data, len, &addr, ecn, both->now) == 0);
  (void)ngp_quic_header_decode(&header, data, len, 8);
}

static void call(quic_pair *both, input *in) {
  uint8_t op = take(in);
  int side = op & 1;
  ngp_quic *quic = both->ends[side];

  switch (op >> 1 & 15) {
  case 0:
    quic_pair_connect(both);
    break;
  case 1:
  case 2:
    send_data(both, side, in);
    break;
  case 3:
    (void)ngp_quic_reset_stream(quic, (int64_t)take_number(in),
                                take_number(in));
    break;
  case 4:
    (void)ngp_quic_stop_stream(quic, (int64_t)take_number(in), take_number(in));
    break;
  case 5:
    (void)ngp_quic_send_datagram(quic, body, take_number(in) % sizeof(body));
    break;
  case 6:
    (void)ngp_quic_ping(quic, take_number(in));
    break;
  case 7:
    ngp_quic_update_key(quic);
    ngp_quic_change_cid(quic);
    break;
  case 8:
    (void)ngp_quic_set_priority(quic, (int64_t)take_number(in), take(in) % 10,
                                take(in) & 1);
    break;
  case 9:
    ngp_quic_hold_credit(quic, (int64_t)take_number(in), take(in) & 1);
    break;
  case 10:
    if (take(in) % 8 == 0) {
      (void)ngp_quic_close(quic, take_number(in), take(in) & 1, take_number(in),
                           (const char *)body, take(in) * 8u);
    }
    break;
  case 11:
    receive(both, side, in);
    break;
  case 12:
    /* Time leaps, stands still or runs backwards. */
    both->now += take_number(in) % 10000000000u;
    both->now -= take_number(in) % 1000000000u % both->now;
    break;
  case 13:
    (void)ngp_quic_handle_timer(quic, both->now);
    break;
  default:
    quic_pair_run(both, take(in) % 64);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int ready;
  input in = {data, size};
  quic_pair both;

  if (!ready) {
    quic_pair_setup();
    ready = 1;
  }
  CHECK(quic_pair_init(&both, NULL) == 0);
  both.loss = take(&in) % 40;
  both.seed = (uint32_t)size;
  both.echo = 1;
  while (in.left) {
    call(&both, &in);
  }
  quic_pair_free(&both);
  CHECK(quic_pair_owners() == 0);
  return 0;
}
