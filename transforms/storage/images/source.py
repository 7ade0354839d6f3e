"""Bytes of local files and of objects behind a URI, at any offset, from any thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, Any, Protocol

from warpbeam.transforms.storage.errors import InputError


class Source(Protocol):
    """A file that is open for reading at offsets."""

    @property
    def size(self) -> int: ...

    @property
    def band_bytes(self) -> int:
        """How much to ask for at once where only a part of it is kept."""
        ...

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end of the file."""
        ...

    def read_into(self, offset: int, out: memoryview) -> int:
        """Fills `out`, which is writable bytes, and says with how many; fewer at the end."""
        ...

    def close(self) -> None: ...


class LocalFile:
    """`pread` leaves no position behind, so that threads share one descriptor."""

    band_bytes = 1 << 18  # stays in the processor's cache until it is picked from

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0 and (part := os.pread(self._descriptor, count, offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, out: memoryview) -> int:
        done = 0
        while got := os.preadv(self._descriptor, [out[done:]], offset + done):
            done += got
        return done

    def close(self) -> None:
        os.close(self._descriptor)


class RemoteFile:
    """An object in a bucket, through fsspec; each read is one range request."""

    band_bytes = 1 << 24

    def __init__(self, uri: str) -> None:
        self._fs, self._path = _filesystem(uri)
        self.size = int(self._fs.size(self._path))

    def read_at(self, offset: int, count: int) -> bytes:
        end = min(offset + count, self.size)
        return bytes(self._fs.cat_file(self._path, offset, end)) if offset < end else b""

    def read_into(self, offset: int, out: memoryview) -> int:
        data = self.read_at(offset, len(out))
        out[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Nothing is held open."""


def is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> str:
    """A path out of a file:// URI; TensorStore's own URIs (with `|`) stay as they are."""
    return path if "|" in path else path.removeprefix("file://")


def open_source(path: str) -> Source:
    return RemoteFile(path) if is_remote(path) else LocalFile(local_path(path))


def open_binary(path: str) -> AbstractContextManager[IO[bytes]]:
    """A binary stream of a local file or of an object behind a URI (gs://, s3://, memory://)."""
    if not is_remote(path):
        return open(local_path(path), "rb")
    fs, inner = _filesystem(path)
    stream: AbstractContextManager[IO[bytes]] = fs.open(inner, "rb")
    return stream


def version(path: str) -> tuple[int, str]:
    """Size in bytes and a mark that changes when the file is written again.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not is_remote(path):
        stat = os.stat(local_path(path))
        return stat.st_size, str(stat.st_mtime_ns)
    fs, inner = _filesystem(path)
    facts = fs.info(inner)
    marks = ("etag", "ETag", "md5Hash", "crc32c", "generation", "mtime", "LastModified", "created")
    return int(facts.get("size") or 0), next((str(facts[m]) for m in marks if facts.get(m)), "")


def is_folder(path: str) -> bool:
    if not is_remote(path):
        return os.path.isdir(local_path(path))
    fs, inner = _filesystem(path)
    return bool(fs.isdir(inner))


def exists(path: str) -> bool:
    if not is_remote(path):
        return os.path.exists(local_path(path))
    fs, inner = _filesystem(path)
    return bool(fs.exists(inner))


def list_files(folder: str, *, depth: int) -> list[str]:
    """Names of the files below a folder, relative to it, at most `depth` folders down."""
    return sorted(_walk(folder, "", depth))


def join(folder: str, name: str) -> str:
    """`name` as seen from `folder`, so that one file has one spelling; URIs stay as they are."""
    if is_remote(name) or "|" in name:
        return name
    if is_remote(folder):
        return f"{folder.rstrip('/')}/{name}"
    return os.path.normpath(os.path.join(folder, name))


def _walk(folder: str, prefix: str, depth: int) -> Iterator[str]:
    for name, is_dir in _entries(join(folder, prefix) if prefix else folder):
        if not is_dir:
            yield prefix + name
        elif depth > 0 and not name.startswith("."):
            yield from _walk(folder, f"{prefix}{name}/", depth - 1)


def _entries(folder: str) -> list[tuple[str, bool]]:
    if not is_remote(folder):
        with os.scandir(local_path(folder)) as entries:
            return [(e.name, e.is_dir()) for e in entries]
    fs, inner = _filesystem(folder)
    found = fs.ls(inner, detail=True)
    return [(e["name"].rstrip("/").rsplit("/", 1)[-1], e["type"] == "directory") for e in found]


def _filesystem(uri: str) -> tuple[Any, str]:
    import fsspec  # type: ignore[import-untyped]

    try:
        fs, inner = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as cause:
        raise InputError(
            "a URI cannot be opened",
            where=uri,
            expected="a scheme that fsspec knows, with its package installed (s3:// needs s3fs)",
            got=str(cause),
            fix="install the package, or copy the files to a local folder",
        ) from cause
    return fs, str(inner)
