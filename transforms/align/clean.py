"""Measured flow -> vectors that are trusted, one set per gap, and bridges over what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from warpbeam.kernels.flow.clean import CleanSettings, trusted
from warpbeam.kernels.flow.field import Flow
from warpbeam.kernels.flow.reconcile import ReconcileSettings, reconcile
from warpbeam.kernels.geometry.box import Box
from warpbeam.transforms.align.cut import find_cut, store_cut
from warpbeam.transforms.align.frame import (
    FLOW_CHANNELS,
    Frame,
    clean_uri,
    flow_uri,
    load_frame,
    nodes_on_section,
)
from warpbeam.transforms.align.measure import (
    Area,
    MeasureSettings,
)
from warpbeam.transforms.align.reading import (
    Readable,
    SectionReader,
    SectionSettings,
    earlier,
    placed_sections,
)
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.process import set_up_jax
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.ledger import Ledger, Record, digest
from warpbeam.transforms.storage.run_folder import RunFolder
from warpbeam.transforms.tiles import PlacedTile

Vectors = Float[np.ndarray, "c y x"]
Measured = Float[np.ndarray, "channel y x"]


def list_cleaning(run: RunFolder, readable: Readable, flows: Ledger) -> Iterator[Unit]:
    """A unit per section.

    Payload: a fingerprint of its flows, the section, and the sections that a bridge may reach.
    """
    frame = load_frame(run)
    done: dict[int, list[Any]] = {}
    for key, mark in flows.marks().items():
        done.setdefault(key[0], []).append([key, mark])
    there = placed_sections(run, readable)
    for section, fixed in there.items():
        reached = earlier(there, section, frame.settings.bridges)
        marks = digest(done.get(section, []))
        yield RunKey(section, section), [marks, fixed, reached]


@dataclass(frozen=True)
class CleanRules:
    """Tests of vectors, and of the flow that several scales make together.

    Attributes:
        vectors: of each scale.
        whole: of all scales together.
        bridged: share of a section's nodes that may go without a vector before it is compared
            over further sections.
        skipped: sections that serve nobody as a reference: a vector to them is none here.
    """

    vectors: CleanSettings
    whole: ReconcileSettings
    bridged: float
    skipped: tuple[int, ...] = ()


class CleanFlow:
    """Work of the stage `clean`: one section."""

    def __init__(
        self,
        run: RunFolder,
        sections: SectionSettings,
        measuring: MeasureSettings,
        rules: CleanRules,
    ) -> None:
        self._run, self._sections = run, sections
        self._measuring, self._rules = measuring, rules

    def setup(self) -> None:
        set_up_jax()
        self._reader = SectionReader(self._run, self._sections)

    def __call__(self, key: RunKey, payload: Any) -> Record:
        _, fixed, reached = payload
        frame = load_frame(self._run)
        z, shape = frame.z(key.first), frame.lattice.shape
        gaps = len(frame.settings.gaps)
        out = np.full((gaps + len(frame.settings.bridges), 2, *shape), np.nan)
        stored = fields.load(flow_uri(self._run))
        scales = range(len(frame.settings.scales))
        for gap in range(gaps):
            measured = [
                stored.read(frame.flow(scale, gap, z)).reshape(FLOW_CHANNELS, *shape)
                for scale in scales
            ]
            out[gap] = self._combined(frame, measured, frame.settings.gaps[gap])
        patch = self._measuring.patch * min(frame.settings.scales)
        on_section, inside = (_on_section(frame, fixed, margin) for margin in (0, patch // 2))
        reaches = (*frame.settings.gaps, *frame.settings.bridges)
        counts = np.array([key.first - reach not in self._rules.skipped for reach in reaches])
        for index, moving in reached:
            missing = on_section & ~np.isfinite(out[counts, 0]).any(axis=0)
            if (
                counts[gaps + index]
                and (missing & inside).sum() > self._rules.bridged * inside.sum()
            ):
                out[gaps + index] = self._bridge(frame, fixed, moving, missing)
        written = fields.load(clean_uri(self._run)).write(
            frame.nodes(z, (len(out), 2)), out[:, :, None]
        )
        cut = find_cut(self._reader, frame, fixed)
        written += store_cut(self._run, frame, key.first, cut)
        known = np.isfinite(out[:, 0])
        return {
            "bytes_written": written,
            "known": [float(part.mean()) for part in known],
            "cut": int(cut.sum()),
            "any": float(known.any(axis=0)[on_section].mean()) if on_section.any() else 0.0,
        }

    def _combined(self, frame: Frame, measured: list[Measured], gap: int) -> Vectors:
        """One flow over `gap` sections out of those of all scales."""
        vectors, gaps = [], [np.full(frame.lattice.shape, gap)] * len(measured)
        for one in measured:
            kept = trusted(_as_flow(frame, one), self._rules.vectors)
            vectors.append(np.where(kept, one[:2], np.nan).astype(np.float64))
        return reconcile(vectors, self._rules.whole, gaps=gaps)[0]

    def _bridge(
        self,
        frame: Frame,
        fixed: PlacedTile,
        moving: PlacedTile,
        missing: Bool[np.ndarray, "y x"],
    ) -> Vectors:
        """Flow over a larger gap where `missing`, block by block."""
        measured = [
            np.full((FLOW_CHANNELS, *frame.lattice.shape), np.nan, np.float32)
            for _ in frame.settings.scales
        ]
        for block in map(frame.blocks.box, frame.blocks.indices()):
            wanted = missing[block.slices]
            if not wanted.any():
                continue
            for one, scale in zip(measured, frame.settings.scales, strict=True):
                area = Area.around(frame, self._measuring, scale, block)
                a, b = (area.image(self._reader, placed) for placed in (fixed, moving))
                one[:, *block.slices] = area.measure(a, b, wanted)
        gap = fixed.source.key.section - moving.source.key.section
        return np.where(missing, self._combined(frame, measured, gap), np.nan)


def _on_section(frame: Frame, placed: PlacedTile, margin: int) -> Bool[np.ndarray, "y x"]:
    """The nodes that lie on a section, `margin` px inside its edge."""
    at = nodes_on_section(frame, placed, Box.of_shape(frame.lattice.shape))
    limit = np.reshape(placed.source.shape, (2, 1, 1)) - 1 - margin
    return np.asarray(((at >= margin) & (at <= limit)).all(axis=0))


def _as_flow(frame: Frame, measured: Measured) -> Flow:
    vectors, (ncc, ratio, sharpness) = measured[:2], measured[2:]
    return Flow(frame.lattice, vectors, ncc, ratio, sharpness)
