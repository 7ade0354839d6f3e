"""The engines that register chunks densely, by their names in the settings.

Rates and memory were measured on one core of a 2.4 GHz server at the usual accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.kernels.register.chunk_engine import ChunkEngine
from warpbeam.kernels.register.greedy import Greedy
from warpbeam.kernels.register.syn import Ants
from warpbeam.pipelines.extras import Extra
from warpbeam.pipelines.register_config import RegisterConfig

_ANTS = Extra("ants", "ants", "antspyx")
_GREEDY = Extra("greedy", "picsl_greedy", "picsl-greedy")


@dataclass(frozen=True)
class DenseEngine:
    """A dense engine, and what it costs.

    Attributes:
        engine: with its settings.
        overlap: how far a chunk reaches into its neighbours, fixed voxels.
        extra: that holds it.
        bytes_per_voxel: memory, of a chunk with its surroundings.
        voxels_per_s: of one core.
    """

    engine: ChunkEngine
    overlap: int
    extra: Extra
    bytes_per_voxel: int
    voxels_per_s: float


def dense_engine(config: RegisterConfig) -> DenseEngine | None:
    """The engine of a job; None where matches are all there is."""
    if config.engine == "ants":
        given = config.ants
        ants = Ants(given.transform, given.accuracy, given.metric)
        return DenseEngine(ants, given.overlap_px, _ANTS, 380, 0.2e6)
    if config.engine == "greedy":
        asked = config.greedy
        greedy = Greedy(
            asked.accuracy, asked.metric, asked.ncc_radius_px,
            (asked.step_smoothing_px, asked.warp_smoothing_px),
        )  # fmt: skip
        return DenseEngine(greedy, asked.overlap_px, _GREEDY, 130, 0.2e6)
    return None
