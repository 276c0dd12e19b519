"""Bodies in br and zstd, by the packages that users install."""

import asyncio
import random

import brotli
import pytest
from get_site import get
from httpx_clients import MODULES, calling, everywhere, serve
from loops import in_loop
from peers import serving as serving_files

from nghttp2py.asyncio import response as response_module
from nghttp2py.asyncio.content_coding import get_accepted
from nghttp2py.errors import BodyFormatError, BodyTooLargeError

try:
    from compression import zstd
except ImportError:
    from backports import zstd

TEXT = random.Random(17).randbytes(150_000) + b"text " * 40_000
VERSIONS = pytest.mark.parametrize("http3", [False, "only"], ids=["HTTP/2", "HTTP/3"])


def zstd_with_window(data, log):
    options = {zstd.CompressionParameter.window_log: log}
    packer = zstd.ZstdCompressor(options=options)
    return packer.compress(data) + packer.flush()


# A frame that decoders skip (RFC 8878, 3.1.2).
SKIPPED = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"aside"
PACK = {"br": brotli.compress, "zstd": zstd.compress}
GOOD = {
    "br": ("br", brotli.compress(TEXT)),
    "zstd": ("zstd", zstd.compress(TEXT)),
    "two frames": ("zstd", zstd.compress(TEXT[:9]) + zstd.compress(TEXT[9:])),
    "skipped frames": ("zstd", SKIPPED + zstd.compress(TEXT) + SKIPPED),
    "widest window": ("zstd", zstd_with_window(TEXT, 23)),
    "both": ("br, zstd", zstd.compress(brotli.compress(TEXT))),
    "capitals": ("BR", brotli.compress(TEXT)),
}
BAD = {
    "br, not coded": ("br", TEXT),
    "br, cut": ("br", brotli.compress(TEXT)[:-1]),
    "br, cut in the middle": ("br", brotli.compress(TEXT)[:70_000]),
    "br, garbage": ("br", brotli.compress(TEXT) + b"garbage"),
    "br, two streams": ("br", brotli.compress(TEXT) * 2),
    "zstd, not coded": ("zstd", TEXT),
    "zstd, cut": ("zstd", zstd.compress(TEXT)[:-1]),
    "zstd, cut in the middle": ("zstd", zstd.compress(TEXT)[:70_000]),
    "zstd, garbage": ("zstd", zstd.compress(TEXT) + b"garbage"),
    "zstd, half a frame more": ("zstd", zstd.compress(TEXT) + zstd.compress(TEXT)[:9]),
    # RFC 9659, 3: 8 MiB is the widest window.
    "zstd, too wide a window": ("zstd", zstd_with_window(bytes(1 << 25), 24)),
}


async def send(stream, coding, data, size):
    """Answer in pieces of a size."""
    await stream.start_response({":status": "200", "content-encoding": coding})
    for start in range(0, len(data), size):
        await stream.send_data(data[start : start + size])
    await stream.end_stream()


def sending(cases, size):
    async def app(stream):
        await send(stream, *cases[int(stream.request.target[1:])], size)

    return app


@pytest.mark.parametrize("size", [1 << 20, 501])
@VERSIONS
@in_loop
async def test_a_body_is_decoded(http3, size, serving):
    async with serving(
        sending(list(GOOD.values()), size), http3, decompress=True
    ) as client:
        for number, name in enumerate(GOOD):
            response = await client.get(f"/{number}")
            assert await response.read() == TEXT, name


@pytest.mark.parametrize("size", [1 << 20, 5001])
@VERSIONS
@in_loop
async def test_a_body_that_is_not_coded_as_stated_raises(http3, size, serving):
    async with serving(
        sending(list(BAD.values()), size), http3, decompress=True
    ) as client:
        for number, name in enumerate(BAD):
            response = await client.get(f"/{number}")
            with pytest.raises(BodyFormatError):
                await response.read()
                raise AssertionError(name)


