"""FIRE: the mesh followed in time by damped molecular dynamics, as the field does it.

Bitzek et al. 2006 (doi 10.1103/PhysRevLett.97.170201), per node as in SOFIMA. It needs
tens of thousands of steps where Gauss-Newton needs four; it is here as the reference that the
fast solver is compared with, and runs on any JAX device. Forces come from the energy by
automatic differentiation, not from the formulas that `springs` uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.mesh.energy import Elasticity, MeshEnergy
from warpbeam.kernels.mesh.gauss_newton import Relaxed, checked
from warpbeam.kernels.mesh.lattice import Form, window
from warpbeam.kernels.mesh.springs import stretch_energy

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]
Nodes = Bool[np.ndarray, "*grid"]


@dataclass(frozen=True)
class FireSettings:
    """How time passes.

    Attributes:
        dt: first step, of the shortest period over 2 pi of the mesh at rest; below 2 is stable.
        dt_max: the largest step, in the same unit.
        alpha: share of the velocity that is turned towards the force.
        grow, shrink, ease: factors of `dt` upwards and downwards, and of `alpha`.
        patience: steps downhill before `dt` grows.
        chunk: steps between tests of the end.
        most_steps: in all.
        force_tolerance: the largest force at the end, in units of stiffness times px.
    """

    dt: float = 0.1
    dt_max: float = 1.5
    alpha: float = 0.1
    grow: float = 1.1
    shrink: float = 0.5
    ease: float = 0.99
    patience: int = 5
    chunk: int = 500
    most_steps: int = 100_000
    force_tolerance: float = 1e-6


def relax_fire(
    target: Field,
    elasticity: Elasticity,
    settings: FireSettings,
    *,
    weight: Grid | None = None,
    start: Field | None = None,
    active: Nodes | None = None,
) -> Relaxed:
    """The minimum of the same energy as `gauss_newton.relax`, with the same arguments.

    It ends by the largest force: velocities are zero by chance right after a step uphill.

    Raises:
        ValueError: as `gauss_newton.relax`.
    """
    import jax
    import jax.numpy as jnp

    target, weight = checked(target, weight, active)
    mesh = MeshEnergy(elasticity, target.shape[1:], active)
    held = mesh.held(weight)
    offsets = np.zeros_like(target) if start is None else np.nan_to_num(start.astype(np.float64))
    with jax.enable_x64(True):
        advance = _advance(elasticity, target.shape, settings)
        existing = held.astype(np.float64)
        x = jnp.asarray(offsets * existing)
        period = _shortest_period(elasticity.forms(), float(weight.max()))
        state = (x, jnp.zeros_like(x), settings.dt * period, settings.alpha, 0)
        count, largest = 0, np.inf
        while count < settings.most_steps and largest > settings.force_tolerance:
            state, force = advance(state, period * settings.dt_max, target, weight, existing)
            count, largest = count + settings.chunk, float(force)
        offsets = np.array(state[0])
    energy = mesh.value(offsets, target, weight)
    done = largest <= settings.force_tolerance
    return Relaxed(np.where(held, offsets, np.nan), energy, count, 0, done)


@lru_cache(maxsize=16)
def _advance(elasticity: Elasticity, shape: tuple[int, ...], settings: FireSettings) -> Any:
    """A compiled function that takes the state on by a chunk of steps."""
    import jax
    import jax.numpy as jnp

    mesh = MeshEnergy(elasticity, shape[1:])
    bending = [form for form in elasticity.forms() if form.order == 2]
    slope = jax.grad(lambda x, existing: _internal_energy(mesh, bending, x, existing))

    def forces(x: Any, target: Any, weight: Any, existing: Any) -> Any:
        return -existing * (slope(x, existing) + weight * (x - target))

    def step(state: Any, longest: Any, data: Any) -> Any:
        x, v, a, dt, alpha, downhill = state
        x = x + dt * v + 0.5 * dt**2 * a
        before, a = a, forces(x, *data)
        v = v + 0.5 * dt * (before + a)
        ahead = (a * v).sum() >= 0
        size = jnp.sqrt((v * v).sum(0)) / (jnp.sqrt((a * a).sum(0)) + 1e-30)
        v = jnp.where(ahead, v + alpha * (a * size - v), 0.0)
        downhill = jnp.where(ahead, downhill + 1, 0)
        faster = downhill > settings.patience
        quick = jnp.where(faster, jnp.minimum(dt * settings.grow, longest), dt)
        easy = jnp.where(faster, alpha * settings.ease, alpha)
        dt = jnp.where(ahead, quick, dt * settings.shrink)
        return x, v, a, dt, jnp.where(ahead, easy, settings.alpha), downhill

    @jax.jit
    def advance(state: Any, longest: Any, *data: Any) -> Any:
        x, v, dt, alpha, downhill = state
        whole = tuple(map(jnp.asarray, (x, v, forces(x, *data), dt, alpha, downhill)))
        x, v, a, dt, alpha, downhill = jax.lax.fori_loop(
            0, settings.chunk, lambda _, s: step(s, longest, data), whole
        )
        return (x, v, dt, alpha, downhill), jnp.abs(a).max()

    return advance


def _shortest_period(forms: tuple[Form, ...], weight: float) -> float:
    """Over 2 pi: `1 / sqrt` of Gershgorin's bound of the curvature at rest; masses are 1."""
    rows = [weight] * len(forms[0].entries[0][1])
    for form in forms:
        total = sum(abs(coefficient) for _, _, coefficient in form.entries)
        for component, _, coefficient in form.entries:
            rows[component] += form.stiffness * abs(coefficient) * total
    return float(max(rows) ** -0.5)


def _internal_energy(mesh: MeshEnergy, bending: list[Form], x: Any, existing: Any) -> Any:
    """Springs and bending, in JAX."""
    import jax.numpy as jnp

    total = jnp.zeros(())
    for link in mesh.springs.links:
        places = link.form().places(mesh.shape)
        high, low = window(link.high, places), window(link.low, places)
        vector = [c[high] - c[low] + link.length * n for c, n in zip(x, link.unit, strict=True)]
        energy = stretch_energy(vector, link, mesh.elasticity.ordered, jnp)
        total = total + (energy * existing[high] * existing[low]).sum()
    for form in bending:
        places = form.places(mesh.shape)
        there, value = jnp.ones(places), jnp.zeros(places)
        for component, offset, coefficient in form.entries:
            where = window(offset, places)
            value = value + coefficient * x[component][where]
            there = there * existing[where]
        total = total + 0.5 * form.stiffness * (there * value**2).sum()
    return total
