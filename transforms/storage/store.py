"""Where bytes live: URIs, key-value stores and the one TensorStore context of a process.

A URI is a local path, `file://`, `gs://bucket/prefix`, `s3://bucket/prefix` or
`memory://prefix` (private to the process, for tests). Every store and array of a process
opens in one context, so that the cache and the thread pools are bounded once.

Environment: `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` and `AWS_REGION` for S3-compatible
servers; TensorStore itself obeys `TENSORSTORE_GCS_HTTP_URL` for Google Cloud Storage.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import tensorstore as ts

from warpbeam.transforms.storage.errors import InputError

Uri = str | os.PathLike[str]

SCHEMES = ("file", "gs", "s3", "memory")
# TensorStore's file driver writes beside the target and renames; a killed writer leaves these.
LOCK_SUFFIX = ".__lock"


@dataclass(frozen=True)
class ContextLimits:
    """What the TensorStore context of a process may use; None = TensorStore's own choice."""

    cache_bytes: int = 32 << 20
    copy_threads: int | None = None
    io_threads: int | None = None


_lock = threading.Lock()
_limits: ContextLimits | None = None


def configure(limits: ContextLimits) -> None:
    """Sets the limits of this process, before its first access to a store.

    Raises:
        ValueError: other limits are already in use.
    """
    global _limits
    with _lock:
        if _limits not in (None, limits):
            raise ValueError(f"the TensorStore context runs with {_limits}, cannot take {limits}")
        _limits = limits


def context() -> ts.Context:
    """The TensorStore context of this process."""
    configure(_limits or ContextLimits())
    return _context()


@functools.cache
def _context() -> ts.Context:
    limits = _limits or ContextLimits()
    spec: dict[str, Any] = {"cache_pool": {"total_bytes_limit": limits.cache_bytes}}
    if limits.copy_threads is not None:
        spec["data_copy_concurrency"] = {"limit": limits.copy_threads}
    if limits.io_threads is not None:
        spec["file_io_concurrency"] = {"limit": limits.io_threads}
    return ts.Context(spec)


@functools.cache
def write_context() -> ts.Context:
    """The same pools without a cache, for arrays that are written.

    A write may then refer to the caller's array in place of a copy: with a cache, the array
    would stay referenced after the commit, and changing it would change what is read back.
    """
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}}, parent=context())


def forget() -> None:
    """Lets go of what the contexts know about arrays: others may take the place of theirs."""
    _context.cache_clear()
    write_context.cache_clear()


def split_scheme(uri: Uri) -> tuple[str, str]:
    """`(scheme, rest)`; a plain path is `file`, relative to the working folder.

    Raises:
        InputError: the scheme is not one of `SCHEMES`.
    """
    text = os.fspath(uri)
    scheme, mark, rest = text.partition("://")
    if not mark:
        return "file", os.path.abspath(text)
    if scheme not in SCHEMES:
        raise InputError(
            "the kind of storage is not known",
            where=text,
            expected=f"a path, or one of {', '.join(s + '://' for s in SCHEMES)}",
            got=f"{scheme}://",
            fix="correct the address, or copy the data to one of these",
        )
    return scheme, os.path.abspath(unquote(rest)) if scheme == "file" else rest


def local_path(uri: Uri) -> Path | None:
    """The path on the local disk; None for a bucket or memory."""
    scheme, rest = split_scheme(uri)
    return Path(rest) if scheme == "file" else None


def kvstore_spec(uri: Uri) -> dict[str, Any]:
    """The TensorStore key-value store of everything below `uri`, as JSON."""
    scheme, rest = split_scheme(uri)
    if scheme == "file":
        return {"driver": "file", "path": rest.rstrip("/") + "/"}
    if scheme == "memory":
        return {"driver": "memory", "path": _folder(rest)}
    bucket, _, path = rest.partition("/")
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": _folder(path)}
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": _folder(path)}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        # Without a region TensorStore asks the endpoint for one, which only Amazon answers.
        spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    elif region:
        spec["aws_region"] = region
    return spec


