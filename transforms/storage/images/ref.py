"""Where an image lies, what it is, and the error for one that is broken inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from warpbeam.transforms.storage.errors import InputError

# What Neuroglancer's readers know; 64-bit signed, half and double are not among them.
READABLE = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
# int64 is what NumPy labels are; a negative one is refused where it is read.
CONVERTED = {"float16": "float32", "float64": "float32", "bool": "uint8", "int64": "uint64"}


@dataclass(frozen=True, order=True)
class ImageRef:
    """One channel at one time of one image.

    Args:
        file: a path or URI; one `*` stands for the plane number of a stack whose
            planes lie in separate files.
        series: which image of a file that holds several.
        channel: index inside the file.
        time: index inside the file.
        plane: index along z, where the image is one plane of a volume.
    """

    file: str
    series: int = 0
    channel: int = 0
    time: int = 0
    plane: int | None = None


@dataclass(frozen=True)
class ImageInfo:
    """What the header of an image says.

    Args:
        shape: zyx, or yx where there is one plane only.
        dtype: of the array that `read` returns.
        channels: how many the file holds.
        times: how many the file holds.
        voxel_um: size of a voxel, same rank as `shape`; None where the file does not say.
        chunk: the block of voxels that is decoded as a whole, same rank as `shape`.
        series: how many images the file holds.
        channel_names: one per channel, or empty where the file does not say.
        colour: the samples are red, green, blue; `read` accepts them only if they are equal.
    """

    shape: tuple[int, ...]
    dtype: str
    channels: int
    times: int
    voxel_um: tuple[float, ...] | None
    chunk: tuple[int, ...]
    series: int = 1
    channel_names: tuple[str, ...] = field(default=())
    colour: bool = False

    def one_plane(self) -> ImageInfo:
        """The same of any plane of a volume."""
        voxel = self.voxel_um and self.voxel_um[-2:]
        return replace(self, shape=self.shape[-2:], chunk=self.chunk[-2:], voxel_um=voxel)

    @property
    def random_access(self) -> bool:
        """Whether a part can be read for clearly less than the whole."""
        return 4 * int(np.prod(self.chunk)) <= int(np.prod(self.shape))


class CorruptImageError(InputError):
    """An image whose header is sound and whose data are not: trying again is of no use."""

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.what, self.where, self.expected, self.got, self.fix))


def _rebuild(what: str, where: str, expected: str, got: str, fix: str) -> CorruptImageError:
    return CorruptImageError(what, where=where, expected=expected, got=got, fix=fix)


def corrupt(file: str, cause: object) -> CorruptImageError:
    """The error for data that cannot be decoded."""
    return CorruptImageError(
        "an image is corrupt",
        where=file,
        expected="data that decode to the shape in the header",
        got=str(cause) or repr(cause),
        fix="copy the file again from the microscope, or leave it out",
    )


def together(problems: Sequence[CorruptImageError]) -> CorruptImageError:
    """One error for several corrupt files; names them all."""
    first = problems[0]
    return CorruptImageError(
        first.what,
        where=", ".join(sorted({p.where for p in problems})),
        expected=first.expected,
        got=first.got,
        fix=first.fix,
    )


def missing(file: str) -> InputError:
    """The error for a file that is not there."""
    return InputError(
        "an image file does not exist",
        where=file,
        expected="an image file",
        got="no such file",
        fix="correct the name, or copy the file to this place",
    )


def unreadable(file: str, cause: object) -> InputError:
    """The error for a file whose header makes no sense."""
    return InputError(
        "an image cannot be read",
        where=file,
        expected="a TIFF, PNG, JPEG or NIfTI file, or a Zarr or N5 array",
        got=str(cause) or repr(cause),
        fix="copy the file again, convert it, or leave it out",
    )


def truncated(file: str, *, expected: int, got: int) -> InputError:
    """The error for a file that ends too early (sizes in bytes)."""
    return InputError(
        "an image file is truncated",
        where=file,
        expected=f"at least {expected} bytes, as its header says",
        got=f"{got} bytes",
        fix="copy the file again from the microscope, or leave it out",
    )


def output_dtype(dtype: np.dtype[np.generic], file: str) -> str:
    """The dtype in which an image of `dtype` is handed on.

    Raises:
        InputError: a dtype that Neuroglancer cannot read and that has no safe substitute.
    """
    name = np.dtype(dtype).name
    name = CONVERTED.get(name, name)
    if name not in READABLE:
        raise InputError(
            "an image has a dtype that cannot be used",
            where=file,
            expected=f"one of {', '.join(READABLE)} (float64 becomes float32, int64 uint64)",
            got=name,
            fix="convert the image, for example with tifffile or Fiji",
        )
    return name
