"""Pixels of a plate's images: our own readers first, and others for what they cannot read.

Ours read TIFF without a copy, and PNG through OpenCV. tifffile, OpenCV and imageio know more of
what is out there. Data that are broken are an error at once: another reader would only hide it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.transforms.storage import images
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import CorruptImageError, ImageRef
from warpbeam.transforms.storage.images.source import local_path
from warpbeam.transforms.storage.plate.model import ChannelImage

Pixels = np.ndarray[Any, Any]
_log = logging.getLogger(__name__)


def read_image(image: ChannelImage) -> Pixels:
    """The image, yx; 0 where it has no data, as between the tiles of a montage.

    Raises:
        InputError: no reader can read it; says what the first one said.
        CorruptImageError: its data are broken.
    """
    pixels = _read(image)
    if pixels.dtype.kind == "f":
        return np.nan_to_num(pixels, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return pixels


def _read(image: ChannelImage) -> Pixels:
    ref = ImageRef(image.file, *image[2:])
    try:
        return images.read(ref)
    except CorruptImageError:
        raise
    except InputError as first:
        if first.what != "an image cannot be read":
            raise
        for name, reader in _others(image.file):
            try:
                pixels = reader(local_path(image.file))
            except Exception as error:
                _log.info("%s cannot read %s: %s", name, image.file, error)
                continue
            if pixels is not None and np.ndim(pixels) == 2:
                _log.warning("%s was read by %s, because %s", image.file, name, first.got)
                return np.asarray(pixels)
        raise


def _others(file: str) -> list[tuple[str, Callable[[str], Pixels | None]]]:
    if file.lower().endswith((".tif", ".tiff")):
        return [("tifffile", _tifffile), ("OpenCV", _opencv), ("imageio", _imageio)]
    return [("OpenCV", _opencv), ("imageio", _imageio)]


def _tifffile(path: str) -> Pixels:
    import tifffile

    return tifffile.imread(path)


def _opencv(path: str) -> Pixels | None:
    import cv2

    return cv2.imread(path, cv2.IMREAD_UNCHANGED)


def _imageio(path: str) -> Pixels:
    import imageio.v3

    return imageio.v3.imread(path)
