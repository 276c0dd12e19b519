# cython: nonecheck=True
"""How an ASGI application is run for one exchange, of any kind.

``Application`` is what the exchanges of an application share.  ``ApplicationExchange``
is the base of the exchanges for HTTP and for WebSocket.  It runs the application as a
task, gives it ``receive`` and ``send``, and ends it.  A subclass

- calls ``start(scope)`` when the application is to be called, ``disconnect()`` when the
  client is gone, ``finish_response()`` when the application has sent everything, and
  ``wake_receivers()`` and ``wake_senders()`` when a call that waits may go on;
- overrides ``take_message()``, which returns the next message for ``receive()`` or
  None; ``about_to_wait()``, called when ``receive()`` has to wait;
  ``send_message(message)``, which returns None or an awaitable that finishes the call;
  ``application_returned()`` and ``application_failed(error)``.

The application begins where its request is handled, after all that came with it.
Most end there, without a wait.  So a ``Host`` is a task that exists before: its
coroutine takes over an application that has to wait, else it serves the next one.

After ``disconnect()`` the task has ``disconnect_grace`` seconds.  It is cancelled then,
unless the application has sent everything: Starlette runs background tasks after that.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF

from nghttp2py.asgi.scope cimport ScopeMaker
from nghttp2py.awaitables cimport (
    PyContext_Enter,
    PyContext_Exit,
    give,
    ngp_step,
    ngp_step_function,
    take_result,
)
from nghttp2py.exchange cimport FATAL, Exchange, ExchangeFactory

import asyncio
import collections.abc
import logging
import sys
import sysconfig
import warnings
from _weakref import getweakrefcount
from asyncio import CancelledError, Task, get_running_loop
from asyncio.tasks import _enter_task, _leave_task
from functools import partial

from nghttp2py.arguments import check_callable, check_type
from nghttp2py.asgi.options import ASGIOptions
from nghttp2py.errors import ASGIMessageError, ClientDisconnectedError
from nghttp2py.log_budget import MemoryLog

__all__ = ["Application", "ApplicationExchange"]

cdef str TYPE = sys.intern("type")
cdef str TASK_NAME = "ASGI"
# CPython 3.10 has no tasks with a given context, and without the GIL the number of
# references to a task says less.
cdef bint HOSTS = sys.version_info >= (3, 11) and not sysconfig.get_config_var(
    "Py_GIL_DISABLED"
)

logger = logging.getLogger("nghttp2py.asgi")
memory_log = MemoryLog(logger)

cdef extern from *:
    """
    NGP_SLOTS(ngp_call)
    NGP_SLOTS(ngp_runner)
    """
    bint PyCoro_CheckExact(object)
    Py_ssize_t Py_REFCNT(object)
    object PyContext_Copy(object)
    object PyContext_CopyCurrent()
    void ngp_call_prepare(object, ngp_step_function)
    void ngp_runner_prepare(object, ngp_step_function)


cdef class Application(ExchangeFactory):
    """What the exchanges of an ASGI application share.

    ``app`` is the application, a callable of a scope, ``receive`` and ``send``.
    """

    def __init__(self, app, options=None):
        check_callable("app", app)
        if options is None:
            options = ASGIOptions()
        check_type("options", options, ASGIOptions, "an ASGIOptions")
        self.app = app
        self.options = options
        self.scopes = ScopeMaker(options)
        self.running = set()
        self.raises = options.spec_version != "2.3"
        self.grace = options.disconnect_grace if self.raises else None

    @property
    def task_count(self):
        """The tasks of exchanges that have not ended."""
        return len(self.running)

    async def drain(self, timeout=None):
        """Wait until the tasks of all exchanges end, at most ``timeout`` seconds.

        Return whether they have.  New exchanges are waited for, too.
        """
        loop = get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while self.running:
            left = None if end is None else max(0.0, end - loop.time())
            if left == 0.0:
                return False
            if self._idle is None or self._idle.done():
                self._idle = loop.create_future()
            await asyncio.wait([self._idle], timeout=left)
        return True

    def cancel(self):
        """Cancel the tasks of all exchanges, at the end of the server."""
        cdef ApplicationExchange exchange

        for exchange in list(self.running):
            if exchange.task is not None:
                exchange.task.cancel()

    cdef object find_loop(self):
        """Return the running loop."""
        loop = get_running_loop()
        if loop is not self.task_loop:
            self.task_loop = loop
            self.task_factory = loop.get_task_factory() is not None
        return loop

    cdef object start_task(self, Runner runner):
        """Return a task that runs an exchange."""
        loop = self.task_loop
        if self.task_factory:
            function = loop.create_task
        else:
            if self.options.context is None:
                # The loop's own method is written in Python, and CPython before 3.12
                # formats a number for each name.
                return Task(runner, loop=loop, name=TASK_NAME)
            function = partial(Task, loop=loop, name=TASK_NAME)
        if self.options.context is not None:
            # Task() copies the current context; CPython 3.10 has no argument for it.
            return self.options.context.copy().run(function, runner)
        return function(runner)

    cdef int connection_lost(self) except -1:
        cdef Host host = self._host

        # There may be no other one.
        self._host = None
        if host is not None:
            host.retire()
        return 0

    cdef Host enter_host(self):
        """Return a host, whose task is the current one; None if there can be none."""
        cdef Host host = self._host
        loop = self.find_loop()

        self._host = None
        if self.options.context is None:
            base = PyContext_CopyCurrent()
        else:
            base = PyContext_Copy(self.options.context)
        if host is not None and not host.suits(loop, base):
            host.retire()
            host = None
        if host is None:
            host = Host(self, loop, base)
        if host.enter():
            return host
        # Another task handles what was received.
        self._host = host
        return None

    cdef int leave_host(self, Host host) except -1:
        """Keep a host for the exchanges that come with the next bytes."""
        host.leave()
        if self._host is None:
            self._host = host
        else:
            host.retire()
        return 0


cdef class ApplicationExchange(Exchange):
    """One exchange that an ASGI application answers: see the module."""

    # ---- What a subclass overrides ----

    cdef object take_message(self):
        """Return the next message for ``receive()``, or None if it must wait."""
        return {"type": "http.disconnect"}

    cdef int about_to_wait(self) except -1:
        """Handle that ``receive()`` waits."""
        return 0

    cdef object send_message(self, message):
        """Handle what ``send()`` was given; return an awaitable if it must wait.

        No type is known here.
        """
        raise ASGIMessageError(
            f"the type {message_type(message)!r} is not one of this scope"
        )

    cdef int application_returned(self) except -1:
        """Handle that the application has returned."""
        return 0

    cdef int application_failed(self, error) except -1:
        """Handle that the application has raised, and the exception is logged.

        ``error`` is a ``CancelledError`` if its task was cancelled.
        """
        return 0

    # ---- What it calls ----

    cdef int start(self, dict scope) except -1:
        """Run the application as a task."""
        self.scope = scope
        self.started = True
        self.loop = self.application.find_loop()
        self.application.running.add(self)
        try:
            if (
                not HOSTS
                or self.application.task_factory
                or not self.http.postpone(self)
            ):
                self._start_task()
        except BaseException:
            self.application.running.discard(self)
            raise
        return 0

    cdef int _start_task(self) except -1:
        """Make a task that runs the application."""
        cdef Runner runner = Runner.__new__(Runner)

        runner.exchange = self
        task = self.application.start_task(runner)
        # With an eager task factory it may have ended already.
        if self in self.application.running:
            self.task = task
        return 0

    cdef run_postponed(self, list exchanges):
        cdef ApplicationExchange exchange
        cdef Host host = None

        try:
            for exchange in exchanges:
                try:
                    if host is None or host.application is not exchange.application:
                        if host is not None:
                            host.application.leave_host(host)
                            host = None
                        host = exchange.application.enter_host()
                    if host is None:
                        exchange._start_task()
                    elif not host.run(exchange):
                        host = None
                except FATAL:
                    raise
                except BaseException as error:
                    exchange._ended(error)  # such as for want of memory
        finally:
            if host is not None:
                host.application.leave_host(host)

    cdef int disconnect(self) except -1:
        """Handle that the client is gone, or will get nothing more."""
        if self.disconnected:
            return 0
        self.disconnected = True
        self.wake_receivers()
        self.wake_senders()
        return self._start_grace()

    cdef int _start_grace(self) except -1:
        """Bound the time of the task of a client that is gone."""
        if (
            self.task is not None
            and not self.complete
            and self.application.grace is not None
        ):
            self._grace = self.loop.call_later(
                self.application.grace, Cancellation(self)
            )
        return 0

    cdef int watch_task(self) except -1:
        """Let the connection wait for the task, whose exchange is closed."""
        self._gone = True
        if self.task is not None and self.http.tasks is not None:
            self.http.tasks.watch(self.task)
        return 0

    cdef int finish_response(self) except -1:
        """Handle that the application has sent everything: let it run on."""
        self.complete = True
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self.wake_receivers()
        return 0

    cdef int wake_receivers(self) except -1:
        """Let the calls of ``receive()`` that wait look for messages again."""
        cdef list waiting = self._receivers

        if waiting is not None:
            self._receivers = None
            wake(waiting)
        return 0

    cdef int wake_senders(self) except -1:
        """Let the calls of ``send()`` that wait go on."""
        cdef list waiting = self._senders

        if waiting is not None:
            self._senders = None
            wake(waiting)
        return 0

    cdef object refuse_send(self):
        """Handle a ``send()`` to a client that is gone."""
        if self.application.raises:
            raise ClientDisconnectedError("the client is gone")
        return None

    # ---- What the application is given ----

    # As those of C, which cost less to make and to call than Cython's own.
    @cython.binding(False)
    def receive(self):
        """Return an awaitable of the next message."""
        cdef Call call = Call.__new__(Call)

        call.exchange = self
        return call

    @cython.binding(False)
    def send(self, message):
        """Return an awaitable that sends a message."""
        cdef Call call = Call.__new__(Call)

        call.exchange = self
        call.sends = True
        call.message = message
        return call

    async def wait_message(self):
        """Wait for the next message: the rest of ``receive()``."""
        while True:
            message = self.take_message()
            if message is not None:
                return message
            self.about_to_wait()
            future = self.loop.create_future()
            if self._receivers is None:
                self._receivers = []
            self._receivers.append(future)
            try:
                await future
            except BaseException:
                # An application may look for a message again and again.
                forget(self._receivers, future)
                raise

    async def wait_to_send(self):
        """Wait until ``wake_senders()`` is called."""
        future = self.loop.create_future()
        if self._senders is None:
            self._senders = []
        self._senders.append(future)
        try:
            await future
        except BaseException:
            forget(self._senders, future)
            raise

    # ---- The end ----

    cdef int _ended(self, error) except -1:
        """Handle the end of the application; ``error`` is what it has raised."""
        cdef Application application = self.application

        self.returned = True
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        try:
            if error is None:
                self.application_returned()
            else:
                self._log(error)
                self.application_failed(error)
        finally:
            self.task = None
            application.running.discard(self)
            if application._idle is not None and not application.running:
                idle, application._idle = application._idle, None
                if not idle.done():
                    idle.set_result(None)
        return 0

    def _log(self, error):
        """Log what the application has raised, unless the client's end explains it."""
        if isinstance(error, CancelledError):
            return
        if self.disconnected and is_of_disconnect(error):
            logger.debug("%s: stream %s: %r", self.http.owner, self.stream_id, error)
            return
        memory_log.failed(
            error,
            "Exception in ASGI application: %s %s",
            self.request.method.decode("latin-1"),
            self.request.target.decode("ascii", "backslashreplace"),
        )


