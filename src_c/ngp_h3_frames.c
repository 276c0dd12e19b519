/* SPDX-License-Identifier: MIT */
#include "ngp_h3_int.h"

#include <stdio.h>
#include <string.h>

/*
 * Payloads on the control stream are collected completely, so each has a bound.
 * More settings than fit in this many bytes, or a longer list of origins, have
 * no use; the longest priority in use takes 6 bytes.
 */
#define MAX_SETTINGS_LEN 16384
#define MAX_ORIGIN_LEN 16384
#define MAX_PRIORITY_LEN 1024

int ngp_h3_is_control_frame(const ngp_h3 *h3, uint64_t type, uint64_t len) {
  switch (type) {
  case NGP_H3_FRAME_SETTINGS:
  case NGP_H3_FRAME_CANCEL_PUSH:
  case NGP_H3_FRAME_GOAWAY:
  case NGP_H3_FRAME_MAX_PUSH_ID:
  case NGP_H3_FRAME_PRIORITY_UPDATE_REQUEST:
  case NGP_H3_FRAME_PRIORITY_UPDATE_PUSH:
    return 1;
  case NGP_H3_FRAME_ORIGIN:
    /* Servers ignore ORIGIN (RFC 9412, 2.3).  It is optional, so a client
       ignores one that is too long. */
    return h3->options.is_client && len <= MAX_ORIGIN_LEN;
  default:
    return 0;
  }
}

int ngp_h3_check_control_frame(ngp_h3 *h3, uint64_t type, uint64_t len) {
  if (type != NGP_H3_FRAME_SETTINGS && !h3->peer.settings_received) {
    return ngp_h3_violate(h3, NGP_H3_V_MISSING_SETTINGS);
  }
  switch (type) {
  case NGP_H3_FRAME_SETTINGS:
    if (h3->peer.settings_received) {
      return ngp_h3_violate(h3, NGP_H3_V_SECOND_SETTINGS);
    }
    return len > MAX_SETTINGS_LEN ? ngp_h3_violate(h3, NGP_H3_V_SETTINGS_SIZE)
                                  : 0;
  case NGP_H3_FRAME_MAX_PUSH_ID:
    if (h3->options.is_client) {
      return ngp_h3_violate(h3, NGP_H3_V_SERVER_MAX_PUSH_ID);
    }
    /* The one number in these frames takes 8 bytes at most. */
    return len > 8 ? ngp_h3_violate(h3, NGP_H3_V_MAX_PUSH_ID_TRAILING) : 0;
  case NGP_H3_FRAME_GOAWAY:
    return len > 8 ? ngp_h3_violate(h3, NGP_H3_V_GOAWAY_TRAILING) : 0;
  case NGP_H3_FRAME_CANCEL_PUSH:
    return len > 8 ? ngp_h3_violate(h3, NGP_H3_V_CANCEL_PUSH_TRAILING) : 0;
  case NGP_H3_FRAME_PRIORITY_UPDATE_REQUEST:
  case NGP_H3_FRAME_PRIORITY_UPDATE_PUSH:
    if (h3->options.is_client) {
      return ngp_h3_violate(h3, NGP_H3_V_SERVER_PRIORITY_UPDATE);
    }
    return len > MAX_PRIORITY_LEN
               ? ngp_h3_violate(h3, NGP_H3_V_PRIORITY_UPDATE_SIZE)
               : 0;
  case NGP_H3_FRAME_ORIGIN:
    return 0;
  case NGP_H3_FRAME_DATA:
  case NGP_H3_FRAME_HEADERS:
  case NGP_H3_FRAME_PUSH_PROMISE:
  /* The next four are frames of HTTP/2 only (RFC 9114, 7.2.8). */
  case 0x2:
  case 0x6:
  case 0x8:
  case 0x9:
    return ngp_h3_violate(h3, NGP_H3_V_CONTROL_FRAME);
  default:
    return ngp_h3_glitch(h3);
  }
}

/* ---- Settings ---- */