@pytest.mark.parametrize("coding", PACK)
@VERSIONS
@in_loop
async def test_a_bomb_is_read_in_small_pieces_and_has_a_bound(
    http3, coding, serving, monkeypatch
):
    monkeypatch.setattr(response_module, "MAX_DECODED", 1 << 20)
    bomb = PACK[coding](bytes(100 << 20))
    assert len(bomb) < 1 << 14  # one piece of the body
    cases = [(coding, bomb)]
    async with serving(sending(cases, 1 << 20), http3, decompress=True) as client:
        with pytest.raises(BodyTooLargeError):
            await (await client.get("/0")).read()
        response = await client.get("/0")
        sizes = {len(piece) async for piece in response}
        assert max(sizes) <= 65536


@VERSIONS
@in_loop
async def test_both_are_offered(http3, serving):
    async def app(stream):
        await stream.send_response(
            200, body=stream.fields.get("accept-encoding").encode()
        )

    assert get_accepted() == b"gzip, deflate, br, zstd"
    async with serving(app, http3, decompress=True) as client:
        assert await (await client.get("/")).read() == get_accepted()


@everywhere
@in_loop
async def test_httpx_decodes_what_comes_by_our_transport(way, version, paths, tls):
    http3 = "only" if version == "HTTP/3" else False
    cases = [("br", brotli.compress(TEXT)), ("zstd", zstd.compress(TEXT))]
    for module in MODULES.values():
        async with (
            serve(sending(cases, 5001), paths) as origin,
            calling(way, tls.authority, module, http3=http3) as caller,
        ):
            for number in range(len(cases)):
                response = await caller.get(f"{origin}/{number}")
                assert response.content == TEXT
            assert "br" in response.request.headers["accept-encoding"]


@everywhere
@in_loop
async def test_httpx_reports_a_body_that_is_not_coded(way, version, paths, tls):
    http3 = "only" if version == "HTTP/3" else False
    cases = [("br", b"text" * 9), ("zstd", b"text" * 9)]
    for module in MODULES.values():
        async with (
            serve(sending(cases, 5001), paths) as origin,
            calling(way, tls.authority, module, http3=http3) as caller,
        ):
            for number in range(len(cases)):
                with pytest.raises(module.DecodingError):
                    await caller.get(f"{origin}/{number}")
            # The connection is not harmed.
            await asyncio.gather(
                *(caller.get(f"{origin}/{0}") for _ in range(3)), return_exceptions=True
            )


# ---- The commands ----


@pytest.mark.parametrize(("coding", "suffix"), [("br", "br"), ("zstd", "zst")])
def test_get_decodes_what_serve_has_compressed(coding, suffix, tmp_path):
    (tmp_path / "page.txt").write_bytes(TEXT)
    (tmp_path / f"page.txt.{suffix}").write_bytes(PACK[coding](TEXT))
    with serving_files(tmp_path) as url:
        plain = get(f"{url}/page.txt")
        assert (plain.returncode, plain.stdout) == (0, TEXT)
        done = get(
            *(
                "--compressed",
                "-D",
                tmp_path / "head",
                "-w",
                "%{stderr}%{size_download}",
            ),
            f"{url}/page.txt",
        )
    assert (done.returncode, done.stdout) == (0, TEXT)
    assert f"content-encoding: {coding}" in (tmp_path / "head").read_text().lower()
    assert done.stderr == b"%d" % len(PACK[coding](TEXT))


@pytest.mark.parametrize(("coding", "suffix"), [("br", "br"), ("zstd", "zst")])
def test_get_reports_a_body_that_is_cut_off(coding, suffix, tmp_path):
    (tmp_path / "page.txt").write_bytes(TEXT)
    (tmp_path / f"page.txt.{suffix}").write_bytes(PACK[coding](TEXT)[:-5])
    with serving_files(tmp_path) as url:
        done = get("--compressed", "-o", tmp_path / "out", f"{url}/page.txt")
    assert done.returncode == 61
    assert done.errors.count("\n") == 1
