/*
 * What happened, kept until it is asked for.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

/* Memory up to these sizes stays when a queue is empty; more is given back, so
   that an idle connection is small. */
#define KEEP_EVENTS 64
#define KEEP_STORE 4096

void ngp_quic_queue_init(ngp_quic_queue *queue, nghttp2_mem *mem) {
  *queue = (ngp_quic_queue){.events = NULL};
  ngp_buf_init(&queue->store, mem);
}

void ngp_quic_queue_free(ngp_quic_queue *queue) {
  ngp_free(queue->store.mem, queue->events);
  ngp_buf_free(&queue->store);
  queue->events = NULL;
  queue->first = queue->end = queue->cap = 0;
}

/* Makes room at the front and, if that is not enough, at the back. */
static int make_room(ngp_quic_queue *queue) {
  nghttp2_mem *mem = queue->store.mem;
  ngp_quic_event *events;
  size_t n = queue->end - queue->first;
  size_t cap;

  if (!n) {
    queue->base += queue->store.len;
    ngp_buf_clear(&queue->store, KEEP_STORE);
    queue->first = queue->end = 0;
    if (queue->cap > KEEP_EVENTS) {
      ngp_free(mem, queue->events);
      queue->events = NULL;
      queue->cap = 0;
    }
  } else if (queue->first > queue->cap / 2) {
    /* Half of it has been handed out: close the gap. */
    uint64_t dead = queue->events[queue->first].offset - queue->base;

    memmove(queue->events, queue->events + queue->first, n * sizeof(*events));
    memmove(queue->store.base, queue->store.base + dead,
            queue->store.len - (size_t)dead);
    queue->store.len -= (size_t)dead;
    queue->base += dead;
    queue->first = 0;
    queue->end = n;
  }
  if (queue->end < queue->cap) {
    return 0;
  }
  cap = queue->cap ? queue->cap * 2 : 16;
  events = ngp_realloc(mem, queue->events, cap * sizeof(*events));
  if (!events) {
    return NGHTTP2_ERR_NOMEM;
  }
  queue->events = events;
  queue->cap = cap;
  return 0;
}

ngp_quic_event *ngp_quic_record(ngp_quic *quic, ngp_quic_queue *queue,
                                ngp_quic_event_type type, const void *data,
                                size_t len) {
  ngp_quic_event *event;

  quic->merge = 0;
  if (((queue->end == queue->cap || queue->end == queue->first) &&
       make_room(queue) != 0) ||
      ngp_buf_reserve(&queue->store, len) != 0) {
    quic->no_memory = 1;
    return NULL;
  }
  event = &queue->events[queue->end++];
  *event = (ngp_quic_event){.type = (uint8_t)type,
                            .stream_id = -1,
                            .len = len,
                            .offset = queue->base + queue->store.len};
  if (len) {
    ngp_buf_add(&queue->store, data, len);
  }
  return event;
}

int ngp_quic_record_data(ngp_quic *quic, int64_t stream_id, const uint8_t *data,
                         size_t len, int end_stream) {
  ngp_quic_queue *queue = &quic->events;
  ngp_quic_event *event =
      queue->end > queue->first ? &queue->events[queue->end - 1] : NULL;

  if (quic->merge && event && event->type == NGP_QUIC_STREAM_DATA &&
      event->stream_id == stream_id) {
    if (ngp_buf_add(&queue->store, data, len) != 0) {
      quic->no_memory = 1;
      return NGHTTP2_ERR_NOMEM;
    }
    event->len += len;
    event->end_stream = end_stream ? 1 : 0;
    return 0;
  }
  event = ngp_quic_record(quic, queue, NGP_QUIC_STREAM_DATA, data, len);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->stream_id = stream_id;
  event->end_stream = end_stream ? 1 : 0;
  quic->merge = 1;
  return 0;
}

static int next(ngp_quic_queue *queue, ngp_quic_event *event) {
  if (queue->first == queue->end) {
    return 0;
  }
  *event = queue->events[queue->first++];
  event->data = queue->store.base + (size_t)(event->offset - queue->base);
  if (!event->len) {
    event->data = NULL;
  }
  return 1;
}

int ngp_quic_next_event(ngp_quic *quic, ngp_quic_event *event) {
  if (!next(&quic->events, event)) {
    return 0;
  }
  quic->merge = 0;
  if (event->type == NGP_QUIC_STREAM_DATA && !quic->options.manual_credit) {
    ngp_quic_consume(quic, event->stream_id, event->len);
  } else if (event->type == NGP_QUIC_DATAGRAM) {
    quic->dgram_received -= event->len;
  }
  return 1;
}

int ngp_quic_next_note(ngp_quic *quic, ngp_quic_event *event) {
  return next(&quic->notes, event);
}
