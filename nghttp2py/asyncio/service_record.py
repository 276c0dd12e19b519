"""HTTPS records of the DNS (RFC 9460), which the caller has looked up."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

__all__ = ["ServiceRecord"]

# The keys of parameters (RFC 9460, 14.3.2), and RFC 9461 and RFC 9540 for the last.
_KEYS = {
    "mandatory": 0,
    "alpn": 1,
    "no-default-alpn": 2,
    "port": 3,
    "ipv4hint": 4,
    "ech": 5,
    "ipv6hint": 6,
    "dohpath": 7,
    "ohttp": 8,
}
# Those that are understood here.  The hints are not used: addresses are looked up.
_KNOWN = frozenset({"alpn", "no-default-alpn", "port", "ipv4hint", "ipv6hint"})

_ITEM = re.compile(r'([a-z0-9-]+)(?:=("(?:[^"\\]|\\.)*"|(?:[^\s"\\]|\\.)*))?(?=\s|$)')
_ESCAPE = re.compile(r"\\(\d{3}|.)")


@dataclass(frozen=True)
class ServiceRecord:
    """An HTTPS record, as far as a client of HTTP needs it.

    ``parse`` reads its text, ``from_wire`` its octets; libraries for the DNS have one
    of both.  The certificate is always checked for the origin's name.
    """

    #: 0 for an alias, otherwise the smallest is preferred.
    priority: int
    #: The host to connect to, or ``""`` for the name of the record.
    target: str = ""
    #: The protocols of ``alpn``; ``http/1.1`` is served, too, unless the record has
    #: ``no-default-alpn``.
    alpn: tuple[str, ...] = ()
    #: The port to connect to, or ``None`` for the origin's.
    port: int | None = None
    #: The names of the parameters without which the record must not be used.
    mandatory: frozenset[str] = frozenset()

    @property
    def is_usable(self) -> bool:
        """Whether the parameters that it makes mandatory are known here."""
        return self.mandatory <= _KNOWN

    @classmethod
    def parse(cls, text: str) -> ServiceRecord:
        """Parse a record's data in presentation form (RFC 9460, 2.1).

        For example ``'1 . alpn="h3,h2" port=8443'``.  Raises ``ValueError``.
        """
        priority, _, rest = text.strip().partition(" ")
        target, _, rest = rest.strip().partition(" ")
        if not priority.isdigit() or not target:
            raise ValueError(
                f"{text!r} is no HTTPS record: it has no priority and name"
            )
        values: dict[str, str] = {}
        position = 0
        while position < len(rest):
            if rest[position].isspace():
                position += 1
                continue
            item = _ITEM.match(rest, position)
            if item is None or item[1] in values:
                raise ValueError(f"{text!r} is no HTTPS record: {rest[position:]!r}")
            values[item[1]] = _unescape(item[2] or "")
            position = item.end()
        return cls._make(
            text,
            int(priority),
            target,
            {name: value.encode("latin-1") for name, value in values.items()},
            _split_names(values.get("alpn", "")),
            frozenset(filter(None, values.get("mandatory", "").split(","))),
            values.get("port"),
        )

    @classmethod
    def from_wire(cls, data: bytes) -> ServiceRecord:
        """Parse a record's data as in a message of the DNS (RFC 9460, 2.2).

        The name is not compressed.  Raises ``ValueError``.
        """
        try:
            (priority,) = struct.unpack_from("!H", data)
            position = 2
            labels = []
            while size := data[position]:
                if size > 63:
                    raise ValueError
                labels.append(data[position + 1 : position + 1 + size].decode("ascii"))
                position += 1 + size
            position += 1
            names = {key: name for name, key in _KEYS.items()}
            values: dict[str, bytes] = {}
            last = -1
            while position < len(data):
                key, size = struct.unpack_from("!HH", data, position)
                position += 4 + size
                if key <= last or position > len(data):
                    raise ValueError
                last = key
                values[names.get(key, f"key{key}")] = data[position - size : position]
            alpn = _split_wire(values.get("alpn", b""))
            mandatory = [
                names.get(key, f"key{key}")
                for (key,) in struct.iter_unpack("!H", values.get("mandatory", b""))
            ]
            port = values.get("port")
            number = None if port is None else str(*struct.unpack("!H", port))
        except (ValueError, IndexError, struct.error):
            raise ValueError("the data are no HTTPS record") from None
        target = ".".join(labels) + "."
        return cls._make(
            "a record", priority, target, values, alpn, frozenset(mandatory), number
        )

    @classmethod
    def _make(
        cls,
        text: str,
        priority: int,
        target: str,
        values: dict[str, bytes],
        alpn: tuple[str, ...],
        mandatory: frozenset[str],
        port: str | None,
    ) -> ServiceRecord:
        if priority > 65535:
            raise ValueError(f"{text!r} is no HTTPS record: the priority {priority}")
        # RFC 9460, 8: a client rejects a record with a mandatory key that is not there.
        missing = mandatory - values.keys()
        if missing or "mandatory" in mandatory:
            raise ValueError(f"{text!r} has no parameter that it makes mandatory")
        if "no-default-alpn" in values and "alpn" not in values:
            raise ValueError(f"{text!r} has no-default-alpn, but no alpn")
        if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"{text!r} has no port: {port!r}")
        return cls(
            priority,
            target.rstrip(".").lower(),
            alpn,
            None if port is None else int(port),
            mandatory,
        )


def _unescape(text: str) -> str:
    """Decode a character string of the DNS (RFC 9460, appendix A)."""
    if text.startswith('"'):
        text = text[1:-1]

    def decode(match: re.Match[str]) -> str:
        found = match[1]
        return chr(int(found) & 255) if found.isdigit() and len(found) == 3 else found

    return _ESCAPE.sub(decode, text)


def _split_names(text: str) -> tuple[str, ...]:
    """Split a list of values, whose commas and backslashes are escaped (A.1)."""
    names = re.findall(r"(?:[^,\\]|\\.)+", text)
    return tuple(re.sub(r"\\(.)", r"\1", name) for name in names)


def _split_wire(data: bytes) -> tuple[str, ...]:
    """Split the names of ALPN, each after its length (RFC 9460, 7.1.1)."""
    names = []
    position = 0
    while position < len(data):
        size = data[position]
        name = data[position + 1 : position + 1 + size]
        if not size or len(name) < size:
            raise ValueError("a name of ALPN is cut off")
        names.append(name.decode("latin-1"))
        position += 1 + size
    return tuple(names)
