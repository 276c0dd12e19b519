"""Applications are found by name, and served by the interface that they have."""

import functools
import sys

import pytest
from loops import in_loop

from nghttp2py.asgi.config import Config
from nghttp2py.asgi.loading import find_interface, load_application
from nghttp2py.asgi.wsgi import THREADS
from nghttp2py.errors import ApplicationError

APPLICATION = """
async def app(scope, receive, send):
    await send({"type": "answer"})

class site:
    inner = app
    nothing = None

def create():
    return app

async def late():
    return app

def broken():
    raise LookupError("no settings")

def wrong():
    return 7

text = "not an application"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write modules into a directory, from which each test imports them anew."""
    before = dict(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, name="mainmodule"):
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return tmp_path

    yield write
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def refusal(name, **options):
    with pytest.raises(ApplicationError) as caught:
        load_application(name, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def answer(app):
    """What an application of the module sends, as it is loaded."""
    sent = []

    async def receive():
        return {}

    async def send(message):
        sent.append(message["type"])

    @in_loop
    async def run():
        await app({"type": "http"}, receive, send)

    run()
    return sent


@pytest.mark.parametrize("name", ["app", "site.inner", "create()", "create"])
def test_an_application_is_an_attribute_of_a_module(module, name):
    directory = module(APPLICATION)
    app = load_application(f"mainmodule:{name}", app_dir=directory)
    assert answer(app) == ["answer"]


def test_a_factory_is_called(module):
    directory = module(APPLICATION)
    for name in "mainmodule:create", "mainmodule:create()":
        app = load_application(name, factory=True, app_dir=directory)
        assert answer(app) == ["answer"]


def test_a_factory_that_is_not_named_as_such_is_called_with_a_warning(module, caplog):
    load_application("mainmodule:create", app_dir=module(APPLICATION))
    assert "mainmodule:create takes no arguments" in caplog.text


def test_a_directory_stands_first_and_once_in_the_path(module):
    directory = module(APPLICATION)
    for _ in range(2):
        load_application("mainmodule:app", app_dir=directory)
    assert sys.path[0] == str(directory)
    assert sys.path.count(str(directory)) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nomodule:app", "there is no module 'nomodule'"),
        ("mainmodule.sub:app", "there is no module 'mainmodule.sub'"),
        ("nopackage.sub:app", "there is no module 'nopackage' (in 'nopackage.sub')"),
        ("mainmodule:ap", "module 'mainmodule' has no attribute 'ap'; it has 'app'"),
        ("mainmodule:site.no", "mainmodule:site has no attribute 'no'"),
        ("mainmodule:text", "mainmodule:text is not callable: it is a str"),
        ("mainmodule:text()", "mainmodule:text is not callable: it is a str"),
        ("mainmodule:site.nothing", "is not callable: it is a NoneType"),
        ("mainmodule:wrong()", "must return an application, not an int"),
        ("mainmodule:late()", "is a coroutine function"),
        ("mainmodule", "write module:attribute, such as mainmodule:app"),
        ("mainmodule.py", "write the module, not its file: mainmodule:app"),
        ("dir/main.py:api", "write the module, not its file: dir.main:api"),
        ("main module:app", "'main module:app' is no name of an application"),
        ("", "write module:attribute"),
        (":app", "write module:attribute"),
    ],
)
def test_a_name_without_an_application_is_refused_in_one_line(module, name, sentence):
    error = refusal(name, app_dir=module(APPLICATION))
    assert sentence in str(error)
    assert error.details == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 / 0", "module 'mainmodule' cannot be imported: ZeroDivisionError: "),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere"),
        ("from os import no_such_name", "ImportError: cannot import name"),
        ("x = (", "cannot be imported: SyntaxError: "),
    ],
)
def test_an_error_inside_a_module_has_the_traceback_of_the_module(
    module, text, sentence
):
    error = refusal("mainmodule:app", app_dir=module(f"# first line\n{text}\n"))
    assert sentence in str(error)
    assert "mainmodule.py" in error.details
    assert "loading.py" not in error.details
    assert "importlib" not in error.details


def test_an_error_inside_a_factory_has_its_traceback(module):
    error = refusal("mainmodule:broken()", app_dir=module(APPLICATION))
    assert (
        str(error) == "the factory mainmodule:broken failed: LookupError: no settings"
    )
    assert 'raise LookupError("no settings")' in error.details
    assert "loading.py" not in error.details


# ---- Interfaces ----


async def asgi3(scope, receive, send):
    pass


def asgi3_by_task(scope, receive, send):
    return asgi3(scope, receive, send)


class ASGI3:
    async def __call__(self, scope, receive, send):
        pass


class ASGI3Class:
    def __init__(self, scope, receive, send):
        pass

    def __await__(self):
        yield from ()


class ASGI2:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        await send({"type": self.scope["type"]})


def asgi2(scope):
    return functools.partial(ASGI2.__call__, ASGI2(scope))


def wsgi(environ, start_response):
    return []


class WSGI:
    def __call__(self, environ, start_response):
        return []


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (asgi3, "asgi3"),
        (asgi3_by_task, "asgi3"),
        (ASGI3(), "asgi3"),
        (ASGI3().__call__, "asgi3"),
        (ASGI3Class, "asgi3"),
        (functools.partial(lambda x, *args: asgi3(*args), 1), "asgi3"),
        (lambda *args, **kwargs: asgi3(*args, **kwargs), "asgi3"),
        (ASGI2, "asgi2"),
        (asgi2, "asgi2"),
        (wsgi, "wsgi"),
        (WSGI(), "wsgi"),
    ],
)
def test_the_interface_is_read_from_the_signature(app, interface):
    assert find_interface(app) == interface


async def handler(stream):
    pass


@pytest.mark.parametrize("app", [handler, lambda: None, lambda a, b, c, d: None])
def test_what_has_no_interface_is_refused(app):
    with pytest.raises(ApplicationError, match="is no ASGI application: it takes"):
        find_interface(app)


@pytest.mark.parametrize("app", [ASGI2, asgi2])
def test_an_application_of_asgi_2_is_called_twice(app):
    assert answer(load_application(app)) == ["http"]


def test_the_interface_can_be_given():
    def app(*arguments):
        return asgi2(*arguments)

    assert answer(load_application(app, interface="asgi2")) == ["http"]


def test_a_class_without_arguments_is_a_factory():
    class Framework:
        def __init__(self, debug=False, routes=None, middleware=None):
            pass

        async def __call__(self, scope, receive, send):
            await send({"type": "framework"})

    assert answer(load_application(Framework)) == ["framework"]


def test_a_wsgi_application_has_as_many_threads_as_are_asked_for(monkeypatch):
    given = []
    monkeypatch.setattr(
        "nghttp2py.asgi.loading.wrap_wsgi", lambda app, threads: given.append(threads)
    )
    load_application(wsgi)
    Config(wsgi, wsgi_threads=3).load()
    assert given == [THREADS, 3]
