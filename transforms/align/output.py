"""The aligned volume, empty, and the maps that draw it.

section --matrix of its placement--> world --forward map--> aligned frame
voxel v of the volume lies at `v + origin` of the aligned frame
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.invert import invert
from warpbeam.transforms.align.frame import load_frame
from warpbeam.transforms.align.section_maps import (
    inverse_uri,
    load_forward,
    load_inverse,
    mark_of,
)
from warpbeam.transforms.canvas import (
    Canvas,
    OutputSettings,
    canvas_on,
    lay_out,
    load_canvas,
    volume_spec,
)
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.volume_spec import VolumeSpec

# Another one whenever the stored maps change their meaning: what an older version made is made
# again.
MAPS = 2


def one_canvas(settled: Ledger) -> Iterator[Unit]:
    """The single unit. Payload: the box that all sections cover, yx px of the aligned frame."""
    rows = [row for _, record in settled.records() for row in record["sections"]]
    low = np.floor(np.min([row["low"] for row in rows], axis=0) + 0.5).astype(int)
    high = np.ceil(np.max([row["high"] for row in rows], axis=0) + 0.5).astype(int)
    yield ("canvas",), [low.tolist(), high.tolist()]


class LayOutAligned:
    """Work of the stage `canvas`: the volume that holds every section, and its inverse maps."""

    def __init__(self, run: RunFolder, settings: OutputSettings) -> None:
        self._run, self._settings = run, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        frame, (low, high) = load_frame(self._run), payload
        whole = Box((frame.first, *low), (frame.first + frame.depth, *high))
        canvas = canvas_on(whole, self._settings, self._run.format)
        spec = volume_spec(canvas, self._settings, self._run)
        record = lay_out(self._run, canvas, [spec], ("render/", "pyramid_"))
        forward, uri = load_forward(self._run), inverse_uri(self._run)
        store.delete_prefix(uri + "/")
        replace(forward, uri=uri, lattice=drawn_nodes(self._run)).create()
        return record


def drawn_nodes(run: RunFolder) -> Lattice:
    """The nodes of the inverse maps: as those of the forward maps, around the volume."""
    canvas = load_canvas(run)
    plane = Box.of_shape(canvas.shape[3:], canvas.origin[1:])
    return Lattice.covering(plane, load_forward(run).lattice.stride)


class LayOutApplied:
    """Work of the stage `canvas` of other sections: see `applied_spec`."""

    def __init__(self, canvas: Canvas, spec: VolumeSpec, run: RunFolder) -> None:
        self._canvas, self._spec, self._run = canvas, spec, run

    def __call__(self, key: Key, payload: Any) -> Record:
        return lay_out(self._run, self._canvas, [self._spec], ("render/", "pyramid_"))


def applied_spec(
    run: RunFolder, maps: RunFolder, settings: OutputSettings, method: str, scale: float = 1
) -> tuple[Canvas, VolumeSpec]:
    """Frame and volume of other sections in the aligned frame of the run `maps`.

    Args:
        run: where the volume goes.
        maps: the run of `align`.
        settings: of the volume; its voxels are those of the sections.
        method: of the pyramid.
        scale: pixels of the sections along one of those that were aligned.
    """
    aligned = load_canvas(maps)
    first, *plane = aligned.origin
    depth, *sides = aligned.shape[2:]
    shape = (depth, *(math.ceil(n * scale) for n in sides))
    corner = (first, *(round(o * scale) for o in plane))
    canvas = canvas_on(Box.of_shape(shape, corner), settings, run.format)
    # Pixel i of a section lies at (i + 1/2) / scale - 1/2 of the one that was aligned. Precomputed
    # volumes are placed by their corners, in whole voxels.
    shift = 0.0 if run.format == "precomputed" else (1 - scale) / 2
    origin = (float(first), *(o * scale + shift for o in plane))
    spec = volume_spec(canvas, settings, run)
    return canvas, replace(spec, method=method, origin=origin)


def list_inversions(settled: Ledger, canvas: Ledger) -> Iterator[Unit]:
    """A unit per run of sections, as they were settled.

    Payload: a fingerprint of the volume's place, and number and map of each section.
    """
    marks = canvas.fingerprint()
    for key, record in settled.records():
        yield RunKey(*key), [marks, [[row["section"], row["map"]] for row in record["sections"]]]


class InvertSections:
    """Work of the stage `invert`."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def __call__(self, key: RunKey, payload: Any) -> Record:
        frame, forward = load_frame(self._run), load_forward(self._run)
        inverse = load_inverse(self._run)
        written, rows = 0, []
        for section, _ in payload[1]:
            m = forward.read(frame.z(section))
            back = invert(m.with_offsets(m.u.astype(np.float64)), inverse.lattice)
            written += inverse.write(back, frame.z(section))
            rows.append([section, mark_of(back)])
        return {"bytes_written": written, "sections": rows}
