"""`view`: serves a volume to Neuroglancer, and a page with a slice per scale.

    warpbeam view out/

Serves the folder over HTTP on this machine alone, with CORS and byte ranges (a shard is
read in parts), prints a Neuroglancer link that carries the whole state, and shows at `/` a
page that works without a network. Only local folders are served: what is in a bucket can be
opened by its own address.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from warpbeam.pipelines.neuroglancer import link, picture, window
from warpbeam.pipelines.neuroglancer import state as state
from warpbeam.transforms.storage.describe import Description, describe
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.store import local_path

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")

# How long stopping the server may take, in seconds.
_STOP_S = 0.05

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Share:
    """What is served: addresses are relative to `root`, files come from below `folder` alone."""

    found: Description
    root: Path
    folder: Path

    @property
    def path(self) -> str:
        """Of the volume, in an address."""
        return "/" + quote(Path(self.found.uri).resolve().relative_to(self.root).as_posix())

    @property
    def report(self) -> str | None:
        return "report.html" if (self.folder / "report.html").is_file() else None


def _share(uri: str) -> _Share:
    found = describe(uri)
    place = local_path(found.uri)
    levels = tuple(level for level in found.levels if level.array is not None)
    if place is None or not levels:
        raise InputError(
            "the volume cannot be served",
            where=uri,
            expected="a volume in a local folder, with arrays",
            got="no arrays" if place is not None else "a bucket",
            fix="give the volume's folder; a bucket is opened by its own address",
        )
    # Any page in the browser can ask: nothing beside the volume or the run's folder is served.
    root, asked = place.resolve().parent, local_path(uri)
    folder = root if asked is not None and asked.resolve() == root else place.resolve()
    return _Share(dataclasses.replace(found, levels=levels), root, folder)


class _Handler(SimpleHTTPRequestHandler):
    """Files with CORS and byte ranges; `/` and `/.view/<level>.png` are made on request."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, share: _Share, **kwargs: Any) -> None:
        self._share, self._found, root = share, share.found, share.root
        super().__init__(*args, directory=str(root), **kwargs)

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length, ETag")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def do_OPTIONS(self) -> None:
        self.send_response(HTTPStatus.NO_CONTENT)
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        # Browsers ask before a public page may read from this machine.
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.end_headers()

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        drawn = re.fullmatch(r"/\.view/(\d+)\.png", path)
        if path == "/":
            self._send(_page(self._share, self._base()), "text/html", body=body)
        elif drawn and int(drawn[1]) < len(self._found.levels):
            levels = self._found.levels
            png = picture(levels[int(drawn[1])], *window(levels[-1]))
            self._send(png, "image/png", body=body)
        else:
            self._send_file(Path(self.translate_path(self.path)), body=body)

    def _base(self) -> str:
        """The address of the volume as this client reached it."""
        host = self.headers.get("Host") or self.address_string()
        return f"http://{host}{self._share.path}"

    def _send(self, content: bytes, kind: str, *, body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _send_file(self, path: Path, *, body: bool) -> None:
        # No listing and no way out of the folder, through links either.
        if not path.is_file() or not path.resolve().is_relative_to(self._share.folder):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            size = path.stat().st_size
            part = parse_range(self.headers.get("Range"), size)
            if part is None:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, stop = part
            partial = self.headers.get("Range") is not None
            self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", self.guess_type(str(path)))
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if body:
                self._copy(file, start, stop)

    def _copy(self, file: BinaryIO, start: int, stop: int) -> None:
        file.seek(start)
        while start < stop and (block := file.read(min(1 << 20, stop - start))):
            self.wfile.write(block)
            start += len(block)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and past-the-last byte that a Range header asks of `size` bytes.

    No header is everything; `bytes=-n` is the last n, as readers of shard indices ask
    (RFC 9110, section 14.1.2).

    Returns:
        None where the range cannot be served.
    """
    if header is None:
        return 0, size
    match = _RANGE.match(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        count = min(int(match[2]), size)
        return (size - count, size) if count else None
    start = int(match[1])
    stop = min(int(match[2]) + 1, size) if match[2] else size
    return (start, stop) if start < stop else None


def _page(share: _Share, base_url: str) -> bytes:
    from jinja2 import Environment, FileSystemLoader

    templates = FileSystemLoader(Path(__file__).parent / "templates")
    page = Environment(loader=templates, autoescape=True).get_template("view.html.j2")
    text = page.render(
        found=share.found,
        link=link(share.found, base_url),
        base_url=base_url,
        report=share.report,
    )
    return text.encode()


def serve(uri: str, port: int) -> ThreadingHTTPServer:
    """Starts to serve the volume at `uri`, or that of a run's output folder, and returns.

    Args:
        uri: a local path.
        port: 0 takes a free one; `server.server_address` tells.

    Returns:
        The server, running in a thread of its own; `shutdown()` and `server_close()` end it.

    Raises:
        InputError: there is no volume, it is not local, or the port is taken.
    """
    handler = functools.partial(_Handler, share=_share(uri))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise InputError(
            "the port cannot be used",
            where=f"127.0.0.1:{port}",
            expected="a free port",
            got=str(error),
            fix="choose another port, or 0 for any free one",
        ) from None
    server.daemon_threads = True
    poll = functools.partial(server.serve_forever, poll_interval=_STOP_S)
    threading.Thread(target=poll, name="view", daemon=True).start()
    return server


@contextmanager
def serving(uri: str, port: int) -> Iterator[tuple[str, str]]:
    """Serves within a `with` block; gives the local page and the Neuroglancer link."""
    server = serve(uri, port)
    home = f"http://127.0.0.1:{server.server_address[1]}"
    share = _share(uri)
    try:
        yield home + "/", link(share.found, home + share.path)
    finally:
        server.shutdown()
        server.server_close()


def run(uri: str, port: int, *, open_browser: bool = False) -> int:
    """Writes the two addresses to standard output and serves until interrupted.

    Returns:
        The exit code, 0.

    Raises:
        InputError: as `serve`.
    """
    with serving(uri, port) as (page, viewer):
        sys.stdout.write(f"page          {page}\nneuroglancer  {viewer}\nCtrl-C stops\n")
        sys.stdout.flush()
        if open_browser:
            webbrowser.open(page)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
