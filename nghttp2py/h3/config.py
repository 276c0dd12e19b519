"""Settings and limits of an HTTP/3 connection."""

from dataclasses import dataclass, field, fields

from nghttp2py.arguments import check_bool, check_int, check_type
from nghttp2py.errors import InvalidSettingsValueError
from nghttp2py.h3.protocol import Setting
from nghttp2py.h3.qpack import h3_defaults

__all__ = ["H3Configuration"]

# The defaults of the C options, which are ours where there is one.
_DEFAULTS = h3_defaults()

_MAX_VARINT = (1 << 62) - 1
_MAX_SIZE = (1 << 32) - 1

#: The settings that announce WebTransport: those of draft 02, which browsers use, with
#: the datagrams of its time, and those of the later drafts.
_WEBTRANSPORT_SETTINGS: dict[int, int] = {
    Setting.H3_DATAGRAM: 1,
    Setting.ENABLE_WEBTRANSPORT: 1,
}
_WEBTRANSPORT_SETTINGS_EXTENDED: dict[int, int] = {
    Setting.H3_DATAGRAM_DRAFT04: 1,
    Setting.WT_ENABLED: 1,
}


@dataclass(frozen=True)
class H3Configuration:
    """Settings and limits of one ``H3Connection``.  The defaults are aioquic's.

    Raises ``InvalidSettingsValueError`` for a number outside its range.
    """

    #: Report all events, keep WebTransport sessions, and refuse to send Extended
    #: CONNECT until the peer's settings allow it (RFC 9220).  Without it the events are
    #: aioquic's.
    extended: bool = False
    #: A malformed message, or a field section over its limits, ends only its stream
    #: (RFC 9114, 4.1.2), with a ``StreamAborted`` event.  If false, it closes the
    #: connection, as in aioquic.
    stream_errors: bool = False
    #: Join several ``cookie`` fields into one (RFC 9114, 4.2.1).
    join_cookies: bool = False
    #: Accept field values with white space around them, and strip it.
    lenient_inbound_headers: bool = False
    #: Check what we send as we check what we receive.
    validate_outbound: bool = True
    #: Settings besides those made from the other fields; ``None`` leaves one out.
    settings: dict[int, int | None] = field(default_factory=dict)
    #: Bytes of the dynamic table of our decoder (RFC 9204, 3.2.3).
    qpack_max_table_capacity: int = _DEFAULTS["qpack_capacity"]
    #: Streams that may be blocked on the encoder stream (RFC 9204, 2.1.2).
    qpack_blocked_streams: int = _DEFAULTS["qpack_blocked_streams"]
    #: Bytes of the dynamic table of our encoder, if the peer allows that much.
    qpack_encoder_table_capacity: int = _DEFAULTS["qpack_encoder_capacity"]
    #: Bytes of a field section, with 32 for each field (RFC 9114, 4.2.2).
    #: ``None`` is 65536, and is not announced.
    max_field_section_size: int | None = None
    #: Fields of a field section.
    max_field_count: int = _DEFAULTS["max_field_count"]
    #: The largest push identifier that a client allows; ``None`` means no push.
    max_push_id: int | None = 8
    #: Bytes of all streams that are kept until the rest of a field section,
    #: instructions of the encoder stream or a session arrive.
    max_buffered: int = _DEFAULTS["max_buffered"]
    #: WebTransport sessions that a client may have open at once, if they are kept:
    #: the CONNECT of one more is reset with ``H3_REQUEST_REJECTED`` before the
    #: application sees it (draft-ietf-webtrans-http3, 5.2).
    webtransport_max_sessions: int = _DEFAULTS["max_sessions"]
    #: Frames without meaning that the peer may send, besides one for each message.
    max_glitches: int = _DEFAULTS["max_glitches"]
    #: Requests, in excess of those that end well, that a client may reset before their
    #: response has a body, end without a header section, or send malformed.
    max_reset_streams: int = _DEFAULTS["max_reset_streams"]

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "settings":
                check_type("settings", value, dict, "a dict of int to int or None")
                continue
            if item.type is bool:
                check_bool(item.name, value)
                continue
            if value is None and item.name in ("max_field_section_size", "max_push_id"):
                continue
            high = _MAX_VARINT if item.name == "max_push_id" else _MAX_SIZE
            check_int(item.name, value, 0, high, error=InvalidSettingsValueError)
        for identifier, value in self.settings.items():
            what = f"of settings {identifier!r}: {value!r}, the "
            for name, number in (("identifier", identifier), ("value", value)):
                if number is not None or name == "identifier":
                    check_int(
                        what + name,
                        number,
                        0,
                        _MAX_VARINT,
                        rule="RFC 9000, 16",
                        error=InvalidSettingsValueError,
                    )

    def sent_settings(self, webtransport: bool) -> dict[int, int]:
        """The SETTINGS frame, in the order in which it is sent."""
        settings: dict[int, int] = {
            Setting.QPACK_MAX_TABLE_CAPACITY: self.qpack_max_table_capacity,
            Setting.QPACK_BLOCKED_STREAMS: self.qpack_blocked_streams,
            Setting.ENABLE_CONNECT_PROTOCOL: 1,
            Setting.DUMMY: 1,
        }
        if self.max_field_section_size is not None:
            settings[Setting.MAX_FIELD_SECTION_SIZE] = self.max_field_section_size
        if webtransport:
            settings.update(_WEBTRANSPORT_SETTINGS)
            if self.extended:
                settings.update(_WEBTRANSPORT_SETTINGS_EXTENDED)
                sessions = self.webtransport_max_sessions
                settings[Setting.WEBTRANSPORT_MAX_SESSIONS] = sessions
        for identifier, value in self.settings.items():
            if value is None:
                settings.pop(identifier, None)
            else:
                settings[identifier] = value
        return settings
