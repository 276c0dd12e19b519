"""The options of one run of ``get``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nghttp2py.cli.get.dialing import Routes
from nghttp2py.cli.get.origins import TLS, Versions

__all__ = ["Job"]


@dataclass
class Job:
    """The options and arguments of the command line."""

    urls: list[str]
    #: Of each URL in turn; one that has none goes to standard output.
    outputs: list[str]
    versions: Versions
    tls: TLS
    routes: Routes
    # ---- The request ----
    method: str | None = None
    #: Fields that replace ours; a value of ``None`` removes one.
    headers: list[tuple[str, str | None]] = field(default_factory=list)
    body: Any = None
    #: Whether ``body`` is a file that is uploaded (``-T``).
    is_upload: bool = False
    content_type: str | None = None
    accept: str = "*/*"
    user: str | None = None
    bearer: str | None = None
    user_agent: str | None = None
    referer: str | None = None
    byte_range: str | None = None
    #: The offset to go on from, or -1 for the size of the file.
    resume: int | None = None
    compressed: bool = False
    query: str = ""
    # ---- Redirects and repetition ----
    follow: bool = False
    max_redirects: int = 50
    trusts_locations: bool = False
    retries: int = 0
    retry_delay: float = 0.0
    retry_max_time: float = 0.0
    retry_refused: bool = False
    retry_all: bool = False
    # ---- Cookies ----
    cookies: list[str] = field(default_factory=list)
    cookie_jar: Path | None = None
    no_session: bool = False
    # ---- The output ----
    include: bool = False
    head: bool = False
    fail: bool = False
    fail_with_body: bool = False
    dump_header: Path | None = None
    directory: Path | None = None
    make_directories: bool = False
    named_by_server: bool = False
    keep_existing: bool = False
    remote_names: bool = False
    write_out: str | None = None
    har: Path | None = None
    count: int = 1
    timing: bool = False
    verbose: bool = False
    frames: bool = False
    silent: bool = False
    show_error: bool = False
    # ---- Time and order ----
    timeout: float = 60.0
    max_time: float | None = None
    parallel: bool = False
    parallel_most: int = 50
    fail_early: bool = False

    @property
    def reports_errors(self) -> bool:
        """Whether errors are printed."""
        return not self.silent or self.show_error
