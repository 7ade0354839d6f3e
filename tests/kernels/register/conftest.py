"""Compiled programs are kept on disk, as they are for the workers."""

import pytest

from warpbeam.transforms.process import set_up_jax


@pytest.fixture(autouse=True, scope="session")
def _compiled_programs():
    set_up_jax()
