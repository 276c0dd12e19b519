/* SPDX-License-Identifier: MIT */
#include "ngp_h3_int.h"

int ngp_h3_flush_decoder(ngp_h3 *h3) {
  size_t n = ngp_qpack_decoder_pending(&h3->decoder);
  int rv;

  if (n == 0) {
    return 0;
  }
  h3->qpack_bytes.decoder_sent += n;
  rv = ngp_h3_begin_send(h3, h3->local.qpack_decoder);
  if (rv == 0) {
    rv = ngp_qpack_decoder_take(&h3->decoder, &h3->results.out);
    ngp_h3_end_send(h3, 0);
  }
  return rv;
}

int ngp_h3_cancel_section(ngp_h3 *h3, int64_t stream_id) {
  int rv = ngp_qpack_decoder_cancel(&h3->decoder, stream_id);

  return rv != 0 ? rv : ngp_h3_flush_decoder(h3);
}

/* Whether the body, which has ended, has the announced length. */
static int is_whole(const ngp_h3_stream *stream) {
  return stream->expected == NGP_FIELDS_NO_LENGTH ||
         stream->expected == stream->length;
}

static int is_aborted(const ngp_h3_stream *stream) {
  return stream->type == NGP_H3_STREAM_IGNORED;
}

/* Handles the end of a message that no DATA or HEADERS frame carries. */
static int recv_end(ngp_h3 *h3, ngp_h3_stream *stream) {
  int rv;

  if (stream->recv_state == NGP_H3_STATE_INITIAL) {
    if (h3->options.is_client) {
      return ngp_h3_malformed(h3, stream,
                              stream->interim ? NGP_H3_V_INTERIM_END
                                              : NGP_H3_V_NO_RESPONSE);
    }
    /* The application has not seen the request and cannot answer it
       (RFC 9114, 4.1). */
    if (h3->options.stream_errors) {
      return ngp_h3_malformed(h3, stream, NGP_H3_V_NO_REQUEST);
    }
    rv = ngp_h3_abort(h3, stream, NGP_H3_REQUEST_INCOMPLETE, 0);
    return rv != 0 ? rv : ngp_h3_count_reset(h3, stream);
  }
  if (!is_whole(stream)) {
    return ngp_h3_malformed(h3, stream, NGP_H3_V_CONTENT_LENGTH);
  }
  rv = ngp_h3_add_data(h3, NGP_H3_EVENT_DATA, stream, NULL, 0, 1);
  if (rv == 0 && stream->session) {
    rv = ngp_h3_wt_close(h3, stream, 0, NULL, 0);
  }
  return rv;
}

static int recv_body(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                     size_t len, int ended) {
  int rv;

  if (stream->recv_state != NGP_H3_STATE_AFTER_HEADERS) {
    return ngp_h3_violate(h3, NGP_H3_V_DATA_STATE);
  }
  stream->length += len;
  if (len && stream->no_body) {
    return ngp_h3_malformed(h3, stream, NGP_H3_V_BODY);
  }
  if ((ended && !is_whole(stream)) ||
      (stream->length > stream->expected && ngp_h3_is_strict(h3))) {
    return ngp_h3_malformed(h3, stream, NGP_H3_V_CONTENT_LENGTH);
  }
  if (stream->capsules && len) {
    rv = ngp_h3_wt_recv_capsules(h3, stream, data, len);
    if (rv != 0) {
      return rv;
    }
    data = NULL;
    len = 0;
  }
  if (len || ended) {
    rv = ngp_h3_add_data(h3, NGP_H3_EVENT_DATA, stream, data, len, ended);
    if (rv != 0) {
      return rv;
    }
  }
  if (ended && stream->session) {
    return ngp_h3_wt_close(h3, stream, 0, NULL, 0);
  }
  return 0;
}

int ngp_h3_check_push_id(ngp_h3 *h3, uint64_t push_id) {
  if (h3->push.max_id == NGP_H3_NO_ID || push_id > (uint64_t)h3->push.max_id) {
    return ngp_h3_violate(h3, NGP_H3_V_PUSH_ID);
  }
  return 0;
}

