"""How grey values were made comparable: flat-field images and the gain of each tile."""

from __future__ import annotations

import numpy as np

from warpbeam.pipelines.report import charts, pictures
from warpbeam.pipelines.report.page import Group, Part, Picture
from warpbeam.pipelines.report.reading import Run, outline
from warpbeam.transforms.keys import MontageKey
from warpbeam.transforms.shading import load_image
from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import key_name
from warpbeam.transforms.storage.volume import stored_spec

Gains = dict[str, list[tuple[float, float]]]

_MOST_CHANNELS = 4
_MOST_MAPS = 4
_FLAT_PX = 400
# Vignettes seldom darken a corner to less than half of the centre.
_WIDEST = 3.0


def part(run: Run) -> Part | None:
    """Flat fields and gains; None where neither was estimated."""
    spec = stored_spec(run.folder.volume)
    if spec is None:
        return None
    names = spec.channel_names[:_MOST_CHANNELS]
    flats = [p for c, name in enumerate(names) if (p := _flat(run, c, name))]
    gains: Gains = store.read_json(run.folder.gains) or {}
    maps = []
    if gains and run.placed:
        shown = sorted(run.worst_first()[: max(1, _MOST_MAPS // len(names))])
        maps = [_gain_map(run, k, gains, c, name) for k in shown for c, name in enumerate(names)]
    if not flats and not maps:
        return None
    groups = [Group(flats, "Flat field")] if flats else []
    if maps:
        groups.append(Group(maps, "Gain of each tile", _gain_text(gains)))
    return Part("greys", "Grey values", _text(bool(flats)), groups)


def _text(flats: bool) -> str:
    if not flats:
        return ""
    return "Pixels are divided by the flat field, which is 1 on average."


def _flat(run: Run, channel: int, name: str) -> Picture | None:
    image = load_image(run.folder.flat(channel))
    if image is None:
        return None
    height, width = image.shape
    made, (axes,) = charts.figure(4.8, 3.8 * min(max(height / width, 0.3), 1.6) + 0.5)
    shown = axes.imshow(
        pictures.shrink(image, _FLAT_PX), cmap="cividis",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip
    bar = made.colorbar(shown, ax=axes, shrink=0.7)
    bar.ax.tick_params(labelsize=8)
    charts.label(axes, x="x, px", y="y, px", title=f"channel {name}")
    dark = store.read_json(run.folder.dark(channel))
    taken = f", after {dark:.4g} was subtracted" if dark else ""
    caption = f"Channel {name}: between {image.min():.3f} and {image.max():.3f}{taken}."
    if image.max() > _WIDEST * image.min():
        caption += (
            " That is more than the optics explain: few tiles of uneven content look like this; "
            "compare with shading.flatfield=off."
        )
    return Picture(charts.png(made), caption)


def _gain_text(gains: Gains) -> str:
    values = np.array([[gain for gain, _ in pairs] for pairs in gains.values()])
    return f"Between {values.min():.3f} and {values.max():.3f} over all tiles and channels."


def _gain_map(run: Run, key: MontageKey, gains: Gains, channel: int, name: str) -> Picture:
    from matplotlib.collections import PolyCollection

    tiles = [p for p in run.on_middle_plane(run.montages[key]) if key_name(p.source.key) in gains]
    values = np.array([gains[key_name(p.source.key)][channel][0] for p in tiles])
    corners = np.array([outline(p)[:, ::-1] for p in tiles])
    low, high = corners.reshape(-1, 2).min(axis=0), corners.reshape(-1, 2).max(axis=0)
    width, height = high - low
    made, (axes,) = charts.figure(4.8, 3.8 * min(max(height / width, 0.3), 1.6) + 0.5)
    spread = max(float(np.abs(np.log2(values)).max()), 0.01)
    shown = axes.add_collection(
        PolyCollection(
            list(corners), array=np.log2(values), cmap="PuOr", edgecolors=charts.INK, alpha=0.8
        )
    )
    shown.set_clim(-spread, spread)
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")
    bar = made.colorbar(shown, ax=axes, shrink=0.7)
    ticks = np.linspace(-spread, spread, 5).tolist()
    bar.set_ticks(ticks, labels=[f"{2**v:.3f}" for v in ticks], fontsize=8)
    charts.label(axes, x="x, px", y="y, px", title=f"channel {name}, {run.montage_name(key)}")
    return Picture(charts.png(made))
