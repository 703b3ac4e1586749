"""Compiles the kernels anew; see build.py, which Python would import twice if it were run by its own name."""

from jaxdarts.networks.kernels.build import main

main()