static int check_section(ngp_h3 *h3, ngp_h3_checker *checker, size_t first) {
  size_t i;
  ngp_token token;
  int rv = 0;

  for (i = first; i < h3->results.fields.len; ++i) {
    const nghttp3_qpack_nv *nv = &h3->results.fields.nv[i];
    nghttp3_vec name = nghttp3_rcbuf_get_buf(nv->name);
    nghttp3_vec value = nghttp3_rcbuf_get_buf(nv->value);
    ngp_qpack_pair *pair = ngp_qpack_pairs_find(&h3->decoder.pairs, nv);

    if (pair && pair->checked) {
      token = (ngp_token)pair->token;
    } else {
      /* A token means a name that libnghttp3 knows, in lower case. */
      rv = ngp_h3_checker_octets(checker, name.base, name.len, value.base,
                                 value.len, nv->token >= 0, &token);
      if (rv == 0 && pair) {
        pair->checked = 1;
        pair->token = (uint8_t)token;
      }
    }
    if (rv == 0) {
      rv = ngp_h3_checker_add(checker, token, name.base, name.len, value.base,
                              value.len);
    }
    if (rv != 0) {
      return rv;
    }
  }
  return ngp_h3_checker_end(checker);
}

int ngp_h3_reject_request(ngp_h3 *h3, ngp_h3_stream *stream) {
  return ngp_h3_abort(h3, stream, NGP_H3_REQUEST_REJECTED, 0);
}

/* Returns the flags of the rules: for the connection, and the section. */
static unsigned checker_flags(const ngp_h3 *h3, ngp_fields_section section) {
  unsigned flags = 0;

  if (!ngp_h3_is_strict(h3)) {
    flags |= NGP_FIELDS_AIOQUIC;
  }
  if (h3->options.spaces) {
    flags |= NGP_FIELDS_SPACES;
  }
  if (section == NGP_FIELDS_RESPONSE) {
    flags |= NGP_FIELDS_EITHER;
  }
  if (!h3->local.connect_protocol && !h3->options.webtransport) {
    flags |= NGP_FIELDS_NO_PROTOCOL;
  }
  return flags;
}

/* Nonzero if a request opens a session that will be kept. */
static int wants_session(const ngp_h3 *h3, const ngp_h3_checker *checker) {
  return h3->options.extended && !h3->options.is_client &&
         h3->options.webtransport && checker->fields.connect &&
         checker->webtransport;
}

/* A response without content may state the length that it would have, and in
   one to CONNECT content-length has no meaning (RFC 9110, 8.6). */
static uint64_t expected_length(const ngp_h3_stream *stream,
                                const ngp_fields *fields) {
  return stream->no_body || fields->status == 204 || fields->status == 304 ||
                 (stream->connect && fields->status / 100 == 2)
             ? NGP_FIELDS_NO_LENGTH
             : fields->content_length;
}

/* Applies a field section to the state of the stream. */
static int note_section(ngp_h3 *h3, ngp_h3_stream *stream,
                        const ngp_h3_checker *checker, int is_interim) {
  const ngp_fields *fields = &checker->fields;
  int rv = 0;

  if (h3->options.is_client) {
    if (is_interim) {
      stream->interim = 1;
      return 0;
    }
    if (fields->status == 204 || fields->status == 304) {
      stream->no_body = 1;
    }
    if (stream->connect && fields->status / 100 == 2) {
      stream->tunnel = 1;
    }
  } else {
    stream->send_no_body = fields->head;
    stream->connect = (uint8_t)NGP_FIELDS_IS_TUNNEL(fields);
    if (fields->priority.base && !stream->reprioritized) {
      /* A value that cannot be parsed is ignored (RFC 9218, 4). */
      ngp_h3_parse_priority(fields->priority.base, fields->priority.len,
                            &stream->urgency, &stream->incremental);
    }
  }
  stream->recv_state = NGP_H3_STATE_AFTER_HEADERS;
  if (!h3->options.extended || !ngp_h3_is_request(stream->id)) {
    return 0;
  }
  if (!h3->options.is_client) {
    if (wants_session(h3, checker)) {
      stream->session = NGP_H3_SESSION_REQUESTED;
    } else {
      rv = ngp_h3_wt_refused(h3, stream);
    }
  } else if (fields->status >= 300) {
    rv = ngp_h3_wt_refused(h3, stream);
  }
  stream->capsules = (uint8_t)(stream->session == NGP_H3_SESSION_REQUESTED ||
                               checker->capsules);
  return rv;
}

