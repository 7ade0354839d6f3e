"""The two volumes, the lattice of nodes over the fixed one, and the passes over it.

A level of `k` is reduced so that its voxels are about `k` times the shortest edge of a fixed voxel,
in both volumes: an axis that is coarse already is left alone until the others are as coarse.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.grid import BlockGrid
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.register.measure import Area, Pass
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import FOLDER
from warpbeam.transforms.storage.run_folder import RunFolder

FIXED, MOVING = 0, 1
Sizes = tuple[float, ...]
_SMALL = 64  # longest side of the copies on which every shift is tried, voxels
# Source voxels on a side that are reduced at a time.
_REDUCED_BLOCK = 128
_LEAST_WINDOW = 6.0  # voxels of a level
_LEAST_STRIDE = 2


@dataclass(frozen=True)
class PassSettings:
    """One look at the whole volume; lengths in shortest edges of a fixed voxel.

    Attributes:
        level: reduction of both volumes.
        window: width of what is compared.
        search: how far it is looked for; 0 for a deformation step.
        bending: stiffness of the field behind it, see `kernels.register.joint_field`.
        again: only nodes that the passes before left poor are measured, see
            `kernels.register.poor`.
    """

    level: int
    window: float
    search: float
    bending: float
    again: bool = False


@dataclass(frozen=True)
class Frame:
    """Both volumes, the nodes of the field between them, and how it is found.

    Attributes:
        shapes: of the fixed and the moving volume, zyx.
        voxels: their sizes, zyx, in one unit.
        spacing: distance of nodes, shortest edges of a fixed voxel.
        most: fixed voxels on a side of a chunk, at most.
        passes: in order.
        check: a last look, which says how well the volumes lie on one another.
        overlap: fixed voxels by which chunks of a dense engine reach into their neighbours; 0 where
            there is no dense engine.
    """

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    voxels: tuple[Sizes, Sizes]
    spacing: float
    most: int
    passes: tuple[PassSettings, ...]
    check: PassSettings
    overlap: int = 0

    @functools.cached_property
    def edges(self) -> Sizes:
        """Edges of a fixed voxel over the shortest one."""
        return tuple(v / min(self.voxels[FIXED]) for v in self.voxels[FIXED])

    @functools.cached_property
    def lattice(self) -> Lattice:
        """The nodes, in fixed voxels."""
        stride = [max(round(self.spacing / e), _LEAST_STRIDE) for e in self.edges]
        return Lattice.covering(Box.of_shape(self.shapes[FIXED]), stride)

    @functools.cached_property
    def blocks(self) -> BlockGrid:
        """Chunks, as blocks of nodes of nearly the same size: there are no slivers."""
        count = [max(round(n / self.most + 0.2), 1) for n in self.shapes[FIXED]]
        block = (-(-n // c) for n, c in zip(self.lattice.shape, count, strict=True))
        return BlockGrid(self.lattice.shape, tuple(block))

    def factors(self, which: int, level: int) -> tuple[int, ...]:
        """By how much each axis of a volume is reduced at a level."""
        fixed = tuple(_power(level / e) for e in self.edges)
        if which == FIXED:
            return fixed
        wanted = (k * v for k, v in zip(fixed, self.voxels[FIXED], strict=True))
        return tuple(_power(w / v) for w, v in zip(wanted, self.voxels[MOVING], strict=True))

    def shape(self, which: int, level: int) -> tuple[int, ...]:
        factors = self.factors(which, level)
        return tuple(-(-n // k) for n, k in zip(self.shapes[which], factors, strict=True))

    @property
    def looks(self) -> tuple[PassSettings, ...]:
        """The passes, then the check."""
        return (*self.passes, self.check)

    def look(self, number: int) -> PassSettings:
        """A pass, or the check behind the last field."""
        return self.check if number > self.last else self.passes[number]

    def seeks_poor(self, number: int) -> bool:
        """Whether a pass adds to the nodes that are measured again."""
        return any(p.again for p in self.passes[number : number + 2])

    @property
    def last(self) -> int:
        """The number of the last field: that of a dense engine follows those of the passes."""
        return len(self.passes) - (0 if self.overlap else 1)

    @property
    def last_stage(self) -> str:
        """The stage that gives the last field; that of the coarse map where there is none."""
        if self.overlap:
            return "blend"
        return f"solve_{self.last}" if self.passes else "coarse"

    @property
    def coarse(self) -> int:
        """The level on which whole volumes are compared."""
        longest = max(n * e for n, e in zip(self.shapes[FIXED], self.edges, strict=True))
        return int(2 ** max(math.ceil(math.log2(longest / _SMALL)), 0))

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels that are stored."""
        return tuple(sorted({*(look.level for look in self.looks), self.coarse}))

    @property
    def reduced_block(self) -> int:
        return max(_REDUCED_BLOCK, 4 * max(self.levels))

    def given(self, number: int) -> Pass:
        """A look in voxels of its level."""
        asked = self.look(number)
        size = self.size(asked.level)
        extent = self.shape(FIXED, asked.level)
        # a window that sticks out of a thin volume would take all of it for too little
        window = tuple(
            min(max(asked.window / s, _LEAST_WINDOW), float(n))
            for s, n in zip(size, extent, strict=True)
        )
        stride = min(n * e for n, e in zip(self.lattice.stride, self.edges, strict=True))
        every = max(round(asked.window / 2 / stride), 1) if asked.search else 1
        search = tuple(max(round(asked.search / s), 1) for s in size) if asked.search else None
        return Pass(window, search, every, size)

    def area(self, number: int, nodes: Box) -> Area:
        """What a look at a chunk needs to see."""
        level = self.look(number).level
        extent = self.shape(FIXED, level)
        return Area.around(
            self.at_level(level), nodes, self.blocks.block, self.given(number), extent
        )

    def own_voxels(self, number: int, nodes: Box) -> Box:
        """The voxels of a look's level between the outermost nodes of a chunk."""
        return self._around(nodes, self.look(number).level, (0.0,) * 3)

    def _around(self, nodes: Box, level: int, reach: Sequence[float]) -> Box:
        """The voxels of a level from the outermost nodes of a box to `reach` beyond."""
        lattice, extent = self.at_level(level), Box.of_shape(self.shape(FIXED, level))
        ends = [(lattice.along(a)[nodes.start[a]] - reach[a],
                 lattice.along(a)[nodes.stop[a] - 1] + reach[a]) for a in range(3)]  # fmt: skip
        return extent & Box(
            tuple(math.floor(a) for a, _ in ends), tuple(math.ceil(b) + 1 for _, b in ends)
        )

    def overlapping(self, block: tuple[int, ...], level: int) -> tuple[Box, Box]:
        """Nodes of a chunk of a dense engine, and the voxels of a level that it looks at."""
        core, lattice = self.blocks.box(block), self.at_level(level)
        reach = [self.overlap / k for k in self.factors(FIXED, level)]
        region = self._around(core, level, reach)
        held = []
        for axis in range(3):
            along = lattice.along(axis)
            inside = np.flatnonzero(
                (along >= region.start[axis] - 1e-6) & (along <= region.stop[axis] - 1 + 1e-6)
            )
            own = (core.start[axis], core.stop[axis] - 1)
            held.append((int(min(inside[0], own[0])), int(max(inside[-1], own[1])) + 1))
        return Box(tuple(a for a, _ in held), tuple(b for _, b in held)), region

    def size(self, level: int) -> Sizes:
        """Edges of a voxel of a fixed level, in shortest edges of a fixed voxel."""
        return tuple(k * e for k, e in zip(self.factors(FIXED, level), self.edges, strict=True))

    def at_level(self, level: int) -> Lattice:
        """The nodes, in voxels of a fixed level."""
        return self.lattice.at_scale(self.factors(FIXED, level))

    def physical(self) -> affine.Matrix:
        """Fixed voxels to moving ones as if the corners of both volumes were one point."""
        ratio = np.divide(self.voxels[FIXED], self.voxels[MOVING])
        matrix = np.diag([*ratio, 1.0])
        matrix[:3, 3] = (ratio - 1) / 2
        return matrix