cdef int wake(list futures) except -1:
    for future in futures:
        if not future.done():
            future.set_result(None)
    return 0


cdef int forget(list futures, future) except -1:
    if futures is not None and future in futures:
        futures.remove(future)
    return 0


def is_of_disconnect(error):
    """Return whether an exception only reports that the client is gone.

    It is ours, or was raised because of ours, such as Starlette's ``ClientDisconnect``,
    or a group of such.
    """
    seen = 0
    while error is not None and seen < 64:
        if isinstance(error, ClientDisconnectedError):
            return True
        # Starlette raises them for the messages of a disconnect, too.
        if type(error).__name__ in ("ClientDisconnect", "WebSocketDisconnect"):
            return True
        inner = getattr(error, "exceptions", None)
        if isinstance(inner, tuple) and inner:
            return all(
                isinstance(each, CancelledError) or is_of_disconnect(each)
                for each in inner
            )
        error = error.__cause__ or error.__context__
        seen += 1
    return False


cdef class Cancellation:
    """Cancels the task of an exchange, after the grace."""

    cdef ApplicationExchange exchange

    def __cinit__(self, ApplicationExchange exchange not None):
        self.exchange = exchange

    def __call__(self):
        cdef ApplicationExchange exchange = self.exchange

        exchange._grace = None
        if exchange.task is not None and not exchange.complete:
            exchange.task.cancel()


