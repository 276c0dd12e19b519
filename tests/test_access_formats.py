"""Formats of the access log: gunicorn's atoms, JSON, and what they keep."""

import asyncio
import json
import logging
import logging.config
import os
import pickle
import re

import pytest
from exchanges import both_versions, serving_app
from loops import in_loop, until

from nghttp2py import access
from nghttp2py.access_formats import (
    COMBINED,
    JSONAccessFormatter,
    as_dict,
    compile_format,
    make_formatter,
)
from nghttp2py.asyncio import Server


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    """What one test asks to be kept is not kept for others."""
    yield
    access.details.clear()


def exchange(**changes):
    entry = access.Exchange(
        *("HTTP/2", ("192.0.2.1", 5000), b"GET", b"/a?b=c", 200, 12, 1.5),
        *(0, True),
    )._replace(**{k: v for k, v in changes.items() if k in access.Exchange._fields})
    entry.scheme = b"https"
    entry.request_fields = changes.get(
        "request_fields",
        (
            (b":authority", b"example.org"),
            (b"referer", b"https://example.org/"),
            (b"user-agent", b"curl/8"),
            (b"authorization", b"Basic dXNlcjpwYXNz"),
        ),
    )
    entry.response_fields = changes.get(
        "response_fields", [("Content-Type", "text/html"), (b"x-n", 5)]
    )
    return entry


def line(format, **changes):
    return compile_format(format)(exchange(**changes))


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("%(h)s %(l)s %(u)s", "192.0.2.1 - user"),
        ('"%(r)s" "%(R)s"', '"GET /a?b=c HTTP/2" "GET /a?b=c HTTP/2"'),
        ("%(m)s %(U)s %(q)s %(H)s %(S)s", "GET /a b=c HTTP/2 https"),
        ("%(s)s %(st)s %(B)s %(b)s", "200 OK 12 12"),
        ("%(f)s %(a)s", "https://example.org/ curl/8"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1500 1500000 1.500000"),
        ("%(L).1f %(D)d %(b)5d|%(m)-5s|", "1.5 1500000    12|GET  |"),
        ("%(X)s", "+"),
        ("%({host}i)s %({User-Agent}i)s %({none}i)s", "example.org curl/8 -"),
        ("%({content-type}o)s %({X-N}o)s %({none}o)s", "text/html 5 -"),
        ("%({NOT_THERE_AT_ALL}e)s", "-"),
        ("100%% %%(h)s", "100% %(h)s"),
        ("no atoms", "no atoms"),
        ("", ""),
    ],
)
def test_each_atom_has_its_value(format, text):
    assert line(format) == text


def test_the_process_is_an_atom():
    assert line("%(p)s") == f"<{os.getpid()}>"


def test_the_environment_is_an_atom(monkeypatch):
    monkeypatch.setenv("POD", 'a"b')
    assert line("%({POD}e)s") == "a\\x22b"


def test_the_combined_format_is_gunicorns():
    assert re.fullmatch(
        r"192\.0\.2\.1 - user \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /a\?b=c HTTP/2" 200 12 "https://example.org/" "curl/8"',
        line(COMBINED),
    )


def test_what_is_missing_is_a_dash():
    assert (
        line(
            "%(h)s %(s)s %(st)s %(b)s %(B)s %(f)s %(u)s %(X)s %(s)d",
            address="",
            status=None,
            bytes_sent=0,
            request_fields=(),
            complete=False,
        )
        == "- - - - 0 - - X 0"
    )
    assert line("%(st)s", status=299) == "-"


@pytest.mark.parametrize(
    "value", [b"Basic", b"Basic !!", b"Basic Og==", b"Bearer dXNlcjpwYXNz", b""]
)
def test_credentials_without_a_user_have_none(value):
    assert line("%(u)s", request_fields=((b"authorization", value),)) == "-"


def test_what_a_peer_sends_ends_no_line_and_no_string():
    hostile = b'a"b\r\nc\x1b[2J\xff\x00'
    text = line(
        '"%(m)s" "%(r)s" "%(U)s" "%(q)s" "%(a)s" "%({x}i)s" "%(u)s"',
        method=hostile,
        target=hostile + b"?" + hostile,
        request_fields=(
            (b"user-agent", hostile),
            (b"x", hostile),
            (b"authorization", b"Basic Ig0KOmE="),
        ),
    )
    assert text.isprintable() and text.isascii()
    assert text.count('"') == 14


@pytest.mark.parametrize(
    ("format", "named"),
    [
        ("%(z)s", "%(z)"),
        ("%(h)", "%(h)"),
        ("%h %l", "%h %l"),
        ("%({}i)s", "%({})"),
        ("%({a}x)s", "%({a}x)"),
        ("%(h)c", "%(h)c"),
        ("%", "'%'"),
        ("a %(h)s %(b", "%(b"),
    ],
)
def test_a_format_that_is_not_valid_is_named(format, named):
    with pytest.raises(ValueError) as info:
        compile_format(format)
    assert named.partition("}")[0] in str(info.value)


