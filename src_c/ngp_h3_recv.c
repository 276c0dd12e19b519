/* SPDX-License-Identifier: MIT */
#include "ngp_h3_int.h"

/* ---- Unidirectional streams ---- */

/* Registers a critical stream of the peer. */
static int claim(ngp_h3 *h3, int64_t *pwhere, int64_t stream_id,
                 ngp_h3_violation second) {
  if (*pwhere != NGP_H3_NO_ID) {
    return ngp_h3_violate(h3, second);
  }
  *pwhere = stream_id;
  return 0;
}

static int begin_uni(ngp_h3 *h3, ngp_h3_stream *stream, uint64_t type) {
  int rv = 0;

  stream->type = type;
  switch (type) {
  case NGP_H3_STREAM_CONTROL:
    rv = claim(h3, &h3->peer.control, stream->id, NGP_H3_V_SECOND_CONTROL);
    break;
  case NGP_H3_STREAM_QPACK_ENCODER:
    rv =
        claim(h3, &h3->peer.qpack_encoder, stream->id, NGP_H3_V_SECOND_ENCODER);
    break;
  case NGP_H3_STREAM_QPACK_DECODER:
    rv =
        claim(h3, &h3->peer.qpack_decoder, stream->id, NGP_H3_V_SECOND_DECODER);
    break;
  case NGP_H3_STREAM_PUSH:
    /* A push stream is logged when its push identifier is known. */
    return !h3->options.is_client
               ? ngp_h3_violate(h3, NGP_H3_V_CLIENT_PUSH_STREAM)
               : 0;
  case NGP_H3_STREAM_WEBTRANSPORT:
    break;
  default:
    rv = ngp_h3_glitch(h3);
  }
  return rv != 0 ? rv : ngp_h3_log_stream_type(h3, stream, type);
}

static int recv_push(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                     size_t len, int end_stream) {
  const uint8_t *p = data;
  const uint8_t *end = data + len;
  uint64_t push_id;
  int rv;

  if (stream->push_id == NGP_H3_NO_ID) {
    if (!ngp_h3_gather(stream, &p, end, 1, &push_id)) {
      return 0;
    }
    rv = ngp_h3_check_push_id(h3, push_id);
    if (rv != 0) {
      return rv;
    }
    /* A server opens its push streams in any order, whatever their identifiers
       are: an old one need not have been used (RFC 9114, 4.6). */
    if (ngp_h3_window_knows(&h3->push.seen, push_id)) {
      return ngp_h3_violate(h3, NGP_H3_V_PUSH_TWICE);
    }
    ngp_h3_window_add(&h3->push.seen, push_id);
    stream->push_id = (int64_t)push_id;
    rv = ngp_h3_log_stream_type(h3, stream, NGP_H3_STREAM_PUSH);
    if (rv != 0) {
      return rv;
    }
    if (p == end && !end_stream) {
      return 0;
    }
  }
  return ngp_h3_recv_message(h3, stream, p, (size_t)(end - p), end_stream);
}

static int recv_wt_uni(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                       size_t len, int end_stream) {
  const uint8_t *p = data;
  const uint8_t *end = data + len;
  uint64_t session_id;
  int rv;

  if (stream->session_id == NGP_H3_NO_ID) {
    if (!ngp_h3_gather(stream, &p, end, 1, &session_id)) {
      return 0;
    }
    stream->session_id = (int64_t)session_id;
    rv = ngp_h3_wt_check_session(h3, stream);
    if (rv != 0) {
      return rv;
    }
  }
  if (p == end && !end_stream) {
    return 0;
  }
  return ngp_h3_wt_recv(h3, stream, p, (size_t)(end - p), end_stream);
}

