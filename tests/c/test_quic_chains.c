/*
 * Chains of certificates that were verified are remembered: the linker puts the
 * functions below in the place of the clock's and GnuTLS's.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include <time.h>

#include "ngp_tls_gnutls.h"
#include "quic_pair.h"

#include <gnutls/gnutls.h>

time_t __real_time(time_t *dest);
time_t __wrap_time(time_t *dest);
int __real_gnutls_certificate_verify_peers(gnutls_session_t session,
                                           gnutls_typed_vdata_st *data,
                                           unsigned int n,
                                           unsigned int *status);
int __wrap_gnutls_certificate_verify_peers(gnutls_session_t session,
                                           gnutls_typed_vdata_st *data,
                                           unsigned int n,
                                           unsigned int *status);

/* Seconds that our clock is ahead of the system's, which GnuTLS reads. */
static time_t ahead;
static int verified;

time_t __wrap_time(time_t *dest) {
  (void)dest;
  return __real_time(NULL) + ahead;
}

int __wrap_gnutls_certificate_verify_peers(gnutls_session_t session,
                                           gnutls_typed_vdata_st *data,
                                           unsigned int n,
                                           unsigned int *status) {
  ++verified;
  return __real_gnutls_certificate_verify_peers(session, data, n, status);
}

/* Makes a connection, and returns how often its certificates were verified. */
static int connect_once(void) {
  quic_pair p;

  verified = 0;
  assert_ok(quic_pair_init(&p, NULL));
  quic_pair_connect(&p);
  quic_pair_run(&p, 200);
  assert_int_equal(ngp_quic_get_state(p.ends[0]), NGP_QUIC_STATE_ACTIVE);
  quic_pair_free(&p);
  return verified;
}

static int begin(void **state) {
  (void)state;
  ahead = 0;
  quic_pair_setup();
  return 0;
}

static int end_test(void **state) {
  (void)state;
  quic_pair_teardown();
  return 0;
}

static void a_chain_is_verified_once_in_ten_minutes(void **state) {
  (void)state;
  assert_int_equal(connect_once(), 1);
  assert_int_equal(connect_once(), 0);
  ahead = NGP_TLS_CHAIN_TIME - 2;
  assert_int_equal(connect_once(), 0);
  ahead = NGP_TLS_CHAIN_TIME + 1;
  assert_int_equal(connect_once(), 1);
  assert_int_equal(connect_once(), 0);
}

/* quic_pair's certificate expires an hour after it was made. */
static void a_chain_is_not_remembered_beyond_its_first_expiry(void **state) {
  (void)state;
  ahead = 3600 - 60;
  assert_int_equal(connect_once(), 1);
  ahead = 3600 - 5;
  assert_int_equal(connect_once(), 0);
  ahead = 3600 + 5;
  assert_int_equal(connect_once(), 1);
  assert_int_equal(connect_once(), 1);
}

static void a_clock_that_is_set_back_ends_what_is_remembered(void **state) {
  (void)state;
  ahead = 1000;
  assert_int_equal(connect_once(), 1);
  ahead = 0;
  assert_int_equal(connect_once(), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_chain_is_verified_once_in_ten_minutes,
                                      begin, end_test),
      cmocka_unit_test_setup_teardown(
          a_chain_is_not_remembered_beyond_its_first_expiry, begin, end_test),
      cmocka_unit_test_setup_teardown(
          a_clock_that_is_set_back_ends_what_is_remembered, begin, end_test),
  };

  return cmocka_run_group_tests(tests, NULL, NULL);
}
