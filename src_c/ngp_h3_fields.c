/* SPDX-License-Identifier: MIT */
#include "ngp_h3_fields.h"

#include "ngp.h"

#include <string.h>

/*
 * The characters that a field name may have: none up to the space, no upper
 * case, none from DEL on.  A colon is looked at apart.
 */
static const uint32_t name_chars[8] = {0, 0xfffffffeu, 0xf8000001u, 0x7fffffffu,
                                       0, 0,           0,           0};

static const struct {
  const char *name;
  uint8_t len;
  uint8_t bit;
} pseudo_headers[] = {
    {":authority", 10, NGP_H3_AUTHORITY},
    {":method", 7, NGP_H3_METHOD},
    {":path", 5, NGP_H3_PATH},
    {":protocol", 9, NGP_H3_PROTOCOL},
    {":scheme", 7, NGP_H3_SCHEME},
    {":status", 7, NGP_H3_STATUS},
};

#define PSEUDO_HEADERS (sizeof(pseudo_headers) / sizeof(pseudo_headers[0]))

/* By ngp_h3_section. */
static const struct {
  uint8_t allowed;
  uint8_t required;
  uint8_t te_allowed;
} rules[] = {
    [NGP_H3_REQUEST] = {NGP_H3_AUTHORITY | NGP_H3_METHOD | NGP_H3_PATH |
                            NGP_H3_PROTOCOL | NGP_H3_SCHEME,
                        NGP_H3_AUTHORITY | NGP_H3_METHOD, 1},
    [NGP_H3_RESPONSE] = {NGP_H3_STATUS, NGP_H3_STATUS, 0},
    [NGP_H3_PUSH_PROMISE] =
        {NGP_H3_AUTHORITY | NGP_H3_METHOD | NGP_H3_PATH | NGP_H3_SCHEME,
         NGP_H3_AUTHORITY | NGP_H3_METHOD | NGP_H3_PATH | NGP_H3_SCHEME, 1},
    [NGP_H3_TRAILERS] = {0, 0, 0},
};

static void add_text(ngp_h3_phrase *phrase, const char *text) {
  size_t n = strlen(text);

  if (n > NGP_H3_MAX_PHRASE - phrase->len) {
    n = NGP_H3_MAX_PHRASE - phrase->len;
  }
  memcpy(phrase->text + phrase->len, text, n);
  phrase->len += n;
}

/* Appends |data| as Python would show it: b'...'. */
static void add_repr(ngp_h3_phrase *phrase, const uint8_t *data, size_t len) {
  static const char hex[] = "0123456789abcdef";
  int quote = '\'';
  char text[5] = {0};
  size_t i;

  if (memchr(data, '\'', len) && !memchr(data, '"', len)) {
    quote = '"';
  }
  text[0] = (char)quote;
  add_text(phrase, "b");
  add_text(phrase, text);
  /* 64 leaves room for what follows the field's name. */
  for (i = 0; i < len && phrase->len < NGP_H3_MAX_PHRASE - 64; ++i) {
    uint8_t c = data[i];

    memset(text, 0, sizeof(text));
    if (c == quote || c == '\\') {
      text[0] = '\\';
      text[1] = (char)c;
    } else if (c == '\t' || c == '\n' || c == '\r') {
      text[0] = '\\';
      text[1] = c == '\t' ? 't' : c == '\n' ? 'n' : 'r';
    } else if (c < 0x20 || c >= 0x7f) {
      text[0] = '\\';
      text[1] = 'x';
      text[2] = hex[c >> 4];
      text[3] = hex[c & 15];
    } else {
      text[0] = (char)c;
    }
    add_text(phrase, text);
  }
  text[0] = (char)quote;
  text[1] = 0;
  add_text(phrase, i < len ? "..." : text);
}

void ngp_h3_phrase_set(ngp_h3_phrase *phrase, const char *text) {
  phrase->len = 0;
  add_text(phrase, text);
}

/* Writes |before| b'name' |after| to |phrase|. */
static int fail(ngp_h3_phrase *phrase, const char *before, const uint8_t *name,
                size_t namelen, const char *after) {
  ngp_h3_phrase_set(phrase, before);
  add_repr(phrase, name, namelen);
  add_text(phrase, after);
  return NGP_H3_ERR_MALFORMED;
}

int ngp_h3_check_name(const uint8_t *name, size_t namelen,
                      ngp_h3_phrase *phrase) {
  size_t i;

  if (namelen == 0) {
    return fail(phrase, "Header ", name, namelen,
                " contains invalid characters");
  }
  for (i = 0; i < namelen; ++i) {
    uint8_t c = name[i];

    if (!(name_chars[c >> 5] >> (c & 31) & 1)) {
      return fail(phrase, "Header ", name, namelen,
                  " contains invalid characters");
    }
    if (c == ':' && i > 0) {
      return fail(phrase, "Header ", name, namelen,
                  " contains a non-initial colon");
    }
  }
  return 0;
}

