"""Which spaces and genotypes do `st.from_type(SearchSpace)` and `st.from_type(Genotype)` draw?"""

from __future__ import annotations

from itertools import permutations
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from jaxdarts.spaces import Genotype, SearchSpace, count_edges

# No time limit for an example: these tests must pass on a busy machine.
settings.register_profile("spaces", deadline=None, max_examples=50)
settings.load_profile("spaces")

OPERATIONS = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5")
CANDIDATES = [names for count in (1, 2, 3) for names in permutations(OPERATIONS, count) if names != ("none",)]


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    """Any valid genotype of one to six nodes."""
    nodes = draw(st.integers(1, 6))
    fields: dict[str, Any] = {}
    for cell in ("normal", "reduce"):
        fields[cell] = [
            (draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, node + 1))) for node in range(nodes) for _ in "ab"
        ]
        fields[f"{cell}_concat"] = draw(st.lists(st.integers(0, nodes + 1), min_size=1, max_size=nodes, unique=True))
    return Genotype(**fields)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Spaces of one to five nodes whose edges differ in their candidates, and in how many they have."""
    nodes = draw(st.integers(1, 5))
    normal, reduce = (tuple(draw(st.sampled_from(CANDIDATES)) for _ in range(count_edges(nodes))) for _ in range(2))
    concat = draw(st.lists(st.integers(2, nodes + 1), min_size=1, unique=True))
    return SearchSpace("drawn", nodes, normal, reduce, tuple(concat))


st.register_type_strategy(Genotype, genotypes())
st.register_type_strategy(SearchSpace, spaces())
