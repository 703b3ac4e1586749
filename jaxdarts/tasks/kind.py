"""What does a plan need of a kind of task: how settings and data become the task and its networks?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdarts.networks.functional import Network
from jaxdarts.tasks.base import Metric, Task


class TaskKind(NamedTuple):
    """A kind of task, by the functions with which plans build searches and trainings.

    `data` is the kind's own: parts on the device, which several tasks share. `settings` has every setting by its name;
    `dtype` is that of weights and examples.
    """

    subject: str  # what is learned from, for people
    unit: str  # what multiply-adds are of, for people
    search_data: Callable[..., Any]  # (settings, mesh) -> data; raises InputError where it cannot be used
    training_data: Callable[..., Any]  # (settings, mesh) -> data
    facts: Callable[[Any], Mapping[str, Any]]  # data -> what config.json says of it
    retraining_data: Callable[[Any], Any]  # search data -> training data: trained on w's part, judged on alpha's
    search: Callable[..., Task]  # (data, settings, dtype) -> the task of a search
    member: Callable[..., Task]  # (task, data, settings of all, own settings, dtype) -> of one of several side by side
    training: Callable[..., Task]  # (data, settings, dtype) -> the task of a training from scratch
    relaxed: Callable[..., Network]  # (space, data, settings, dtype, examples together, options) -> the search network
    discrete: Callable[..., Network]  # (genotype, data, settings, dtype) -> the network of a genotype
    network_text: Callable[..., str]  # (space or genotype, settings) -> how large a network is, for people
    retrained_with: Callable[[Any], Mapping[str, Any]]  # search settings -> those of a training that follow
    cost: Callable[..., Any]  # (genotype, data, settings) -> its size, a NetworkCost
    metrics: Mapping[str, Metric]  # by name, as in its tasks
    objective: str  # the metric by which architectures are compared
    result: str  # what papers report, less is better: the name in result.json is `test_` and this
