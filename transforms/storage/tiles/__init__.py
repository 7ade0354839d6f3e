"""Lists of tiles: which files, where they lie, what they hold.

`read_tiles` reads every format into one `TileList`; `check_tiles` looks at the files again.
Positions are those of voxel 0, in pixels of the world, in array order; x and y of the
formats that write x first are swapped on reading.
"""

from warpbeam.transforms.storage.tiles.check import check_tiles
from warpbeam.transforms.storage.tiles.model import ImageRef, Tile, TileList
from warpbeam.transforms.storage.tiles.options import TileOptions
from warpbeam.transforms.storage.tiles.reading import read_tiles

__all__ = ["ImageRef", "Tile", "TileList", "TileOptions", "check_tiles", "read_tiles"]
