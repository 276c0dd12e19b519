/* Connection ids with the number of a worker.  SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ngp_quic_cid.h"
#include "ngp_udp.h"

static const uint8_t key[NGP_CID_KEY_LEN] = {0x8f, 0x95, 0xf0, 0x92, 0x45, 0x76,
                                             0x5f, 0x80, 0x25, 0x69, 0x34, 0xe5,
                                             0x0c, 0x66, 0x20, 0x7f};

static ngp_cid_layout make_layout(size_t server_id_len, size_t nonce_len,
                                  int has_key) {
  ngp_cid_layout layout = {.config_id = 1,
                           .slot = 3,
                           .generation = 200,
                           .has_key = has_key ? 1 : 0,
                           .server_id_len = server_id_len,
                           .nonce_len = nonce_len,
                           .server_id = {1, 2, 3},
                           .mask = {0x12345678, 0x9e3779b1}};

  memcpy(layout.key, key, sizeof(key));
  memcpy(layout.own_key, key, sizeof(key));
  return layout;
}

static void test_a_vector_of_the_draft(void **state) {
  uint8_t block[] = {0xed, 0x79, 0x3a, 0xee, 0x08, 0x0d, 0xbf};
  static const uint8_t expected[] = {0x20, 0xb1, 0xd0, 0x7b, 0x35, 0x9d, 0x3c};

  (void)state;
  assert_int_equal(0, ngp_cid_encrypt(key, block, sizeof(block)));
  assert_memory_equal(expected, block, sizeof(block));
}

static void test_each_length_is_decrypted(void **state) {
  uint8_t block[NGP_CID_MAX_BLOCK];
  uint8_t copy[NGP_CID_MAX_BLOCK];
  size_t len;

  (void)state;
  for (len = NGP_CID_MIN_BLOCK; len <= NGP_CID_MAX_BLOCK; ++len) {
    memset(block, (int)len * 7, len);
    memcpy(copy, block, len);
    assert_int_equal(0, ngp_cid_encrypt(key, block, len));
    assert_memory_not_equal(copy, block, len);
    assert_int_equal(0, ngp_cid_decrypt(key, block, len));
    assert_memory_equal(copy, block, len);
  }
  assert_int_equal(NGHTTP2_ERR_INVALID_ARGUMENT,
                   ngp_cid_encrypt(key, block, NGP_CID_MIN_BLOCK - 1));
  assert_int_equal(NGHTTP2_ERR_INVALID_ARGUMENT,
                   ngp_cid_decrypt(key, block, NGP_CID_MAX_BLOCK + 1));
}

static void test_each_layout_is_read(void **state) {
  size_t server_id_len;
  size_t nonce_len;
  int has_key;

  (void)state;
  for (server_id_len = 0; server_id_len <= 10; ++server_id_len) {
    for (nonce_len = NGP_CID_MIN_NONCE;
         nonce_len + server_id_len < NGP_CID_MAX_BLOCK; ++nonce_len) {
      for (has_key = 0; has_key < 2; ++has_key) {
        ngp_cid_layout layout = make_layout(server_id_len, nonce_len, has_key);
        ngtcp2_cid cid;
        uint8_t slot = 0;
        uint8_t generation = 0;
        size_t len;

        assert_int_equal(0, ngp_cid_make(&layout, &cid));
        assert_int_equal(ngp_cid_len(&layout), cid.datalen);
        assert_int_equal(0, ngp_cid_read(&layout, cid.data, cid.datalen, &slot,
                                         &generation));
        assert_int_equal(3, slot);
        assert_int_equal(200, generation);
        for (len = 0; len < cid.datalen; ++len) {
          assert_int_equal(
              NGHTTP2_ERR_INVALID_ARGUMENT,
              ngp_cid_read(&layout, cid.data, len, &slot, &generation));
        }
        cid.data[cid.datalen - 1] ^= 1;
        assert_int_equal(
            NGHTTP2_ERR_INVALID_ARGUMENT,
            ngp_cid_read(&layout, cid.data, cid.datalen, &slot, &generation));
      }
    }
  }
}

static void test_the_hash_depends_on_each_byte(void **state) {
  static const uint32_t mask[] = {1, 0x9e3779b1};
  uint8_t data[19] = {0};
  uint32_t before;
  size_t len;
  size_t i;

  (void)state;
  for (len = 4; len <= sizeof(data); ++len) {
    before = ngp_udp_hash(mask, data, len);
    for (i = 0; i < len; ++i) {
      data[i] = 1;
      assert_int_not_equal(before, ngp_udp_hash(mask, data, len));
      data[i] = 0;
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_vector_of_the_draft),
      cmocka_unit_test(test_each_length_is_decrypted),
      cmocka_unit_test(test_each_layout_is_read),
      cmocka_unit_test(test_the_hash_depends_on_each_byte),
  };

  return cmocka_run_group_tests(tests, NULL, NULL);
}
