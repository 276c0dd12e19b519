/*
 * ngp_h3_fields: applies the rules for fields in ngp_fields.c to HTTP/3.
 * SPDX-License-Identifier: MIT
 *
 * Where aioquic has the same rule, the phrase is aioquic's, which its tests
 * compare; docs/h3.rst lists where a rule here is stricter.
 */
#ifndef NGP_H3_FIELDS_H
#define NGP_H3_FIELDS_H

#include "ngp_fields.h"

typedef enum ngp_h3_fields_error {
  /* A field must not be in this section. */
  NGP_H3_ERR_MALFORMED = -2121
} ngp_h3_fields_error;

/*
 * A phrase contains the name of the wrong field in the form of Python's repr,
 * in which a byte takes at most four characters; libnghttp3 decodes no name
 * longer than 256 bytes.  A longer name, and any value, is truncated.
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

/*
 * ngp_h3_checker checks one field section, field by field, and keeps what later
 * steps of the message need.
 */
typedef struct ngp_h3_checker {
  ngp_fields fields;
  /* webtransport is nonzero if :protocol names WebTransport. */
  uint8_t webtransport;
  /* capsules is nonzero if the field capsule-protocol is true (RFC 9297,
     3.4). */
  uint8_t capsules;
  /* The reason of a failure is written to phrase.  Borrowed. */
  ngp_h3_phrase *phrase;
} ngp_h3_checker;

/*
 * ngp_h3_checker_init makes |checker| ready for one section; |flags| are as for
 * ngp_fields_init().  |phrase| is written only on failure.
 */
void ngp_h3_checker_init(ngp_h3_checker *checker, ngp_fields_section section,
                         unsigned flags, ngp_h3_phrase *phrase);

/*
 * ngp_h3_checker_octets checks the characters of the next field, and stores the
 * token of its name in |*ptoken|: the same field has the same result in every
 * section that is checked with the same flags.  |known| is nonzero if the name
 * is in QPACK's static table: then its characters need not be checked.
 *
 * ngp_h3_checker_add checks the field in its section.
 *
 * These functions return 0 if they succeed, or NGP_H3_ERR_MALFORMED, with the
 * reason in the phrase.
 */
int ngp_h3_checker_octets(ngp_h3_checker *checker, const uint8_t *name,
                          size_t namelen, const uint8_t *value, size_t valuelen,
                          int known, ngp_token *ptoken);
int ngp_h3_checker_add(ngp_h3_checker *checker, ngp_token token,
                       const uint8_t *name, size_t namelen,
                       const uint8_t *value, size_t valuelen);

/*
 * ngp_h3_checker_field does both.
 */
int ngp_h3_checker_field(ngp_h3_checker *checker, const uint8_t *name,
                         size_t namelen, const uint8_t *value, size_t valuelen);

/*
 * ngp_h3_checker_end checks the rules that need all fields.
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
