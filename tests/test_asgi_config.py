"""One table has every option: for Python, files, the environment and the command."""

import json
import logging
import ssl
import sys
from pathlib import Path

import pytest
from option_table import table

from nghttp2py.asgi.binds import Bind, to_bind
from nghttp2py.asgi.config import (
    OPTIONS,
    Config,
    find_binds,
    find_unknown_variables,
    load_config,
    make_config,
    read_env_file,
)
from nghttp2py.asgi.logs import LOGGING_CONFIG, Formatter, configure_logging
from nghttp2py.errors import ConfigurationError


async def app(scope, receive, send):
    pass


# ---- The table ----


def test_every_option_has_a_help_and_a_default_of_its_kind():
    for name, option in OPTIONS.items():
        assert option.help.endswith("."), name
        assert option.kind.check(name, option.default) == option.default, name
        assert option.default_text, name
        assert option.group, name


def test_the_text_of_a_default_stands_for_it():
    for name, option in OPTIONS.items():
        if not option.hint and option.default not in ("", [], LOGGING_CONFIG):
            shown = option.kind.parse(name, option.default_text)
            assert shown == option.default, name


def test_the_page_of_options_has_the_table():
    """``python tests/option_table.py > docs/asgi_options.rst`` writes it."""
    page = Path(__file__).parent.parent / "docs" / "asgi_options.rst"
    assert page.read_text() == table()


def test_names_are_those_of_uvicorn():
    names = (
        "host port uds fd factory app_dir lifespan interface root_path proxy_headers "
        "forwarded_allow_ips limit_concurrency backlog timeout_keep_alive "
        "timeout_graceful_shutdown ssl_keyfile ssl_certfile ssl_keyfile_password "
        "ssl_ca_certs ssl_cert_reqs ssl_ciphers log_config log_level access_log "
        "use_colors server_header date_header headers loop reset_contextvars workers "
        "limit_max_requests limit_max_requests_jitter timeout_worker_healthcheck "
        "ws_max_size ws_max_queue ws_ping_interval ws_ping_timeout "
        "ws_per_message_deflate"
    )
    assert set(names.split()) <= set(OPTIONS)


def test_a_value_is_checked_when_it_is_given_and_when_it_is_assigned():
    with pytest.raises(ValueError, match="port is 70000, but must be from 0 to 65535"):
        Config(app, port=70000)
    config = Config(app)
    with pytest.raises(TypeError, match="access_log must be a bool, not 'yes'"):
        config.access_log = "yes"
    config.port = 5000
    assert config.port == 5000


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"host": ""}, "host must not be empty"),
        ({"interface": "rsgi"}, "interface must be one of auto, asgi3, asgi2, wsgi"),
        ({"timeout_keep_alive": 0}, "timeout_keep_alive must be positive"),
        ({"timeout_keep_alive": float("nan")}, "timeout_keep_alive must be positive"),
        ({"log_level": "loud"}, "log_level must be one of critical, error"),
        ({"headers": [("a b", "c")]}, "'a b' in headers is no name of a field"),
        ({"headers": [("a", "b\r\nc: d")]}, "in headers is no value of a field"),
        ({"headers": ["a"]}, "headers must be 'name: value', not 'a'"),
        ({"ssl_cert_reqs": 3}, "ssl_cert_reqs must be one of none, optional, required"),
        ({"forwarded_allow_ips": "proxy"}, "forwarded_allow_ips: "),
        ({"forwarded_fields": ["by"]}, "forwarded_fields must be of for, proto, host"),
        ({"bind": [""]}, "bind must hold no empty str"),
        ({"proxy_protocol": "v3"}, "proxy_protocol must be one of off, v1, v2, auto"),
        ({"proxy_allow_from": "proxy"}, "proxy_allow_from: "),
        ({"uds_permissions": "888"}, "uds_permissions must be octal digits"),
    ],
)
def test_an_invalid_value_is_named_with_its_rule(options, sentence):
    with pytest.raises(ValueError) as caught:
        Config(app, **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hots", "did you mean host?"),
        ("certfile", "use ssl_certfile"),
        ("ws", "every version has WebSockets"),
        ("ws", "every version has WebSockets"),
        ("nothing_like_it", "there is no option 'nothing_like_it'"),
    ],
)
def test_an_unknown_option_is_named_with_the_one_that_was_meant(name, hint):
    with pytest.raises(TypeError) as caught:
        make_config(app, {name: "x"})
    assert hint in str(caught.value)
    with pytest.raises(AttributeError, match=f"no option '{name}'"):
        setattr(Config(app), name, "x")


