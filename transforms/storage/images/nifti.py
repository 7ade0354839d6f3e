"""NIfTI-1 and -2 (`.nii`, `.nii.gz`) through nibabel.

Voxels keep the order in which they are stored: x runs fastest. The header's orientation (which way
is left) is not used, only the sizes of the voxels.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import closing
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.storage.images.ref import ImageInfo, corrupt, output_dtype, unreadable
from warpbeam.transforms.storage.images.source import is_remote, open_source

Array = np.ndarray[Any, np.dtype[Any]]
ENDINGS = (".nii", ".nii.gz")
_MICROMETRES = {"meter": 1e6, "mm": 1e3, "micron": 1.0}
_BROKEN = (OSError, EOFError, zlib.error, ValueError)


def is_nifti(file: str) -> bool:
    return file.lower().endswith(ENDINGS)


class NiftiImage:
    """x, y, z, and where there are any times and vectors, whose components are channels."""

    def __init__(self, file: str) -> None:
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError

        self._file = file
        with closing(open_source(file)) as source:  # a clear error where there is no file
            whole = source.read_at(0, source.size) if is_remote(file) else None
        try:
            self._image = _loaded(file, whole)
        except (*_BROKEN, HeaderDataError, ImageFileError) as cause:
            raise unreadable(file, cause) from cause
        self.info = self._describe()

    def close(self) -> None:
        """nibabel holds no file open between reads."""

    def read(self, channel: int, time: int, box: Box) -> Array:
        """A zyx box, with a last axis of samples."""
        proxy = self._image.dataobj
        place: tuple[Any, ...] = (*reversed(box.slices), time, channel)
        try:
            data = np.asarray(proxy[place[: proxy.ndim]])
        except _BROKEN as cause:
            raise corrupt(self._file, cause) from cause
        return data.reshape(box.shape[::-1]).transpose()[..., None]

    def _describe(self) -> ImageInfo:
        header, shape = self._image.header, self._image.shape
        if not 3 <= len(shape) <= 5:
            raise unreadable(self._file, f"it has {len(shape)} axes")
        zyx = tuple(shape[2::-1])
        # scaled values are no longer what the file stores
        proxy = self._image.dataobj
        scaled = (proxy.slope, proxy.inter) != (1, 0)
        dtype = output_dtype(np.dtype("f4") if scaled else header.get_data_dtype(), self._file)
        scale = _MICROMETRES.get(header.get_xyzt_units()[0])
        sizes = header.get_zooms()[2::-1]
        voxel = tuple(float(s) * scale for s in sizes) if scale and all(sizes) else None
        packed = self._file.lower().endswith(".gz") or is_remote(self._file)
        chunk = zyx if packed else (1, *zyx[1:])
        times, channels = (*shape[3:], 1, 1)[:2]
        return ImageInfo(zyx, dtype, channels, times, voxel, chunk)


def _loaded(file: str, whole: bytes | None) -> Any:
    import nibabel

    if whole is None:
        found = nibabel.load(file)
    else:
        data = gzip.decompress(whole) if file.lower().endswith(".gz") else whole
        kind = nibabel.Nifti2Image if data[:2] in (b"\x1c\x02", b"\x02\x1c") else None
        found = (kind or nibabel.Nifti1Image).from_bytes(data)
    if not isinstance(found, (nibabel.Nifti1Image, nibabel.Nifti2Image)):
        raise ValueError("it is no NIfTI file")
    return found
