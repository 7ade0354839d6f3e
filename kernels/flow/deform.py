"""One step of iterative image deformation: warp by a predictor, measure what is left.

The moving image is warped by the displacement that the node vectors span, then the shift that
is left at each node is the weighted least-squares fit of the difference to the gradients, with a
local gain and offset, under a smooth window the size of a patch. All nodes share one pass over
the pixels, overlapping patches or not; and as the window moves with the predictor, patches
bend with it, which takes away the averaging of a rigid patch (Scarano, "Iterative image
deformation methods in PIV", Meas. Sci. Technol. 2002, doi 10.1088/0957-0233/13/1/201).

Both images' gradients are averaged, so that noise pulls to neither side (Benhimane and Malis
2004, doi 10.1109/IROS.2004.1389474); their products with each other make the matrix, where
products with themselves would take noise for signal.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.geometry.lattice import Lattice

# Voxels of halo that gradients need.
HALO = 1
# (sum w)^2 / sum w^2 of the window along one axis over its width: the part that counts.
EFFECTIVE_WINDOW = 2 / 3
_MAX_STEP_PX = 1.5
# Patches reach two strides out of the lattice when they overlap by three quarters.
_STRAIGHT = 2
# A core sums what stays in its cache; an accelerator as much as there is.
_BAND_ROWS_CPU = {2: 32, 3: 16}
_BAND_VOXELS_ACCELERATOR = 1 << 24
# A direction with this little of the information of the best one is not observed.
_LEAST_EIGENVALUE = 0.02
# Images that agree entirely are no better than this share of their variance.
_LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class Step:
    """What is left at each node, voxels; NaN where too little is known.

    `ncc` is that under the window before the step, `coverage` the known fraction of the window.
    `information` is the inverse covariance of the shift (px^-2) if every voxel under the window
    had noise of its own: the normal matrix over the variance that is left. 0 where not known.
    """

    shift: Float[np.ndarray, "d *nodes"]
    ncc: Float[np.ndarray, "*nodes"]
    coverage: Float[np.ndarray, "*nodes"]
    information: Float[np.ndarray, "d d *nodes"]


def deformation_step(
    fixed: Float32[jax.Array, "*haloed"],
    moving: Float32[jax.Array, "*haloed2"],
    vectors: Float[np.ndarray, "d *nodes"],
    lattice: Lattice,
    *,
    window: tuple[float, ...],
    min_coverage: float,
    measured: Box | None = None,
) -> Step:
    """Measures the displacement that `vectors` leave at the nodes of `lattice`, or at those of a
    box of node indices.

    The images have mean 0 and deviation 1, NaN where not known, and `HALO` voxels of NaN all
    around. `vectors` must be finite. `window` is the full width of the weights, voxels.
    """
    shape = tuple(n - 2 * HALO for n in fixed.shape)
    at = lattice if measured is None else lattice.crop(measured)
    tables = _tables(lattice, at, shape, window)
    warped = _deformed(moving, np.asarray(vectors, np.float32), tables.spread)
    sums = _window_sums(
        _measured(fixed, warped),
        tables.windows,
        tables.first,
        rows=at.shape[0],
        band=tables.band,
        nodes=tables.nodes,
    )
    return _solve(np.asarray(sums, np.float64), tables.total, min_coverage)


def deformed(
    moving: Float32[jax.Array, "*haloed2"],
    vectors: Float[np.ndarray, "d *nodes"],
    lattice: Lattice,
    shape: tuple[int, ...],
) -> Float32[jax.Array, "*haloed"]:
    """`moving` (with its halo) at the voxels of an image of `shape`, and a halo around them, plus
    the displacement that the nodes span; NaN where that is not known."""
    axes = range(len(shape))
    spread = tuple(
        interpolation(lattice, a, np.arange(-HALO, shape[a] + HALO)).astype(np.float32)
        for a in axes
    )
    return _deformed(moving, np.asarray(vectors, np.float32), spread)


@dataclass(frozen=True)
class _Tables:
    """Matrices that interpolate between nodes and gather under windows, axis by axis.

    The first axis goes in bands: `windows[0]` is [bands, nodes of a band, rows], and the
    windows of band `b` begin with node `first[b]`.
    """

    spread: tuple[jax.Array, ...]
    windows: tuple[jax.Array, ...]
    first: jax.Array
    total: float
    band: int
    nodes: int


@lru_cache(maxsize=16)
def _tables(
    lattice: Lattice, at: Lattice, shape: tuple[int, ...], window: tuple[float, ...]
) -> _Tables:
    """From the nodes of `lattice`, under windows around those of `at`."""
    axes = range(len(shape))
    spread = [interpolation(lattice, a, np.arange(-HALO, shape[a] + HALO)) for a in axes]
    weights = [_window(at, a, shape[a], window[a]) for a in axes]
    band = _band(shape)
    bands = shape[0] // band
    count = min(at.shape[0], int((window[0] + band) / at.stride[0]) + 2)
    lowest = (np.arange(bands) * band - window[0] / 2 - at.origin[0]) / at.stride[0]
    first = np.clip(np.floor(lowest).astype(int), 0, at.shape[0] - count)
    local = np.stack(
        [weights[0][f : f + count, b * band : (b + 1) * band] for b, f in enumerate(first)]
    )
    total = float(np.prod([_taper(np.arange(-w, w + 1) / (w / 2)).sum() for w in window]))
    tables = (tuple(spread), (local, *weights[1:]))
    # Cast before they are sent: a cast on the device is a program of its own for every shape.
    cast = jax.tree.map(lambda table: table.astype(np.float32), tables)
    spreads, windows, begin = jax.device_put((*cast, first.astype(np.int32)))
    return _Tables(spreads, windows, begin, total, band, count)


def _band(shape: tuple[int, ...]) -> int:
    """How many rows of an image, a divisor of all, go at once."""
    if jax.default_backend() == "cpu":
        most = _BAND_ROWS_CPU[len(shape)]
    else:
        most = max(_BAND_VOXELS_ACCELERATOR // math.prod(shape[1:]), 1)
    return max(b for b in range(1, min(most, shape[0]) + 1) if shape[0] % b == 0)


def interpolation(
    lattice: Lattice, axis: int, at: Float[np.ndarray, " n"] | np.ndarray
) -> Float[np.ndarray, "n nodes"]:
    """Cubic convolution (Keys 1981, doi 10.1109/TASSP.1981.1163711) from nodes to coordinates;
    straight on for two strides outside the lattice and constant from there."""
    n = lattice.shape[axis]
    out = np.zeros((len(at), n))
    if n == 1:
        return out + 1
    q = np.clip((at - lattice.origin[axis]) / lattice.stride[axis], -_STRAIGHT, n - 1 + _STRAIGHT)
    i = np.clip(np.floor(q).astype(int), 0, n - 2)
    t = q - i
    outside = (t < 0) | (t > 1)
    cubic = np.stack(
        [
            ((2 - t) * t - 1) * t / 2,
            ((3 * t - 5) * t * t + 2) / 2,
            ((4 - 3 * t) * t + 1) * t / 2,
            (t - 1) * t * t / 2,
        ]
    )
    straight = np.stack([np.zeros_like(t), 1 - t, t, np.zeros_like(t)])
    rows = np.arange(len(at))
    for k, weight in enumerate(np.where(outside, straight, cubic)):
        node = i + k - 1
        inner = np.clip(node, 0, n - 1)
        # Beyond either end stands the straight continuation of the last two nodes.
        before = np.where(node < 0, 1, n - 2)
        out[rows, inner] += np.where(node == inner, weight, 2 * weight)
        out[rows, before] -= np.where(node == inner, 0, weight)
    return out


def _taper(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, np.cos(np.pi / 2 * np.clip(x, -1, 1)) ** 2, 0)


def _window(lattice: Lattice, axis: int, n: int, width: float) -> Float[np.ndarray, "nodes n"]:
    return _taper((np.arange(n) - lattice.along(axis)[:, None]) / (width / 2))


@jax.jit
def _deformed(moving: jax.Array, vectors: jax.Array, spread: tuple[jax.Array, ...]) -> jax.Array:
    """`moving` at each voxel plus the displacement that the nodes span.

    A program of its own: fused into the next, every product would sample the image again.
    """
    dense = vectors
    for axis, matrix in enumerate(spread, start=1):
        flat = jnp.moveaxis(dense, axis, -1)
        dense = jnp.moveaxis(jnp.matmul(flat, matrix.T, precision="highest"), -1, axis)
    return _warped(moving, dense)


@partial(jax.jit, static_argnames=("rows", "band", "nodes"))
def _window_sums(
    measured: tuple[jax.Array, ...],
    windows: tuple[jax.Array, ...],
    first: jax.Array,
    *,
    rows: int,
    band: int,
    nodes: int,
) -> jax.Array:
    """The sums of every product of `_products` under the window of every node."""
    rank = measured[0].ndim

    def add(b: jax.Array, sums: jax.Array) -> jax.Array:
        here = [jax.lax.dynamic_slice_in_dim(x, b * band, band) for x in measured]
        part = _gathered(_products(here), (windows[0][b], *windows[1:]))
        old = jax.lax.dynamic_slice_in_dim(sums, first[b], nodes, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(sums, old + part, first[b], axis=1)

    count = 6 + 3 * rank + rank * (rank + 1) // 2
    shape = (count, rows, *(w.shape[0] for w in windows[1:]))
    return jax.lax.fori_loop(0, len(first), add, jnp.zeros(shape, jnp.float32))


def _gathered(products: jax.Array, windows: tuple[jax.Array, ...]) -> jax.Array:
    """[rows, k, (y,) x] -> [k, nodes...], as plain matrix products: the first axis, then the
    others from the last one on."""
    rows, count, *rest = products.shape
    out = jnp.matmul(windows[0], products.reshape(rows, -1), precision="highest")
    out = out.reshape(-1, count, *rest)
    for axis in range(len(rest), 0, -1):
        flat = jnp.moveaxis(out, axis + 1, -1)
        summed = jnp.matmul(flat.reshape(-1, flat.shape[-1]), windows[axis].T, precision="highest")
        out = jnp.moveaxis(summed.reshape(*flat.shape[:-1], -1), -1, axis + 1)
    return jnp.moveaxis(out, 1, 0)


def _warped(moving: jax.Array, displacement: jax.Array) -> jax.Array:
    """`moving` at each voxel plus its displacement, linear; NaN outside or next to NaN."""
    rank = moving.ndim
    base = jnp.zeros(displacement.shape[1:], jnp.int32)
    outside = jnp.zeros(displacement.shape[1:], bool)
    parts = []
    for axis, n in enumerate(moving.shape):
        line = jnp.arange(displacement.shape[1 + axis], dtype=jnp.float32)
        at = line.reshape([-1 if a == axis else 1 for a in range(rank)]) + displacement[axis]
        low = jnp.floor(at)
        outside = outside | (low < 0) | (low > n - 2)
        parts.append(at - low)
        base = base * n + jnp.clip(low, 0, n - 2).astype(jnp.int32)
    flat = moving.ravel()
    strides = [int(np.prod(moving.shape[a + 1 :])) for a in range(rank)]
    total = jnp.zeros((), jnp.float32)
    for corner in itertools.product((0, 1), repeat=rank):
        weight = jnp.ones((), jnp.float32)
        for part, side in zip(parts, corner, strict=True):
            weight = weight * (part if side else 1 - part)
        step = sum(s * c for s, c in zip(strides, corner, strict=True))
        total = total + weight * flat.at[base + step].get(mode="promise_in_bounds")
    return jnp.where(outside, jnp.nan, total)


@jax.jit
def _measured(fixed: jax.Array, moving: jax.Array) -> tuple[jax.Array, ...]:
    """Where all is known (1 or 0), f, m, and the gradients of f and of m; 0 where not known."""
    f, grad_f = _gradients(fixed)
    m, grad_m = _gradients(moving)
    known = jnp.isfinite(sum((*grad_f, *grad_m), start=f + m))
    return known.astype(jnp.float32), *(jnp.where(known, x, 0) for x in (f, m, *grad_f, *grad_m))


def _products(measured: list[jax.Array]) -> jax.Array:
    """1, f, m, ff, mm, fm, g, g f, g m, and the gradients of f times those of m; along axis 1."""
    known, f, m, *rest = measured
    rank = known.ndim
    grad_f, grad_m = rest[:rank], rest[rank:]
    g = [(a + b) / 2 for a, b in zip(grad_f, grad_m, strict=True)]
    cross = [
        (grad_f[i] * grad_m[j] + grad_f[j] * grad_m[i]) / 2
        for i in range(rank)
        for j in range(i, rank)
    ]
    basic = [known, f, m, f * f, m * m, f * m]
    return jnp.stack([*basic, *g, *(x * f for x in g), *(x * m for x in g), *cross], axis=1)


def _gradients(image: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The image without its halo, and its central differences."""
    inner = (slice(1, -1),) * image.ndim
    grads = []
    for axis in range(image.ndim):
        ahead, behind = list(inner), list(inner)
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        grads.append((image[tuple(ahead)] - image[tuple(behind)]) / 2)
    return image[inner], grads