/*
 * recv_section processes the complete payload of HEADERS or PUSH_PROMISE.  It
 * returns NGP_QPACK_ERR_BLOCKED, with |stream->required| set, if it must wait.
 */
static int recv_section(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t type,
                        const uint8_t *payload, size_t len, int ended) {
  int is_promise = type == NGP_H3_FRAME_PUSH_PROMISE;
  ngp_fields_section section;
  ngp_h3_checker checker;
  ngp_h3_event *event;
  uint64_t push_id = 0;
  size_t first = h3->results.fields.len;
  size_t n = 0;
  int is_interim;
  int rv;

  if (is_promise) {
    section = NGP_FIELDS_PROMISE;
    n = ngp_get_varint(payload, len, &push_id);
    if (n == 0) {
      return ngp_h3_violate(h3, NGP_H3_V_PUSH_PROMISE_PARSE);
    }
    rv = ngp_h3_check_push_id(h3, push_id);
    if (rv != 0) {
      return rv;
    }
  } else if (stream->recv_state == NGP_H3_STATE_AFTER_TRAILERS ||
             stream->tunnel) {
    /* RFC 9114, 4.1 and 4.4 */
    return ngp_h3_violate(h3, NGP_H3_V_HEADERS_STATE);
  } else if (stream->recv_state == NGP_H3_STATE_AFTER_HEADERS) {
    section = NGP_FIELDS_TRAILERS;
  } else {
    section = !h3->options.is_client ? NGP_FIELDS_REQUEST : NGP_FIELDS_RESPONSE;
  }

  rv = ngp_qpack_decoder_decode(&h3->decoder, stream->id, payload + n, len - n,
                                h3->options.max_field_section_size,
                                h3->options.max_field_count,
                                &h3->results.fields, &stream->required);
  switch (rv) {
  case 0:
    break;
  case NGP_QPACK_ERR_DECOMPRESSION_FAILED:
    return ngp_h3_violate(h3, NGP_H3_V_DECOMPRESSION_FAILED);
  case NGP_QPACK_ERR_TOO_LARGE:
    return ngp_h3_malformed(h3, stream, NGP_H3_V_SECTION_SIZE);
  case NGP_QPACK_ERR_TOO_MANY:
    return ngp_h3_malformed(h3, stream, NGP_H3_V_FIELD_COUNT);
  default:
    return rv;
  }
  rv = ngp_h3_flush_decoder(h3);
  if (rv != 0) {
    return rv;
  }

  ngp_h3_checker_init(&checker, section, checker_flags(h3, section),
                      &h3->close.phrase);
  if (check_section(h3, &checker, first) != 0) {
    return ngp_h3_malformed_with(h3, stream, NGP_H3_MESSAGE_ERROR);
  }
  is_interim = section == NGP_FIELDS_RESPONSE && checker.fields.status < 200;
  if ((section == NGP_FIELDS_REQUEST || section == NGP_FIELDS_RESPONSE) &&
      !is_interim) {
    stream->expected = expected_length(stream, &checker.fields);
  }
  if (ended && !is_promise) {
    if (is_interim) {
      return ngp_h3_malformed(h3, stream, NGP_H3_V_INTERIM_END);
    }
    if (!is_whole(stream)) {
      return ngp_h3_malformed(h3, stream, NGP_H3_V_CONTENT_LENGTH);
    }
  }
  if (h3->limits.glitches) {
    /* A peer that greases may do so once for each message. */
    --h3->limits.glitches;
  }

  if (section == NGP_FIELDS_REQUEST && wants_session(h3, &checker) &&
      ngp_h3_wt_is_full(h3)) {
    stream->recv_state = NGP_H3_STATE_AFTER_HEADERS;
    rv = ngp_h3_wt_refused(h3, stream);
    return rv != 0 ? rv : ngp_h3_reject_request(h3, stream);
  }

  event = ngp_h3_add_event(
      h3, is_promise ? NGP_H3_EVENT_PUSH_PROMISE : NGP_H3_EVENT_HEADERS,
      stream);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->field = first;
  event->nfields = h3->results.fields.len - first;
  event->frame_len = len;
  if (is_promise) {
    event->push_id = (int64_t)push_id;
    return ended ? recv_end(h3, stream) : 0;
  }
  event->end_stream = (uint8_t)(ended != 0);

  if (section == NGP_FIELDS_TRAILERS) {
    stream->recv_state = NGP_H3_STATE_AFTER_TRAILERS;
  } else {
    rv = note_section(h3, stream, &checker, is_interim);
    if (rv != 0) {
      return rv;
    }
  }
  if (stream->session == NGP_H3_SESSION_REQUESTED &&
      stream->recv_state == NGP_H3_STATE_AFTER_HEADERS) {
    rv = ngp_h3_wt_open(h3, stream);
  }
  if (rv == 0 && ended && stream->session) {
    rv = ngp_h3_wt_close(h3, stream, 0, NULL, 0);
  }
  return rv;
}

