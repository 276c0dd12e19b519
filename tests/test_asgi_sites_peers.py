"""Real applications under the server, asked by httpx, curl and our own client."""

import asyncio
import hashlib
import json
import re

import pytest
from asgi_apps import (
    django_site,
    fastapi_site,
    flask_site,
    quart_site,
    starlette_site,
)
from asgi_sites import CLIENTS, clients, serving_site, some_clients
from loops import in_loop, until

from nghttp2py.asgi.wsgi import wrap_wsgi

UPLOAD = bytes(i * i >> 8 & 0xFF for i in range(3_000_000))
DIGEST = hashlib.sha256(UPLOAD).hexdigest()
NUMBERS = b"".join(b"%d\n" % number for number in range(100))


def form(**parts):
    """A body of multipart/form-data, and its type."""
    boundary = "limit"
    body = b""
    for name, value in parts.items():
        file = '; filename="file.bin"' if isinstance(value, bytes) else ""
        data = value if isinstance(value, bytes) else value.encode()
        body += (
            f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n'
            "\r\n"
        ).encode()
        body += data + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={boundary}"}


def jar(*answers):
    """The cookies that answers have set, as one field."""
    found = {}
    for answer in answers:
        for value in answer.values("set-cookie"):
            name, _, rest = value.partition("=")
            found[name] = rest.partition(";")[0]
    return {"cookie": "; ".join(f"{name}={value}" for name, value in found.items())}


# ---- Starlette ----


@pytest.fixture
def files(tmp_path):
    directory = tmp_path / "static"
    directory.mkdir()
    (directory / "large.bin").write_bytes(UPLOAD)
    (directory / "style.css").write_text("body { color: rgb(1, 2, 3) }")
    return directory


@clients
@in_loop
async def test_a_starlette_application_is_served(client, files, tmp_path, caplog):
    app = starlette_site.make_app(files)
    async with serving_site(app, tmp_path) as site:
        answer = await site.ask(
            client, "/hello?a=1&b=%20", headers={"cookie": "x=1; y=2"}
        )
        assert json.loads(answer.body) == {
            "version": CLIENTS[client],
            "scheme": "https",
            "host": f"localhost:{site.port}",
            "query": {"a": "1", "b": " "},
            "cookies": {"x": "1", "y": "2"},
            "state": 42,
        }
        answer = await site.ask(client, "/stream")
        assert answer.body == starlette_site.PIECE * starlette_site.PIECES
        answer = await site.ask(client, "/sha256", "POST", body=UPLOAD)
        assert json.loads(answer.body) == {"size": len(UPLOAD), "sha256": DIGEST}
        assert len((await site.ask(client, "/cookies")).values("set-cookie")) == 2
        answer = await site.ask(client, "/later", "POST", body=b"")
        assert (answer.status, answer.body) == (202, b"accepted")
        await until(lambda: app.seen.background == ["done"])
        assert (await site.ask(client, "/fail")).status == 500
        assert (await site.ask(client, "/nowhere")).status == 404
        assert (await site.ask(client, "/hello", "PUT", body=b"x")).status == 405
        # httpcore waits for credit, and does not see that its stream was reset.
        refused = UPLOAD[:100_000] if client == "httpx-h2" else UPLOAD
        answer = await site.ask(client, "/refuse", "POST", body=refused)
        assert (answer.status, answer.body) == (413, b"too large")
    assert app.seen.life == ["startup", "shutdown"]
    failures = [r for r in caplog.records if r.levelname == "ERROR"]
    assert len(failures) == 1 and "on purpose" in caplog.text


