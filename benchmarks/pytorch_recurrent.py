"""The search network of recurrent cells in PyTorch and its steps, for comparison: `pip install torch`.

A compact rendition of what the public code of DARTS (Liu et al. 2019) computes on text, parameter names included: the
relaxed cell, its step on alpha with a virtual step and a central difference, and its step on the weights. It comes in
two orders of operations that give the same numbers. `published` has those of the public code: a node gates every
activation by itself, mixing weights are made in every time step, and a first-order step on alpha computes the gradient
in the weights too. Without it a node adds its activations up before it gates them, and nothing is computed that is not
used. No copy of the network is built for the virtual step, and garbage isn't collected in every step, as the public
code does.

    python benchmarks/pytorch_recurrent.py tests/golden/search_rnn_masks.npz tests/golden/search_rnn_architect.npz

compares it with golden cases of the public code in float64 and exits with 1 beyond 1e-9. Axis letters: T time steps, B
examples side by side, H hidden units, V words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import jaxdarts as jd
from jaxdarts.networks.recurrent import CELL, Dropouts
from jaxdarts.spaces import RecurrentSpace

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
EMBEDDING = "encoder.weight"
NOTHING_DROPPED = Dropouts()


class Masks(NamedTuple):
    """What one forward pass keeps, divided by the probability to be kept; None: everything."""

    embedding: torch.Tensor | None = None  # float[V, 1], of the input only
    inputs: torch.Tensor | None = None  # float[1, B, H]
    x: torch.Tensor | None = None  # float[B, H]
    hidden: torch.Tensor | None = None  # float[B, H]; what is carried on isn't masked
    output: torch.Tensor | None = None  # float[1, B, H]


def kept(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return values if mask is None else values * mask


class Cell(nn.Module):
    """The relaxed cell: one product a node over all states before it, and one evaluation of each activation."""

    def __init__(self, space: RecurrentSpace, hidden: int, published: bool) -> None:
        super().__init__()
        self.published = published
        names = set(space.operations(CELL))
        if len(names) > 1:
            raise jd.InputError(f"space {space.name!r}: the edges must have the same activations here")
        # The column of each activation's weights; `none` gives nothing.
        self.columns = [(column, ACTIVATIONS[name]) for column, name in enumerate(names.pop()) if name != "none"]
        self._W0 = nn.Parameter(torch.empty(2 * hidden, 2 * hidden))
        self._Ws = nn.ParameterList(torch.empty(hidden, 2 * hidden) for _ in range(space.num_nodes))
        self.bn = nn.BatchNorm1d(hidden, affine=False)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor, masks: Masks) -> torch.Tensor:
        """`weights`: alpha, if in the published order of operations."""
        if self.published:
            weights = torch.softmax(weights, dim=-1)
        entering = torch.cat([kept(x, masks.x), kept(hidden, masks.hidden)], dim=-1)
        gate, candidate = (entering @ self._W0).chunk(2, dim=-1)
        states = self.bn(hidden + torch.sigmoid(gate) * (torch.tanh(candidate) - hidden))[None]
        rows = weights.split([node + 1 for node in range(len(self._Ws))])
        for kernel, own in zip(self._Ws, rows, strict=True):
            gate, candidate = (kept(states, masks.hidden) @ kernel).chunk(2, dim=-1)
            shares = [own[:, column, None, None] for column, _ in self.columns]
            gate = torch.sigmoid(gate)
            if self.published:
                state = torch.zeros_like(states[0])
                for share, (_, f) in zip(shares, self.columns, strict=True):
                    state = state + (share * (states + gate * (f(candidate) - states))).sum(dim=0)
            else:
                found = sum(share * f(candidate) for share, (_, f) in zip(shares, self.columns, strict=True))
                # What the weights p of s + c (f(h) - s) add up to.
                still = sum(shares) * states
                state = (still + gate * (found - still)).sum(dim=0)
            states = torch.cat([states, self.bn(state)[None]])
        return states[1:].mean(dim=0)


class SearchNetwork(nn.Module):
    """The relaxed network; alpha is kept apart. The matrix that embeds also decodes."""

    def __init__(
        self,
        space: RecurrentSpace,
        words: int,
        hidden: int,
        dropouts: Dropouts = NOTHING_DROPPED,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.dropouts, self.published = dropouts, published
        self.encoder, self.decoder = nn.Embedding(words, hidden), nn.Linear(hidden, words)
        self.decoder.weight = self.encoder.weight
        self.rnns = nn.ModuleList([Cell(space, hidden, published)])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.04, 0.04)
        nn.init.zeros_(self.decoder.bias)

    def draw(self, examples: int) -> Masks:
        """The masks of one forward pass."""
        words, hidden = self.encoder.weight.shape
        locked, own = (1, examples, hidden), (examples, hidden)
        rates = self.dropouts

        def mask(rate: float, *shape: int) -> torch.Tensor | None:
            return self.encoder.weight.new_empty(shape).bernoulli_(1 - rate).div_(1 - rate) if rate else None

        return Masks(
            mask(rates.embedding, words, 1),
            mask(rates.inputs, *locked),
            mask(rates.x, *own),
            mask(rates.hidden, *own),
            mask(rates.output, *locked),
        )

    def forward(
        self, tokens: torch.Tensor, hidden: torch.Tensor, alpha: torch.Tensor, masks: Masks | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits float[T, B, V], what they are made of, and what the cell gives, float[T, B, H] each.

        Of tokens int64[T, B] and the hidden state float[B, H] before them; the last output is the next one. `masks`:
        None draws them.
        """
        masks = self.draw(tokens.shape[1]) if masks is None else masks
        weights = alpha if self.published else torch.softmax(alpha, dim=-1)
        outputs = []
        for x in kept(F.embedding(tokens, kept(self.encoder.weight, masks.embedding)), masks.inputs):
            hidden = self.rnns[0](x, hidden, weights, masks)
            outputs.append(hidden)
        raw = torch.stack(outputs)
        dropped = kept(raw, masks.output)
        return self.decoder(dropped), dropped, raw


