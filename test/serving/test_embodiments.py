"""Every robot in front of a checkpoint: in process, over our own dialect, and the size of views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch
from random_checkpoint import write_checkpoint

from wam_ros.contract import Contract, load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.fit import view_note
from wam_ros.policy.registry import make
from wam_ros.policy.remote.fields import resize
from wam_ros.policy.wam import WamPolicy
from wam_ros.wam import prompts
from wam_ros.wam.adapter import Adapter
from wam_ros.wam.checkpoint.load import load
from wam_ros.wam.head import CallOptions, PolicyHead
from wam_ros.wam.text import Tokenizer

ROBOTS = ("agibot_g1", "franka_droid", "yam")
SIZES = {"agibot_g1": (480, 640), "franka_droid": (180, 320), "yam": (360, 640)}
PROMPT = "touch the red block"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def trained_size(contract: Contract, size: tuple[int, int]) -> Contract:
    return dataclasses.replace(contract, view_height=size[0], view_width=size[1])


def frame(contract: Contract, i: int) -> Observation:
    """What is seen at row ``i``: noise, so that no two frames are alike, near the home pose."""
    rng = np.random.default_rng(i)
    shape = (contract.view_height, contract.view_width, 3)
    views = {c.name: rng.integers(0, 256, shape, np.uint8) for c in contract.cameras}
    home = np.array([contract.joints[n].home for n in contract.state_names])
    return Observation(i * contract.rates.step_period, views, home + 0.001 * i)


def hosted(checkpoint: Path, contract: Contract) -> WamPolicy:
    policy = WamPolicy({"checkpoint": str(checkpoint), "device": "cpu"})
    policy.configure(contract)
    return policy


def by_the_models_parts(checkpoint: Path, contract: Contract, seen: Observation) -> dict[str, Any]:
    """The first chunk, computed without the policy: action key -> absolute rows."""
    loaded = load(checkpoint, dtype=torch.float32)
    adapter = Adapter.of(loaded.config, loaded.metadata or {}, contract.embodiment, None)
    tokenizer = Tokenizer(checkpoint / "tokenizer", loaded.config.dit.text_len)
    n = loaded.networks
    head = PolicyHead(loaded.config, n.dit, n.text, n.image, n.vae, tokenizer(prompts.NEGATIVE))
    size = SIZES[contract.robot]
    pictures = {
        c.model_key.removeprefix("video."): torch.from_numpy(
            np.array(resize(seen.views[c.name], size))
        )[None]
        for c in contract.cameras
    }
    state = {k.key: seen.state[k.start : k.stop][None] for k in contract.state}
    result = head.call(
        adapter.composite(pictures)[None],
        *tokenizer(adapter.prompt(PROMPT)),
        torch.from_numpy(adapter.state(state)),
        dataclasses.replace(CallOptions.of(loaded.config.head), want_video=False),
    )
    return adapter.actions(result.action.numpy(), state)


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_chunk_is_what_the_models_parts_give(checkpoint: Path, robot: str) -> None:
    contract = load_contract(robot)
    policy, seen = hosted(checkpoint, contract), frame(contract, 0)
    policy.reset(PROMPT)
    chunk = policy.infer(Window((seen,)))
    expected = by_the_models_parts(checkpoint, contract, seen)
    assert chunk.names == contract.action_names and chunk.kinds == contract.action_kinds
    for key in contract.action:
        columns = [chunk.names.index(n) for n in key.joints]
        np.testing.assert_allclose(
            chunk.actions[:, columns], np.asarray(expected[key.key])[0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_native_dialect_gives_the_same(
    serve: Callable[..., str], checkpoint: Path, robot: str
) -> None:
    contract = load_contract(robot)
    served, here = hosted(checkpoint, contract), hosted(checkpoint, contract)
    url = serve(robot, served, "native", loaded=True)
    there = make("wam_serve", {"server": url, "server_timeout": 60.0, "server_wait": 5.0})
    try:
        there.configure(contract)
        assert getattr(there, "view_size") == SIZES[robot]  # noqa: B009
        offsets = getattr(there, "frame_rows")  # noqa: B009
        for policy in (here, there):
            policy.reset(PROMPT)
        for row in (0, 24, 48):
            frames = tuple(frame(contract, row + o) for o in offsets if row + o >= 0)
            window = Window(frames, executed_rows=24.0 if row else 0.0)
            one, other = here.infer(window), there.infer(window)
            np.testing.assert_allclose(other.actions, one.actions, rtol=1e-6, atol=1e-7)
            assert other.names == contract.action_names
            assert np.all(np.isfinite(one.actions)) and one.actions.std() > 0
    finally:
        there.close()


@pytest.mark.parametrize("robot", ROBOTS)
def test_what_perception_publishes_is_what_the_model_takes_or_is_named(
    checkpoint: Path, robot: str
) -> None:
    contract = load_contract(robot)
    policy = hosted(checkpoint, contract)
    assert policy.view_size == SIZES[robot]
    ours = (contract.view_height, contract.view_width)
    note = view_note(contract, policy.view_size)
    if ours == SIZES[robot]:
        assert note == ""
    else:
        for height, width in (ours, SIZES[robot]):
            assert f"{width}x{height}" in note
    as_trained = trained_size(contract, SIZES[robot])
    assert view_note(as_trained, policy.view_size) == ""
    # Views of that size go to the model's own chain untouched.
    seen = frame(as_trained, 0)
    policy.configure(as_trained)
    policy.reset(PROMPT)
    chunk = policy.infer(Window((seen,)))
    expected = by_the_models_parts(checkpoint, as_trained, seen)
    key = contract.action[0]
    columns = [chunk.names.index(n) for n in key.joints]
    np.testing.assert_allclose(
        chunk.actions[:, columns], np.asarray(expected[key.key])[0], rtol=1e-5, atol=1e-6
    )


def test_another_robots_checkpoint_names_what_differs(tmp_path: Path) -> None:
    short = write_checkpoint(tmp_path, rows=12)
    with pytest.raises(PolicyError, match=r"gives 12 rows a chunk.*rates\.horizon is 24"):
        hosted(short, load_contract("yam"))


def test_a_network_too_narrow_for_the_robot_is_refused_at_configure(tmp_path: Path) -> None:
    contract = load_contract("yam")
    values = (len(contract.action_names), len(contract.state_names))
    assert values == (14, 14)
    hosted(write_checkpoint(tmp_path / "fits", widths=values), contract)
    narrow = write_checkpoint(tmp_path / "narrow", widths=(13, 12))
    with pytest.raises(
        PolicyError, match=r"14 state values, .*takes 12.*; .*14 action values, .*takes 13"
    ):
        hosted(narrow, contract)
