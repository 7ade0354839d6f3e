"""What is left of a block's first mesh further along its chain.

A chain lets go of what its first section looked like: each section is a sheet that bends only as
far as flow makes it, so bends that no flow asks for fade from section to section, short waves
first. A block is solved as if its first section were at rest; how it would have come out behind
another one follows from that fading. So blocks are solved in parallel, and still agree with one
long chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float
from scipy import sparse

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.linear.factorised import factorised
from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.maps.resample import resample
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.lattice import assembled

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]

# What fades is smooth, and is followed on a coarser lattice where there are more nodes on a side.
_MOST_NODES = 100
_LEAST_PULL = 1e-6


class Decay:
    """Sheets that follow one another with flow that moves nothing.

    Args:
        lattice: the nodes.
        elasticity: of the sheets, near rest.
        gaps: distances of the references of a section, which pull alike.
        pull: weight with which all references of each node pull together; above 0 somewhere.
    """

    def __init__(
        self, lattice: Lattice, elasticity: Elasticity, gaps: Sequence[int], pull: Grid
    ) -> None:
        self._lattice, self._gaps = lattice, tuple(gaps)
        self._coarse = _thinned(lattice)
        coarse = Elasticity(
            self._coarse.stride, spring=elasticity.spring, bending_px=elasticity.bending_px
        )
        self._pull = _sampled(pull, lattice, self._coarse)
        matrix = assembled(coarse.forms(), self._coarse.shape, lattice.ndim)
        # where nothing ever pulls, a trace of itself keeps the matrix regular
        own = np.tile(np.maximum(self._pull, _LEAST_PULL).ravel(), lattice.ndim)
        self._solve = factorised(matrix + sparse.diags_array(own))

    def follow(self, offsets: Field) -> Iterator[Field]:
        """The mesh itself, then what the next section makes of it, and so on for ever.

        Args:
            offsets: of the first section's nodes, px, all known.
        """
        start = resample(on_lattice(offsets, self._lattice), self._coarse, outside="nearest").u
        past = [start] * max(self._gaps)
        yield offsets.copy()
        while True:
            mean = np.mean([past[-gap] for gap in self._gaps], axis=0)
            right = np.maximum(self._pull, _LEAST_PULL) * mean
            here = self._solve(right.ravel()).reshape(start.shape)
            past = [*past[1:], here]
            lost = on_lattice(here - start, self._coarse)
            yield offsets + resample(lost, self._lattice, outside="nearest").u

    def part(self, offsets: Field, steps: slice) -> Iterator[Field]:
        """What `follow` gives from one step to another."""
        return islice(self.follow(offsets), steps.start, steps.stop)


def _thinned(lattice: Lattice) -> Lattice:
    """The lattice itself, or one with fewer nodes over the same area."""
    factor = max((max(lattice.shape) - 1) / (_MOST_NODES - 1), 1)
    shape = tuple(max(round((n - 1) / factor) + 1, min(n, 2)) for n in lattice.shape)
    stride = tuple(
        s * (n - 1) / max(m - 1, 1)
        for s, n, m in zip(lattice.stride, lattice.shape, shape, strict=True)
    )
    return Lattice(lattice.origin, stride, shape)


def _sampled(values: Grid, lattice: Lattice, coarse: Lattice) -> Float[np.ndarray, "*coarse"]:
    """The values at the nodes of another lattice over the same area."""
    for axis, (n, m) in enumerate(zip(lattice.shape, coarse.shape, strict=True)):
        nearest = np.rint(np.linspace(0, n - 1, m)).astype(int)
        values = values.take(nearest, axis)
    return values
