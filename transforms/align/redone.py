"""Sections that a run of their own aligned again, put where the whole stack has them.

    whole  . -- A == x == x == x == B -- .    A and B stay where they are,
    part        A -- . -- . -- . -- B         and hold the part at both its ends

One map leads from the frame of the part to where the whole has A, another to where it has B; a
section between gets a mean of both, by its distance. At an end of the stack one alone holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.maps.compose import compose, then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine
from warpbeam.kernels.maps.fill import fill_missing
from warpbeam.transforms.align.frame import Frame, load_frame
from warpbeam.transforms.align.section_maps import load_forward, load_inverse
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

Placed = Mapping[int, PlacedTile]
Maps = Mapping[int, CoordinateMap]


@dataclass(frozen=True)
class Part:
    """A finished run of `align` on some of the sections.

    Attributes:
        run: its folder.
        mark: changes whenever its maps do.
        held: its first section, its last one, or both: those that stay where the whole has them.
        own: the others, whose maps are taken.
    """

    run: str
    mark: str
    held: tuple[int, ...]
    own: tuple[int, ...]


@dataclass(frozen=True)
class Hold:
    """How the frame of a part lies in that of the whole stack.

    Attributes:
        at: the map from one to the other at each held section, all on one lattice.
    """

    at: Maps

    def map(self, section: int) -> CoordinateMap:
        """At any section, by its distance from those that are held."""
        if len(self.at) == 1:
            return next(iter(self.at.values()))
        (low, first), (high, last) = sorted(self.at.items())
        share = (section - low) / (high - low)
        return first.with_offsets((1 - share) * first.u + share * last.u)

    @property
    def step_px(self) -> float:
        """By how much neighbours are moved apart, so that both ends fit: median over the nodes."""
        if len(self.at) == 1:
            return 0.0
        (low, first), (high, last) = sorted(self.at.items())
        return float(np.median(np.linalg.norm(last.u - first.u, axis=0)) / (high - low))


def hold(part: Part, placed: Placed, settled: Maps) -> Hold:
    """How a part is held.

    Args:
        part: the part.
        placed: the sections of the whole stack.
        settled: the maps of the whole stack, of the held sections at least.
    """
    run = RunFolder(part.run)
    frame, inverse, theirs = load_frame(run), load_inverse(run), _placed(run)
    return Hold(
        {
            section: _carried(
                then_matrix(inverse.read(frame.z(section)), _between(theirs, placed, section)),
                settled[section],
            )
            for section in part.held
        }
    )


def _carried(back: CoordinateMap, settled: CoordinateMap) -> CoordinateMap:
    """Beyond the held section its map is continued."""
    return fill_missing(compose(back, settled, outside="nearest"), outside="smooth")


def redone(
    part: Part, held: Hold, frame: Frame, placed: Placed, wanted: Iterable[int]
) -> Iterator[tuple[int, CoordinateMap]]:
    """The maps of some of the part's own sections, from the world of the whole stack."""
    run = RunFolder(part.run)
    there, forward, theirs = load_frame(run), load_forward(run), _placed(run)
    for section in wanted:
        m = from_affine(_between(placed, theirs, section), frame.lattice)
        for step in (forward.read(there.z(section)), held.map(section)):
            m = compose(m, step, outside="nearest")
        yield section, m


def _placed(run: RunFolder) -> Placed:
    return {p.source.key.section: p for p in load_placement(run)}


def _between(first: Placed, second: Placed, section: int) -> affine.Matrix:
    """From one run's world to another's, by the pixels of a section."""
    there, here = (affine.homogeneous(each[section].matrix) for each in (first, second))
    return here @ np.linalg.inv(there)
