"""The search network of the public PyTorch codes and its steps, for comparison: `pip install torch`.

A compact rendition of the relaxed network of RobustDARTS (Zela et al. 2020), parameter names included, of its step on
alpha with the central difference (Liu et al. 2019, eq. 8) and of its step on the weights. It does less work than the
public code: no copy of the network is built for the imagined step, and no gradient is taken that is not used.

    python benchmarks/pytorch_supernet.py tests/golden/search_s1.npz

compares it with a golden case of the public code in float64 and exits with 1 beyond 1e-9.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import jaxdarts as jd


def batch_norm(channels: int, affine: bool = False) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=affine)


def conv(channels: int, features: int, size: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(channels, features, size, stride, padding, dilation, groups, bias=False)


class Wrapped(nn.Module):
    """A sequence under the name `op`, as the public codes have it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x)


def separable(channels: int, size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    depthwise = conv(channels, channels, size, stride, dilation, groups=channels)
    return [nn.ReLU(), depthwise, conv(channels, channels, 1), batch_norm(channels)]


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class Noise(Zero):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


class FactorizedReduce(nn.Module):
    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.conv_1 = conv(channels, features // 2, 1, 2)
        self.conv_2 = conv(channels, features // 2, 1, 2)
        self.bn = batch_norm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda c, s: Zero(s),
    "noise": lambda c, s: Noise(s),
    "avg_pool_3x3": lambda c, s: nn.Sequential(nn.AvgPool2d(3, s, 1, count_include_pad=False), batch_norm(c)),
    "max_pool_3x3": lambda c, s: nn.Sequential(nn.MaxPool2d(3, s, 1), batch_norm(c)),
    "skip_connect": lambda c, s: nn.Identity() if s == 1 else FactorizedReduce(c, c),
    "sep_conv_3x3": lambda c, s: Wrapped(*separable(c, 3, s), *separable(c, 3, 1)),
    "sep_conv_5x5": lambda c, s: Wrapped(*separable(c, 5, s), *separable(c, 5, 1)),
    "dil_conv_3x3": lambda c, s: Wrapped(*separable(c, 3, s, 2)),
    "dil_conv_5x5": lambda c, s: Wrapped(*separable(c, 5, s, 2)),
}


class MixedOp(nn.Module):
    def __init__(self, operations: Sequence[str], channels: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList([OPERATIONS[name](channels, stride) for name in operations])

    def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return sum(weight * operation(x) for weight, operation in zip(weights, self._ops, strict=False))  # type: ignore


class Cell(nn.Module):
    def __init__(
        self, space: jd.SearchSpace, before: int, last: int, channels: int, reduction: bool, previous_reduction: bool
    ) -> None:
        super().__init__()

        def preprocess(width: int) -> nn.Module:
            return Wrapped(nn.ReLU(), conv(width, channels, 1), batch_norm(channels))

        self.preprocess0 = FactorizedReduce(before, channels) if previous_reduction else preprocess(before)
        self.preprocess1 = preprocess(last)
        self.edges, self.concat = space.edges, space.concat
        operations = space.operations("reduce" if reduction else "normal")
        self._ops = nn.ModuleList(
            MixedOp(candidates, channels, 2 if reduction and source < 2 else 1)
            for (_, source), candidates in zip(space.edges, operations, strict=True)
        )

    def forward(self, before: torch.Tensor, last: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        sums: dict[int, torch.Tensor] = {}
        for (node, source), mixed, row in zip(self.edges, self._ops, weights, strict=True):
            if source >= len(states):
                states.append(sums[source - 2])
            term = mixed(states[source], row)
            sums[node] = sums[node] + term if node in sums else term
        states.append(sums[max(sums)])
        return torch.cat([states[index] for index in self.concat], dim=1)


class SearchNetwork(nn.Module):
    """The relaxed network; alpha is kept apart."""

    def __init__(self, space: jd.SearchSpace, num_classes: int, channels: int, num_cells: int) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(conv(3, width, 3), batch_norm(width, affine=True))
        self.cells, self.kinds = nn.ModuleList(), []
        before = last = width
        previous = False
        for index in range(num_cells):
            reduction = index in (num_cells // 3, 2 * num_cells // 3)
            channels = 2 * channels if reduction else channels
            self.cells.append(Cell(space, before, last, channels, reduction, previous))
            self.kinds.append("reduce" if reduction else "normal")
            before, last, previous = last, channels * len(space.concat), reduction
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, images: torch.Tensor, alpha: Mapping[str, torch.Tensor]) -> torch.Tensor:
        weights = {kind: torch.softmax(values, dim=-1) for kind, values in alpha.items()}
        before = last = self.stem(images)
        for cell, kind in zip(self.cells, self.kinds, strict=True):
            before, last = last, cell(before, last, weights[kind])
        return self.classifier(last.mean(dim=(2, 3)))


Batch = tuple[torch.Tensor, torch.Tensor]
Alpha = dict[str, torch.Tensor]


class Search:
    """First and second order DARTS on one network; the optimisers' states are kept between steps."""

    def __init__(self, network: SearchNetwork, alpha: Alpha, rate: float, momentum: float, l2: float) -> None:
        self.network, self.alpha = network, alpha
        self.rate, self.momentum, self.l2 = rate, momentum, l2
        self.params = list(network.parameters())
        self.optimiser = torch.optim.SGD(self.params, rate, momentum, weight_decay=l2)
        self.alpha_optimiser = torch.optim.Adam(list(alpha.values()), 3e-4, (0.5, 0.999), weight_decay=1e-3)

    def loss(self, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(self.network(batch[0], self.alpha), batch[1])

    def gradients(self, batch: Batch, *wanted: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Weights of `none` or of a node that no path leads to have no gradient.
        found = torch.autograd.grad(self.loss(batch), wanted, allow_unused=True)
        return tuple(torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True))

    def buffers(self) -> list[torch.Tensor]:
        """SGD's momentum buffers, zero before the first step."""
        states = [self.optimiser.state[p].get("momentum_buffer") for p in self.params]
        return [torch.zeros_like(p) if b is None else b for p, b in zip(self.params, states, strict=True)]

    def first_order(self, valid: Batch) -> Alpha:
        return dict(zip(self.alpha, self.gradients(valid, *self.alpha.values()), strict=True))

    def second_order(self, train: Batch, valid: Batch, radius: float = 1e-2) -> Alpha:
        """The hypergradient after one imagined step, its mixed product by a central difference."""
        alphas = list(self.alpha.values())
        before = [p.detach().clone() for p in self.params]
        gradient = self.gradients(train, *self.params)
        with torch.no_grad():
            for p, g, b in zip(self.params, gradient, self.buffers(), strict=True):
                p.sub_(self.rate * (self.momentum * b + g + self.l2 * p))
        outer = self.gradients(valid, *self.params, *alphas)
        vector, direct = outer[: len(self.params)], outer[len(self.params) :]
        scale = radius / float(torch.sqrt(sum((v * v).sum() for v in vector)))  # type: ignore[arg-type]

        def displaced(sign: float) -> tuple[torch.Tensor, ...]:
            with torch.no_grad():
                for p, w, v in zip(self.params, before, vector, strict=True):
                    p.copy_(w + sign * scale * v)
            return self.gradients(train, *alphas)

        above, below = displaced(1.0), displaced(-1.0)
        with torch.no_grad():
            for p, w in zip(self.params, before, strict=True):
                p.copy_(w)
        mixed = [(a - b) / (2 * scale) for a, b in zip(above, below, strict=True)]
        return {name: d - self.rate * m for name, d, m in zip(self.alpha, direct, mixed, strict=True)}

    def step(self, train: Batch, valid: Batch, second_order: bool) -> None:
        """One step on alpha, one on the weights."""
        found = self.second_order(train, valid) if second_order else self.first_order(valid)
        for name, gradient in found.items():
            self.alpha[name].grad = gradient
        self.alpha_optimiser.step()
        self.optimiser.zero_grad()
        self.loss(train).backward()
        nn.utils.clip_grad_norm_(self.params, 5.0)
        self.optimiser.step()

    def hessian(self, valid: Batch) -> torch.Tensor:
        """Of the outer objective in alpha, a row at a time as in the public code."""
        alphas = list(self.alpha.values())
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(self.loss(valid), alphas, create_graph=True)])
        rows = [torch.autograd.grad(entry, alphas, retain_graph=True) for entry in flat]
        return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def golden_errors(path: Path) -> dict[str, float]:
    """Relative errors of logits, loss and hypergradients against a golden case."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta: dict[str, Any] = json.loads(str(arrays["meta"]))
    space = jd.load_space(meta["space"])
    network = SearchNetwork(space, meta["num_classes"], meta["init_channels"], meta["layers"]).double()
    state = {k.removeprefix("params/"): torch.tensor(v) for k, v in arrays.items() if k.startswith("params/")}
    network.load_state_dict(state, strict=False)
    missing = [name for name, _ in network.named_parameters() if name not in state]
    if missing:
        raise SystemExit(f"error: {path} lacks {missing[0]}")
    alpha = {kind: torch.tensor(arrays[f"alpha/{kind}"], requires_grad=True) for kind in ("normal", "reduce")}
    search = Search(network, alpha, meta["lr"], meta["momentum"], meta["weight_decay"])
    for name, parameter in network.named_parameters():
        search.optimiser.state[parameter]["momentum_buffer"] = torch.tensor(arrays[f"momentum/{name}"])
    train, valid = (
        (torch.tensor(arrays[f"{half}_x"]), torch.tensor(arrays[f"{half}_y"]).long()) for half in ("train", "valid")
    )
    found = {"train_logits": network(train[0], alpha).detach().numpy(), "train_loss": search.loss(train).item()}
    for name, gradient in (
        ("first_order", search.first_order(valid)),
        ("unrolled_fd", search.second_order(train, valid)),
    ):
        found |= {f"{name}/{kind}": values.numpy() for kind, values in gradient.items()}
    return {
        name: float(np.linalg.norm(values - arrays[name]) / np.linalg.norm(arrays[name]))
        for name, values in found.items()
    }


if __name__ == "__main__":
    worst = 0.0
    for argument in sys.argv[1:]:
        for quantity, error in golden_errors(Path(argument)).items():
            print(f"{argument} {quantity:<22} {error:.2e}")
            worst = max(worst, error)
    sys.exit(worst > 1e-9)
