"""What does the library offer to research code? Everything here is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name is defined. Importing jaxdarts imports no JAX: `--help` and a mistyped flag need not wait.
_MODULES = {
    "BETA_DECAY_PENALTIES": "bilevel",
    "Batch": "methods",
    "Bilevel": "bilevel",
    "DATASETS": "data",
    "Dataset": "data",
    "DiscreteNetwork": "networks",
    "Genotype": "spaces",
    "HYPERGRADIENTS": "bilevel",
    "HypergradientInfo": "bilevel",
    "InnerStep": "bilevel",
    "InputError": "errors",
    "METHODS": "methods",
    "OPERATIONS": "networks",
    "PRESETS": "runs.config",
    "RunError": "errors",
    "RunInterrupted": "errors",
    "SPACES": "spaces",
    "SearchConfig": "runs.config",
    "SearchInfo": "methods",
    "SearchMethod": "methods",
    "SearchProblem": "methods",
    "SearchResult": "runs.loop",
    "SearchSpace": "spaces",
    "SearchState": "methods",
    "Supernet": "networks",
    "add_beta_decay": "bilevel",
    "add_penalty": "bilevel",
    "alpha_optimiser": "bilevel",
    "alpha_product": "bilevel",
    "batched_hvp": "curvature",
    "conjugate_gradient": "bilevel",
    "darts": "methods",
    "discretise": "spaces",
    "dominant_eigenvalue": "curvature",
    "dominant_eigenvalue_of_operator": "curvature",
    "draw_cells": "runs.draw",
    "enable_compilation_cache": "runs.compilation",
    "extreme_eigenvalues": "curvature",
    "extreme_eigenvalues_of_operator": "curvature",
    "finite_difference": "bilevel",
    "first_order": "bilevel",
    "from_torch": "interop",
    "get_hyperparameters": "bilevel",
    "hessian": "curvature",
    "hvp": "curvature",
    "hvp_function": "curvature",
    "init_alpha": "networks",
    "lanczos": "curvature",
    "load_dataset": "data",
    "load_genotype": "spaces",
    "load_space": "spaces",
    "local_average": "runs.metrics",
    "mixed_product": "bilevel",
    "network_of": "interop",
    "neumann": "bilevel",
    "quicken_compilation": "runs.compilation",
    "ritz_pairs": "curvature",
    "run_search": "runs.loop",
    "set_hyperparameters": "bilevel",
    "softmax_weights": "networks",
    "spectral_density": "curvature",
    "spectrum": "curvature",
    "to_torch": "interop",
    "top_eigenvalues": "curvature",
    "top_eigenvalues_of_operator": "curvature",
    "train_mode_loss": "methods",
    "unrolled": "bilevel",
    "virtual_step_optimiser": "bilevel",
    "weight_optimiser": "bilevel",
    "write_report": "runs.report",
}

__all__ = [
    "BETA_DECAY_PENALTIES",
    "Batch",
    "Bilevel",
    "DATASETS",
    "Dataset",
    "DiscreteNetwork",
    "Genotype",
    "HYPERGRADIENTS",
    "HypergradientInfo",
    "InnerStep",
    "InputError",
    "METHODS",
    "OPERATIONS",
    "PRESETS",
    "RunError",
    "RunInterrupted",
    "SPACES",
    "SearchConfig",
    "SearchInfo",
    "SearchMethod",
    "SearchProblem",
    "SearchResult",
    "SearchSpace",
    "SearchState",
    "Supernet",
    "add_beta_decay",
    "add_penalty",
    "alpha_optimiser",
    "alpha_product",
    "batched_hvp",
    "conjugate_gradient",
    "darts",
    "discretise",
    "dominant_eigenvalue",
    "dominant_eigenvalue_of_operator",
    "draw_cells",
    "enable_compilation_cache",
    "extreme_eigenvalues",
    "extreme_eigenvalues_of_operator",
    "finite_difference",
    "first_order",
    "from_torch",
    "get_hyperparameters",
    "hessian",
    "hvp",
    "hvp_function",
    "init_alpha",
    "lanczos",
    "load_dataset",
    "load_genotype",
    "load_space",
    "local_average",
    "mixed_product",
    "network_of",
    "neumann",
    "quicken_compilation",
    "ritz_pairs",
    "run_search",
    "set_hyperparameters",
    "softmax_weights",
    "spectral_density",
    "spectrum",
    "to_torch",
    "top_eigenvalues",
    "top_eigenvalues_of_operator",
    "train_mode_loss",
    "unrolled",
    "virtual_step_optimiser",
    "weight_optimiser",
    "write_report",
]

if TYPE_CHECKING:
    from jaxdarts.bilevel import (
        BETA_DECAY_PENALTIES,
        HYPERGRADIENTS,
        Bilevel,
        HypergradientInfo,
        InnerStep,
        add_beta_decay,
        add_penalty,
        alpha_optimiser,
        alpha_product,
        conjugate_gradient,
        finite_difference,
        first_order,
        get_hyperparameters,
        mixed_product,
        neumann,
        set_hyperparameters,
        unrolled,
        virtual_step_optimiser,
        weight_optimiser,
    )
    from jaxdarts.curvature import (
        batched_hvp,
        dominant_eigenvalue,
        dominant_eigenvalue_of_operator,
        extreme_eigenvalues,
        extreme_eigenvalues_of_operator,
        hessian,
        hvp,
        hvp_function,
        lanczos,
        ritz_pairs,
        spectral_density,
        spectrum,
        top_eigenvalues,
        top_eigenvalues_of_operator,
    )
    from jaxdarts.data import DATASETS, Dataset, load_dataset
    from jaxdarts.errors import InputError, RunError, RunInterrupted
    from jaxdarts.interop import from_torch, network_of, to_torch
    from jaxdarts.methods import (
        METHODS,
        Batch,
        SearchInfo,
        SearchMethod,
        SearchProblem,
        SearchState,
        darts,
        train_mode_loss,
    )
    from jaxdarts.networks import OPERATIONS, DiscreteNetwork, Supernet, init_alpha, softmax_weights
    from jaxdarts.runs.compilation import enable_compilation_cache, quicken_compilation
    from jaxdarts.runs.config import PRESETS, SearchConfig
    from jaxdarts.runs.draw import draw_cells
    from jaxdarts.runs.loop import SearchResult, run_search
    from jaxdarts.runs.metrics import local_average
    from jaxdarts.runs.report import write_report
    from jaxdarts.spaces import SPACES, Genotype, SearchSpace, discretise, load_genotype, load_space


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