int ngp_h3_check_value(const uint8_t *name, size_t namelen,
                       const uint8_t *value, size_t valuelen,
                       ngp_h3_phrase *phrase) {
  size_t i;

  for (i = 0; i < valuelen; ++i) {
    if (value[i] == '\0' || value[i] == '\r' || value[i] == '\n') {
      return fail(phrase, "Header ", name, namelen,
                  " value has forbidden characters");
    }
  }
  if (valuelen == 0) {
    return 0;
  }
  if (value[0] == ' ' || value[0] == '\t') {
    return fail(phrase, "Header ", name, namelen,
                " value starts with whitespace");
  }
  if (value[valuelen - 1] == ' ' || value[valuelen - 1] == '\t') {
    return fail(phrase, "Header ", name, namelen,
                " value ends with whitespace");
  }
  return 0;
}

void ngp_h3_checker_init(ngp_h3_checker *checker, ngp_h3_section section,
                         int lax, ngp_h3_phrase *phrase) {
  *checker = (ngp_h3_checker){
      .section = section,
      .lax = (uint8_t)(lax != 0),
      .content_length = NGP_H3_NO_LENGTH,
      .phrase = phrase,
  };
}

static int is(const uint8_t *data, size_t len, const char *text,
              size_t textlen) {
  return len == textlen && memcmp(data, text, len) == 0;
}

#define IS(DATA, LEN, TEXT) is((DATA), (LEN), (TEXT), sizeof(TEXT) - 1)

static int check_status(ngp_h3_checker *checker, const uint8_t *value,
                        size_t len) {
  size_t i;
  uint16_t status = 0;

  /* It is reported by checker_end: what is wrong with the fields that follow
     is reported before. */
  for (i = 0; len == 3 && i < 3 && value[i] >= '0' && value[i] <= '9'; ++i) {
    status = (uint16_t)(10 * status + (value[i] - '0'));
  }
  if (i == 3) {
    checker->status = status;
    return 0;
  }
  checker->bad_status = 1;
  ngp_h3_phrase_set(checker->phrase, "Pseudo-header b':status' has invalid "
                                     "value ");
  add_repr(checker->phrase, value, len);
  return 0;
}

static int check_pseudo(ngp_h3_checker *checker, const uint8_t *name,
                        size_t namelen, const uint8_t *value, size_t valuelen) {
  uint8_t bit = 0;
  size_t i;

  if (checker->regular_seen) {
    return fail(checker->phrase, "Pseudo-header ", name, namelen,
                " is not allowed after regular headers");
  }
  for (i = 0; i < PSEUDO_HEADERS; ++i) {
    if (is(name, namelen, pseudo_headers[i].name, pseudo_headers[i].len)) {
      bit = pseudo_headers[i].bit;
      break;
    }
  }
  if (!(bit & rules[checker->section].allowed)) {
    return fail(checker->phrase, "Pseudo-header ", name, namelen,
                " is not valid");
  }
  if (bit & checker->seen) {
    return fail(checker->phrase, "Pseudo-header ", name, namelen,
                " is included twice");
  }
  checker->seen |= bit;
  switch (bit) {
  case NGP_H3_STATUS:
    return check_status(checker, value, valuelen);
  case NGP_H3_SCHEME:
    checker->needs_origin =
        (uint8_t)(IS(value, valuelen, "http") || IS(value, valuelen, "https"));
    break;
  case NGP_H3_METHOD:
    checker->connect = (uint8_t)IS(value, valuelen, "CONNECT");
    checker->head = (uint8_t)IS(value, valuelen, "HEAD");
    break;
  case NGP_H3_PROTOCOL:
    /* Drafts up to 14 say webtransport, later ones webtransport-h3. */
    checker->webtransport = (uint8_t)(IS(value, valuelen, "webtransport") ||
                                      IS(value, valuelen, "webtransport-h3"));
    break;
  default:
    if (valuelen == 0) {
      checker->empty |= bit;
    }
  }
  return 0;
}