static int recv_control(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                        size_t len) {
  const uint8_t *p = data;
  const uint8_t *end = data + len;
  uint64_t values[2];
  size_t n;
  int rv;

  while (p != end) {
    if (!stream->in_frame) {
      if (!ngp_h3_gather(stream, &p, end, 2, values)) {
        return 0;
      }
      rv = ngp_h3_check_control_frame(h3, values[0], values[1]);
      if (rv != 0) {
        return rv;
      }
      ++stream->frames;
      stream->in_frame = 1;
      stream->frame_type = values[0];
      stream->frame_left = values[1];
      stream->skip = !ngp_h3_is_control_frame(h3, values[0], values[1]);
    }
    n = (size_t)(end - p);
    if (n > stream->frame_left) {
      n = (size_t)stream->frame_left;
    }
    stream->frame_left -= n;
    stream->in_frame = stream->frame_left != 0;
    if (stream->skip) {
      p += n;
      continue;
    }
    if (stream->in_frame || stream->buf.len) {
      if (ngp_buf_add(&stream->buf, p, n) != 0) {
        return NGHTTP2_ERR_NOMEM;
      }
    }
    if (stream->in_frame) {
      return 0;
    }
    if (stream->buf.len) {
      ngp_buf held;

      /* An event may point into the payload. */
      rv = ngp_h3_hold(h3, &stream->buf, &held);
      if (rv == 0) {
        rv = ngp_h3_recv_control_frame(h3, stream->frame_type, held.base,
                                       held.len);
      }
    } else {
      rv = ngp_h3_recv_control_frame(h3, stream->frame_type, p, n);
    }
    if (rv != 0) {
      return rv;
    }
    p += n;
  }
  return 0;
}

static int recv_uni(ngp_h3 *h3, ngp_h3_stream *stream, const uint8_t *data,
                    size_t len, int end_stream) {
  const uint8_t *p = data;
  const uint8_t *end = data + len;
  uint64_t type;
  int rv;

  if (stream->type == NGP_H3_STREAM_NO_TYPE) {
    if (!ngp_h3_gather(stream, &p, end, 1, &type)) {
      /* A stream may end before its type is complete (RFC 9114, 6.2). */
      return end_stream ? ngp_h3_glitch(h3) : 0;
    }
    rv = begin_uni(h3, stream, type);
    if (rv != 0) {
      return rv;
    }
  }
  len = (size_t)(end - p);
  switch (stream->type) {
  case NGP_H3_STREAM_CONTROL:
    if (end_stream) {
      return ngp_h3_violate(h3, NGP_H3_V_CONTROL_CLOSED);
    }
    return recv_control(h3, stream, p, len);
  case NGP_H3_STREAM_PUSH:
    return recv_push(h3, stream, p, len, end_stream);
  case NGP_H3_STREAM_WEBTRANSPORT:
    return ngp_h3_takes_webtransport(h3)
               ? recv_wt_uni(h3, stream, p, len, end_stream)
               : 0;
  case NGP_H3_STREAM_QPACK_ENCODER:
    h3->qpack_bytes.encoder_received += len;
    rv = ngp_qpack_decoder_read_encoder(&h3->decoder, p, len);
    if (rv == NGP_QPACK_ERR_ENCODER_STREAM) {
      return ngp_h3_violate(h3, NGP_H3_V_ENCODER_STREAM);
    }
    if (rv == 0 && end_stream) {
      return ngp_h3_violate(h3, NGP_H3_V_ENCODER_CLOSED);
    }
    if (rv == 0) {
      rv = ngp_h3_resume_all(h3);
    }
    /* The encoder may use new entries after our Insert Count Increment. */
    return rv != 0 ? rv : ngp_h3_flush_decoder(h3);
  case NGP_H3_STREAM_QPACK_DECODER:
    h3->qpack_bytes.decoder_received += len;
    rv = ngp_qpack_encoder_read_decoder(&h3->encoder, p, len);
    if (rv == NGP_QPACK_ERR_DECODER_STREAM) {
      return ngp_h3_violate(h3, NGP_H3_V_DECODER_STREAM);
    }
    if (rv == 0 && end_stream) {
      return ngp_h3_violate(h3, NGP_H3_V_DECODER_CLOSED);
    }
    return rv;
  default:
    /* Unknown types are dropped (RFC 9114, 9). */
    return 0;
  }
}