/* Adds to the bytes that wait on |stream|. */
static int keep(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                size_t len) {
  if (len > h3->options.max_buffered - h3->waiting.bytes) {
    return ngp_h3_violate(h3, NGP_H3_V_BUFFERED);
  }
  if (ngp_buf_add(&stream->buf, data, len) != 0) {
    return NGHTTP2_ERR_NOMEM;
  }
  h3->waiting.bytes += len;
  return 0;
}

/*
 * Makes |stream| wait.  The payload of the frame is |payload|, or the contents
 * of |stream->buf| if that is NULL.
 */
static int block(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *payload,
                 size_t len) {
  int rv;

  if (h3->waiting.nblocked >= h3->options.qpack_blocked_streams) {
    /* RFC 9204, 2.1.2 */
    return ngp_h3_violate(h3, NGP_H3_V_DECOMPRESSION_FAILED);
  }
  if (h3->waiting.nblocked == h3->waiting.blocked_cap) {
    size_t cap = h3->waiting.blocked_cap ? 2 * h3->waiting.blocked_cap : 16;
    int64_t *p = ngp_realloc(h3->mem, h3->waiting.blocked, cap * sizeof(*p));

    if (!p) {
      return NGHTTP2_ERR_NOMEM;
    }
    h3->waiting.blocked = p;
    h3->waiting.blocked_cap = cap;
  }
  if (payload) {
    rv = keep(h3, stream, payload, len);
    if (rv != 0) {
      return rv;
    }
  }
  h3->waiting.blocked[h3->waiting.nblocked++] = stream->id;
  stream->blocked = 1;
  stream->blocked_len = len;
  return 0;
}

static int check_frame_type(ngp_h3 *h3, const ngp_h3_stream *stream,
                            uint64_t type) {
  int push = stream->type == NGP_H3_STREAM_PUSH;

  if (!ngp_h3_is_uni(stream->id) && !ngp_h3_is_request(stream->id) &&
      type != NGP_H3_FRAME_WEBTRANSPORT) {
    /* Only extensions open these (RFC 9114, 6.1). */
    return ngp_h3_violate(h3, NGP_H3_V_SERVER_BIDI);
  }
  switch (type) {
  case NGP_H3_FRAME_PUSH_PROMISE:
    if (push) {
      return ngp_h3_violate(h3, NGP_H3_V_PUSH_FRAME);
    }
    if (!h3->options.is_client) {
      return ngp_h3_violate(h3, NGP_H3_V_CLIENT_PUSH_PROMISE);
    }
    return 0;
  case NGP_H3_FRAME_CANCEL_PUSH:
  case NGP_H3_FRAME_SETTINGS:
  case NGP_H3_FRAME_GOAWAY:
  case NGP_H3_FRAME_MAX_PUSH_ID:
  /* The next four are frames of HTTP/2 only (RFC 9114, 7.2.8). */
  case 0x2:
  case 0x6:
  case 0x8:
  case 0x9:
    return ngp_h3_violate(h3,
                          push ? NGP_H3_V_PUSH_FRAME : NGP_H3_V_REQUEST_FRAME);
  default:
    return 0;
  }
}