def _solve(sums: Float[np.ndarray, "k *nodes"], total: float, min_coverage: float) -> Step:
    """The least-squares fit of shift, gain and offset to the difference f - m."""
    nodes = sums.shape[1:]
    rank = len(nodes)
    flat = sums.reshape(len(sums), -1)
    w, f, m, ff, mm, fm = flat[:6]
    g, gf, gm = flat[6:].reshape(-1, flat.shape[1])[: 3 * rank].reshape(3, rank, -1)
    cross = iter(flat[6 + 3 * rank :])
    matrix = np.zeros((flat.shape[1], rank + 2, rank + 2))
    for i in range(rank):
        for j in range(i, rank):
            matrix[:, i, j] = matrix[:, j, i] = next(cross)
    gain = (gf + gm) / 2
    matrix[:, :rank, rank] = matrix[:, rank, :rank] = gain.T
    matrix[:, :rank, rank + 1] = matrix[:, rank + 1, :rank] = g.T
    matrix[:, rank, rank] = (ff + 2 * fm + mm) / 4
    matrix[:, rank, rank + 1] = matrix[:, rank + 1, rank] = (f + m) / 2
    matrix[:, rank + 1, rank + 1] = w
    right = np.concatenate([gf - gm, [(ff - mm) / 2, f - m]]).T
    count = np.maximum(w, 1e-6)
    variance = (ff - f * f / count) * (mm - m * m / count)
    known = (w >= min_coverage * total) & (variance > (1e-4 * count) ** 2)
    matrix[~known] = np.eye(rank + 2)
    shift, normal = _reduced(matrix, right, rank)
    shift[~known] = np.nan
    ncc = np.where(known, (fm - f * m / count) / np.sqrt(np.where(known, variance, 1)), np.nan)
    left = np.sqrt(np.where(known, variance, 1)) / count * np.maximum(1 - ncc**2, _LEAST_NOISE)
    information = np.where(known, normal.transpose(1, 2, 0) / left, 0)
    return Step(
        shift.T.reshape(rank, *nodes),
        ncc.reshape(nodes),
        (w / total).reshape(nodes),
        information.reshape(rank, rank, *nodes),
    )


