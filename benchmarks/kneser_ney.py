"""Which perplexity does counting reach on a text? A yardstick for a network's.

    python benchmarks/kneser_ney.py
    python benchmarks/kneser_ney.py --dataset folder:PATH --orders 2 3 4 --output kneser_ney.json

The add-one unigram and interpolated Kneser-Ney (Kneser & Ney 1995, as interpolated by Chen & Goodman 1999) with
one fixed discount, counted on the training part, scored on the validation and the test part. Scored is what a network
scores at batch size 1: every token but the first, `<eos>` included. A context crosses the ends of sentences, as a
network's memory does; before a part begins a sentence ended.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, headline, setting, table, write_json

from jaxdarts.data import Text, load_text, text_facts
from jaxdarts.errors import InputError

Gram = tuple[int, ...]
"""Word ids: a context, and last the word that follows it."""
Probability = Callable[[Gram], float]


@dataclass(frozen=True)
class Options:
    dataset: str = "pydoc"  # or folder:PATH
    data_dir: Path | None = None  # of the data set "folder"
    orders: tuple[int, ...] = (2, 3)  # of Kneser-Ney: 2 looks at one word before
    discount: float = 0.75  # taken from every count
    quick: bool = False  # order 2 only, to see that everything works
    output: Path | None = None  # JSON


def grams(tokens: Sequence[int], order: int, end: int) -> Iterator[Gram]:
    """Every token with the `order - 1` tokens before it; before the first one they are `end`."""
    padded = [end] * (order - 1) + list(tokens)
    return zip(*(padded[first : first + len(tokens)] for first in range(order)), strict=True)


def unigram(tokens: Sequence[int], vocabulary_size: int) -> Probability:
    """(count + 1) / (tokens + words)."""
    counts, total = Counter(tokens), len(tokens) + vocabulary_size
    return lambda gram: (counts[gram[-1]] + 1) / total


def kneser_ney(tokens: Sequence[int], vocabulary_size: int, order: int, discount: float, end: int) -> Probability:
    """p(word | context) = (max(c(context word) - D, 0) + D n(context) p(word | shorter context)) / c(context).

    c of the highest order counts occurrences, of a lower one the different words before (so that "francisco", which
    follows one word only, is improbable after others); n(context) is the number of different words after it. After a
    context never seen the shorter one decides. Below the lowest order every word is equally probable.
    """
    counts = [Counter(grams(tokens, order, end))]
    for _ in range(1, order):
        counts.append(Counter(gram[1:] for gram in counts[-1]))
    # By length of the gram, the shortest first; then of its context: the sum of the counts, and how many there are.
    counts.reverse()
    sums: list[Counter[Gram]] = []
    followers: list[Counter[Gram]] = []
    for level in counts:
        sums.append(Counter())
        followers.append(Counter(gram[:-1] for gram in level))
        for gram, count in level.items():
            sums[-1][gram[:-1]] += count

    def probability(gram: Gram) -> float:
        found = 1 / vocabulary_size
        for length, (level, total, after) in enumerate(zip(counts, sums, followers, strict=True), 1):
            part = gram[-length:]
            if context_sum := total[part[:-1]]:
                found = (max(level[part] - discount, 0) + discount * after[part[:-1]] * found) / context_sum
        return found

    return probability


def perplexity(probability: Probability, tokens: Sequence[int], order: int, end: int) -> float:
    """exp of the mean of -log p over every token but the first."""
    logarithms = [math.log(probability(gram)) for gram in list(grams(tokens, order, end))[1:]]
    return math.exp(-sum(logarithms) / len(logarithms))


def measure(text: Text, orders: Sequence[int], discount: float) -> list[dict[str, Any]]:
    """One row a model: its name, its order, and the perplexity of the validation and of the test part."""
    train, valid, test = (part.tolist() for part in (text.train, text.valid, text.test))
    size, end = len(text.words), text.words.index("<eos>")
    models = [("unigram, add one", 1, unigram(train, size))]
    models += [(f"Kneser-Ney {order}", order, kneser_ney(train, size, order, discount, end)) for order in orders]
    return [
        {"model": name, "order": order}
        | {part: perplexity(model, tokens, order, end) for part, tokens in (("valid", valid), ("test", test))}
        for name, order, model in models
    ]


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, orders=(2,))
    if not options.orders or min(options.orders) < 2:
        raise InputError(f"orders must be one or more integers of at least 2, not {options.orders}")
    if not 0 < options.discount < 1:
        raise InputError(f"discount must be greater than 0 and less than 1, not {options.discount}")
    text = load_text(options.dataset, options.data_dir)
    for part, tokens in (("training", text.train), ("validation", text.valid), ("test", text.test)):
        if len(tokens) < 2:
            raise InputError(f"dataset {options.dataset!r}: the {part} part has {len(tokens)} tokens; 2 are needed")
    content = setting(options) | {"text": {"name": text.name} | text_facts(text)}
    content["rows"] = measure(text, options.orders, options.discount)
    facts = content["text"]
    sizes = ", ".join(f"{tokens} {part}" for part, tokens in facts["tokens"].items())
    print(headline(content))
    print(f"\n{text.name}: {facts['vocabulary_size']} words; tokens: {sizes}; discount {options.discount:g}")
    lines = [[row["model"], f"{row['valid']:.1f}", f"{row['test']:.1f}"] for row in content["rows"]]
    print(table(["perplexity", "valid", "test"], lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
