/*
 * ngp_fields: which fields a message of HTTP/2 or HTTP/3 may have (RFC 9110,
 * 5; RFC 9113, 8.2 and 8.3; RFC 9114, 4.2 and 4.3).
 * SPDX-License-Identifier: MIT
 *
 * There is one table of rules for both protocols, both roles and both
 * directions.  Each difference between callers is a flag here, so that it is
 * visible in one place.
 */
#ifndef NGP_FIELDS_H
#define NGP_FIELDS_H

#include <stddef.h>
#include <stdint.h>

/*
 * ngp_token is the name of a field that has a meaning here; every other name
 * is NGP_TOKEN_OTHER.
 */
typedef enum ngp_token {
  NGP_TOKEN_OTHER,
  NGP_TOKEN__AUTHORITY,
  NGP_TOKEN__METHOD,
  NGP_TOKEN__PATH,
  NGP_TOKEN__PROTOCOL,
  NGP_TOKEN__SCHEME,
  NGP_TOKEN__STATUS,
  NGP_TOKEN_CAPSULE_PROTOCOL,
  NGP_TOKEN_CONNECTION,
  NGP_TOKEN_CONTENT_LENGTH,
  NGP_TOKEN_COOKIE,
  NGP_TOKEN_HOST,
  NGP_TOKEN_KEEP_ALIVE,
  NGP_TOKEN_PRIORITY,
  NGP_TOKEN_PROXY_AUTHORIZATION,
  NGP_TOKEN_PROXY_CONNECTION,
  NGP_TOKEN_TE,
  NGP_TOKEN_TRANSFER_ENCODING,
  NGP_TOKEN_UPGRADE,
  /* Every other field that is of no use after the content: see
     NGP_FIELD_TRAILER. */
  NGP_TOKEN_HEADER_ONLY
} ngp_token;

/*
 * ngp_token_of returns the token of |name|, which must be in lower case.
 */
ngp_token ngp_token_of(const uint8_t *name, size_t len);

/*
 * Every rule: its name, its text, and its section in HTTP/2 and in HTTP/3.
 * Applications, logs and debug data show the texts.
 */
#define NGP_FIELD_NAME_TEXT "a field name holds a character that is not allowed"
#define NGP_FIELD_VALUE_TEXT                                                   \
  "a field value must not hold NUL, CR, LF or another control character, nor " \
  "begin or end with white space"
#define NGP_FIELD_TE_TEXT "te is for requests and must be 'trailers'"

