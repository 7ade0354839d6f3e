"""The maps of aligned sections, as they are stored, and from the pixels of an image.

from warpbeam.kernels.maps.sofima import to_sofima
from warpbeam.transforms.align.section_maps import load_maps
forward, inverse = load_maps("aligned", 12)
coord_map, start = to_sofima(inverse)
"""

from __future__ import annotations

import numpy as np

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.maps.compose import compose, then_matrix
from warpbeam.kernels.maps.coordinate_map import CoordinateMap, from_affine
from warpbeam.transforms.align.frame import load_frame
from warpbeam.transforms.placement import load_placement
from warpbeam.transforms.storage import displacements, store
from warpbeam.transforms.storage.displacements import DisplacementField
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import digest
from warpbeam.transforms.storage.run_folder import RunFolder


def forward_uri(run: RunFolder) -> str:
    """The map of each section, from the world to the aligned frame."""
    return store.join(run.uri, "maps", "forward.zarr")


def inverse_uri(run: RunFolder) -> str:
    """The map that draws each section: from the aligned frame to the world."""
    return store.join(run.uri, "maps", "inverse.zarr")


def load_forward(run: RunFolder) -> DisplacementField:
    """The maps that the stage `settle` stored."""
    return displacements.load(forward_uri(run))


def load_inverse(run: RunFolder) -> DisplacementField:
    """The maps that the stage `invert` stored."""
    return displacements.load(inverse_uri(run))


def mark_of(m: CoordinateMap) -> str:
    """A fingerprint of what is stored of a map."""
    return digest(m.u.astype(np.float32).tobytes().hex())


def load_maps(run: str, section: int) -> tuple[CoordinateMap, CoordinateMap]:
    """Where the pixels of a section go, and which pixel is drawn at each place.

    Both are in pixels of the images that were aligned, with the run's distance of nodes; NaN
    where not known. Voxel v of the volume lies at `v + translation` of the aligned frame, as the
    metadata of the volume have it, in voxels.

    Args:
        run: folder of a finished run of `align`.
        section: its number.

    Raises:
        InputError: the run has no such section.
    """
    folder = RunFolder(run)
    placed = {p.source.key.section: p for p in load_placement(folder)}
    if section not in placed:
        raise InputError(
            "a section was not aligned",
            where=run,
            expected=f"a section from {min(placed)} to {max(placed)}",
            got=str(section),
            fix="choose one of `sections.parquet`",
        )
    z, source = load_frame(folder).z(section), placed[section].source
    to_world = affine.homogeneous(placed[section].matrix)
    forward, inverse = load_forward(folder).read(z), load_inverse(folder).read(z)
    pixels = Lattice.covering(Box.of_shape(source.shape), forward.stride)
    return (
        compose(from_affine(to_world, pixels), forward),
        then_matrix(inverse, np.linalg.inv(to_world)),
    )
