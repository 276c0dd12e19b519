/*
 * The two objects that nghttp2 makes without our allocator fail, too: the
 * linker puts the functions below in their place.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

int __real_nghttp2_option_new(nghttp2_option **poption);
int __wrap_nghttp2_option_new(nghttp2_option **poption);
int __real_nghttp2_session_callbacks_new(
    nghttp2_session_callbacks **pcallbacks);
int __wrap_nghttp2_session_callbacks_new(
    nghttp2_session_callbacks **pcallbacks);

static int option_fails, callbacks_fail;

int __wrap_nghttp2_option_new(nghttp2_option **poption) {
  return option_fails ? NGHTTP2_ERR_NOMEM : __real_nghttp2_option_new(poption);
}

int __wrap_nghttp2_session_callbacks_new(
    nghttp2_session_callbacks **pcallbacks) {
  return callbacks_fail ? NGHTTP2_ERR_NOMEM
                        : __real_nghttp2_session_callbacks_new(pcallbacks);
}

static void a_connection_without_options_is_not_made(void **state) {
  const ngp_h2_options options = {0};
  ngp_h2 *h2 = NULL;

  (void)state;
  option_fails = 1;
  assert_int_equal(ngp_h2_new(&h2, &options, NULL), NGHTTP2_ERR_NOMEM);
  option_fails = 0;
  assert_null(h2);
}

static void a_connection_without_callbacks_is_not_made(void **state) {
  const ngp_h2_options options = {0};
  ngp_h2 *h2 = NULL;

  (void)state;
  callbacks_fail = 1;
  assert_int_equal(ngp_h2_new(&h2, &options, NULL), NGHTTP2_ERR_NOMEM);
  callbacks_fail = 0;
  assert_null(h2);
}

static void nothing_can_be_deleted(void **state) {
  (void)state;
  ngp_h2_del(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_connection_without_options_is_not_made),
      cmocka_unit_test(a_connection_without_callbacks_is_not_made),
      cmocka_unit_test(nothing_can_be_deleted),
  };

  return cmocka_run_group_tests_name("new", tests, NULL, NULL);
}
