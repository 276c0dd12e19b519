/* SPDX-License-Identifier: MIT */
#include "ngp_h3_fields.h"

#include <string.h>

/*
 * aioquic's phrases: the text before and after the name of the field.  The
 * phrases of all other rules are their text, followed by the wrong value.
 */
static const struct {
  const char *before;
  const char *after;
} phrases[NGP_FIELD_NRULES] = {
    [NGP_FIELD_NAME_EMPTY] = {"Header ", " contains invalid characters"},
    [NGP_FIELD_NAME_CHARS] = {"Header ", " contains invalid characters"},
    [NGP_FIELD_NAME_COLON] = {"Header ", " contains a non-initial colon"},
    [NGP_FIELD_VALUE_CHARS] = {"Header ", " value has forbidden characters"},
    [NGP_FIELD_VALUE_START] = {"Header ", " value starts with whitespace"},
    [NGP_FIELD_VALUE_END] = {"Header ", " value ends with whitespace"},
    [NGP_FIELD_PSEUDO_LATE] = {"Pseudo-header ",
                               " is not allowed after regular headers"},
    [NGP_FIELD_PSEUDO_UNKNOWN] = {"Pseudo-header ", " is not valid"},
    [NGP_FIELD_PSEUDO_TWICE] = {"Pseudo-header ", " is included twice"},
    [NGP_FIELD_CONNECTION_SPECIFIC] = {"Header ", " is connection-specific"},
    [NGP_FIELD_TE_PLACE] = {"Header ", " is connection-specific"},
    [NGP_FIELD_TE_VALUE] = {"Header ", " value is not trailers"},
};

/* The pseudo-header fields that aioquic requires, in the order of their
   names. */
static const struct {
  const char *name;
  ngp_token token;
} wanted[] = {
    {":authority", NGP_TOKEN__AUTHORITY}, {":method", NGP_TOKEN__METHOD},
    {":path", NGP_TOKEN__PATH},           {":scheme", NGP_TOKEN__SCHEME},
    {":status", NGP_TOKEN__STATUS},
};

#define BIT(NAME) (1u << NGP_TOKEN__##NAME)

/* The most bytes of a value in a phrase. */
#define MAX_SHOWN 64

static void add_text(ngp_h3_phrase *phrase, const char *text) {
  size_t n = strlen(text);

  if (n > NGP_H3_MAX_PHRASE - phrase->len) {
    n = NGP_H3_MAX_PHRASE - phrase->len;
  }
  memcpy(phrase->text + phrase->len, text, n);
  phrase->len += n;
}

/* Appends |data| in the form of Python's repr: b'...'. */
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

static int fail_pseudo(ngp_h3_phrase *phrase, const char *name,
                       const char *after) {
  return fail(phrase, "Pseudo-header ", (const uint8_t *)name, strlen(name),
              after);
}

/* Writes why |rule| refuses the field |name|, or the section if that is NULL;
   |fault| is the wrong value. */
static int refuse(ngp_h3_phrase *phrase, ngp_field_rule rule,
                  const uint8_t *name, size_t namelen, ngp_span fault) {
  if (phrases[rule].before) {
    return fail(phrase, phrases[rule].before, name, namelen,
                phrases[rule].after);
  }
  switch (rule) {
  case NGP_FIELD_STATUS_DIGITS:
    fail_pseudo(phrase, ":status", " has invalid value ");
    add_repr(phrase, fault.base, fault.len);
    break;
  case NGP_FIELD_STATUS_101:
    return fail_pseudo(phrase, ":status", " cannot be 101");
  case NGP_FIELD_LENGTH_NUMBER:
    ngp_h3_phrase_set(phrase, "content-length is not a non-negative integer");
    break;
  default:
    ngp_h3_phrase_set(phrase, ngp_field_rule_text(rule, 1));
    if (fault.base) {
      add_text(phrase, ": ");
      add_repr(phrase, fault.base,
               fault.len < MAX_SHOWN ? fault.len : MAX_SHOWN);
    }
  }
  return NGP_H3_ERR_MALFORMED;
}

static const ngp_span nothing = {0};

int ngp_h3_check_name(const uint8_t *name, size_t namelen,
                      ngp_h3_phrase *phrase) {
  ngp_token token;
  ngp_field_rule rule = ngp_fields_name(name, namelen, 0, &token);

  return rule == NGP_FIELD_GOOD ? 0
                                : refuse(phrase, rule, name, namelen, nothing);
}

int ngp_h3_check_value(const uint8_t *name, size_t namelen,
                       const uint8_t *value, size_t valuelen,
                       ngp_h3_phrase *phrase) {
  ngp_field_rule rule = ngp_fields_value(value, valuelen, 0);

  return rule == NGP_FIELD_GOOD ? 0
                                : refuse(phrase, rule, name, namelen, nothing);
}

