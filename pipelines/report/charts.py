"""How charts look: colours that colour-blind readers tell apart, and matplotlib without a state.

Colours: Okabe and Ito (2008), https://jfly.uni-koeln.de/color. Figures are made with the Agg
canvas itself, not pyplot, so that a worker or a notebook keeps its own settings.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, RED, GREEN = "#0072B2", "#E69F00", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#777777", "#cccccc"
_DPI = 144


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure (inches) with axes in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    axes = list(made.subplots(1, columns, squeeze=False)[0])
    for each in axes:
        _quiet(each)
    return made, axes


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8, color=GREY)


def label(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Words at the axes, in one size."""
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)
    if title:
        axes.set_title(title, fontsize=9.5, color=INK, loc="left")


def logarithmic(axes: Axes) -> None:
    """A logarithmic x axis with few, plain numbers: 0.01, 1, 20."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1.0,) if high / low > 200 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes) -> None:
    """In a row above the axes, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=4, fontsize=8, frameon=False,
        labelcolor=INK, columnspacing=1.2, handlelength=1.4, borderpad=0.2,
    )  # fmt: skip
    axes.set_title(axes.get_title(loc="left"), fontsize=9.5, color=INK, loc="left", pad=20)


def png(made: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
