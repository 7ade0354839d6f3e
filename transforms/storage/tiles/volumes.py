"""`read_volumes`: a fixed and a moving volume, as a list of two tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageInfo, ImageRef, probe
from warpbeam.transforms.storage.images.chunked import is_store
from warpbeam.transforms.storage.images.nifti import ENDINGS as NIFTI_ENDINGS
from warpbeam.transforms.storage.images.source import exists
from warpbeam.transforms.storage.plate.table import is_hcs
from warpbeam.transforms.storage.tiles.model import Tile, TileList

NAMES = ("fixed", "moving")


@dataclass(frozen=True)
class VolumePair:
    """Two volumes that are laid on one another.

    Attributes:
        tiles: "fixed" and "moving", in this order; channels are those of the moving volume.
        voxels_um: zyx of both; None where neither the user nor the file says.
        channels: how many each has.
    """

    tiles: TileList
    voxels_um: tuple[tuple[float, ...] | None, tuple[float, ...] | None]
    channels: tuple[int, int]


def read_volumes(
    files: Sequence[str],
    *,
    masks: Sequence[str | None] = (None, None),
    voxels_um: Sequence[tuple[float, ...] | None] = (None, None),
) -> VolumePair:
    """Looks at both volumes: TIFF, OME-TIFF, NIfTI, OME-Zarr, Zarr or N5.

    Args:
        files: of the fixed and of the moving volume.
        masks: volumes of the same shapes, 0 = no data.
        voxels_um: zyx sizes; None: what the file says.

    Raises:
        InputError: a volume or mask is not there, cannot be read, or is flat.
    """
    infos = [_probe(file, name) for file, name in zip(files, NAMES, strict=True)]
    tiles = tuple(
        Tile(
            0, 0, name,
            tuple(ImageRef(file, channel=c) for c in range(info.channels)),
            info.shape, info.dtype, (0.0, 0.0, 0.0),
            mask=_mask(mask, info.shape),
        )
        for name, file, info, mask in zip(NAMES, files, infos, masks, strict=True)
    )  # fmt: skip
    names = infos[1].channel_names or tuple(str(c) for c in range(infos[1].channels))
    first, second = (given or info.voxel_um for given, info in zip(voxels_um, infos, strict=True))
    return VolumePair(TileList(tiles, names), (first, second),
                      (infos[0].channels, infos[1].channels))  # fmt: skip


def read_volume(file: str, name: str, *, time: int = 0) -> TileList:
    """A single volume at one time, as a list of one tile.

    Raises:
        InputError: as `read_volumes`; there is no such time.
    """
    info = _probe(file, name, time)
    images = tuple(ImageRef(file, channel=c, time=time) for c in range(info.channels))
    tile = Tile(time, 0, name, images, info.shape, info.dtype, (0.0, 0.0, 0.0))
    names = info.channel_names or tuple(map(str, range(info.channels)))
    return TileList((tile,), names, info.voxel_um)


def is_volume(source: str) -> bool:
    """Whether this is one image, in a file or a store, rather than a table, folder or plate."""
    if is_store(source):
        return not is_hcs(source)
    return source.lower().endswith((".tif", ".tiff", *NIFTI_ENDINGS))


def _probe(file: str, name: str, time: int = 0) -> ImageInfo:
    if not exists(file) and "|" not in file and "*" not in file:
        raise InputError(
            f"the {name} volume does not exist",
            where=file,
            expected="a TIFF, OME-TIFF, NIfTI, OME-Zarr, Zarr or N5 volume",
            got="no such file or folder",
            fix="correct the path",
        )
    info = probe(ImageRef(file, time=time))
    if len(info.shape) != 3 or min(info.shape) < 4:
        raise InputError(
            f"the {name} volume is too thin",
            where=file,
            expected="at least 4 voxels along z, y and x",
            got=f"shape {info.shape}",
            fix="give a volume; single planes are for `warpbeam align`",
        )
    return info


def _mask(file: str | None, shape: tuple[int, ...]) -> ImageRef | None:
    if file is None:
        return None
    ref = ImageRef(file)
    found = probe(ref).shape
    if found != shape:
        raise InputError(
            "a mask does not fit its volume",
            where=file,
            expected=f"shape {shape}",
            got=f"shape {found}",
            fix="give a mask of the same shape, 0 where there is no data",
        )
    return ref
