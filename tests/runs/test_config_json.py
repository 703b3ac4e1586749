"""Is a continuation refused where its settings or its data are others than recorded?"""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs.config_json import check_same_data, check_same_settings


def test_settings_that_differ_are_named_with_both_values(tmp_path: Path) -> None:
    recorded = {"epochs": 3, "l2": 0.1, "cells": [1, 2], "seed": 0, "flag": True}
    now = {"epochs": 4, "l2": 0.1, "cells": (1, 2), "seed": 1, "flag": 1, "new": 5}
    with pytest.raises(InputError) as caught:
        check_same_settings(now, recorded, tmp_path, ["seed"])
    assert "in epochs (3 in the run, 4 now), flag (True in the run, 1 now); leave" in str(caught.value)


def test_data_that_changed_are_refused() -> None:
    check_same_data({"data_digest": "12"}, {"data_digest": "12"}, "npz:d.npz")
    check_same_data({}, {"data_digest": "12"}, "npz:d.npz")  # of an older version
    with pytest.raises(InputError, match="data of 'npz:d.npz' have changed .* began .digest 12 then, 34 now."):
        check_same_data({"data_digest": "12"}, {"data_digest": "34"}, "npz:d.npz")
