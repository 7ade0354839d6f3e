"""The network that finds objects in place of a threshold, as `segment` asks for it."""

from __future__ import annotations

import os

from warpbeam.kernels.segment.cellpose import CellposeSettings, check_model
from warpbeam.pipelines.extras import Extra
from warpbeam.pipelines.segment_config import SegmentConfig
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import source

_CELLPOSE = Extra("cellpose", "cellpose", "cellpose")


def network_settings(config: SegmentConfig) -> CellposeSettings | None:
    """What the kernels need of it; None where a threshold is asked for."""
    if config.threshold.method != "cellpose":
        return None
    chosen = config.cellpose
    return CellposeSettings(
        chosen.model, chosen.diameter_px, chosen.flow_threshold, chosen.cell_probability
    )


def check_network(settings: CellposeSettings) -> None:
    """Refuses a network that cannot be loaded.

    Raises:
        InputError: the package or the model is not there.
    """
    _CELLPOSE.require("threshold.method", otherwise="otsu")
    try:
        check_model(settings.model)
    except ValueError as error:
        raise InputError(
            "there is no such model",
            where="cellpose.model",
            expected=str(error),
            got=settings.model,
            fix="correct the name or the path",
        ) from None


def weights_mark(settings: CellposeSettings | None) -> str | None:
    """What changes when the weights in a file do; None for models that have names."""
    if settings is None or not os.path.isfile(settings.model):
        return None
    return " ".join(map(str, source.version(settings.model)))
