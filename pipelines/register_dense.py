"""The engines that register chunks densely, by their names in the settings.

Rates and memory were measured on one core of a 2.4 GHz server at the usual accuracy.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from warpbeam.kernels.register.chunk_engine import ChunkEngine
from warpbeam.kernels.register.greedy import Greedy
from warpbeam.kernels.register.syn import Ants
from warpbeam.pipelines.register_config import RegisterConfig
from warpbeam.transforms.storage.errors import InputError


@dataclass(frozen=True)
class DenseEngine:
    """Attributes:
    engine: with its settings.
    overlap: how far a chunk reaches into its neighbours, fixed voxels.
    module: that must be there.
    package: that holds it.
    bytes_per_voxel: memory, of a chunk with its surroundings.
    voxels_per_s: of one core.
    """

    engine: ChunkEngine
    overlap: int
    module: str
    package: str
    bytes_per_voxel: int
    voxels_per_s: float


def dense_engine(config: RegisterConfig) -> DenseEngine | None:
    """The engine of a job; None where matches are all there is."""
    if config.engine == "ants":
        given = config.ants
        ants = Ants(given.transform, given.accuracy, given.metric)
        return DenseEngine(ants, given.overlap_px, "ants", "antspyx", 380, 0.2e6)
    if config.engine == "greedy":
        asked = config.greedy
        greedy = Greedy(
            asked.accuracy, asked.metric, asked.ncc_radius_px,
            (asked.step_smoothing_px, asked.warp_smoothing_px),
        )  # fmt: skip
        return DenseEngine(greedy, asked.overlap_px, "picsl_greedy", "picsl-greedy", 130, 0.2e6)
    return None


def check_installed(name: str, dense: DenseEngine) -> None:
    """Raises:
    InputError: the engine's package is not there.
    """
    if importlib.util.find_spec(dense.module) is None:
        raise InputError(
            "the engine is not installed",
            where="engine",
            expected=f"the package {dense.package} for engine {name}",
            got="no such package",
            fix=f"pip install warpbeam[{name}], or choose engine match",
        )
