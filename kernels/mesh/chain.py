r"""Sections solved one after the other against those already solved.

    z      0 ---- 1 ---- 2 -x- 3 -x- 4 ---- 5        a bad section (3) asks nothing and is
                          \_________/                 asked nothing; flow 4 -> 2 bridges it

The first section of a block stays as it is given. A section that cannot be solved, or fits its
references too badly, serves nobody as a reference; in the end it is laid between its solved
neighbours. Order is the caller's: descending sections make a backward chain.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.maps.compose import compose
from warpbeam.kernels.maps.coordinate_map import CoordinateMap
from warpbeam.kernels.maps.irregular import mask_irregular
from warpbeam.kernels.mesh.energy import Elasticity
from warpbeam.kernels.mesh.folds import Limits, Shape, relax_unfolded

Field = Float[np.ndarray, "c *grid"]
Grid = Float[np.ndarray, "*grid"]
Nodes = Bool[np.ndarray, "*grid"]
AnyField = Float[np.ndarray, "..."]  # its shape is checked, with a message
Pair = tuple[int, int]

_BELIEVED = 0.5  # share of a reference's targets that must survive for it to be named


class Status(enum.StrEnum):
    """How a section came to its mesh."""

    START = "start"  # of a block: as given
    REGULAR = "regular"
    STIFFENED = "stiffened"  # regular after a retry, see `folds`
    FOLDED = "folded"  # irregular cells are left; serves as a reference outside them
    BRIDGED = "bridged"  # no usable flow: laid between its neighbours
    UNCONNECTED = "unconnected"  # no usable flow, but later sections hang on it: a new piece


@dataclass(frozen=True)
class Section:
    """A solved section.

    Attributes:
        offsets: of the nodes, px; NaN on nodes that do not exist or hang on no target.
        status: see `Status`.
        references: sections whose targets were believed.
        scale_px: standard deviation of the good targets about the mesh; NaN for none.
        known: share of the nodes with a target.
        pull: weight of all believed targets of each node; None for none.
    """

    offsets: Field
    status: Status
    references: tuple[int, ...] = ()
    scale_px: float = float("nan")
    known: float = 0.0
    pull: Grid | None = None


@dataclass(frozen=True)
class ChainSettings:
    """When a section counts as solved.

    Attributes:
        least_known: share of the nodes that need a target.
        most_scale_px: a section whose good targets scatter more is bad.
        limits: of regular cells, see `folds`.
    """

    least_known: float = 0.1
    most_scale_px: float = 4.0
    limits: Limits = field(default_factory=Limits)


def solve_chain(
    sections: Sequence[int],
    flows: Mapping[Pair, AnyField],
    elasticity: Elasticity,
    settings: ChainSettings,
    *,
    weights: Mapping[Pair, Grid] | None = None,
    active: Mapping[int, Nodes] | None = None,
    starts: Mapping[int, AnyField] | None = None,
    skipped: Collection[int] = (),
) -> dict[int, Section]:
    """Every section's mesh, from its own frame to the common one.

    Args:
        sections: in the order in which they are solved.
        flows: `(section, reference)` to the offset of each node to its place in the reference,
            px; NaN for not known. Any gaps and directions; what leads to a section that is
            not solved yet, is skipped, or lies in another block, is not used.
        elasticity: the material and the strides.
        settings: when a section counts as solved.
        weights: of the flow vectors of a pair, about 1.
        active: nodes of a section that exist.
        starts: the meshes of the one or several sections, in a row, that begin a block; the
            first section always does, at rest if it is not given.
        skipped: sections that serve nobody as a reference; they are solved last, against
            neighbours on both sides.

    Raises:
        ValueError: no sections, one twice, or shapes that differ.
    """
    chain = _Chain(sections, flows, elasticity, settings)
    chain.weights, chain.active = weights or {}, active or {}
    return chain.run(dict(starts or {}), frozenset(skipped))


class _Chain:
    def __init__(
        self,
        sections: Sequence[int],
        flows: Mapping[Pair, AnyField],
        elasticity: Elasticity,
        settings: ChainSettings,
    ) -> None:
        if not sections or len(set(sections)) != len(sections):
            raise ValueError(f"sections must be some, each once, got {list(sections)}")
        self.weights: Mapping[Pair, Grid] = {}
        self.active: Mapping[int, Nodes] = {}
        self._sections, self._flows = list(sections), flows
        self._elasticity, self._settings = elasticity, settings
        self._done: dict[int, Section] = {}
        self._block: dict[int, int] = {}
        self._asked: dict[int, list[int]] = {}
        for section, reference in flows:
            self._asked.setdefault(section, []).append(reference)

    def run(self, starts: dict[int, AnyField], skipped: frozenset[int]) -> dict[int, Section]:
        shape = self._shape(starts)
        starts.setdefault(self._sections[0], np.zeros(shape))
        block, begun = 0, False
        for section in self._sections:
            block += section in starts and not begun
            begun = section in starts
            self._block[section] = block
        for section in self._sections:
            if section in starts:
                self._done[section] = Section(starts[section], Status.START)
            elif section not in skipped:
                self._advance(section, skipped)
        solved = frozenset(self._done) - skipped
        for section in self._sections:
            if section not in self._done:
                found = self._solve(section, solved)
                self._done[section] = found or self._between(section, solved)
        return {section: self._done[section] for section in self._sections}

    def _shape(self, starts: Mapping[int, AnyField]) -> tuple[int, ...]:
        shapes = {value.shape for value in (*starts.values(), *self._flows.values())}
        if len(shapes) != 1:
            raise ValueError(f"flows and starts need one shape, got {sorted(shapes)}")
        return shapes.pop()

    def _advance(self, section: int, skipped: frozenset[int]) -> None:
        """Solves a section; where it hangs on unsolved ones only, those begin a new piece."""
        found = self._solve(section, frozenset(self._done) - skipped)
        if found is not None:
            self._done[section] = found
            return
        for reference in self._near(section):
            if reference in self._done or reference in skipped:
                continue
            held = Section(
                self._between(reference, frozenset(self._done)).offsets, Status.UNCONNECTED
            )
            self._done[reference] = held
            found = self._solve(section, frozenset({reference}))
            if found is not None:
                self._done[section] = found
                return
            del self._done[reference]

    def _near(self, section: int) -> list[int]:
        """References of a section in its block, nearest first."""
        block = self._block[section]
        inside = [r for r in self._asked.get(section, ()) if self._block.get(r) == block]
        return sorted(inside, key=lambda r: (abs(r - section), r))

    def _solve(self, section: int, allowed: frozenset[int]) -> Section | None:
        """The section's mesh, or None where its targets are too few or too bad."""
        names, targets, weights = [], [], []
        for reference in self._near(section):
            if reference not in allowed:
                continue
            pair = (section, reference)
            target = self._asked_by(pair)
            names.append(reference)
            targets.append(target)
            weights.append(self.weights.get(pair, np.ones(target.shape[1:])))
        if not names:
            return None
        active = self.active.get(section)
        every, weight = np.stack(targets), np.stack(weights)
        there = np.isfinite(every).all(axis=1) & (weight > 0)
        if active is not None:
            there &= active
        nodes = there[0].size if active is None else max(1, int(active.sum()))
        known = int(there.any(axis=0).sum()) / nodes
        if known == 0 or known < self._settings.least_known:
            return None
        mesh, shape = relax_unfolded(
            every,
            self._elasticity,
            self._settings.limits,
            weight=weight,
            start=self._done[names[0]].offsets,
            active=active,
        )
        if mesh.scale_px > self._settings.most_scale_px:
            return None
        kept = mesh.kept > 0
        believed = tuple(
            name
            for name, good, asked in zip(names, kept, there, strict=True)
            if asked.any() and good.sum() >= _BELIEVED * asked.sum()
        )
        status = {Shape.REGULAR: Status.REGULAR, Shape.STIFFENED: Status.STIFFENED}
        pull = (mesh.kept * np.where(there, weight, 0.0)).sum(axis=0)
        return Section(
            mesh.offsets, status.get(shape, Status.FOLDED), believed, mesh.scale_px, known, pull
        )

    def _asked_by(self, pair: Pair) -> Field:
        """Where a reference wants the nodes: through the flow to it, then through its mesh.

        What a folded reference says near its folds is left out.
        """
        stride, limits = self._elasticity.stride, self._settings.limits
        origin, reference = (0.0,) * len(stride), self._done[pair[1]]
        mesh = CoordinateMap(reference.offsets, origin, stride)
        if reference.status == Status.FOLDED:
            mesh = mask_irregular(mesh, limits.least, limits.most, dilate=limits.radius)
        return compose(CoordinateMap(self._flows[pair], origin, stride), mesh).u

    def _between(self, section: int, solved: frozenset[int]) -> Section:
        """A section on the straight line between its nearest solved neighbours in its block."""
        inside = [s for s in solved if self._block[s] == self._block[section]]
        before = max((s for s in inside if s < section), default=None)
        after = min((s for s in inside if s > section), default=None)
        if before is None or after is None:
            nearest = before if after is None else after
            if nearest is None:
                raise ValueError(f"section {section}: its block has no solved section")
            return Section(self._done[nearest].offsets.copy(), Status.BRIDGED, (nearest,))
        share = (section - before) / (after - before)
        low, high = self._done[before].offsets, self._done[after].offsets
        return Section((1 - share) * low + share * high, Status.BRIDGED, (before, after))