def test_a_format_is_a_text():
    with pytest.raises(TypeError, match="bytes"):
        compile_format(b"%(h)s")
    with pytest.raises(TypeError, match="names"):
        JSONAccessFormatter("host")


def test_fields_are_kept_only_if_an_atom_needs_them():
    for format in ("%(h)s %(t)s %(r)s %(D)s %({HOME}e)s", ""):
        compile_format(format)
        assert not access.details
    compile_format("%(f)s")
    compile_format("%(f)s")
    assert len(access.details) == 1


def record_of(entry):
    extra = entry._asdict() | {
        "scheme": entry.scheme,
        "request_fields": entry.request_fields,
        "response_fields": entry.response_fields,
    }
    return logging.makeLogRecord({"msg": "message", "levelname": "INFO", **extra})


def test_a_record_is_a_line_of_json():
    formatter = JSONAccessFormatter(["Authorization"], ["content-type", "none"])
    entry = json.loads(formatter.format(record_of(exchange())))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry.pop("pid") == os.getpid()
    assert entry == {
        "client": "192.0.2.1",
        "method": "GET",
        "target": "/a?b=c",
        "path": "/a",
        "scheme": "https",
        "protocol": "HTTP/2",
        "status": 200,
        "bytes": 12,
        "seconds": 1.5,
        "complete": True,
        "error_code": 0,
        "host": "example.org",
        "referer": "https://example.org/",
        "user_agent": "curl/8",
        "request": {"authorization": "Basic dXNlcjpwYXNz"},
        "response": {"content-type": "text/html", "none": None},
    }


def test_json_has_what_a_peer_sends_on_one_line():
    hostile = b'a"b\r\nc\x1b[2J\xff\x00'
    text = make_formatter("json").format(
        record_of(
            exchange(
                method=hostile,
                target=hostile,
                address="",
                status=None,
                request_fields=((b"user-agent", hostile),),
            )
        )
    )
    assert text.isprintable() and text.isascii()
    entry = json.loads(text)
    assert (entry["client"], entry["status"], entry["host"]) == (None, None, None)
    assert entry["user_agent"] == 'a"b\r\nc\x1b[2J\\xff\x00'


def test_records_of_others_keep_their_message():
    record = logging.makeLogRecord({"msg": "hello %s", "args": ("you",)})
    assert make_formatter("%(h)s").format(record) == "hello you"
    entry = json.loads(make_formatter("json").format(record))
    assert entry["message"] == "hello you"


def test_a_configuration_of_logging_names_the_formatters():
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "a": {
                    "()": "nghttp2py.access_formats.AccessFormatter",
                    "format": "%(h)s",
                },
                "b": {"()": "nghttp2py.access_formats.JSONAccessFormatter"},
            },
        }
    )


def test_a_record_can_go_to_another_process(caplog):
    caplog.set_level(logging.INFO, "nghttp2py.access")
    access.log(exchange())
    (record,) = caplog.records
    record.__dict__.pop("message", None)
    again = pickle.loads(pickle.dumps(record))
    assert again.getMessage() == record.getMessage()
    assert '"GET /a?b=c HTTP/2" 200 12' in again.getMessage()


@both_versions
@in_loop
async def test_the_fields_of_a_request_and_its_response_are_kept(version):
    async def app(stream):
        await stream.send_response(
            200, iter([("X-Kind", "iterator"), (b"content-length", 4)]), b"good"
        )

    async def ask(ends, agent):
        assert (await ends.fetch(headers=[(b"user-agent", agent)]))[1] == b"good"

    async with serving_app(version, app) as ends:
        await ask(ends, b"first")
        await until(lambda: ends.log)
        assert (ends.log[0].request_fields, ends.log[0].response_fields) == ((), ())
        access.keep_details()
        await ask(ends, b"second")
        await until(lambda: len(ends.log) == 2)
    made = compile_format("%({user-agent}i)s %({x-kind}o)s %({content-length}o)s %(S)s")
    assert made(ends.log[1]) == "second iterator 4 https"


@in_loop
async def test_the_fields_of_http1_are_kept():
    entries = []

    async def app(stream):
        await stream.send_response(200, {"x-kind": "plain"}, b"good")

    access.keep_details()
    access.add_hook(entries.append)
    try:
        async with Server(app, ("127.0.0.1", 0)) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET /a?b HTTP/1.1\r\nHost: example.org\r\nUser-Agent: old\r\n"
                b"Connection: close\r\n\r\n"
            )
            assert b"good" in await reader.read()
            writer.close()
            await writer.wait_closed()
            await until(lambda: entries)
    finally:
        access.remove_hook(entries.append)
    made = compile_format('"%(r)s" %({host}i)s %(a)s %({x-kind}o)s %(S)s %(s)s %(b)s')
    expected = '"GET /a?b HTTP/1.1" example.org old plain http 200 4'
    assert made(entries[0]) == expected


def test_a_dictionary_has_what_a_line_of_json_has():
    """A hook gets the exchange itself."""
    kept = exchange()
    entry = json.loads(JSONAccessFormatter().format(record_of(kept)))
    assert as_dict(kept) == {
        name: value for name, value in entry.items() if name not in ("time", "pid")
    }