def test_what_uvicorn_does_by_default_may_be_asked_for():
    options = {"http": "auto", "ws": "auto", "port": 80}
    assert make_config(app, options).port == 80
    with pytest.raises(TypeError, match="every version has WebSockets"):
        make_config(app, {"ws": "wsproto"})


def test_values_of_uvicorn_and_hypercorn_are_taken():
    config = Config(
        app,
        headers=[("X-One", "1"), (b"x-two", b"2")],
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        bind="127.0.0.1:80",
        log_level=logging.DEBUG,
        forwarded_allow_ips=["10.0.0.0/8", "::1"],
    )
    assert config.headers == [("X-One", "1"), ("x-two", "2")]
    assert config.ssl_cert_reqs is ssl.CERT_REQUIRED
    assert config.bind == ["127.0.0.1:80"]
    assert Config(app, ssl_certfile=Path("a")).ssl_certfile == ["a"]
    assert Config(app, ssl_certfile=["a", Path("b")]).ssl_certfile == ["a", "b"]
    assert Config(app, ssl_certfile=None, ssl_keyfile=None).ssl_keyfile == []
    assert Config(app, ssl_cert_reqs="optional").ssl_cert_reqs is ssl.CERT_OPTIONAL


def test_a_password_is_not_shown():
    assert "secret" not in repr(Config(app, ssl_keyfile_password="secret"))


# ---- Where to listen ----


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:80", Bind(host="127.0.0.1", port=80)),
        ("[::1]:443", Bind(host="::1", port=443)),
        ("[::]", Bind(host="::", port=8000)),
        ("localhost", Bind(host="localhost", port=8000)),
        (":80", Bind(host=None, port=80)),
        ("unix:/run/app.sock", Bind(path="/run/app.sock")),
        ("unix:///run/app.sock", Bind(path="/run/app.sock")),
        ("unix:@app", Bind(path="\0app")),
        ("fd://3", Bind(fd=3)),
    ],
)
def test_an_address_is_a_text(text, bind):
    assert to_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    [
        "::1:80",
        "http://localhost",
        "localhost:99999",
        "localhost:http",
        "unix:",
        "fd://x",
        "[::1",
        "",
        ":",
    ],
)
def test_what_is_no_address_is_named(text):
    with pytest.raises(ConfigurationError) as caught:
        to_bind(text)
    assert repr(text) in str(caught.value)


def test_bind_is_instead_of_the_others():
    assert find_binds(Config(app)) == [Bind(host="127.0.0.1", port=8000)]
    assert find_binds(Config(app, uds="/s")) == [Bind(path="/s")]
    assert find_binds(Config(app, fd=3)) == [Bind(fd=3)]
    two = Config(app, bind=["unix:/s", "[::]:1"])
    assert find_binds(two) == [Bind(path="/s"), Bind(host="::", port=1)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bind": ["a:1"], "port": 80}, "give bind or port, not both"),
        ({"bind": ["a:1"], "uds": "/s"}, "give bind or uds, not both"),
        ({"uds": "/s", "fd": 3}, "give uds or fd, not both"),
        ({"ssl_keyfile": "key.pem"}, "ssl_keyfile needs ssl_certfile"),
        ({"insecure_bind": ["a:1"]}, "insecure_bind needs ssl_certfile"),
        ({"http3": True}, "http3 needs ssl_certfile"),
        ({"ssl_cert_reqs": 2}, "ssl_cert_reqs needs ssl_certfile"),
        ({"bind": ["nonsense:x"]}, "'nonsense:x' is no address"),
        (
            {"http3": True, "ssl_certfile": "c", "uds": "/s"},
            "http3 needs a port: a Unix socket has no UDP",
        ),
    ],
)
def test_options_that_exclude_each_other_are_named(options, sentence):
    with pytest.raises(ConfigurationError) as caught:
        Config(app, **options).check()
    assert sentence in str(caught.value)


# ---- Files and the environment ----


def test_the_command_line_precedes_the_environment_and_this_the_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('app = "a:b"\nport = 1\nhost = "h"\nlog-level = "error"\n')
    environ = {"NGHTTP2PY_PORT": "2", "NGHTTP2PY_LOG_LEVEL": "debug"}
    config = load_config(file=file, environ=environ, options={"port": 3})
    assert (config.app, config.port, config.host) == ("a:b", 3, "h")
    assert config.log_level == "debug"


