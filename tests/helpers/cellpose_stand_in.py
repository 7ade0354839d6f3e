"""A module in place of cellpose: its signatures (version 4.2.1.1), bright pieces for a network."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

LEVEL = 700.0


class StandIn:
    """What was asked of the module.

    Attributes:
        loaded: arguments of each `CellposeModel` that was made.
        asked: keyword arguments of each `eval`, and the image's type.
    """

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def note(self, where: list[dict[str, Any]], **what: Any) -> None:
        with self._lock:
            where.append(what)


def labels_of(image: np.ndarray) -> np.ndarray:
    """Pieces brighter than `LEVEL`, numbered backwards and with gaps; the reverse of our order."""
    pieces, count = ndimage.label(image > LEVEL, np.ones((3, 3)))
    return np.where(pieces, 2 * (count - pieces) + 3, 0).astype(np.uint16)


def put_in_place(patch: pytest.MonkeyPatch, names: Sequence[str] = ("cpsam_v2",)) -> StandIn:
    """Lets `import cellpose` find the stand-in until the test ends."""
    seen = StandIn()

    class CellposeModel:
        def __init__(
            self, gpu=False, pretrained_model="cpsam_v2", model_type=None, diam_mean=None,
            device=None, nchan=None, use_bfloat16=True,
        ):  # fmt: skip
            seen.note(seen.loaded, gpu=gpu, pretrained_model=pretrained_model)

        def eval(
            self, x, batch_size=8, resample=True, channels=None, channel_axis=None, z_axis=None,
            normalize=True, rescale=None, diameter=None, flow_threshold=0.4,
            cellprob_threshold=0.0, do_3D=False, anisotropy=None, flow3D_smooth=0,
            stitch_threshold=0.0, min_size=15, max_size_fraction=0.4, niter=None, augment=False,
            tile_overlap=0.1, bsize=None, compute_masks=True, progress=None,
        ):  # fmt: skip
            seen.note(
                seen.asked, dtype=x.dtype, diameter=diameter, flow_threshold=flow_threshold,
                cellprob_threshold=cellprob_threshold, min_size=min_size,
            )  # fmt: skip
            labels = labels_of(x)
            if x.dtype == np.float32:  # as cellpose does
                x -= x.min()
                x /= max(float(x.max()), 1.0)
            return labels.squeeze(), [None, None, None], np.zeros(256)

    models = types.ModuleType("cellpose.models")
    models.CellposeModel = CellposeModel
    models.MODEL_NAMES = list(names)
    models.get_user_models = list
    package = types.ModuleType("cellpose")
    package.models = models
    package.__spec__ = importlib.machinery.ModuleSpec("cellpose", None)
    patch.setitem(sys.modules, "cellpose", package)
    patch.setitem(sys.modules, "cellpose.models", models)
    return seen
