"""The meshes of sections, between stages: offsets of the nodes, and what pulled at them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.maps.fill import fill_missing
from warpbeam.kernels.mesh.chain import Section
from warpbeam.transforms.align.frame import Frame
from warpbeam.transforms.storage import fields

Field = Float[np.ndarray, "c y x"]


def write_mesh(target: fields.FieldArray, frame: Frame, number: int, section: Section) -> int:
    """Keeps a mesh; in cracks it is spanned between what lies around them."""
    pull = np.zeros(frame.lattice.shape) if section.pull is None else section.pull
    mesh = on_lattice(section.offsets, frame.lattice)
    offsets = fill_missing(mesh, outside="nearest", empty=0.0).u
    whole = np.concatenate([offsets, pull[None]])
    return target.write(frame.nodes(frame.z(number), (3,)), whole[:, None])


def read_mesh(meshes: fields.FieldArray, frame: Frame, section: int) -> Field:
    """The offsets of a section's nodes, px."""
    return meshes.read(frame.nodes(frame.z(section), (3,)))[:2, 0].astype(np.float64)
