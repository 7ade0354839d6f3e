"""Cells by a network: Cellpose (Stringer et al. 2021, doi:10.1038/s41592-020-01018-x; package
cellpose, version 4).

It reckons in bfloat16: another device, or another version of torch, may move the border of a cell
by a pixel, where a threshold gives the same bytes everywhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, Num


@dataclass(frozen=True)
class CellposeSettings:
    """What the network is, and what of its output is a cell.

    Attributes:
        model: a name that cellpose knows, or a file with weights.
        diameter_px: size of a cell, which is scaled to the network's own 30 px; 0: no scaling.
        flow_threshold: cells whose shape disagrees more with the flow are left out; 0 for none.
        cell_probability: logit above which a pixel belongs to a cell.
    """

    model: str
    diameter_px: float
    flow_threshold: float
    cell_probability: float


class Cellpose:
    """The network with its weights, on a GPU where torch sees one: images to labels.

    Loading takes seconds, and a gigabyte where a named model is not on this machine yet. Several
    threads may call it at once.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: there is no such model.
    """

    def __init__(self, settings: CellposeSettings) -> None:
        from cellpose import models

        check_model(settings.model)
        self._settings = settings
        # It looks for a GPU by itself, and takes the CPU where there is none.
        self._model = models.CellposeModel(gpu=True, pretrained_model=settings.model)

    def __call__(self, image: Num[np.ndarray, "y x"]) -> Integer[np.ndarray, "y x"]:
        """The cells of an image, in any order; 0 is background."""
        chosen = self._settings
        # A copy: cellpose normalises float32 in place. Small cells are left to our own filter.
        labels, _, _ = self._model.eval(
            image.astype(np.float32, copy=True),
            diameter=chosen.diameter_px or None,
            flow_threshold=chosen.flow_threshold,
            cellprob_threshold=chosen.cell_probability,
            min_size=-1,
        )
        return np.asarray(labels).reshape(image.shape)  # axes of one pixel come back squeezed


def check_model(model: str) -> None:
    """Refuses what is neither a known name nor a file: cellpose would take its default instead.

    Raises:
        ValueError: there is no such model.
    """
    from cellpose import models

    known = [*models.MODEL_NAMES, *models.get_user_models()]
    if model not in known and not os.path.isfile(model):
        raise ValueError(f"one of {', '.join(known)}, or a file with weights")
