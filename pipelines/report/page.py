"""The parts of the page, and the page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A PNG with its words.

    Attributes:
        png: the file.
        caption: what is seen, one or two sentences.
        width: on the page, px; None: as wide as its column.
        raw: of image voxels, which are enlarged without smoothing.
    """

    png: bytes
    caption: str = ""
    width: int | None = None
    raw: bool = False

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Table:
    """Rows of text below a head."""

    head: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Group:
    """Pictures that belong together, such as those of one seam."""

    pictures: Sequence[Picture]
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Part:
    """One section of the page."""

    name: str
    title: str
    text: str = ""
    groups: Sequence[Group] = ()
    tables: Sequence[Table] = ()


def render(**values: Any) -> str:
    """The page; `values` are the names used in `report.html.j2`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(**values)
