# What HTTP/1.1 uses of src_c/ngp_fields.h.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t


cdef extern from "ngp_fields.h" nogil:
    ctypedef enum ngp_token:
        NGP_TOKEN_OTHER
        NGP_TOKEN__AUTHORITY
        NGP_TOKEN__METHOD
        NGP_TOKEN__PATH
        NGP_TOKEN__SCHEME
        NGP_TOKEN__STATUS
        NGP_TOKEN_CONNECTION
        NGP_TOKEN_CONTENT_LENGTH
        NGP_TOKEN_COOKIE
        NGP_TOKEN_HOST
        NGP_TOKEN_KEEP_ALIVE
        NGP_TOKEN_PROXY_CONNECTION
        NGP_TOKEN_TE
        NGP_TOKEN_TRANSFER_ENCODING
        NGP_TOKEN_UPGRADE

    ctypedef enum ngp_field_rule:
        NGP_FIELD_GOOD
        NGP_FIELD_CONNECTION_SPECIFIC
        NGP_FIELD_TE_PLACE

    ctypedef enum ngp_fields_section:
        NGP_FIELDS_REQUEST
        NGP_FIELDS_RESPONSE
        NGP_FIELDS_INFORMATIONAL
        NGP_FIELDS_TRAILERS

    unsigned NGP_FIELDS_OUTGOING
    unsigned NGP_FIELDS_UPPER
    unsigned NGP_FIELDS_SPACES
    uint64_t NGP_FIELDS_NO_LENGTH

    ctypedef struct ngp_fields:
        uint64_t content_length

    const char *ngp_field_rule_text(ngp_field_rule rule, int http3)
    void ngp_fields_init(ngp_fields *fields, ngp_fields_section section, unsigned flags)
    ngp_field_rule ngp_fields_name(
        const uint8_t *name, size_t len, unsigned flags, ngp_token *ptoken
    )
    ngp_field_rule ngp_fields_value(const uint8_t *value, size_t len, unsigned flags)
    ngp_field_rule ngp_fields_add(
        ngp_fields *fields, ngp_token token, int pseudo, const uint8_t *value,
        size_t len,
    )
    ngp_field_rule ngp_fields_end(ngp_fields *fields)
