"""Chunks of the fixed volume -> matches at their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.rescale import rescale
from warpbeam.transforms.keys import NodesKey
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.register.coarse import load_coarse
from warpbeam.transforms.register.frame import (
    FIXED,
    MOVING,
    Frame,
    field_uri,
    matches_uri,
    poor_uri,
)
from warpbeam.transforms.register.reading import VolumeReader, VolumeSettings
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from warpbeam.kernels.register.measure import Area

CHANNELS = 10  # see `frame.matches_uri`
UPPER = np.triu_indices(3)


def list_chunks(frame: Frame, number: int, before: Ledger) -> Iterator[Unit]:
    """A unit per chunk. Payload: a fingerprint of the field so far."""
    marks = before.fingerprint()
    for block in frame.blocks.indices():
        yield NodesKey(number, block), marks


class Seen(NamedTuple):
    """What a chunk looks at.

    Attributes:
        fixed: voxels of the area's region.
        moving: voxels of the box, in the tone of the fixed volume.
        map: fixed voxels of the level to moving ones, on the area's wide nodes.
        area: the nodes, and what is around them.
        box: of the moving level.
        contrasts: mean and deviation of both volumes.
    """

    fixed: np.ndarray[Any, Any]
    moving: np.ndarray[Any, Any]
    map: CoordinateMap
    area: Area
    box: Box
    contrasts: tuple[tuple[float, float], tuple[float, float]]

    @property
    def bytes_read(self) -> int:
        return self.fixed.nbytes + self.moving.nbytes


class MatchChunk:
    """Work of the stages `match_<number>`: the matches of one chunk."""

    def __init__(self, run: RunFolder, frame: Frame, volumes: VolumeSettings) -> None:
        self._run, self._frame, self._volumes = run, frame, volumes

    def setup(self) -> None:
        set_up_jax()
        self._reader = VolumeReader(self._run, self._volumes)

    def __call__(self, key: NodesKey, payload: Any) -> Record:
        frame, nodes = self._frame, self._frame.blocks.box(key.block)
        wanted = self._wanted(key.section, nodes)
        if not wanted.any():
            return {"bytes_read": 0, "bytes_written": 0, "known": 0.0}
        found, read = self._measured(key.section, nodes)
        found[:, ~wanted] = np.nan
        array = fields.create(
            matches_uri(self._run, key.section),
            (CHANNELS, *frame.lattice.shape),
            (CHANNELS, *frame.blocks.block),
        )
        box = Box((0, *nodes.start), (CHANNELS, *nodes.stop))
        return {
            "bytes_read": read,
            "bytes_written": array.write(box, found),
            "known": float(np.isfinite(found[0]).mean()),
        }

    def _wanted(self, number: int, nodes: Box) -> np.ndarray[Any, Any]:
        """The nodes that are measured in a pass."""
        if not self._frame.look(number).again:
            return np.ones(nodes.shape, bool)
        return fields.load(poor_uri(self._run, number - 1)).read(nodes) > 0

    def _measured(self, number: int, nodes: Box) -> tuple[np.ndarray[Any, Any], int]:
        seen = self._seen(number, nodes)
        return self._matched(number, seen, nodes), seen.bytes_read if seen else 0

    def _seen(self, number: int, nodes: Box) -> Seen | None:
        """What a look at some nodes shows; None where the fixed volume is masked, or there is no
        moving one."""
        from warpbeam.kernels.register.measure import moving_box, widened

        frame, coarse = self._frame, load_coarse(self._run)
        level = frame.look(number).level
        area = frame.area(number, nodes)
        field = load_field(self._run, frame, number - 1, area.wide)
        wide = widened(field, area.wide.relative_to(_held(frame, area.wide).start))
        total = then_matrix(wide, coarse.matrix)
        m = rescale(total, frame.factors(FIXED, level), frame.factors(MOVING, level))
        box = moving_box(m, area) & Box.of_shape(frame.shape(MOVING, level)).pad((1, 1, 1))
        if not box:
            return None
        fixed = self._reader.read(frame, FIXED, level, area.region)
        own = fixed[frame.own_voxels(number, nodes).slices_in(area.region)]
        known = np.isfinite(own).mean() >= self._volumes.least_known
        if not (known and np.isfinite(fixed).any()):
            return None
        moving = coarse.tone(self._reader.read(frame, MOVING, level, box))
        return Seen(fixed, moving, m, area, box, coarse.contrasts)

    def _matched(self, number: int, seen: Seen | None, nodes: Box) -> np.ndarray[Any, Any]:
        from warpbeam.kernels.register.measure import measure

        if seen is None:
            return _packed(np.full((3, *nodes.shape), np.nan), None, None)
        found = measure(
            seen.fixed, seen.moving, seen.map, (seen.area, seen.box), self._frame.given(number),
            seen.contrasts,
        )  # fmt: skip
        return _packed(found.shift, found.information, found.ncc)


def load_field(
    run: RunFolder, frame: Frame, number: int, nodes: Box | None = None
) -> CoordinateMap:
    """The displacement behind a pass, where a box of nodes meets the lattice; before the first
    pass it is 0."""
    held = Box.of_shape(frame.lattice.shape) if nodes is None else _held(frame, nodes)
    lattice = frame.lattice.crop(held)
    if number < 0:
        return on_lattice(np.zeros((3, *lattice.shape)), lattice)
    values = fields.load(field_uri(run, number)).read(Box((0, *held.start), (3, *held.stop)))
    return on_lattice(values.astype(np.float64), lattice)


def _held(frame: Frame, nodes: Box) -> Box:
    return nodes & Box.of_shape(frame.lattice.shape)


def _packed(
    shift: np.ndarray[Any, Any],
    information: np.ndarray[Any, Any] | None,
    ncc: np.ndarray[Any, Any] | None,
) -> np.ndarray[Any, Any]:
    out = np.full((CHANNELS, *shift.shape[1:]), np.nan, np.float32)
    out[:3] = shift
    if information is not None and ncc is not None:
        out[3:9], out[9] = information[UPPER], ncc
    return out
