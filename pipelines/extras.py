"""Packages that only some settings need, and that are installed by request."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from warpbeam.transforms.storage.errors import InputError


@dataclass(frozen=True)
class Extra:
    """A package that `pip install warpbeam[NAME]` brings.

    Attributes:
        name: of the extra, and of the choice that needs it.
        module: that must be there.
        package: that holds it.
    """

    name: str
    module: str
    package: str

    def require(self, setting: str, *, otherwise: str) -> None:
        """Refuses the choice of this in `setting` where the package is not installed.

        Args:
            setting: its dotted name.
            otherwise: a choice that needs no extra.

        Raises:
            InputError: it is not installed.
        """
        if importlib.util.find_spec(self.module) is None:
            kind = setting.rsplit(".", 1)[-1]
            raise InputError(
                f"the {kind} is not installed",
                where=setting,
                expected=f"the package {self.package} for {kind} {self.name}",
                got="no such package",
                fix=f"pip install warpbeam[{self.name}], or choose {kind} {otherwise}",
            )
