/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "ngp_h2_int.h"

/* Clearing keeps arrays up to these sizes and frees larger ones, so that an
   idle connection stays small. */
#define KEEP_EVENTS 32
#define KEEP_FIELDS 64

/* The overhead of a field in the size of a header list (RFC 9113, 6.5.2). */
#define FIELD_OVERHEAD 32

static int grow(ngp_h2 *h2, void **parray, size_t *pcap, size_t size) {
  size_t cap = *pcap ? *pcap * 2 : 16;
  void *array = ngp_realloc(h2->mem, *parray, cap * size);

  if (!array) {
    return NGHTTP2_ERR_NOMEM;
  }
  *parray = array;
  *pcap = cap;
  return 0;
}

ngp_h2_event *ngp_h2_record(ngp_h2 *h2, ngp_h2_event_type type,
                            int32_t stream_id) {
  ngp_h2_batch *batch = &h2->batch;
  ngp_h2_event *event;
  void *array = batch->events;

  if (batch->nevents == batch->events_cap) {
    if (grow(h2, &array, &batch->events_cap, sizeof(*batch->events)) != 0) {
      return NULL;
    }
    batch->events = array;
  }
  event = &batch->events[batch->nevents++];
  memset(event, 0, sizeof(*event));
  event->type = (uint8_t)type;
  event->stream_id = stream_id;
  return event;
}

int ngp_h2_event_copy(ngp_h2 *h2, ngp_h2_event *event, const void *data,
                      size_t len) {
  if (!len) {
    return 0;
  }
  event->owned = ngp_malloc(h2->mem, len);
  if (!event->owned) {
    return NGHTTP2_ERR_NOMEM;
  }
  memcpy(event->owned, data, len);
  event->data = event->owned;
  event->len = len;
  return 0;
}

static void drop_fields(ngp_h2_batch *batch, size_t first, size_t end) {
  size_t i;

  for (i = first; i < end; ++i) {
    nghttp2_rcbuf_decref(batch->fields[i].name);
    nghttp2_rcbuf_decref(batch->fields[i].value);
  }
}

void ngp_h2_block_begin(ngp_h2 *h2) {
  ngp_h2_batch *batch = &h2->batch;

  drop_fields(batch, batch->committed, batch->nfields);
  batch->nfields = batch->committed;
  h2->block.bytes = h2->block.count = 0;
  h2->block.overflow = 0;
}

int ngp_h2_block_add(ngp_h2 *h2, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                     int never_indexed) {
  ngp_h2_batch *batch = &h2->batch;
  nghttp2_vec n = nghttp2_rcbuf_get_buf(name);
  nghttp2_vec v = nghttp2_rcbuf_get_buf(value);
  ngp_h2_field *field;
  void *array = batch->fields;

  h2->block.bytes += n.len + v.len + FIELD_OVERHEAD;
  ++h2->block.count;
  h2->counters.header_bytes_received += n.len + v.len;
  if (h2->block.bytes > h2->options.max_header_list_bytes ||
      h2->block.count > h2->options.max_header_list_count) {
    h2->block.overflow = 1;
  }
  if (h2->block.overflow) {
    return ngp_h2_check_block(h2);
  }
  if (batch->nfields == batch->fields_cap) {
    if (grow(h2, &array, &batch->fields_cap, sizeof(*batch->fields)) != 0) {
      return NGHTTP2_ERR_NOMEM;
    }
    batch->fields = array;
  }
  nghttp2_rcbuf_incref(name);
  nghttp2_rcbuf_incref(value);
  field = &batch->fields[batch->nfields++];
  field->name = name;
  field->value = value;
  field->token = (uint8_t)ngp_token_of(n.base, n.len);
  field->never_indexed = never_indexed ? 1 : 0;
  return 0;
}

void ngp_h2_block_commit(ngp_h2 *h2, ngp_h2_event *event) {
  ngp_h2_batch *batch = &h2->batch;

  event->first_field = batch->committed;
  event->nfields = batch->nfields - batch->committed;
  batch->committed = batch->nfields;
}

const ngp_h2_event *ngp_h2_events(const ngp_h2 *h2, size_t *pn) {
  *pn = h2->batch.nevents;
  return h2->batch.events;
}

const ngp_h2_field *ngp_h2_fields(const ngp_h2 *h2) { return h2->batch.fields; }

static void drop_events(ngp_h2 *h2) {
  ngp_h2_batch *batch = &h2->batch;
  size_t i;

  for (i = 0; i < batch->nevents; ++i) {
    ngp_free(h2->mem, batch->events[i].owned);
  }
  batch->nevents = 0;
  ++batch->number;
}

void ngp_h2_clear_events(ngp_h2 *h2) {
  ngp_h2_batch *batch = &h2->batch;

  drop_events(h2);
  drop_fields(batch, 0, batch->committed);
  batch->nfields -= batch->committed;
  if (batch->nfields && batch->committed) {
    memmove(batch->fields, batch->fields + batch->committed,
            batch->nfields * sizeof(*batch->fields));
  }
  batch->committed = 0;
  if (batch->events_cap > KEEP_EVENTS) {
    ngp_free(h2->mem, batch->events);
    batch->events = NULL;
    batch->events_cap = 0;
  }
  if (batch->fields_cap > KEEP_FIELDS && !batch->nfields) {
    ngp_free(h2->mem, batch->fields);
    batch->fields = NULL;
    batch->fields_cap = 0;
  }
}

void ngp_h2_batch_free(ngp_h2 *h2) {
  ngp_h2_batch *batch = &h2->batch;

  drop_events(h2);
  drop_fields(batch, 0, batch->nfields);
  ngp_free(h2->mem, batch->events);
  ngp_free(h2->mem, batch->fields);
}
