/*
 * Which header fields may be sent, and what is made of those received.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include "ngp_h2_int.h"

/* Returns the place of the field that is refused, or -1. */
static int refused(ngp_h2_message message, const char *fields) {
  ngp_h2_header_error error = {.index = SIZE_MAX};
  nvlist list = nv_of(fields);
  int64_t length;
  uint32_t flags;
  int rv = ngp_h2_check_outgoing(message, list.nva, list.nvlen, &flags, &length,
                                 &error);

  if (rv == 0) {
    return -1;
  }
  assert_int_equal(rv, NGP_ERR_BAD_HEADERS);
  assert_non_null(error.reason);
  assert_true(error.index <= list.nvlen);
  return (int)error.index;
}

#define assert_sent(MESSAGE, FIELDS)                                           \
  assert_int_equal(refused(NGP_H2_MESSAGE_##MESSAGE, FIELDS), -1)
#define assert_refused_at(MESSAGE, FIELDS, INDEX)                              \
  assert_int_equal(refused(NGP_H2_MESSAGE_##MESSAGE, FIELDS), INDEX)

static void whole_requests_are_sent(void **state) {
  (void)state;
  assert_sent(REQUEST, GET);
  assert_sent(REQUEST, POST "content-length=12\nte=trailers\na=\n");
  assert_sent(REQUEST, ":method=GET\n:scheme=https\n:path=/a?b=c\nhost=a\n");
  assert_sent(REQUEST,
              ":method=OPTIONS\n:scheme=https\n:path=*\n:authority=a\n");
  assert_sent(REQUEST, ":method=CONNECT\n:authority=a:443\n");
  assert_sent(REQUEST, ":method=CONNECT\n:protocol=websocket\n:scheme=https\n"
                       ":path=/chat\n:authority=a\n");
  assert_sent(REQUEST, ":method=GET\n:scheme=urn\n:path=a:b\n");
}

static void what_a_request_lacks_is_told_at_the_lists_end(void **state) {
  (void)state;
  assert_refused_at(REQUEST, "", 0);
  assert_refused_at(REQUEST, ":scheme=https\n:path=/\n:authority=a\n", 3);
  assert_refused_at(REQUEST, ":method=GET\n:path=/\n:authority=a\n", 3);
  assert_refused_at(REQUEST, ":method=GET\n:scheme=https\n:authority=a\n", 3);
  assert_refused_at(REQUEST, ":method=GET\n:scheme=https\n:path=/\n", 3);
  assert_refused_at(REQUEST, ":method=CONNECT\n", 1);
  assert_refused_at(REQUEST, ":method=\n:scheme=https\n:path=/\nhost=a\n", 0);
  assert_refused_at(REQUEST, ":method=CONNECT\n:authority=a\n:path=/\n", 3);
  assert_refused_at(REQUEST, GET ":protocol=websocket\n", 5);
  assert_refused_at(REQUEST, ":method=GET\n:scheme=https\n:path=a\nhost=a\n",
                    4);
  assert_refused_at(REQUEST, ":method=GET\n:scheme=https\n:path=*\nhost=a\n",
                    4);
  assert_refused_at(REQUEST,
                    ":method=CONNECT\n:protocol=websocket\n"
                    ":scheme=wss\n:path=/chat\n",
                    4);
}

static void pseudo_header_fields_have_their_place(void **state) {
  (void)state;
  assert_refused_at(REQUEST, GET ":status=200\n", 4);
  assert_refused_at(REQUEST, GET ":method=GET\n", 4);
  assert_refused_at(REQUEST, "a=1\n" GET, 1);
  assert_refused_at(REQUEST, GET ":unknown=1\n", 4);
  assert_refused_at(REQUEST, GET ":=1\n", 4);
  assert_refused_at(RESPONSE, ":status=200\n:path=/\n", 1);
  assert_refused_at(RESPONSE, "a=1\n:status=200\n", 1);
  assert_refused_at(TRAILERS, "a=1\n:status=200\n", 1);
}

static void a_status_has_three_digits_and_the_right_class(void **state) {
  (void)state;
  assert_sent(RESPONSE, ":status=200\n");
  assert_sent(RESPONSE, ":status=599\n");
  assert_sent(INFORMATIONAL, ":status=100\n");
  assert_refused_at(RESPONSE, "", 0);
  assert_refused_at(RESPONSE, "a=1\n", 1);
  assert_refused_at(RESPONSE, ":status=103\n", 0);
  assert_refused_at(RESPONSE, ":status=101\n", 0);
  assert_refused_at(RESPONSE, ":status=20\n", 0);
  assert_refused_at(RESPONSE, ":status=2000\n", 0);
  assert_refused_at(RESPONSE, ":status=099\n", 0);
  assert_refused_at(RESPONSE, ":status=600\n", 0);
  assert_refused_at(RESPONSE, ":status=+20\n", 0);
  assert_refused_at(RESPONSE, ":status=\n", 0);
  assert_refused_at(INFORMATIONAL, ":status=101\n", 0);
  assert_refused_at(INFORMATIONAL, ":status=200\n", 0);
  assert_refused_at(INFORMATIONAL, "", 0);
}

static void connection_specific_fields_are_refused(void **state) {
  (void)state;
  assert_refused_at(RESPONSE, ":status=200\nconnection=close\n", 1);
  assert_refused_at(RESPONSE, ":status=200\nKeep-Alive=1\n", 1);
  assert_refused_at(RESPONSE, ":status=200\nproxy-connection=1\n", 1);
  assert_refused_at(RESPONSE, ":status=200\nTransfer-Encoding=chunked\n", 1);
  assert_refused_at(REQUEST, GET "upgrade=h2c\n", 4);
  assert_refused_at(REQUEST, GET "te=gzip\n", 4);
  assert_refused_at(RESPONSE, ":status=200\nte=trailers\n", 1);
  assert_sent(REQUEST, GET "TE=Trailers\n");
}

static void names_and_values_hold_only_what_they_may(void **state) {
  nghttp2_nv nv = {.name = (uint8_t *)"a", .namelen = 1};
  ngp_h2_header_error error;
  int64_t length;
  uint32_t flags;
  int c;

  (void)state;
  assert_sent(TRAILERS, "");
  assert_refused_at(TRAILERS, "=1\n", 0);
  assert_refused_at(TRAILERS, "a=1\na b=1\n", 1);
  assert_refused_at(TRAILERS, "a=1\r\n", 0);
  assert_refused_at(TRAILERS, "a= 1\n", 0);
  assert_refused_at(TRAILERS, "a=1\t\n", 0);
  assert_sent(TRAILERS, "!#$%&'*+-.^_`|~09azAZ=\xff\x80 \t!\n");
  for (c = 0; c < 256; ++c) {
    uint8_t value[3] = {'x', (uint8_t)c, 'x'};
    int rv;

    nv.value = value;
    nv.valuelen = sizeof(value);
    rv = ngp_h2_check_outgoing(NGP_H2_MESSAGE_TRAILERS, &nv, 1, &flags, &length,
                               &error);
    assert_int_equal(
        rv, c == '\t' || (c >= ' ' && c != 127) ? 0 : NGP_ERR_BAD_HEADERS);
  }
}

static void a_content_length_is_one_decimal_number(void **state) {
  ngp_h2_header_error error;
  nvlist list = nv_of(":status=200\nContent-Length=123456789012345678\n");
  int64_t length;
  uint32_t flags;

  (void)state;
  assert_ok(ngp_h2_check_outgoing(NGP_H2_MESSAGE_RESPONSE, list.nva, list.nvlen,
                                  &flags, &length, &error));
  assert_true(length == 123456789012345678);
  assert_refused_at(RESPONSE, ":status=200\ncontent-length=\n", 1);
  assert_refused_at(RESPONSE, ":status=200\ncontent-length=-1\n", 1);
  assert_refused_at(RESPONSE, ":status=200\ncontent-length=1,1\n", 1);
  assert_refused_at(RESPONSE,
                    ":status=200\ncontent-length=9999999999999999999\n", 1);
  assert_refused_at(RESPONSE,
                    ":status=200\ncontent-length=1\ncontent-length=1\n", 2);
}

static void methods_that_change_the_response_are_noted(void **state) {
  ngp_h2_header_error error;
  nvlist list = nv_of(HEAD);
  int64_t length;
  uint32_t flags;

  (void)state;
  assert_ok(ngp_h2_check_outgoing(NGP_H2_MESSAGE_REQUEST, list.nva, list.nvlen,
                                  &flags, &length, &error));
  assert_int_equal(flags, NGP_H2_FLAG_HEAD);
  assert_int_equal(length, -1);
  list = nv_of(":method=CONNECT\n:authority=a:1\n");
  assert_ok(ngp_h2_check_outgoing(NGP_H2_MESSAGE_REQUEST, list.nva, list.nvlen,
                                  &flags, &length, &error));
  assert_int_equal(flags, NGP_H2_FLAG_CONNECT);
}

static void secrets_go_out_never_indexed(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client,
                 GET "authorization=a\nproxy-authorization=b\ncookie=c\nx=y\n",
                 1);
  assert_ok(pair_pump(&p));
  assert_text(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 1)->fields,
              GET "!authorization=a\n!proxy-authorization=b\n!cookie=c\nx=y\n");
  pair_free(&p);
}

static void names_go_out_in_lower_case(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client, GET "X-Upper-Case=Value\n", 1);
  assert_ok(pair_pump(&p));
  assert_text(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 1)->fields,
              GET "x-upper-case=Value\n");
  pair_free(&p);
}

