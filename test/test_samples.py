"""Single samples agree with themselves and with what the teacher does in a rollout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.rollout.samples import Samples


@pytest.fixture(scope="module")
def samples() -> Iterator[Samples]:
    made = Samples(load_contract("agibot_g1"), 64, per_scene=3, offsets=(-3, 0, 24))
    yield made
    made.close()


def test_a_scene_gives_the_same_samples_whatever_came_before(samples: Samples) -> None:
    first = samples.scene(3)
    samples.scene(4)
    again = samples.scene(3)
    assert len(first) == len(again) > 0
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.state, b.state) and np.array_equal(a.actions, b.actions)
        for x, y in zip(a.frames, b.frames, strict=True):
            assert all(np.array_equal(x[c], y[c]) for c in x)


def test_rows_go_on_from_the_state_at_joint_speed(samples: Samples) -> None:
    contract = samples.contract
    arms = [n for n in contract.action_names if contract.group_of(n).role == "arm"]
    state = [contract.state_names.index(n) for n in arms]
    action = [contract.action_names.index(n) for n in arms]
    speed = np.array([contract.joints[n].limits.velocity for n in arms])
    for index in range(4):
        for s in samples.scene(index):
            assert s.actions.shape == (contract.rates.horizon, len(contract.action_names))
            path = np.vstack([s.state[state], s.actions[:, action]])
            assert np.all(np.abs(np.diff(path, axis=0)) <= speed * contract.rates.step_period)


def test_frames_show_their_moments(samples: Samples) -> None:
    for s in samples.scene(1):
        assert [set(f) for f in s.frames] == [{c.name for c in samples.contract.cameras}] * 3
        assert s.frames[0]["top_head"].shape == (35, 64, 3)
        assert s.times[1] == 0.0 and s.times[0] <= 0.0 <= s.times[2]
        now, later = s.frames[1], s.frames[2]
        if np.ptp(s.actions, axis=0).max() > 0.1:
            assert any(not np.array_equal(now[c], later[c]) for c in now)


def test_training_and_held_out_samples_share_no_scene() -> None:
    contract = load_contract("franka_droid")
    places = {}
    for split in ("train", "held_out"):
        made = Samples(contract, 32, split=split, per_scene=1)
        places[split] = [s.objects["red_block"].tobytes() for s in made.stream(0, 5)]
        made.close()
    assert not set(places["train"]) & set(places["held_out"])


def test_the_teacher_does_not_stop_between_two_chunks(samples: Samples) -> None:
    contract = samples.contract
    arms = [n for n in contract.action_names if contract.group_of(n).role == "arm"]
    columns = [contract.action_names.index(n) for n in arms]
    moving = 0
    for index in range(6):
        for s in samples.scene(index):
            speed = np.abs(np.diff(s.actions[:, columns], axis=0)).max(axis=1)
            fast = speed[:-2] > 0.01  # rad a row, and still as fast two rows later
            moving += int(fast.sum())
            dead = (speed[1:-1] < 1e-9) & fast & (speed[2:] > 1e-4)
            assert not dead.any()
    assert moving > 20
