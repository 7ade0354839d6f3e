"""Lets the tests import `warpbeam.*` straight from the checkout, new files included."""

import sys
import types
from pathlib import Path

if "warpbeam" not in sys.modules:
    _package = types.ModuleType("warpbeam")
    _package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["warpbeam"] = _package
