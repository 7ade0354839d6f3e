"""The world frame of a stack: which sections there are, and the lattice of nodes over them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import fields, store
from warpbeam.transforms.storage.ledger import FOLDER, Key, Record, digest, forget_stages
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

# Of what is kept on the lattice and in the records: with another number all of it is done again.
LAYOUT = 2
# What is kept of a vector: two components (yx), ncc, peak ratio, sharpness.
FLOW_CHANNELS = 5
# How often blocks are solved from better starts (`transforms.align.join`). With 250 sections in 5
# blocks two turns leave .1 px to one chain (median; .6 at most), three .01 (.1).
MOST_TURNS = 3
_ON_LATTICE = (
    *("flow", "clean", "mesh", "starts", "chain", "agree", "join", "settle", "canvas", "invert"),
    *(f"{stage}_{turn}" for stage in ("chain", "agree") for turn in range(2, MOST_TURNS + 1)),
)


@dataclass(frozen=True)
class FrameSettings:
    """The lattice, and which flows are measured on it.

    Attributes:
        stride: px of the full image between nodes.
        block: nodes on each side of the area that one worker measures.
        scales: reductions at which flow is measured, the one to trust most first.
        gaps: distances of the sections between which it is measured, in sections.
        bridges: further distances, measured only where none of `gaps` gave a vector.
    """

    stride: int
    block: int
    scales: tuple[int, ...]
    gaps: tuple[int, ...]
    bridges: tuple[int, ...] = ()


@dataclass(frozen=True)
class Frame:
    """Where the sections lie.

    Attributes:
        first: number of the section at z 0.
        depth: sections from the first to the last, missing ones included.
        box: world px that the sections cover, yx.
        settings: see `FrameSettings`.
    """

    first: int
    depth: int
    box: Box
    settings: FrameSettings

    @functools.cached_property
    def lattice(self) -> Lattice:
        """Nodes over all sections and one stride around them, so that a map that moves them
        still knows their edges."""
        stride = self.settings.stride
        return Lattice.covering(self.box.pad((stride, stride)), (stride, stride))

    @functools.cached_property
    def blocks(self) -> BlockGrid:
        """Areas of nodes that are measured together."""
        return BlockGrid(self.lattice.shape, (self.settings.block,) * 2)

    def z(self, section: int) -> int:
        return section - self.first

    def flow(self, scale: int, gap: int, z: int, block: Box | None = None) -> Box:
        """A block of nodes (all by default) of one flow, in the array at `flow_uri`."""
        nodes = Box.of_shape(self.lattice.shape) if block is None else block
        return Box(
            (scale, gap, 0, z, *nodes.start),
            (scale + 1, gap + 1, FLOW_CHANNELS, z + 1, *nodes.stop),
        )

    def nodes(self, z: int, lead: Sequence[int] = ()) -> Box:
        """All nodes of one section in an array `[*lead, z, y, x]`, with `lead` whole."""
        zeros = (0,) * len(lead)
        shape = self.lattice.shape
        return Box((*zeros, z, 0, 0), (*lead, z + 1, *shape))


def frame_of(placed: Sequence[PlacedTile], settings: FrameSettings) -> Frame:
    """The smallest frame that holds every section."""
    boxes = [
        affine.bounding_box(affine.homogeneous(p.matrix), Box.of_shape(p.source.shape))
        for p in placed
    ]
    numbers = [p.source.key.section for p in placed]
    low = tuple(np.min([b.start for b in boxes], axis=0).tolist())
    high = tuple(np.max([b.stop for b in boxes], axis=0).tolist())
    return Frame(min(numbers), max(numbers) - min(numbers) + 1, Box(low, high), settings)


class LayOutFrame:
    """Work of the stage `frame`: the frame and the arrays on its lattice, empty."""

    def __init__(self, run: RunFolder, settings: FrameSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        frame = frame_of(list(load_placement(self._run)), self._settings)
        given = self._settings
        save_frame(self._run, frame)
        ny, nx = frame.lattice.shape
        gaps, every = len(given.gaps), len(given.gaps) + len(given.bridges)
        # nothing that was written on another lattice counts
        for stage in _ON_LATTICE:
            forget_stages(self._run.uri, f"{stage}/")
        store.delete_prefix(work_uri(self._run) + "/")
        store.delete_prefix(store.join(self._run.uri, "maps") + "/")
        fields.create(
            flow_uri(self._run),
            (len(given.scales), gaps, FLOW_CHANNELS, frame.depth, ny, nx),
            (1, 1, FLOW_CHANNELS, 1, given.block, given.block),
        )
        fields.create(clean_uri(self._run), (every, 2, frame.depth, ny, nx), (every, 2, 1, ny, nx))
        run = self._run
        for uri, channels in ((mesh_uri(run), 3), (chained_uri(run), 3), (joined_uri(run), 2)):
            fields.create(uri, (channels, frame.depth, ny, nx), (channels, 1, ny, nx))
        fields.create(cut_uri(run), (frame.depth, ny, nx), (1, ny, nx))
        return {"nodes": ny * nx, "sections": frame.depth}


def nodes_on_section(frame: Frame, placed: PlacedTile, nodes: Box) -> Float[np.ndarray, "2 y x"]:
    """Where a box of nodes lies, px of a section."""
    world = frame.lattice.crop(nodes).nodes()
    to_section = np.linalg.inv(affine.homogeneous(placed.matrix))
    return affine.apply(to_section, world.reshape(2, -1).T).T.reshape(world.shape)


def one_frame(run: RunFolder) -> Iterator[tuple[Key, Any]]:
    """The single unit; its payload fingerprints the rough placement."""
    yield (
        ("frame",),
        digest([[p.source.key, p.source.shape, p.matrix] for p in load_placement(run)]),
    )


def save_frame(run: RunFolder, frame: Frame) -> None:
    """Stores a frame for `load_frame`."""
    given = frame.settings
    store.write_json(
        frame_uri(run),
        {
            "first": frame.first,
            "depth": frame.depth,
            "start": frame.box.start,
            "stop": frame.box.stop,
            "stride": given.stride,
            "block": given.block,
            "scales": given.scales,
            "gaps": given.gaps,
            "bridges": given.bridges,
        },
    )


def load_frame(run: RunFolder) -> Frame:
    """The frame that the stage `frame` stored."""
    value = store.read_json(frame_uri(run))
    settings = FrameSettings(
        value["stride"],
        value["block"],
        tuple(value["scales"]),
        tuple(value["gaps"]),
        tuple(value["bridges"]),
    )
    box = Box(tuple(value["start"]), tuple(value["stop"]))
    return Frame(value["first"], value["depth"], box, settings)


def work_uri(run: RunFolder) -> str:
    """What stages leave for one another."""
    return store.join(run.uri, FOLDER, "align")


def frame_uri(run: RunFolder) -> str:
    return store.join(run.uri, FOLDER, "frame.json")


def flow_uri(run: RunFolder) -> str:
    """`[scale, gap, channel, z, y, x]`: offsets in px of the full image, and their quality."""
    return store.join(work_uri(run), "flow.zarr")


def clean_uri(run: RunFolder) -> str:
    """`[gap or bridge, component, z, y, x]`: the vectors that are trusted."""
    return store.join(work_uri(run), "clean.zarr")


def cut_uri(run: RunFolder) -> str:
    """`[z, y, x]`: 1 at nodes that lie in a crack, which are no part of the mesh."""
    return store.join(work_uri(run), "cut.zarr")


def mesh_uri(run: RunFolder) -> str:
    """`[channel, z, y, x]`: offsets to the frame of a block's first section, and the weight of
    all that pulled at a node."""
    return store.join(work_uri(run), "mesh.zarr")


def chained_uri(run: RunFolder) -> str:
    """As `mesh_uri`, offsets to about one frame for all blocks."""
    return store.join(work_uri(run), "chained.zarr")


def joined_uri(run: RunFolder) -> str:
    """`[component, z, y, x]`: offsets to one frame for all blocks."""
    return store.join(work_uri(run), "joined.zarr")


def reduced_uri(run: RunFolder, scale: int) -> str:
    """Sections reduced `scale` times."""
    return store.join(run.uri, FOLDER, f"reduced_{scale}.zarr")