# ---- The coroutine of a task ----


@cython.freelist(64)
cdef class Runner:
    """The coroutine of an exchange's task: calls the application and handles its end.

    It does what an ``async def`` around the application would do, without a frame.
    """

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef PyObject *result = NULL

        if step_runner(self, value, &result):
            return take_result(result)
        Py_XDECREF(result)
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        if self.hosted and self.coroutine is None:
            self.over = True
            raise value
        try:
            if self.coroutine is None:
                raise value
            if self.adopted:
                self.adopted = self.marked = False
                future, self.waits_for = self.waits_for, None
                # As a task cancels what it waits for.
                if isinstance(value, CancelledError) and asyncio.isfuture(future):
                    future.cancel(*value.args)
                    if not future.done():  # a task, which ends later
                        future._asyncio_future_blocking = True
                        return future
            return self.coroutine.throw(value)
        except StopIteration:
            self._finish(None)
        except BaseException as error:
            self._finish(error)
        raise StopIteration

    def close(self):
        if self.coroutine is not None:
            self.coroutine.close()
        self.exchange = None

    cdef int _begin(self) except -1:
        cdef ApplicationExchange exchange = self.exchange

        if exchange is None:
            raise RuntimeError("the application was run already")
        scope, exchange.scope = exchange.scope, None
        coroutine = exchange.application.app(scope, exchange.receive, exchange.send)
        if not PyCoro_CheckExact(coroutine):
            if not isinstance(coroutine, collections.abc.Awaitable):
                raise TypeError(
                    f"the application {exchange.application.app!r} has returned "
                    f"{coroutine!r}, but must return an awaitable (ASGI 3.0)"
                )
            coroutine = await_it(coroutine)
        self.coroutine = coroutine
        return 0

    cdef int _finish(self, error) except -1:
        """Handle the end of the application; raise what ends its task, too."""
        cdef ApplicationExchange exchange = self.exchange

        self.coroutine = None
        self.exchange = None
        self.over = True
        exchange._ended(error)
        if error is not None and isinstance(error, (CancelledError, *FATAL)):
            raise error
        return 0

    cdef int _rouse(self) except -1:
        """Let the task of a host go on, which waits for an exchange."""
        wake, self.wake = self.wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)
        return 0

    def notice(self):
        """Record that the task of a host is in use."""
        self.noticed = True

    # What inspect.getcoroutinestate() and a task's stack ask for.

    @property
    def cr_running(self):
        return getattr(self.coroutine, "cr_running", False)

    @property
    def cr_suspended(self):
        return getattr(self.coroutine, "cr_suspended", False)

    @property
    def cr_frame(self):
        return getattr(self.coroutine, "cr_frame", None)

    @property
    def cr_code(self):
        return getattr(self.coroutine, "cr_code", None)

    @property
    def cr_await(self):
        return getattr(self.coroutine, "cr_await", None)


