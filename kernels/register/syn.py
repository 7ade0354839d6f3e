"""Chunks by ANTs (Avants et al. 2008, doi 10.1016/j.media.2007.06.004)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Literal

import numpy as np

from warpbeam.kernels.register.chunk_engine import Accuracy, Displacement, Volume, filled

SynTransform = Literal["SyNOnly", "SyN", "Elastic", "BSplineSyN"]
SynMetric = Literal["mattes", "CC"]

# Iterations from the coarsest level to the finest. One at full size costs as much as eight at half.
_ITERATIONS: dict[Accuracy, tuple[int, ...]] = {
    "dry": (1, 0, 0),
    "low": (20, 10, 0),
    "medium": (40, 20, 0),
    "high": (100, 70, 20),
}
_SAMPLING = {"mattes": 32, "CC": 2}  # bins of the histogram; radius of the neighbourhood


@dataclass(frozen=True)
class Ants:
    """A `ChunkEngine`. What is not known in the fixed chunk is masked, in the moving one it has
    the mean.

    Attributes:
        transform: model of the deformation; "SyN" and "Elastic" fit an affine map first, which
            ANTs samples at random: two runs differ. "BSplineSyN" has ANTs' own iterations and
            metric: those of its quick script, or at accuracy "high" of the whole one.
        accuracy: how many iterations.
        metric: mutual information, or local correlation.
    """

    transform: SynTransform
    accuracy: Accuracy
    metric: SynMetric

    def displacement(self, fixed: Volume, moving: Volume, accuracy: Accuracy) -> Displacement:
        """See `ChunkEngine`."""
        import ants  # type: ignore[import-untyped]

        images = [ants.from_numpy(filled(volume)) for volume in (fixed, moving)]
        known = np.isfinite(fixed)
        mask = None if known.all() else ants.from_numpy(known.astype(np.float32))
        with tempfile.TemporaryDirectory() as folder:  # ANTs leaves its files behind
            found = ants.registration(
                *images,
                type_of_transform=self._name(accuracy),
                initial_transform="Identity",
                outprefix=f"{folder}/",
                mask=mask,
                reg_iterations=_ITERATIONS[accuracy],
                syn_metric=self.metric,
                syn_sampling=_SAMPLING[self.metric],
                singleprecision=True,
            )
            path = ants.apply_transforms(
                *images, found["fwdtransforms"], compose=f"{folder}/total_", singleprecision=True
            )
            field = ants.image_read(path).numpy()
        return np.ascontiguousarray(np.moveaxis(field, -1, 0), np.float32)

    def _name(self, accuracy: Accuracy) -> str:
        """What ANTs calls the transform."""
        if self.transform != "BSplineSyN":
            return self.transform
        return f"antsRegistrationSyN{'' if accuracy == 'high' else 'Quick'}[bo]"
