/* SPDX-License-Identifier: MIT */
#include "ngp_fields.h"

#include "ngp.h"

#include <string.h>

const char *ngp_field_rule_text(ngp_field_rule rule, int http3) {
  static const char *const texts[][2] = {
#define X(NAME, TEXT, H2, H3)                                                  \
  [NGP_FIELD_##NAME] = {TEXT " (RFC " H2 ")", TEXT " (RFC " H3 ")"},
      NGP_FIELD_RULES(X)
#undef X
  };

  return texts[rule][http3 != 0];
}

/* ---- Characters ---- */

/* What a character may be part of: each class is a bit. */
#define TOKEN 0x01u    /* RFC 9110, 5.6.2 */
#define REG_NAME 0x02u /* RFC 3986, 3.2.2, without percent-encoding */
#define HEX 0x04u
#define DIGIT 0x08u
#define SCHEME 0x10u /* RFC 3986, 3.1, but for the first */
#define UPPER 0x20u

static const uint8_t classes[256] = {
    ['!'] = TOKEN | REG_NAME,
    ['#'] = TOKEN,
    ['$'] = TOKEN | REG_NAME,
    ['%'] = TOKEN,
    ['&'] = TOKEN | REG_NAME,
    ['\''] = TOKEN | REG_NAME,
    ['('] = REG_NAME,
    [')'] = REG_NAME,
    ['*'] = TOKEN | REG_NAME,
    ['+'] = TOKEN | REG_NAME | SCHEME,
    [','] = REG_NAME,
    ['-'] = TOKEN | REG_NAME | SCHEME,
    ['.'] = TOKEN | REG_NAME | SCHEME,
    [';'] = REG_NAME,
    ['='] = REG_NAME,
    ['^'] = TOKEN,
    ['_'] = TOKEN | REG_NAME,
    ['`'] = TOKEN,
    ['|'] = TOKEN,
    ['~'] = TOKEN | REG_NAME,
#define D(C) [C] = TOKEN | REG_NAME | SCHEME | HEX | DIGIT
    D('0'),
    D('1'),
    D('2'),
    D('3'),
    D('4'),
    D('5'),
    D('6'),
    D('7'),
    D('8'),
    D('9'),
#undef D
#define L(LOWER, CAPITAL, MORE)                                                \
  [LOWER] = TOKEN | REG_NAME | SCHEME | (MORE), [CAPITAL] = TOKEN | REG_NAME | \
                                                            SCHEME | UPPER |   \
                                                            (MORE)
    L('a', 'A', HEX),
    L('b', 'B', HEX),
    L('c', 'C', HEX),
    L('d', 'D', HEX),
    L('e', 'E', HEX),
    L('f', 'F', HEX),
    L('g', 'G', 0),
    L('h', 'H', 0),
    L('i', 'I', 0),
    L('j', 'J', 0),
    L('k', 'K', 0),
    L('l', 'L', 0),
    L('m', 'M', 0),
    L('n', 'N', 0),
    L('o', 'O', 0),
    L('p', 'P', 0),
    L('q', 'Q', 0),
    L('r', 'R', 0),
    L('s', 'S', 0),
    L('t', 'T', 0),
    L('u', 'U', 0),
    L('v', 'V', 0),
    L('w', 'W', 0),
    L('x', 'X', 0),
    L('y', 'Y', 0),
    L('z', 'Z', 0),
#undef L
};

/* Nonzero if all of |len| bytes are of |class|; there may be none. */
static int all_of(const uint8_t *p, size_t len, uint8_t class) {
  size_t i;

  for (i = 0; i < len; ++i) {
    if (!(classes[p[i]] & class)) {
      return 0;
    }
  }
  return 1;
}

#define EACH 0x0101010101010101ull
#define TOPS 0x8080808080808080ull

/* Nonzero if one of the eight bytes of |x| is below |low|, at most 0x80, or is
   DEL or |extra|. */
static inline uint64_t odd(uint64_t x, uint8_t low, uint8_t extra) {
  uint64_t del = x ^ EACH * 0x7f, other = x ^ EACH * extra;

  return (((x - EACH * low) & ~x) | ((del - EACH) & ~del) |
          ((other - EACH) & ~other)) &
         TOPS;
}

/* Returns eight bytes: the last of those at |p|, or all |len| of them, at least
   one, with some twice or with letters beside them. */
static inline uint64_t last_eight(const uint8_t *p, size_t len) {
  uint64_t x;
  uint32_t a, b;

  if (len >= 8) {
    memcpy(&x, p + len - 8, 8);
    return x;
  }
  if (len >= 4) {
    memcpy(&a, p, 4);
    memcpy(&b, p + len - 4, 4);
    return (uint64_t)a << 32 | b;
  }
  return EACH * 'a' << 24 | (uint64_t)p[0] << 16 | (uint64_t)p[len / 2] << 8 |
         p[len - 1];
}

/* Whether one of |len| bytes is below |low|, or is DEL or |extra|.  It checks
   eight at a time, because values are most of the bytes of a message. */
static inline int any_odd(const uint8_t *p, size_t len, uint8_t low,
                          uint8_t extra) {
  uint64_t x;
  size_t i;

  if (!len) {
    return 0;
  }
  for (i = 0; i + 8 < len; i += 8) {
    memcpy(&x, p + i, 8);
    if (odd(x, low, extra)) {
      return 1;
    }
  }
  return odd(last_eight(p, len), low, extra) != 0;
}

/* Nonzero if one of the eight bytes of |x| is neither a lower case letter nor a
   hyphen. */
static inline uint64_t uncommon(uint64_t x) {
  uint64_t low = x & ~TOPS;
  uint64_t from_a = low + EACH * (0x80 - 'a');
  uint64_t beyond_z = low + EACH * (0x7f - 'z');
  uint64_t no_hyphen = (low ^ EACH * '-') + EACH * 0x7f;

  return (x | (no_hyphen & (~from_a | beyond_z))) & TOPS;
}

/* Whether |len| bytes, at least one, are lower case letters and hyphens, as
   those of most names are. */
static inline int is_common_name(const uint8_t *p, size_t len) {
  uint64_t x;
  size_t i;

  for (i = 0; i + 8 < len; i += 8) {
    memcpy(&x, p + i, 8);
    if (uncommon(x)) {
      return 0;
    }
  }
  return !uncommon(last_eight(p, len));
}

/* ---- Names and values ---- */

/* No name that has a token is longer. */
#define MAX_TOKEN_NAME 19

ngp_token ngp_token_of(const uint8_t *name, size_t len) {
#define IS(NAME) (memcmp(name, NAME, sizeof(NAME) - 1) == 0)
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
    return IS("upgrade")   ? NGP_TOKEN_UPGRADE
           : IS("trailer") ? NGP_TOKEN_HEADER_ONLY
                           : NGP_TOKEN_OTHER;
  case 8:
    return IS("priority") ? NGP_TOKEN_PRIORITY : NGP_TOKEN_OTHER;
  case 9:
    return IS(":protocol") ? NGP_TOKEN__PROTOCOL : NGP_TOKEN_OTHER;
  case 10:
    return IS(":authority")   ? NGP_TOKEN__AUTHORITY
           : IS("connection") ? NGP_TOKEN_CONNECTION
           : IS("keep-alive") ? NGP_TOKEN_KEEP_ALIVE
           : IS("set-cookie") ? NGP_TOKEN_HEADER_ONLY
                              : NGP_TOKEN_OTHER;
  case 12:
    return IS("content-type") ? NGP_TOKEN_HEADER_ONLY : NGP_TOKEN_OTHER;
  case 13:
    return IS("authorization") || IS("content-range") ? NGP_TOKEN_HEADER_ONLY
                                                      : NGP_TOKEN_OTHER;
  case 14:
    return IS("content-length") ? NGP_TOKEN_CONTENT_LENGTH : NGP_TOKEN_OTHER;
  case 16:
    return IS("capsule-protocol")   ? NGP_TOKEN_CAPSULE_PROTOCOL
           : IS("proxy-connection") ? NGP_TOKEN_PROXY_CONNECTION
           : IS("content-encoding") ? NGP_TOKEN_HEADER_ONLY
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
#undef IS
}

ngp_field_rule ngp_fields_name(const uint8_t *name, size_t len, unsigned flags,
                               ngp_token *ptoken) {
  uint8_t lower[MAX_TOKEN_NAME];
  size_t i;

  if (len == 0) {
    return NGP_FIELD_NAME_EMPTY;
  }
  i = name[0] == ':';
  if (i < len && is_common_name(name + i, len - i)) {
    *ptoken = ngp_token_of(name, len);
    return NGP_FIELD_GOOD;
  }
  for (; i < len; ++i) {
    uint8_t class = classes[name[i]];

    if (!(class & TOKEN) || (class & UPPER && !(flags & NGP_FIELDS_UPPER))) {
      return name[i] == ':' ? NGP_FIELD_NAME_COLON : NGP_FIELD_NAME_CHARS;
    }
  }
  if (len > MAX_TOKEN_NAME) {
    *ptoken = NGP_TOKEN_OTHER;
    return NGP_FIELD_GOOD;
  }
  if (flags & NGP_FIELDS_UPPER) {
    for (i = 0; i < len; ++i) {
      lower[i] = ngp_lower(name[i]);
    }
    name = lower;
  }
  *ptoken = ngp_token_of(name, len);
  return NGP_FIELD_GOOD;
}

static int is_space(uint8_t c) { return c == ' ' || c == '\t'; }

ngp_field_rule ngp_fields_value(const uint8_t *value, size_t len,
                                unsigned flags) {
  size_t i;

  if (len == 0) {
    return NGP_FIELD_GOOD;
  }
  if (any_odd(value, len, 0x20, 0x7f)) {
    for (i = 0; i < len; ++i) {
      if ((value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f) {
        return NGP_FIELD_VALUE_CHARS;
      }
    }
  }
  if (flags & NGP_FIELDS_SPACES) {
    return NGP_FIELD_GOOD;
  }
  return is_space(value[0])         ? NGP_FIELD_VALUE_START
         : is_space(value[len - 1]) ? NGP_FIELD_VALUE_END
                                    : NGP_FIELD_GOOD;
}

static int span_is(ngp_span span, const char *text, size_t len) {
  return span.len == len && memcmp(span.base, text, len) == 0;
}

/* Methods are compared exactly (RFC 9110, 9.1). */
#define IS(SPAN, TEXT) span_is((SPAN), (TEXT), sizeof(TEXT) - 1)

static int is_caseless(ngp_span span, const char *text) {
  return ngp_equal_caseless(span.base, span.len, text, strlen(text));
}

/* ---- Hosts and authorities ---- */

/* What may be wrong with an authority or host, in the order of the rules. */
typedef enum fault { GOOD, EMPTY, CHARS, USERINFO, PORT, ZONE } fault;

static ngp_field_rule rule_of(fault f, int is_host) {
  static const ngp_field_rule rules[][2] = {
      [GOOD] = {NGP_FIELD_GOOD, NGP_FIELD_GOOD},
      [EMPTY] = {NGP_FIELD_AUTHORITY_EMPTY, NGP_FIELD_HOST_EMPTY},
      [CHARS] = {NGP_FIELD_AUTHORITY_CHARS, NGP_FIELD_HOST_CHARS},
      [USERINFO] = {NGP_FIELD_AUTHORITY_USERINFO, NGP_FIELD_HOST_USERINFO},
      [PORT] = {NGP_FIELD_AUTHORITY_PORT, NGP_FIELD_HOST_PORT},
      [ZONE] = {NGP_FIELD_AUTHORITY_ZONE, NGP_FIELD_HOST_ZONE},
  };

  return rules[f][is_host];
}

/* Whether |len| bytes are a registered name or an IPv4 address. */
static int is_reg_name(const uint8_t *p, size_t len) {
  size_t i;

  for (i = 0; i < len; ++i) {
    if (classes[p[i]] & REG_NAME) {
      continue;
    }
    if (p[i] != '%' || len - i < 3 || !all_of(p + i + 1, 2, HEX)) {
      return 0;
    }
    i += 2;
  }
  return 1;
}

/* Whether |len| bytes are the contents of the brackets of an IP literal. */
static fault check_literal(const uint8_t *p, size_t len) {
  size_t i;

  if (len && ngp_lower(p[0]) == 'v') {
    /* IPvFuture (RFC 3986, 3.2.2). */
    for (i = 1; i < len; ++i) {
      if (!(classes[p[i]] & REG_NAME) && p[i] != ':') {
        return CHARS;
      }
    }
    return len > 3 ? GOOD : CHARS;
  }
  for (i = 0; i < len; ++i) {
    if (!(classes[p[i]] & HEX) && p[i] != ':' && p[i] != '.') {
      /* A zone has a meaning on one host only. */
      return p[i] == '%' ? ZONE : CHARS;
    }
  }
  return len > 1 ? GOOD : CHARS;
}

/* An authority in its parts. */
typedef struct authority {
  ngp_span host;
  ngp_span port; /* empty if there is none */
  int colon;     /* a port may be empty, too */
} authority;

/*
 * Splits |span|. |web| is nonzero for an authority of http, https or CONNECT,
 * which has a host and no userinfo.
 */
static fault split(ngp_span span, int web, authority *parts) {
  const uint8_t *p = span.base, *end = p + span.len, *q;
  fault f;

  *parts = (authority){.colon = 0};
  if (span.len == 0) {
    return EMPTY;
  }
  q = memchr(p, '@', span.len);
  if (q) {
    if (web) {
      return USERINFO;
    }
    p = q + 1;
  }
  if (p != end && *p == '[') {
    q = memchr(p, ']', (size_t)(end - p));
    if (!q) {
      return CHARS;
    }
    f = check_literal(p + 1, (size_t)(q - p - 1));
    if (f != GOOD) {
      return f;
    }
    ++q;
  } else {
    q = p == end ? NULL : memchr(p, ':', (size_t)(end - p));
    if (!q) {
      q = end;
    }
    if (!is_reg_name(p, (size_t)(q - p))) {
      return CHARS;
    }
  }
  parts->host = (ngp_span){p, (size_t)(q - p)};
  if (q != end) {
    if (*q != ':') {
      return CHARS;
    }
    parts->colon = 1;
    parts->port = (ngp_span){q + 1, (size_t)(end - q - 1)};
    if (!all_of(parts->port.base, parts->port.len, DIGIT)) {
      return PORT;
    }
  }
  return web && parts->host.len == 0 ? EMPTY : GOOD;
}

/* Returns the number of |port|; |otherwise| if it is empty. */
static uint32_t port_number(ngp_span port, uint32_t otherwise) {
  uint32_t n = 0;
  size_t i;

  if (port.len == 0) {
    return otherwise;
  }
  for (i = 0; i < port.len && n <= 65535; ++i) {
    n = 10 * n + (uint32_t)(port.base[i] - '0');
  }
  return n;
}

/*
 * Checks :authority, or host if |is_host| is nonzero.
 */
static ngp_field_rule check_authority(ngp_fields *fields, int is_host,
                                      authority *parts) {
  ngp_span span = is_host ? fields->host : fields->authority;
  int tunnel = NGP_FIELDS_IS_TUNNEL(fields);
  fault f = split(span, fields->web || tunnel, parts);

  /* CONNECT must name the port of its target (RFC 9110, 9.3.6), but a target
     without any port is accepted. */
  if (f == GOOD &&
      (port_number(parts->port, 1) > 65535 ||
       (tunnel && parts->colon && port_number(parts->port, 0) == 0))) {
    f = PORT;
  }
  if (f != GOOD && f != USERINFO) {
    fields->fault = span;
  }
  return rule_of(f, is_host);
}

/* Checks :authority and host, and that both name the same. */
static ngp_field_rule check_target(ngp_fields *fields) {
  authority a, h;
  uint32_t otherwise;
  ngp_field_rule rule = NGP_FIELD_GOOD;
  int has_host = (int)NGP_FIELDS_SEEN(fields, NGP_TOKEN_HOST);

  if (NGP_FIELDS_SEEN(fields, NGP_TOKEN__AUTHORITY)) {
    rule = check_authority(fields, 0, &a);
    if (rule != NGP_FIELD_GOOD || !has_host ||
        (fields->host.len == fields->authority.len &&
         memcmp(fields->host.base, fields->authority.base, fields->host.len) ==
             0)) {
      return rule;
    }
    rule = check_authority(fields, 1, &h);
    if (rule != NGP_FIELD_GOOD) {
      return rule;
    }
    /* Compared after normalisation: without case and default port (RFC 3986,
       6.2; RFC 9110, 4.2.3). */
    otherwise = !fields->web                           ? 0
                : is_caseless(fields->scheme, "https") ? 443
                                                       : 80;
    if (!ngp_equal_caseless(a.host.base, a.host.len, h.host.base, h.host.len) ||
        port_number(a.port, otherwise) != port_number(h.port, otherwise)) {
      fields->fault = fields->host;
      return NGP_FIELD_HOST_DIFFERS;
    }
    return NGP_FIELD_GOOD;
  }
  /* A scheme without an authority may come with an empty host (RFC 9110,
     7.2). */
  return has_host && (fields->web || fields->host.len)
             ? check_authority(fields, 1, &h)
             : rule;
}

/* ---- Pseudo-header fields ---- */

static int pseudo_allowed(const ngp_fields *fields, ngp_token token) {
  switch (token) {
  case NGP_TOKEN__METHOD:
  case NGP_TOKEN__PATH:
  case NGP_TOKEN__SCHEME:
  case NGP_TOKEN__AUTHORITY:
    return fields->section == NGP_FIELDS_REQUEST ||
           fields->section == NGP_FIELDS_PROMISE;
  case NGP_TOKEN__PROTOCOL:
    return fields->section == NGP_FIELDS_REQUEST;
  case NGP_TOKEN__STATUS:
    return fields->section == NGP_FIELDS_RESPONSE ||
           fields->section == NGP_FIELDS_INFORMATIONAL;
  default:
    return 0;
  }
}

static ngp_field_rule check_status(ngp_fields *fields, ngp_span value) {
  uint16_t status;

  if (value.len != 3 || !all_of(value.base, 3, DIGIT)) {
    return NGP_FIELD_STATUS_DIGITS;
  }
  status = (uint16_t)(100 * (value.base[0] - '0') + 10 * (value.base[1] - '0') +
                      (value.base[2] - '0'));
  if (status < 100 || (status > 599 && (fields->flags & NGP_FIELDS_OUTGOING))) {
    return NGP_FIELD_STATUS_RANGE;
  }
  if (status == 101) {
    return NGP_FIELD_STATUS_101;
  }
  if (!(fields->flags & NGP_FIELDS_EITHER)) {
    if (fields->section == NGP_FIELDS_INFORMATIONAL && status >= 200) {
      return NGP_FIELD_STATUS_INTERIM;
    }
    if (fields->section == NGP_FIELDS_RESPONSE && status < 200) {
      return NGP_FIELD_STATUS_FINAL;
    }
  }
  fields->status = status;
  return NGP_FIELD_GOOD;
}

static ngp_field_rule check_path(ngp_span path) {
  if (!any_odd(path.base, path.len, 0x21, '#')) {
    return NGP_FIELD_GOOD;
  }
  return any_odd(path.base, path.len, 0x21, 0x7f) ? NGP_FIELD_PATH_CHARS
                                                  : NGP_FIELD_PATH_FRAGMENT;
}

static ngp_field_rule check_scheme(ngp_span scheme) {
  return scheme.len && all_of(scheme.base, scheme.len, SCHEME) &&
                 !(classes[scheme.base[0]] & DIGIT) &&
                 !memchr("+-.", scheme.base[0], 3)
             ? NGP_FIELD_GOOD
             : NGP_FIELD_SCHEME_CHARS;
}

static int is_token(ngp_span value) {
  return value.len && all_of(value.base, value.len, TOKEN);
}

/* A protocol may have a version (RFC 9110, 7.8). */
static int is_protocol(ngp_span value) {
  const uint8_t *slash = value.len ? memchr(value.base, '/', value.len) : NULL;
  ngp_span name = value, version = {0};

  if (!slash) {
    return is_token(value);
  }
  name.len = (size_t)(slash - value.base);
  version = (ngp_span){slash + 1, value.len - name.len - 1};
  return is_token(name) && is_token(version);
}

static ngp_field_rule check_pseudo(ngp_fields *fields, ngp_token token,
                                   ngp_span value) {
  ngp_field_rule rule;

  if (fields->regular_seen) {
    return NGP_FIELD_PSEUDO_LATE;
  }
  if (!pseudo_allowed(fields, token)) {
    return NGP_FIELD_PSEUDO_UNKNOWN;
  }
  if (NGP_FIELDS_SEEN(fields, token)) {
    return NGP_FIELD_PSEUDO_TWICE;
  }
  switch (token) {
  case NGP_TOKEN__METHOD:
    fields->method = value;
    fields->connect = (uint8_t)IS(value, "CONNECT");
    fields->head = (uint8_t)IS(value, "HEAD");
    return is_token(value) ? NGP_FIELD_GOOD : NGP_FIELD_METHOD_TOKEN;
  case NGP_TOKEN__SCHEME:
    fields->scheme = value;
    fields->web =
        (uint8_t)(is_caseless(value, "https") || is_caseless(value, "http"));
    return check_scheme(value);
  case NGP_TOKEN__PATH:
    fields->path = value;
    return check_path(value);
  case NGP_TOKEN__PROTOCOL:
    fields->protocol = value;
    return fields->flags & NGP_FIELDS_NO_PROTOCOL ? NGP_FIELD_PROTOCOL_ANNOUNCED
           : is_protocol(value)                   ? NGP_FIELD_GOOD
                                                  : NGP_FIELD_PROTOCOL_TOKEN;
  case NGP_TOKEN__AUTHORITY:
    fields->authority = value;
    return value.len ? NGP_FIELD_GOOD : NGP_FIELD_AUTHORITY_EMPTY;
  default:
    rule = check_status(fields, value);
    if (rule != NGP_FIELD_GOOD) {
      fields->fault = value;
    }
    return rule;
  }
}

/* Whether aioquic checks |rule| after all others. */
static int is_deferred(ngp_field_rule rule) {
  return rule == NGP_FIELD_STATUS_DIGITS || rule == NGP_FIELD_STATUS_101 ||
         rule == NGP_FIELD_AUTHORITY_EMPTY;
}

/* ---- Regular fields ---- */

static ngp_field_rule check_length(ngp_fields *fields, ngp_span value) {
  uint64_t n = 0;
  size_t i;

  if (NGP_FIELDS_SEEN(fields, NGP_TOKEN_CONTENT_LENGTH)) {
    return NGP_FIELD_LENGTH_TWICE;
  }
  if (fields->flags & NGP_FIELDS_AIOQUIC &&
      fields->flags & NGP_FIELDS_OUTGOING) {
    return NGP_FIELD_GOOD;
  }
  /* Leading zeros are digits too; no body has 10^18 bytes. */
  for (i = 0; i < value.len && classes[value.base[i]] & DIGIT; ++i) {
    n = 10 * n + (uint64_t)(value.base[i] - '0');
    if (n >= 1000000000000000000u) {
      return NGP_FIELD_LENGTH_NUMBER;
    }
  }
  if (value.len == 0 || i < value.len) {
    return NGP_FIELD_LENGTH_NUMBER;
  }
  fields->content_length = n;
  return NGP_FIELD_GOOD;
}

/*
 * Nonzero if we must not send the field in |section|: it is a trailer that
 * frames, routes, authenticates or describes the message (RFC 9110, 6.5.1).  A
 * recipient that merges trailers into the headers would be deceived; any other
 * ignores them.  Some peers send them: what is received may have them.
 */
static int is_late(const ngp_fields *fields, ngp_token token) {
  const uint32_t early = 1u << NGP_TOKEN_CONTENT_LENGTH |
                         1u << NGP_TOKEN_COOKIE | 1u << NGP_TOKEN_HOST |
                         1u << NGP_TOKEN_PROXY_AUTHORIZATION |
                         1u << NGP_TOKEN_HEADER_ONLY;

  return fields->section == NGP_FIELDS_TRAILERS &&
         (fields->flags & (NGP_FIELDS_OUTGOING | NGP_FIELDS_AIOQUIC)) ==
             NGP_FIELDS_OUTGOING &&
         early >> token & 1u;
}

static ngp_field_rule check_regular(ngp_fields *fields, ngp_token token,
                                    ngp_span value) {
  if (is_late(fields, token)) {
    return NGP_FIELD_TRAILER;
  }
  switch (token) {
  case NGP_TOKEN_CONNECTION:
  case NGP_TOKEN_KEEP_ALIVE:
  case NGP_TOKEN_PROXY_CONNECTION:
  case NGP_TOKEN_TRANSFER_ENCODING:
  case NGP_TOKEN_UPGRADE:
    return NGP_FIELD_CONNECTION_SPECIFIC;
  case NGP_TOKEN_TE:
    if (fields->section != NGP_FIELDS_REQUEST &&
        fields->section != NGP_FIELDS_PROMISE) {
      return NGP_FIELD_TE_PLACE;
    }
    return is_caseless(value, "trailers") ? NGP_FIELD_GOOD : NGP_FIELD_TE_VALUE;
  case NGP_TOKEN_CONTENT_LENGTH:
    return check_length(fields, value);
  case NGP_TOKEN_HOST:
    if (fields->section == NGP_FIELDS_TRAILERS) {
      return NGP_FIELD_GOOD;
    }
    if (NGP_FIELDS_SEEN(fields, token)) {
      return NGP_FIELD_HOST_TWICE;
    }
    fields->host = value;
    return NGP_FIELD_GOOD;
  case NGP_TOKEN_PRIORITY:
    fields->priority = value;
    return NGP_FIELD_GOOD;
  default:
    return NGP_FIELD_GOOD;
  }
}

void ngp_fields_init(ngp_fields *fields, ngp_fields_section section,
                     unsigned flags) {
  *fields = (ngp_fields){
      .section = section,
      .flags = (uint8_t)flags,
      .content_length = NGP_FIELDS_NO_LENGTH,
  };
}

ngp_field_rule ngp_fields_add(ngp_fields *fields, ngp_token token, int pseudo,
                              const uint8_t *value, size_t len) {
  ngp_span span = {value, len};
  ngp_field_rule rule;

  if (!pseudo && fields->flags & NGP_FIELDS_SPACES) {
    for (; span.len && is_space(span.base[0]); ++span.base, --span.len) {
    }
    for (; span.len && is_space(span.base[span.len - 1]); --span.len) {
    }
  }
  if (pseudo) {
    rule = check_pseudo(fields, token, span);
    if (rule != NGP_FIELD_GOOD && (fields->flags & NGP_FIELDS_AIOQUIC) &&
        is_deferred(rule)) {
      fields->deferred = rule;
      rule = NGP_FIELD_GOOD;
    } else if (rule != NGP_FIELD_GOOD) {
      fields->fault = span;
    }
  } else {
    fields->regular_seen = 1;
    if (token == NGP_TOKEN_OTHER) {
      return NGP_FIELD_GOOD;
    }
    rule = check_regular(fields, token, span);
  }
  fields->seen |= 1u << token;
  return rule;
}

/* ---- Whole sections ---- */

static ngp_field_rule check_request(ngp_fields *fields) {
  int has_protocol = (int)NGP_FIELDS_SEEN(fields, NGP_TOKEN__PROTOCOL);
  int has_authority = (int)NGP_FIELDS_SEEN(fields, NGP_TOKEN__AUTHORITY);
  int has_scheme = (int)NGP_FIELDS_SEEN(fields, NGP_TOKEN__SCHEME);
  int has_path = (int)NGP_FIELDS_SEEN(fields, NGP_TOKEN__PATH);
  ngp_span path = fields->path;

  if (!NGP_FIELDS_SEEN(fields, NGP_TOKEN__METHOD)) {
    return NGP_FIELD_METHOD_MISSING;
  }
  if (fields->deferred != NGP_FIELD_GOOD) {
    return fields->deferred;
  }
  if (NGP_FIELDS_IS_TUNNEL(fields)) {
    if (has_path || has_scheme) {
      return NGP_FIELD_CONNECT_TARGET;
    }
    if (!has_authority) {
      return NGP_FIELD_CONNECT_AUTHORITY;
    }
    if (NGP_FIELDS_SEEN(fields, NGP_TOKEN_CONTENT_LENGTH) &&
        (fields->content_length || fields->flags & NGP_FIELDS_OUTGOING)) {
      return NGP_FIELD_CONNECT_LENGTH;
    }
    return check_target(fields);
  }
  if (has_protocol && !fields->connect) {
    return NGP_FIELD_PROTOCOL_METHOD;
  }
  if (!has_scheme) {
    return NGP_FIELD_SCHEME_MISSING;
  }
  if (!has_path) {
    return NGP_FIELD_PATH_MISSING;
  }
  if (fields->web) {
    if ((path.len == 0 || path.base[0] != '/') &&
        !(IS(path, "*") && IS(fields->method, "OPTIONS"))) {
      fields->fault = path;
      return NGP_FIELD_PATH_FORM;
    }
    if (!has_authority && !NGP_FIELDS_SEEN(fields, NGP_TOKEN_HOST)) {
      return NGP_FIELD_AUTHORITY_MISSING;
    }
  }
  if (has_protocol && !has_authority) {
    return NGP_FIELD_PROTOCOL_AUTHORITY;
  }
  return check_target(fields);
}

/* A response can only be pushed if a client could cache it. */
static ngp_field_rule check_promise(ngp_fields *fields) {
  ngp_field_rule rule = check_request(fields);

  if (rule != NGP_FIELD_GOOD) {
    return rule;
  }
  if (!IS(fields->method, "GET") && !fields->head) {
    return NGP_FIELD_PROMISE_METHOD;
  }
  if (fields->content_length &&
      fields->content_length != NGP_FIELDS_NO_LENGTH) {
    return NGP_FIELD_PROMISE_BODY;
  }
  return NGP_FIELDS_SEEN(fields, NGP_TOKEN__AUTHORITY)
             ? NGP_FIELD_GOOD
             : NGP_FIELD_PROMISE_AUTHORITY;
}

static ngp_field_rule check_response(const ngp_fields *fields) {
  if (!NGP_FIELDS_SEEN(fields, NGP_TOKEN__STATUS)) {
    return NGP_FIELD_STATUS_MISSING;
  }
  if (fields->deferred != NGP_FIELD_GOOD) {
    return fields->deferred;
  }
  /* Frameworks add "content-length: 0" everywhere, and peers accept it. */
  if (fields->content_length &&
      fields->content_length != NGP_FIELDS_NO_LENGTH &&
      (fields->status < 200 || fields->status == 204) &&
      !(fields->flags & NGP_FIELDS_AIOQUIC)) {
    return NGP_FIELD_LENGTH_NO_CONTENT;
  }
  return NGP_FIELD_GOOD;
}

ngp_field_rule ngp_fields_end(ngp_fields *fields) {
  switch (fields->section) {
  case NGP_FIELDS_REQUEST:
    return check_request(fields);
  case NGP_FIELDS_PROMISE:
    return check_promise(fields);
  case NGP_FIELDS_TRAILERS:
    return NGP_FIELD_GOOD;
  default:
    return check_response(fields);
  }
}
