/*
 * HTTP/2's side of the rules for fields, which are in ngp_fields.c.
 * SPDX-License-Identifier: MIT
 */
#include "ngp_h2_int.h"

static const ngp_fields_section sections[] = {
    [NGP_H2_MESSAGE_REQUEST] = NGP_FIELDS_REQUEST,
    [NGP_H2_MESSAGE_RESPONSE] = NGP_FIELDS_RESPONSE,
    [NGP_H2_MESSAGE_INFORMATIONAL] = NGP_FIELDS_INFORMATIONAL,
    [NGP_H2_MESSAGE_TRAILERS] = NGP_FIELDS_TRAILERS,
    [NGP_H2_MESSAGE_PROMISE] = NGP_FIELDS_PROMISE,
};

/* The flags of a request that matter for its response. */
static uint32_t request_flags(const ngp_fields *fields) {
  if (fields->head) {
    return NGP_H2_FLAG_HEAD;
  }
  if (!fields->connect) {
    return 0;
  }
  return NGP_FIELDS_IS_TUNNEL(fields)
             ? NGP_H2_FLAG_CONNECT
             : NGP_H2_FLAG_CONNECT | NGP_H2_FLAG_EXTENDED;
}

/* The flags that a status implies for the rest of its response. */
static uint32_t response_flags(const ngp_fields *fields) {
  uint32_t flags = 0;

  if (fields->status / 100 == 2) {
    flags |= NGP_H2_FLAG_TUNNEL;
  }
  if (fields->status == 204 || fields->status == 304) {
    flags |= NGP_H2_FLAG_NO_CONTENT;
  }
  return flags;
}

static ngp_field_rule check_field(ngp_fields *fields, nghttp2_nv *nv) {
  ngp_token token;
  ngp_field_rule rule =
      ngp_fields_name(nv->name, nv->namelen, fields->flags, &token);

  if (rule == NGP_FIELD_GOOD) {
    rule = ngp_fields_value(nv->value, nv->valuelen, fields->flags);
  }
  if (rule != NGP_FIELD_GOOD) {
    return rule;
  }
  if (token == NGP_TOKEN_PROXY_AUTHORIZATION) {
    /* nghttp2 never indexes authorization and short cookies itself. */
    nv->flags |= NGHTTP2_NV_FLAG_NO_INDEX;
  }
  return ngp_fields_add(fields, token, nv->name[0] == ':', nv->value,
                        nv->valuelen);
}

int ngp_h2_check_outgoing(ngp_h2_message message, nghttp2_nv *nva, size_t nvlen,
                          uint32_t *pflags, int64_t *pcontent_length,
                          ngp_h2_header_error *perror) {
  ngp_field_rule rule = NGP_FIELD_GOOD;
  ngp_fields fields;
  size_t i;

  *pflags = 0;
  ngp_fields_init(&fields, sections[message],
                  NGP_FIELDS_OUTGOING | NGP_FIELDS_UPPER);
  for (i = 0; i < nvlen; ++i) {
    rule = check_field(&fields, &nva[i]);
    if (rule != NGP_FIELD_GOOD) {
      break;
    }
  }
  if (rule == NGP_FIELD_GOOD) {
    rule = ngp_fields_end(&fields);
  }
  if (rule != NGP_FIELD_GOOD) {
    perror->index = i;
    perror->reason = ngp_field_rule_text(rule, 0);
    return NGP_ERR_BAD_HEADERS;
  }
  switch (message) {
  case NGP_H2_MESSAGE_REQUEST:
  case NGP_H2_MESSAGE_PROMISE:
    *pflags = request_flags(&fields);
    break;
  case NGP_H2_MESSAGE_TRAILERS:
    break;
  default:
    *pflags = response_flags(&fields);
  }
  *pcontent_length = fields.content_length == NGP_FIELDS_NO_LENGTH
                         ? -1
                         : (int64_t)fields.content_length;
  return 0;
}

/* Checks a received section; nghttp2 has checked its characters and its
   order. */
static ngp_field_rule check_received(ngp_fields *fields,
                                     const ngp_h2_field *list, size_t n) {
  ngp_field_rule rule;
  size_t i;

  for (i = 0; i < n; ++i) {
    nghttp2_vec value;

    if (list[i].token == NGP_TOKEN_OTHER) {
      continue;
    }
    value = nghttp2_rcbuf_get_buf(list[i].value);
    rule = ngp_fields_add(fields, (ngp_token)list[i].token,
                          list[i].token <= NGP_TOKEN__STATUS, value.base,
                          value.len);
    if (rule != NGP_FIELD_GOOD) {
      return rule;
    }
  }
  return ngp_fields_end(fields);
}

static const char *reason_of(ngp_field_rule rule) {
  return rule == NGP_FIELD_GOOD ? NULL : ngp_field_rule_text(rule, 0);
}

const char *ngp_h2_check_request(const ngp_h2_field *list, size_t n,
                                 uint32_t *pflags, int *phas_priority) {
  ngp_field_rule rule;
  ngp_fields fields;

  /* nghttp2 refuses a :protocol that we have not announced. */
  ngp_fields_init(&fields, NGP_FIELDS_REQUEST, NGP_FIELDS_SPACES);
  rule = check_received(&fields, list, n);
  *pflags = request_flags(&fields);
  *phas_priority = (int)NGP_FIELDS_SEEN(&fields, NGP_TOKEN_PRIORITY);
  return reason_of(rule);
}

const char *ngp_h2_check_other(ngp_h2_message message, const ngp_h2_field *list,
                               size_t n) {
  ngp_fields fields;

  ngp_fields_init(&fields, sections[message], NGP_FIELDS_SPACES);
  return reason_of(check_received(&fields, list, n));
}

const char *ngp_h2_check_promise(const ngp_h2_field *list, size_t n) {
  ngp_fields fields;

  ngp_fields_init(&fields, NGP_FIELDS_PROMISE, NGP_FIELDS_SPACES);
  return reason_of(check_received(&fields, list, n));
}
