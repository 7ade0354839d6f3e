"""Points that somebody placed in both volumes, as matches beside the measured ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.lattice import Lattice
from warpbeam.kernels.register.joint_field import Field, Information

Points = Float[np.ndarray, "n d"]


def with_landmarks(
    target: Field,
    information: Information,
    lattice: Lattice,
    points: Points,
    offsets: Points,
    error: float,
) -> tuple[Field, Information]:
    """The matches of a field with landmarks at the nodes nearest to them.

    A node takes its landmarks (their mean) in place of what was measured there; those beyond the
    lattice are left out.

    Args:
        target, information: see `kernels.register.joint_field`.
        lattice: the nodes.
        points: of the landmarks, in the coordinates of the lattice.
        offsets: that they want there, in the unit of `target`.
        error: standard error of a landmark along each axis, same unit.
    """
    nodes = np.rint((points - np.array(lattice.origin)) / np.array(lattice.stride)).astype(int)
    inside = ((nodes >= 0) & (nodes < np.array(lattice.shape))).all(axis=1)
    at, row = np.unique(nodes[inside], axis=0, return_inverse=True)
    count = np.bincount(row.ravel(), minlength=len(at))
    total = np.zeros((len(at), len(target)))
    np.add.at(total, row.ravel(), offsets[inside])
    target, information = target.copy(), information.copy()
    here = (slice(None), *at.T)
    target[here] = (total / count[:, None]).T
    identity = np.eye(len(target))[:, :, None]
    information[(slice(None), *here)] = identity * count / error**2
    return target, information
