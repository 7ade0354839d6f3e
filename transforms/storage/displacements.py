"""Coordinate maps on disk: OME-NGFF 0.6 displacement fields.

A group with one array `0` of axes c, (z,) y, x: the displacement's components come first, in the
order of the axes, in physical units: what is added to the place of a node gives that to which
the map leads. A stack of 2-D maps is one 3-D field that moves nothing
along z, with a node on every section. Specification: https://ngff.openmicroscopy.org/0.6
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, on_lattice
from warpbeam.transforms.storage import fields, ngff, store
from warpbeam.transforms.storage.errors import InputError

VERSION = "0.6"
_PATH = "0"
# Nodes that one object holds; a section of 10 000 px at a stride of 40 fits in one.
_CHUNK = {2: (256, 256), 3: (32, 32, 32)}


@dataclass(frozen=True)
class DisplacementField:
    """A stored map, or one 2-D map per section.

    Attributes:
        uri: of the group.
        lattice: the nodes, in voxels; (z,) y, x.
        voxel: their size along the lattice's axes, in `unit`.
        unit: long name of OME-NGFF, or None.
        sections: how many maps; None for a single one.
        spacing: distance of sections, in `unit`.
        first: number of the first section: it lies at `first * spacing`.
        target: size of the voxels that the map leads to; None for the same.
    """

    uri: str
    lattice: Lattice
    voxel: tuple[float, ...]
    unit: str | None = None
    sections: int | None = None
    spacing: float = 1.0
    first: int = 0
    target: tuple[float, ...] | None = None

    @property
    def _axes(self) -> str:
        return "zyx" if self.sections is not None or self.lattice.ndim == 3 else "yx"

    @property
    def _depth(self) -> tuple[int, ...]:
        return () if self.sections is None else (self.sections,)

    def create(self) -> None:
        """Makes the group and its array; nothing where the same is there already."""
        ndim = self.lattice.ndim
        shape = (len(self._axes), *self._depth, *self.lattice.shape)
        chunk = (len(self._axes), *((1,) * len(self._depth)), *_CHUNK[ndim])
        fields.create(store.join(self.uri, _PATH), shape, chunk, ("c", *self._axes))
        node = {"zarr_format": 3, "node_type": "group", "attributes": self._attributes()}
        store.write_json(store.join(self.uri, "zarr.json"), node)

    def write(self, m: CoordinateMap, section: int | None = None) -> int:
        """Stores a map on this lattice.

        Returns:
            Bytes written, before compression.

        Raises:
            ValueError: the map is on another lattice.
        """
        if m.lattice != self.lattice or m.batch:
            raise ValueError(f"a map on {m.lattice} does not fit a field on {self.lattice}")
        size, target = self._sizes
        values = m.u * target
        if self._scales:
            values = values + m.lattice.nodes() * (target - size)
        if section is not None:
            values = np.concatenate([np.where(m.known, 0.0, np.nan)[None], values])[:, None]
        return self._array().write(self._box(Box.of_shape(self.lattice.shape), section), values)

    def read(self, section: int | None = None, nodes: Box | None = None) -> CoordinateMap:
        """A map, or its part on a box of nodes; offsets in voxels, float32."""
        inside = Box.of_shape(self.lattice.shape) if nodes is None else nodes
        values = self._array().read(self._box(inside, section))
        if section is not None:
            values = values[1:, 0]
        lattice, (size, target) = self.lattice.crop(inside), self._sizes
        if self._scales:
            values = values - lattice.nodes() * (target - size)
        return on_lattice((values / target.astype(values.dtype)).astype(np.float32), lattice)

    @property
    def _sizes(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Of both sides' voxels, to be multiplied with offsets."""
        shape = (-1, *[1] * self.lattice.ndim)
        return np.reshape(self.voxel, shape), np.reshape(self.target or self.voxel, shape)

    @property
    def _scales(self) -> bool:
        return self.target not in (None, self.voxel)

    def _array(self) -> fields.FieldArray:
        return fields.load(store.join(self.uri, _PATH))

    def _box(self, nodes: Box, section: int | None) -> Box:
        if (section is None) != (self.sections is None):
            raise ValueError(f"section {section} of a field with {self.sections} sections")
        lead = () if section is None else (section,)
        return Box((0, *lead, *nodes.start),
                   (len(self._axes), *(i + 1 for i in lead), *nodes.stop))  # fmt: skip

    def _attributes(self) -> dict[str, Any]:
        physical = {
            "name": "physical",
            "axes": [
                {"name": "c", "type": "displacement", "discrete": True},
                *(ngff.Axis(a, self.unit).json() for a in self._axes),
            ],
        }
        depth = (self.spacing,) * len(self._depth)
        step = [*depth, *(s * v for s, v in zip(self.lattice.stride, self.voxel, strict=True))]
        start = (o * v for o, v in zip(self.lattice.origin, self.voxel, strict=True))
        corner = [*(self.first * d for d in depth), *start]
        placing = {
            "type": "sequence",
            "input": {"path": _PATH},
            "output": {"name": "physical"},
            "transformations": [
                {"type": "scale", "scale": [1.0, *step]},
                {"type": "translation", "translation": [0.0, *corner]},
            ],
        }
        body = {
            "version": VERSION,
            "multiscales": [
                {
                    "name": PurePosixPath(self.uri).name.split(".")[0],
                    "coordinateSystems": [physical],
                    "datasets": [{"path": _PATH, "coordinateTransformations": [placing]}],
                }
            ],
        }
        ours = {
            "origin": list(self.lattice.origin),
            "stride": list(self.lattice.stride),
            "shape": list(self.lattice.shape),
            "voxel": list(self.voxel),
            "unit": self.unit,
            "sections": self.sections,
            "spacing": self.spacing,
            "first": self.first,
            "target": self.target and list(self.target),
        }
        return {"ome": body, "warpbeam": ours}


def load(uri: str) -> DisplacementField:
    """The field that `DisplacementField.create` made.

    Raises:
        InputError: there is none.
    """
    found = ngff.read_group(uri)
    ours = (found[1] if found else {}).get("warpbeam")
    if ours is None:
        raise InputError(
            "there is no coordinate map",
            where=uri,
            expected="a displacement field that warpbeam wrote",
            got="another group" if found else "nothing",
            fix="correct the path, or run the stage that makes it",
        )
    lattice = Lattice(_tuple(ours["origin"]), _tuple(ours["stride"]), _tuple(ours["shape"]))
    return DisplacementField(
        uri, lattice, _tuple(ours["voxel"]), ours["unit"], ours["sections"], ours["spacing"],
        ours.get("first", 0), ours.get("target") and _tuple(ours["target"]),
    )  # fmt: skip


def _tuple(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(values)
