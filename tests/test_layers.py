"""The arrow of imports: pipelines -> transforms -> transforms.storage -> kernels."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("kernels", "transforms.storage", "transforms", "pipelines")
FORBIDDEN = {
    "kernels": {"apache_beam", "tensorstore", "pydantic", "yaml", "argparse"},
    "transforms.storage": {"apache_beam", "pydantic", "argparse"},
    "transforms": {"pydantic", "argparse"},
    "pipelines": set(),
}
FILES = sorted(
    p for top in ("kernels", "transforms", "pipelines") for p in (ROOT / top).rglob("*.py")
)


def layer_of(module):
    """The rank of a module given below `warpbeam`, such as `transforms.storage.store`."""
    for rank, layer in enumerate(LAYERS):
        if module == layer or module.startswith(layer + "."):
            return rank
    raise AssertionError(f"{module} is in no layer")


def imports(path):
    """Every imported module, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield node.module
            if node.module.startswith("warpbeam."):
                # `from warpbeam.transforms import storage` imports a module of another layer.
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_there_is_something_to_check():
    assert len(FILES) > 50
    assert {layer_of(module_of(p)) for p in FILES} == {0, 1, 2, 3}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    here = layer_of(module_of(path))
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in FORBIDDEN[LAYERS[here]], f"{path} imports {name}"
        assert top not in ("kernels", "transforms", "pipelines", "tests"), f"{path}: {name}"
        if top == "warpbeam" and name != "warpbeam":
            below = layer_of(name.removeprefix("warpbeam."))
            assert below <= here, f"{path} imports {name}, which lies above it"
