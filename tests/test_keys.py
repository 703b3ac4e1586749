"""Everything random in a run follows from one root, which is split once."""

from __future__ import annotations

import jax
import numpy as np

from jaxdarts.keys import RunKeys, run_keys


def data(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_key_of_a_run_is_another_or_derived_from_the_root_twice() -> None:
    """Of two seeds, with the keys of 1000 epochs or steps of each: all are different."""
    found = []
    for seed in (0, 1):
        keys = run_keys(seed)
        found.append(data(jax.random.key(seed)))
        found += [data(key) for key in keys]
        for key in keys:
            many = jax.vmap(lambda i, key=key: jax.random.key_data(jax.random.fold_in(key, i)))(np.arange(1000))
            found += [tuple(one) for one in np.asarray(many).tolist()]
    assert len(set(found)) == len(found) == 2 * (1 + len(RunKeys._fields) * 1001)


def test_a_new_name_at_the_end_changes_no_other_key() -> None:
    root = jax.random.key(3)
    longer = jax.random.split(root, len(RunKeys._fields) + 1)
    assert [data(key) for key in longer[:-1]] == [data(key) for key in run_keys(3)]
