/*
 * What header fields mean and which may be sent.  SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "ngp_h2_int.h"

/* What is refused in both directions. */
#define USERINFO ":authority must not have userinfo (RFC 9113, 8.3.1)"
#define HOST_DIFFERS "host differs from :authority (RFC 9113, 8.3.1)"
#define PROMISED_METHOD                                                        \
  "a promised request must be safe and cacheable: GET or HEAD (RFC 9113, 8.4)"
#define PROMISED_BODY "a promised request must not have a body (RFC 9113, 8.4)"
#define PROMISED_AUTHORITY "a promised request needs :authority (RFC 9113, 8.4)"

#define IS(NAME) (memcmp(name, NAME, sizeof(NAME) - 1) == 0)

ngp_token ngp_token_of(const uint8_t *name, size_t len) {
  switch (len) {
  case 2:
    return IS("te") ? NGP_TOKEN_TE : NGP_TOKEN_OTHER;
  case 4:
    return IS("host") ? NGP_TOKEN_HOST : NGP_TOKEN_OTHER;
  case 5:
    return IS(":path") ? NGP_TOKEN__PATH : NGP_TOKEN_OTHER;
  case 6:
    return IS("cookie") ? NGP_TOKEN_COOKIE : NGP_TOKEN_OTHER;
  case 7:
    if (name[0] == ':') {
      return IS(":method")   ? NGP_TOKEN__METHOD
             : IS(":status") ? NGP_TOKEN__STATUS
             : IS(":scheme") ? NGP_TOKEN__SCHEME
                             : NGP_TOKEN_OTHER;
    }
    return IS("upgrade") ? NGP_TOKEN_UPGRADE : NGP_TOKEN_OTHER;
  case 8:
    return IS("priority") ? NGP_TOKEN_PRIORITY : NGP_TOKEN_OTHER;
  case 9:
    return IS(":protocol") ? NGP_TOKEN__PROTOCOL : NGP_TOKEN_OTHER;
  case 10:
    return IS(":authority")   ? NGP_TOKEN__AUTHORITY
           : IS("connection") ? NGP_TOKEN_CONNECTION
           : IS("keep-alive") ? NGP_TOKEN_KEEP_ALIVE
                              : NGP_TOKEN_OTHER;
  case 14:
    return IS("content-length") ? NGP_TOKEN_CONTENT_LENGTH : NGP_TOKEN_OTHER;
  case 16:
    return IS("proxy-connection") ? NGP_TOKEN_PROXY_CONNECTION
                                  : NGP_TOKEN_OTHER;
  case 17:
    return IS("transfer-encoding") ? NGP_TOKEN_TRANSFER_ENCODING
                                   : NGP_TOKEN_OTHER;
  case 19:
    return IS("proxy-authorization") ? NGP_TOKEN_PROXY_AUTHORIZATION
                                     : NGP_TOKEN_OTHER;
  default:
    return NGP_TOKEN_OTHER;
  }
}

/* No name that has a token is longer. */
#define MAX_TOKEN_NAME 19

/* The characters of a token (RFC 9110, 5.6.2), a bit each. */
static int is_tchar(uint8_t c) {
  static const uint32_t tchars[8] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};

  return (int)(tchars[c >> 5] >> (c & 31) & 1);
}

/* Looks at the name; its token goes to |*ptoken|. */
static const char *check_name(const nghttp2_nv *nv, ngp_token *ptoken) {
  uint8_t name[MAX_TOKEN_NAME];
  size_t i = 0;

  if (nv->namelen == 0) {
    return "a field name must not be empty (RFC 9113, 8.2.1)";
  }
  if (nv->name[0] == ':') {
    i = 1;
  }
  for (; i < nv->namelen; ++i) {
    if (!is_tchar(nv->name[i])) {
      return "a field name holds a character that is not allowed "
             "(RFC 9113, 8.2.1)";
    }
  }
  *ptoken = NGP_TOKEN_OTHER;
  if (nv->namelen <= MAX_TOKEN_NAME) {
    for (i = 0; i < nv->namelen; ++i) {
      name[i] = ngp_lower(nv->name[i]);
    }
    *ptoken = ngp_token_of(name, nv->namelen);
  }
  return NULL;
}

/* Methods are compared exactly (RFC 9110, 9.1). */
static int method_is(const nghttp2_nv *nv, const char *text) {
  return nv->valuelen == strlen(text) &&
         memcmp(nv->value, text, nv->valuelen) == 0;
}

