"""A stack whose planes lie in separate files: the `*` in the name is the plane number."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.ref import ImageInfo, ImageRef
from warpbeam.transforms.storage.images.source import is_folder, join, list_files

Array = np.ndarray[Any, np.dtype[Any]]


class Plane(Protocol):
    def read(self, channel: int, time: int, box: Box) -> Array: ...


class StackImage:
    """The planes in the order of their numbers; all of one shape and dtype."""

    def __init__(
        self,
        file: str,
        series: int,
        *,
        probe: Callable[[ImageRef], ImageInfo],
        open_plane: Callable[[ImageRef], AbstractContextManager[Plane]],
    ) -> None:
        self._open_plane = open_plane
        self._refs = [ImageRef(name, series) for name in plane_files(file)]
        infos = [probe(ref) for ref in self._refs]
        first = infos[0]
        for ref, info in zip(self._refs, infos, strict=True):
            if len(info.shape) != 2 or (info.shape, info.dtype) != (first.shape, first.dtype):
                raise InputError(
                    "the planes of a stack differ",
                    where=ref.file,
                    expected=f"one plane of shape {first.shape}, {first.dtype}",
                    got=f"shape {info.shape}, {info.dtype}",
                    fix="correct the pattern, or take the file away",
                )
        shape, chunk = (len(infos), *first.shape), (1, *first.chunk)
        self.info = replace(first, shape=shape, chunk=chunk, voxel_um=None)

    def close(self) -> None:
        """The files are closed by the cache of sources."""

    def read(self, channel: int, time: int, box: Box) -> Array:
        """A zyx box, with a last axis of samples."""
        plane = Box((0, *box.start[1:]), (1, *box.stop[1:]))
        planes = []
        for ref in self._refs[box.start[0] : box.stop[0]]:
            with self._open_plane(ref) as image:
                planes.append(image.read(channel, time, plane))
        return np.concatenate(planes)


def plane_files(file: str) -> list[str]:
    """The files that match, by plane number.

    Raises:
        FileNotFoundError: none does.
    """
    folder, _, name = file.rpartition("/")
    before, _, after = name.partition("*")
    match = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}").fullmatch
    names = list_files(folder or ".", depth=0) if is_folder(folder or ".") else []
    found = [(int(m[1]), n) for n in names if (m := match(n))]
    if not found:
        raise FileNotFoundError(file)
    return [join(folder, n) for _, n in sorted(found)]