cdef int step_runner(self, value, PyObject **presult) except -1:
    """Advance the application: return 1 if it has yielded, 0 if it has ended."""
    cdef Runner runner = <Runner>self

    if runner.hosted:
        if runner.coroutine is None:
            if not runner.over:
                runner.idled = True
                runner.wake = get_running_loop().create_future()
                give(next(runner.wake.__await__()), presult)
                return 1
            if runner.error is not None:
                error, runner.error = runner.error, None
                raise error
            return give(None, presult)
        if runner.adopted:
            runner.adopted = False
            future, runner.waits_for = runner.waits_for, None
            if runner.marked:
                runner.marked = False
                future._asyncio_future_blocking = True
            # After asyncio.sleep(0), what was scheduled before comes first.
            if future is not None or not runner.idled:
                give(future, presult)
                return 1
    try:
        if runner.coroutine is None:
            runner._begin()
        if ngp_step(runner.coroutine, value, presult):
            return 1
        Py_XDECREF(presult[0])
        presult[0] = NULL
    except BaseException as error:
        runner._finish(error)
    else:
        runner._finish(None)
    return give(None, presult)


async def await_it(awaitable):
    return await awaitable


def raise_it(error):
    raise error


# ---- A task that exists before its exchange ----


class HostTask(Task):
    """The task of a host: what others do with it is noticed."""

    def cancel(self, msg=None):
        self.get_coro().notice()
        return super().cancel(msg)

    def add_done_callback(self, function, *, context=None):
        self.get_coro().notice()
        super().add_done_callback(function, context=context)

    def set_name(self, value):
        self.get_coro().notice()
        super().set_name(value)

    def __setattr__(self, name, value):
        self.get_coro().notice()
        super().__setattr__(name, value)


