"""What a user may say about a tile list beyond the list itself."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("table", "fiji", "mist", "stage")


@dataclass(frozen=True)
class TileOptions:
    """How to read a list or a folder; None and False leave it to what is found.

    Args:
        format: one of `FORMATS`, where a folder holds several lists.
        images: the folder of the files that a list names; by default the list's own.
        pattern: name pattern of the files of a folder, such as `t_{row}_{col}_c{channel}.tif`
            (fields: row, col, index, tile, z, section, channel, time; `*` is any text).
        grid: rows and columns, needed to place `{index}`.
        order: "row" counts `{index}` along rows, "column" along columns.
        snake: every second row (or column) of `{index}` runs backwards.
        overlap: of neighbours, yx or one number for both; below 1 a fraction of the
            tile, else pixels.
        voxel_um: size of a voxel, yx or zyx, or one number for all.
        flip_y, flip_x: the stage's axis runs against the image's.
        swap_xy: the stage's x runs along the image's y; applied before the flips.
        transforms: JSON file of known matrices, {"key": {"matrix": [[...]]}}; a key is a
            file name, a file name without its suffix, a tile's name, or time/section/tile.
        whole: the images are whole sections: without a position they lie at 0, and without a name
            they are their section.
    """

    format: str | None = None
    images: str | None = None
    pattern: str | None = None
    grid: tuple[int, int] | None = None
    order: str = "row"
    snake: bool = False
    overlap: float | tuple[float, float] | None = None
    voxel_um: float | tuple[float, ...] | None = None
    flip_y: bool = False
    flip_x: bool = False
    swap_xy: bool = False
    transforms: str | None = None
    whole: bool = False