def test_every_option_can_be_in_the_environment():
    texts = {
        "BIND": "127.0.0.1:1, unix:/s",
        "HEADERS": "x-a: 1\nx-b: 2, 3",
        "ACCESS_LOG": "no",
        "HTTP3": "off",
        "TIMEOUT_BODY": "none",
        "TIMEOUT_KEEP_ALIVE": "1.5",
        "LIMIT_CONCURRENCY": "100",
        "SSL_CERT_REQS": "required",
        "APP": "main:app",
    }
    environ = {f"NGHTTP2PY_{name}": text for name, text in texts.items()}
    config = load_config(environ=environ)
    assert config.bind == ["127.0.0.1:1", "unix:/s"]
    assert config.headers == [("x-a", "1"), ("x-b", "2, 3")]
    assert (config.access_log, config.http3) == (False, False)
    assert (config.timeout_body, config.timeout_keep_alive) == (None, 1.5)
    assert config.limit_concurrency == 100
    assert config.ssl_cert_reqs is ssl.CERT_REQUIRED
    assert config.app == "main:app"


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("PORT", "http", "$NGHTTP2PY_PORT: port must be an integer, not 'http'"),
        ("ACCESS_LOG", "maybe", "access_log must be true or false, not 'maybe'"),
        ("TIMEOUT_BODY", "long", "timeout_body must be a number of seconds"),
    ],
)
def test_an_invalid_variable_is_named(variable, text, sentence):
    with pytest.raises(ConfigurationError) as caught:
        load_config(environ={f"NGHTTP2PY_{variable}": text})
    assert sentence in str(caught.value)


def test_a_variable_that_is_no_option_is_named():
    known = "APP", "CONFIG", "ENV_FILE", "SERVE_AUTH", "DEBUG", "PORT", "SSL_CERTFILE"
    environ = {f"NGHTTP2PY_{name}": "" for name in known}
    assert find_unknown_variables({**environ, "PROT": "1"}) == []
    for name in "PROT", "CERTFILE", "XYZZY":
        environ[f"NGHTTP2PY_{name}"] = "1"
    assert find_unknown_variables(environ) == [
        "$NGHTTP2PY_CERTFILE is ignored: there is no such option: "
        "use $NGHTTP2PY_SSL_CERTFILE",
        "$NGHTTP2PY_PROT is ignored: there is no such option: "
        "did you mean $NGHTTP2PY_PORT?",
        "$NGHTTP2PY_XYZZY is ignored: there is no such option",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = [", "is no TOML"),
        ('port = "80"', "port must be an int, not '80'"),
        ("prot = 80", "the unknown option 'prot': did you mean port?"),
        ("[server]\nport = 1", "the unknown option 'server'"),
        (None, "cannot read"),
    ],
)
def test_an_invalid_file_is_named(tmp_path, text, sentence):
    file = tmp_path / "config.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(file=file, environ={})
    assert sentence in str(caught.value)
    assert "config.toml" in str(caught.value)


def test_a_file_of_variables_is_read(tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n\nA=1\nexport B = two words # said\n"
        'C=\'it # is\'\nD="a \\"b\\"\\nc" # x\nE=\n'
    )
    assert read_env_file(file) == {
        "A": "1",
        "B": "two words",
        "C": "it # is",
        "D": 'a "b"\nc',
        "E": "",
    }
    file.write_text("A=1\nnonsense\n")
    with pytest.raises(ConfigurationError, match="line 2, is not NAME=value"):
        read_env_file(file)


def test_trusted_proxies_come_from_the_environment_of_others_too(monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.0/8")
    assert Config(app).proxy_policy().trusts(("10.1.2.3", 1))
    assert not Config(app).proxy_policy().trusts(("127.0.0.1", 1))
    given = Config(app, forwarded_allow_ips="127.0.0.1")
    assert given.proxy_policy().trusts(("127.0.0.1", 1))
    assert Config(app, proxy_headers=False).proxy_policy() is None
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "nonsense!")
    with pytest.raises(ConfigurationError, match=r"\$FORWARDED_ALLOW_IPS"):
        Config(app).proxy_policy()


# ---- The application ----


def test_the_application_is_loaded_once():
    calls = []

    def factory():
        calls.append(1)
        return app

    config = Config(factory, factory=True)
    assert not config.loaded
    assert config.load() is app
    assert config.loaded_app is app
    assert config.loaded
    assert calls == [1]
    with pytest.raises(ConfigurationError, match="there is no application"):
        Config().load()