def up(factors: Sequence[int]) -> affine.Matrix:
    """Voxels of a reduced volume to those of the full one."""
    matrix = np.diag([*map(float, factors), 1.0])
    matrix[:-1, -1] = (np.array(factors) - 1) / 2
    return matrix


def _power(ratio: float) -> int:
    """The nearest power of two, not below 1."""
    return int(2 ** max(round(math.log2(ratio)), 0))


def _work(run: RunFolder, name: str) -> str:
    return store.join(run.uri, FOLDER, "work", name)


def reduced_uri(run: RunFolder, which: int, level: int) -> str:
    """A level of a volume: [z, y, x], float32, NaN = no data."""
    return _work(run, f"{('fixed', 'moving')[which]}_{level}")


def matches_uri(run: RunFolder, number: int) -> str:
    """What the chunks emit in a pass: [channel, *nodes]; 3 of the shift, 6 of its inverse
    covariance, 1 of the correlation."""
    return _work(run, f"matches_{number}")


def field_uri(run: RunFolder, number: int) -> str:
    """The displacement behind a pass: [3, *nodes], fixed voxels."""
    return _work(run, f"field_{number}")


def poor_uri(run: RunFolder, number: int) -> str:
    """The nodes that were poor in a pass or one before: [*nodes], 1 or 0."""
    return _work(run, f"poor_{number}")


def held_out_uri(run: RunFolder) -> str:
    """How far matches are from the last field if it is solved without them: [*nodes], fixed
    edges; NaN at the nodes of which this is not known."""
    return _work(run, "held_out")


def dense_uri(run: RunFolder, block: tuple[int, ...]) -> str:
    """What a chunk of a dense engine says at its nodes: displacement in fixed voxels, weight."""
    return _work(run, "dense_" + "_".join(map(str, block)))


def coarse_uri(run: RunFolder) -> str:
    return _work(run, "coarse.json")


def forward_uri(run: RunFolder) -> str:
    """The map from fixed voxels to moving ones: it draws the result."""
    return store.join(run.uri, "maps", "forward.zarr")


def inverse_uri(run: RunFolder) -> str:
    """The map from moving voxels to fixed ones."""
    return store.join(run.uri, "maps", "inverse.zarr")