static void every_name_we_know_has_its_token(void **state) {
  static const struct {
    const char *name;
    ngp_token token;
  } names[] = {
      {":authority", NGP_TOKEN__AUTHORITY},
      {":method", NGP_TOKEN__METHOD},
      {":path", NGP_TOKEN__PATH},
      {":protocol", NGP_TOKEN__PROTOCOL},
      {":scheme", NGP_TOKEN__SCHEME},
      {":status", NGP_TOKEN__STATUS},
      {"connection", NGP_TOKEN_CONNECTION},
      {"content-length", NGP_TOKEN_CONTENT_LENGTH},
      {"cookie", NGP_TOKEN_COOKIE},
      {"host", NGP_TOKEN_HOST},
      {"keep-alive", NGP_TOKEN_KEEP_ALIVE},
      {"priority", NGP_TOKEN_PRIORITY},
      {"proxy-authorization", NGP_TOKEN_PROXY_AUTHORIZATION},
      {"proxy-connection", NGP_TOKEN_PROXY_CONNECTION},
      {"te", NGP_TOKEN_TE},
      {"transfer-encoding", NGP_TOKEN_TRANSFER_ENCODING},
      {"upgrade", NGP_TOKEN_UPGRADE},
      {"authorization", NGP_TOKEN_HEADER_ONLY},
      {"content-encoding", NGP_TOKEN_HEADER_ONLY},
      {"content-range", NGP_TOKEN_HEADER_ONLY},
      {"content-type", NGP_TOKEN_HEADER_ONLY},
      {"set-cookie", NGP_TOKEN_HEADER_ONLY},
      {"trailer", NGP_TOKEN_HEADER_ONLY},
      {"", NGP_TOKEN_OTHER},
      {"x", NGP_TOKEN_OTHER},
      {":other", NGP_TOKEN_OTHER},
  };
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(names) / sizeof(*names); ++i) {
    size_t len = strlen(names[i].name);
    /* From a buffer of just this size, so that nothing is read past it. */
    uint8_t *name = malloc(len ? len : 1);

    assert_non_null(name);
    memcpy(name, names[i].name, len);
    assert_int_equal(ngp_token_of(name, len), names[i].token);
    if (len) {
      name[len - 1] ^= 1;
      assert_int_equal(ngp_token_of(name, len), NGP_TOKEN_OTHER);
    }
    free(name);
  }
}

