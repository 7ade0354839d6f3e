"""Affine maps and displacement fields as ITK and ANTs read and write them.

ITK counts in x, y, z and physical units, LPS; here a volume's first voxel centre lies at 0 and its
axes are ITK's. A transform takes points of the fixed volume to the moving one, as ours do. NIfTI
headers are RAS: x and y change sign there, and nowhere else.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Sequence

import numpy as np
from scipy import io as matlab

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.errors import InputError

_AFFINE = "AffineTransform_double_3_3"
_VECTOR = 1007  # NIfTI intent by which ITK knows displacements
_FLOAT32 = 16


def write_affine(
    uri: str, matrix: affine.Matrix, fixed: Sequence[float], moving: Sequence[float]
) -> None:
    """Stores a map between voxels as `.mat`.

    Args:
        matrix: fixed voxels to moving voxels, zyx.
        fixed, moving: zyx sizes of their voxels.
    """
    physical = _sizes(moving) @ matrix @ np.linalg.inv(_sizes(fixed))
    linear, shift = physical[2::-1, 2::-1], physical[2::-1, 3]
    buffer = io.BytesIO()
    values = np.concatenate([linear.ravel(), shift])[:, None]
    matlab.savemat(buffer, {_AFFINE: values, "fixed": np.zeros((3, 1))}, format="4")
    store.write_bytes(uri, buffer.getvalue())


def write_warp(uri: str, field: CoordinateMap, voxel: Sequence[float]) -> None:
    """Stores a displacement of fixed voxels as `.nii.gz`, on the nodes of its lattice.

    Args:
        field: offsets in fixed voxels.
        voxel: their zyx size.
    """
    size = np.asarray(voxel, float)
    values = (field.u * size.reshape(3, 1, 1, 1))[::-1]  # xyz components
    spacing = (np.array(field.stride) * size)[::-1]
    origin = (np.array(field.origin) * size)[::-1]
    header = _header(field.lattice.shape[::-1], spacing, origin)
    # x runs fastest, components slowest
    body = np.ascontiguousarray(values, "<f4").tobytes()
    store.write_bytes(uri, gzip.compress(header + body, 1, mtime=0))


def _header(shape: Sequence[int], spacing: np.ndarray, origin: np.ndarray) -> bytes:
    """NIfTI-1, 348 bytes and an empty extension."""
    flip = np.array([-1.0, -1.0, 1.0])
    rows = np.column_stack([np.diag(flip * spacing), flip * origin]).ravel()
    parts = [
        struct.pack("<i35xB", 348, 0),
        struct.pack("<8h", 5, *shape, 1, 3, 1, 1),
        struct.pack("<3f4h", 0, 0, 0, _VECTOR, _FLOAT32, 32, 0),
        struct.pack("<8f", 1, *spacing, 1, 1, 1, 1),
        struct.pack("<3fhBB", 352, 1, 0, 0, 0, 2),
        struct.pack("<4f2i", 0, 0, 0, 0, 0, 0),
        struct.pack("<80s24s", b"warpbeam", b""),
        struct.pack("<2h", 1, 1),
        # quaternion of a half turn about z: x and y run backwards
        struct.pack("<6f", 0, 0, 1, *(flip * origin)),
        struct.pack("<12f", *rows),
        struct.pack("<16s4s4x", b"", b"n+1"),
    ]
    return b"".join(parts)


def read_affine(uri: str, fixed: Sequence[float], moving: Sequence[float]) -> affine.Matrix:
    """The map from fixed to moving voxels in an ITK affine, `.mat` or text (`.txt`, `.tfm`).

    Raises:
        InputError: there is none.
    """
    raw = store.read_bytes(uri)
    try:
        if raw is None:
            raise ValueError("no such file")
        values, centre = _from_mat(raw) if uri.endswith(".mat") else _from_text(raw.decode())
        if values.size != 12:
            raise ValueError(f"{values.size} parameters")
    except (ValueError, KeyError, UnicodeDecodeError) as cause:
        raise InputError(
            "there is no affine transform",
            where=uri,
            expected="an ITK affine or Euler transform with 12 parameters",
            got=str(cause),
            fix="correct the path, or save the transform as an affine one",
        ) from None
    linear, shift = values[:9].reshape(3, 3), values[9:]
    physical = np.eye(4)
    physical[:3, :3] = linear[::-1, ::-1]
    physical[:3, 3] = (shift + centre - linear @ centre)[::-1]
    return np.linalg.inv(_sizes(moving)) @ physical @ _sizes(fixed)


def _from_mat(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    found = matlab.loadmat(io.BytesIO(raw))
    name = next((k for k in found if (k.endswith("_3_3") and "Affine" in k) or "Matrix" in k), None)
    if name is None:
        raise ValueError(f"holds {', '.join(k for k in found if not k.startswith('__'))}")
    return found[name].ravel().astype(float), found["fixed"].ravel()[:3].astype(float)


def _from_text(text: str) -> tuple[np.ndarray, np.ndarray]:
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return (
        np.array(rows["Parameters"].split(), float),
        np.array(rows["FixedParameters"].split(), float)[:3],
    )


def _sizes(voxel: Sequence[float]) -> affine.Matrix:
    return np.diag([*voxel, 1.0])