int ngp_h3_parse_settings(const uint8_t *payload, size_t len,
                          ngp_h3_setting *settings, size_t *pn, uint64_t *pid) {
  const uint8_t *end = payload + len;
  size_t n = 0;
  size_t taken, i;

  while (payload != end) {
    ngp_h3_setting setting;

    taken = ngp_get_varint(payload, (size_t)(end - payload), &setting.id);
    if (taken == 0) {
      return NGP_H3_SETTINGS_TRUNCATED;
    }
    payload += taken;
    taken = ngp_get_varint(payload, (size_t)(end - payload), &setting.value);
    if (taken == 0) {
      return NGP_H3_SETTINGS_TRUNCATED;
    }
    payload += taken;
    *pid = setting.id;
    /* Settings of HTTP/2 only (RFC 9114, 7.2.4.1). */
    if (setting.id == 0 || (setting.id >= 2 && setting.id <= 5)) {
      return NGP_H3_SETTINGS_RESERVED;
    }
    for (i = 0; i < n; ++i) {
      if (settings[i].id == setting.id) {
        return NGP_H3_SETTINGS_TWICE;
      }
    }
    settings[n++] = setting;
  }
  *pn = n;
  return 0;
}

static const ngp_h3_setting *find_setting(const ngp_h3_setting *settings,
                                          size_t n, uint64_t id) {
  size_t i;

  for (i = 0; i < n; ++i) {
    if (settings[i].id == id) {
      return &settings[i];
    }
  }
  return NULL;
}

uint64_t ngp_h3_setting_value(const ngp_h3 *h3, uint64_t id,
                              uint64_t otherwise) {
  const ngp_h3_setting *setting =
      find_setting(h3->peer.settings, h3->peer.nsettings, id);

  return setting ? setting->value : otherwise;
}

/* |format| takes the identifier at fault. */
static int settings_error(ngp_h3 *h3, const char *format, uint64_t id) {
  char text[128];

  snprintf(text, sizeof(text), format, (unsigned long long)id);
  ngp_h3_phrase_set(&h3->close.phrase, text);
  return ngp_h3_violate_with(h3, NGP_H3_SETTINGS_ERROR);
}

/* Settings with the values 0 and 1, in the order in which they are checked. */
static const struct {
  uint64_t id;
  const char *error;
} switches[] = {
    {NGP_H3_SETTING_ENABLE_CONNECT_PROTOCOL,
     "ENABLE_CONNECT_PROTOCOL setting must be 0 or 1"},
    {NGP_H3_SETTING_ENABLE_WEBTRANSPORT,
     "ENABLE_WEBTRANSPORT setting must be 0 or 1"},
    {NGP_H3_SETTING_H3_DATAGRAM, "H3_DATAGRAM setting must be 0 or 1"},
};

static int check_settings(ngp_h3 *h3) {
  size_t i;

  for (i = 0; i < sizeof(switches) / sizeof(switches[0]); ++i) {
    if (ngp_h3_setting_value(h3, switches[i].id, 0) > 1) {
      ngp_h3_phrase_set(&h3->close.phrase, switches[i].error);
      return ngp_h3_violate_with(h3, NGP_H3_SETTINGS_ERROR);
    }
  }
  if (ngp_h3_setting_value(h3, NGP_H3_SETTING_H3_DATAGRAM, 0) == 1 &&
      !h3->peer.datagrams) {
    return ngp_h3_violate(h3, NGP_H3_V_DATAGRAM_UNSUPPORTED);
  }
  if (ngp_h3_setting_value(h3, NGP_H3_SETTING_ENABLE_WEBTRANSPORT, 0) == 1 &&
      ngp_h3_setting_value(h3, NGP_H3_SETTING_H3_DATAGRAM, 0) != 1) {
    return ngp_h3_violate(h3, NGP_H3_V_WEBTRANSPORT_NO_DATAGRAM);
  }
  return 0;
}