static void host_may_differ_from_authority_in_case_only(void **state) {
  pair p = pair_connect(NULL, NULL);

  (void)state;
  submit_request(&p.client, GET "host=EXAMPLE.org\n", 1);
  assert_ok(pair_pump(&p));
  assert_non_null(end_saw(&p.server, NGP_H2_EVENT_REQUEST, 1));
  assert_int_equal(refused(NGP_H2_MESSAGE_REQUEST, GET "host=example.com\n"),
                   5);
  pair_free(&p);
}

static void events_outlive_the_table_that_their_fields_came_from(void **state) {
  const nghttp2_settings_entry none = {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 0};
  pair p = pair_connect(NULL, NULL);
  int i;

  (void)state;
  for (i = 0; i < 3; ++i) {
    const ngp_h2_event *events;
    const ngp_h2_field *fields;
    nghttp2_vec value;
    size_t consumed, n;

    submit_request(&p.client, GET "x-long=a-value-that-is-indexed\n", 1);
    assert_ok(end_send(&p.client));
    assert_ok(ngp_h2_recv(p.server.h2, p.client.out.base, p.client.out.len,
                          &consumed));
    wire_shift(&p.client.out, p.client.out.len);
    /* The table is emptied while the event is held. */
    assert_ok(ngp_h2_submit_settings(p.server.h2, &none, 1));
    assert_ok(ngp_h2_send(p.server.h2, SIZE_MAX, 0));
    events = ngp_h2_events(p.server.h2, &n);
    assert_int_equal(events[0].type, NGP_H2_EVENT_REQUEST);
    fields = ngp_h2_fields(p.server.h2) + events[0].first_field;
    value = nghttp2_rcbuf_get_buf(fields[4].value);
    assert_int_equal(value.len, 23);
    assert_memory_equal(value.base, "a-value-that-is-indexed", 23);
    ngp_h2_clear_events(p.server.h2);
    assert_ok(pair_pump(&p));
  }
  pair_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(whole_requests_are_sent),
      cmocka_unit_test(what_a_request_lacks_is_told_at_the_lists_end),
      cmocka_unit_test(pseudo_header_fields_have_their_place),
      cmocka_unit_test(a_status_has_three_digits_and_the_right_class),
      cmocka_unit_test(connection_specific_fields_are_refused),
      cmocka_unit_test(names_and_values_hold_only_what_they_may),
      cmocka_unit_test(a_content_length_is_one_decimal_number),
      cmocka_unit_test(methods_that_change_the_response_are_noted),
      cmocka_unit_test(secrets_go_out_never_indexed),
      cmocka_unit_test(names_go_out_in_lower_case),
      cmocka_unit_test(every_name_we_know_has_its_token),
      cmocka_unit_test(host_may_differ_from_authority_in_case_only),
      cmocka_unit_test(events_outlive_the_table_that_their_fields_came_from),
  };

  return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}
