"""How one whole volume lies on another one however it is turned: from the places of blobs alone.

A blob and three of its nearest neighbours are a tetrahedron, and its six edges and its handedness
are what they are in any position (Preibisch et al. 2010, doi 10.1038/nmeth0610-418):

      o
     / \\ `.        edges alike in both volumes  ->  one rigid motion
    o---*---o       the motion under which most blobs meet blobs  ->  the match

Every blob takes part in many tetrahedra, so that a few that only one volume shows do no harm; and
as a tetrahedron says the whole motion, nothing is drawn at random. Volumes need not resemble one
another where they lie, and may overlap in part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import KDTree

from warpbeam.kernels.geometry import affine
from warpbeam.kernels.register.blobs import blobs
from warpbeam.kernels.register.linear_fit import fit_linear

Volume = Float32[np.ndarray, "_ _ _"]
Points = Float[np.ndarray, "n 3"]
Motions = Float[np.ndarray, "m 4 4"]

_MOST_BLOBS = 300
_NEIGHBOURS = 6
_LEAST_HEIGHT = 0.05  # of a tetrahedron's volume beside its longest edge cubed: no flat ones
_LIKE = 2  # tetrahedra of the other volume that each is compared with
_MOST_MOTIONS = 3000
_REFINED = 10
_NEAR = 1.5  # voxels: so close blobs meet
_NARROWING = (3.0, 2.0, 1.5, 1.0)  # times that, round by round


class _Cloud(NamedTuple):
    """Blobs in one unit, and whether they are bright."""

    points: Points
    bright: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class _Tetrahedra:
    """Blobs with three neighbours each, by which the same ones are found again.

    Attributes:
        corners: indices of blobs: one, and three neighbours from near to far.
        edges: their lengths.
        kind: handedness, and which corners are bright.
    """

    corners: Int[np.ndarray, "t 4"]
    edges: Float[np.ndarray, "t 6"]
    kind: Int[np.ndarray, " t"]


def match_constellations(
    fixed: Volume, moving: Volume, start: affine.Matrix, size: tuple[float, ...]
) -> affine.Matrix:
    """`start` behind the rigid motion of the fixed volume under which most blobs meet.

    Args:
        fixed, moving: small copies; NaN = no data; shapes may differ.
        start: fixed to moving voxels, as voxel sizes say.
        size: edges of a fixed voxel, zyx, in any unit.

    Returns:
        Fixed to moving voxels; `start` where there are too few blobs to tell.
    """
    edges = np.array(size) / min(size)
    found = [blobs(volume, _MOST_BLOBS) for volume in (fixed, moving)]
    here = _Cloud(found[0].points * edges, found[0].bright)
    there = _Cloud(affine.apply(np.linalg.inv(start), found[1].points) * edges, found[1].bright)
    if min(len(here.points), len(there.points)) <= _NEIGHBOURS:
        return start
    motions = _motions(here, there)
    if not len(motions):
        return start
    best = np.argsort(-_meeting(motions, here, there), kind="stable")[:_REFINED]
    refined = np.stack([_refined(motion, here, there) for motion in motions[best]])
    motion = refined[np.argmax(_meeting(refined, here, there))]
    unit = np.diag([*edges, 1.0])
    return start @ np.linalg.inv(unit) @ motion @ unit


def _motions(here: _Cloud, there: _Cloud) -> Motions:
    """Of the tetrahedra that are most alike."""
    first, second = _tetrahedra(here), _tetrahedra(there)
    pairs, apart = [], []
    for kind in np.unique(first.kind):
        a, b = (np.flatnonzero(t.kind == kind) for t in (first, second))
        if len(b) < _LIKE:
            continue
        distance, index = KDTree(second.edges[b]).query(first.edges[a], k=_LIKE)
        pairs.append(np.stack([np.repeat(a, _LIKE), b[index.ravel()]], axis=1))
        apart.append(distance.ravel())
    if not pairs:
        return np.empty((0, 4, 4))
    most_alike = np.argsort(np.concatenate(apart), kind="stable")[:_MOST_MOTIONS]
    a, b = np.concatenate(pairs)[most_alike].T
    return _rigid(here.points[first.corners[a]], there.points[second.corners[b]])


def _tetrahedra(cloud: _Cloud) -> _Tetrahedra:
    points = cloud.points
    _, near = KDTree(points).query(points, k=_NEIGHBOURS + 1)
    choices = np.array(list(itertools.combinations(range(1, _NEIGHBOURS + 1), 3)))
    first = np.repeat(near[:, :1], len(choices), axis=0)
    corners = np.concatenate([first, near[:, choices].reshape(-1, 3)], axis=1)
    at = points[corners]
    pairs = itertools.combinations(range(4), 2)
    edges = np.stack([np.linalg.norm(at[:, i] - at[:, j], axis=1) for i, j in pairs], axis=1)
    volume = np.linalg.det(at[:, 1:] - at[:, :1])
    kind = (np.column_stack([volume > 0, cloud.bright[corners]]) * 2 ** np.arange(5)).sum(axis=1)
    tall = np.abs(volume) > _LEAST_HEIGHT * edges.max(axis=1) ** 3
    return _Tetrahedra(corners[tall], edges[tall], kind[tall])


def _rigid(points: Float[np.ndarray, "m k 3"], targets: Float[np.ndarray, "m k 3"]) -> Motions:
    """The motion of each group of points onto its targets (Kabsch 1976, doi
    10.1107/S0567739476001873)."""
    here, there = (p.mean(axis=1, keepdims=True) for p in (points, targets))
    u, _, vt = np.linalg.svd((targets - there).swapaxes(1, 2) @ (points - here))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]
    motions = np.tile(np.eye(4), (len(points), 1, 1))
    motions[:, :3, :3] = u @ vt
    motions[:, :3, 3] = (there.swapaxes(1, 2) - u @ vt @ here.swapaxes(1, 2))[..., 0]
    return motions


def _meeting(motions: Motions, here: _Cloud, there: _Cloud) -> Int[np.ndarray, " m"]:
    """How many blobs meet one of their kind."""
    count = np.zeros(len(motions), int)
    for bright in (True, False):
        points, others = here.points[here.bright == bright], there.points[there.bright == bright]
        if len(points) and len(others):
            moved = points @ motions[:, :3, :3].swapaxes(1, 2) + motions[:, None, :3, 3]
            distance, _ = KDTree(others).query(moved, distance_upper_bound=_NEAR)
            count += np.isfinite(distance).sum(axis=1)
    return count


def _refined(motion: affine.Matrix, here: _Cloud, there: _Cloud) -> affine.Matrix:
    """The motion of the blobs that meet, again and again, the closer the later."""
    for share in _NARROWING:
        pairs = []
        for bright in (True, False):
            mine, others = (c.points[c.bright == bright] for c in (here, there))
            if len(mine) and len(others):
                distance, index = KDTree(others).query(affine.apply(motion, mine))
                close = distance < share * _NEAR
                pairs.append((mine[close], others[index[close]]))
        points, targets = (np.concatenate(part) for part in zip(*pairs, strict=True))
        if len(points) < 4:
            break
        motion = fit_linear(points, targets, "rigid").matrix
    return motion
