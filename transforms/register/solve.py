"""The matches of all chunks -> one field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.kernels.register.held_out import held_out
from warpbeam.kernels.register.joint_field import JointField, solve_unfolded
from warpbeam.kernels.register.landmarks import with_landmarks
from warpbeam.kernels.register.measure import moved_field
from warpbeam.transforms.register.chunks import CHANNELS, UPPER, load_field
from warpbeam.transforms.register.coarse import load_coarse
from warpbeam.transforms.register.frame import Frame, field_uri, held_out_uri, matches_uri
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields, store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

Values = Float[np.ndarray, "channel *nodes"]


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
        target, information = self._matches(number, before)
        last = number == len(frame.passes) - 1
        if not np.isfinite(target[0]).any():
            if last:
                raise _no_match(number)
            # volumes of a few voxels of a coarse level show nothing there: finer ones may
            found = JointField(before.u * edges, *[np.full(target.shape[1:], np.nan)] * 2)
            return self._stored(number, found)
        stride = tuple(s * e for s, e in zip(frame.lattice.stride, frame.edges, strict=True))
        asked = {"bending_px": frame.passes[number].bending, "start": before.u * edges}
        found = solve_unfolded(target, information, stride, least_jacobian=self._least, **asked)
        if last:
            self._store_held_out(held_out(target, information, stride, **asked))
        return self._stored(number, found)

    def _matches(
        self, number: int, before: CoordinateMap
    ) -> tuple[Values, Float[np.ndarray, "3 3 *nodes"]]:
        """Where matches and landmarks want the nodes, shortest edges of a fixed voxel, and their
        inverse covariance; NaN and 0 where there is none."""
        frame = self._frame
        values = np.full((CHANNELS, *frame.lattice.shape), np.nan)
        if store.exists(matches_uri(self._run, number)):  # else every chunk failed
            values = fields.load(matches_uri(self._run, number)).read().astype(np.float64)
        edges = np.reshape(frame.edges, (3, 1, 1, 1))
        target = moved_field(before, values[:3] / edges) * edges
        information = _information(values)
        if self._landmarks is None:
            return target, information
        return self._with_landmarks(self._landmarks, target, information)

    def _stored(self, number: int, found: JointField) -> Record:
        frame = self._frame
        offsets = found.offsets / np.reshape(frame.edges, (3, 1, 1, 1))
        whole = Box.of_shape(offsets.shape)
        array = fields.create(field_uri(self._run, number), whole.shape, whole.shape)
        written = array.write(whole, offsets)
        folds = jacobian(on_lattice(offsets, frame.lattice))
        return {"bytes_written": written, **_figures(found, folds)}

    def _with_landmarks(
        self, given: Landmarks, target: Values, information: Float[np.ndarray, "3 3 *nodes"]
    ) -> tuple[Values, Float[np.ndarray, "3 3 *nodes"]]:
        """The matrix leads to where they are in the moving volume from `point + offset`."""
        frame, points = self._frame, np.array(given.fixed)
        back = np.linalg.inv(load_coarse(self._run).matrix)
        offsets = (affine.apply(back, np.array(given.moving)) - points) * frame.edges
        return with_landmarks(target, information, frame.lattice, points, offsets, given.error)

    def _store_held_out(self, apart: Float[np.ndarray, "*nodes"]) -> None:
        whole = Box.of_shape(apart.shape)
        fields.create(held_out_uri(self._run), whole.shape, whole.shape).write(whole, apart)


def _information(values: Values) -> Float[np.ndarray, "3 3 *nodes"]:
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
