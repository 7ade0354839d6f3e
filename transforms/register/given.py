"""A start that the user gives: a matrix, an ITK transform, or landmarks."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.linear_fit import LinearModel, fit_linear
from warpbeam.transforms.storage import itk, store
from warpbeam.transforms.storage.errors import InputError

Points = Float[np.ndarray, "n 3"]
_COLUMNS = 8  # of BigWarp's file: name, active, moving x y z, fixed x y z


def read_start(
    uri: str, voxels: tuple[Sequence[float], Sequence[float]], model: LinearModel
) -> affine.Matrix:
    """The matrix from fixed to moving voxels in a file.

    Args:
        uri: `.json` with "matrix" in zyx voxels, ITK's `.mat`, `.txt` or `.tfm`, or landmarks as
            BigWarp saves them (`.csv`, physical units).
        voxels: zyx sizes of fixed and moving voxels.
        model: that is fitted to landmarks.

    Raises:
        InputError: the file is not there, or is none of these.
    """
    if uri.endswith(".csv"):
        fixed, moving = read_landmarks(uri, voxels)
        return fit_linear(fixed, moving, model).matrix
    if uri.endswith(".json"):
        return _read_json(uri)
    return itk.read_affine(uri, *voxels)


def _read_json(uri: str) -> affine.Matrix:
    try:
        found = store.read_json(uri)
        return affine.homogeneous(found["matrix"])
    except (TypeError, KeyError, ValueError, json.JSONDecodeError) as cause:
        raise _unfit(uri, '{"matrix": [[…]]}, 3 x 4 or 4 x 4', str(cause)) from None


def read_landmarks(
    uri: str, voxels: tuple[Sequence[float], Sequence[float]]
) -> tuple[Points, Points]:
    """Pairs of active landmarks, in fixed and in moving voxels, zyx.

    Raises:
        InputError: no such file, or another one.
    """
    raw = store.read_bytes(uri)
    if raw is None:
        raise _unfit(uri, "landmarks", "no such file")
    try:
        rows = [row for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"))) if row]
        if any(len(row) != _COLUMNS for row in rows):
            raise ValueError(f"rows of {sorted({len(row) for row in rows})} columns")
        active = [row[2:] for row in rows if row[1].strip().strip('"').lower() == "true"]
        values = np.array([[float(v) for v in row] for row in active]).reshape(-1, 2, 3)
    except (ValueError, UnicodeDecodeError) as cause:
        raise _unfit(uri, "name, active, moving x y z, fixed x y z", str(cause)) from None
    values = values[np.isfinite(values).all(axis=(1, 2))]
    if not len(values):
        raise _unfit(uri, "at least one active landmark", "none")
    moving, fixed = values[:, 0, ::-1], values[:, 1, ::-1]
    return fixed / np.asarray(voxels[0], float), moving / np.asarray(voxels[1], float)


def _unfit(uri: str, expected: str, got: str) -> InputError:
    return InputError(
        "a map or landmarks cannot be read",
        where=uri,
        expected=expected,
        got=got,
        fix="correct the file, or leave it out",
    )
