"""Chunks by greedy (Yushkevich et al. 2016; package picsl-greedy).

Diffeomorphic like ANTs' SyN, but in one direction, and some times faster.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

from warpbeam.kernels.register.chunk_engine import Accuracy, Displacement, Volume, filled

GreedyMetric = Literal["NCC", "NMI", "SSD"]

# Iterations on a quarter, half and the whole of the resolution.
_ITERATIONS: dict[Accuracy, str] = {
    "dry": "1x0x0",
    "low": "40x20x0",
    "medium": "100x50x0",
    "high": "100x70x20",
}
_SEED = 1  # NCC adds a little noise, without which flat regions would divide by zero


@dataclass(frozen=True)
class Greedy:
    """A `ChunkEngine`. What is not known in the fixed chunk is masked, in the moving one it has
    the mean.

    Attributes:
        accuracy: how many iterations.
        metric: local correlation, mutual information, or squared differences.
        radius: of the neighbourhood of "NCC", voxels.
        smoothing: Gaussian scales of each step and of the sum of all, voxels of a level.
    """

    accuracy: Accuracy
    metric: GreedyMetric
    radius: int
    smoothing: tuple[float, float]

    def displacement(self, fixed: Volume, moving: Volume, accuracy: Accuracy) -> Displacement:
        """See `ChunkEngine`."""
        from picsl_greedy import GreedyFloat3D
        from SimpleITK import GetArrayFromImage, GetImageFromArray

        images = {
            name: GetImageFromArray(filled(volume))
            for name, volume in (("fixed", fixed), ("moving", moving))
        }
        known = np.isfinite(fixed)
        if not known.all():
            images["known"] = GetImageFromArray(known.astype(np.float32))
        tool, said = GreedyFloat3D(), io.StringIO()
        tool.execute(self._command(accuracy, "known" in images), out=said, err=said,
                     **images, warp=None)  # fmt: skip
        xyz = GetArrayFromImage(tool["warp"])  # [z, y, x, component]
        return np.ascontiguousarray(np.moveaxis(xyz[..., ::-1], -1, 0), np.float32)

    def _command(self, accuracy: Accuracy, masked: bool) -> str:
        """In greedy's words; its stored warps are quantised unless `-wp` is 0."""
        metric = "NCC " + "x".join([str(self.radius)] * 3) if self.metric == "NCC" else self.metric
        step, total = self.smoothing
        mask = " -gm known" if masked else ""
        return (
            f"-i fixed moving{mask} -m {metric} -n {_ITERATIONS[accuracy]} "
            f"-s {step:g}vox {total:g}vox -wp 0 -seed {_SEED} -threads 1 -V 0 -o warp"
        )
