# What hpack.pyx uses of nghttp2/nghttp2.h, in its order.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from nghttp2py.cngp_pool cimport nghttp2_mem


cdef extern from "nghttp2/nghttp2.h" nogil:
    enum:
        NGHTTP2_ERR_BUFFER_ERROR
        NGHTTP2_ERR_NOMEM
        NGHTTP2_NV_FLAG_NONE
        NGHTTP2_NV_FLAG_NO_INDEX
        NGHTTP2_HD_INFLATE_FINAL
        NGHTTP2_HD_INFLATE_EMIT

    ctypedef struct nghttp2_nv:
        uint8_t *name
        uint8_t *value
        size_t namelen
        size_t valuelen
        uint8_t flags

    const char *nghttp2_strerror(int lib_error_code)

    ctypedef struct nghttp2_hd_deflater:
        pass

    int nghttp2_hd_deflate_new2(
        nghttp2_hd_deflater **deflater_ptr, size_t max_deflate_dynamic_table_size,
        nghttp2_mem *mem)
    void nghttp2_hd_deflate_del(nghttp2_hd_deflater *deflater)
    int nghttp2_hd_deflate_change_table_size(
        nghttp2_hd_deflater *deflater, size_t settings_max_dynamic_table_size)
    ssize_t nghttp2_hd_deflate_hd(
        nghttp2_hd_deflater *deflater, uint8_t *buf, size_t buflen,
        const nghttp2_nv *nva, size_t nvlen)
    size_t nghttp2_hd_deflate_bound(
        nghttp2_hd_deflater *deflater, const nghttp2_nv *nva, size_t nvlen)
    size_t nghttp2_hd_deflate_get_num_table_entries(nghttp2_hd_deflater *deflater)
    const nghttp2_nv *nghttp2_hd_deflate_get_table_entry(
        nghttp2_hd_deflater *deflater, size_t idx)
    size_t nghttp2_hd_deflate_get_dynamic_table_size(nghttp2_hd_deflater *deflater)
    size_t nghttp2_hd_deflate_get_max_dynamic_table_size(
        nghttp2_hd_deflater *deflater)

    ctypedef struct nghttp2_hd_inflater:
        pass

    int nghttp2_hd_inflate_new2(
        nghttp2_hd_inflater **inflater_ptr, nghttp2_mem *mem)
    void nghttp2_hd_inflate_del(nghttp2_hd_inflater *inflater)
    int nghttp2_hd_inflate_change_table_size(
        nghttp2_hd_inflater *inflater, size_t settings_max_dynamic_table_size)
    ssize_t nghttp2_hd_inflate_hd2(
        nghttp2_hd_inflater *inflater, nghttp2_nv *nv_out, int *inflate_flags,
        const uint8_t *inp, size_t inlen, int in_final)
    int nghttp2_hd_inflate_end_headers(nghttp2_hd_inflater *inflater)
    size_t nghttp2_hd_inflate_get_num_table_entries(nghttp2_hd_inflater *inflater)
    const nghttp2_nv *nghttp2_hd_inflate_get_table_entry(
        nghttp2_hd_inflater *inflater, size_t idx)
    size_t nghttp2_hd_inflate_get_dynamic_table_size(nghttp2_hd_inflater *inflater)
    size_t nghttp2_hd_inflate_get_max_dynamic_table_size(
        nghttp2_hd_inflater *inflater)