#define NGP_FIELD_RULES(X)                                                     \
  X(NAME_EMPTY, "a field name must not be empty", "9113, 8.2.1", "9110, 5.1")  \
  X(NAME_CHARS, NGP_FIELD_NAME_TEXT, "9113, 8.2.1", "9114, 4.2")               \
  X(NAME_COLON, NGP_FIELD_NAME_TEXT, "9113, 8.2.1", "9114, 4.2")               \
  X(VALUE_CHARS, NGP_FIELD_VALUE_TEXT, "9113, 8.2.1", "9114, 10.3")            \
  X(VALUE_START, NGP_FIELD_VALUE_TEXT, "9113, 8.2.1", "9114, 10.3")            \
  X(VALUE_END, NGP_FIELD_VALUE_TEXT, "9113, 8.2.1", "9114, 10.3")              \
  X(PSEUDO_LATE, "pseudo-header fields must come first", "9113, 8.3",          \
    "9114, 4.3")                                                               \
  X(PSEUDO_UNKNOWN, "no such pseudo-header field in this message",             \
    "9113, 8.3", "9114, 4.3")                                                  \
  X(PSEUDO_TWICE, "a pseudo-header field must not be repeated", "9113, 8.3",   \
    "9114, 4.3")                                                               \
  X(CONNECTION_SPECIFIC, "a connection-specific field must not be sent",       \
    "9113, 8.2.2", "9114, 4.2")                                                \
  X(TE_PLACE, NGP_FIELD_TE_TEXT, "9113, 8.2.2", "9114, 4.2")                   \
  X(TE_VALUE, NGP_FIELD_TE_TEXT, "9113, 8.2.2", "9114, 4.2")                   \
  X(TRAILER, "this field must not be a trailer", "9110, 6.5.1", "9110, 6.5.1") \
  X(LENGTH_NUMBER, "content-length must be a decimal number", "9110, 8.6",     \
    "9110, 8.6")                                                               \
  X(LENGTH_TWICE, "content-length must not be repeated", "9110, 8.6",          \
    "9110, 8.6")                                                               \
  X(LENGTH_NO_CONTENT, "content-length must not be sent with 1xx and 204",     \
    "9110, 8.6", "9110, 8.6")                                                  \
  X(STATUS_MISSING, "a response needs :status", "9113, 8.3.2", "9114, 4.3.2")  \
  X(STATUS_DIGITS, ":status must have three digits", "9110, 15", "9110, 15")   \
  X(STATUS_RANGE, ":status must be from 100 to 599", "9110, 15", "9110, 15")   \
  X(STATUS_101, ":status must not be 101", "9113, 8.6", "9114, 4.5")           \
  X(STATUS_INTERIM, ":status of an informational response must be 1xx",        \
    "9110, 15.2", "9110, 15.2")                                                \
  X(STATUS_FINAL, ":status of a final response must not be 1xx", "9110, 15.2", \
    "9110, 15.2")                                                              \
  X(METHOD_MISSING, "a request needs :method", "9113, 8.3.1", "9114, 4.3.1")   \
  X(METHOD_TOKEN, ":method must be a token", "9110, 9.1", "9110, 9.1")         \
  X(SCHEME_MISSING, "a request needs :scheme", "9113, 8.3.1", "9114, 4.3.1")   \
  X(SCHEME_CHARS, ":scheme must be a URI's scheme", "3986, 3.1", "3986, 3.1")  \
  X(PATH_MISSING, "a request needs :path", "9113, 8.3.1", "9114, 4.3.1")       \
  X(PATH_CHARS, ":path holds a character that is not allowed", "9113, 8.3.1",  \
    "9114, 4.3.1")                                                             \
  X(PATH_FRAGMENT, ":path must not have a fragment", "9113, 8.3.1",            \
    "9114, 4.3.1")                                                             \
  X(PATH_FORM, ":path must start with '/', or be '*' for OPTIONS",             \
    "9113, 8.3.1", "9114, 4.3.1")                                              \
  X(AUTHORITY_MISSING, "a request needs :authority or host", "9113, 8.3.1",    \
    "9114, 4.3.1")                                                             \
  X(AUTHORITY_EMPTY, ":authority must not be empty", "9110, 4.2.1",            \
    "9110, 4.2.1")                                                             \
  X(AUTHORITY_CHARS, ":authority holds a character that is not allowed",       \
    "3986, 3.2", "3986, 3.2")                                                  \
  X(AUTHORITY_USERINFO, ":authority must not have userinfo", "9113, 8.3.1",    \
    "9114, 4.3.1")                                                             \
  X(AUTHORITY_PORT, ":authority has an invalid port", "3986, 3.2.3",           \
    "3986, 3.2.3")                                                             \
  X(AUTHORITY_ZONE, ":authority must not have a zone identifier", "6874, 4",   \
    "6874, 4")                                                                 \
  X(HOST_TWICE, "host must not be repeated", "9110, 7.2", "9110, 7.2")         \
  X(HOST_EMPTY, "host must not be empty", "9110, 4.2.1", "9110, 4.2.1")        \
  X(HOST_CHARS, "host holds a character that is not allowed", "3986, 3.2",     \
    "3986, 3.2")                                                               \
  X(HOST_USERINFO, "host must not have userinfo", "9110, 4.2.4",               \
    "9110, 4.2.4")                                                             \
  X(HOST_PORT, "host has an invalid port", "3986, 3.2.3", "3986, 3.2.3")       \
  X(HOST_ZONE, "host must not have a zone identifier", "6874, 4", "6874, 4")   \
  X(HOST_DIFFERS, "host differs from :authority", "9113, 8.3.1",               \
    "9114, 4.3.1")                                                             \
  X(CONNECT_TARGET, "CONNECT must not have :scheme or :path", "9113, 8.5",     \
    "9114, 4.4")                                                               \
  X(CONNECT_AUTHORITY, "CONNECT needs :authority", "9113, 8.5", "9114, 4.4")   \
  X(CONNECT_LENGTH, "CONNECT must not have content-length", "9110, 9.3.6",     \
    "9110, 9.3.6")                                                             \
  X(PROTOCOL_METHOD, ":protocol is for CONNECT only", "8441, 4", "9220, 3")    \
  X(PROTOCOL_TOKEN, ":protocol must be a token", "8441, 4", "9220, 3")         \
  X(PROTOCOL_ANNOUNCED,                                                        \
    ":protocol needs SETTINGS_ENABLE_CONNECT_PROTOCOL of the server",          \
    "8441, 3", "9220, 3")                                                      \
  X(PROTOCOL_AUTHORITY, "extended CONNECT needs :authority", "8441, 4",        \
    "9220, 3")                                                                 \
  X(PROMISE_METHOD,                                                            \
    "a promised request must be safe and cacheable: GET or HEAD", "9113, 8.4", \
    "9114, 4.6")                                                               \
  X(PROMISE_BODY, "a promised request must not have a body", "9113, 8.4",      \
    "9114, 4.6")                                                               \
  X(PROMISE_AUTHORITY, "a promised request needs :authority", "9113, 8.4",     \
    "9114, 4.6")

