"""The matches of all chunks -> one field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.kernels.register.held_out import held_out
from warpbeam.kernels.register.joint_field import JointField, solve_unfolded
from warpbeam.kernels.register.landmarks import with_landmarks
from warpbeam.kernels.register.measure import moved_field
from warpbeam.kernels.register.poor import poor_nodes, weights
from warpbeam.transforms.register.chunks import CHANNELS, UPPER, load_field
from warpbeam.transforms.register.coarse import load_coarse
from warpbeam.transforms.register.frame import (
    Frame,
    field_uri,
    held_out_uri,
    matches_uri,
    poor_uri,
)
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields, store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

Values = Float[np.ndarray, "channel *nodes"]
Grid = Float[np.ndarray, "*nodes"]
Information = Float[np.ndarray, "3 3 *nodes"]
Nodes = Bool[np.ndarray, "*nodes"]


class Matched(NamedTuple):
    """What a chunk says of its nodes.

    Attributes:
        target: where the matches want the nodes, shortest edges of a fixed voxel; NaN for none.
        information: their inverse covariance; 0 for none.
        ncc: their correlation.
    """

    target: Values
    information: Information
    ncc: Grid


def one_field(number: int, matched: Ledger) -> Iterator[Unit]:
    """The single unit of a pass; changes whenever a chunk was matched anew."""
    yield ("field", number), matched.fingerprint()


@dataclass(frozen=True)
class Landmarks:
    """Points that show the same.

    Attributes:
        fixed, moving: voxels, zyx.
        error: standard error along each axis, shortest edges of a fixed voxel.
    """

    fixed: tuple[tuple[float, ...], ...]
    moving: tuple[tuple[float, ...], ...]
    error: float


class SolveField:
    """Work of the stages `solve_<number>`."""

    def __init__(
        self,
        run: RunFolder,
        frame: Frame,
        least_jacobian: float,
        landmarks: Landmarks | None = None,
    ) -> None:
        self._run, self._frame, self._least = run, frame, least_jacobian
        self._landmarks = landmarks

    def __call__(self, key: Key, payload: Any) -> Record:
        number, frame = key[1], self._frame
        before = load_field(self._run, frame, number - 1)
        edges = np.reshape(frame.edges, (3, 1, 1, 1))
        last = number == len(frame.passes) - 1
        if frame.passes[number].again and not (last or self._poor_so_far(number - 1).any()):
            self._store_poor(number, np.zeros(frame.lattice.shape, bool))
            return self._stored(number, _unmatched(before.u * edges))
        target, information, ncc = self._matches(number)
        information = information * weights(self._poor(number, ncc))
        if self._landmarks is not None:
            target, information = self._with_landmarks(self._landmarks, target, information)
        if not np.isfinite(target[0]).any():
            if last:
                raise _no_match(number)
            # volumes of a few voxels of a coarse level show nothing there: finer ones may
            return self._stored(number, _unmatched(before.u * edges))
        stride = tuple(s * e for s, e in zip(frame.lattice.stride, frame.edges, strict=True))
        asked = {"bending_px": frame.passes[number].bending, "start": before.u * edges}
        found = solve_unfolded(target, information, stride, least_jacobian=self._least, **asked)
        if last:
            self._store_held_out(held_out(target, information, stride, **asked))
        return self._stored(number, found)

    def _matches(self, number: int) -> Matched:
        """Of a pass; what is not measured again is as in the pass before."""
        if not self._frame.passes[number].again:
            return self._measured(number)
        before, again = self._matches(number - 1), self._poor_so_far(number - 1)
        if not again.any():
            return before
        own = self._measured(number)
        anew = again & np.isfinite(own.ncc)
        return Matched(*(np.where(anew, new, old) for new, old in zip(own, before, strict=True)))

    def _measured(self, number: int) -> Matched:
        frame = self._frame
        values = np.full((CHANNELS, *frame.lattice.shape), np.nan)
        if store.exists(matches_uri(self._run, number)):  # else every chunk failed
            values = fields.load(matches_uri(self._run, number)).read().astype(np.float64)
        edges = np.reshape(frame.edges, (3, 1, 1, 1))
        before = load_field(self._run, frame, number - 1)
        target = moved_field(before, values[:3] / edges) * edges
        return Matched(target, _information(values), values[9].copy())  # the rest goes

    def _poor(self, number: int, ncc: Grid) -> Nodes:
        """The nodes that are poor in this pass or were in one before; stored for the next ones."""
        frame, given = self._frame, self._frame.passes[number]
        found = self._poor_so_far(number - 1)
        if frame.seeks_poor(number):
            strides = zip(frame.lattice.stride, frame.edges, strict=True)
            reach = tuple(round(given.window / 2 / (s * e)) for s, e in strides)
            found = found | poor_nodes(ncc, reach)
        self._store_poor(number, found)
        return found

    def _store_poor(self, number: int, poor: Nodes) -> None:
        whole = Box.of_shape(poor.shape)
        array = fields.create(poor_uri(self._run, number), whole.shape, whole.shape)
        array.write(whole, poor.astype(np.float32))

    def _poor_so_far(self, number: int) -> Nodes:
        if number < 0:
            return np.zeros(self._frame.lattice.shape, bool)
        return np.asarray(fields.load(poor_uri(self._run, number)).read() > 0)

    def _stored(self, number: int, found: JointField) -> Record:
        frame = self._frame
        offsets = found.offsets / np.reshape(frame.edges, (3, 1, 1, 1))
        whole = Box.of_shape(offsets.shape)
        array = fields.create(field_uri(self._run, number), whole.shape, whole.shape)
        written = array.write(whole, offsets)
        folds = jacobian(on_lattice(offsets, frame.lattice))
        return {"bytes_written": written, **_figures(found, folds)}

    def _with_landmarks(
        self, given: Landmarks, target: Values, information: Information
    ) -> tuple[Values, Information]:
        """The matrix leads to where they are in the moving volume from `point + offset`."""
        frame, points = self._frame, np.array(given.fixed)
        back = np.linalg.inv(load_coarse(self._run).matrix)
        offsets = (affine.apply(back, np.array(given.moving)) - points) * frame.edges
        return with_landmarks(target, information, frame.lattice, points, offsets, given.error)

    def _store_held_out(self, apart: Float[np.ndarray, "*nodes"]) -> None:
        whole = Box.of_shape(apart.shape)
        fields.create(held_out_uri(self._run), whole.shape, whole.shape).write(whole, apart)


def _unmatched(offsets: Values) -> JointField:
    """A field that nothing was measured for."""
    none = np.full(offsets.shape[1:], np.nan)
    return JointField(offsets, none, none)


def _information(values: Values) -> Information:
    out = np.zeros((3, 3, *values.shape[1:]))
    out[UPPER] = np.nan_to_num(values[3:9])
    out[UPPER[::-1]] = out[UPPER]
    return out


def _figures(found: JointField, folds: Float[np.ndarray, "*cells"]) -> dict[str, Any]:
    known = np.isfinite(found.residual)
    kept = known & (found.kept > 0)
    return {
        "matches": int(known.sum()),
        "rejected": int((known & ~kept).sum()),
        "residual_median_px": float(np.median(found.residual[kept])) if kept.any() else None,
        "jacobian_least": float(folds.min()),
        "jacobian_most": float(folds.max()),
    }


def _no_match(number: int) -> InputError:
    return InputError(
        "no chunk of the fixed volume resembles the moving one",
        where=f"pass {number}",
        expected="matches in some chunk",
        got="none",
        fix="check the start (coarse.start, coarse.model), the channels and the masks",
    )
