/*
 * Two ends that both keep to the rules, whatever is called on them and however
 * the bytes are cut: neither may ever find fault with the other, and bodies
 * arrive as they were sent.  SPDX-License-Identifier: MIT
 */
#include "ops.h"

/* Carries at most |n| bytes of what |from| has sent. */
static void carry(end *from, end *to, size_t n) {
  int rv;

  if (n > from->out.len) {
    n = from->out.len;
  }
  if (n && ngp_h2_alive(to->h2)) {
    rv = end_recv(to, from->out.base, n);
    CHECK(rv == 0 || rv == NGP_ERR_CONNECTION_CLOSED);
  }
  wire_shift(&from->out, n);
}

/* A connection may end for the bounds of what resets and acks may be made to
   do, but not for a fault. */
static void check_end(const op_state *state) {
  CHECK(!state->over || state->over_code == NGHTTP2_ENHANCE_YOUR_CALM ||
        state->over_code == NGHTTP2_NO_ERROR);
}

static void look(pair *p, op_state *client, op_state *server) {
  op_watch(&p->client, client, 1);
  op_watch(&p->server, server, 1);
  check_end(client);
  check_end(server);
}

/* The first SETTINGS. */
static void greet(end *e, input *in) {
  static const uint32_t windows[] = {65535, 0, 1, 100, 20000, 1000000};
  const nghttp2_settings_entry iv[] = {
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, windows[take_below(in, 6)]}};

  CHECK(ngp_h2_submit_settings(e->h2, iv, 2) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};
  ngp_h2_options client_options = take_options(&in);
  ngp_h2_options server_options = take_options(&in);
  op_state client = {0};
  op_state server = {0};
  pair p;

  /* The bounds that a well-behaved peer may run into are another's matter. */
  client_options.max_settings = server_options.max_settings = 0;
  client_options.max_continuations = server_options.max_continuations = 0;
  client_options.max_header_list_bytes = 0;
  client_options.max_header_list_count = 0;
  server_options.max_header_list_bytes = 0;
  server_options.max_header_list_count = 0;
  pair_init(&p, &client_options, &server_options);
  greet(&p.client, &in);
  greet(&p.server, &in);
  CHECK(pair_pump(&p) == 0);
  look(&p, &client, &server);
  while (in.left) {
    uint8_t what = take(&in);
    end *e = what & 1 ? &p.client : &p.server;
    end *other = what & 1 ? &p.server : &p.client;

    if (what < 0xb0) {
      op_run(e, &in, OPS_SANE);
    } else if (what < 0xf0) {
      CHECK(end_send(e) == 0);
      carry(e, other, 1 + take_below(&in, 65536));
    } else {
      CHECK(pair_pump(&p) == 0);
    }
    look(&p, &client, &server);
  }
  p.client.by_reference = p.server.by_reference = 1;
  CHECK(pair_pump(&p) == 0);
  look(&p, &client, &server);
  pair_free(&p);
  return 0;
}
