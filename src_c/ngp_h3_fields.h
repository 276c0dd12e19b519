/*
 * ngp_h3_fields: HTTP/3's side of the rules for fields, which are in
 * ngp_fields.c.  SPDX-License-Identifier: MIT
 *
 * Where aioquic has the same rule, the phrase is aioquic's, which its tests
 * compare; docs/h3.rst lists where a rule here is stricter.
 */
#ifndef NGP_H3_FIELDS_H
#define NGP_H3_FIELDS_H

#include "ngp_fields.h"

typedef enum ngp_h3_fields_error {
  /* A field must not stand in this section. */
  NGP_H3_ERR_MALFORMED = -2121
} ngp_h3_fields_error;

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

/*
 * ngp_h3_checker checks one field section, field by field, and remembers what
 * the message's further fate depends on.
 */
typedef struct ngp_h3_checker {
  ngp_fields fields;
  /* webtransport is nonzero if :protocol names WebTransport. */
  uint8_t webtransport;
  /* capsules is nonzero if the field capsule-protocol says so (RFC 9297,
     3.4). */
  uint8_t capsules;
  /* phrase is where the reason of a failure is written.  Borrowed. */
  ngp_h3_phrase *phrase;
} ngp_h3_checker;

/*
 * ngp_h3_checker_init makes |checker| ready for one section; |flags| are as for
 * ngp_fields_init().  |phrase| is written only on failure.
 */
void ngp_h3_checker_init(ngp_h3_checker *checker, ngp_fields_section section,
                         unsigned flags, ngp_h3_phrase *phrase);

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