/* ---- What the QUIC connection received ---- */

/* Makes the record of a stream that the peer has just opened, or that only the
   QUIC connection knew. */
static int new_stream(ngp_h3 *h3, int64_t stream_id, ngp_h3_stream **pstream) {
  int is_uni = ngp_h3_is_uni(stream_id);
  ngp_h3_stream *stream = ngp_h3_add_stream(
      h3, stream_id, is_uni ? NGP_H3_STREAM_NO_TYPE : NGP_H3_STREAM_REQUEST);
  int rv;

  if (!stream) {
    return NGHTTP2_ERR_NOMEM;
  }
  *pstream = stream;
  if (is_uni) {
    stream->recv_ended = (uint8_t)ngp_h3_is_local(h3, stream_id);
    stream->send_ended = !stream->recv_ended;
    return 0;
  }
  if (h3->options.is_client || !ngp_h3_is_request(stream_id)) {
    return 0;
  }
  ngp_h3_window_add(&h3->requests, (uint64_t)stream_id / 4);
  if ((uint64_t)stream_id >= h3->goaway.sent) {
    /* Our GOAWAY has excluded the request (RFC 9114, 5.2). */
    rv = ngp_h3_reject_request(h3, stream);
    return rv != 0 ? rv : ngp_h3_cancel_section(h3, stream_id);
  }
  return 0;
}

int ngp_h3_recv_stream(ngp_h3 *h3, int64_t stream_id, const uint8_t *data,
                       size_t len, int end_stream) {
  ngp_h3_stream *stream;
  int rv;

  ngp_h3_begin(h3);
  if (h3->close.closed) {
    return 0;
  }
  stream = ngp_h3_find(h3, stream_id);
  if (!stream) {
    rv = new_stream(h3, stream_id, &stream);
    if (rv != 0) {
      return rv;
    }
  } else if (ngp_h3_is_uni(stream_id) && ngp_h3_is_local(h3, stream_id)) {
    /* QUIC does not let the peer send on this stream. */
    return 0;
  }
  if (end_stream) {
    stream->recv_ended = 1;
  }
  rv = ngp_h3_is_uni(stream_id)
           ? recv_uni(h3, stream, data, len, end_stream)
           : ngp_h3_recv_message(h3, stream, data, len, end_stream);
  if (rv == 0) {
    ngp_h3_remove_if_ended(h3, stream);
  }
  return rv;
}

/* Records a reset or a STOP_SENDING, if options.extended is set and the
   application knows the stream. */
static int add_abort(ngp_h3 *h3, ngp_h3_event_type type,
                     const ngp_h3_stream *stream, int64_t stream_id,
                     uint64_t error_code) {
  ngp_h3_event *event;

  if (!h3->options.extended ||
      (stream && (stream->type == NGP_H3_STREAM_IGNORED ||
                  (type == NGP_H3_EVENT_STREAM_RESET && stream->unwanted)))) {
    return 0;
  }
  event = ngp_h3_add_event(h3, type, stream);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->stream_id = stream_id;
  event->value = error_code;
  return 0;
}

/* Whether |stream| is a request whose response has neither ended nor reached
   its body: the work for it was wasted. */
static int is_cut_short(const ngp_h3_stream *stream) {
  return stream && stream->type == NGP_H3_STREAM_REQUEST &&
         !stream->send_ended && stream->send_length == 0;
}

