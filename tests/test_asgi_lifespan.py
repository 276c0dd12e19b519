"""The lifespan of an application: its modes, failures and time limits."""

import asyncio
import contextvars
import logging

import pytest
from loops import in_loop

from nghttp2py.asgi.lifespan import Lifespan
from nghttp2py.errors import LifespanError

SHORT = 0.05

variable = contextvars.ContextVar("variable", default="unset")


class App:
    """An application whose messages a test reads, and which notes its tasks."""

    def __init__(self, startup="complete", shutdown="complete", **failure):
        self.answers = {"startup": startup, "shutdown": shutdown}
        self.failure = failure
        self.seen = []
        self.tasks = set()

    async def __call__(self, scope, receive, send):
        self.scope = scope
        for _ in range(2):
            message = await receive()
            self.tasks.add(asyncio.current_task())
            self.seen.append(message["type"])
            phase = message["type"].partition(".")[2]
            answer = self.answers[phase]
            if isinstance(answer, BaseException):
                raise answer
            if answer == "nothing":
                await asyncio.Event().wait()
            if phase == "startup":
                scope["state"]["pool"] = "open"
                variable.set("set at startup")
            message = {"type": f"lifespan.{phase}.{answer}"}
            if answer == "failed":
                message.update(self.failure)
            await send(message)


async def no_lifespan(scope, receive, send):
    assert scope["type"] == "http", "only http"


async def returns(scope, receive, send):
    return


@pytest.mark.parametrize("mode", ["auto", "on"])
@in_loop
async def test_one_task_sees_startup_and_shutdown(mode):
    app = App()
    lifespan = Lifespan(app, mode)
    await lifespan.startup()
    assert app.seen == ["lifespan.startup"]
    await lifespan.shutdown()
    assert app.seen == ["lifespan.startup", "lifespan.shutdown"]
    assert len(app.tasks) == 1
    assert app.scope["type"] == "lifespan"
    assert app.scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}


@in_loop
async def test_off_sends_nothing_to_the_application():
    app = App()
    lifespan = Lifespan(app, "off")
    await lifespan.startup()
    await lifespan.shutdown()
    assert app.seen == []


@in_loop
async def test_what_the_application_has_set_is_for_its_requests():
    lifespan = Lifespan(App())
    await lifespan.startup()
    assert lifespan.state == {"pool": "open"}
    assert lifespan.context[variable] == "set at startup"
    assert variable.get() == "unset"
    await lifespan.shutdown()


# ---- Applications without a lifespan ----


@pytest.mark.parametrize("app", [no_lifespan, returns])
@in_loop
async def test_an_application_without_a_lifespan_is_served_in_the_mode_auto(
    app, caplog
):
    caplog.set_level(logging.INFO)
    lifespan = Lifespan(app)
    await lifespan.startup()
    await lifespan.shutdown()
    assert "the application has no lifespan" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("app", [no_lifespan, returns])
@in_loop
async def test_an_application_without_a_lifespan_fails_in_the_mode_on(app):
    with pytest.raises(LifespanError, match="the application has no lifespan"):
        await Lifespan(app, "on").startup()


@in_loop
async def test_an_exception_at_startup_is_logged_with_its_traceback(caplog):
    lifespan = Lifespan(App(startup=LookupError("no database")))
    await lifespan.startup()
    await lifespan.shutdown()
    assert "the application has raised while it started" in caplog.text
    assert "LookupError: no database" in caplog.text


# ---- Failures ----


@pytest.mark.parametrize("mode", ["auto", "on"])
@in_loop
async def test_a_startup_that_failed_raises_with_its_message(mode):
    app = App(startup="failed", message="no database")
    with pytest.raises(LifespanError) as caught:
        await Lifespan(app, mode).startup()
    assert str(caught.value) == "the application has failed to start: no database"


@in_loop
async def test_a_traceback_as_the_message_becomes_the_details():
    app = App(startup="failed", message="Traceback:\n  line\nLookupError")
    with pytest.raises(LifespanError) as caught:
        await Lifespan(app).startup()
    assert str(caught.value) == "the application has failed to start"
    assert caught.value.details == "Traceback:\n  line\nLookupError\n"


@in_loop
async def test_what_is_raised_after_an_empty_message_is_named():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed"})
        raise LookupError("no database")

    with pytest.raises(LifespanError, match="LookupError"):
        await Lifespan(app).startup()


@in_loop
async def test_a_failed_startup_is_not_followed_by_a_shutdown():
    app = App(startup="failed")
    lifespan = Lifespan(app)
    with pytest.raises(LifespanError):
        await lifespan.startup()
    await lifespan.shutdown()
    assert app.seen == ["lifespan.startup"]


@in_loop
async def test_a_shutdown_that_failed_is_logged(caplog):
    lifespan = Lifespan(App(shutdown="failed", message="pool is stuck"))
    await lifespan.startup()
    await lifespan.shutdown()
    assert "the application has failed to stop: pool is stuck" in caplog.text


@in_loop
async def test_an_exception_at_shutdown_is_logged(caplog):
    lifespan = Lifespan(App(shutdown=LookupError("pool is lost")))
    await lifespan.startup()
    await lifespan.shutdown()
    assert "the application has raised while it stopped" in caplog.text
    assert "LookupError: pool is lost" in caplog.text


@in_loop
async def test_a_lifespan_that_ended_before_its_shutdown_is_no_failure(caplog):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})

    lifespan = Lifespan(app, "on")
    await lifespan.startup()
    await lifespan.shutdown()
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


# ---- Time limits and cancellation ----


@in_loop
async def test_a_startup_has_a_time_limit():
    app = App(startup="nothing")
    with pytest.raises(LifespanError, match=r"has not started within 0\.05 seconds"):
        await Lifespan(app, startup_timeout=SHORT).startup()
    assert all(task.done() for task in app.tasks)


@in_loop
async def test_a_shutdown_has_a_time_limit(caplog):
    app = App(shutdown="nothing")
    lifespan = Lifespan(app, shutdown_timeout=SHORT)
    await lifespan.startup()
    await lifespan.shutdown()
    assert "has not stopped within 0.05 seconds" in caplog.text
    assert all(task.done() for task in app.tasks)


@in_loop
async def test_a_startup_that_is_cancelled_ends_the_application():
    app = App(startup="nothing")
    lifespan = Lifespan(app)
    starting = asyncio.ensure_future(lifespan.startup())
    while not app.tasks:
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert all(task.done() for task in app.tasks)
    await lifespan.shutdown()
    assert app.seen == ["lifespan.startup"]


@in_loop
async def test_a_second_shutdown_is_a_no_op():
    app = App()
    lifespan = Lifespan(app)
    await lifespan.startup()
    await lifespan.shutdown()
    await lifespan.shutdown()
    assert app.seen == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        (["http.response.start"], ValueError),
        (["lifespan.startup.complete"] * 2, RuntimeError),
        (["lifespan.shutdown.complete"], RuntimeError),
    ],
)
@in_loop
async def test_messages_at_the_wrong_time_raise_in_the_application(kinds, error):
    raised = []

    async def app(scope, receive, send):
        await receive()
        try:
            for kind in kinds:
                await send({"type": kind})
        except Exception as caught:
            raised.append(type(caught))

    await Lifespan(app).startup()
    await asyncio.sleep(0)
    assert raised == [error]


@pytest.mark.parametrize(
    "options",
    [{"mode": "maybe"}, {"startup_timeout": 0}, {"shutdown_timeout": float("inf")}],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match=r"lifespan|timeout"):
        Lifespan(no_lifespan, **options)
