"""Sections -> flow to their neighbours, block by block of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from warpbeam.kernels.flow.contrast import Contrast, evened
from warpbeam.kernels.flow.field import FlowSettings
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.transforms.align.frame import FLOW_CHANNELS, Frame, flow_uri, load_frame
from warpbeam.transforms.align.reading import SectionReader, SectionSettings
from warpbeam.transforms.keys import NodesKey, TileKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileSource

Measured = Float32[np.ndarray, "channel y x"]

# What the refinement looks at beyond patch and search: gradients and rounding, reduced px.
_MARGIN = 16


@dataclass(frozen=True)
class MeasureSettings:
    """Lengths in px of the reduced image.

    Attributes:
        patch: side of a patch.
        search: how far a patch is looked for, either way.
        steps: refinement steps; 0 keeps rigid patches.
        every: patches are correlated at every so many-th node, see `FlowSettings`.
        contrast: how it is evened out first, see `kernels.flow.contrast`; over half a patch.
    """

    patch: int
    search: int
    steps: int
    every: int = 1
    contrast: Contrast = "none"


def list_flows(run: RunFolder, reduced: Ledger | None) -> Iterator[Unit]:
    """A unit per section and block of nodes.

    Payload: the section, and `(index of the gap, earlier section)` of each pair.
    """
    frame = load_frame(run)
    there = {p.source.key.section: p for p in usable_sections(run, reduced)}
    for section, fixed in sorted(there.items()):
        pairs = [
            (i, there[section - gap])
            for i, gap in enumerate(frame.settings.gaps)
            if section - gap in there
        ]
        if pairs:
            for block in frame.blocks.indices():
                yield NodesKey(section, block), [fixed, pairs]


def usable_sections(run: RunFolder, reduced: Ledger | None) -> Iterator[PlacedTile]:
    """The placed sections whose pixels could be read."""
    done = None if reduced is None else {key for key, _ in reduced.records()}
    return (p for p in load_placement(run) if done is None or p.source.key in done)


def placed_of(value: Any) -> PlacedTile:
    """A placed section out of a payload: Beam's coders make plain tuples of named ones."""
    source, matrix = value
    source = TileSource(*source)
    return PlacedTile(source._replace(key=TileKey(*source.key)), matrix)


class MeasureFlow:
    """Work of the stage `flow`: one block of nodes of one section, all scales and gaps."""

    def __init__(
        self, run: RunFolder, sections: SectionSettings, settings: MeasureSettings
    ) -> None:
        self._run, self._sections, self._settings = run, sections, settings

    def setup(self) -> None:
        set_up_jax()
        self._reader = SectionReader(self._run, self._sections)

    def __call__(self, key: NodesKey, payload: Any) -> Record:
        fixed = placed_of(payload[0])
        frame = load_frame(self._run)
        target = fields.load(flow_uri(self._run))
        block = frame.blocks.box(key.block)
        z = frame.z(key.section)
        known, written = [], 0
        for gap, value in payload[1]:
            moving = placed_of(value)
            for number, scale in enumerate(frame.settings.scales):
                try:
                    found = measure_block(
                        self._reader, frame, self._settings, fixed, moving, scale, block
                    )
                except CorruptImageError:
                    self._check(fixed)
                    continue  # a unit of its own reports the other section
                known.append(float(np.isfinite(found[0]).mean()))
                place = Box(
                    (number, gap, 0, z, *block.start),
                    (number + 1, gap + 1, FLOW_CHANNELS, z + 1, *block.stop),
                )
                written += target.write(place, found.reshape(place.shape))
        return {"bytes_written": written, "known": known}

    def _check(self, placed: PlacedTile) -> None:
        """Reads a section through; raises what reading it raises."""
        self._reader.source_pixels(placed.source, Box.of_shape(placed.source.shape))


def measure_block(
    reader: SectionReader,
    frame: Frame,
    settings: MeasureSettings,
    fixed: PlacedTile,
    moving: PlacedTile,
    scale: int,
    block: Box,
    selection: Bool[np.ndarray, "y x"] | None = None,
) -> Measured:
    """The flow on a block of nodes, `[channel, y, x]`; see `flow_uri` for the channels.

    `selection`, of the shape of the block, says where it is wanted.
    """
    from warpbeam.kernels.flow.field import flow

    # nodes around the block take part in smoothing, so that blocks agree at their borders
    stride = frame.settings.stride / scale
    halo = round(settings.patch / stride)
    wide = block.pad((halo, halo)) & Box.of_shape(frame.lattice.shape)
    lattice = frame.lattice.crop(wide).at_scale(scale)
    region = _region(lattice, settings.patch // 2 + settings.search + _MARGIN)
    images = [
        evened(reader.image(p, scale, region), settings.contrast, settings.patch // 2)
        for p in (fixed, moving)
    ]
    local = Lattice(
        tuple(o - s for o, s in zip(lattice.origin, region.start, strict=True)),
        lattice.stride,
        lattice.shape,
    )
    found = flow(
        images[0],
        images[1],
        FlowSettings(
            (settings.patch,) * 2,
            (max(round(stride), 1),) * 2,
            (settings.search,) * 2,
            steps=settings.steps,
            every=settings.every,
        ),
        lattice=local,
        selection=None if selection is None else _spread(selection, block, wide, halo),
    )
    quality = np.stack([found.ncc, found.peak_ratio, found.sharpness])
    whole = np.concatenate([found.vectors * scale, quality])
    return whole[:, *block.slices_in(wide)]


def _spread(
    selection: Bool[np.ndarray, "y x"], block: Box, wide: Box, halo: int
) -> Bool[np.ndarray, "y x"]:
    """The wanted nodes and those around them, which support them."""
    out = np.zeros(wide.shape, bool)
    out[block.slices_in(wide)] = selection
    return ndimage.binary_dilation(out, np.ones((3, 3)), iterations=max(halo, 1))


def _region(lattice: Lattice, margin: int) -> Box:
    first = [int(np.floor(lattice.along(a)[0])) - margin for a in range(2)]
    last = [int(np.ceil(lattice.along(a)[-1])) + margin + 1 for a in range(2)]
    return Box(tuple(first), tuple(last))
