"""What a client knows of alternative services (RFC 7838), and of their failures."""

from __future__ import annotations

import re
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from nghttp2py.asyncio.service_record import ServiceRecord

__all__ = ["AlternativeService", "AlternativeServices", "parse_alt_svc"]

#: RFC 7838, 3.1: the lifetime in seconds of an alternative without ``ma``.
DEFAULT_LIFETIME = 86400.0
#: The longest lifetime that is believed, in seconds: 30 days.
MAX_LIFETIME = 30 * 86400.0
#: Origins, and broken alternatives, that are remembered; the oldest are forgotten.
MAX_ORIGINS = 1000
#: Alternatives of one origin that are remembered, in the server's order.
MAX_ALTERNATIVES = 8
#: Seconds for which a broken alternative is not tried again; doubled each time.
BROKEN_TIME = 300.0
#: The longest of these times.
MAX_BROKEN_TIME = 2 * 86400.0

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_MEMBER = re.compile(
    rf"[ \t]*(?P<protocol>{_TOKEN})=(?P<authority>{_QUOTED})"
    rf"(?P<parameters>(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))*)[ \t]*(?:,|$)"
)
_PARAMETER = re.compile(rf";[ \t]*({_TOKEN})=({_TOKEN}|{_QUOTED})")
_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]*):(?P<port>\d{1,5})"
)


@dataclass(frozen=True)
class AlternativeService:
    """An endpoint at which an origin is served as well."""

    #: The protocol's name in ALPN, such as ``"h3"``.
    protocol: str
    #: The host to connect to, or ``""`` for the origin's.
    host: str
    #: The port to connect to.
    port: int
    #: How long it is valid, in seconds.
    lifetime: float = DEFAULT_LIFETIME
    #: Whether it stays valid when the network changes.
    persist: bool = False


def parse_alt_svc(value: str) -> list[AlternativeService] | None:
    """Parse the value of an Alt-Svc field (RFC 7838, 3).

    Return ``None`` for ``clear``, the alternatives otherwise.  What is not valid is
    left out, as are parameters that are not known.
    """
    if value.strip() == "clear":
        return None
    services: list[AlternativeService] = []
    position = 0
    while position < len(value) and len(services) < MAX_ALTERNATIVES:
        member = _MEMBER.match(value, position)
        if member is None:
            # Continue after the next comma.
            comma = value.find(",", position)
            if comma < 0:
                break
            position = comma + 1
            continue
        position = member.end()
        service = _read_member(member)
        if service is not None:
            services.append(service)
    return services


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _read_member(member: re.Match[str]) -> AlternativeService | None:
    authority = _AUTHORITY.fullmatch(_unquote(member["authority"]))
    if authority is None or not 0 < int(authority["port"]) < 65536:
        return None
    lifetime, persist = DEFAULT_LIFETIME, False
    for name, text in _PARAMETER.findall(member["parameters"]):
        text = _unquote(text)
        if name == "ma":
            if not (text.isascii() and text.isdigit()):
                return None
            lifetime = min(float(text[:12]), MAX_LIFETIME)
        elif name == "persist":
            persist = text == "1"
    return AlternativeService(
        unquote(member["protocol"]),
        authority["host"].strip("[]").lower(),
        int(authority["port"]),
        lifetime,
        persist,
    )


class _User(Protocol):
    """The connections of a client."""

    def network_changed(self) -> None:
        """Handle that alternatives which have failed can be tried again."""


@dataclass
class _Broken:
    """An endpoint that has failed, and until when it is not tried."""

    until: float
    wait: float


