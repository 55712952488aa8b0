"""CUDA launchers and kernels, laid out as the CPU side is."""