cdef class Host:
    """A task that is the current one while applications begin, until one has to wait.

    An application sees a task of its own, which is the same before and after it has
    waited.  If it ends without a wait, the next one sees the same task: unless the
    first could tell, because it has kept a reference, has cancelled or named it, or
    has set a context variable.
    """

    def __init__(self, Application application, loop, base):
        cdef Runner runner = Runner.__new__(Runner)

        runner.hosted = True
        self.application = application
        self.runner = runner
        self.loop = loop
        self.base = base
        self.context = PyContext_Copy(base)
        self.task = HostTask(runner, loop=loop, name=TASK_NAME, context=self.context)
        self.weak_references = getweakrefcount(self.task)

    cdef bint suits(self, loop, base) except -1:
        """Return whether the next application may begin here, in such a context."""
        self.references = Py_REFCNT(self.task)
        return (
            self.loop is loop
            and is_same(self.base, base)
            and not self.is_noticed()
            and not self.runner.over
        )

    cdef bint enter(self) except -1:
        """Make the task the current one; return False if there is another one."""
        PyContext_Enter(self.context)
        try:
            _enter_task(self.loop, self.task)
        except RuntimeError:
            PyContext_Exit(self.context)
            return False
        # The loop has one until the task has begun.
        self.references = Py_REFCNT(self.task)
        return True

    cdef int leave(self) except -1:
        """Restore the current task and context from before ``enter``."""
        _leave_task(self.loop, self.task)
        PyContext_Exit(self.context)
        return 0

    cdef bint run(self, ApplicationExchange exchange) except -1:
        """Run an application until it ends or has to wait.

        Return whether the next one may begin here; if not, the host is left.
        """
        cdef Runner runner = self.runner
        cdef PyObject *result = NULL
        cdef bint waits = False

        runner.exchange = exchange
        exchange.task = self.task
        try:
            runner._begin()
            waits = ngp_step(runner.coroutine, None, &result)
        except FATAL as error:
            self.leave()
            self.retire()
            # It ends the loop, as from a task; uvloop drops it in a callback of reads.
            self.loop.call_soon(raise_it, error)
            try:
                runner._finish(error)
            except FATAL:
                pass
            return False
        except BaseException as error:
            self._fail(error)
        else:
            value = take_result(result)
            if waits:
                self.leave()
                self._adopt(exchange, value)
                return False
            runner._finish(None)
        if self.is_noticed():
            self.leave()
            self.retire()
            return False
        runner.over = False
        runner.error = None
        return True

    cdef int _fail(self, error) except -1:
        try:
            self.runner._finish(error)
        except CancelledError as cancelled:
            self.runner.error = cancelled  # raised where the task ends
        return 0

    cdef int _adopt(self, ApplicationExchange exchange, future) except -1:
        """Give the task to an application that has to wait."""
        cdef Runner runner = self.runner

        runner.adopted = True
        runner.waits_for = future
        if getattr(future, "_asyncio_future_blocking", False):
            # The task sets the mark again.  Others may wait for the same meanwhile.
            runner.marked = True
            future._asyncio_future_blocking = False
        runner._rouse()
        # The client may have gone together with its request.
        if exchange.disconnected:
            exchange._start_grace()
        if exchange._gone:
            exchange.watch_task()
        return 0

    cdef bint is_noticed(self) except -1:
        """Return whether an application has kept or changed something of the task."""
        return (
            Py_REFCNT(self.task) != self.references
            or self.runner.noticed
            or getweakrefcount(self.task) != self.weak_references
            or not is_same(self.context, self.base)
        )

    cdef int retire(self) except -1:
        """End the task, which runs no other application."""
        self.runner.over = True
        return self.runner._rouse()