class Window(NamedTuple):
    """A stretch of text, of the usual length."""

    tokens: torch.Tensor  # int64[T, B]
    targets: torch.Tensor  # int64[T, B]: the words that follow


class Rates(NamedTuple):
    """Settings of both optimisers, and of the inner objective; the defaults are those of the public code."""

    rate: float = 20.0  # learning rate of the weights
    l2: float = 5e-7
    clip: float = 0.25  # largest norm of a gradient
    slowness: float = 1e-3  # weight of the mean square of the differences of successive outputs
    alpha: float = 3e-3  # learning rate of alpha
    alpha_l2: float = 1e-3


PUBLISHED = Rates()


class Search:
    """First and second order DARTS on one network; hidden states and optimisers' states are kept between steps."""

    def __init__(self, network: SearchNetwork, alpha: torch.Tensor, examples: int, rates: Rates = PUBLISHED) -> None:
        self.network, self.alpha, self.rates = network, alpha, rates
        self.names = [name for name, _ in network.named_parameters()]
        self.params = list(network.parameters())
        start = network.encoder.weight.new_zeros(examples, network.encoder.embedding_dim)
        self.train_hidden = self.valid_hidden = start
        self.optimiser = torch.optim.SGD(self.params, rates.rate, weight_decay=rates.l2)
        self.alpha_optimiser = torch.optim.Adam([alpha], rates.alpha, (0.9, 0.999), weight_decay=rates.alpha_l2)

    def inner(self, train: Window, masks: Masks | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective of the weights, and the hidden state after the window, cut from the graph."""
        logits, _, raw = self.network(train.tokens, self.train_hidden, self.alpha, masks)
        loss = cross_entropy(logits, train) + self.rates.slowness * (raw[1:] - raw[:-1]).square().mean()
        return loss, raw[-1].detach()

    def outer(self, valid: Window, masks: Masks | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The objective of alpha, and the hidden state after the window, cut from the graph."""
        logits, _, raw = self.network(valid.tokens, self.valid_hidden, self.alpha, masks)
        return cross_entropy(logits, valid), raw[-1].detach()

    def first_order(self, valid: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """The outer gradient in alpha, and the hidden state after the window."""
        loss, hidden = self.outer(valid)
        others = self.params if self.network.published else []
        return torch.autograd.grad(loss, [self.alpha, *others])[0], hidden

    def second_order(
        self, train: Window, valid: Window, radius: float = 1e-2, unmoved: Collection[str] = (EMBEDDING,)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The published estimate after one virtual step, and the hidden state after the outer window.

        Its clipping and its forgotten embedding (`unmoved`) are those of `bilevel.published_difference`. As published,
        every forward pass draws masks of its own.
        """
        rate, l2, clip = self.rates.rate, self.rates.l2, self.rates.clip
        gradient = torch.autograd.grad(self.inner(train)[0], self.params)
        coefficient = clip / (norm(gradient) + 1e-6)
        before = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            for name, p, g in zip(self.names, self.params, gradient, strict=True):
                if name not in unmoved:
                    p.sub_(rate * (min(coefficient, 1.0) * g + l2 * p))
        loss, hidden = self.outer(valid)
        *direction, direct = torch.autograd.grad(loss, [*self.params, self.alpha])
        length = norm(direction)
        # Clipped, the direction is shorter, and the product along it smaller; the displacement is as long as before.
        shorter = min(clip / (length + 1e-6), 1.0)

        def displaced(sign: float) -> torch.Tensor:
            with torch.no_grad():
                for p, w, v in zip(self.params, before, direction, strict=True):
                    p.copy_(w + sign * radius / length * v)
            return torch.autograd.grad(self.inner(train)[0], self.alpha)[0]

        product = (displaced(1.0) - displaced(-1.0)) * (shorter * length / (2 * radius))
        with torch.no_grad():
            for p, w in zip(self.params, before, strict=True):
                p.copy_(w)
        return direct - rate * coefficient * product, hidden

    def step(self, train: Window, valid: Window, second_order: bool) -> None:
        """One step on alpha, one on the weights."""
        found = self.second_order(train, valid) if second_order else self.first_order(valid)
        self.alpha.grad, self.valid_hidden = found
        self.alpha_optimiser.step()
        loss, self.train_hidden = self.inner(train)
        for p, gradient in zip(self.params, torch.autograd.grad(loss, self.params), strict=True):
            p.grad = gradient
        nn.utils.clip_grad_norm_(self.params, self.rates.clip)
        self.optimiser.step()


def cross_entropy(logits: torch.Tensor, window: Window) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), window.targets.flatten())


def norm(tensors: Sequence[torch.Tensor]) -> float:
    """Of all entries."""
    return float(nn.utils.get_total_norm(tensors))


def golden_errors(path: Path, published: bool) -> dict[str, float]:
    """Relative errors against a golden case: of a pass with given masks, or of a step on alpha."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta: dict[str, Any] = json.loads(str(arrays["meta"]))
    space = RecurrentSpace.uniform("rnn", meta["ops"], meta["nodes"])
    network = SearchNetwork(space, meta["vocab"], meta["hidden"], published=published).double()
    params = {k.removeprefix("params/"): torch.tensor(v) for k, v in arrays.items() if k.startswith("params/")}
    network.load_state_dict(params, strict=False)
    missing = [name for name, _ in network.named_parameters() if name not in params]
    if missing:
        raise SystemExit(f"error: {path} lacks {missing[0]}")
    alpha = torch.tensor(arrays["alpha"], requires_grad=True)
    found = (_of_pass if "x" in arrays else _of_step)(network, alpha, arrays, meta)
    return {
        name: float(np.linalg.norm(values.detach().numpy() - arrays[name]) / np.linalg.norm(arrays[name]))
        for name, values in found.items()
        if name in arrays
    }


Arrays = Mapping[str, np.ndarray]


def _window(arrays: Arrays, part: str) -> Window:
    return Window(*(torch.tensor(arrays[f"{part}{name}"]).long() for name in ("x", "y")))


def _of_pass(network: SearchNetwork, alpha: torch.Tensor, arrays: Arrays, meta: Any) -> dict[str, torch.Tensor]:
    names = ("embedding_mask", "input_mask", "x_mask", "h_mask", "output_mask")
    window, masks = _window(arrays, ""), Masks(*(torch.tensor(arrays[f"masks/{name}"]) for name in names))
    logits, dropped, raw = network(window.tokens, torch.tensor(arrays["hidden"][0]), alpha, masks)
    loss, parameters = cross_entropy(logits, window), dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, [alpha, *parameters.values()])
    return {
        "log_prob": logits.log_softmax(dim=-1),
        "loss": loss,
        "raw_output": raw,
        "dropped_output": dropped,
        "hidden_next": raw[-1:],
        "grad_alpha": gradients[0],
        **{f"grad_w/{name}": gradient for name, gradient in zip(parameters, gradients[1:], strict=True)},
        "bn_running_mean": network.rnns[0].bn.running_mean,
        "bn_running_var": network.rnns[0].bn.running_var,
    }


def _of_step(network: SearchNetwork, alpha: torch.Tensor, arrays: Arrays, meta: Any) -> dict[str, torch.Tensor]:
    train, valid = (_window(arrays, part) for part in ("train_", "valid_"))
    rates = Rates(meta["lr"], meta["weight_decay"], meta["clip"], 0.0, meta["arch_lr"], meta["arch_weight_decay"])
    search = Search(network, alpha, train.tokens.shape[1], rates)
    search.train_hidden, search.valid_hidden = (torch.tensor(arrays[f"{p}_hidden"][0]) for p in ("train", "valid"))
    found = {"train_loss": search.inner(train)[0], "valid_loss": search.outer(valid)[0]}
    found["first_order"] = search.first_order(valid)[0]
    found["reference_fd"], found["reference_hidden_next"] = search.second_order(train, valid)
    found["fixed_fd"], found["hidden_next"] = search.second_order(train, valid, unmoved=())
    search.step(train, valid, second_order=True)
    return {**found, "alpha_after_adam": alpha}


if __name__ == "__main__":
    worst = 0.0
    for argument in sys.argv[1:]:
        for published in (True, False):
            for quantity, error in golden_errors(Path(argument), published).items():
                print(f"{argument} {quantity:<28} {error:.2e}{', published order' if published else ''}")
                worst = max(worst, error)
    sys.exit(worst > 1e-9)