void ngp_h3_checker_init(ngp_h3_checker *checker, ngp_fields_section section,
                         unsigned flags, ngp_h3_phrase *phrase) {
  *checker = (ngp_h3_checker){.phrase = phrase};
  ngp_fields_init(&checker->fields, section, flags);
}

static int is(const uint8_t *data, size_t len, const char *text,
              size_t textlen) {
  return len == textlen && memcmp(data, text, len) == 0;
}

#define IS(DATA, LEN, TEXT) is((DATA), (LEN), (TEXT), sizeof(TEXT) - 1)

int ngp_h3_checker_octets(ngp_h3_checker *checker, const uint8_t *name,
                          size_t namelen, const uint8_t *value, size_t valuelen,
                          int known, ngp_token *ptoken) {
  const ngp_fields *fields = &checker->fields;
  ngp_field_rule rule = NGP_FIELD_GOOD;

  if (known) {
    *ptoken = ngp_token_of(name, namelen);
  } else {
    rule = ngp_fields_name(name, namelen, fields->flags, ptoken);
  }
  if (rule == NGP_FIELD_GOOD) {
    rule = ngp_fields_value(value, valuelen, fields->flags);
  }
  return rule == NGP_FIELD_GOOD
             ? 0
             : refuse(checker->phrase, rule, name, namelen, fields->fault);
}

int ngp_h3_checker_add(ngp_h3_checker *checker, ngp_token token,
                       const uint8_t *name, size_t namelen,
                       const uint8_t *value, size_t valuelen) {
  ngp_fields *fields = &checker->fields;
  ngp_field_rule rule =
      ngp_fields_add(fields, token, name[0] == ':', value, valuelen);

  if (rule != NGP_FIELD_GOOD) {
    return refuse(checker->phrase, rule, name, namelen, fields->fault);
  }
  if (token == NGP_TOKEN__PROTOCOL) {
    /* Drafts up to 14 say webtransport, later ones webtransport-h3. */
    checker->webtransport = (uint8_t)(IS(value, valuelen, "webtransport") ||
                                      IS(value, valuelen, "webtransport-h3"));
  } else if (token == NGP_TOKEN_CAPSULE_PROTOCOL) {
    checker->capsules = (uint8_t)IS(value, valuelen, "?1");
  }
  return 0;
}

int ngp_h3_checker_field(ngp_h3_checker *checker, const uint8_t *name,
                         size_t namelen, const uint8_t *value,
                         size_t valuelen) {
  ngp_token token;
  int rv =
      ngp_h3_checker_octets(checker, name, namelen, value, valuelen, 0, &token);

  return rv != 0 ? rv
                 : ngp_h3_checker_add(checker, token, name, namelen, value,
                                      valuelen);
}

/* The tokens of the pseudo-header fields for which aioquic has a phrase if they
   are missing. */
static uint32_t required(const ngp_fields *fields) {
  switch (fields->section) {
  case NGP_FIELDS_REQUEST:
    /* host is enough (RFC 9114, 4.3.1), but not for CONNECT. */
    return BIT(METHOD) |
           (NGP_FIELDS_SEEN(fields, NGP_TOKEN_HOST) && !fields->connect
                ? 0
                : BIT(AUTHORITY));
  case NGP_FIELDS_PROMISE:
    return BIT(AUTHORITY) | BIT(METHOD) | BIT(PATH) | BIT(SCHEME);
  case NGP_FIELDS_TRAILERS:
    return 0;
  default:
    return BIT(STATUS);
  }
}

int ngp_h3_checker_end(ngp_h3_checker *checker) {
  const ngp_fields *fields = &checker->fields;
  ngp_field_rule rule = ngp_fields_end(&checker->fields);
  const char *separator = "Pseudo-headers [";
  uint32_t missing;
  size_t i;

  if (rule == NGP_FIELD_GOOD) {
    return 0;
  }
  missing = required(fields) & ~fields->seen;
  if (missing) {
    checker->phrase->len = 0;
    for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); ++i) {
      if (missing >> wanted[i].token & 1u) {
        add_text(checker->phrase, separator);
        add_repr(checker->phrase, (const uint8_t *)wanted[i].name,
                 strlen(wanted[i].name));
        separator = ", ";
      }
    }
    add_text(checker->phrase, "] are missing");
    return NGP_H3_ERR_MALFORMED;
  }
  if (fields->web && rule == NGP_FIELD_AUTHORITY_EMPTY) {
    return fail_pseudo(checker->phrase, ":authority", " cannot be empty");
  }
  if (fields->web && fields->path.len == 0 &&
      (rule == NGP_FIELD_PATH_MISSING || rule == NGP_FIELD_PATH_FORM)) {
    return fail_pseudo(checker->phrase, ":path", " cannot be empty");
  }
  return refuse(checker->phrase, rule, NULL, 0, fields->fault);
}
