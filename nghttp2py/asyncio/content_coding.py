"""Content codings of responses (RFC 9110, 8.4.1), decoded in bounded pieces."""

from __future__ import annotations

import importlib
import inspect
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import cache
from typing import Any, Protocol

from nghttp2py.errors import BodyFormatError

__all__ = ["decode", "find_codings", "get_accepted"]

# The most bytes that a decoder returns at once: a small piece of a compressed body can
# stand for a thousand times as many bytes.
_PIECE = 65536

# Bytes that a decoder gets at once: it copies the rest for each member.
_INPUT = 16384

# More codings than this, one on top of the other, are refused.
_MOST_CODINGS = 3

# RFC 9659, 3: a decoder of zstd for HTTP supports windows of up to 8 MiB.
_ZSTD_WINDOW_LOG = 23


class _Decoder(Protocol):
    """A decoder of one body."""

    def decode(self, data: bytes) -> bytes:
        """Decode a piece, or what is left of the previous ones if it is empty.

        At most ``_PIECE`` bytes are returned; ``b""`` means that more input is needed.
        """

    @property
    def is_complete(self) -> bool:
        """Whether the end of the coded body has been decoded."""


class _Members(ABC):
    """A coding of which a body may have several members, one after the other."""

    def __init__(self) -> None:
        self._decoder = self._make()

    @abstractmethod
    def _make(self) -> Any:
        """Make the decoder of a member."""

    @abstractmethod
    def _decompress(self, data: bytes) -> bytes:
        """Decode a piece of a member."""

    def decode(self, data: bytes) -> bytes:
        while True:
            if self._decoder.eof:
                data = self._decoder.unused_data + data
                if not data:
                    return b""
                self._decoder = self._make()
            decoded = self._decompress(data)
            # A member may be empty.
            if decoded or not self._decoder.eof:
                return decoded
            data = b""

    @property
    def is_complete(self) -> bool:
        return bool(self._decoder.eof and not self._decoder.unused_data)


class _Zlib(_Members):
    """gzip, and deflate, which has one member.

    A body of gzip may have several (RFC 1952, 2.2).
    """

    def __init__(self, window_bits: int) -> None:
        self._bits = window_bits
        self._begun = False
        super().__init__()

    def _make(self) -> Any:
        if self._begun and self._bits != _GZIP:
            raise BodyFormatError("a compressed body goes on after its end")
        return zlib.decompressobj(self._bits)

    def _decompress(self, data: bytes) -> bytes:
        data = self._decoder.unconsumed_tail + data
        if not data:
            return b""
        if not self._begun:
            if self._bits == zlib.MAX_WBITS and data[0] & 0x0F != 8:
                # RFC 9110, 8.4.1.2: some senders omit the zlib format around deflate.
                self._bits = -zlib.MAX_WBITS
                self._decoder = self._make()
            self._begun = True
        try:
            decoded: bytes = self._decoder.decompress(data, _PIECE)
        except zlib.error as error:
            raise _not_coded(error) from None
        return decoded


class _Brotli:
    """Brotli (RFC 7932), by a ``brotli`` that can bound its output."""

    def __init__(self, module: Any) -> None:
        self._decoder = module.Decompressor()
        self._error = module.error
        # It returns up to half as much again as it is asked for.
        self._rest = b""

    def decode(self, data: bytes) -> bytes:
        rest = self._rest
        if not rest:
            try:
                rest = self._decoder.process(data, output_buffer_limit=_PIECE)
            except self._error as error:
                raise _not_coded(error) from None
        self._rest = rest[_PIECE:]
        return rest[:_PIECE]

    @property
    def is_complete(self) -> bool:
        return bool(self._decoder.is_finished())


class _Zstandard(_Members):
    """Zstandard (RFC 8878), by Python 3.14 or ``backports.zstd``.

    A body may have several frames (RFC 8878, 3.1).
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        super().__init__()

    def _make(self) -> Any:
        parameter = self._module.DecompressionParameter.window_log_max
        return self._module.ZstdDecompressor(options={parameter: _ZSTD_WINDOW_LOG})

    def _decompress(self, data: bytes) -> bytes:
        try:
            decoded: bytes = self._decoder.decompress(data, _PIECE)
        except self._module.ZstdError as error:
            raise _not_coded(error) from None
        return decoded


def _not_coded(error: Exception) -> BodyFormatError:
    return BodyFormatError(f"the body is not compressed as stated: {error}")


_GZIP = zlib.MAX_WBITS | 16


def _find_module(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _search_decoders() -> dict[str, Callable[[], _Decoder]]:
    decoders: dict[str, Callable[[], _Decoder]] = {
        "gzip": lambda: _Zlib(_GZIP),
        "deflate": lambda: _Zlib(zlib.MAX_WBITS),
    }
    brotli = _find_module("brotli", "brotlicffi")
    # Without a bound of its output a few bytes can become gigabytes.
    if brotli is not None and _bounds_its_output(brotli):
        decoders["br"] = lambda: _Brotli(brotli)
    zstd = _find_module("compression.zstd", "backports.zstd")
    if zstd is not None:
        decoders["zstd"] = lambda: _Zstandard(zstd)
    return decoders


# Not at the import: few programs decode bodies, and a module that is not made for a
# Python without the GIL enables it.
_find_decoders = cache(_search_decoders)


def _bounds_its_output(brotli: Any) -> bool:
    process = brotli.Decompressor.process
    try:
        return "output_buffer_limit" in inspect.signature(process).parameters
    except ValueError:  # a function of C may have no signature
        return "output_buffer_limit" in (process.__doc__ or "")


def get_accepted() -> bytes:
    """Return the value of accept-encoding that lists the codings known here."""
    return ", ".join(_find_decoders()).encode()


def find_codings(value: str) -> list[str]:
    """Return the codings of a content-encoding field, in the order of their coding.

    Return ``[]`` if one of them is not known here: the body is then left as it is.
    Raises ``BodyFormatError`` for more than three.
    """
    names = [name.strip().lower() for name in value.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    names = [name.removeprefix("x-") for name in names]  # RFC 9110, 8.4.1.3
    if len(names) > _MOST_CODINGS:
        raise BodyFormatError(
            f"the body has {len(names)} content codings, but at most {_MOST_CODINGS} "
            "are allowed"
        )
    if not names:
        return names
    known = _find_decoders()
    return names if all(name in known for name in names) else []


async def decode(
    body: AsyncIterable[bytes], codings: list[str]
) -> AsyncIterator[bytes]:
    """Iterate over the decoded pieces of a body, each of at most 64 KiB.

    Raises ``BodyFormatError`` if the body is not coded so, or is cut off.
    """
    known = _find_decoders()
    for name in reversed(codings):
        body = _decode_one(body, known[name]())
    async for piece in body:
        yield piece


async def _decode_one(
    body: AsyncIterable[bytes], decoder: _Decoder
) -> AsyncIterator[bytes]:
    is_empty = True
    async for piece in body:
        is_empty = False
        for start in range(0, len(piece), _INPUT):
            decoded = decoder.decode(piece[start : start + _INPUT])
            while decoded:
                yield decoded
                decoded = decoder.decode(b"")
    # The response to HEAD, or status 304, has no body to decode.
    if not is_empty and not decoder.is_complete:
        raise BodyFormatError("a compressed body ends before its end")