static int value_is(const nghttp2_nv *nv, const char *text) {
  return ngp_equal_caseless(nv->value, nv->valuelen, text, strlen(text));
}

/* Returns -1 if |nv|'s value is no length. */
static int64_t parse_length(const nghttp2_nv *nv) {
  int64_t n = 0;
  size_t i;

  if (nv->valuelen == 0 || nv->valuelen > 18) {
    return -1;
  }
  for (i = 0; i < nv->valuelen; ++i) {
    if (nv->value[i] < '0' || nv->value[i] > '9') {
      return -1;
    }
    n = n * 10 + (nv->value[i] - '0');
  }
  return n;
}

static const char *check_status(const nghttp2_nv *nv, int informational) {
  int64_t status = parse_length(nv);

  if (nv->valuelen != 3 || status < 100 || status > 999) {
    return ":status must have three digits (RFC 9110, 15)";
  }
  if (status == 101) {
    return ":status must not be 101 in HTTP/2 (RFC 9113, 8.6)";
  }
  if (informational != (status < 200)) {
    return informational ? ":status of an informational response must be 1xx"
                         : ":status of a final response must not be 1xx";
  }
  return NULL;
}

#define SEEN(TOKEN) (seen & (1U << (TOKEN)))

/* What a status means for the rest of its response; |length| is that of
   content-length, or -1. */
static const char *check_response_whole(const nghttp2_nv *status,
                                        int64_t length, uint32_t *pflags) {
  if (!status) {
    return "a response needs :status (RFC 9113, 8.3.2)";
  }
  if (status->value[0] == '2') {
    *pflags |= NGP_H2_TUNNEL;
  }
  if (value_is(status, "204") || value_is(status, "304")) {
    *pflags |= NGP_H2_NO_CONTENT;
  }
  /* Frameworks add "content-length: 0" everywhere, and peers bear it. */
  if (length > 0 && (status->value[0] == '1' || value_is(status, "204"))) {
    return "content-length must not be sent with 1xx and 204 (RFC 9110, 8.6)";
  }
  return NULL;
}

/* What a request must and must not have besides each field's own rules. */
static const char *check_request_whole(const nghttp2_nv *method,
                                       const nghttp2_nv *scheme,
                                       const nghttp2_nv *path, uint32_t seen) {
  if (!method) {
    return "a request needs :method (RFC 9113, 8.3.1)";
  }
  if (method_is(method, "CONNECT") && !SEEN(NGP_TOKEN__PROTOCOL)) {
    if (path || scheme) {
      return "CONNECT must not have :scheme or :path (RFC 9113, 8.5)";
    }
    if (!SEEN(NGP_TOKEN__AUTHORITY)) {
      return "CONNECT needs :authority (RFC 9113, 8.5)";
    }
    return NULL;
  }
  if (SEEN(NGP_TOKEN__PROTOCOL) && !method_is(method, "CONNECT")) {
    return ":protocol is for CONNECT only (RFC 8441, 4)";
  }
  if (!scheme) {
    return "a request needs :scheme (RFC 9113, 8.3.1)";
  }
  if (!path) {
    return "a request needs :path (RFC 9113, 8.3.1)";
  }
  if (value_is(scheme, "http") || value_is(scheme, "https")) {
    if (path->valuelen == 0 ||
        (path->value[0] != '/' &&
         !(value_is(path, "*") && method_is(method, "OPTIONS")))) {
      return ":path must start with '/', or be '*' for OPTIONS "
             "(RFC 9113, 8.3.1)";
    }
    if (!SEEN(NGP_TOKEN__AUTHORITY) && !SEEN(NGP_TOKEN_HOST)) {
      return "a request needs :authority or host (RFC 9113, 8.3.1)";
    }
  }
  if (SEEN(NGP_TOKEN__PROTOCOL) && !SEEN(NGP_TOKEN__AUTHORITY)) {
    return "extended CONNECT needs :authority (RFC 8441, 4)";
  }
  return NULL;
}

static int is_request(ngp_h2_message message) {
  return message == NGP_H2_MESSAGE_REQUEST || message == NGP_H2_MESSAGE_PROMISE;
}

