/*
 * The body queue of a stream.  SPDX-License-Identifier: MIT
 */
#include "pair.h"

#include "ngp_body.h"

static const uint8_t text[] = "0123456789";
static int owners[3];

static void push(ngp_body *body, size_t i, size_t len) {
  assert_ok(ngp_body_queue(body, NULL, text, len, &owners[i]));
}

static void chunks_come_back_when_their_last_byte_is_gone(void **state) {
  ngp_body body = {0};
  ngp_tray tray = {0};

  (void)state;
  push(&body, 0, 4);
  push(&body, 1, 6);
  assert_int_equal(body.queued, 10);
  ngp_body_shift(&body, 3, &tray);
  assert_null(ngp_tray_take(&tray, NULL));
  ngp_body_shift(&body, 2, &tray);
  assert_ptr_equal(ngp_tray_take(&tray, NULL), &owners[0]);
  assert_int_equal(body.queued, 5);
  assert_int_equal(body.head->pos, 1);
  ngp_body_shift(&body, 5, &tray);
  assert_ptr_equal(ngp_tray_take(&tray, NULL), &owners[1]);
  assert_null(ngp_tray_take(&tray, NULL));
  assert_int_equal(body.queued, 0);
  assert_null(body.head);
  assert_null(body.tail);
}

static void one_shift_may_use_up_many_chunks(void **state) {
  ngp_body body = {0};
  ngp_tray tray = {0};
  size_t i;

  (void)state;
  for (i = 0; i < 3; ++i) {
    push(&body, i, i + 1);
  }
  ngp_body_shift(&body, 6, &tray);
  for (i = 0; i < 3; ++i) {
    assert_non_null(ngp_tray_take(&tray, NULL));
  }
  assert_null(ngp_tray_take(&tray, NULL));
}

static void an_abandoned_body_gives_every_owner_back(void **state) {
  ngp_body body = {0};
  ngp_tray tray = {0};

  (void)state;
  push(&body, 0, 4);
  push(&body, 1, 6);
  ngp_body_shift(&body, 1, &tray);
  ngp_body_abandon(&body, &tray);
  assert_int_equal(body.queued, 0);
  assert_non_null(ngp_tray_take(&tray, NULL));
  assert_non_null(ngp_tray_take(&tray, NULL));
  assert_null(ngp_tray_take(&tray, NULL));
  /* The queue is as new. */
  push(&body, 2, 1);
  ngp_body_abandon(&body, &tray);
  assert_ptr_equal(ngp_tray_take(&tray, NULL), &owners[2]);
}

static void a_push_that_fails_holds_nothing(void **state) {
  ngp_body body = {0};
  ngp_tray tray = {0};
  counting memory;

  (void)state;
  counting_init(&memory);
  memory.fail_at = 0;
  assert_int_equal(ngp_body_queue(&body, &memory.mem, text, 4, &owners[0]),
                   NGHTTP2_ERR_NOMEM);
  assert_int_equal(body.queued, 0);
  ngp_body_abandon(&body, &tray);
  assert_null(ngp_tray_take(&tray, &memory.mem));
  assert_int_equal(memory.live, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(chunks_come_back_when_their_last_byte_is_gone),
      cmocka_unit_test(one_shift_may_use_up_many_chunks),
      cmocka_unit_test(an_abandoned_body_gives_every_owner_back),
      cmocka_unit_test(a_push_that_fails_holds_nothing),
  };

  return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
