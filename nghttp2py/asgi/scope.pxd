from nghttp2py.exchange cimport HTTPConnection
from nghttp2py.h2.events cimport RequestReceived


cdef class ScopeMaker:
    cdef object _options
    cdef dict _state       # that of the lifespan, or None
    cdef object _forwarded
    cdef dict _targets    # (path, raw_path, query_string) by target
    cdef bytes _raw_root  # root_path in front of raw_path
    cdef str _root        # in front of path

    cdef ConnectionScope connection_scope(self, HTTPConnection http)
    cdef tuple _split(self, bytes target)
    cdef int _change(self, dict scope, changes) except -1
    cdef dict make(self, str kind, HTTPConnection http, RequestReceived request)


cdef class ConnectionScope:
    cdef dict template     # the keys that are the same for each request
    cdef dict extensions   # what http scopes announce
    cdef object tls        # the dict of the tls extension, or None
    cdef bint push         # whether push is announced
    cdef bint trailers     # whether trailers are announced if the client takes them
    cdef bint fixed        # whether the client's address cannot change
    cdef bint trusted      # whether the peer is a proxy that is trusted
    cdef bytes authority   # of the last request
    cdef tuple host        # the field made of it
