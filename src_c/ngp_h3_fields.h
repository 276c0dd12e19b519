/*
 * ngp_h3_fields: what a field section of HTTP/3 may contain (RFC 9114, 4.2
 * and 4.3; RFC 9220).  SPDX-License-Identifier: MIT
 *
 * The rules are aioquic's, and so are the phrases: a program which moves over
 * sees the same connection closes.  docs/h3.rst lists where a rule here is
 * stricter.
 */
#ifndef NGP_H3_FIELDS_H
#define NGP_H3_FIELDS_H

#include <stddef.h>
#include <stdint.h>

typedef enum ngp_h3_section {
  NGP_H3_REQUEST,
  NGP_H3_RESPONSE,
  NGP_H3_PUSH_PROMISE,
  NGP_H3_TRAILERS
} ngp_h3_section;

typedef enum ngp_h3_fields_error {
  /* A field must not stand in this section. */
  NGP_H3_ERR_MALFORMED = -2121
} ngp_h3_fields_error;

/* Pseudo-header fields, in the order of their names. */
#define NGP_H3_AUTHORITY 0x01u
#define NGP_H3_METHOD 0x02u
#define NGP_H3_PATH 0x04u
#define NGP_H3_PROTOCOL 0x08u
#define NGP_H3_SCHEME 0x10u
#define NGP_H3_STATUS 0x20u

/*
 * A phrase names the field at fault in the form of Python's repr, in which a
 * byte takes four characters at most; libnghttp3 decodes no name longer than
 * 256.  A longer name, and any value, is cut off.
 */
#define NGP_H3_MAX_PHRASE 1152

typedef struct ngp_h3_phrase {
  size_t len;
  char text[NGP_H3_MAX_PHRASE];
} ngp_h3_phrase;

/*
 * ngp_h3_phrase_set makes |phrase| a copy of the string |text|.
 */
void ngp_h3_phrase_set(ngp_h3_phrase *phrase, const char *text);

/* There is no content-length. */
#define NGP_H3_NO_LENGTH UINT64_MAX

/*
 * ngp_h3_checker checks one field section, field by field, and remembers what
 * the message's further fate depends on.
 */
typedef struct ngp_h3_checker {
  ngp_h3_section section;
  /* lax is nonzero for sections that we send ourselves: a content-length may
     say anything then, as it is for the receiver to compare it. */
  uint8_t lax;
  /* seen has a bit for each pseudo-header field that was there. */
  uint8_t seen;
  uint8_t regular_seen;
  /* needs_origin is nonzero if the scheme is http or https. */
  uint8_t needs_origin;
  /* empty has a bit for each of AUTHORITY and PATH that is there but empty. */
  uint8_t empty;
  /* connect is nonzero if :method is CONNECT. */
  uint8_t connect;
  /* webtransport is nonzero if :protocol names WebTransport. */
  uint8_t webtransport;
  /* head is nonzero if :method is HEAD. */
  uint8_t head;
  /* capsules is nonzero if the field capsule-protocol says so (RFC 9297,
     3.4). */
  uint8_t capsules;
  /* status is that of a response, or 0; bad_status is nonzero if it is not
     made of three digits. */
  uint16_t status;
  uint8_t bad_status;
  /* content_length is NGP_H3_NO_LENGTH if there is none. */
  uint64_t content_length;
  /* priority is the value of the field of that name, borrowed from the
     caller, or NULL (RFC 9218, 5). */
  const uint8_t *priority;
  size_t priority_len;
  /* phrase is where the reason of a failure is written.  Borrowed. */
  ngp_h3_phrase *phrase;
} ngp_h3_checker;

/*
 * ngp_h3_checker_init makes |checker| ready for one section.  |phrase| is
 * written only on failure.
 */
void ngp_h3_checker_init(ngp_h3_checker *checker, ngp_h3_section section,
                         int lax, ngp_h3_phrase *phrase);

/*
 * ngp_h3_checker_field checks the next field.  |known| is nonzero if the name
 * is one of QPACK's static table, which needs no look at its characters.
 *
 * This function returns 0 if it succeeds, or NGP_H3_ERR_MALFORMED, after which
 * the phrase says why.
 */
int ngp_h3_checker_field(ngp_h3_checker *checker, const uint8_t *name,
                         size_t namelen, const uint8_t *value, size_t valuelen,
                         int known);

/*
 * ngp_h3_checker_end checks what can be known only when all fields have been
 * seen.
 *
 * This function returns 0 if it succeeds, or NGP_H3_ERR_MALFORMED.
 */
int ngp_h3_checker_end(ngp_h3_checker *checker);

/*
 * ngp_h3_check_name and ngp_h3_check_value check one name, and the value of
 * the field |name|, without any section.
 *
 * They return 0 or NGP_H3_ERR_MALFORMED.
 */
int ngp_h3_check_name(const uint8_t *name, size_t namelen,
                      ngp_h3_phrase *phrase);
int ngp_h3_check_value(const uint8_t *name, size_t namelen,
                       const uint8_t *value, size_t valuelen,
                       ngp_h3_phrase *phrase);

#endif /* NGP_H3_FIELDS_H */
