"""Where blocks begin in the frame of the first one.

The meshes of a block's first sections, as the block before has them, say about where it begins,
behind what is left there of the start of that block (`kernels.mesh.decay`); so starts are composed
one after the other, one step per block. Then all blocks are solved again from those, in one frame,
and `transforms.align.join` brings together what still differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.mesh.decay import Decay
from warpbeam.transforms.align.blocks import LEAD, MeshSettings, blocks_in_turn
from warpbeam.transforms.align.frame import Frame, load_frame, mesh_uri, work_uri
from warpbeam.transforms.align.mesh_store import Field, read_mesh
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields, store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder


def one_composition(
    name: str, run: RunFolder, cleaned: Ledger, meshes: Ledger, settings: MeshSettings
) -> Iterator[Unit]:
    """The single unit of a stage that composes starts, under a name.

    Payload: a fingerprint of the meshes, and see `blocks_in_turn`.
    """
    yield (name,), [meshes.fingerprint(), blocks_in_turn(run, cleaned, settings)]


def starts_uri(run: RunFolder, turn: int) -> str:
    """`[block, index, component, y, x]`: about the meshes of each block's first sections."""
    return store.join(work_uri(run), f"starts_{turn}.zarr")


class Starts:
    """The meshes that blocks begin with in one turn."""

    def __init__(self, run: RunFolder, frame: Frame, turn: int) -> None:
        self._uri, self._shape = starts_uri(run, turn), (2, *frame.lattice.shape)

    def create(self, blocks: int) -> None:
        """Makes the array, empty."""
        store.delete_prefix(self._uri + "/")
        chunk = (1, 1, *self._shape)
        fields.create(self._uri, (blocks, LEAD + 1, *self._shape), chunk)

    def write(self, block: int, meshes: Sequence[Field]) -> None:
        target = fields.load(self._uri)
        for index, mesh in enumerate(meshes):
            target.write(self._box(block, index), mesh[None, None])

    def read(self, block: int, index: int = 0) -> Field:
        """The mesh of one of the first sections; the first block begins at rest."""
        if block == 0:
            return np.zeros(self._shape)
        found = fields.load(self._uri).read(self._box(block, index))
        return found[0, 0].astype(np.float64)

    def _box(self, block: int, index: int) -> Box:
        zeros = (0,) * len(self._shape)
        return Box((block, index, *zeros), (block + 1, index + 1, *self._shape))


class ComposeStarts:
    """Work of the stage `starts`: where each block begins."""

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        _, blocks = payload
        if not blocks:
            raise _nothing_to_align()
        frame, meshes = load_frame(self._run), fields.load(mesh_uri(self._run))
        starts = Starts(self._run, frame, 0)
        starts.create(len(blocks))
        for number in range(1, len(blocks)):
            first, own, _ = blocks[number - 1]
            begin = blocks[number][2]
            decay = decay_of(meshes, frame, self._settings, own)
            steps = slice(begin[0] - first, begin[-1] - first + 1)
            faded = list(decay.part(starts.read(number - 1), steps))
            there = [
                _followed(frame, read_mesh(meshes, frame, s), faded[s - begin[0]]) for s in begin
            ]
            starts.write(number, there)
        return {"blocks": len(blocks)}


def decay_of(
    meshes: fields.FieldArray, frame: Frame, settings: MeshSettings, sections: Sequence[int]
) -> Decay:
    """How starts fade in a block, by what pulls at the nodes of some of its meshes on average."""
    pull, count = np.zeros(frame.lattice.shape), 0
    for section in sections:
        here = meshes.read(frame.nodes(frame.z(section), (3,)))[2, 0]
        if here.any():
            pull, count = pull + here, count + 1
    mean = pull / count if count else np.ones(frame.lattice.shape)
    return Decay(frame.lattice, settings.elasticity(frame), frame.settings.gaps, mean)


def _followed(frame: Frame, mesh: Field, start: Field) -> Field:
    """A mesh, then its block's start."""
    first, second = (on_lattice(u, frame.lattice) for u in (mesh, start))
    return compose(first, second, outside="nearest").u


def _nothing_to_align() -> InputError:
    return InputError(
        "no section resembles another one",
        where="all sections",
        expected="flow between neighbours on a tenth of the nodes (mesh.least_known)",
        got="hardly any",
        fix="look at the sections; try other flow.patch_px, flow.search_px, flow.scales, "
        "flow.min_correlation; where "
        "they lie far apart, rough.model other than none",
    )
