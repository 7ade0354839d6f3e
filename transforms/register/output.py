"""The last field -> the maps of the run, and the volume, empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.compose import compose, then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.register.measure import widened
from warpbeam.kernels.register.nodes import for_straight_lines
from warpbeam.transforms.canvas import OutputSettings, canvas_on, lay_out, volume_spec
from warpbeam.transforms.register.chunks import load_field
from warpbeam.transforms.register.coarse import load_coarse
from warpbeam.transforms.register.frame import (
    FIXED,
    MOVING,
    Frame,
    forward_uri,
    inverse_uri,
)
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import itk, store
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.ome_tiff import write_ome_tiff
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.storage.volume_spec import VolumeSpec
from warpbeam.transforms.tiles import as_rows

_BEYOND = 2  # nodes around the fixed volume from which the inverse still knows the moving one


@dataclass(frozen=True)
class MapSettings:
    """How maps are stored.

    Attributes:
        voxels: sizes of the fixed and of the moving volume in `unit`, which maps are stored in.
        unit: long name of OME-NGFF, or None.
        itk: whether the maps are stored for ITK and ANTs too.
    """

    voxels: tuple[tuple[float, ...], tuple[float, ...]]
    unit: str | None
    itk: bool


def one_map(solved: Ledger) -> Iterator[Unit]:
    """The single unit; changes whenever the field was solved anew."""
    yield ("maps",), solved.fingerprint()


class StoreMaps:
    """Work of the stage `maps`: forward and inverse map, and `transforms.json`."""

    def __init__(self, run: RunFolder, frame: Frame, settings: MapSettings) -> None:
        self._run, self._frame, self._settings = run, frame, settings

    def __call__(self, key: Key, payload: Any) -> Record:
        frame, given = self._frame, self._settings
        matrix = load_coarse(self._run).matrix
        solved = load_field(self._run, frame, frame.last)
        field = solved.with_offsets(for_straight_lines(solved.u))
        forward = then_matrix(field, matrix)
        store.write_json(
            self._run.transforms,
            {
                "fixed": {"matrix": as_rows(np.eye(4)[:3])},
                "moving": {"matrix": as_rows(np.linalg.inv(matrix)[:3])},
            },
        )
        written = self._stored(forward_uri(self._run), forward, FIXED)
        if given.itk:
            itk.write_affine(self._itk("affine.mat"), matrix, *given.voxels)
            itk.write_warp(self._itk("warp.nii.gz"), field, given.voxels[FIXED])
        inverse = inverse_of(forward, frame, matrix, field)
        written += self._stored(inverse_uri(self._run), inverse, MOVING)
        return {
            "bytes_written": written,
            "bytes_per_voxel": forward.u.size * 4 / float(np.prod(frame.shapes[FIXED])),
            "inverse_error_px": inverse_error(forward, inverse),
        }

    def _itk(self, name: str) -> str:
        return store.join(self._run.uri, "transforms", name)

    def _stored(self, uri: str, m: CoordinateMap, start: int) -> int:
        """A map from the voxels of one volume to those of the other."""
        store.delete_prefix(uri + "/")
        voxels, unit = self._settings.voxels, self._settings.unit
        field = DisplacementField(
            uri, m.lattice, voxels[start], unit, target=voxels[MOVING if start == FIXED else FIXED]
        )
        field.create()
        return field.write(m)


def inverse_of(
    forward: CoordinateMap, frame: Frame, matrix: affine.Matrix, field: CoordinateMap
) -> CoordinateMap:
    """The map from moving voxels to fixed ones, on nodes over the moving volume.

    Known where the fixed volume, and a few nodes around it, lead.
    """
    nodes = Box.of_shape(frame.lattice.shape).pad((_BEYOND,) * 3)
    wide = then_matrix(widened(field, nodes), matrix)
    ratio = np.divide(frame.voxels[FIXED], frame.voxels[MOVING])
    stride = [max(round(s * r), 2) for s, r in zip(forward.stride, ratio, strict=True)]
    lattice = Lattice.covering(Box.of_shape(frame.shapes[MOVING]), stride)
    return invert(wide, lattice)


def inverse_error(forward: CoordinateMap, inverse: CoordinateMap) -> float | None:
    """95th percentile of how far points come back beside where they started, fixed voxels, with
    both maps as they are stored."""
    back = compose(forward, inverse).u
    apart = np.linalg.norm(back[:, np.isfinite(back[0])], axis=0)
    return float(np.quantile(apart, 0.95)) if apart.size else None


def one_canvas(mapped: Ledger) -> Iterator[Unit]:
    """The single unit; changes with the maps."""
    yield ("canvas",), mapped.fingerprint()


def registered_spec(
    shape: tuple[int, ...], settings: OutputSettings, run: RunFolder, method: str
) -> VolumeSpec:
    """The volume in the frame of a fixed one of `shape`; `method` is that of its pyramid."""
    canvas = canvas_on(Box.of_shape(shape), settings, run.format)
    return replace(volume_spec(canvas, settings, run), method=method)


class LayOutRegistered:
    """Work of the stage `canvas`: the empty volume in the frame of the fixed one."""

    def __init__(
        self, run: RunFolder, shape: tuple[int, ...], settings: OutputSettings, method: str
    ) -> None:
        self._run, self._shape, self._settings, self._method = run, shape, settings, method

    def __call__(self, key: Key, payload: Any) -> Record:
        canvas = canvas_on(Box.of_shape(self._shape), self._settings, self._run.format)
        spec = registered_spec(self._shape, self._settings, self._run, self._method)
        return lay_out(self._run, canvas, [spec], ("render/", "pyramid_"))


def one_tiff(drawn: Ledger) -> Iterator[Unit]:
    """The single unit; changes whenever a shard was drawn anew."""
    yield ("tiff",), drawn.fingerprint()


class StoreTiff:
    """Work of the stage `tiff`: the finished volume once more, as one file."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def __call__(self, key: Key, payload: Any) -> Record:
        return {"bytes_written": write_ome_tiff(self._run.volume, self._run.tiff)}
