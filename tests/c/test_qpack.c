/*
 * Pairs: what is kept of fields that are entries of QPACK's tables.
 * SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include "ngp_qpack.h"

enum { N = 1000 };

/* An encoder, a decoder, and the fields of the last section. */
typedef struct coders {
  ngp_qpack_encoder encoder;
  ngp_qpack_decoder decoder;
  ngp_qpack_fields fields;
  int64_t stream_id;
  /* What is kept by the pairs: the caller's objects are these bytes. */
  char objects[N];
  size_t kept;
} coders;

static void setup(coders *c) {
  memset(c, 0, sizeof(*c));
  assert_int_equal(ngp_qpack_encoder_init(&c->encoder, 4096, NULL), 0);
  assert_int_equal(ngp_qpack_encoder_apply(&c->encoder, 4096, 16), 0);
  assert_int_equal(ngp_qpack_decoder_init(&c->decoder, 4096, 16, NULL), 0);
  ngp_qpack_fields_init(&c->fields, NULL);
}

static void teardown(coders *c) {
  ngp_qpack_fields_free(&c->fields);
  while (ngp_qpack_pairs_take(&c->decoder.pairs)) {
    --c->kept;
  }
  /* Each object was returned once. */
  assert_int_equal(c->kept, 0);
  ngp_qpack_decoder_free(&c->decoder);
  ngp_qpack_encoder_free(&c->encoder);
}

/* Carries a section with one field; its decoded form. */
static nghttp3_qpack_nv *carry(coders *c, const char *name, const char *value) {
  nghttp3_nv nv = {.name = (uint8_t *)name,
                   .namelen = strlen(name),
                   .value = (uint8_t *)value,
                   .valuelen = strlen(value)};
  ngp_qpack_encoded encoded;
  wire section = {0};
  ngp_buf said;
  uint64_t required;

  assert_int_equal(
      ngp_qpack_encoder_encode(&c->encoder, c->stream_id, &nv, 1, &encoded), 0);
  assert_int_equal(ngp_qpack_decoder_read_encoder(
                       &c->decoder, encoded.stream.base, encoded.stream.len),
                   0);
  wire_add(&section, encoded.prefix.base, encoded.prefix.len);
  wire_add(&section, encoded.section.base, encoded.section.len);
  ngp_qpack_fields_clear(&c->fields, 0);
  assert_int_equal(ngp_qpack_decoder_decode(&c->decoder, c->stream_id,
                                            section.base, section.len, 1 << 20,
                                            100, &c->fields, &required),
                   0);
  wire_free(&section);
  ngp_buf_init(&said, NULL);
  assert_int_equal(ngp_qpack_decoder_take(&c->decoder, &said), 0);
  assert_int_equal(
      ngp_qpack_encoder_read_decoder(&c->encoder, said.base, said.len), 0);
  ngp_buf_free(&said);
  c->stream_id += 4;
  assert_int_equal(c->fields.len, 1);
  return &c->fields.nv[0];
}

/* Has the pairs keep |object|; whether they do. */
static int keep(coders *c, const nghttp3_qpack_nv *nv, void *object) {
  void *dropped = ngp_qpack_pairs_keep(&c->decoder.pairs, nv, object);

  if (dropped == object) {
    return 0;
  }
  c->kept += dropped ? 0 : 1;
  return 1;
}

static void *object_of(const coders *c, const nghttp3_qpack_nv *nv) {
  const ngp_qpack_pair *known = ngp_qpack_pairs_find(&c->decoder.pairs, nv);

  return known ? known->object : NULL;
}

static void an_entry_that_is_named_again_has_its_pair(void **state) {
  static const char *const fields[][2] = {
      {":method", "GET"},   /* an entry of the static table */
      {"x-name", "a value"} /* one that the encoder inserts */
  };
  coders c;
  size_t i;

  (void)state;
  setup(&c);
  for (i = 0; i < 2; ++i) {
    /* The second section of a field inserts it. */
    carry(&c, fields[i][0], fields[i][1]);
    carry(&c, fields[i][0], fields[i][1]);
    assert_int_equal(
        keep(&c, carry(&c, fields[i][0], fields[i][1]), &c.objects[i]), 1);
  }
  for (i = 0; i < 2; ++i) {
    assert_ptr_equal(object_of(&c, carry(&c, fields[i][0], fields[i][1])),
                     &c.objects[i]);
  }
  /* The same name with another value is another entry. */
  assert_null(object_of(&c, carry(&c, ":method", "POST")));
  teardown(&c);
}

static void a_literal_has_no_pair(void **state) {
  nghttp3_qpack_nv *nv;
  coders c;

  (void)state;
  setup(&c);
  nv = carry(&c, ":path", "/once");
  assert_int_equal(nv->flags & NGP_QPACK_FLAG_ENTRY, 0);
  assert_int_equal(keep(&c, nv, &c.objects[0]), 0);
  assert_null(object_of(&c, nv));
  teardown(&c);
}

static void a_large_entry_is_not_kept(void **state) {
  char value[NGP_QPACK_MAX_PAIR + 1];
  nghttp3_qpack_nv *nv;
  coders c;
  int i;

  (void)state;
  setup(&c);
  memset(value, 'a', NGP_QPACK_MAX_PAIR);
  value[NGP_QPACK_MAX_PAIR] = 0;
  for (i = 0; i < 3; ++i) {
    nv = carry(&c, "x-a", value);
  }
  assert_true(nv->flags & NGP_QPACK_FLAG_ENTRY);
  assert_int_equal(keep(&c, nv, &c.objects[0]), 0);
  /* One that fits exactly is. */
  value[NGP_QPACK_MAX_PAIR - 3] = 0;
  for (i = 0; i < 3; ++i) {
    nv = carry(&c, "x-a", value);
  }
  assert_int_equal(keep(&c, nv, &c.objects[0]), 1);
  teardown(&c);
}

/* Entries leave the peer's table and others come in their place, at addresses
   that may be free again: a pair must never be that of another field. */
static void a_pair_is_of_its_field_only(void **state) {
  char values[N][16];
  const void *object;
  nghttp3_qpack_nv *nv;
  size_t found = 0;
  coders c;
  size_t i;
  int turn;

  (void)state;
  setup(&c);
  for (i = 0; i < N; ++i) {
    snprintf(values[i], sizeof(values[i]), "value %zu", i);
    for (turn = 0; turn < 4; ++turn) {
      nv = carry(&c, "x-name", values[i]);
      object = object_of(&c, nv);
      if (object) {
        assert_ptr_equal(object, &c.objects[i]);
        ++found;
      } else {
        keep(&c, nv, &c.objects[i]);
      }
    }
    assert_true(c.kept <= NGP_QPACK_PAIRS);
  }
  assert_true(found >= N);
  /* As many are kept as there is room for, apart from the luck of the hash. */
  assert_true(c.kept > NGP_QPACK_PAIRS / 2);
  teardown(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_entry_that_is_named_again_has_its_pair),
      cmocka_unit_test(a_literal_has_no_pair),
      cmocka_unit_test(a_large_entry_is_not_kept),
      cmocka_unit_test(a_pair_is_of_its_field_only),
  };

  return cmocka_run_group_tests_name("qpack", tests, NULL, NULL);
}