int ngp_h3_takes_webtransport(const ngp_h3 *h3) {
  return !h3->options.extended || h3->options.webtransport;
}

int ngp_h3_log_stream_type(ngp_h3 *h3, const ngp_h3_stream *stream,
                           uint64_t type) {
  ngp_h3_event *event;

  if (!h3->options.log) {
    return 0;
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_LOG_STREAM_TYPE, stream);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->value = type;
  return 0;
}

/* Handles a complete frame header with |type| and |len|. */
static int begin_frame(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t type,
                       uint64_t len) {
  int rv = check_frame_type(h3, stream, type);

  if (rv != 0) {
    return rv;
  }
  stream->in_frame = 1;
  stream->frame_type = type;
  stream->frame_left = len;
  switch (type) {
  case NGP_H3_FRAME_DATA:
    if (h3->options.log) {
      ngp_h3_event *event =
          ngp_h3_add_event(h3, NGP_H3_EVENT_LOG_DATA_FRAME, stream);

      if (!event) {
        return NGHTTP2_ERR_NOMEM;
      }
      event->value = len;
    }
    return len ? 0 : ngp_h3_glitch(h3);
  case NGP_H3_FRAME_HEADERS:
  case NGP_H3_FRAME_PUSH_PROMISE:
    /* No encoder makes a section longer than its decoded form. */
    if (len > h3->options.max_field_section_size) {
      return ngp_h3_malformed(h3, stream, NGP_H3_V_SECTION_SIZE);
    }
    return 0;
  default:
    return ngp_h3_glitch(h3);
  }
}

/*
 * recv_payload processes the bytes at |*pp| that belong to the frame of
 * |stream|.  It returns 1 if the frame is still incomplete.
 */
static int recv_payload(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t **pp,
                        const uint8_t *end) {
  const uint8_t *data = *pp;
  uint64_t type = stream->frame_type;
  size_t len = (size_t)(end - data);
  int ended;
  int rv;

  if (len > stream->frame_left) {
    len = (size_t)stream->frame_left;
  }
  *pp += len;
  stream->frame_left -= len;
  stream->in_frame = stream->frame_left != 0;
  ended = stream->recv_ended && *pp == end && !stream->in_frame;

  switch (type) {
  case NGP_H3_FRAME_DATA:
    return recv_body(h3, stream, data, len, ended);
  case NGP_H3_FRAME_HEADERS:
  case NGP_H3_FRAME_PUSH_PROMISE:
    if (stream->in_frame || stream->buf.len) {
      rv = keep(h3, stream, data, len);
      if (rv != 0) {
        return rv;
      }
      if (stream->in_frame) {
        return 1;
      }
      data = NULL;
      len = stream->buf.len;
    }
    rv = recv_section(h3, stream, type, data ? data : stream->buf.base, len,
                      ended);
    if (rv == NGP_QPACK_ERR_BLOCKED) {
      return block(h3, stream, data, len);
    }
    if (!data && !is_aborted(stream)) {
      /* Otherwise it was dropped. */
      h3->waiting.bytes -= len;
      ngp_buf_clear(&stream->buf, 0);
    }
    return rv;
  default:
    return ended ? recv_end(h3, stream) : 0;
  }
}

