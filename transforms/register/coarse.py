"""Both volumes as wholes -> the coarse linear map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from warpbeam.kernels.flow.pyramid import contrast
from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.register.tone import Tone, tone_between
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.register.frame import FIXED, MOVING, Frame, coarse_uri, up
from warpbeam.transforms.register.reading import VolumeReader, VolumeSettings
from warpbeam.transforms.sampling import sample_boxes
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from warpbeam.kernels.register.whole import StagedModel

# Grey values are compared in so many boxes, voxels.
_SAMPLE = (24, 24, 24)
_SAMPLES = 300
Matrix = tuple[tuple[float, ...], ...]
Start = Literal["scan", "features", "moments", "physical"]


@dataclass(frozen=True)
class CoarseSettings:
    """How whole volumes are laid on one another.

    Attributes:
        start: "scan": every shift is tried; "features": blobs in any position, and then every
            shift; "moments": centres of mass meet; "physical": as voxel sizes and corners say.
        model: of the linear map, see `kernels.register.whole.refine`; "none" keeps the start.
        degrees: largest turn about each axis that the scan tries.
        least_score: a scan that scores less found nothing, see `kernels.register.whole`.
        given: a matrix in place of the corners, fixed voxel to moving voxel.
    """

    start: Start
    model: StagedModel | Literal["none"]
    degrees: float
    least_score: float
    given: Matrix | None = None


class Coarse(NamedTuple):
    """What the stage `coarse` stored.

    Attributes:
        matrix: fixed voxels to moving ones.
        contrasts: mean and deviation of the fixed volume, and of the moving one behind its tone.
        physical: the matrix if the corners of both volumes were one point.
        tone: what gives the moving volume the grey values of the fixed one.
    """

    matrix: affine.Matrix
    contrasts: tuple[tuple[float, float], tuple[float, float]]
    physical: affine.Matrix
    tone: Tone


def one_start(reduced: Ledger) -> Iterator[Unit]:
    """The single unit; changes whenever a block was reduced anew."""
    yield ("coarse",), reduced.fingerprint()


class FitWhole:
    """Work of the stage `coarse`."""

    def __init__(
        self, run: RunFolder, frame: Frame, volumes: VolumeSettings, settings: CoarseSettings
    ) -> None:
        self._run, self._frame, self._volumes = run, frame, volumes
        self._settings = settings

    def setup(self) -> None:
        set_up_jax()

    def __call__(self, key: Key, payload: Any) -> Record:
        from warpbeam.kernels.register.whole import refine

        frame, given = self._frame, self._settings
        reader = VolumeReader(self._run, self._volumes)
        fixed, moving = (
            reader.read(frame, which, frame.coarse, Box.of_shape(frame.shape(which, frame.coarse)))
            for which in (FIXED, MOVING)
        )
        _check(fixed, moving)
        down, back = (up(frame.factors(which, frame.coarse)) for which in (FIXED, MOVING))
        first = frame.physical() if given.given is None else affine.homogeneous(given.given)
        matrix, score = self._started(fixed, moving, np.linalg.inv(back) @ first @ down)
        spread, pairs = None, 0
        if given.model != "none":
            size = frame.size(frame.coarse)
            matrix, fit = refine(fixed, moving, matrix, size, given.model)
            if fit is not None:
                spread, pairs = fit.scale * min(size), int((fit.kept > 0.25).sum())
        total = back @ matrix @ np.linalg.inv(down)
        tone = self._tone(reader, total, matrix, (fixed, moving))
        contrasts = [contrast(volume) for volume in (fixed, tone(moving))]
        record = {
            "tone": list(tone),
            "matrix": total.tolist(),
            "physical": frame.physical().tolist(),
            "contrasts": contrasts,
            "score": score,
            "spread_px": spread,
            "pairs": pairs,
        }
        store.write_json(coarse_uri(self._run), record)
        return record

    def _started(
        self, fixed: Any, moving: Any, matrix: affine.Matrix
    ) -> tuple[affine.Matrix, float | None]:
        """Where the moving volume lies, roughly, and the score of the scan, if there was one."""
        from warpbeam.kernels.register.constellations import match_constellations
        from warpbeam.kernels.register.whole import moments, scan

        given, size = self._settings, self._frame.size(self._frame.coarse)
        if given.start == "physical":
            return matrix, None
        if given.start == "moments":
            return moments(fixed, moving, matrix), None
        if given.start == "features":
            matrix = match_constellations(fixed, moving, matrix, size)
        found = scan(fixed, moving, matrix, size, most_degrees=given.degrees)
        if not found.score >= given.least_score:
            raise _unlike(float(found.score), given.least_score)
        return found.matrix, float(found.score)

    def _tone(
        self,
        reader: VolumeReader,
        total: affine.Matrix,
        matrix: affine.Matrix,
        volumes: tuple[Any, Any],
    ) -> Tone:
        """Between boxes all over both volumes; none where it makes them no more alike."""
        from warpbeam.kernels.register.whole import likeness

        values: tuple[list[Any], list[Any]] = ([], [])
        extent = Box.of_shape(self._frame.shapes[MOVING])
        for box in sample_boxes(self._frame.shapes[FIXED], _SAMPLE, _SAMPLES):
            there = affine.bounding_box(total, box)
            if extent.contains(there):
                values[FIXED].append(reader.full(FIXED, box).ravel())
                values[MOVING].append(reader.full(MOVING, there).ravel())
        if not values[FIXED]:
            return Tone()
        tone = tone_between(*map(np.concatenate, values))
        fixed, moving = volumes
        gained = likeness(fixed, tone(moving), matrix) - likeness(fixed, moving, matrix)
        return tone if gained > 0 else Tone()


def load_coarse(run: RunFolder) -> Coarse:
    """The coarse map of a run."""
    found = store.read_json(coarse_uri(run))
    first, second = (tuple(c) for c in found["contrasts"])
    return Coarse(
        np.array(found["matrix"]), (first, second), np.array(found["physical"]),
        Tone(*found["tone"]),
    )  # fmt: skip


def _check(fixed: Any, moving: Any) -> None:
    for name, volume in (("fixed", fixed), ("moving", moving)):
        mean, deviation = contrast(volume)
        if not deviation > 1e-6 * abs(mean):
            raise InputError(
                f"the {name} volume shows nothing",
                where=name,
                expected="a volume with some contrast",
                got="no known voxel" if not np.isfinite(volume).any() else f"{mean:g} everywhere",
                fix="look at the file, its channel, its mask and volumes.background",
            )


def _unlike(score: float, least: float) -> InputError:
    return InputError(
        "the volumes do not resemble one another at any shift",
        where="fixed and moving",
        expected=f"a correlation of {least:g} standard deviations (coarse.least_score)",
        got=f"{score:.2g}",
        fix="check that they overlap and show the same stain, and the sizes of their voxels, which "
        "`warpbeam plan register` tells; try coarse.start=features if one is "
        "turned, or give a start and set coarse.start=physical",
    )
