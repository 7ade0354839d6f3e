"""`probe` and `read`: one way in for every kind of image."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from typing import Any, Protocol

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.cache import OpenFiles
from warpbeam.transforms.storage.images.chunked import ChunkedImage, is_store
from warpbeam.transforms.storage.images.nifti import NiftiImage, is_nifti
from warpbeam.transforms.storage.images.raster import RasterImage
from warpbeam.transforms.storage.images.ref import ImageInfo, ImageRef, missing, unreadable
from warpbeam.transforms.storage.images.source import (
    Source,
    is_folder,
    is_remote,
    local_path,
    open_source,
    version,
)
from warpbeam.transforms.storage.images.stack import StackImage
from warpbeam.transforms.storage.images.tiff import TiffImage

OPEN_FILES = 64  # a process may hold 1024 descriptors; the runners and stores need theirs
Array = np.ndarray[Any, np.dtype[Any]]


class OpenImage(Protocol):
    """One series of a file, ready for reading."""

    @property
    def info(self) -> ImageInfo: ...

    def read(self, channel: int, time: int, box: Box) -> Array:
        """A zyx box with a last axis of samples."""
        ...

    def close(self) -> None: ...


_sources: OpenFiles[Source] = OpenFiles(OPEN_FILES)
_images: OpenFiles[OpenImage] = OpenFiles(OPEN_FILES)


def probe(ref: ImageRef) -> ImageInfo:
    """What an image is, from its header, after a check that the file is complete.

    Raises:
        InputError: no such file, unreadable, truncated, or no such series, channel, time or plane.
    """
    with _borrow(ref) as image:
        return _checked(ref, image.info)


def read(ref: ImageRef, box: Box | None = None) -> Array:
    """The voxels of a box (yx or zyx, inside the image; all by default), in native order.

    Raises:
        InputError: what `probe` raises, or red, green and blue that differ.
        CorruptImageError: the header is sound, the data are not.
        ValueError: the box does not lie inside the image.
    """
    with _borrow(ref) as image:
        info = _checked(ref, image.info)
        whole = Box.of_shape(info.shape)
        part = whole if box is None else box
        z = ref.plane or 0
        if part.ndim != whole.ndim or (part and not whole.contains(part)):
            raise ValueError(f"box {part} does not lie inside {whole} of {ref.file}")
        if not part:
            return np.empty(part.shape, info.dtype)
        cube = part if part.ndim == 3 else Box((z, *part.start), (z + 1, *part.stop))
        data = image.read(ref.channel, ref.time, cube)
    grey = _grey(ref.file, data).reshape(part.shape)
    if grey.dtype.kind == "i" and info.dtype == "uint64" and grey.min() < 0:
        raise unreadable(ref.file, f"labels are not negative, and one is {grey.min()}")
    return np.ascontiguousarray(grey, np.dtype(info.dtype))


def close_all() -> None:
    """Closes the images that this process holds open."""
    _images.clear()
    _sources.clear()


def _checked(ref: ImageRef, info: ImageInfo) -> ImageInfo:
    _check_index(ref, "channel", ref.channel, info.channels)
    _check_index(ref, "time", ref.time, info.times)
    if ref.plane is None:
        return info
    _check_index(ref, "plane", ref.plane, info.shape[0] if len(info.shape) == 3 else 1)
    return info.one_plane()


def _check_index(ref: ImageRef, name: str, index: int, count: int) -> None:
    if not 0 <= index < count:
        raise InputError(
            f"a file has no such {name}",
            where=ref.file,
            expected=f"{name} 0 to {count - 1}",
            got=f"{name} {index}",
            fix=f"correct the {name} in the tile list",
        )


def _borrow(ref: ImageRef) -> AbstractContextManager[OpenImage]:
    file = local_path(ref.file)
    key = (file, ref.series, _mark(file))
    return _images.borrow(key, lambda: _open(ref, file))


def _mark(file: str) -> str:
    """Changes when a local file is written again; objects in buckets are taken as constant."""
    if is_remote(file) or "*" in file or "|" in file:
        return ""
    try:
        return version(file)[1]
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise missing(file) from cause


def _open(ref: ImageRef, file: str) -> OpenImage:
    try:
        image = _opened(file, ref.series)
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise missing(file) from cause
    except PermissionError as cause:
        raise unreadable(file, "no permission to read it") from cause
    except ValueError as cause:
        if isinstance(cause, InputError):
            raise
        raise unreadable(file, cause) from cause
    _check_index(ref, "series", ref.series, image.info.series)
    return image


def _opened(file: str, series: int) -> OpenImage:
    if "*" in file:
        return StackImage(file, series, probe=probe, open_plane=_borrow)
    if is_store(file) or is_folder(file):
        return ChunkedImage(file)
    if is_nifti(file):
        return NiftiImage(file)
    with closing(open_source(file)) as source:
        head = source.read_at(0, 4)
    if head[:2] in (b"II", b"MM"):
        return TiffImage(file, series, _sources)
    return RasterImage(file)


def _grey(file: str, data: Array) -> Array:
    """One sample per voxel, from samples that are equal (an alpha channel is left out)."""
    samples = data.shape[-1]
    colours = samples - 1 if samples in (2, 4) else samples
    first = data[..., 0]
    for k in range(1, colours):
        if not np.array_equal(first, data[..., k]):
            raise InputError(
                "an image is in colour",
                where=file,
                expected="grey values, or red, green and blue that are equal",
                got=f"{samples} samples per pixel that differ",
                fix="save each colour as a channel or file of its own, or convert it to grey",
            )
    return first