int ngp_h3_recv_message(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                        size_t len, int end_stream) {
  const uint8_t *p = data;
  const uint8_t *end = data + len;
  uint64_t values[2];
  int rv;

  if (stream->blocked) {
    return keep(h3, stream, data, len);
  }
  if (stream->type == NGP_H3_STREAM_WEBTRANSPORT_BIDI) {
    return ngp_h3_wt_recv(h3, stream, data, len, end_stream);
  }
  if (is_aborted(stream) || stream->unwanted) {
    return 0;
  }
  if (end_stream && len == 0 && !stream->in_frame && stream->header_len == 0) {
    return recv_end(h3, stream);
  }

  while (p != end) {
    if (!stream->in_frame) {
      if (!ngp_h3_gather(stream, &p, end, 2, values)) {
        break;
      }
      if (values[0] == NGP_H3_FRAME_WEBTRANSPORT &&
          ngp_h3_takes_webtransport(h3)) {
        if (stream->type != NGP_H3_STREAM_REQUEST || stream->frames) {
          return ngp_h3_violate(h3, NGP_H3_V_WEBTRANSPORT_FRAME);
        }
        stream->type = NGP_H3_STREAM_WEBTRANSPORT_BIDI;
        stream->session_id = (int64_t)values[1];
        rv = ngp_h3_log_stream_type(h3, stream, NGP_H3_STREAM_WEBTRANSPORT);
        if (rv == 0) {
          rv = ngp_h3_wt_check_session(h3, stream);
        }
        if (rv == 0 && (p != end || end_stream)) {
          rv = ngp_h3_wt_recv(h3, stream, p, (size_t)(end - p), end_stream);
        }
        return rv;
      }
      rv = begin_frame(h3, stream, values[0], values[1]);
      if (rv != 0) {
        return rv;
      }
      ++stream->frames;
      if (is_aborted(stream)) {
        return 0;
      }
    }
    rv = recv_payload(h3, stream, &p, end);
    if (rv < 0) {
      return rv;
    }
    if (stream->blocked) {
      return keep(h3, stream, p, (size_t)(end - p));
    }
    if (is_aborted(stream)) {
      return 0;
    }
    if (rv) {
      break;
    }
  }
  if (stream->recv_ended && (stream->in_frame || stream->header_len)) {
    return ngp_h3_violate(h3, NGP_H3_V_TRUNCATED);
  }
  return 0;
}

/* Continues |stream|, whose field section is not blocked any more. */
static int resume(ngp_h3 *h3, ngp_h3_stream *stream) {
  ngp_buf held;
  size_t len = stream->blocked_len;
  int rv;

  ngp_h3_forget_blocked(h3, stream);
  rv = ngp_h3_hold(h3, &stream->buf, &held);
  if (rv != 0) {
    return rv;
  }
  h3->waiting.bytes -= held.len;
  rv = recv_section(h3, stream, stream->frame_type, held.base, len,
                    stream->recv_ended && held.len == len);
  if (rv == NGP_QPACK_ERR_BLOCKED) {
    /* This cannot happen, because the required insert count has been
       reached. */
    return ngp_h3_violate(h3, NGP_H3_V_DECOMPRESSION_FAILED);
  }
  if (rv == 0 && held.len > len) {
    rv = ngp_h3_recv_message(h3, stream, held.base + len, held.len - len,
                             stream->recv_ended);
  }
  if (rv == 0) {
    ngp_h3_remove_if_ended(h3, stream);
  }
  return rv;
}

int ngp_h3_resume_all(ngp_h3 *h3) {
  uint64_t count = ngp_qpack_decoder_insert_count(&h3->decoder);
  size_t i = 0;
  int rv;

  while (i < h3->waiting.nblocked) {
    ngp_h3_stream *stream = ngp_h3_find(h3, h3->waiting.blocked[i]);

    if (stream->required > count) {
      ++i;
      continue;
    }
    /* The stream leaves the list, and can only be added again at its end. */
    rv = resume(h3, stream);
    if (rv != 0) {
      return rv;
    }
  }
  return 0;
}
