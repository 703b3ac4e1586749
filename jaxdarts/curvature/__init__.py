"""Where is the curvature of an objective measured? Matrix-free on pytrees; every function takes a function."""

from jaxdarts.curvature.density import SpectralDensity, spectral_density
from jaxdarts.curvature.eigenvalues import (
    EigenResult,
    ExtremeEigenvalues,
    dominant_eigenvalue,
    dominant_eigenvalue_of_operator,
    extreme_eigenvalues,
    extreme_eigenvalues_of_operator,
    spectrum,
    top_eigenvalues,
    top_eigenvalues_of_operator,
)
from jaxdarts.curvature.hvp import batched_hvp, hessian, hvp, hvp_function
from jaxdarts.curvature.lanczos import LanczosResult, lanczos, ritz_pairs

__all__ = [
    "EigenResult",
    "ExtremeEigenvalues",
    "LanczosResult",
    "SpectralDensity",
    "batched_hvp",
    "dominant_eigenvalue",
    "dominant_eigenvalue_of_operator",
    "extreme_eigenvalues",
    "extreme_eigenvalues_of_operator",
    "hessian",
    "hvp",
    "hvp_function",
    "lanczos",
    "ritz_pairs",
    "spectral_density",
    "spectrum",
    "top_eigenvalues",
    "top_eigenvalues_of_operator",
]
