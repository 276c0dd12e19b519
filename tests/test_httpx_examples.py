"""The examples of httpx's documentation, and an SDK, on our transports."""

import asyncio
import contextlib
import gzip
import importlib.util
import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from httpx_clients import VERSIONS, calling, everywhere, in_thread, serve
from loops import in_loop

from nghttp2py.httpx import AsyncTransport, Transport

EXAMPLES = Path(__file__).parent.parent / "examples"


async def httpbin(stream):
    """Answer as the server that httpx's documentation asks."""
    request = stream.request
    url = urlsplit(request.target.decode())
    headers = {n.decode().title(): v.decode() for n, v in request.headers}
    body = await stream.read()
    status, fields, content = 200, {"content-type": "application/json"}, None
    match url.path.strip("/").split("/"):
        case ["status", code]:
            status, content = int(code), b""
        case ["redirect", "0"]:
            content = b'"here"'
        case ["redirect", n]:
            status, content = 302, b""
            fields["location"] = f"/redirect/{int(n) - 1}"
        case ["cookies", "set"]:
            fields["set-cookie"] = "chocolate=chip; Path=/"
        case ["basic-auth", *_] if headers.get("Authorization") != "Basic bWU6c2VjcmV0":
            status, content = 401, b""
            fields["www-authenticate"] = 'Basic realm="here"'
        case ["gzip"]:
            fields["content-encoding"] = "gzip"
            content = gzip.compress(b'"compressed"')
        case ["lines"]:
            await stream.start_response({":status": "200"})
            for n in range(3):
                await stream.send_data(f"line {n}\n".encode())
            await stream.end_stream()
            return
        case ["silence"]:
            await asyncio.Event().wait()
    if content is None:
        content = json.dumps(
            {
                "method": request.method.decode(),
                "args": dict(parse_qsl(url.query)),
                "headers": headers,
                "data": body.decode("latin-1"),
            }
        ).encode()
    fields["content-length"] = str(len(content))
    await stream.send_response(status, fields, content)


@pytest.fixture
def asking(paths, tls):
    """Give a caller of the server, its options those of the client."""

    @contextlib.asynccontextmanager
    async def asking(way, version, **options):
        async with (
            serve(httpbin, paths) as origin,
            calling(
                way,
                tls.authority,
                client={"base_url": origin, **options},
                http3=VERSIONS[version],
            ) as caller,
        ):
            yield caller

    return asking


@everywhere
@in_loop
async def test_quickstart(way, version, asking):
    async with asking(way, version) as caller:
        response = await caller.get("/get", params={"key1": "value1", "b": ["1", "2"]})
        assert response.json()["args"] == {"key1": "value1", "b": "2"}
        assert response.url.query == b"key1=value1&b=1&b=2"
        response = await caller.get("/get", headers={"user-agent": "my-app/0.0.1"})
        assert response.json()["headers"]["User-Agent"] == "my-app/0.0.1"
        response = await caller.request("POST", "/post", data={"key1": ["1", "2"]})
        assert response.json()["data"] == "key1=1&key1=2"
        with open(__file__, "rb") as file:
            files = {"upload-file": ("name.txt", file, "text/plain")}
            response = await caller.request("POST", "/post", files=files)
        assert "the examples of httpx" in response.json()["data"].lower()
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
            assert (await caller.request(method, "/")).json()["method"] == method
        response = await caller.get("/status/404")
        assert response.status_code == httpx.codes.NOT_FOUND
        with pytest.raises(httpx.HTTPStatusError, match="404 Not Found"):
            response.raise_for_status()
        assert (await caller.get("/gzip")).json() == "compressed"


@everywhere
@in_loop
async def test_cookies_redirects_and_authentication(way, version, asking):
    requests, responses = [], []

    def request_hook(request):
        requests.append(request.url.path)

    def response_hook(response):
        responses.append(response.status_code)

    async def async_request_hook(request):
        request_hook(request)

    async def async_response_hook(response):
        response_hook(response)

    hooks = {"request": [request_hook], "response": [response_hook]}
    if way == "async":
        hooks = {"request": [async_request_hook], "response": [async_response_hook]}
    async with asking(way, version, event_hooks=hooks) as caller:
        response = await caller.get("/cookies/set")
        assert response.cookies["chocolate"] == "chip"
        response = await caller.get("/get")
        assert response.json()["headers"]["Cookie"] == "chocolate=chip"
        response = await caller.get("/redirect/2")
        assert response.next_request.url.path == "/redirect/1"
        response = await caller.get("/redirect/2", follow_redirects=True)
        assert response.json() == "here"
        assert [r.status_code for r in response.history] == [302, 302]
        assert (await caller.get("/basic-auth")).status_code == 401
        response = await caller.get("/basic-auth", auth=("me", "secret"))
        assert response.status_code == 200
        auth = httpx.DigestAuth("me", "secret")  # another scheme is asked for
        assert (await caller.get("/basic-auth", auth=auth)).status_code == 401
        assert len(requests) == len(responses) == 9


