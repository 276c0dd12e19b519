"""Pages that a server of files makes: lists of directories, and errors.

Everything is in the page itself, and it works without scripts: they only filter while
one types, and upload files.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
import stat
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

__all__ = ["MAX_LISTED", "PAGE_SIZE", "View", "error_page", "list_directory"]

#: How many names of a directory are read for its list, and how many are on a page.
MAX_LISTED = 100_000
PAGE_SIZE = 500
# A filter is kept with its page.
_MAX_FILTER = 200

_STYLE = """
:root { color-scheme: light dark; --text: #1d2125; --soft: #626b74; --line: #e3e6e9;
  --back: #fff; --raised: #f5f7f8; --accent: #0a7d5a }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --soft: #98a1aa;
  --line: #2e343a; --back: #15181b; --raised: #1d2226; --accent: #4cc79b } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem }
h1 { font-size: 1.25rem; font-weight: 600; margin: 0; overflow-wrap: anywhere }
h1 a, a:hover { text-decoration: underline; text-underline-offset: .2em }
h1 a { text-decoration-color: var(--line) }
a { color: inherit; text-decoration: none }
.bar { display: flex; flex-wrap: wrap; gap: .75rem 1.5rem; align-items: center;
  justify-content: space-between; margin-bottom: 1rem }
input { font: inherit; color: inherit; background: var(--raised); padding: .35rem .7rem;
  border: 1px solid var(--line); border-radius: .5rem; width: 14rem; max-width: 100% }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px }
table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: 500; font-size: .85rem; color: var(--soft);
  white-space: nowrap }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line) }
tbody tr:hover { background: var(--raised) }
td:first-child a { display: inline-block; overflow-wrap: anywhere }
td:first-child { padding-left: 2.3rem; position: relative }
th:first-child { padding-left: 2.3rem; width: 100% }
svg { position: absolute; left: .5rem; top: .65rem; width: 1.15rem; height: 1.15rem;
  fill: none; stroke: var(--soft); stroke-width: 1.6; stroke-linejoin: round;
  stroke-linecap: round }
.dir svg { stroke: var(--accent) }
.n { text-align: right; color: var(--soft); white-space: nowrap;
  font-variant-numeric: tabular-nums }
p { color: var(--soft) }
p a { color: var(--accent); margin-right: .75rem }
#drop { border: 1.5px dashed var(--line); border-radius: .6rem; padding: .9rem 1rem;
  margin-bottom: 1rem; color: var(--soft) }
#drop.over { border-color: var(--accent); color: var(--accent) }
#drop input { width: auto; border: 0; background: none; padding: 0 }
#drop input::file-selector-button { font: inherit; color: var(--text); cursor: pointer;
  background: var(--raised); border: 1px solid var(--line); border-radius: .5rem;
  padding: .2rem .7rem; margin-right: .6rem }
progress { width: 100%; accent-color: var(--accent) }
.status { font-size: 4rem; font-weight: 700; letter-spacing: -.04em; margin: 12vh 0 0;
  color: var(--accent); line-height: 1 }
@media (max-width: 40em) { .when { display: none } input { width: 100% }
  th, td { padding: .55rem .3rem } }
