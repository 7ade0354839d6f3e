"""Chained meshes -> one map per section, with what the tissue itself does along z given back.

Maps of sections that were aligned again by themselves are taken from there (`redone`). Last, one
section may be made the frame of all others, in which it stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.compose import compose, then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine, on_lattice
from warpbeam.kernels.maps.fill import fill_missing
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.maps.irregular import folded
from warpbeam.kernels.maps.points import warp_points
from warpbeam.kernels.mesh.drift import steady_drift
from warpbeam.kernels.mesh.trend import arrived, slow_part
from warpbeam.transforms.align.frame import Frame, joined_uri, load_frame
from warpbeam.transforms.align.redone import Maps, Part, Placed, holds, redone
from warpbeam.transforms.align.section_maps import forward_uri, mark_of
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

Corner = Float[np.ndarray, "2"]
Steps = Mapping[int, float]

_RUN = 16  # sections of a unit: their neighbours in z are read once for all of them


@dataclass(frozen=True)
class SettleSettings:
    """What varies slowly along z and is given back; see `kernels.mesh.trend` and `drift`.

    Attributes:
        steady: the mean displacement of the sections, as far as it drifts steadily.
        window: bends of the sections, over so many sections on either side; 0 for none. Left
            alone where the stack is shorter than that.
        anchor: the section that stays as it is; None for none.
        voxel: yx size of a voxel, and the distance of sections, in `unit`.
    """

    steady: bool
    window: int
    anchor: int | None
    voxel: tuple[float, float]
    spacing: float
    unit: str | None


def list_runs(
    joined: Ledger, settings: SettleSettings, parts: Sequence[Part] = ()
) -> Iterator[Unit]:
    """A unit per run of sections.

    Payload: a fingerprint of all meshes; the sections that it needs, each with its steady drift;
    those that it settles; the window; and the parts that were aligned again among them.
    """
    marks = joined.fingerprint()
    rows = sorted(
        (row["section"], row["shift"])
        for _, record in joined.records()
        for row in record["sections"]
    )
    sections = [row[0] for row in rows]
    shift = np.array([row[1] for row in rows])
    drift = steady_drift(sections, shift) if settings.steady else np.zeros_like(shift)
    window = settings.window if len(sections) > 2 * settings.window else 0
    every = list(zip(sections, drift.tolist(), strict=True))
    anchors = set() if settings.anchor is None else {settings.anchor}
    _check_there(anchors, sections, "mesh.anchor")
    _check_there({s for part in parts for s in part.held}, sections, "redone")
    for first in range(sections[0], sections[-1] + 1, _RUN):
        wanted = [s for s in sections if first <= s < first + _RUN]
        if wanted:
            inside = [part for part in parts if {*wanted, *anchors} & {*part.own}]
            solved = {*wanted, *anchors, *(s for part in inside for s in part.held)}
            near = {n for s in solved for n in range(s - window, s + window + 1)}
            needed = [row for row in every if row[0] in near]
            yield RunKey(wanted[0], wanted[-1]), [marks, needed, wanted, window, inside]


def _check_there(wanted: Collection[int], sections: Sequence[int], where: str) -> None:
    if lost := sorted(set(wanted) - set(sections)):
        raise InputError(
            "a section that others hang on could not be read",
            where=where,
            expected="a section with a mesh",
            got=f"section {lost[0]} without one",
            fix="mend its file, or choose another section",
        )


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
        *_, wanted, _, parts = payload
        frame = load_frame(self._run)
        placed = {p.source.key.section: p for p in load_placement(self._run)}
        solved, final, steps = self._maps(frame, placed, payload)
        field, written, rows = self._field(frame), 0, []
        for section in wanted:
            forward = final[section]
            written += field.write(forward, frame.z(section))
            extent = Box.of_shape(placed[section].source.shape)
            to_world = affine.homogeneous(placed[section].matrix)
            low, high = _reached(forward, to_world, extent)
            if section in steps:
                room = _reached(solved[section], to_world, extent)
                low, high = _room(low, high, *room, frame.settings.stride)
            shift = _middle_moved(forward, to_world, extent)
            rows.append(
                {
                    "section": section,
                    "map": mark_of(forward),
                    "low": low.tolist(),
                    "high": high.tolist(),
                    "folded": int(folded(forward).sum()),
                    "strain": _strain(forward),
                    "shift_y_px": shift[0],
                    "shift_x_px": shift[1],
                    "redone": next((part.run for part in parts if section in part.own), None),
                    "held_step_px": steps.get(section),
                }
            )
        return {"bytes_written": written, "sections": rows}

    def _maps(self, frame: Frame, placed: Placed, payload: Any) -> tuple[Maps, Maps, Steps]:
        """The maps of the wanted sections as the whole stack has them, their final ones, and
        by how much those that were done again are moved apart."""
        _, needed, wanted, window, parts = payload
        drift = {row[0]: np.reshape(row[1], (2, 1, 1)) for row in needed}
        meshes = {s: on_lattice(self._mesh(frame, s) - drift[s], frame.lattice) for s in drift}
        anchor = {section for section in meshes if section == self._settings.anchor}
        held = {section for part in parts for section in part.held}
        wanted = {*wanted, *anchor}
        solved = _without_slow_bends(meshes, sorted(wanted | held), window) if window else meshes
        final, steps = dict(solved), {}
        for part in parts:
            ends, own = holds(part, placed, solved), sorted(wanted & set(part.own))
            for section, m, step in redone(part, ends, frame, placed, own):
                final[section], steps[section] = m, step
        for section in anchor:
            back = fill_missing(invert(final[section]), outside="smooth")
            to_pixels = np.linalg.inv(affine.homogeneous(placed[section].matrix))
            solved, final = (
                {
                    s: then_matrix(compose(maps[s], back, outside="nearest"), to_pixels)
                    for s in wanted
                }
                for maps in (solved, final)
            )
            final[section] = from_affine(to_pixels, frame.lattice)  # exactly
        return solved, final, steps

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


def _reached(forward: CoordinateMap, to_world: affine.Matrix, extent: Box) -> tuple[Corner, Corner]:
    """The box that the edge of a section covers in the aligned frame."""
    height, width = extent.shape
    y, x = (np.linspace(-0.5, n - 0.5, max(n // 64, 2)) for n in (height, width))
    edge = np.concatenate(
        [np.stack([np.full_like(x, e), x], 1) for e in (-0.5, height - 0.5)]
        + [np.stack([y, np.full_like(y, e)], 1) for e in (-0.5, width - 0.5)]
    )
    moved = warp_points(forward, affine.apply(to_world, edge), outside="nearest")
    return moved.min(axis=0), moved.max(axis=0)


def _room(
    low: Corner, high: Corner, low_before: Corner, high_before: Corner, margin: int
) -> tuple[Corner, Corner]:
    """The box that a section which was done again asks for: the one that it had, unless it goes
    beyond by more than a margin. Otherwise the whole volume would be drawn again for some pixels
    of its border."""
    return (
        np.where(low_before - low <= margin, low_before, low),
        np.where(high - high_before <= margin, high_before, high),
    )


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
