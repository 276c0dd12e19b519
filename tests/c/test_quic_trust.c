/*
 * Whose certificates are trusted when nobody says: the linker puts the
 * functions below in the place of GnuTLS's, which find what the test says they
 * do. SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include "ngp_tls_gnutls.h"

#include <gnutls/gnutls.h>

int __wrap_gnutls_certificate_set_x509_system_trust(
    gnutls_certificate_credentials_t credentials);
int __wrap_gnutls_certificate_set_x509_trust_file(
    gnutls_certificate_credentials_t credentials, const char *path,
    gnutls_x509_crt_fmt_t format);

/* How many certificates GnuTLS's own place has, and the file that has some. */
static int in_the_system;
static const char *file;
static int files_tried;

int __wrap_gnutls_certificate_set_x509_system_trust(
    gnutls_certificate_credentials_t credentials) {
  (void)credentials;
  return in_the_system;
}

int __wrap_gnutls_certificate_set_x509_trust_file(
    gnutls_certificate_credentials_t credentials, const char *path,
    gnutls_x509_crt_fmt_t format) {
  (void)credentials;
  assert_int_equal(format, GNUTLS_X509_FMT_PEM);
  ++files_tried;
  return file && strcmp(path, file) == 0 ? 140 : GNUTLS_E_FILE_ERROR;
}

static int make_config(ngp_tls_config **pconfig, const char **preason) {
  ngp_tls_options options = {.is_client = 1,
                             .verify = NGP_TLS_VERIFY_REQUIRED,
                             .system_trust = 1,
                             .priority = "NORMAL"};

  files_tried = 0;
  return ngp_tls_config_new(pconfig, &options, NULL, preason);
}

static int make_client(const char **preason) {
  ngp_tls_config *config = NULL;
  int rv = make_config(&config, preason);

  ngp_tls_config_decref(config);
  return rv;
}

static void what_gnutls_finds_is_enough(void **state) {
  const char *reason = NULL;

  (void)state;
  in_the_system = 140;
  file = NULL;
  assert_int_equal(make_client(&reason), 0);
  assert_int_equal(files_tried, 0);
}

static void other_systems_files_stand_in(void **state) {
  static const char *const places[] = {
      "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
      "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
  const char *reason = NULL;
  size_t i;

  (void)state;
  for (i = 0; i < sizeof(places) / sizeof(*places); ++i) {
    in_the_system = i % 2 ? 0 : GNUTLS_E_UNIMPLEMENTED_FEATURE;
    file = places[i];
    assert_int_equal(make_client(&reason), 0);
    assert_true(files_tried > 0);
  }
}

static void a_system_that_trusts_nobody_is_an_error(void **state) {
  const char *reason = NULL;

  (void)state;
  in_the_system = 0;
  file = NULL;
  assert_int_equal(make_client(&reason), NGHTTP2_ERR_INVALID_ARGUMENT);
  assert_non_null(strstr(reason, "ca-certificates"));
  assert_non_null(strstr(reason, "cafile"));
}

/* GnuTLS would leave the name out, and accept a certificate for any name. */
static void an_address_that_is_none_is_refused(void **state) {
  static const uint8_t ip[17] = {127, 0, 0, 1};
  static const size_t lens[] = {1, 5, 15, 17};
  ngp_tls_session_options options = {.verify_ip = ip};
  ngp_tls_config *config = NULL;
  const char *reason = NULL;
  ngp_tls *tls = NULL;
  size_t i;

  (void)state;
  in_the_system = 140;
  assert_int_equal(make_config(&config, &reason), 0);
  for (i = 0; i < sizeof(lens) / sizeof(*lens); ++i) {
    options.verify_ip_len = lens[i];
    assert_int_equal(ngp_tls_new(&tls, config, &options, NULL),
                     NGHTTP2_ERR_INVALID_ARGUMENT);
  }
  for (i = 4; i <= 16; i += 12) {
    options.verify_ip_len = i;
    assert_int_equal(ngp_tls_new(&tls, config, &options, NULL), 0);
    ngp_tls_del(tls);
  }
  ngp_tls_config_decref(config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_gnutls_finds_is_enough),
      cmocka_unit_test(other_systems_files_stand_in),
      cmocka_unit_test(a_system_that_trusts_nobody_is_an_error),
      cmocka_unit_test(an_address_that_is_none_is_refused),
  };

  return cmocka_run_group_tests_name("trust", tests, NULL, NULL);
}
