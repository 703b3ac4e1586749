"""Does a state come back bit for bit, whatever happened to the process and the files?"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import RunError
from jaxdarts.runs.checkpoint import Checkpoints


def small_state(step: int = 0) -> dict[str, Any]:
    return {"w": jnp.arange(5, dtype=jnp.float32) + step, "key": jax.random.key(step), "step": jnp.int32(step)}


def assert_identical(restored: Any, expected: Any) -> None:
    assert str(jax.tree.structure(restored)) == str(jax.tree.structure(expected))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        if hasattr(b, "dtype"):
            assert a.dtype == b.dtype and a.shape == b.shape
            if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = {
        "float": jnp.array([np.nan, -0.0, np.inf, 1e-45, 1 / 3], jnp.float32),
        "matrix": jax.random.normal(jax.random.key(0), (3, 1, 4)).T,
        "bfloat16": jnp.ones((2, 2), jnp.bfloat16) / 3,
        "mask": jnp.array([True, False]),
        "bytes": jnp.arange(4, dtype=jnp.uint8),
        "empty": jnp.zeros((0, 3)),
        "key": jax.random.key(1),
        "keys": jax.random.split(jax.random.key(2, impl="rbg"), (2, 3)),
        "nested": ((jnp.int32(7),), [None, jnp.float16(0.1)]),
        "numpy": np.arange(6, dtype=np.float64).reshape(2, 3),
        "numbers": (3, 0.1, True),
    }
    extra = {"epoch": 4, "history": [0.1, None], "name": "s1"}
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore_latest(state) is None
    checkpoints.save(12, state, extra)
    checkpoints = Checkpoints(tmp_path / "c")
    restored = checkpoints.restore_latest(jax.tree.map(lambda leaf: leaf, state))
    assert restored is not None
    assert (restored.step, restored.extra) == (12, extra)
    assert_identical(restored.state, state)


def test_shapes_are_enough_to_restore_and_old_checkpoints_go(tmp_path: Path) -> None:
    like = jax.eval_shape(small_state)
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30, 15):  # a method may go back
        checkpoints.save(step, small_state(step))
    restored = checkpoints.restore_latest(like)
    assert restored is not None and restored.step == 15
    assert_identical(restored.state, small_state(15))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["save_000003.ckpt", "save_000004.ckpt"]


def test_checkpoints_that_are_asked_for_stay_and_the_newest_of_a_step_is_meant(tmp_path: Path) -> None:
    like = jax.eval_shape(small_state)
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (10, 20, 30):
        checkpoints.save(step, small_state(step), also_keep=[10, step])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["save_000001.ckpt", "save_000003.ckpt"]
    with pytest.raises(RunError, match="no checkpoint of step 20"):
        checkpoints.restore(20, like)
    checkpoints = Checkpoints(tmp_path, keep=1)  # another process does not know what was asked for before
    restored = checkpoints.restore(10, like)
    assert restored.step == 10
    assert_identical(restored.state, small_state(10))
    checkpoints.save(10, small_state(7), also_keep=[10, 30])  # the run went back to 10 and changed something
    checkpoints.save(20, small_state(20), also_keep=[10])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["save_000004.ckpt", "save_000005.ckpt"]
    assert_identical(checkpoints.restore(10, like).state, small_state(7))
    damage(tmp_path / "save_000004.ckpt", "truncate")
    with pytest.raises(
        RunError, match="save_000004.ckpt in .* cannot be read: it is cut off|its checksum does not fit"
    ):
        checkpoints.restore(10, like)
    (tmp_path / "save_000004.ckpt").write_bytes(b"jaxdarts checkpoint 1\n" + b"\xff" * 20)
    with pytest.raises(RunError, match="no checkpoint of step 10"):
        Checkpoints(tmp_path).restore(10, like)


def test_another_kind_of_state_is_refused_by_name(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, small_state())
    for change, message in [
        ({"w": jnp.zeros(6)}, r"'w' is float32\[5\] in the checkpoint, float32\[6\] in this run"),
        ({"step": jnp.float32(0)}, r"'step' is int32\[\] in the checkpoint, float32\[\]"),
        ({"alpha": jnp.zeros(1)}, "it has no 'alpha'"),
        ({"key": jax.random.key(0, impl="rbg")}, "'key' is key<fry>"),
    ]:
        with pytest.raises(RunError, match=message):
            checkpoints.restore_latest(small_state() | change)
    with pytest.raises(RunError, match="this run has no 'step'"):
        checkpoints.restore_latest({"w": jnp.zeros(5), "key": jax.random.key(0)})
    with pytest.raises(TypeError, match="name is 'x'"):
        checkpoints.save(2, {"name": "x"})


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        content[int(how)] ^= 0xFF
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncate", "empty", *map(str, range(0, 60, 7)), "200", "-40", "-1"])
def test_damage_anywhere_gives_the_one_before_and_says_so(tmp_path: Path, how: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, small_state(1))
    checkpoints.save(2, small_state(2))
    damage(tmp_path / "save_000002.ckpt", how)
    with pytest.warns(RuntimeWarning, match=r"save_000002.ckpt cannot be read .*from save_000001.ckpt, step 1"):
        restored = Checkpoints(tmp_path).restore_latest(small_state())
    assert restored is not None and restored.step == 1
    assert_identical(restored.state, small_state(1))
    assert sorted(os.listdir(tmp_path)) == ["damaged_save_000002.ckpt", "save_000001.ckpt"]


def test_a_run_goes_on_after_damage_and_the_damaged_one_takes_no_place(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, small_state(step))
    damage(tmp_path / "save_000003.ckpt", "truncate")
    with pytest.warns(RuntimeWarning, match="step 2"):
        checkpoints.restore_latest(small_state())
    checkpoints.save(3, small_state(3))
    restored = checkpoints.restore_latest(small_state())
    assert restored is not None and restored.step == 3
    assert len(list(tmp_path.glob("save_*"))) == 2
    for path in tmp_path.glob("save_*"):
        damage(path, "truncate")
    with pytest.raises(
        RunError, match="no checkpoint in .* can be read: checkpoint save_000003.ckpt .*save_000002.ckpt"
    ):
        checkpoints.restore_latest(small_state())


def test_a_checkpoint_of_an_older_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "save_000003").mkdir()  # as versions up to 0.1 wrote them
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(RunError, match="save_000003' was written by an older version of jaxdarts, which alone can"):
        checkpoints.restore_latest(small_state())
    with pytest.raises(RunError, match="older version"):
        checkpoints.save(1, small_state())
    assert os.listdir(tmp_path) == ["save_000003"]


def test_the_step_is_read_without_the_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        Checkpoints(tmp_path, keep=3).save(step, small_state(step))
    monkeypatch.setattr(Checkpoints, "_read", lambda *_: pytest.fail("reads all"))
    Checkpoints(tmp_path, keep=1).save(4, small_state(4), also_keep=[2])
    assert sorted(os.listdir(tmp_path)) == ["save_000002.ckpt", "save_000004.ckpt"]


def test_a_full_disk_is_one_line_and_harms_no_other_checkpoint(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"w": jnp.arange(100_000.0)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, big)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunError, match="cannot write a checkpoint to .*: File too large$"):
            checkpoints.save(2, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    restored = checkpoints.restore_latest(big)
    assert restored is not None and restored.step == 1
    checkpoints.save(3, big)
    restored = checkpoints.restore_latest(big)
    assert restored is not None and restored.step == 3


SAVE_UNTIL_KILLED = """
import os, signal, sys
import jax, jax.numpy as jnp
from jaxdarts.runs.checkpoint import Checkpoints