static int recv_settings(ngp_h3 *h3, const uint8_t *payload, size_t len) {
  ngp_h3_setting *settings;
  uint64_t id = 0;
  size_t n = 0;
  int rv;

  /* Each takes at least two bytes; one more, because the list may be empty. */
  settings = ngp_malloc(h3->mem, (len / 2 + 1) * sizeof(*settings));
  if (!settings) {
    return NGHTTP2_ERR_NOMEM;
  }
  rv = ngp_h3_parse_settings(payload, len, settings, &n, &id);
  h3->peer.settings = settings;
  h3->peer.nsettings = n;
  switch (rv) {
  case NGP_H3_SETTINGS_TRUNCATED:
    return ngp_h3_violate(h3, NGP_H3_V_SETTINGS_PARSE);
  case NGP_H3_SETTINGS_RESERVED:
    return settings_error(h3, "Setting identifier 0x%llx is reserved", id);
  case NGP_H3_SETTINGS_TWICE:
    return settings_error(h3, "Setting identifier 0x%llx is included twice",
                          id);
  }
  rv = check_settings(h3);
  if (rv != 0) {
    return rv;
  }
  h3->peer.settings_received = 1;
  h3->peer.connect_protocol =
      ngp_h3_setting_value(h3, NGP_H3_SETTING_ENABLE_CONNECT_PROTOCOL, 0) == 1;
  rv = ngp_qpack_encoder_apply(
      &h3->encoder,
      ngp_h3_setting_value(h3, NGP_H3_SETTING_QPACK_MAX_TABLE_CAPACITY, 0),
      ngp_h3_setting_value(h3, NGP_H3_SETTING_QPACK_BLOCKED_STREAMS, 0));
  if (rv != 0) {
    return rv;
  }
  if (h3->options.extended &&
      !ngp_h3_add_event(h3, NGP_H3_EVENT_SETTINGS, NULL)) {
    return NGHTTP2_ERR_NOMEM;
  }
  return 0;
}

/* ---- The other frames ---- */

/* Reads a payload that consists of one number. */
static int read_number(ngp_h3 *h3, const uint8_t *payload, size_t len,
                       uint64_t *pvalue, ngp_h3_violation truncated,
                       ngp_h3_violation trailing) {
  size_t n = ngp_get_varint(payload, len, pvalue);

  if (n == 0) {
    return ngp_h3_violate(h3, truncated);
  }
  return n < len ? ngp_h3_violate(h3, trailing) : 0;
}

/* Records an event that has only a |value|. */
static int add_value(ngp_h3 *h3, ngp_h3_event_type type, uint64_t value) {
  ngp_h3_event *event;

  if (!h3->options.extended) {
    return 0;
  }
  event = ngp_h3_add_event(h3, type, NULL);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->value = value;
  return 0;
}

static int recv_max_push_id(ngp_h3 *h3, const uint8_t *payload, size_t len) {
  uint64_t id;
  int rv = read_number(h3, payload, len, &id, NGP_H3_V_MAX_PUSH_ID_PARSE,
                       NGP_H3_V_MAX_PUSH_ID_TRAILING);

  if (rv != 0) {
    return rv;
  }
  if ((int64_t)id < h3->push.max_id) {
    return ngp_h3_violate(h3, NGP_H3_V_MAX_PUSH_ID_REDUCED);
  }
  h3->push.max_id = (int64_t)id;
  return add_value(h3, NGP_H3_EVENT_MAX_PUSH_ID, id);
}

static int recv_goaway(ngp_h3 *h3, const uint8_t *payload, size_t len) {
  uint64_t id;
  int rv = read_number(h3, payload, len, &id, NGP_H3_V_GOAWAY_PARSE,
                       NGP_H3_V_GOAWAY_TRAILING);

  if (rv != 0) {
    return rv;
  }
  /* A server sends the id of a request, a client that of a push (RFC 9114,
     7.2.6). */
  if (h3->options.is_client && id % 4 != 0) {
    return ngp_h3_violate(h3, NGP_H3_V_GOAWAY_ID);
  }
  if (id > h3->goaway.received) {
    return ngp_h3_violate(h3, NGP_H3_V_GOAWAY_RAISED);
  }
  h3->goaway.received = id;
  return add_value(h3, NGP_H3_EVENT_GOAWAY, id);
}

static int recv_cancel_push(ngp_h3 *h3, const uint8_t *payload, size_t len) {
  ngp_h3_event *event;
  uint64_t id;
  int64_t limit =
      !h3->options.is_client ? h3->push.next_id - 1 : h3->push.max_id;
  int rv = read_number(h3, payload, len, &id, NGP_H3_V_CANCEL_PUSH_PARSE,
                       NGP_H3_V_CANCEL_PUSH_TRAILING);

  if (rv != 0) {
    return rv;
  }
  if ((int64_t)id > limit) {
    return ngp_h3_violate(h3, NGP_H3_V_CANCEL_PUSH_ID);
  }
  if (!h3->options.extended) {
    return 0;
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_CANCEL_PUSH, NULL);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->push_id = (int64_t)id;
  return 0;
}

