"""The session in robot units: a saved checkpoint opened, driven, and compared with plain calls."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.checkpoint.load import load
from wam_ros.wam.checkpoint.metadata import read_metadata
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.head import CallOptions
from wam_ros.wam.parity.result import relative_l2
from wam_ros.wam.presets import tiny
from wam_ros.wam.random_model import random_head, random_networks, random_prompt
from wam_ros.wam.robot import RobotCodec, RobotSession
from wam_ros.wam.savings import Savings
from wam_ros.wam.session import Session

CONFIG = tiny(latent=(2, 4), num_frames=17)
PERIOD, ONE = 0.1, CallOptions(steps=1)
CAMERAS = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")


def tokenizer(text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that depend on the text only."""
    return random_prompt(CONFIG, sum(text.encode()), tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    path = tmp_path_factory.mktemp("robot") / "ckpt"
    metadata = read_metadata(golden / "metadata.json")
    save(path, CONFIG, random_networks(CONFIG, 2), {"oxe_droid": metadata["oxe_droid"]})
    return path


def opened(folder: Path, **options: object) -> RobotSession:
    options = {"precision": "fp32", "options": ONE, "step_period": PERIOD, **options}
    robot = RobotSession.open(folder, "oxe_droid", tokenizer, **options)  # type: ignore[arg-type]
    robot.instruct("pick the block")
    return robot


def look(i: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(i)
    views = {n: rng.integers(0, 256, (180, 320, 3), dtype=np.uint8) for n in CAMERAS}
    state = {"joint_position": rng.uniform(-0.5, 0.5, 7), "gripper_position": rng.uniform(0, 1, 1)}
    return views, state


def feed(robot: RobotSession, start: int, count: int) -> int:
    for i in range(start, start + count):
        robot.observe(*look(i), stamp=PERIOD * i)
    return start + count


def test_sync_in_robot_units_equals_plain_calls(folder: Path) -> None:
    robot, loaded = opened(folder), load(folder, dtype=torch.float32)
    codec = RobotCodec.of(loaded, "oxe_droid")
    head = random_head(CONFIG, Savings.none(), 2)
    head._negative = robot.session.head._negative
    prompt = robot.session._tokens
    assert prompt is not None
    at = feed(robot, 0, 1)
    for fed in ([0], [1, 2, 4, 6], [7, 8, 10, 12]):
        got = robot.chunk()
        images = torch.stack([codec.picture(look(i)[0]) for i in fed])[None]
        raw = look(fed[-1])[1]
        expected = head.call(images, *prompt, codec.state(raw).float(), ONE)
        assert relative_l2(got.model.actions, expected.action[0]) < 1e-5
        assert got.actions.shape == (6, 8)
        assert got.columns == ("joint_position",) * 7 + ("gripper_position",)
        assert got.model.stamp == pytest.approx(PERIOD * fed[-1])
        assert np.array_equal(got.anchor["joint_position"], raw["joint_position"])
        # The joints are relative to the state of the observation, the gripper is not.
        s = codec.action_statistics
        for key, part, base in (
            ("joint_position", slice(0, 7), raw["joint_position"]),
            ("gripper_position", slice(7, 8), 0.0),
        ):
            x = expected.action[0, :, part].double().numpy()
            values = (x + 1) / 2 * (s[key].q99 - s[key].q01) + s[key].q01 + base
            np.testing.assert_allclose(got.actions[:, part], values, atol=2e-4)
        at = feed(robot, at, 6)
    frames = robot.decode(got)
    assert frames is not None and frames.shape == (8, 16, 32, 3) and frames.dtype == np.uint8


@pytest.mark.parametrize("cadence", ["sync", "async", "sliding"])
def test_every_cadence_runs_through_a_full_window(folder: Path, cadence: str) -> None:
    robot, at = opened(folder, cadence=cadence), 0
    at = feed(robot, at, 7 if cadence == "sliding" else 1)
    rows = {"sync": 6, "async": 4, "sliding": 1}[cadence]
    found = []
    for _ in range(6):
        found.append(robot.chunk(rows if cadence == "async" else None))
        at = feed(robot, at, rows)
    assert all(np.isfinite(c.actions).all() for c in found)
    defined = [not math.isnan(robot.surprise(c)) for c in found]
    # From the second call on; a row at a time it takes three until a latent has been seen.
    assert defined == [k >= (3 if cadence == "sliding" else 1) for k in range(6)]
    contexts = [c.model.context[0] for c in found]
    assert contexts == ([3] * 6 if cadence == "sliding" else [1, 3, 5, 7, 1, 3])


def test_bad_observations_are_named_and_leave_no_trace(folder: Path) -> None:
    robot = opened(folder)
    views, state = look(0)
    short = {**state, "joint_position": state["joint_position"][:6]}
    nan = {**state, "gripper_position": np.array([np.nan])}
    small = {**views, CAMERAS[0]: views[CAMERAS[0]][:90]}
    cases = [
        ((small, state), r"exterior_image_1_left: frames are 320x90.*trained on 320x180"),
        (({CAMERAS[0]: views[CAMERAS[0]]}, state), r"cameras given"),
        ((views, short), r"state 'joint_position' has shape \(1, 6\)"),
        ((views, nan), r"'gripper_position' holds values that are not finite"),
        ((views, {}), r"no 'joint_position'"),
    ]
    for (v, s), words in cases:
        with pytest.raises(ValueError, match=words):
            robot.observe(v, s, 0.0)
    with pytest.raises(RuntimeError, match="no observation yet"):
        robot.chunk()
    with pytest.raises(ValueError, match=r"images are 8x32, the model takes 16x32"):
        robot.session.observe(torch.zeros(8, 32, 3, dtype=torch.uint8), 0.0)
    robot.observe(views, state, 0.0)
    robot.observe(*look(1), 0.0)  # not newer: ignored, its state too
    assert np.array_equal(robot.chunk().anchor["joint_position"], state["joint_position"])


def test_what_a_checkpoint_lacks_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no statistics for 'agibot'.*lists: oxe_droid"):
        RobotSession.open(folder, "agibot", tokenizer, precision="fp32")
    with pytest.raises(ValueError, match="precision 'fp4' is not one of fp32, bf16"):
        RobotSession.open(folder, "oxe_droid", tokenizer, precision="fp4")
    with pytest.raises(ValueError, match="no embodiment 'hexapod'"):
        RobotSession.open(folder, "hexapod", tokenizer, precision="fp32")


def test_sliding_history_needs_a_window_that_holds_it() -> None:
    head = random_head(tiny(latent=(2, 4), max_chunk_size=1))
    with pytest.raises(ValueError, match="needs a window of 5 latent frames; this model's has 3"):
        Session(head, tokenizer, cadence="sliding")
    Session(head, tokenizer, cadence="sliding", history=0)


HEAD = random_head(CONFIG, Savings.only("staged_vae"), 2)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=0, max_size=9), min_size=1, max_size=6),
    st.sampled_from([4, 8, 9]),
)
def test_frames_are_fed_in_order_once_and_never_while_holding(
    blocks: list[list[bool]], count: int
) -> None:
    session = Session(HEAD, tokenizer, frames_per_call=count, options=ONE, step_period=PERIOD)
    session.instruct("go")
    stamp, rows = 0.0, 0.0
    session.observe(_image(0), stamp)
    boundary = 0.0
    for block in [[], *blocks]:
        rows = 0.0
        for moving in block:
            stamp += PERIOD
            rows += moving
            session.observe(_image(int(stamp / PERIOD)), stamp, rows, moving)
        got = session.chunk(torch.zeros(1, 1, CONFIG.dit.max_state_dim))
        assert got.stamp == pytest.approx(stamp)
        assert got.stamp >= boundary
        assert list(got.fed) == sorted(got.fed)
        if not got.reset and rows:
            assert len(got.fed) == count
            assert got.fed[-1] == min(rows, 6)
            assert set(got.fed) <= set(range(int(rows) + 1))
            # The block's own frames, and the one at its start in the form of 9.
            assert got.fed[0] >= (0 if count == 9 else 1)
        else:
            assert len(got.fed) == 1
        boundary = got.stamp


def _image(seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (16, 32, 3), dtype=torch.uint8, generator=g)