static int check_content_length(ngp_h3_checker *checker, const uint8_t *value,
                                size_t len) {
  uint64_t n = 0;
  size_t i;

  if (checker->lax) {
    return 0;
  }
  /* Leading zeros are digits too (RFC 9110, 8.6); a sign is not, nor is what
     Python's int() takes besides. */
  for (i = 0; i < len && value[i] >= '0' && value[i] <= '9'; ++i) {
    unsigned digit = (unsigned)(value[i] - '0');

    if (n > (NGP_H3_NO_LENGTH - 1 - digit) / 10) {
      /* More than any stream carries: it will not match. */
      n = NGP_H3_NO_LENGTH - 1;
      continue;
    }
    n = 10 * n + digit;
  }
  if (len == 0 || i < len) {
    ngp_h3_phrase_set(checker->phrase,
                      "content-length is not a non-negative integer");
    return NGP_H3_ERR_MALFORMED;
  }
  if (checker->content_length != NGP_H3_NO_LENGTH &&
      checker->content_length != n) {
    ngp_h3_phrase_set(checker->phrase,
                      "content-length is included twice with other values");
    return NGP_H3_ERR_MALFORMED;
  }
  checker->content_length = n;
  return 0;
}

static int check_regular(ngp_h3_checker *checker, const uint8_t *name,
                         size_t namelen, const uint8_t *value,
                         size_t valuelen) {
  int specific = 0;

  checker->regular_seen = 1;
  switch (namelen) {
  case 2:
    if (!IS(name, namelen, "te")) {
      break;
    }
    if (!rules[checker->section].te_allowed) {
      specific = 1;
    } else if (!ngp_equal_caseless(value, valuelen, "trailers", 8)) {
      return fail(checker->phrase, "Header ", name, namelen,
                  " value is not trailers");
    }
    break;
  case 7:
    specific = IS(name, namelen, "upgrade");
    break;
  case 8:
    if (IS(name, namelen, "priority")) {
      checker->priority = value;
      checker->priority_len = valuelen;
    }
    break;
  case 10:
    specific =
        IS(name, namelen, "connection") || IS(name, namelen, "keep-alive");
    break;
  case 14:
    if (IS(name, namelen, "content-length")) {
      return check_content_length(checker, value, valuelen);
    }
    break;
  case 16:
    if (IS(name, namelen, "capsule-protocol")) {
      checker->capsules = (uint8_t)IS(value, valuelen, "?1");
    }
    specific = IS(name, namelen, "proxy-connection");
    break;
  case 17:
    specific = IS(name, namelen, "transfer-encoding");
    break;
  }
  if (specific) {
    return fail(checker->phrase, "Header ", name, namelen,
                " is connection-specific");
  }
  return 0;
}

int ngp_h3_checker_field(ngp_h3_checker *checker, const uint8_t *name,
                         size_t namelen, const uint8_t *value, size_t valuelen,
                         int known) {
  int rv = 0;

  if (!known) {
    rv = ngp_h3_check_name(name, namelen, checker->phrase);
    if (rv != 0) {
      return rv;
    }
  }
  rv = ngp_h3_check_value(name, namelen, value, valuelen, checker->phrase);
  if (rv != 0) {
    return rv;
  }
  if (name[0] == ':') {
    return check_pseudo(checker, name, namelen, value, valuelen);
  }
  return check_regular(checker, name, namelen, value, valuelen);
}

int ngp_h3_checker_end(ngp_h3_checker *checker) {
  uint8_t missing = rules[checker->section].required & (uint8_t)~checker->seen;
  uint8_t empty;
  const char *separator = "Pseudo-headers [";
  size_t i;

  if (missing) {
    checker->phrase->len = 0;
    for (i = 0; i < PSEUDO_HEADERS; ++i) {
      if (missing & pseudo_headers[i].bit) {
        add_text(checker->phrase, separator);
        add_repr(checker->phrase, (const uint8_t *)pseudo_headers[i].name,
                 pseudo_headers[i].len);
        separator = ", ";
      }
    }
    add_text(checker->phrase, "] are missing");
    return NGP_H3_ERR_MALFORMED;
  }
  if (checker->needs_origin) {
    empty = checker->empty | (uint8_t)~checker->seen;
    if (empty & NGP_H3_AUTHORITY) {
      ngp_h3_phrase_set(checker->phrase,
                        "Pseudo-header b':authority' cannot be empty");
      return NGP_H3_ERR_MALFORMED;
    }
    if (empty & NGP_H3_PATH) {
      ngp_h3_phrase_set(checker->phrase,
                        "Pseudo-header b':path' cannot be empty");
      return NGP_H3_ERR_MALFORMED;
    }
  }
  if (checker->bad_status) {
    /* check_status has written the phrase. */
    return NGP_H3_ERR_MALFORMED;
  }
  if (checker->status == 101) {
    ngp_h3_phrase_set(checker->phrase,
                      "Pseudo-header b':status' cannot be 101");
    return NGP_H3_ERR_MALFORMED;
  }
  return 0;
}
