"""Chained meshes -> one map per section, with what the tissue itself does along z given back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.irregular import folded
from warpbeam.kernels.maps.points import warp_points
from warpbeam.kernels.mesh.trend import arrived, linear_trend, slow_part
from warpbeam.transforms.align.frame import Frame, joined_uri, load_frame
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import displacements, fields, store
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

_RUN = 16  # sections of a unit: their neighbours in z are read once for all of them


@dataclass(frozen=True)
class SettleSettings:
    """What varies slowly along z and is given back; see `kernels.mesh.trend`.

    Attributes:
        linear: the mean displacement of the sections, its steady drift.
        window: bends of the sections, over so many sections on either side; 0 for none. Left
            alone where the stack is shorter than that.
        voxel: yx size of a voxel, and the distance of sections, in `unit`.
    """

    linear: bool
    window: int
    voxel: tuple[float, float]
    spacing: float
    unit: str | None


def forward_uri(run: RunFolder) -> str:
    """The map of each section, from the world to the aligned frame."""
    return store.join(run.uri, "maps", "forward.zarr")


def list_runs(joined: Ledger, settings: SettleSettings) -> Iterator[Unit]:
    """A unit per run of sections.

    Payload: a fingerprint of all meshes; the sections that it needs, each with its steady drift;
    those that it settles; and the window.
    """
    marks = joined.fingerprint()
    rows = sorted(
        (row["section"], row["shift"])
        for _, record in joined.records()
        for row in record["sections"]
    )
    sections = [row[0] for row in rows]
    shift = np.array([row[1] for row in rows])
    drift = linear_trend(sections, shift) if settings.linear else np.zeros_like(shift)
    window = settings.window if len(sections) > 2 * settings.window else 0
    every = list(zip(sections, drift.tolist(), strict=True))
    for first in range(sections[0], sections[-1] + 1, _RUN):
        wanted = [s for s in sections if first <= s < first + _RUN]
        low, high = first - window, first + _RUN + window
        if wanted:
            needed = [row for row in every if low <= row[0] < high]
            yield RunKey(wanted[0], wanted[-1]), [marks, needed, wanted, window]


class SettleSections:
    """Work of the stage `settle`: the final maps of a run of sections."""

    def __init__(self, run: RunFolder, settings: SettleSettings) -> None:
        self._run, self._settings = run, settings

    def _field(self, frame: Frame) -> DisplacementField:
        given = self._settings
        field = DisplacementField(
            forward_uri(self._run), frame.lattice, given.voxel, given.unit, frame.depth,
            given.spacing, frame.first,
        )  # fmt: skip
        field.create()
        return field

    def __call__(self, key: RunKey, payload: Any) -> Record:
        _, needed, wanted, window = payload
        frame = load_frame(self._run)
        drift = {row[0]: np.reshape(row[1], (2, 1, 1)) for row in needed}
        meshes = {s: on_lattice(self._mesh(frame, s) - drift[s], frame.lattice) for s in drift}
        settled = _without_slow_bends(meshes, wanted, window) if window else meshes
        placed = {p.source.key.section: p for p in load_placement(self._run)}
        field, written, rows = self._field(frame), 0, []
        for section in wanted:
            forward = settled[section]
            written += field.write(forward, frame.z(section))
            extent = Box.of_shape(placed[section].source.shape)
            to_world = affine.homogeneous(placed[section].matrix)
            low, high = _reached(forward, to_world, extent)
            shift = _middle_moved(forward, to_world, extent)
            rows.append(
                {
                    "section": section,
                    "low": low,
                    "high": high,
                    "folded": int(folded(forward).sum()),
                    "strain": _strain(forward),
                    "shift_y_px": shift[0],
                    "shift_x_px": shift[1],
                }
            )
        return {"bytes_written": written, "sections": rows}

    def _mesh(self, frame: Frame, section: int) -> Float[np.ndarray, "c y x"]:
        stored = fields.load(joined_uri(self._run))
        return stored.read(frame.nodes(frame.z(section), (2,)))[:, 0].astype(np.float64)


def _without_slow_bends(
    meshes: Mapping[int, CoordinateMap], wanted: Sequence[int], window: int
) -> dict[int, CoordinateMap]:
    """The wanted meshes, each followed by what undoes the bends that vary slowly along z."""
    sections = sorted(meshes)
    bends = np.stack([arrived(meshes[s]) for s in sections])
    bends -= bends.mean(axis=(2, 3), keepdims=True)
    slow = slow_part(sections, bends, wanted, window)
    lattice = meshes[sections[0]].lattice
    return {
        s: compose(meshes[s], on_lattice(-bend, lattice), outside="nearest")
        for s, bend in zip(wanted, slow, strict=True)
    }


def _reached(
    forward: CoordinateMap, to_world: affine.Matrix, extent: Box
) -> tuple[list[float], list[float]]:
    """The box that the edge of a section covers in the aligned frame."""
    height, width = extent.shape
    y, x = (np.linspace(-0.5, n - 0.5, max(n // 64, 2)) for n in (height, width))
    edge = np.concatenate(
        [np.stack([np.full_like(x, e), x], 1) for e in (-0.5, height - 0.5)]
        + [np.stack([y, np.full_like(y, e)], 1) for e in (-0.5, width - 0.5)]
    )
    moved = warp_points(forward, affine.apply(to_world, edge), outside="nearest")
    return moved.min(axis=0).tolist(), moved.max(axis=0).tolist()


def _middle_moved(forward: CoordinateMap, to_world: affine.Matrix, extent: Box) -> list[float]:
    """By how much the middle of a section is moved in all, rough placement included, yx px."""
    middle = (np.array([extent.shape]) - 1) / 2
    placed = affine.apply(to_world, middle)
    moved: list[float] = (warp_points(forward, placed, outside="nearest") - middle)[0].tolist()
    return moved


def _strain(forward: CoordinateMap) -> float:
    """95th percentile of the relative change of length of the links between nodes."""
    found = []
    for axis, stride in enumerate(forward.stride):
        length = np.linalg.norm(np.diff(forward.absolute, axis=axis + 1), axis=0) / stride
        found.append(np.abs(length - 1).ravel())
    return float(np.quantile(np.concatenate(found), 0.95))


def load_forward(run: RunFolder) -> DisplacementField:
    """The maps that the stage `settle` stored."""
    return displacements.load(forward_uri(run))
