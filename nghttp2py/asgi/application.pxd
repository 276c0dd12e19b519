from nghttp2py.asgi.scope cimport ScopeMaker
from nghttp2py.exchange cimport Exchange, ExchangeFactory


cdef class Application(ExchangeFactory):
    cdef readonly object app
    cdef readonly object options
    cdef ScopeMaker scopes
    cdef set running          # the exchanges whose tasks have not ended
    cdef object _idle         # the future of drain()
    cdef bint raises          # whether send() raises after a disconnect
    cdef object grace         # seconds until the cancellation, or None
    cdef object task_loop     # the loop of which `task_factory` was asked
    cdef bint task_factory

    cdef object find_loop(self)
    cdef object start_task(self, Runner runner)


cdef class ApplicationExchange(Exchange):
    cdef Application application
    cdef dict scope           # until the application is called
    cdef object task          # None before it starts and after it has ended
    cdef object loop
    cdef object _grace        # the timer that cancels the task
    cdef list _receivers      # futures of receive()
    cdef list _senders        # futures of send()
    cdef bint started         # the application was called, or will be
    cdef bint returned        # the application has returned or raised
    cdef bint disconnected    # the client is gone, or gets nothing more
    cdef bint complete        # the application has sent everything

    # What a subclass overrides.
    cdef object take_message(self)
    cdef int about_to_wait(self) except -1
    cdef object send_message(self, message)
    cdef int application_returned(self) except -1
    cdef int application_failed(self, error) except -1

    # What it calls.
    cdef int start(self, dict scope) except -1
    cdef int disconnect(self) except -1
    cdef int finish_response(self) except -1
    cdef int wake_receivers(self) except -1
    cdef int wake_senders(self) except -1
    cdef object refuse_send(self)
    cdef int _ended(self, error) except -1


cdef class Runner:
    cdef ApplicationExchange exchange
    cdef object coroutine

    cdef int _begin(self) except -1
    cdef int _finish(self, error) except -1


cdef dict check_message(message)
cdef str message_type(message)