"""

_SCRIPT = """
const rows = [...document.querySelectorAll("tbody tr[data-name]")];
const filter = document.querySelector("input[name=q]");
filter?.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  for (const row of rows) {
    row.toggleAttribute("hidden", !row.dataset.name.includes(wanted));
  }
});
const drop = document.getElementById("drop");
const send = (file, bar) => new Promise((done) => {
  const request = new XMLHttpRequest();
  request.open("PUT", location.pathname + encodeURIComponent(file.name));
  request.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
  request.onloadend = () => done(request.status);
  request.send(file);
});
const upload = async (files) => {
  let failed = false;
  for (const file of files) {
    const line = document.createElement("div");
    const bar = document.createElement("progress");
    line.textContent = file.name;
    line.append(bar);
    drop.append(line);
    bar.value = 0;
    const status = await send(file, bar);
    if (status === 201) continue;
    failed = true;
    line.textContent = file.name + ": " + ({ 409: "there is such a file already",
      413: "too large", 507: "no space is left" }[status] ?? "failed, " + status);
  }
  if (files.length && !failed) location.reload();
};
if (drop) {
  drop.querySelector("input").onchange = (event) => upload(event.target.files);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    upload(event.dataTransfer.files);
  });
}
"""


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


#: What the pages may do.  A file's name that was not escaped could do no harm.
POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

# Drawings of 24 by 24, and the suffixes that have them.
_ICONS = {
    "dir": '<path d="M3 6h6l2 2.5h10V19H3z"/>',
    "link": '<path d="M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-6-6l-1 1m2 3.6a4 4 0 0 0-6'
    '-.4l-3 3a4 4 0 0 0 6 6l1-1"/>',
    "file": '<path d="M6 3h8l4 4v14H6z M14 3v4h4"/>',
    "text": '<path d="M6 3h8l4 4v14H6z M14 3v4h4 M9 12h6 M9 15.5h6"/>',
    "code": '<path d="M8 8l-4 4 4 4 M16 8l4 4-4 4 M13.5 5l-3 14"/>',
    "image": '<path d="M4 5h16v14H4z M4 16l4.5-4.5 4 4 2.5-2.5 5 5"/>'
    '<circle cx="15" cy="9" r="1.5"/>',
    "sound": '<path d="M9 17V6l10-2v11"/><circle cx="6.5" cy="17" r="2.5"/>'
    '<circle cx="16.5" cy="15" r="2.5"/>',
    "film": '<path d="M3 6h18v12H3z M10 9.5v5l4.5-2.5z"/>',
    "archive": '<path d="M4 8h16v12H4z M3 4h18v4H3z M10 12h4"/>',
}
_SUFFIXES = {
    "text": "txt md rst pdf csv log tex doc docx odt html htm",
    "code": "py pyx pxd c h cc cpp rs go js mjs ts css json toml yaml yml xml sh java",
    "image": "png jpg jpeg gif svg webp avif ico bmp tiff",
    "sound": "mp3 ogg flac wav m4a opus",
    "film": "mp4 webm mkv mov avi",
    "archive": "zip gz xz zst bz2 br tar tgz 7z whl jar deb rpm iso",
}
_ICON_OF = {suffix: icon for icon, all_ in _SUFFIXES.items() for suffix in all_.split()}

_SORTS = ("name", "size", "date")


class View(NamedTuple):
    """What a page of a list shows: the parameters of its query."""

    page: int = 1
    sort: str = "name"
    descending: bool = False
    filter: str = ""

    @classmethod
    def of(cls, query: bytes) -> View:
        """Read a query; what is unknown or invalid in it is ignored."""
        found: dict[str, str] = {}
        for name, value in parse_qsl(query[:1000].decode("ascii", "replace")):
            found.setdefault(name, value)
        page, sort = found.get("page", ""), found.get("sort", "")
        is_number = page.isascii() and page.isdigit() and len(page) <= 9
        return cls(
            max(int(page), 1) if is_number else 1,
            sort if sort in _SORTS else "name",
            found.get("order") == "desc",
            found.get("q", "")[:_MAX_FILTER],
        )

    def link(self, **changes: Any) -> str:
        """Return the query of this view with changes, escaped for HTML."""
        view = self._replace(**changes)
        parts: dict[str, object] = {}
        if view.filter:
            parts["q"] = view.filter
        if view.sort != "name":
            parts["sort"] = view.sort
        if view.descending:
            parts["order"] = "desc"
        if view.page > 1 or not parts:
            parts["page"] = view.page
        return html.escape("?" + urlencode(parts))


class _Entry(NamedTuple):
    name: str
    is_directory: bool
    size: int = -1
    modified: float = 0.0
    is_link: bool = False


def is_hidden(name: str) -> bool:
    """Return whether a file of this name is neither served nor listed."""
    return name.startswith(".") and name != ".well-known"


def _read(fd: int, view: View) -> tuple[list[_Entry], bool]:
    """Return the entries of a directory in their order, and whether these are all."""
    found, complete, wanted = [], True, view.filter.casefold()
    with os.scandir(fd) as entries:
        for count, entry in enumerate(entries):
            if count == MAX_LISTED:
                complete = False
                break
            if not is_hidden(entry.name) and wanted in entry.name.casefold():
                is_directory = entry.is_dir(follow_symlinks=False)
                found.append(_Entry(entry.name, is_directory))
    if view.sort != "name":
        found = [_describe(fd, entry) for entry in found]
    found.sort(key=lambda entry: (entry.name.casefold(), entry.name))
    if view.sort == "size":
        found.sort(key=lambda entry: entry.size, reverse=view.descending)
    elif view.sort == "date":
        found.sort(key=lambda entry: entry.modified, reverse=view.descending)
    elif view.descending:
        found.reverse()
    # Directories come first in every order.
    found.sort(key=lambda entry: not entry.is_directory)
    return found, complete


def _describe(fd: int, entry: _Entry) -> _Entry:
    try:
        status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return entry  # it was removed meanwhile
    is_link = stat.S_ISLNK(status.st_mode)
    size = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return entry._replace(size=size, modified=status.st_mtime, is_link=is_link)


def format_size(size: int) -> str:
    """Return a number of bytes for people."""
    if size < 1000:
        return f"{size} B"
    number = float(size)
    for unit in "kB", "MB", "GB", "TB":
        number /= 1000
        if number < 999.5 or unit == "TB":
            break
    return f"{number:.1f} {unit}" if number < 99.5 else f"{number:.0f} {unit}"


def list_directory(
    fd: int, names: list[str], view: View, *, upload: bool = False
) -> str | None:
    """Make a page that links to the files of an open directory.

    Returns ``None`` if there is no page of the view's number.
    """
    found, complete = _read(fd, view)
    pages = max(1, -(-len(found) // PAGE_SIZE))
    if view.page > pages:
        return None
    begin = (view.page - 1) * PAGE_SIZE
    shown = [_describe(fd, entry) for entry in found[begin : begin + PAGE_SIZE]]
    title = html.escape(_text("/" + "".join(f"{name}/" for name in names)))
    lines = [
        '<div class="bar">',
        f"<h1>{_breadcrumbs(names)}</h1>",
        '<form><input type="search" name="q" placeholder="Filter" aria-label="Filter" '
        f'value="{html.escape(view.filter)}"></form>',
        "</div>",
    ]
    if upload:
        lines.append(
            '<div id="drop"><label>Drop files here, or choose them: '
            '<input type="file" multiple></label></div>'
        )
    lines += ["<table><thead><tr>", *(_column(view, sort) for sort in _SORTS)]
    lines.append("</thead><tbody>")
    if names:
        lines.append(
            f'<tr class="dir"><td>{_icon("dir")}<a href="../">../</a><td class="n">'
            '<td class="n when">'
        )
    lines += map(_row, shown)
    lines.append("</tbody></table>")
    if not found:
        lines.append("<p>No files.</p>" if not view.filter else "<p>No such files.</p>")
    if pages > 1:
        lines.append(f"<p>Page {view.page} of {pages}")
        for other, what in ((view.page - 1, "Previous"), (view.page + 1, "Next")):
            if 1 <= other <= pages:
                lines.append(f'<a href="{view.link(page=other)}">{what}</a>')
        lines.append("</p>")
    if not complete:
        lines.append(f"<p>There are more than {MAX_LISTED} files.</p>")
    return _page(title, lines, script=True)


def _column(view: View, sort: str) -> str:
    """Return the head of a column, which is a link that sorts by it."""
    is_current = view.sort == sort
    # The largest and the latest are what one looks for.
    descending = not view.descending if is_current else sort != "name"
    link = view.link(page=1, sort=sort, descending=descending)
    order = "descending" if view.descending else "ascending"
    current = f' aria-sort="{order}"' if is_current else ""
    arrow = f" {'↓' if view.descending else '↑'}" if is_current else ""
    kind = {"name": "", "size": ' class="n"', "date": ' class="n when"'}[sort]
    label = {"name": "Name", "size": "Size", "date": "Modified (UTC)"}[sort]
    return f'<th{kind}{current}><a href="{link}">{label}{arrow}</a>'


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _breadcrumbs(names: list[str]) -> str:
    parts = []
    for depth, name in enumerate(["", *names]):
        up = "../" * (len(names) - depth) or "./"
        parts.append(f'<a href="{up}">{html.escape(_text(name)) or "Files"}</a>')
    return " / ".join(parts)


def _icon(name: str) -> str:
    return f'<svg viewBox="0 0 24 24" aria-hidden="true">{_ICONS[name]}</svg>'


def _row(entry: _Entry) -> str:
    name = entry.name + "/" * entry.is_directory
    kind = "dir" if entry.is_directory else "link" if entry.is_link else "file"
    if kind == "file":
        kind = _ICON_OF.get(name.rpartition(".")[2].lower(), "file")
    # "./" keeps a colon in a name from looking like a scheme.
    link = html.escape("./" + quote(os.fsencode(name)))
    shown = html.escape(_text(name))
    size = format_size(entry.size) if entry.size >= 0 else ""
    modified = ""
    if entry.modified:
        when = time.gmtime(max(entry.modified, 0))
        modified = time.strftime("%Y-%m-%d %H:%M", when)
    return (
        f'<tr class="{kind}" data-name="{shown.lower()}"><td>{_icon(kind)}'
        f'<a href="{link}">{shown}</a><td class="n">{size}<td class="n when">{modified}'
    )


def error_page(status: int, sentence: str) -> str:
    """Make the page of an error."""
    phrase = HTTPStatus(status).phrase
    lines = [
        f'<p class="status">{status}</p>',
        f"<h1>{phrase}</h1>",
        f"<p>{html.escape(sentence)}</p>",
        '<p><a href="/">Go to the first page</a></p>',
    ]
    return _page(f"{status} {phrase}", lines)


def _page(title: str, lines: Iterable[str], *, script: bool = False) -> str:
    end = [f"<script>{_SCRIPT}</script>"] if script else []
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style>",
            "<main>",
            *lines,
            "</main>",
            *end,
            "</html>\n",
        ]
    )