cdef bint is_same(context, other) except -1:
    """Return whether contexts have the same objects as values.

    Equal ones do not do: what a task has set, it may change later.
    """
    cdef Py_ssize_t count = len(context)

    if count != len(other):
        return False
    if not count:
        return True
    for variable, value in context.items():
        if other.get(variable, other) is not value:
            return False
    return True


# ---- What receive() and send() return ----


@cython.freelist(64)
cdef class Call:
    """An awaitable of ``receive()`` or ``send()``, done at the first step if it can be.

    Nothing happens before it is awaited, as with a coroutine.
    """

    cdef ApplicationExchange exchange
    cdef object message
    cdef object rest  # finishes the call
    cdef bint sends
    cdef bint begun

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef PyObject *result = NULL

        if step_call(self, value, &result):
            return take_result(result)
        message = take_result(result)
        if message is None:
            raise StopIteration
        raise StopIteration(message)

    def throw(self, kind, value=None, traceback=None):
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        self.begun = True
        if self.rest is None:
            raise value
        return self.rest.throw(value)

    def close(self):
        self.begun = True
        if self.rest is not None:
            self.rest.close()

    def __dealloc__(self):
        if not self.begun:
            warn_not_awaited(self.sends)

    @property
    def cr_running(self):
        return False

    @property
    def cr_suspended(self):
        return self.rest is not None

    @property
    def cr_frame(self):
        return getattr(self.rest, "cr_frame", None)

    @property
    def cr_code(self):
        return getattr(self.rest, "cr_code", None)

    @property
    def cr_await(self):
        return getattr(self.rest, "cr_await", None)


cdef int step_call(self, value, PyObject **presult) except -1:
    """Advance a call: return 1 if it has to wait, 0 if it is done."""
    cdef Call call = <Call>self

    if call.rest is None:
        if call.begun:
            raise RuntimeError("cannot await receive() or send() a second time")
        call.begun = True
        if call.sends:
            message, call.message = call.message, None
            call.rest = call.exchange.send_message(message)
            if call.rest is None:
                return give(None, presult)
        else:
            message = call.exchange.take_message()
            if message is not None:
                return give(message, presult)
            call.rest = call.exchange.wait_message()
    return ngp_step(call.rest, value, presult)


cdef int warn_not_awaited(bint sends) except -1:
    name = "send" if sends else "receive"
    warnings.warn(f"'{name}()' was never awaited", RuntimeWarning, stacklevel=2)
    return 0


# asyncio's tasks, wait_for() and gather() take them for coroutines.
ngp_call_prepare(Call, step_call)
ngp_runner_prepare(Runner, step_runner)
collections.abc.Coroutine.register(Runner)
collections.abc.Coroutine.register(Call)


cdef dict check_message(message):
    """Return a message that ``send()`` was given, as a dict that has a type."""
    cdef dict checked

    if type(message) is not dict:
        if not isinstance(message, collections.abc.Mapping):
            raise ASGIMessageError(
                f"send() was given {message!r}, but a message must be a dict"
            )
        message = dict(message)
    checked = message
    kind = checked.get(TYPE)
    if not isinstance(kind, str):
        raise ASGIMessageError(
            "a message must have a type, a str" if kind is None
            else f"the type of a message must be a str, not {kind!r}"
        )
    if type(kind) is not str:  # such as a member of an enumeration
        checked = dict(checked)
        checked[TYPE] = str.__str__(kind)
    return checked


cdef str message_type(message):
    """Return the type of a message that ``send()`` was given."""
    return check_message(message)[TYPE]
