"""Sections -> flow to their neighbours, block by block of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from warpbeam.kernels.flow.field import FlowSettings
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.shading.contrast import Contrast, evened, support
from warpbeam.transforms.align.frame import Frame, flow_uri, load_frame
from warpbeam.transforms.align.reading import (
    Image,
    Readable,
    SectionReader,
    SectionSettings,
    earlier,
    placed_sections,
)
from warpbeam.transforms.keys import NodesKey
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

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
        contrast: how it is evened out first over a patch, see `kernels.shading.contrast`.
    """

    patch: int
    search: int
    steps: int
    every: int = 1
    contrast: Contrast = "none"


def list_flows(run: RunFolder, readable: Readable) -> Iterator[Unit]:
    """A unit per section and block of nodes.

    Payload: the section, and `(index of the gap, earlier section)` of each pair.
    """
    frame = load_frame(run)
    there = placed_sections(run, readable)
    for section, fixed in there.items():
        pairs = earlier(there, section, frame.settings.gaps)
        if pairs:
            for block in frame.blocks.indices():
                yield NodesKey(section, block), [fixed, pairs]


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
        fixed, pairs = payload
        frame, target = load_frame(self._run), fields.load(flow_uri(self._run))
        block, z = frame.blocks.box(key.block), frame.z(key.section)
        known, written = [], 0
        for number, scale in enumerate(frame.settings.scales):
            area = Area.around(frame, self._settings, scale, block)
            image = area.image(self._reader, fixed)
            for gap, moving in pairs:
                try:
                    other = area.image(self._reader, moving)
                except CorruptImageError:
                    continue  # a unit of its own reports it
                found = area.measure(image, other)
                known.append(float(np.isfinite(found[0]).mean()))
                place = frame.flow(number, gap, z, block)
                written += target.write(place, found.reshape(place.shape))
        return {"bytes_written": written, "known": known}


@dataclass(frozen=True)
class Area:
    """A block of nodes at one reduction, and the part of the world that its flow looks at.

    Attributes:
        settings: see `MeasureSettings`.
        scale: the reduction.
        inner: the block inside the nodes that are measured. Those around it take part in
            smoothing, so that blocks agree at their borders.
        region: world, in px of the reduction.
        lattice: the nodes that are measured, in px of the reduction from the region's corner.
    """

    settings: MeasureSettings
    scale: int
    inner: Box
    region: Box
    lattice: Lattice

    @classmethod
    def around(cls, frame: Frame, settings: MeasureSettings, scale: int, block: Box) -> Area:
        """The area of a block of the frame's nodes."""
        halo = round(settings.patch * scale / frame.settings.stride)
        wide = block.pad((halo, halo)) & Box.of_shape(frame.lattice.shape)
        lattice = frame.lattice.crop(wide).at_scale(scale)
        region = _region(lattice, settings.patch // 2 + settings.search + _MARGIN)
        origin = tuple(o - s for o, s in zip(lattice.origin, region.start, strict=True))
        local = Lattice(origin, lattice.stride, lattice.shape)
        return cls(settings, scale, block.relative_to(wide.start), region, local)

    def image(self, reader: SectionReader, placed: PlacedTile) -> Image:
        """A section on the region, ready to be compared."""
        how, size = self.settings.contrast, self.settings.patch
        if how == "none":
            return reader.image(placed, self.scale, self.region)
        around = support(self.region, how, size)
        found = reader.image(placed, self.scale, around)
        out = evened(found, how, size, reader.grey_range(placed.source), around.start)
        return out[self.region.slices_in(around)]

    def measure(
        self, fixed: Image, moving: Image, wanted: Bool[np.ndarray, "y x"] | None = None
    ) -> Measured:
        """The flow on the block, `[channel, y, x]`; see `flow_uri` for the channels.

        `wanted`, of the shape of the block, says where.
        """
        from warpbeam.kernels.flow.field import flow

        given = self.settings
        settings = FlowSettings(
            (given.patch,) * 2,
            tuple(max(round(s), 1) for s in self.lattice.stride),
            (given.search,) * 2,
            steps=given.steps,
            every=given.every,
        )
        selection = None if wanted is None else self._spread(wanted)
        found = flow(fixed, moving, settings, lattice=self.lattice, selection=selection)
        quality = np.stack([found.ncc, found.peak_ratio, found.sharpness])
        whole = np.concatenate([found.vectors * self.scale, quality])
        return whole[:, *self.inner.slices]

    def _spread(self, wanted: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "_ _"]:
        """The wanted nodes and those around them, which support them."""
        halo = round(self.settings.patch / self.lattice.stride[0])
        out = np.zeros(self.lattice.shape, bool)
        out[self.inner.slices] = wanted
        return ndimage.binary_dilation(out, np.ones((3, 3)), iterations=max(halo, 1))


def _region(lattice: Lattice, margin: int) -> Box:
    first = [int(np.floor(lattice.along(a)[0])) - margin for a in range(2)]
    last = [int(np.ceil(lattice.along(a)[-1])) + margin + 1 for a in range(2)]
    return Box(tuple(first), tuple(last))
