"""ConfigurableOptimizer's step of first-order DARTS, for comparison.

`confopt` is the library of https://github.com/automl/ConfigurableOptimizer, which is installed from its repository: the
package of that name on PyPI is another one. Measured is its own code of a training step, meters included: one step on
alpha, one on the weights. What plain DARTS does not need is off: its count of operations, and Lambda-DARTS.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _search import Size

NAME = "ConfigurableOptimizer"


def installed() -> bool:
    """Whether `confopt` is here and that library. Imports nothing."""
    spec = importlib.util.find_spec("confopt")
    folders = (spec and spec.submodule_search_locations) or ()
    return any((Path(folder) / "searchspace").is_dir() for folder in folders)


def confopt_forms(size: Size, threads: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Its step in the space `darts` on the CPU by name, for each number of threads. To be called in a new process."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it takes a GPU wherever it sees one
    import torch
    from confopt.oneshot.archsampler import DARTSSampler
    from confopt.searchspace import DARTSSearchSpace
    from confopt.searchspace.common import mixop
    from confopt.train import ConfigurableTrainer, SearchSpaceHandler

    def count_nothing(block: Any, x: Any) -> None:
        block.flops = []

    for block in (mixop.OperationBlock, mixop.OperationChoices):
        block._calculate_flops = count_nothing
    torch.manual_seed(0)
    # Some versions move what DrNAS needs to a GPU whether there is one or not.
    with patch.object(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor):
        model = DARTSSearchSpace(C=size.channels, num_classes=10, layers=size.cells)
    if hasattr(model, "disable_lambda_darts"):
        model.disable_lambda_darts()
    sampler = DARTSSampler(arch_parameters=model.arch_parameters, sample_frequency="step")
    handler = SearchSpaceHandler(sampler=sampler)
    weight_optimiser = torch.optim.SGD(model.model_weight_parameters(), 0.025, 0.9, weight_decay=3e-4)
    alpha_optimiser = torch.optim.Adam(model.arch_parameters, 3e-4, (0.5, 0.999), weight_decay=1e-3)
    criterion = torch.nn.CrossEntropyLoss()
    trainer = ConfigurableTrainer(
        model=model,
        data=None,
        model_optimizer=weight_optimiser,
        arch_optimizer=alpha_optimiser,
        scheduler=None,
        criterion=criterion,
        logger=None,
        batch_size=size.batch,
    )
    # As its `train` begins, which reads data and writes checkpoints too.
    handler.adapt_search_space(model)
    model.new_epoch()
    trainer.update_sample_function(handler, model, calling_frequency="epoch")
    train, valid = (
        (torch.randn(size.batch, 3, size.image, size.image), torch.randint(0, 10, (size.batch,))) for _ in range(2)
    )

    def step(count: int) -> None:
        """An epoch of one batch."""
        torch.set_num_threads(count)
        optimisers = (weight_optimiser, alpha_optimiser)
        trainer._train_epoch(handler, [train], [valid], model, criterion, *optimisers, print_freq=1)

    return {f"{NAME} first order, {count}": partial(step, count) for count in threads}
