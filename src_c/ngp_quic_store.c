/*
 * Who holds the bytes of events: apart, for the programs that need no more of
 * QUIC than this.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

ngp_quic_store *ngp_quic_store_hold(ngp_quic_store *store) {
  ngp_refs_inc(&store->refs);
  return store;
}

void ngp_quic_store_release(ngp_quic_store *store) {
  if (store && !ngp_refs_dec(&store->refs)) {
    ngp_free(store->mem, store);
  }
}