@some_clients
@in_loop
async def test_static_files_are_sent_whole_and_in_parts(client, files, tmp_path):
    app = starlette_site.make_app(files)
    async with serving_site(app, tmp_path) as site:
        answer = await site.ask(client, "/static/large.bin")
        assert answer.body == UPLOAD
        assert answer.value("content-length") == str(len(UPLOAD))
        etag = answer.value("etag")
        answer = await site.ask(client, "/static/large.bin", "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.value("content-length") == str(len(UPLOAD))
        answer = await site.ask(
            client, "/static/large.bin", headers={"range": "bytes=1000-1999"}
        )
        assert (answer.status, answer.body) == (206, UPLOAD[1000:2000])
        answer = await site.ask(
            client, "/static/large.bin", headers={"if-none-match": etag}
        )
        assert (answer.status, answer.body) == (304, b"")
        answer = await site.ask(client, "/static/%2e%2e/cert.pem")
        assert answer.status == 404


leaving = pytest.mark.parametrize("client", ["httpx-h1", "httpx-h2", "nghttp2py-h3"])


@leaving
@in_loop
async def test_a_generator_of_events_ends_when_its_client_leaves(
    client, files, tmp_path
):
    app = starlette_site.make_app(files)
    async with serving_site(app, tmp_path, disconnect_grace=0.1) as site:
        await site.begin(client, "/events", b"event 2")
        await until(lambda: app.seen.sources == [1, 1])


# ---- FastAPI ----


@some_clients
@in_loop
async def test_a_fastapi_application_is_served(client, tmp_path):
    app = fastapi_site.make_app()
    async with serving_site(app, tmp_path) as site:

        async def post(path, value):
            return await site.ask(
                client,
                path,
                "POST",
                {"content-type": "application/json"},
                json.dumps(value).encode(),
            )

        answer = await post("/items", {"name": "tea", "price": 2.5})
        assert (answer.status, json.loads(answer.body)["price"]) == (201, 2.5)
        await until(lambda: app.log[-1] == "close")
        assert app.log == ["open", "add tea to the database", "close"]
        app.log.clear()
        answer = await post("/items", {"name": "tea"})
        assert answer.status == 422
        app.log.clear()
        assert (await site.ask(client, "/missing")).status == 404
        await until(lambda: app.log == ["open", "rollback", "close"])
        app.log.clear()
        answer = await site.ask(client, "/rows")
        assert answer.body.count(b"\n") == 1000
        await until(lambda: app.log == ["open", "close"])
        body, headers = form(title="données", file=UPLOAD)
        answer = await site.ask(client, "/upload", "POST", headers, body)
        assert json.loads(answer.body) == {
            "title": "données",
            "name": "file.bin",
            "sha256": DIGEST,
        }
        answer = await site.ask(client, "/sync/12")
        assert json.loads(answer.body) == {"square": 144}
        assert b"/items" in (await site.ask(client, "/openapi.json")).body


@leaving
@in_loop
async def test_a_dependency_is_cleaned_up_when_its_client_leaves(client, tmp_path):
    app = fastapi_site.make_app()
    async with serving_site(app, tmp_path, disconnect_grace=0.1) as site:
        await site.begin(client, "/feed", b"first")
        await until(lambda: app.log == ["open", "end of the feed", "close"])


# ---- Django ----


@pytest.fixture(scope="module")
def django_app():
    return django_site.make_app()


@clients
@in_loop
async def test_a_django_project_is_served(client, django_app, tmp_path):
    async with serving_site(django_app, tmp_path) as site:
        # Sessions: Django reads one cookie field, and here are two cookies.
        first = await site.ask(client, "/count", headers={"cookie": "a=1"})
        assert json.loads(first.body) == {"count": 1, "cookies": ["a"]}
        cookie = {"cookie": "a=1; " + jar(first)["cookie"]}
        second = await site.ask(client, "/count", headers=cookie)
        assert json.loads(second.body) == {"count": 2, "cookies": ["a", "sessionid"]}
        body, headers = form(file=UPLOAD)
        answer = await site.ask(client, "/upload", "POST", headers, body)
        assert json.loads(answer.body) == {"name": "file.bin", "sha256": DIGEST}
        assert (await site.ask(client, "/stream")).body == NUMBERS


@some_clients
@in_loop
async def test_the_admin_pages_of_django_let_one_in(client, django_app, tmp_path):
    async with serving_site(django_app, tmp_path) as site:
        answer = await site.ask(client, "/admin/")
        assert answer.status == 302
        login = answer.value("location")
        page = await site.ask(client, login)
        token = re.search(rb'csrfmiddlewaretoken" value="(\w+)"', page.body)[1].decode()
        body = f"csrfmiddlewaretoken={token}&username=admin&password=password"
        answer = await site.ask(
            client,
            login,
            "POST",
            {
                **jar(page),
                "content-type": "application/x-www-form-urlencoded",
                "origin": site.origin,
                "referer": site.origin + login,
            },
            (body + "&next=/admin/").encode(),
        )
        assert (answer.status, answer.value("location")) == (302, "/admin/"), answer
        inside = await site.ask(client, "/admin/", headers=jar(page, answer))
        assert inside.status == 200 and b"Site administration" in inside.body
        style = re.search(rb'href="(/static/admin/css/base[^"]*\.css)"', inside.body)
        answer = await site.ask(client, style[1].decode())
        assert (answer.status, answer.value("content-type")) == (200, "text/css")


# ---- Quart, and Flask by WSGI ----


@some_clients
@in_loop
async def test_a_quart_application_is_served(client, tmp_path):
    async with serving_site(quart_site.make_app(), tmp_path) as site:
        answer = await site.ask(client, "/sha256", "POST", body=UPLOAD)
        version = CLIENTS[client]
        assert json.loads(answer.body) == {"sha256": DIGEST, "version": version}
        assert (await site.ask(client, "/stream")).body == NUMBERS
        first = await site.ask(client, "/count")
        second = await site.ask(client, "/count", headers=jar(first))
        assert json.loads(second.body) == {"count": 2}


@clients
@in_loop
async def test_a_flask_application_is_served(client, tmp_path):
    async with serving_site(wrap_wsgi(flask_site.make_app()), tmp_path) as site:
        answer = await site.ask(client, "/hello?name=a%20b", headers={"x-agent": "me"})
        assert json.loads(answer.body) == {
            "name": "a b",
            "secure": True,
            "host": f"localhost:{site.port}",
            "agent": "me",
        }
        body, headers = form(title="données", file=UPLOAD)
        answer = await site.ask(client, "/upload", "POST", headers, body)
        assert json.loads(answer.body) == {
            "title": "données",
            "name": "file.bin",
            "sha256": DIGEST,
        }
        assert (await site.ask(client, "/stream")).body == NUMBERS
        first = await site.ask(client, "/count")
        second = await site.ask(client, "/count", headers=jar(first))
        assert json.loads(second.body) == {"count": 2}
        answers = await asyncio.gather(
            *(site.ask("httpx-h2", f"/hello?name={n}") for n in range(12))
        )
        assert [json.loads(a.body)["name"] for a in answers] == [
            str(n) for n in range(12)
        ]