def _reduced(
    matrix: Float[np.ndarray, "n k k"], right: Float[np.ndarray, "n k"], rank: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d d"]]:
    """The shift alone, gain and offset taken out, and its normal matrix; the shift is 0, and the
    matrix empty, along directions that are not observed."""
    a, b, c = matrix[:, :rank, :rank], matrix[:, :rank, rank:], matrix[:, rank:, rank:]
    c = c + 1e-6 * np.trace(c, axis1=1, axis2=2)[:, None, None] * np.eye(2)
    solved = np.linalg.solve(c, np.swapaxes(b, 1, 2))
    schur = a - b @ solved
    rest = right[:, :rank] - np.einsum("nij,nj->ni", np.swapaxes(solved, 1, 2), right[:, rank:])
    values, axes = np.linalg.eigh(schur)
    best = np.maximum(values[:, -1:], 0)
    seen = (values > _LEAST_EIGENVALUE * best) & (best > 0)
    along = np.einsum("nij,ni->nj", axes, rest) / np.where(seen, values, 1)
    shift = np.einsum("nij,nj->ni", axes, np.where(seen, along, 0))
    size = np.abs(shift).max(axis=1, keepdims=True)
    normal = np.einsum("nij,nj,nkj->nik", axes, np.where(seen, values, 0), axes)
    return shift * np.minimum(1, _MAX_STEP_PX / np.maximum(size, 1e-9)), normal
