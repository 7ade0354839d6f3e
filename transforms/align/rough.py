"""Whole sections compared over several gaps -> one rough matrix per section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.montage.solve import Correspondences, Model, Solution, solve
from warpbeam.kernels.register.keypoints import match_keypoints
from warpbeam.kernels.register.match import RoughMatch
from warpbeam.kernels.register.rotation import rotation_scan
from warpbeam.transforms.align.reading import Readable, SectionReader, SectionSettings
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.place import KEPT_WEIGHT, link_weights
from warpbeam.transforms.placement import save_placement
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import tables
from warpbeam.transforms.storage.images import CorruptImageError
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile, TileSource, as_rows, load_sources

Matrices = np.ndarray[Any, Any]

# Unrelated images reach 4.5 standard deviations over all shifts and turns, neighbours 9 and more.
_LEAST_SCORE = 6.0
# Shifts are found in whole pixels of the reduction.
_LEAST_PX = 0.5
# Sections lie anywhere on the stage: it only says where a stack without links begins.
_STAGE_SIGMA_SIZES = 0.5


@dataclass(frozen=True)
class RoughSettings:
    """How sections are compared as wholes.

    Attributes:
        model: what may happen to a section.
        method: "ncc", "sift", or "auto": keypoints where correlation finds nothing.
        scale: reduction at which whole sections are compared.
        gaps: sections are compared over 1 to so many.
        degrees: largest turn that is looked for.
        grid: shifts are rounded to whole multiples of this many px, so that reduced sections
            are moved without interpolation.
    """

    model: Model
    method: Literal["auto", "sift", "ncc"]
    scale: int
    gaps: int
    degrees: float
    grid: int


def list_pairs(readable: Readable, settings: RoughSettings) -> Iterator[Unit]:
    """A unit per section. Payload: where the list has it, and the earlier sections near it."""
    sources = sorted(readable(), key=lambda s: s.key.section)
    for i, fixed in enumerate(sources):
        near = sources[max(0, i - settings.gaps) : i]
        if near:
            section = fixed.key.section
            yield RunKey(section, section), [_at_stage(fixed), [_at_stage(s) for s in near]]


def _at_stage(source: TileSource) -> PlacedTile:
    return PlacedTile(source, source.stage)


class ComparePairs:
    """Work of the stage `rough`: one section against the few before it."""

    def __init__(self, run: RunFolder, sections: SectionSettings, settings: RoughSettings) -> None:
        self._run, self._sections, self._settings = run, sections, settings

    def setup(self) -> None:
        self._reader = SectionReader(self._run, self._sections)

    def __call__(self, key: RunKey, payload: Any) -> Record:
        fixed, others = payload
        image = self._image(fixed)
        pairs = []
        for moving in others:
            try:
                other = self._image(moving)
            except CorruptImageError:
                continue  # a unit of its own reports it
            found = self._compare(image, other)
            row: dict[str, Any] = {
                "moving": moving.source.key.section,
                "score": None if np.isnan(found.score) else found.score,
                "method": found.method,
            }
            if found.score >= _LEAST_SCORE:
                points = found.points(image.shape, other.shape)
                up = [_full(p, self._settings.scale).tolist() for p in points]
                row["fixed_points"], row["moving_points"] = up
            pairs.append(row)
        return {"pairs": pairs}

    def _image(self, placed: PlacedTile) -> np.ndarray[Any, Any]:
        scale = self._settings.scale
        shape = tuple(n // scale for n in placed.source.shape)
        still = placed._replace(matrix=as_rows(np.eye(3)))
        return self._reader.image(still, scale, Box.of_shape(shape))

    def _compare(self, fixed: Matrices, moving: Matrices) -> RoughMatch:
        settings = self._settings
        turns = 0.0 if settings.model == "translation" else settings.degrees
        if settings.method != "sift":
            found = rotation_scan(fixed, moving, most_degrees=turns)
            if settings.method == "ncc" or found.score >= _LEAST_SCORE:
                return found
        return match_keypoints(fixed, moving, settings.model)


def _full(points: Matrices, scale: int) -> Matrices:
    """Points of a reduced image in pixels of the full one."""
    return points * scale + (scale - 1) / 2


def one_placement(rough: Ledger) -> Iterator[Unit]:
    """The single unit; its payload changes whenever a pair was compared anew."""
    yield ("place",), rough.fingerprint()


class PlaceSections:
    """Work of the stage `place`: all pairs -> one matrix per section.

    Writes `transforms.json` and `pairs.parquet`. A pair that contradicts the others loses; a
    section without a pair is laid where its neighbour lies.
    """

    def __init__(self, run: RunFolder, rough: Ledger, settings: RoughSettings) -> None:
        self._run, self._rough, self._settings = run, rough, settings

    def __call__(self, _: Key, payload: Any) -> Record:
        sources = sorted(load_sources(self._run), key=lambda s: s.key.section)
        number = {s.key.section: i for i, s in enumerate(sources)}
        pairs = [(key[0], pair) for key, found in self._rough.records() for pair in found["pairs"]]
        links = [(a, pair) for a, pair in pairs if "fixed_points" in pair]
        solution = self._solve(sources, number, links)
        matrices = self._rounded(_with_neighbours(solution))
        weights = dict(zip((id(pair) for _, pair in links), link_weights(solution, len(links)),
                           strict=True))  # fmt: skip
        rows = [self._row(a, pair, weights, matrices, number) for a, pair in pairs]
        save_placement(
            self._run,
            [PlacedTile(s, as_rows(m)) for s, m in zip(sources, matrices, strict=True)],
        )
        tables.write(self._run.table("pairs"), rows)
        kept = sum(row["kept"] for row in rows)
        return {"pairs": len(rows), "kept": kept, "unplaced": _unplaced(solution, sources)}

    def _solve(
        self, sources: Sequence[TileSource], number: dict[int, int], links: list[tuple[int, Any]]
    ) -> Solution:
        points = [[np.array(p[k], float) for k in ("fixed_points", "moving_points")]
                  for _, p in links]  # fmt: skip
        count = [len(a) for a, _ in points]
        empty = np.empty((0, 2))
        total = sum(count)
        found = Correspondences(
            np.repeat(np.array([number[a] for a, _ in links], int), count),
            np.repeat(np.array([number[p["moving"]] for _, p in links], int), count),
            np.concatenate([empty, *(a for a, _ in points)]),
            np.concatenate([empty, *(b for _, b in points)]),
            np.tile(np.eye(2), (total, 1, 1)),
            np.repeat(np.arange(len(links)), count),
        )
        stage = np.stack([affine.homogeneous(s.stage) for s in sources])
        sigma = _STAGE_SIGMA_SIZES * max(max(s.shape) for s in sources)
        linear = np.deg2rad(max(self._settings.degrees, 1.0))
        return solve(
            found, stage, model=self._settings.model, stage_sigma_px=sigma, linear_sigma=linear,
            least_px=_LEAST_PX * self._settings.scale,
        )  # fmt: skip

    def _rounded(self, matrices: Matrices) -> Matrices:
        """Shifts of sections that only shift, in whole pixels of every reduction."""
        if self._settings.model == "translation":
            grid = self._settings.grid
            matrices[:, :2, 2] = np.rint(matrices[:, :2, 2] / grid) * grid
        return matrices

    def _row(
        self,
        fixed: int,
        pair: dict[str, Any],
        weights: dict[int, float],
        matrices: Matrices,
        number: dict[int, int],
    ) -> dict[str, Any]:
        weight = weights.get(id(pair), 0.0)
        residual = None
        if "fixed_points" in pair:
            a, b = (
                affine.apply(matrices[number[s]], np.array(pair[k], float))
                for s, k in ((fixed, "fixed_points"), (pair["moving"], "moving_points"))
            )
            residual = float(np.linalg.norm(a - b, axis=1).mean())
        return {
            "section_a": fixed,
            "section_b": pair["moving"],
            "method": pair["method"],
            "score": pair["score"],
            "weight": weight,
            "kept": weight >= KEPT_WEIGHT,
            "residual_px": residual,
        }


def _alone(solution: Solution) -> np.ndarray[Any, Any]:
    """Sections that no pair was believed for."""
    return np.bincount(solution.component)[solution.component] == 1


def _unplaced(solution: Solution, sources: Sequence[TileSource]) -> list[int]:
    return [s.key.section for s, alone in zip(sources, _alone(solution), strict=True) if alone]


def _with_neighbours(solution: Solution) -> Matrices:
    """The matrices, with those of the nearest placed section for sections that stand alone."""
    matrices, alone = solution.matrices.copy(), _alone(solution)
    placed = np.flatnonzero(~alone)
    if len(placed):
        for i in np.flatnonzero(alone):
            matrices[i] = matrices[placed[np.argmin(np.abs(placed - i))]]
    return matrices
