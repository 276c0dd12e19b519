/*
 * The shared byte buffer, numbers of variable length and error texts.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

static void a_buffer_keeps_what_is_added(void **state) {
  ngp_buf buf;
  size_t i;

  (void)state;
  ngp_buf_init(&buf, NULL);
  for (i = 0; i < 1000; ++i) {
    uint8_t byte = (uint8_t)i;

    assert_ok(ngp_buf_add(&buf, &byte, 1));
  }
  assert_int_equal(buf.len, 1000);
  for (i = 0; i < 1000; ++i) {
    assert_int_equal(buf.base[i], (uint8_t)i);
  }
  ngp_buf_free(&buf);
}

static void adding_nothing_to_an_empty_buffer_allocates_nothing(void **state) {
  ngp_buf buf;

  (void)state;
  ngp_buf_init(&buf, NULL);
  assert_ok(ngp_buf_add(&buf, NULL, 0));
  assert_null(buf.base);
  ngp_buf_free(&buf);
}

static void a_size_that_no_memory_can_hold_is_refused(void **state) {
  ngp_buf buf;

  (void)state;
  ngp_buf_init(&buf, NULL);
  assert_ok(ngp_buf_add(&buf, "abc", 3));
  assert_int_equal(ngp_buf_reserve(&buf, SIZE_MAX), NGHTTP2_ERR_NOMEM);
  assert_int_equal(ngp_buf_reserve(&buf, SIZE_MAX - 2), NGHTTP2_ERR_NOMEM);
  assert_text(buf, "abc");
  ngp_buf_free(&buf);
}

static void a_buffer_that_cannot_grow_stays_as_it_was(void **state) {
  counting memory;
  ngp_buf buf;

  (void)state;
  counting_init(&memory);
  memory.fail_at = 1;
  ngp_buf_init(&buf, &memory.mem);
  assert_ok(ngp_buf_add(&buf, "abc", 3));
  assert_int_equal(ngp_buf_reserve(&buf, 5000), NGHTTP2_ERR_NOMEM);
  assert_text(buf, "abc");
  assert_ok(ngp_buf_add(&buf, "def", 3));
  assert_text(buf, "abcdef");
  ngp_buf_free(&buf);
  assert_int_equal(memory.live, 0);
}

static void clearing_gives_large_memory_back_and_keeps_small(void **state) {
  ngp_buf buf;

  (void)state;
  ngp_buf_init(&buf, NULL);
  assert_ok(ngp_buf_reserve(&buf, 100));
  assert_ok(ngp_buf_add(&buf, "abc", 3));
  ngp_buf_clear(&buf, 4096);
  assert_non_null(buf.base);
  assert_int_equal(buf.len, 0);
  assert_ok(ngp_buf_reserve(&buf, 5000));
  ngp_buf_clear(&buf, 4096);
  assert_null(buf.base);
  assert_int_equal(buf.cap, 0);
  ngp_buf_free(&buf);
}

static void numbers_of_every_length(void **state) {
  static const struct {
    uint64_t value;
    size_t len;
  } cases[] = {{0, 1},        {63, 1},
               {64, 2},       {16383, 2},
               {16384, 4},    {(1u << 30) - 1, 4},
               {1u << 30, 8}, {NGP_MAX_VARINT, 8}};
  uint8_t text[8];
  uint64_t value;
  size_t i, n;

  (void)state;
  for (i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
    assert_int_equal(ngp_put_varint(text, cases[i].value), cases[i].len);
    for (n = 0; n < cases[i].len; ++n) {
      assert_int_equal(ngp_get_varint(text, n, &value), 0);
    }
    assert_int_equal(ngp_get_varint(text, n, &value), n);
    assert_int_equal(value, cases[i].value);
  }
}

static void every_code_has_its_text(void **state) {
  const char *unknown = nghttp2_strerror(-9999);
  int code;

  (void)state;
  for (code = NGP_ERR_CONNECTION_CLOSED; code >= NGP_ERR_BODY_LENGTH; --code) {
    assert_string_not_equal(ngp_strerror(code), unknown);
  }
  assert_string_equal(ngp_strerror(NGHTTP2_ERR_NOMEM),
                      nghttp2_strerror(NGHTTP2_ERR_NOMEM));
  assert_string_equal(ngp_strerror(0), nghttp2_strerror(0));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_buffer_keeps_what_is_added),
      cmocka_unit_test(adding_nothing_to_an_empty_buffer_allocates_nothing),
      cmocka_unit_test(a_size_that_no_memory_can_hold_is_refused),
      cmocka_unit_test(a_buffer_that_cannot_grow_stays_as_it_was),
      cmocka_unit_test(clearing_gives_large_memory_back_and_keeps_small),
      cmocka_unit_test(numbers_of_every_length),
      cmocka_unit_test(every_code_has_its_text),
  };

  return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
