"""Settings and limits of an HTTP/2 connection."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

from nghttp2py.arguments import check_bool, check_int, describe
from nghttp2py.errors import InvalidSettingsValueError
from nghttp2py.libraries import h2_defaults

__all__ = ["H2Configuration", "Setting"]


class Setting(IntEnum):
    """Identifiers of SETTINGS parameters (RFC 9113, 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8  # RFC 8441, 3
    NO_RFC7540_PRIORITIES = 0x9  # RFC 9218, 2.1


# The defaults of the C options, which are ours where there is one.
_DEFAULTS = h2_defaults()

_MAX_WINDOW = 2**31 - 1  # RFC 9113, 6.9.1
_UINT32 = 2**32 - 1

# The least and greatest value of each number, and the rule they come from.
_RANGES: dict[str, tuple[int, int, str]] = {
    "header_table_size": (0, _UINT32, "RFC 9113, 6.5.2"),
    "max_concurrent_streams": (0, _UINT32, "RFC 9113, 6.5.2"),
    "initial_window_size": (0, _MAX_WINDOW, "RFC 9113, 6.5.2"),
    "connection_window_size": (65535, _MAX_WINDOW, "RFC 9113, 6.9.2"),
    "max_frame_size": (16384, 2**24 - 1, "RFC 9113, 6.5.2"),
    "max_header_list_bytes": (1, _UINT32, "RFC 9113, 6.5.2"),
    "max_header_list_count": (1, _UINT32, "a count"),
    "max_body_queue": (1, 2**62, "a number of bytes"),
    "max_queued_requests": (1, _UINT32, "a count"),
    "max_data_frame": (1, 2**24 - 1, "RFC 9113, 4.2"),
    "pad_multiple": (0, 256, "RFC 9113, 6.1"),
    "max_provoked_resets": (1, _UINT32, "a count"),
    "max_glitches": (1, _UINT32, "a count"),
    "peer_max_concurrent_streams": (1, _UINT32, "a count"),
    "max_reserved_remote_streams": (1, _UINT32, "a count"),
    "max_send_header_block_length": (1, 2**24, "a number of bytes"),
    "max_deflate_dynamic_table_size": (0, _UINT32, "RFC 7541, 4.2"),
    "max_outbound_ack": (1, _UINT32, "a count"),
    "max_settings": (1, _UINT32, "a count"),
    "max_continuations": (1, _UINT32, "a count"),
    "max_outbound_queue_size": (1, _UINT32, "a count"),
    "stream_reset_burst": (1, 2**62, "a count"),
    "stream_reset_rate": (1, 2**62, "a count a second"),
    "glitch_burst": (1, 2**62, "a count"),
    "glitch_rate": (1, 2**62, "a count a second"),
}


@dataclass(frozen=True)
class H2Configuration:
    """What one end of a connection announces, accepts and bounds.

    Sizes are in bytes.  A number outside its range raises
    ``InvalidSettingsValueError``, a value of another type ``TypeError``.
    """

    # ---- What SETTINGS announce (RFC 9113, 6.5.2) ----

    #: Size of the HPACK table for what we receive.
    header_table_size: int = 4096
    #: Streams that the peer may have open: the RFC asks for at least 100.
    max_concurrent_streams: int = 100
    #: Window of each stream.  HTTP/2's default is 65535.
    initial_window_size: int = 65535
    #: Window of the whole connection; above 65535 a WINDOW_UPDATE enlarges it.
    connection_window_size: int = 65535
    #: Largest frame payload that we accept: the smallest allowed keeps latency low.
    max_frame_size: int = 16384
    #: Client: whether the server may push.  Most clients do not use pushes.
    enable_push: bool = False
    #: Server: whether extended CONNECT is served (RFC 8441).
    enable_connect_protocol: bool = True

    # ---- Behaviour ----

    #: Received DATA is credited to the peer only by
    #: ``acknowledge_received_data``.
    manual_flow_control: bool = False
    #: Streams whose request has no ``priority`` share bandwidth with their
    #: like instead of being served one after the other (RFC 9218, 4.2).
    default_incremental: bool = False
    #: Frames of unknown types become events instead of being ignored.
    receive_extension_frames: bool = False
    #: PINGs are answered automatically.
    automatic_ping_ack: bool = True
    #: White space around received field values is stripped: RFC 9113, 8.2.1 forbids it,
    #: but some sites send it.  In pseudo-header fields, ``host`` and ``content-length``
    #: it stays an error.
    lenient_inbound_headers: bool = False
    #: In what we send, white space around names and values is stripped, and the fields
    #: that concern one HTTP/1.1 connection are dropped, instead of being refused: as in
    #: hyper-h2.
    normalize_outbound_headers: bool = False
    #: HEADERS and DATA are padded to a multiple of this; 0 means no padding.
    pad_multiple: int = 0

    # ---- Bounds.  ``None`` means the C library's default, in parentheses here. ----

    #: Size of a received header list: name, value and 32 bytes for each field.
    max_header_list_bytes: int = _DEFAULTS["max_header_list_bytes"]
    #: Fields of a received header list: a block of 64 KiB can encode thousands.
    max_header_list_count: int = _DEFAULTS["max_header_list_count"]
    #: Bytes queued on a stream before ``send_body`` refuses; what ``send_data``
    #: takes is bounded by the peer's windows.
    max_body_queue: int = _DEFAULTS["max_body_queue"]
    #: Requests that a client queues beyond the peer's limit of streams: each holds its
    #: header section, and a peer may never allow more streams.
    max_queued_requests: int = 10000
    #: Largest payload of a DATA frame, even if the peer allows more: the C library
    #: keeps a buffer of that size.
    max_data_frame: int = _DEFAULTS["max_data_frame"]
    #: Streams that a peer may make us reset, in excess of those that end well, before
    #: the connection is closed ("MadeYouReset").
    max_provoked_resets: int = _DEFAULTS["max_provoked_resets"]
    #: Frames without effect (WINDOW_UPDATEs beyond what the bodies need, PINGs,
    #: SETTINGS, empty DATA, unknown frames) that a peer may send at once before the
    #: connection is closed; each second allows 330 more (``time_passed``).
    max_glitches: int = _DEFAULTS["max_glitches"]
    #: Streams that a client may open until the server's SETTINGS come (100).
    peer_max_concurrent_streams: int | None = None
    #: Promised streams that a client may have reserved (200).
    max_reserved_remote_streams: int | None = None
    #: Size of a header section that we send (64 KiB).
    max_send_header_block_length: int | None = None
    #: Size of the HPACK table for what we send, even if the peer allows more (4096).
    max_deflate_dynamic_table_size: int | None = None
    #: Answers to PING and SETTINGS in the queue before it counts as a flood (1000).
    max_outbound_ack: int | None = None
    #: Entries of a SETTINGS frame (32).
    max_settings: int | None = None
    #: CONTINUATION frames after a HEADERS frame (8).
    max_continuations: int | None = None
    #: Frames in the outbound queue, where the C library bounds it (5000).
    max_outbound_queue_size: int | None = None
    #: Resets by a client, at once and for each second (1000, 33).
    stream_reset_burst: int | None = None
    stream_reset_rate: int | None = None
    #: Suspicious frames, at once and for each second (10000, 330).
    glitch_burst: int | None = None
    glitch_rate: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _RANGES:
                check_bool(field.name, value)
                continue
            if value is None and field.default is None:
                continue
            low, high, rule = _RANGES[field.name]
            check_int(
                field.name, value, low, high, rule=rule, error=InvalidSettingsValueError
            )
        for burst, rate in (
            ("stream_reset_burst", "stream_reset_rate"),
            ("glitch_burst", "glitch_rate"),
        ):
            if (getattr(self, burst) is None) != (getattr(self, rate) is None):
                raise InvalidSettingsValueError(
                    f"{burst} and {rate} are set together or not at all"
                )

    def settings(self, client_side: bool) -> dict[int, int]:
        """The first SETTINGS frame.

        NO_RFC7540_PRIORITIES must be in the first SETTINGS and keep its value (RFC
        9218, 2.1); without it older C libraries schedule by RFC 7540.
        """
        settings = {
            int(Setting.NO_RFC7540_PRIORITIES): 1,
            int(Setting.MAX_CONCURRENT_STREAMS): self.max_concurrent_streams,
            int(Setting.INITIAL_WINDOW_SIZE): self.initial_window_size,
            int(Setting.MAX_HEADER_LIST_SIZE): self.max_header_list_bytes,
        }
        if self.header_table_size != 4096:
            settings[int(Setting.HEADER_TABLE_SIZE)] = self.header_table_size
        if self.max_frame_size != 16384:
            settings[int(Setting.MAX_FRAME_SIZE)] = self.max_frame_size
        if client_side:
            settings[int(Setting.ENABLE_PUSH)] = int(self.enable_push)
        elif self.enable_connect_protocol:
            settings[int(Setting.ENABLE_CONNECT_PROTOCOL)] = 1
        return settings


def check_config(config: object) -> None:
    """Raise ``TypeError`` unless ``config`` is an ``H2Configuration``."""
    if config is not None and not isinstance(config, H2Configuration):
        raise TypeError(f"config must be an H2Configuration, not {describe(config)}")