@everywhere
@in_loop
async def test_streamed_responses_and_timeouts(way, version, asking):
    def read(client):
        with client.stream("GET", "/lines") as response:
            lines = list(response.iter_lines())
        with client.stream("GET", "/lines") as response:
            raw = b"".join(response.iter_raw())
        with client.stream("GET", "/get") as response:
            if int(response.headers["content-length"]) < 10_000:
                response.read()
        return lines, raw, response.json()["method"]

    async def async_read(client):
        async with client.stream("GET", "/lines") as response:
            lines = [line async for line in response.aiter_lines()]
        async with client.stream("GET", "/lines") as response:
            raw = b"".join([piece async for piece in response.aiter_raw()])
        async with client.stream("GET", "/get") as response:
            if int(response.headers["content-length"]) < 10_000:
                await response.aread()
        return lines, raw, response.json()["method"]

    async with asking(way, version, timeout=5.0) as caller:
        client = caller.client
        if way == "sync":
            lines, raw, method = await in_thread(lambda: read(client))
        else:
            lines, raw, method = await async_read(client)
        assert lines == ["line 0", "line 1", "line 2"]
        assert raw == b"line 0\nline 1\nline 2\n"
        assert method == "GET"
        with pytest.raises(httpx.TimeoutException):
            await caller.get("/silence", timeout=0.1)
        with pytest.raises(httpx.ReadTimeout):
            await caller.get("/silence", timeout=httpx.Timeout(10.0, read=0.1))
        assert (await caller.get("/get", timeout=None)).status_code == 200


@everywhere
@in_loop
async def test_mounts_use_a_transport_for_some_hosts(way, version, paths, tls):
    kind = Transport if way == "sync" else AsyncTransport
    mounted = kind(verify=tls.authority, http3=VERSIONS[version])
    mounts = {"https://127.0.0.1": mounted}
    async with (
        serve(httpbin, paths) as origin,
        calling(way, tls.authority, client={"mounts": mounts}) as caller,
    ):
        assert (await caller.get(origin)).http_version == version
        other = origin.replace("127.0.0.1", "localhost")
        assert (await caller.get(other)).http_version == "HTTP/2"


# ---- openai's SDK ----

ANSWER = ["HTTP", " over", " QUIC"]


async def stand_in(stream):
    """Answer as OpenAI's API: stream the pieces of a completion."""
    request = json.loads(await stream.read())
    assert stream.request.target == b"/v1/chat/completions"
    assert (b"authorization", b"Bearer key") in stream.request.headers
    base = {"id": "1", "created": 1, "model": request["model"]}
    if not request.get("stream"):
        message = {"role": "assistant", "content": "".join(ANSWER)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = base | {"object": "chat.completion", "choices": [choice]}
        fields = {"content-type": "application/json"}
        await stream.send_response(200, fields, json.dumps(body).encode())
        return
    await stream.start_response({":status": "200", "content-type": "text/event-stream"})
    for piece in ANSWER:
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        chunk = base | {"object": "chat.completion.chunk", "choices": [choice]}
        await stream.send_data(f"data: {json.dumps(chunk)}\n\n".encode())
        await asyncio.sleep(0)
    await stream.send_data(b"data: [DONE]\n\n")
    await stream.end_stream()


@pytest.fixture
def api(monkeypatch, tls):
    """The environment of the SDK, but the address of the server."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("SSL_CERT_FILE", tls.authority)
    return monkeypatch


@in_loop
async def test_the_example_of_openais_sdk(api, paths, capsys):
    path = EXAMPLES / "openai_chat.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    async with serve(stand_in, paths) as origin:
        api.setenv("OPENAI_BASE_URL", f"{origin}/v1")
        await example.main("What is HTTP/3?")
    assert capsys.readouterr().out == "".join(ANSWER) + "\n"


@in_loop
async def test_openais_sdk_without_asyncio(api, paths):
    from openai import OpenAI

    def ask(origin):
        client = httpx.Client(transport=Transport(http3="only"))
        with OpenAI(base_url=f"{origin}/v1", http_client=client) as openai:
            question = {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": "What is HTTP/3?"}],
            }
            chunks = openai.chat.completions.create(**question, stream=True)
            streamed = [chunk.choices[0].delta.content for chunk in chunks]
            whole = openai.chat.completions.create(**question)
            return streamed, whole.choices[0].message.content

    async with serve(stand_in, paths) as origin:
        streamed, whole = await in_thread(lambda: ask(origin))
    assert streamed == ANSWER
    assert whole == "".join(ANSWER)