folder, fatal_event = sys.argv[1:]
def kill(event, args):
    # Just before the third checkpoint gets its name, or when its file has been made and is empty.
    fatal = event == fatal_event and (event != "open" or isinstance(args[0], int))
    if fatal:
        os.kill(os.getpid(), signal.SIGKILL)
def state(step):
    return {"w": jnp.arange(5, dtype=jnp.float32) + step, "key": jax.random.key(step), "step": jnp.int32(step)}
checkpoints = Checkpoints(folder, keep=1)
checkpoints.save(1, state(1))
checkpoints.save(2, state(2))
print("saved", flush=True)
sys.addaudithook(kill)
checkpoints.save(3, state(3))
"""


@pytest.mark.parametrize("event", ["open", "os.rename"])
def test_kill_in_the_middle_of_a_save_leaves_the_one_before(tmp_path: Path, event: str) -> None:
    command = [sys.executable, "-c", SAVE_UNTIL_KILLED, str(tmp_path), event]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert process.stdout == "saved\n" and process.stderr == ""
    assert any("tmp" in entry.name for entry in tmp_path.iterdir())  # it was indeed in the middle
    checkpoints = Checkpoints(tmp_path, keep=1)
    restored = checkpoints.restore_latest(small_state())
    assert restored is not None and restored.step == 2
    assert_identical(restored.state, small_state(2))
    checkpoints.save(3, small_state(3))
    restored = checkpoints.restore_latest(small_state())
    assert restored is not None and restored.step == 3
    assert [path.name for path in tmp_path.glob("save_*")] == ["save_000003.ckpt"]  # a run removes the other file