static const char *check_regular(ngp_h2_message message, ngp_token token,
                                 const nghttp2_nv *nv) {
  switch (token) {
  case NGP_TOKEN_CONNECTION:
  case NGP_TOKEN_KEEP_ALIVE:
  case NGP_TOKEN_PROXY_CONNECTION:
  case NGP_TOKEN_TRANSFER_ENCODING:
  case NGP_TOKEN_UPGRADE:
    return "a connection-specific field must not be sent (RFC 9113, 8.2.2)";
  case NGP_TOKEN_TE:
    if (!is_request(message) || !value_is(nv, "trailers")) {
      return "te is for requests and must be 'trailers' (RFC 9113, 8.2.2)";
    }
    return NULL;
  case NGP_TOKEN_CONTENT_LENGTH:
    return parse_length(nv) < 0 ? "content-length must be a decimal number "
                                  "(RFC 9110, 8.6)"
                                : NULL;
  default:
    return NULL;
  }
}

static int holds(const uint8_t *base, size_t len, char c) {
  return len && memchr(base, c, len) != NULL;
}

static int is_scheme(const nghttp2_nv *nv) {
  size_t i;

  for (i = 0; i < nv->valuelen; ++i) {
    uint8_t c = ngp_lower(nv->value[i]);

    if (!(c >= 'a' && c <= 'z') &&
        (i == 0 ||
         !((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.'))) {
      return 0;
    }
  }
  return nv->valuelen != 0;
}

static int pseudo_allowed(ngp_h2_message message, ngp_token token) {
  switch (token) {
  case NGP_TOKEN__METHOD:
  case NGP_TOKEN__PATH:
  case NGP_TOKEN__SCHEME:
  case NGP_TOKEN__AUTHORITY:
  case NGP_TOKEN__PROTOCOL:
    return is_request(message);
  case NGP_TOKEN__STATUS:
    return message == NGP_H2_MESSAGE_RESPONSE ||
           message == NGP_H2_MESSAGE_INFORMATIONAL;
  default:
    return 0;
  }
}

static const char *check_pseudo(ngp_h2_message message, ngp_token token,
                                const nghttp2_nv *nv, uint32_t seen,
                                int regular_seen) {
  if (!pseudo_allowed(message, token)) {
    return "no such pseudo-header field in this message (RFC 9113, 8.3)";
  }
  if (regular_seen) {
    return "pseudo-header fields must come first (RFC 9113, 8.3)";
  }
  if (SEEN(token)) {
    return "a pseudo-header field must not be repeated (RFC 9113, 8.3)";
  }
  switch (token) {
  case NGP_TOKEN__STATUS:
    return check_status(nv, message == NGP_H2_MESSAGE_INFORMATIONAL);
  case NGP_TOKEN__METHOD:
    return nghttp2_check_method(nv->value, nv->valuelen)
               ? NULL
               : ":method must be a token (RFC 9110, 9.1)";
  case NGP_TOKEN__SCHEME:
    return is_scheme(nv) ? NULL
                         : ":scheme must be a URI's scheme (RFC 3986, 3.1)";
  case NGP_TOKEN__PATH:
    return nghttp2_check_path(nv->value, nv->valuelen) &&
                   !holds(nv->value, nv->valuelen, '#')
               ? NULL
               : ":path holds a character that is not allowed "
                 "(RFC 9113, 8.3.1)";
  case NGP_TOKEN__AUTHORITY:
    if (nv->valuelen == 0) {
      return ":authority must not be empty (RFC 9110, 4.2.1)";
    }
    return nghttp2_check_authority(nv->value, nv->valuelen)
               ? NULL
               : ":authority holds a character that is not allowed "
                 "(RFC 3986, 3.2)";
  default:
    return NULL;
  }
}

/*
 * section is a header section as far as it has been checked.  The fields are
 * the caller's, borrowed for the check.
 */
typedef struct section {
  ngp_h2_message message;
  const nghttp2_nv *method;
  const nghttp2_nv *scheme;
  const nghttp2_nv *path;
  const nghttp2_nv *authority;
  const nghttp2_nv *host;
  const nghttp2_nv *status;
  /* seen has a bit for each token. */
  uint32_t seen;
  int regular_seen;
  /* content_length is -1 if none is stated. */
  int64_t content_length;
} section;

/* Looks at the next field of |s|; returns the reason to refuse it, or NULL. */
static const char *check_field(section *s, nghttp2_nv *nv) {
  const uint32_t seen = s->seen;
  const char *reason;
  ngp_token token;

  reason = check_name(nv, &token);
  if (reason) {
    return reason;
  }
  if (!nghttp2_check_header_value_rfc9113(nv->value, nv->valuelen)) {
    return "a field value must not hold NUL, CR, LF or another control "
           "character, nor begin or end with white space (RFC 9113, 8.2.1)";
  }
  if (nv->name[0] == ':') {
    reason = check_pseudo(s->message, token, nv, seen, s->regular_seen);
  } else {
    s->regular_seen = 1;
    reason = check_regular(s->message, token, nv);
  }
  if (reason) {
    return reason;
  }
  switch (token) {
  case NGP_TOKEN__METHOD:
    s->method = nv;
    break;
  case NGP_TOKEN__SCHEME:
    s->scheme = nv;
    break;
  case NGP_TOKEN__PATH:
    s->path = nv;
    break;
  case NGP_TOKEN__AUTHORITY:
    s->authority = nv;
    break;
  case NGP_TOKEN_HOST:
    if (SEEN(token) && s->message != NGP_H2_MESSAGE_TRAILERS) {
      return "host must not be repeated (RFC 9110, 7.2)";
    }
    s->host = nv;
    break;
  case NGP_TOKEN__STATUS:
    s->status = nv;
    break;
  case NGP_TOKEN_CONTENT_LENGTH:
    if (SEEN(token)) {
      return "content-length must not be repeated (RFC 9110, 8.6)";
    }
    s->content_length = parse_length(nv);
    break;
  case NGP_TOKEN_PROXY_AUTHORIZATION:
    /* nghttp2 itself sees to authorization and to short cookies. */
    nv->flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    break;
  default:
    break;
  }
  s->seen |= 1U << token;
  return NULL;
}

/* Looks at whom the request |s| is for. */
static const char *check_target(const section *s) {
  const nghttp2_nv *authority = s->authority, *host = s->host;
  int tunnel = !s->scheme;

  if (tunnel && s->content_length >= 0) {
    return "CONNECT must not have content-length (RFC 9110, 9.3.6)";
  }
  if (!authority) {
    return NULL;
  }
  if ((tunnel || value_is(s->scheme, "http") || value_is(s->scheme, "https")) &&
      holds(authority->value, authority->valuelen, '@')) {
    return USERINFO;
  }
  /* Host names and schemes are compared without case (RFC 3986, 6.2.2). */
  return host && !ngp_equal_caseless(authority->value, authority->valuelen,
                                     host->value, host->valuelen)
             ? HOST_DIFFERS
             : NULL;
}

/* A pushed request is one whose answer a client could have stored. */
static const char *check_promise(const section *s) {
  if (!method_is(s->method, "GET") && !method_is(s->method, "HEAD")) {
    return PROMISED_METHOD;
  }
  if (s->content_length > 0) {
    return PROMISED_BODY;
  }
  return s->authority ? NULL : PROMISED_AUTHORITY;
}

/* Looks at |s| when all its fields have passed. */
static const char *check_whole(const section *s, uint32_t *pflags) {
  const uint32_t seen = s->seen;
  const char *reason;

  switch (s->message) {
  case NGP_H2_MESSAGE_REQUEST:
  case NGP_H2_MESSAGE_PROMISE:
    reason = check_request_whole(s->method, s->scheme, s->path, seen);
    if (!reason) {
      reason = check_target(s);
    }
    if (!reason && s->message == NGP_H2_MESSAGE_PROMISE) {
      reason = check_promise(s);
    }
    if (reason) {
      return reason;
    }
    if (method_is(s->method, "HEAD")) {
      *pflags |= NGP_H2_HEAD;
    } else if (method_is(s->method, "CONNECT")) {
      *pflags |= SEEN(NGP_TOKEN__PROTOCOL) ? NGP_H2_CONNECT | NGP_H2_EXTENDED
                                           : NGP_H2_CONNECT;
    }
    return NULL;
  case NGP_H2_MESSAGE_TRAILERS:
    return NULL;
  default:
    return check_response_whole(s->status, s->content_length, pflags);
  }
}

int ngp_h2_check_outgoing(ngp_h2_message message, nghttp2_nv *nva, size_t nvlen,
                          uint32_t *pflags, int64_t *pcontent_length,
                          ngp_h2_header_error *perror) {
  section s = {.message = message, .content_length = -1};
  const char *reason = NULL;
  size_t i;

  *pflags = 0;
  for (i = 0; i < nvlen; ++i) {
    reason = check_field(&s, &nva[i]);
    if (reason) {
      break;
    }
  }
  if (!reason) {
    reason = check_whole(&s, pflags);
  }
  if (reason) {
    perror->index = i;
    perror->reason = reason;
    return NGP_ERR_BAD_HEADERS;
  }
  *pcontent_length = s.content_length;
  return 0;
}

static int vec_is(nghttp2_vec v, const char *text) {
  return v.len == strlen(text) && memcmp(v.base, text, v.len) == 0;
}

/* The value without white space around it: there is some only if
   lenient_fields allows it. */
static nghttp2_vec value_of(const ngp_h2_field *field) {
  nghttp2_vec value = nghttp2_rcbuf_get_buf(field->value);

  while (value.len && (value.base[0] == ' ' || value.base[0] == '\t')) {
    ++value.base;
    --value.len;
  }
  while (value.len && (value.base[value.len - 1] == ' ' ||
                       value.base[value.len - 1] == '\t')) {
    --value.len;
  }
  return value;
}

const char *ngp_h2_check_request(const ngp_h2_field *fields, size_t nfields,
                                 uint32_t *pflags, int *phas_priority) {
  nghttp2_vec authority = {0}, scheme = {0}, value;
  size_t i;

  *pflags = 0;
  *phas_priority = 0;
  for (i = 0; i < nfields; ++i) {
    const ngp_h2_field *field = &fields[i];

    switch (field->token) {
    case NGP_TOKEN__METHOD:
      value = value_of(field);
      if (vec_is(value, "HEAD")) {
        *pflags |= NGP_H2_HEAD;
      } else if (vec_is(value, "CONNECT")) {
        *pflags |= NGP_H2_CONNECT;
      }
      break;
    case NGP_TOKEN__PROTOCOL:
      *pflags |= NGP_H2_EXTENDED;
      break;
    case NGP_TOKEN__SCHEME:
      scheme = value_of(field);
      break;
    case NGP_TOKEN__PATH:
      value = value_of(field);
      if (holds(value.base, value.len, '#')) {
        return ":path must not have a fragment (RFC 9113, 8.3.1)";
      }
      break;
    case NGP_TOKEN__AUTHORITY:
      authority = value_of(field);
      break;
    case NGP_TOKEN_HOST:
      value = value_of(field);
      if (authority.len && !ngp_equal_caseless(authority.base, authority.len,
                                               value.base, value.len)) {
        return HOST_DIFFERS;
      }
      break;
    case NGP_TOKEN_PRIORITY:
      *phas_priority = 1;
      break;
    default:
      break;
    }
  }
  /* CONNECT has no scheme. */
  return (!scheme.len ||
          ngp_equal_caseless(scheme.base, scheme.len, "http", 4) ||
          ngp_equal_caseless(scheme.base, scheme.len, "https", 5)) &&
                 holds(authority.base, authority.len, '@')
             ? USERINFO
             : NULL;
}

/* Nonzero if a content-length, which nghttp2 has seen to be a number, is not
   0. */
static int is_positive(nghttp2_vec v) {
  size_t i;

  for (i = 0; i < v.len; ++i) {
    if (v.base[i] != '0') {
      return 1;
    }
  }
  return 0;
}

const char *ngp_h2_check_promise(const ngp_h2_field *fields, size_t nfields) {
  uint32_t flags;
  int has_priority, has_authority = 0;
  const char *reason =
      ngp_h2_check_request(fields, nfields, &flags, &has_priority);
  size_t i;

  for (i = 0; i < nfields && !reason; ++i) {
    nghttp2_vec value = value_of(&fields[i]);

    switch (fields[i].token) {
    case NGP_TOKEN__METHOD:
      if (!vec_is(value, "GET") && !vec_is(value, "HEAD")) {
        reason = PROMISED_METHOD;
      }
      break;
    case NGP_TOKEN_CONTENT_LENGTH:
      if (is_positive(value)) {
        reason = PROMISED_BODY;
      }
      break;
    case NGP_TOKEN__AUTHORITY:
      has_authority = 1;
      break;
    default:
      break;
    }
  }
  return reason || has_authority ? reason : PROMISED_AUTHORITY;
}
