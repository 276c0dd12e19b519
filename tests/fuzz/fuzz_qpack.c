/*
 * QPACK: any bytes into both coders; and what one encodes, the other decodes.
 * SPDX-License-Identifier: MIT
 */
#include "ops.h"

#include "ngp_qpack.h"

static void decode_anything(input *in) {
  ngp_qpack_encoder encoder;
  ngp_qpack_decoder decoder;
  ngp_qpack_fields fields;
  ngp_buf out;
  uint64_t required;

  CHECK(ngp_qpack_encoder_init(&encoder, 4096, NULL) == 0);
  CHECK(ngp_qpack_decoder_init(&decoder, 4096, 16, NULL) == 0);
  ngp_qpack_fields_init(&fields, NULL);
  ngp_buf_init(&out, NULL);
  ngp_qpack_encoder_apply(&encoder, 4096, 16);
  while (in->left) {
    uint8_t what = take(in);
    size_t n = take(in);
    const uint8_t *data = take_bytes(in, &n);
    int rv = 0;

    switch (what % 4) {
    case 0:
      rv = ngp_qpack_decoder_read_encoder(&decoder, data, n);
      break;
    case 1:
      rv = ngp_qpack_encoder_read_decoder(&encoder, data, n);
      break;
    case 2:
      rv = ngp_qpack_decoder_decode(&decoder, what & ~3, data, n, 4096, 64,
                                    &fields, &required);
      if (rv == NGP_QPACK_ERR_BLOCKED) {
        CHECK(required > ngp_qpack_decoder_insert_count(&decoder));
        rv = 0;
      }
      break;
    default:
      CHECK(ngp_qpack_decoder_cancel(&decoder, what & ~3) == 0);
    }
    CHECK(rv != NGHTTP2_ERR_NOMEM);
    if (rv != 0) {
      /* The connection is closed. */
      break;
    }
    ngp_qpack_fields_clear(&fields, 0);
    CHECK(ngp_qpack_decoder_take(&decoder, &out) == 0);
    ngp_buf_clear(&out, 0);
  }
  ngp_buf_free(&out);
  ngp_qpack_fields_free(&fields);
  ngp_qpack_encoder_free(&encoder);
  ngp_qpack_decoder_free(&decoder);
}

enum { MAX_FIELDS = 16 };

/* Takes a field whose name and value lie in the input. */
static nghttp3_nv take_field(input *in) {
  static const char *const names[] = {":path", "cookie", "x-a", "content-type",
                                      "authorization"};
  nghttp3_nv nv = {0};
  uint8_t n = take(in);

  nv.name = (uint8_t *)names[n % 5];
  nv.namelen = strlen(names[n % 5]);
  nv.valuelen = n / 5;
  nv.value = (uint8_t *)take_bytes(in, &nv.valuelen);
  return nv;
}

static int equals(const nghttp3_qpack_nv *decoded, const nghttp3_nv *nv) {
  nghttp3_vec name = nghttp3_rcbuf_get_buf(decoded->name);
  nghttp3_vec value = nghttp3_rcbuf_get_buf(decoded->value);

  return name.len == nv->namelen && value.len == nv->valuelen &&
         memcmp(name.base, nv->name, name.len) == 0 &&
         (value.len == 0 || memcmp(value.base, nv->value, value.len) == 0);
}

static void go_there_and_back(input *in) {
  ngp_qpack_encoder encoder;
  ngp_qpack_decoder decoder;
  ngp_qpack_fields fields;
  ngp_buf section, out;
  int64_t stream_id = 0;

  CHECK(ngp_qpack_encoder_init(&encoder, 300, NULL) == 0);
  CHECK(ngp_qpack_decoder_init(&decoder, 300, 16, NULL) == 0);
  ngp_qpack_fields_init(&fields, NULL);
  ngp_buf_init(&section, NULL);
  ngp_buf_init(&out, NULL);
  ngp_qpack_encoder_apply(&encoder, 300, 16);
  for (; in->left; stream_id += 4) {
    nghttp3_nv nva[MAX_FIELDS];
    ngp_qpack_encoded encoded;
    uint64_t required;
    uint8_t n = take(in);
    size_t i, nvlen = n % MAX_FIELDS;

    for (i = 0; i < nvlen; ++i) {
      nva[i] = take_field(in);
    }
    CHECK(ngp_qpack_encoder_encode(&encoder, stream_id, nva, nvlen, &encoded) ==
          0);
    ngp_buf_clear(&section, 4096);
    CHECK(ngp_buf_add(&section, encoded.prefix.base, encoded.prefix.len) == 0);
    CHECK(ngp_buf_add(&section, encoded.section.base, encoded.section.len) ==
          0);
    CHECK(ngp_qpack_decoder_read_encoder(&decoder, encoded.stream.base,
                                         encoded.stream.len) == 0);
    if (n & 0x40) {
      /* The peer gives the stream up. */
      CHECK(ngp_qpack_decoder_cancel(&decoder, stream_id) == 0);
    } else {
      CHECK(ngp_qpack_decoder_decode(&decoder, stream_id, section.base,
                                     section.len, UINT64_MAX, SIZE_MAX, &fields,
                                     &required) == 0);
      CHECK(fields.len == nvlen);
      for (i = 0; i < nvlen; ++i) {
        CHECK(equals(&fields.nv[i], &nva[i]));
      }
      ngp_qpack_fields_clear(&fields, 0);
    }
    CHECK(ngp_qpack_decoder_take(&decoder, &out) == 0);
    if (n & 0x80) {
      CHECK(ngp_qpack_encoder_read_decoder(&encoder, out.base, out.len) == 0);
      ngp_buf_clear(&out, 4096);
    }
  }
  ngp_buf_free(&out);
  ngp_buf_free(&section);
  ngp_qpack_fields_free(&fields);
  ngp_qpack_encoder_free(&encoder);
  ngp_qpack_decoder_free(&decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in = {data, size};

  if (take(&in) & 1) {
    decode_anything(&in);
  } else {
    go_there_and_back(&in);
  }
  return 0;
}