int ngp_h3_recv_reset(ngp_h3 *h3, int64_t stream_id, uint64_t error_code) {
  ngp_h3_stream *stream;
  int unseen;
  int rv;

  ngp_h3_begin(h3);
  if (h3->close.closed) {
    return 0;
  }
  if (stream_id == h3->peer.control || stream_id == h3->peer.qpack_encoder ||
      stream_id == h3->peer.qpack_decoder) {
    return ngp_h3_violate(h3, NGP_H3_V_CRITICAL_RESET);
  }
  stream = ngp_h3_find(h3, stream_id);
  if (!ngp_h3_is_uni(stream_id) ||
      (stream && stream->type == NGP_H3_STREAM_PUSH)) {
    /* The stream's field sections will not be decoded (RFC 9204, 2.2.2.2). */
    rv = ngp_h3_cancel_section(h3, stream_id);
    if (rv != 0) {
      return rv;
    }
  }
  unseen = !h3->options.is_client && ngp_h3_is_request(stream_id) &&
           (!stream || (stream->recv_state == NGP_H3_STATE_INITIAL &&
                        stream->type == NGP_H3_STREAM_REQUEST));
  if (unseen) {
    rv = ngp_h3_add_op(h3, NGP_H3_OP_RESET, stream_id,
                       NGP_H3_REQUEST_INCOMPLETE, 0);
  } else {
    rv =
        add_abort(h3, NGP_H3_EVENT_STREAM_RESET, stream, stream_id, error_code);
  }
  if (rv == 0 && (unseen || is_cut_short(stream)) &&
      !(stream && stream->unwanted)) {
    rv = ngp_h3_count_reset(h3, stream);
  }
  if (rv == 0 && ngp_h3_is_uni(stream_id) &&
      (!stream || stream->type == NGP_H3_STREAM_NO_TYPE)) {
    rv = ngp_h3_glitch(h3);
  }
  if (rv != 0 || !stream) {
    return rv;
  }
  if (unseen) {
    stream->send_ended = 1;
  }
  ngp_h3_drop_buffer(h3, stream);
  stream->recv_ended = 1;
  if (stream->type == NGP_H3_STREAM_REQUEST) {
    rv = ngp_h3_wt_close(h3, stream, 0, NULL, 0);
    if (rv != 0) {
      return rv;
    }
  }
  ngp_h3_remove_if_ended(h3, stream);
  return 0;
}

int ngp_h3_recv_stop_sending(ngp_h3 *h3, int64_t stream_id,
                             uint64_t error_code) {
  ngp_h3_stream *stream;
  int rv;

  ngp_h3_begin(h3);
  if (h3->close.closed) {
    return 0;
  }
  if (stream_id == h3->local.control || stream_id == h3->local.qpack_encoder ||
      stream_id == h3->local.qpack_decoder) {
    return ngp_h3_violate(h3, NGP_H3_V_CRITICAL_STOPPED);
  }
  stream = ngp_h3_find(h3, stream_id);
  rv = add_abort(h3, NGP_H3_EVENT_STOP_SENDING, stream, stream_id, error_code);
  if (rv == 0 && is_cut_short(stream)) {
    rv = ngp_h3_count_reset(h3, stream);
  }
  if (rv == 0 && stream) {
    /* The QUIC connection has reset our side. */
    stream->send_ended = 1;
    ngp_h3_remove_if_ended(h3, stream);
  }
  return rv;
}

int ngp_h3_recv_datagram(ngp_h3 *h3, const uint8_t *data, size_t len) {
  ngp_h3_event *event;
  uint64_t quarter;
  size_t n;
  int held;
  int rv;

  ngp_h3_begin(h3);
  if (h3->close.closed) {
    return 0;
  }
  n = ngp_get_varint(data, len, &quarter);
  if (n == 0) {
    return ngp_h3_violate(h3, NGP_H3_V_DATAGRAM_PARSE);
  }
  if (quarter > NGP_MAX_VARINT / 4) {
    return ngp_h3_violate(h3, NGP_H3_V_DATAGRAM_ID);
  }
  if (h3->options.extended) {
    rv = ngp_h3_wt_hold_datagram(h3, (int64_t)(4 * quarter), data + n, len - n,
                                 &held);
    if (rv != 0 || held) {
      return rv;
    }
  }
  event = ngp_h3_add_event(h3, NGP_H3_EVENT_DATAGRAM, NULL);
  if (!event) {
    return NGHTTP2_ERR_NOMEM;
  }
  event->stream_id = (int64_t)(4 * quarter);
  event->data = data + n;
  event->len = len - n;
  return 0;
}
