/*
 * What happened, kept until it is asked for.  SPDX-License-Identifier: MIT
 */
#include "ngp_quic_int.h"

#include <string.h>

/* An empty queue keeps memory up to these sizes, and frees more when less of it
   is used, so that an idle connection stays small. */
#define KEEP_EVENTS 64
#define KEEP_STORE 4096
#define MIN_STORE 512

/* A larger store is lent only to events whose data are this share of it. */
#define KEEP_SHARE 8

void ngp_quic_queue_init(ngp_quic_queue *queue, nghttp2_mem *mem) {
  *queue = (ngp_quic_queue){.mem = mem};
}

void ngp_quic_queue_free(ngp_quic_queue *queue) {
  ngp_free(queue->mem, queue->events);
  ngp_quic_store_release(queue->store);
  *queue = (ngp_quic_queue){.mem = queue->mem};
}

/* ---- The store ---- */

/* Returns where in the store the bytes of the waiting events begin. */
static size_t live_from(const ngp_quic_queue *queue) {
  return queue->first < queue->end
             ? (size_t)(queue->events[queue->first].offset - queue->base)
             : queue->store->len;
}

/* Drops bytes that were returned to the caller; what is lent stays in place. */
static void drop_dead(ngp_quic_queue *queue) {
  ngp_quic_store *store = queue->store;
  size_t dead;

  if (!store) {
    return;
  }
  dead = live_from(queue);
  if (dead == store->len &&
      (ngp_refs_get(&store->refs) > 1 ||
       (store->cap > KEEP_STORE && store->len < store->cap / 4))) {
    /* The store is lent, or too large. */
    queue->base += dead;
    queue->store = NULL;
    ngp_quic_store_release(store);
  } else if (ngp_refs_get(&store->refs) == 1) {
    memmove(store->data, store->data + dead, store->len - dead);
    store->len -= dead;
    queue->base += dead;
  }
}

/* Makes room for |n| bytes behind those of the waiting events. */
static int reserve(ngp_quic_queue *queue, size_t n) {
  ngp_quic_store *old = queue->store;
  ngp_quic_store *store;
  size_t dead = old ? live_from(queue) : 0;
  size_t len = old ? old->len - dead : 0;
  size_t cap = old ? old->cap : MIN_STORE;

  if (n <= (old ? old->cap - old->len : 0)) {
    return 0;
  }
  if (n > SIZE_MAX / 4 - len) {
    return NGHTTP2_ERR_NOMEM;
  }
  while (cap < len + n) {
    cap *= 2;
  }
  if (old && ngp_refs_get(&old->refs) == 1 && !dead) {
    store = ngp_realloc(queue->mem, old, sizeof(*store) + cap);
    if (!store) {
      return NGHTTP2_ERR_NOMEM;
    }
  } else {
    store = ngp_malloc(queue->mem, sizeof(*store) + cap);
    if (!store) {
      return NGHTTP2_ERR_NOMEM;
    }
    *store = (ngp_quic_store){.mem = queue->mem, .refs = 1, .len = len};
    if (len) {
      memcpy(store->data, old->data + dead, len);
    }
    ngp_quic_store_release(old);
    queue->base += dead;
  }
  store->cap = cap;
  queue->store = store;
  return 0;
}

static void add(ngp_quic_queue *queue, const void *data, size_t len) {
  if (len) {
    memcpy(queue->store->data + queue->store->len, data, len);
    queue->store->len += len;
  }
}

ngp_quic_store *ngp_quic_lend(ngp_quic *quic, size_t len) {
  ngp_quic_store *store = quic->events.store;

  /* A program that keeps an event of one byte must not keep a whole store. */
  if (store->cap > KEEP_STORE && len < store->cap / KEEP_SHARE) {
    return NULL;
  }
  return ngp_quic_store_hold(store);
}

void ngp_quic_trim(ngp_quic_queue *queue) {
  if (queue->first == queue->end && queue->store &&
      queue->store->cap > KEEP_STORE) {
    queue->base += queue->store->len;
    ngp_quic_store_release(queue->store);
    queue->store = NULL;
  }
}

/* ---- The queue ---- */

/* Makes room at the front and, if that is not enough, at the back. */
static int make_room(ngp_quic_queue *queue) {
  ngp_quic_event *events;
  size_t n = queue->end - queue->first;
  size_t cap;

  if (!n) {
    drop_dead(queue);
    queue->first = queue->end = 0;
    if (queue->cap > KEEP_EVENTS) {
      ngp_free(queue->mem, queue->events);
      queue->events = NULL;
      queue->cap = 0;
    }
  } else if (queue->first > queue->cap / 2) {
    /* Half of the queue was returned: close the gap. */
    drop_dead(queue);
    memmove(queue->events, queue->events + queue->first, n * sizeof(*events));
    queue->first = 0;
    queue->end = n;
  }
  if (queue->end < queue->cap) {
    return 0;
  }
  cap = queue->cap ? queue->cap * 2 : 16;
  events = ngp_realloc(queue->mem, queue->events, cap * sizeof(*events));
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

  if (queue == &quic->events) {
    quic->merge = 0;
  }
  if (((queue->end == queue->cap || queue->end == queue->first) &&
       make_room(queue) != 0) ||
      reserve(queue, len) != 0) {
    quic->no_memory = 1;
    return NULL;
  }
  event = &queue->events[queue->end++];
  *event = (ngp_quic_event){.type = (uint8_t)type,
                            .stream_id = -1,
                            .len = len,
                            .offset = queue->base +
                                      (queue->store ? queue->store->len : 0)};
  add(queue, data, len);
  return event;
}

int ngp_quic_record_more(ngp_quic *quic, ngp_quic_queue *queue,
                         const void *data, size_t len) {
  if (reserve(queue, len) != 0) {
    quic->no_memory = 1;
    return NGHTTP2_ERR_NOMEM;
  }
  add(queue, data, len);
  queue->events[queue->end - 1].len += len;
  return 0;
}

int ngp_quic_record_data(ngp_quic *quic, int64_t stream_id, const uint8_t *data,
                         size_t len, int end_stream) {
  ngp_quic_queue *queue = &quic->events;
  ngp_quic_event *event =
      queue->end > queue->first ? &queue->events[queue->end - 1] : NULL;

  if (quic->merge && event && event->type == NGP_QUIC_EVENT_STREAM_DATA &&
      event->stream_id == stream_id) {
    event->end_stream = end_stream ? 1 : 0;
    return ngp_quic_record_more(quic, queue, data, len);
  }
  event = ngp_quic_record(quic, queue, NGP_QUIC_EVENT_STREAM_DATA, data, len);
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
  event->data = event->len
                    ? queue->store->data + (size_t)(event->offset - queue->base)
                    : NULL;
  return 1;
}

int ngp_quic_next_event(ngp_quic *quic, ngp_quic_event *event) {
  if (!next(&quic->events, event)) {
    return 0;
  }
  quic->merge = 0;
  if (event->type == NGP_QUIC_EVENT_STREAM_DATA &&
      !quic->options.manual_credit) {
    ngp_quic_consume(quic, event->stream_id, event->len);
  } else if (event->type == NGP_QUIC_EVENT_DATAGRAM) {
    quic->dgrams.received -= ngp_quic_dgram_cost(event->len);
  }
  return 1;
}

int ngp_quic_next_report(ngp_quic *quic, ngp_quic_event *event) {
  return next(&quic->reports, event);
}
