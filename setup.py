"""Package definition. The two import packages are ``rxrx_fast`` and ``rxrx_kernels`` (the folder ``kernels``)."""

from pathlib import Path

from setuptools import find_packages, setup

# DALI comes in two builds that hold the same import package and can't be installed side by side, and pip can't
# replace one by the other. So the base package names neither, and an extra picks one, as torch's users know it:
# [cpu], [cuda13] or [cuda12]. DALI's CUDA 13 build runs without a GPU or a driver, so [cpu] takes it too.
DALI_13 = "nvidia-dali-cuda130>=2.0,<3"
DALI_12 = "nvidia-dali-cuda120>=2.0,<3"
BENCH = ["opencv-python-headless>=4.10,<6", "pytest-benchmark>=5,<6", "psutil>=5.9,<8"]
# What the races run against besides torch and DALI; none of it is needed for anything else.
PEERS = ["spdl-core>=0.8,<1", "webdataset>=1.0,<2", "litdata>=0.2.76,<0.3", "monai>=1.6,<2", *BENCH]
# The releases that are raced need Python 3.11; on 3.10 these two are reported as not installed.
PEERS += ["torchvision>=0.19,<1"]
PEERS += [f"{name}; python_version >= '3.11'" for name in ("albumentationsx>=2.5,<3", "kornia>=0.8,<1")]
# What the comparison of corrections measures with; --backbone small and everything else of the recipes need no more.
TRAIN = ["scikit-learn>=1.4,<2"]
# torchvision must go with torch's version; where it is of another build, its classifiers work all the same.
BACKBONES = [*TRAIN, "torchvision>=0.19,<1", "timm>=1.0.9,<2"]
UMAP = [*TRAIN, "umap-learn>=0.5.7,<1"]
HARMONY = [*TRAIN, "harmonypy>=2.0,<3"]
# Every package that a test runs the loader, the recipes or the race with, and that nothing needs.
INTEGRATIONS = [*PEERS, *BACKBONES, *UMAP, *HARMONY]
INTEGRATIONS += ["torchdata>=0.11,<1", "lightning>=2.4,<3", "accelerate>=1.0,<2", "tensorboard>=2.16,<3"]
# Format, rules, import direction and types: make lint, make typecheck. pre-commit runs the same before a commit.
LINT = [
    "ruff>=0.9,<1",
    "mypy>=1.14,<3",
    "import-linter>=2.1,<3",
    "pandas-stubs>=2.2",
    "types-psutil>=6",
    "types-tqdm>=4.66",
    "pre-commit>=4,<5",
]
TEST = [
    "pytest>=8.2,<10",
    "pytest-timeout>=2.3,<3",
    "pytest-xdist>=3.6,<4",
    "pytest-cov>=7,<8",
    "hypothesis>=6.100,<7",
    *BENCH,
]

setup(
    name="rxrx-fast",
    version="0.1.0",
    description="RxRx1 at the speed of the model: DALI decoding, Numba and CUDA kernels, a thin PyTorch iterator",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["rxrx_fast", "rxrx_fast.*"]),
        "rxrx_kernels",
        *(f"rxrx_kernels.{room}" for room in find_packages("kernels")),
    ],
    package_dir={"rxrx_kernels": "kernels"},
    package_data={"rxrx_fast": ["py.typed"], "rxrx_kernels": ["py.typed"]},
    install_requires=[
        "numpy>=1.26,<3",
        "pandas>=2.1,<4",
        "numba>=0.60,<1",
        "deflate>=0.7,<1",
        "torch>=2.4,<3",
        "pillow>=10,<14",
        "tifffile>=2024.1,<2027",
        "tqdm>=4.60,<5",
        "matplotlib>=3.8,<4",
        "scipy>=1.11,<2",
    ],
    extras_require={
        "cpu": [DALI_13],
        "cuda13": [DALI_13, "numba-cuda[cu13]>=0.20,<1"],
        "cuda12": [DALI_12, "numba-cuda[cu12]>=0.20,<1"],
        # Compile the CUDA kernels to PTX and run them on the simulator, on a machine without a GPU.
        "ptx": ["numba-cuda[cu13]>=0.20,<1"],
        "test": [*TEST, *TRAIN],
        "lint": LINT,
        "bench": BENCH,
        "peers": PEERS,
        # A peer of the GPU benchmarks, and of the test that batches go to it without a copy; nothing else needs it.
        "cupy13": ["cupy-cuda13x>=13.6,<15"],
        "cupy12": ["cupy-cuda12x>=13.4,<15"],
        "train": TRAIN,
        "backbones": BACKBONES,
        # The picture of embeddings by UMAP instead of principal components.
        "umap": UMAP,
        # Apart from the rest because of its licence, the GPL.
        "harmony": HARMONY,
        "integrations": INTEGRATIONS,
    },
    entry_points={"console_scripts": ["rxrx-fast = rxrx_fast.cli:main"]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
