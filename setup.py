"""Package definition. The two import packages are ``rxrx_fast`` and ``rxrx_kernels`` (the folder ``kernels``)."""

from pathlib import Path

from setuptools import find_packages, setup

# DALI's CUDA 13 build also runs on machines without a GPU or a driver, so it is the default. Its CUDA 12
# build holds the same import package and cannot be installed beside it: see "Installing" in README.md.
TEST = ["pytest>=8.2,<10", "pytest-timeout>=2.3,<3", "hypothesis>=6.100,<7", "pytest-benchmark>=5,<6", "psutil>=5.9,<8"]
BENCH = ["opencv-python-headless>=4.10,<6", "pytest-benchmark>=5,<6", "psutil>=5.9,<8"]

setup(
    name="rxrx-fast",
    version="0.1.0",
    description="RxRx1 at the speed of the model: DALI decoding, one-pass Numba and CUDA kernels, a thin PyTorch iterator",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["rxrx_fast", "rxrx_fast.*"]), "rxrx_kernels"],
    package_dir={"rxrx_kernels": "kernels"},
    install_requires=[
        "numpy>=1.26,<3",
        "pandas>=2.1,<4",
        "numba>=0.60,<1",
        "torch>=2.4,<3",
        "nvidia-dali-cuda130>=2.0,<3; platform_system == 'Linux'",
        "pillow>=10,<14",
        "tifffile>=2024.1",
        "tqdm>=4.60,<5",
        "matplotlib>=3.8,<4",
        "scipy>=1.11,<2",
    ],
    extras_require={
        "cuda13": ["cupy-cuda13x>=13.6,<15", "numba-cuda[cu13]>=0.20,<1"],
        "cuda12": ["cupy-cuda12x>=13,<15", "numba-cuda[cu12]>=0.20,<1", "nvidia-dali-cuda120>=1.50,<3"],
        "test": TEST,
        "bench": BENCH,
    },
    entry_points={"console_scripts": ["rxrx-fast = rxrx_fast.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
