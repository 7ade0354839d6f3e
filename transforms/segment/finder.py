"""The objects of an image by threshold, or by a network that a process loads once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from apache_beam.utils.shared import Shared

from warpbeam.kernels.segment.cellpose import Cellpose, CellposeSettings
from warpbeam.kernels.segment.plate import ObjectSettings, find_objects
from warpbeam.kernels.segment.regions import Regions


class Finder:
    """Images to objects; travels to the workers as settings alone.

    The network is loaded for the first image, not when a worker starts: a run in which
    everything is done loads none, and what goes wrong with it is said of an image, and tried again.
    The threads of a process share it.
    """

    def __init__(self, objects: ObjectSettings, network: CellposeSettings | None) -> None:
        self._objects, self._network, self._shared = objects, network, Shared()

    def __call__(self, image: np.ndarray[Any, Any]) -> Regions:
        if self._network is None:
            return find_objects(image, self._objects)
        network = self._shared.acquire(functools.partial(Cellpose, self._network))
        return find_objects(image, self._objects, network)
