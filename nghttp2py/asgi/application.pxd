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

    cdef Host _host           # waits for an exchange, or None

    cdef object find_loop(self)
    cdef object start_task(self, Runner runner)
    cdef Host enter_host(self)
    cdef int leave_host(self, Host host) except -1


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
    cdef bint _gone           # the connection waits for the task

    # What a subclass overrides.
    cdef object take_message(self)
    cdef int about_to_wait(self) except -1
    cdef object send_message(self, message)
    cdef int application_returned(self) except -1
    cdef int application_failed(self, error) except -1

    # What it calls.
    cdef int start(self, dict scope) except -1
    cdef int _start_task(self) except -1
    cdef int _start_grace(self) except -1
    cdef int watch_task(self) except -1
    cdef int disconnect(self) except -1
    cdef int finish_response(self) except -1
    cdef int wake_receivers(self) except -1
    cdef int wake_senders(self) except -1
    cdef object refuse_send(self)
    cdef int _ended(self, error) except -1


cdef class Runner:
    cdef ApplicationExchange exchange  # None before a host has one, and at the end
    cdef object coroutine
    # Of a host's:
    cdef bint hosted
    cdef bint over            # it runs no exchange any more
    cdef bint noticed         # something was done with the task
    cdef bint idled           # the task has waited for an exchange
    cdef bint adopted         # the task has to wait for `waits_for`
    cdef bint marked          # that has to have the mark of a future that is awaited
    cdef object waits_for     # what the coroutine waits for already
    cdef object wake          # the future of the task while it has no exchange
    cdef object error         # with which the task ends

    cdef int _begin(self) except -1
    cdef int _finish(self, error) except -1
    cdef int _rouse(self) except -1


cdef class Host:
    cdef Application application
    cdef Runner runner
    cdef object task
    cdef object loop
    cdef object context       # the task's
    cdef object base          # what it was copied from
    cdef Py_ssize_t references  # to the task, if the application has kept none
    cdef object weak_references

    cdef bint suits(self, loop, base) except -1
    cdef bint enter(self) except -1
    cdef int leave(self) except -1
    cdef bint run(self, ApplicationExchange exchange) except -1
    cdef int _fail(self, error) except -1
    cdef int _adopt(self, ApplicationExchange exchange, future) except -1
    cdef bint is_noticed(self) except -1
    cdef int retire(self) except -1


cdef dict check_message(message)
cdef str message_type(message)
