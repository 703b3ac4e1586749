"""What does the library offer to research code? Everything here is loaded when it is first used.

What a script needs first is here; all of it is in the namespaces `jaxdarts.bilevel` (hypergradients, optimisers,
penalties), `curvature`, `spaces`, `networks`, `data`, `tasks`, `methods` and `plans`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name is defined. Importing jaxdarts imports no JAX: a command need not wait before it starts anew.
_MODULES = {
    "Batch": "tasks.classification",
    "Benchmark": "spaces",
    "Bilevel": "bilevel",
    "DATASETS": "data",
    "DiscreteNetwork": "networks",
    "EvaluateConfig": "plans.training_settings",
    "EvaluationResult": "evaluate",
    "GENOTYPES": "spaces",
    "Genotype": "spaces",
    "HYPERGRADIENTS": "bilevel",
    "InnerStep": "bilevel",
    "InputError": "errors",
    "METHODS": "methods",
    "OPERATIONS": "networks",
    "RecurrentGenotype": "spaces",
    "RecurrentSpace": "spaces",
    "RunError": "errors",
    "RunInterrupted": "errors",
    "SPACES": "spaces",
    "SearchConfig": "plans.search_settings",
    "SearchProblem": "methods.images",
    "SearchResult": "search",
    "SearchSpace": "spaces",
    "Supernet": "networks",
    "TASKS": "tasks",
    "TabulateConfig": "plans.training_settings",
    "TabulationResult": "tabulate",
    "alpha_optimiser": "bilevel",
    "conjugate_gradient": "bilevel",
    "darts": "methods",
    "discretise": "spaces",
    "dominant_eigenvalue": "curvature",
    "draw_cells": "reports.draw",
    "enable_compilation_cache": "runs.compilation",
    "finite_difference": "bilevel",
    "first_order": "bilevel",
    "from_torch": "interop",
    "init_alpha": "networks",
    "load_dataset": "data",
    "load_space": "spaces",
    "load_text": "data",
    "network_cost": "networks",
    "network_of": "interop",
    "neumann": "bilevel",
    "quicken_compilation": "runs.compilation",
    "retraining": "methods",
    "run_evaluation": "evaluate",
    "run_search": "search",
    "run_sweep": "sweep",
    "run_tabulation": "tabulate",
    "softmax_weights": "networks",
    "supernet_cost": "networks",
    "to_dot": "reports.graphs",
    "to_mermaid": "reports.graphs",
    "to_torch": "interop",
    "train_mode_loss": "methods.images",
    "unrolled": "bilevel",
    "virtual_step_optimiser": "bilevel",
    "weight_optimiser": "bilevel",
    "write_regret": "reports.regret",
    "write_report": "reports.write",
}
_NAMESPACES = ("bilevel", "curvature", "data", "methods", "networks", "plans", "spaces", "tasks")

__all__ = [
    "Batch",
    "Benchmark",
    "Bilevel",
    "DATASETS",
    "DiscreteNetwork",
    "EvaluateConfig",
    "EvaluationResult",
    "GENOTYPES",
    "Genotype",
    "HYPERGRADIENTS",
    "InnerStep",
    "InputError",
    "METHODS",
    "OPERATIONS",
    "RecurrentGenotype",
    "RecurrentSpace",
    "RunError",
    "RunInterrupted",
    "SPACES",
    "SearchConfig",
    "SearchProblem",
    "SearchResult",
    "SearchSpace",
    "Supernet",
    "TASKS",
    "TabulateConfig",
    "TabulationResult",
    "alpha_optimiser",
    "bilevel",
    "conjugate_gradient",
    "curvature",
    "darts",
    "data",
    "discretise",
    "dominant_eigenvalue",
    "draw_cells",
    "enable_compilation_cache",
    "finite_difference",
    "first_order",
    "from_torch",
    "init_alpha",
    "load_dataset",
    "load_space",
    "load_text",
    "methods",
    "network_cost",
    "network_of",
    "networks",
    "neumann",
    "plans",
    "quicken_compilation",
    "retraining",
    "run_evaluation",
    "run_search",
    "run_sweep",
    "run_tabulation",
    "softmax_weights",
    "spaces",
    "supernet_cost",
    "tasks",
    "to_dot",
    "to_mermaid",
    "to_torch",
    "train_mode_loss",
    "unrolled",
    "virtual_step_optimiser",
    "weight_optimiser",
    "write_regret",
    "write_report",
]

if TYPE_CHECKING:
    from jaxdarts import bilevel, curvature, data, methods, networks, plans, spaces, tasks
    from jaxdarts.bilevel import (
        HYPERGRADIENTS,
        Bilevel,
        InnerStep,
        alpha_optimiser,
        conjugate_gradient,
        finite_difference,
        first_order,
        neumann,
        unrolled,
        virtual_step_optimiser,
        weight_optimiser,
    )
    from jaxdarts.curvature import dominant_eigenvalue
    from jaxdarts.data import DATASETS, load_dataset, load_text
    from jaxdarts.errors import InputError, RunError, RunInterrupted
    from jaxdarts.evaluate import EvaluationResult, run_evaluation
    from jaxdarts.interop import from_torch, network_of, to_torch
    from jaxdarts.methods import METHODS, darts, retraining
    from jaxdarts.methods.images import SearchProblem, train_mode_loss
    from jaxdarts.networks import (
        OPERATIONS,
        DiscreteNetwork,
        Supernet,
        init_alpha,
        network_cost,
        softmax_weights,
        supernet_cost,
    )
    from jaxdarts.plans.search_settings import SearchConfig
    from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
    from jaxdarts.reports.draw import draw_cells
    from jaxdarts.reports.graphs import to_dot, to_mermaid
    from jaxdarts.reports.regret import write_regret
    from jaxdarts.reports.write import write_report
    from jaxdarts.runs.compilation import enable_compilation_cache, quicken_compilation
    from jaxdarts.search import SearchResult, run_search
    from jaxdarts.spaces import (
        GENOTYPES,
        SPACES,
        Benchmark,
        Genotype,
        RecurrentGenotype,
        RecurrentSpace,
        SearchSpace,
        discretise,
        load_space,
    )
    from jaxdarts.sweep import run_sweep
    from jaxdarts.tabulate import TabulationResult, run_tabulation
    from jaxdarts.tasks import TASKS
    from jaxdarts.tasks.classification import Batch


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
