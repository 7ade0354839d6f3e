"""Sections that a run of their own aligned again, put where the whole stack has them.

    whole  . -- A == x == x == x == B -- .    A and B stay where they are,
    part        A -- . -- . -- . -- B         and hold the part at both its ends

One map leads from the frame of the part to where the whole has A, another to where it has B; a
section between goes to a mean of both, by its distance. At an end of the stack one alone holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.maps.compose import compose, then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine
from warpbeam.kernels.maps.fill import fill_nearest
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
    """How a held section leads from the frame of the part to that of the whole stack.

    Attributes:
        back: from the part's aligned frame to its world.
        matrix: from there to the world of the whole stack, by the section's pixels.
        settled: from there to the aligned frame.
    """

    back: CoordinateMap
    matrix: affine.Matrix
    settled: CoordinateMap

    def follow(self, m: CoordinateMap) -> CoordinateMap:
        """A map to the part's frame, then to that of the whole. Beyond the held section its
        bends are those of its edge; turns, which are the matrix's, go on."""
        world = then_matrix(compose(m, self.back, outside="nearest"), self.matrix)
        return compose(world, self.settled, outside="nearest")


def holds(part: Part, placed: Placed, settled: Maps) -> dict[int, Hold]:
    """How a part is held, by section.

    Args:
        part: the part.
        placed: the sections of the whole stack.
        settled: the maps of the whole stack, of the held sections at least.
    """
    run = RunFolder(part.run)
    frame, inverse, theirs = load_frame(run), load_inverse(run), _placed(run)
    return {
        section: Hold(
            fill_nearest(inverse.read(frame.z(section))),
            _between(theirs, placed, section),
            settled[section],
        )
        for section in part.held
    }


def redone(
    part: Part, held: Mapping[int, Hold], frame: Frame, placed: Placed, wanted: Iterable[int]
) -> Iterator[tuple[int, CoordinateMap, float]]:
    """Some of the part's own sections: each with its map from the world of the whole stack, and by
    how much neighbours are moved apart, px (median over the nodes), so that both ends fit."""
    run = RunFolder(part.run)
    there, forward, theirs = load_frame(run), load_forward(run), _placed(run)
    for section in wanted:
        m = from_affine(_between(placed, theirs, section), frame.lattice)
        m = compose(m, forward.read(there.z(section)), outside="nearest")
        yield section, *_between_holds(m, held, section)


def _between_holds(
    m: CoordinateMap, held: Mapping[int, Hold], section: int
) -> tuple[CoordinateMap, float]:
    """What the holds make of a map to the part's frame, each by its distance."""
    ends = {at: hold.follow(m) for at, hold in sorted(held.items())}
    if len(ends) == 1:
        return next(iter(ends.values())), 0.0
    (low, first), (high, last) = ends.items()
    share = (section - low) / (high - low)
    apart = np.median(np.linalg.norm(last.u - first.u, axis=0))
    return first.with_offsets((1 - share) * first.u + share * last.u), float(apart / (high - low))


def _placed(run: RunFolder) -> Placed:
    return {p.source.key.section: p for p in load_placement(run)}


def _between(first: Placed, second: Placed, section: int) -> affine.Matrix:
    """From one run's world to another's, by the pixels of a section."""
    there, here = (affine.homogeneous(each[section].matrix) for each in (first, second))
    return here @ np.linalg.inv(there)
