"""Nodes in cracks: the mesh is cut there, so that the tissue on either side moves by itself.

o - o - o   x   o - o - o      o  node     - |  what holds the mesh together
|   |   |       |   |   |      x  node in the crack: excluded, and no part of the mesh
o - o - o   x   o - o - o

Nodes beside a section are what the nearest place of it is: a crack that leaves the section goes on,
or the mesh would join its two sides around the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Bool

from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.align.frame import Frame, cut_uri, nodes_on_section
from warpbeam.transforms.align.reading import SectionReader
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

# Share of crack among the pixels around a node, one stride wide. More leaves doors open in the wall
# that nodes make along a crack, less takes nodes that the tissue knows (measured: 0.05 to 0.5).
_LEAST = 0.25


def find_cut(reader: SectionReader, frame: Frame, placed: PlacedTile) -> Bool[np.ndarray, "y x"]:
    """The nodes of a section that lie in cracks."""
    found = np.zeros(frame.lattice.shape, bool)
    if not reader.cuts:
        return found
    around, last = frame.settings.stride, np.reshape(placed.source.shape, (2, 1, 1)) - 1
    for block in map(frame.blocks.box, frame.blocks.indices()):
        at = np.rint(np.clip(nodes_on_section(frame, placed, block), 0, last)).astype(int)
        low, high = at.min(axis=(1, 2)).tolist(), (at.max(axis=(1, 2)) + 1).tolist()
        box = Box(tuple(low), tuple(high)).pad((around, around))
        box = box & Box.of_shape(placed.source.shape)
        cracks = reader.cracks(placed.source, box).astype(np.float32)
        share = cv2.boxFilter(cracks, -1, (around, around), borderType=cv2.BORDER_REPLICATE)
        y, x = at - np.reshape(box.start, (2, 1, 1))
        found[block.slices] = share[y, x] > _LEAST
    return found


def store_cut(run: RunFolder, frame: Frame, section: int, found: Bool[np.ndarray, "y x"]) -> int:
    """Keeps the cut nodes of a section; returns the bytes written."""
    place = frame.nodes(frame.z(section))
    return fields.load(cut_uri(run)).write(place, np.where(found, 1.0, 0.0)[None])


def load_cuts(
    run: RunFolder, frame: Frame, sections: Iterable[int]
) -> dict[int, Bool[np.ndarray, "y x"]]:
    """The cut nodes of those sections that have any."""
    stored = fields.load(cut_uri(run))
    found = {s: stored.read(frame.nodes(frame.z(s)))[0] == 1 for s in sections}
    return {section: cut for section, cut in found.items() if cut.any()}