def _folder(path: str) -> str:
    return path.strip("/") + "/" if path.strip("/") else ""


def open_kvstore(uri: Uri) -> ts.KvStore:
    """The key-value store whose keys are relative to `uri`."""
    return ts.KvStore.open(kvstore_spec(uri), context=context()).result()


def join(uri: Uri, *parts: str) -> str:
    """`uri` followed by path parts, with single slashes between them."""
    text = os.fspath(uri)
    head = text if text.endswith("://") else text.rstrip("/") + "/"
    return (head + "/".join(p.strip("/") for p in parts if p.strip("/"))).rstrip("/")


def _parent_and_key(uri: Uri) -> tuple[str, str]:
    parent, _, key = os.fspath(uri).rstrip("/").rpartition("/")
    if parent.endswith(":/"):
        return f"{parent}/", key
    return parent or ("/" if os.fspath(uri).startswith("/") else "."), key


def read_bytes(uri: Uri) -> bytes | None:
    """The object at `uri`; None if there is none."""
    parent, key = _parent_and_key(uri)
    found = open_kvstore(parent).read(key).result()
    return found.value if found.state == "value" else None


def write_bytes(uri: Uri, value: bytes) -> None:
    """Writes one object; readers see all of it or none, and it is stored on return."""
    parent, key = _parent_and_key(uri)
    open_kvstore(parent).write(key, value).result()


def read_json(uri: Uri) -> Any:
    """The JSON value at `uri`; None if there is no such object.

    Raises:
        InputError: the object is not JSON.
    """
    raw = read_bytes(uri)
    try:
        return None if raw is None else json.loads(raw)
    except ValueError as error:
        raise InputError(
            "a metadata file cannot be read",
            where=os.fspath(uri),
            expected="JSON",
            got=str(error),
            fix="restore the file, or write the data again",
        ) from None


def write_json(uri: Uri, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all; it is stored on return."""
    write_bytes(uri, json.dumps(value, indent=1, allow_nan=False).encode())


def list_keys(uri: Uri, prefix: str = "") -> list[str]:
    """The keys below `uri` that start with `prefix`, relative to `uri`, sorted."""
    found = open_kvstore(uri).list(_range(prefix)).result()
    keys = (key.decode() for key in found)
    return sorted(key for key in keys if not key.endswith(LOCK_SUFFIX))


def delete_prefix(uri: Uri, prefix: str = "") -> None:
    """Deletes every key below `uri` that starts with `prefix`."""
    open_kvstore(uri).delete_range(_range(prefix)).result()


def delete_others(uri: Uri, key: str) -> None:
    """Deletes every key below `uri` but this one."""
    opened, raw = open_kvstore(uri), key.encode()
    opened.delete_range(ts.KvStore.KeyRange(b"", raw)).result()
    opened.delete_range(ts.KvStore.KeyRange(raw + b"\0", b"")).result()


def exists(uri: Uri) -> bool:
    """Whether there is an object at `uri` or anything below it.

    On a bucket this lists what is below, so ask for a metadata file when it is much.
    """
    if (path := local_path(uri)) is not None:
        return path.exists()
    parent, key = _parent_and_key(uri)
    store = open_kvstore(parent)
    alone = ts.KvStore.KeyRange(key, key + "\0")
    return bool(store.list(alone).result() or store.list(_range(key + "/")).result())


def _range(prefix: str) -> ts.KvStore.KeyRange:
    if not prefix:
        return ts.KvStore.KeyRange()
    # Keys are bytes; the last byte of UTF-8 text is never 0xff.
    raw = prefix.encode()
    return ts.KvStore.KeyRange(raw, raw[:-1] + bytes([raw[-1] + 1]))


def read_many(uri: Uri, keys: Sequence[str]) -> list[bytes]:
    """The objects of these keys below `uri`, read together.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    opened = open_kvstore(uri)
    found = [future.result() for future in [opened.read(key) for key in keys]]
    for key, result in zip(keys, found, strict=True):
        if result.state != "value":
            raise FileNotFoundError(f"no object {key} below {os.fspath(uri)}")
    return [result.value for result in found]
