"""Installs ./kernels, ./transforms and ./pipelines below one name, `warpbeam`.

The plain names are taken on the package index, so they are mapped below one name
of our own; there is no `warpbeam/` folder (a PEP 420 namespace parent).
"""

from setuptools import find_packages, setup

NAME = "warpbeam"
LAYERS = find_packages(include=["kernels*", "transforms*", "pipelines*"])

setup(
    name=NAME,
    version="0.1.0",
    description="Stitch, align, register, fuse and segment microscopy volumes on Apache Beam",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={NAME: "."},
    packages=[f"{NAME}.{layer}" for layer in LAYERS],
    package_data={"": ["py.typed", "*.j2", "templates/*", "demo_tiles/*"]},
    install_requires=[
        "apache-beam",
        "fsspec",
        "gcsfs",
        "imagecodecs",
        "imageio",
        "jax",
        "jaxlib",
        "jaxtyping",
        "jinja2",
        "matplotlib",
        "nibabel",
        "numpy",
        "opencv-contrib-python-headless",
        "pyarrow",
        "pg8000",
        "pydantic",
        "pyyaml",
        "rich",
        "scikit-image",
        "scipy",
        "sqlalchemy",
        "tensorstore",
        "threadpoolctl",
        "tifffile",
    ],
    extras_require={
        "ants": ["antspyx"],
        "cellpose": ["cellpose>=4.2"],
        "greedy": ["picsl-greedy"],
        "s3": ["s3fs"],
        "torch": ["torch"],
        "test": [
            "antspyx",
            "beartype",
            "build",
            "hypothesis",
            "mypy",
            "ngff-zarr[validate]",
            "ome-zarr-models",
            "picsl-greedy",
            "psutil",
            "pytest",
            "pytest-xdist",
            "ruff",
            "types-pyyaml",
            "zarr",
        ],
    },
    options={"editable_wheel": {"mode": "strict"}},
    entry_points={"console_scripts": [f"{NAME}={NAME}.pipelines.cli:entry"]},
)