class AlternativeServices:
    """The alternative services of origins, which clients and pools can share.

    An origin is a text such as ``"https://example.org"``.  Alternatives are forgotten
    when their time is over; an endpoint that has failed is not returned for five
    minutes, and for twice as long each time that it fails again, up to two days.
    1,000 origins are remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # For each origin, services and the time of their end.
        self._services: OrderedDict[str, list[tuple[AlternativeService, float]]]
        self._services = OrderedDict()
        self._records: dict[str, list[AlternativeService]] = {}
        self._broken: OrderedDict[tuple[str, int], _Broken] = OrderedDict()
        self._users: weakref.WeakSet[_User] = weakref.WeakSet()

    def add_user(self, user: _User) -> None:
        """Call ``network_changed`` of ``user`` as long as it exists."""
        self._users.add(user)

    def received(self, origin: str, value: str, age: float = 0.0) -> bool:
        """Handle an Alt-Svc field or an ALTSVC frame of the origin.

        It replaces what is known.  ``age`` is that of the response, in seconds (RFC
        7838, 3.1).  Return false if the origin asks to forget its alternatives.
        """
        services = parse_alt_svc(value)
        self._services.pop(origin, None)
        if services is None:
            self._records.pop(origin, None)
            return False
        now = self._clock()
        kept = [(s, now + s.lifetime - age) for s in services if s.lifetime > age]
        if kept:
            self._services[origin] = kept
            if len(self._services) > MAX_ORIGINS:
                self._services.popitem(last=False)
        return True

    def add_records(self, origin: str, records: Iterable[ServiceRecord]) -> None:
        """Add HTTPS records of the origin's name (RFC 9460); they replace earlier ones.

        Those that name h3 in ``alpn`` and no unknown mandatory parameter are used, in
        the order of their priority; the caller removes them when their time is over, by
        adding none.
        """
        services = [
            AlternativeService("h3", record.target, record.port or 0)
            for record in sorted(records, key=lambda record: record.priority)
            if record.priority and record.is_usable and "h3" in record.alpn
        ]
        self._records.pop(origin, None)
        if services:
            self._records[origin] = services[:MAX_ALTERNATIVES]
            if len(self._records) > MAX_ORIGINS:
                del self._records[next(iter(self._records))]

    def find(
        self, origin: str, host: str, port: int, *, elsewhere: bool = True
    ) -> AlternativeService | None:
        """Return the endpoint of HTTP/3 to try for an origin at ``host`` and ``port``.

        Its ``host`` and ``port`` are complete.  Without ``elsewhere`` only one at the
        same host is.  Return ``None`` if there is none, or all have failed lately.
        """
        now = self._clock()
        kept = self._services.get(origin)
        if kept is not None:
            kept[:] = [entry for entry in kept if entry[1] > now]
            if not kept:
                del self._services[origin]
        known = [service for service, _ in kept or ()]
        for service in known + self._records.get(origin, []):
            if service.protocol != "h3":
                continue
            if service.host not in ("", host) and not elsewhere:
                continue
            found = AlternativeService(
                "h3",
                service.host or host,
                service.port or port,
                service.lifetime,
                service.persist,
            )
            broken = self._broken.get((found.host, found.port))
            if broken is None or broken.until <= now:
                return found
        return None

    def failed(self, service: AlternativeService) -> float:
        """Handle that an endpoint has failed; return the seconds until it is tried."""
        key = (service.host, service.port)
        broken = self._broken.pop(key, None)
        wait = BROKEN_TIME
        if broken is not None:
            wait = min(2 * broken.wait, MAX_BROKEN_TIME)
        self._broken[key] = _Broken(self._clock() + wait, wait)
        if len(self._broken) > MAX_ORIGINS:
            self._broken.popitem(last=False)
        return wait

    def succeeded(self, service: AlternativeService) -> None:
        """Handle that an endpoint has worked: forget its failures."""
        self._broken.pop((service.host, service.port), None)

    def remove(self, origin: str, service: AlternativeService) -> None:
        """Forget an endpoint that is not one of the origin (421, RFC 7838, 6)."""
        kept = self._services.get(origin, [])
        kept[:] = [
            entry
            for entry in kept
            if entry[0].port != service.port or entry[0].host not in ("", service.host)
        ]
        self._records.pop(origin, None)

    def network_changed(self) -> None:
        """Forget the failures, and alternatives without ``persist`` (RFC 7838, 2.2).

        The program calls this when the machine has joined another network.  The next
        request of each client tries HTTP/3 again.
        """
        self._broken.clear()
        for origin, kept in list(self._services.items()):
            kept[:] = [entry for entry in kept if entry[0].persist]
            if not kept:
                del self._services[origin]
        for user in list(self._users):
            user.network_changed()