# ---- Logging ----


@pytest.fixture
def loggers():
    """Restore what a test does to our loggers."""
    names = ["nghttp2py", "nghttp2py.asyncio", "nghttp2py.access"]
    kept = [
        (logger, logger.handlers[:], logger.level, logger.propagate)
        for logger in map(logging.getLogger, names)
    ]
    yield
    for logger, handlers, level, propagate in kept:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_requests_are_on_standard_output_and_the_rest_on_standard_error(
    loggers, capsys
):
    configure_logging(LOGGING_CONFIG)
    logging.getLogger("nghttp2py.access").info("a request")
    logging.getLogger("nghttp2py.asgi.server").info("a line")
    logging.getLogger("nghttp2py.asyncio.pump").info("a fault of a client")
    captured = capsys.readouterr()
    assert captured.out == "INFO:     a request\n"
    assert captured.err == "INFO:     a line\n"


def test_levels_are_set(loggers, capsys):
    Config(app, log_level="trace", access_log=False).configure_logging()
    logging.getLogger("nghttp2py.asyncio.pump").info("a fault of a client")
    logging.getLogger("nghttp2py.access").info("a request")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "INFO:     a fault of a client\n")
    configure_logging(LOGGING_CONFIG, level="error")
    logging.getLogger("nghttp2py.asgi.server").warning("a line")
    logging.getLogger("nghttp2py.access").info("a request")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_requests_have_a_format(loggers, capsys):
    Config(app, access_logformat="json").configure_logging()
    logging.getLogger("nghttp2py.access").info("a request")
    assert json.loads(capsys.readouterr().out)["message"] == "a request"
    with pytest.raises(ValueError, match="access_logformat: "):
        Config(app, access_logformat="%(nothing)s")


def test_colors_can_be_had(loggers, capsys):
    configure_logging(LOGGING_CONFIG, use_colors=True)
    logging.getLogger("nghttp2py").error("red")
    assert capsys.readouterr().err == "\x1b[31mERROR\x1b[0m:    red\n"


INI = """
[loggers]
keys=root,own
[handlers]
keys=out
[formatters]
keys=plain
[logger_root]
handlers=
[logger_own]
qualname=nghttp2py
level=INFO
propagate=0
handlers=out
[handler_out]
class=StreamHandler
args=(sys.stdout,)
formatter=plain
[formatter_plain]
format=ours %(message)s
"""

CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "ours %(message)s"}},
    "handlers": {
        "out": {
            "class": "logging.StreamHandler",
            "formatter": "plain",
            "stream": "ext://sys.stdout",
        }
    },
    "loggers": {
        "nghttp2py": {"level": "INFO", "handlers": ["out"], "propagate": False}
    },
}


@pytest.mark.parametrize(
    ("name", "text"),
    # JSON is YAML.
    [("a.ini", INI), ("a.json", json.dumps(CONFIG)), ("a.yaml", json.dumps(CONFIG))],
)
def test_a_file_configures_logging(loggers, capsys, tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    root = logging.getLogger().handlers[:]
    try:
        Config(app, log_config=file).configure_logging()
        logging.getLogger("nghttp2py.asgi").info("a line")
        assert capsys.readouterr().out == "ours a line\n"
    finally:
        logging.getLogger().handlers[:] = root


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "[]", "is no configuration of logging"),
        ("a.json", '{"version": 7}', "is no configuration of logging: "),
        ("a.yaml", "a: [", "is no YAML"),
        ("a.ini", "[loggers", "is no configuration of logging: "),
        ("a.json", None, "cannot read log_config"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, name, text, sentence):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        configure_logging(str(file))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_has_no_colors_without_a_terminal():
    record = logging.LogRecord("x", logging.INFO, "", 1, "text", (), None)
    assert Formatter("%(levelprefix)s%(message)s").format(record) == "INFO:     text"


def test_metrics_without_their_package_are_found_before_the_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match="need the prometheus-client package"):
        Config("main:app", metrics_port=9090).check()


def test_logging_is_configured_once_for_a_configuration(monkeypatch):
    """The command does it before the application is imported, and the server after."""
    calls = []
    monkeypatch.setattr(
        "nghttp2py.asgi.config.configure_logging",
        lambda *given, **options: calls.append(options["level"]),
    )
    config = Config("main:app", log_level="info")
    config.configure_logging()
    config.configure_logging()
    config.log_level = "debug"
    config.configure_logging()
    assert calls == ["info", "debug"]