/* Remembers the priority of a request that has not arrived. */
static void keep_early_priority(ngp_h3 *h3, int64_t stream_id, uint8_t urgency,
                                uint8_t incremental) {
  size_t i;

  for (i = 0; i < h3->nearly && h3->early[i].stream_id != stream_id; ++i)
    ;
  if (i == NGP_H3_MAX_EARLY_PRIORITIES) {
    memmove(&h3->early[0], &h3->early[1],
            (NGP_H3_MAX_EARLY_PRIORITIES - 1) * sizeof(h3->early[0]));
    --i;
  } else if (i == h3->nearly) {
    ++h3->nearly;
  }
  h3->early[i] = (ngp_h3_early_priority){
      .stream_id = stream_id, .urgency = urgency, .incremental = incremental};
}

static int recv_priority_update(ngp_h3 *h3, int push, const uint8_t *payload,
                                size_t len) {
  ngp_h3_stream *stream = NULL;
  ngp_h3_event *event;
  uint64_t id;
  uint8_t urgency = NGHTTP3_DEFAULT_URGENCY, incremental = 0;
  size_t n = ngp_get_varint(payload, len, &id);
  int rv;

  if (n == 0) {
    return ngp_h3_violate(h3, NGP_H3_V_PRIORITY_UPDATE_PARSE);
  }
  if (push ? (int64_t)id >= h3->push.next_id : id % 4 != 0) {
    return ngp_h3_violate(h3, NGP_H3_V_PRIORITY_UPDATE_ID);
  }
  payload += n;
  len -= n;
  if (ngp_h3_parse_priority(payload, len, &urgency, &incremental) != 0) {
    return ngp_h3_violate(h3, NGP_H3_V_PRIORITY_UPDATE_VALUE);
  }
  rv = ngp_h3_glitch(h3);
  if (rv != 0) {
    return rv;
  }
  if (push) {
    stream = ngp_h3_find_push(h3, (int64_t)id);
  } else {
    stream = ngp_h3_find(h3, (int64_t)id);
    if (!stream && !ngp_h3_window_has(&h3->requests, id / 4)) {
      keep_early_priority(h3, (int64_t)id, urgency, incremental);
    }
  }
  if (stream) {
    stream->urgency = urgency;
    stream->incremental = incremental;
    stream->reprioritized = 1;
  }
  if (!h3->options.extended) {
    return 0;
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_PRIORITY_UPDATE, NULL);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  *(push ? &event->push_id : &event->stream_id) = (int64_t)id;
  event->data = payload;
  event->len = len;
  return 0;
}

static int recv_origin(ngp_h3 *h3, const uint8_t *payload, size_t len) {
  ngp_h3_event *event;
  size_t i = 0;

  while (i < len) {
    size_t n;

    if (len - i < 2) {
      return ngp_h3_violate(h3, NGP_H3_V_ORIGIN_PARSE);
    }
    n = (size_t)payload[i] << 8 | payload[i + 1];
    i += 2;
    if (len - i < n) {
      return ngp_h3_violate(h3, NGP_H3_V_ORIGIN_PARSE);
    }
    i += n;
  }
  if (!h3->options.extended) {
    return 0;
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_ORIGIN, NULL);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->data = payload;
  event->len = len;
  return 0;
}

int ngp_h3_recv_control_frame(ngp_h3 *h3, uint64_t type, const uint8_t *payload,
                              size_t len) {
  switch (type) {
  case NGP_H3_FRAME_SETTINGS:
    return recv_settings(h3, payload, len);
  case NGP_H3_FRAME_MAX_PUSH_ID:
    return recv_max_push_id(h3, payload, len);
  case NGP_H3_FRAME_GOAWAY:
    return recv_goaway(h3, payload, len);
  case NGP_H3_FRAME_CANCEL_PUSH:
    return recv_cancel_push(h3, payload, len);
  case NGP_H3_FRAME_PRIORITY_UPDATE_REQUEST:
    return recv_priority_update(h3, 0, payload, len);
  case NGP_H3_FRAME_PRIORITY_UPDATE_PUSH:
    return recv_priority_update(h3, 1, payload, len);
  default:
    return recv_origin(h3, payload, len);
  }
}
