from nghttp2py.h2.events cimport RequestReceived


cdef class Exchange:
    # All members but these two are C-level, so that subclasses of users inherit no
    # other names.
    cdef public object stream_id
    cdef public object status       # the final response's; None until it is sent
    cdef object response_fields     # the final response's, if access keeps details
    cdef HTTPConnection http        # None for an exchange without a connection
    cdef RequestReceived request    # None at a client
    cdef double started             # when the request came, on the monotonic clock

    # What the connection calls.
    cdef request_received(self, RequestReceived request)
    cdef informational_received(self, status, tuple fields)
    cdef response_received(self, status, tuple fields)
    cdef data_received(self, bytes data)
    cdef trailers_received(self, tuple fields)
    cdef datagram_received(self, bytes data)
    cdef end_received(self)
    cdef writable(self)
    cdef aborted(self, failure, error_code, bint incoming, bint outgoing)
    cdef closing(self)
    cdef closed(self, failure, error_code, body_bytes_sent)
    cdef bint is_finished(self, body_bytes_sent) except -1
    cdef run_postponed(self, list exchanges)


cdef class ExchangeFactory:
    cdef object _function
    cdef public bint takes_tunnels

    cdef Exchange new_exchange(
        self, HTTPConnection http, stream_id, RequestReceived request
    )
    cdef int connection_lost(self) except -1


cdef class HTTPConnection:
    cdef readonly str version
    cdef readonly bint client_side
    cdef public object owner  # what does the I/O; None when the connection is lost
    cdef ExchangeFactory factory  # makes a server's exchanges
    cdef public object tasks  # a CallbackTasks, which runs coroutines of handlers
    cdef public bint secure   # whether the transport is TLS or QUIC
    cdef public bint unlogged  # whether its exchanges are left out of the access log
    cdef dict extra  # what get_extra_info() knows after the loss, or None
    cdef object application_data  # what exchanges keep for all of the connection
    cdef bint postpones       # whether run_postponed() follows
    cdef list postponed       # exchanges that are run then, or None
    cdef object __weakref__

    cdef bint postpone(self, Exchange exchange) except -1
    cdef int run_postponed(self) except -1
    cdef _missing(self, str what)

    # What the application calls.
    cpdef send_response(self, Exchange exchange, status, fields, bint end)
    cpdef send_fields(self, Exchange exchange, fields, bint end)
    cpdef send_informational(self, Exchange exchange, status, fields)
    cpdef send_continue(self, Exchange exchange)
    cpdef accept_tunnel(self, Exchange exchange, fields)
    cpdef send_trailers(self, Exchange exchange, fields)
    cpdef queue_body(self, Exchange exchange, data, bint end)
    cpdef send_body(self, Exchange exchange, body, trailers)
    cpdef resume_body(self, Exchange exchange)
    cpdef end(self, Exchange exchange)
    cpdef queued(self, Exchange exchange)
    cpdef room(self, Exchange exchange, wanted, bint ahead)
    cpdef notify_writable(self, Exchange exchange, low)
    cpdef acknowledge(self, Exchange exchange, n)
    cpdef reset(self, Exchange exchange, error_code)
    cpdef stop_request(self, Exchange exchange, error_code=*)
    cpdef is_open(self, Exchange exchange)
    cpdef push_enabled(self)
    cpdef push(self, Exchange exchange, fields)
    cpdef adopt(self, Exchange exchange)
    cpdef send_datagram(self, Exchange exchange, data)
    cpdef set_priority(self, Exchange exchange, urgency, incremental)
    cpdef get_extra_info(self, name, default=*)
    cpdef flush_soon(self)


# These end the program.  Any other exception of an application's code concerns one
# exchange, GeneratorExit and the CancelledError of a future included.
cdef tuple FATAL

cdef tuple GONE

cdef double now() noexcept
cpdef bint has_content(bytes method, status) except -1
cdef object content_length(RequestReceived request)
cpdef bint expects_continue(RequestReceived request) except -1
cpdef bint answer_failure(Exchange exchange) except -1
cpdef Exchange exchange_failed(Exchange exchange, error)
cdef Exchange make_unmade(HTTPConnection http, stream_id, RequestReceived request)
cdef Exchange make_record(Exchange exchange)
cpdef bint log_wanted() except -1
cpdef keep_response_fields(Exchange exchange, fields)
cpdef log_access(Exchange exchange, error_code, body_bytes_sent, bint complete)