typedef enum ngp_field_rule {
  NGP_FIELD_GOOD,
#define X(NAME, TEXT, H2, H3) NGP_FIELD_##NAME,
  NGP_FIELD_RULES(X)
#undef X
      NGP_FIELD_NRULES
} ngp_field_rule;

/*
 * ngp_field_rule_text returns the text of |rule|, with its section of HTTP/3 if
 * |http3| is nonzero, otherwise of HTTP/2.  The string is static.
 */
const char *ngp_field_rule_text(ngp_field_rule rule, int http3);

typedef enum ngp_fields_section {
  NGP_FIELDS_REQUEST,
  /* A final response; see NGP_FIELDS_EITHER. */
  NGP_FIELDS_RESPONSE,
  NGP_FIELDS_INFORMATIONAL,
  NGP_FIELDS_PROMISE,
  NGP_FIELDS_TRAILERS
} ngp_fields_section;

/* We send the section: a status outside of its range is refused.  In a received
   section it is not, because a client treats it as 5xx (RFC 9110, 15). */
#define NGP_FIELDS_OUTGOING 0x01u
/* Names may have upper case letters, which are sent in lower case. */
#define NGP_FIELDS_UPPER 0x02u
/* A response may be informational or final. */
#define NGP_FIELDS_EITHER 0x04u
/* The server has not announced SETTINGS_ENABLE_CONNECT_PROTOCOL. */
#define NGP_FIELDS_NO_PROTOCOL 0x08u
/* Values may have white space around them. */
#define NGP_FIELDS_SPACES 0x10u
/* aioquic's contract: a wrong :status or an empty :authority is reported after
   all other fields, 1xx and 204 may have a content-length, and one that is sent
   may be anything.  So may trailers that are sent. */
#define NGP_FIELDS_AIOQUIC 0x20u

/* There is no content-length. */
#define NGP_FIELDS_NO_LENGTH UINT64_MAX

typedef struct ngp_span {
  const uint8_t *base;
  size_t len;
} ngp_span;

/*
 * ngp_fields is the state of checking one field section.  All values are
 * borrowed from the caller until ngp_fields_end().
 */
typedef struct ngp_fields {
  ngp_fields_section section;
  uint8_t flags;
  uint8_t regular_seen;
  /* connect is nonzero if :method is CONNECT, head if it is HEAD, web if
     :scheme is http or https. */
  uint8_t connect;
  uint8_t head;
  uint8_t web;
  /* status is 0 if there is none, or if it does not have three digits. */
  uint16_t status;
  /* deferred is a broken rule that ngp_fields_end() reports. */
  ngp_field_rule deferred;
  /* seen has a bit for each token. */
  uint32_t seen;
  /* content_length is NGP_FIELDS_NO_LENGTH if there is none. */
  uint64_t content_length;
  ngp_span method, scheme, path, authority, host, protocol, priority;
  /* fault is the value that broke the rule, if it may be shown: it contains no
     password. */
  ngp_span fault;
} ngp_fields;

#define NGP_FIELDS_SEEN(FIELDS, TOKEN) ((FIELDS)->seen >> (TOKEN)&1u)

/* Nonzero if |fields| is CONNECT without :protocol. */
#define NGP_FIELDS_IS_TUNNEL(FIELDS)                                           \
  ((FIELDS)->connect && !NGP_FIELDS_SEEN(FIELDS, NGP_TOKEN__PROTOCOL))

void ngp_fields_init(ngp_fields *fields, ngp_fields_section section,
                     unsigned flags);

/*
 * The following functions return the rule that is broken, or NGP_FIELD_GOOD.
 *
 * ngp_fields_name checks the characters of a name, and stores its token in
 * |*ptoken|. ngp_fields_value checks those of a value. |flags| are as for
 * ngp_fields_init().
 *
 * ngp_fields_add checks the next field in its section; the characters of its
 * name and value have been checked.  |pseudo| is nonzero if the name begins
 * with a colon.
 *
 * ngp_fields_end checks the rules that need all fields.
 */
ngp_field_rule ngp_fields_name(const uint8_t *name, size_t len, unsigned flags,
                               ngp_token *ptoken);
ngp_field_rule ngp_fields_value(const uint8_t *value, size_t len,
                                unsigned flags);
ngp_field_rule ngp_fields_add(ngp_fields *fields, ngp_token token, int pseudo,
                              const uint8_t *value, size_t len);
ngp_field_rule ngp_fields_end(ngp_fields *fields);

#endif /* NGP_FIELDS_H */
