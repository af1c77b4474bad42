"""Rollouts: the same seed gives the same episode, latency is charged, instructions are obeyed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk, Observation
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.hold import HoldPolicy
from wam_ros.rollout import Episode, Observer, Rollout, Settings
from wam_ros.rollout.policies import teacher
from wam_ros.sim.disturbance import draw_disturbance
from wam_ros.sim.variation import Scenes

SAY = "touch the red block with the left hand"
SMALL = Settings(render_width=64)


class Everything(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.views: list[bytes] = []
        self.observations: list[Observation] = []
        self.commands: list[bytes] = []
        self.chunks: list[tuple[float, ActionChunk, str]] = []
        self.said: list[tuple[float, str]] = []

    def on_observation(self, t: float, observation: Observation) -> None:
        self.observations.append(observation)
        if len(self.observations) % 10 == 0:
            self.views.append(b"".join(v.tobytes() for v in observation.views.values()))

    def on_command(self, t: float, channel: object, values: np.ndarray) -> None:
        self.commands.append(values.tobytes())

    def on_chunk(self, t: float, chunk: ActionChunk, refused: str) -> None:
        self.chunks.append((t, chunk, refused))

    def on_instruction(self, t: float, instruction: str) -> None:
        self.said.append((t, instruction))


@pytest.fixture(scope="module")
def rollout() -> Iterator[Rollout]:
    made = Rollout(load_contract("agibot_g1"), teacher(0.1), latency=0.1, settings=SMALL)
    yield made
    made.close()


def same(a: Episode, b: Episode) -> bool:
    parts = [
        (np.array_equal(getattr(a.trace, n), getattr(b.trace, n)))
        for n in ("t", "reference", "measured", "acceleration", "mode")
    ]
    parts += [np.array_equal(a.trace.tips[k], b.trace.tips[k]) for k in a.trace.tips]
    parts += [np.array_equal(a.trace.objects[k], b.trace.objects[k]) for k in a.trace.objects]
    return all(parts) and str(a.chunks) == str(b.chunks) and a.segments == b.segments


@pytest.mark.parametrize("cadence", ["async", "sync", "sliding"])
def test_the_same_seed_gives_the_same_episode_bit_for_bit(cadence: str) -> None:
    drawn = lambda rng: rng.uniform(0.05, 0.25)  # noqa: E731
    heard, episodes = [], []
    for order in ((3, 5), (5,)):  # what ran before must not matter
        r = Rollout(
            load_contract("agibot_g1"), teacher(0.15), cadence=cadence, latency=drawn,
            settings=SMALL,
        )  # fmt: skip
        for seed in order:
            ear = Everything()
            episode = r.run(SAY, 1.5, [ear], seed=seed)
        heard.append((ear.views, ear.commands))
        episodes.append(episode)
        r.close()
    assert same(*episodes)
    assert heard[0] == heard[1]
    assert len(heard[0][0]) > 3 and len(episodes[0].chunks) > 0


def test_another_seed_gives_another_episode(rollout: Rollout) -> None:
    a, b = rollout.run(SAY, 1.0, seed=3), rollout.run(SAY, 1.0, seed=4)
    assert not same(a, b)


@pytest.mark.parametrize("cadence", ["async", "sync", "sliding"])
def test_the_teacher_succeeds_in_every_cadence(cadence: str) -> None:
    r = Rollout(
        load_contract("franka_droid"), teacher(0.1), cadence=cadence, latency=0.1, settings=SMALL
    )
    episode = r.run("touch the blue block", 8.0, seed=1)
    r.close()
    assert episode.success and episode.final_distance < 0.03 and not episode.error
    assert episode.time_to_success is not None and episode.time_to_success < 8.0
    assert {c.cadence for c in episode.chunks} == {cadence}
    assert all(not c.refused for c in episode.chunks)
    if cadence == "sync":  # it holds while the policy thinks
        assert episode.holds >= len(episode.chunks) - 1
        # The last hold may be cut short by success.
        assert episode.hold_seconds >= 0.1 * (episode.holds - 1) - 0.02
    else:
        assert episode.holds == 0


class Slow(HoldPolicy):
    """Takes 60 ms of wall time."""

    def infer(self, window: Window) -> ActionChunk:
        time.sleep(0.06)
        return super().infer(window)


def test_measured_latency_is_charged_and_fixed_latency_is_what_it_says() -> None:
    contract = load_contract("franka_droid")
    r = Rollout(contract, Slow(), cadence="sliding", latency="measured", settings=SMALL)
    measured = r.run("touch the red block", 1.0).chunks
    r.close()
    assert len(measured) > 2
    for chunk in measured:
        assert chunk.latency >= 0.06
        assert 0.0 <= chunk.delivered - chunk.called - chunk.latency < 0.0021
    # The first chunk's rows start on arrival; those of later ones are late by what the call took.
    for chunk in measured[1:]:
        assert chunk.delay_rows >= 0.06 / contract.rates.step_period - 0.1
    r = Rollout(contract, Slow(), cadence="sliding", latency=0.013, settings=SMALL)
    assert {c.latency for c in r.run("touch the red block", 0.5).chunks} == {0.013}
    r.close()


def test_the_world_goes_on_while_the_policy_thinks(rollout: Rollout) -> None:
    ear = Everything()
    rollout.run(SAY, 1.5, [ear], seed=1)
    stamps = [o.t0 for o in ear.observations]
    t, chunk, _ = ear.chunks[1]
    between = [s for s in stamps if chunk.t0 < s <= t]
    assert len(between) == 3  # 0.1 s at 30 Hz
    assert chunk.inference_end - chunk.inference_start == pytest.approx(0.1)


def test_an_instruction_said_on_the_way_is_obeyed(rollout: Rollout) -> None:
    ear = Everything()
    episode = rollout.run(
        SAY, 10.0, [ear], seed=2, then=[(0.95, "touch the blue block with the right hand")]
    )
    first, second = episode.segments
    assert not first.success and second.success and not episode.success
    assert second.start - first.start == pytest.approx(0.95, abs=0.011)
    assert [text for _, text in ear.said] == [SAY, "touch the blue block with the right hand"]
    late = [c for t, c, _ in ear.chunks if t > second.start + 1e-9]
    assert {c.instruction for c in late} == {"touch the blue block with the right hand"}


def test_a_chain_says_the_next_when_the_last_is_done(rollout: Rollout) -> None:
    chain = ["touch the green block with the right hand", "touch the red block with the left hand"]
    episode = rollout.run(SAY, 25.0, seed=2, then=[(None, text) for text in chain])
    assert [s.instruction for s in episode.segments] == [SAY, *chain]
    assert episode.success and episode.time_to_success is not None
    starts = [s.start + (s.time_to_success or 0.0) for s in episode.segments]
    assert starts[0] == pytest.approx(episode.segments[1].start, abs=0.011)


def test_an_empty_instruction_stops_the_arm(rollout: Rollout) -> None:
    episode = rollout.run(SAY, 2.5, seed=2, then=[(1.0, "")])
    assert np.allclose(np.diff(episode.trace.reference[-20:], axis=0), 0.0)
    assert not episode.success


def test_scenes_and_disturbances_are_part_of_the_episode() -> None:
    contract = load_contract("agibot_g1")
    scenes = Scenes(contract)
    r = Rollout(contract, teacher(0.1), latency=0.1, settings=SMALL, scenes=scenes)
    episodes = []
    for _ in range(2):
        scene = scenes.draw(4)
        mishap = draw_disturbance(contract, scene.blocks, 4, window=(0.5, 0.6))
        ear = Everything()
        episodes.append((r.run(SAY, 1.5, [ear], seed=4, disturbances=[mishap]), ear.views))
        assert mishap.happened_at is not None
    quiet = r.run(SAY, 1.5, seed=4)
    r.close()
    assert same(episodes[0][0], episodes[1][0]) and episodes[0][1] == episodes[1][1]
    assert not same(episodes[0][0], quiet)
    start = dict(zip(quiet.trace.names, quiet.trace.measured[0].tolist(), strict=True))
    drawn = scenes.draw(4).start
    assert all(abs(start[n] - v) < 0.02 for n, v in drawn.items())


def test_an_event_changes_the_world_and_the_teacher_follows(rollout: Rollout) -> None:
    def push(plant: object) -> None:
        start = plant.model.joint("red_block").qposadr[0]  # type: ignore[attr-defined]
        plant.data.qpos[start] -= 0.05  # type: ignore[attr-defined]

    quiet = rollout.run(SAY, 8.0, seed=1)
    moved = rollout.run(SAY, 8.0, seed=1, events=[(1.0, push)])
    x = moved.trace.objects["red_block"][:, 0] - quiet.trace.objects["red_block"][0, 0]
    assert abs(x[0]) < 0.001 and x[-1] == pytest.approx(-0.05, abs=0.005)
    assert moved.success


def test_pictures_are_drawn_when_looked_at_and_only_then(rollout: Rollout) -> None:
    before = rollout.cameras.drawn
    ear = Everything()
    rollout.run(SAY, 0.5, [], seed=1)
    assert rollout.cameras.drawn == before
    rollout.run(SAY, 0.5, [ear], seed=1)
    assert rollout.cameras.drawn - before == 3 * len(ear.views)
    rollout.run(SAY, 0.1, [], seed=2)
    late = next(o for i, o in enumerate(ear.observations) if i % 10 == 0)
    with pytest.raises(RuntimeError, match="after its episode had ended"):
        late.views["top_head"]


def test_views_have_the_contract_s_size_and_show_the_moment(rollout: Rollout) -> None:
    ear = Everything()
    rollout.run(SAY, 2.0, [ear], seed=1)
    c = rollout.contract
    assert len(ear.views[0]) == 3 * c.view_width * c.view_height * 3
    assert ear.views[0] != ear.views[-1]
    gaps = np.diff([o.t0 for o in ear.observations])
    assert np.allclose(gaps, c.rates.step_period, atol=0.0021)


def test_a_delayed_camera_makes_observations_older() -> None:
    class Ages(Observer):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_observation(self, t: float, observation: Observation) -> None:
            self.found.append(t - observation.t0)

    for delay in (0.0, 0.05):
        settings = dataclasses.replace(SMALL, camera_delay=delay)
        r = Rollout(load_contract("franka_droid"), HoldPolicy(), latency=0.1, settings=settings)
        ages = Ages()
        r.run("touch the red block", 0.8, [ages])
        r.close()
        period = r.contract.rates.step_period
        assert all(delay - 1e-6 <= a <= delay + period + 0.0021 for a in ages.found)


class Broken(HoldPolicy):
    """Fails in every call."""

    def infer(self, window: Window) -> ActionChunk:
        raise PolicyError("no weights")


def test_a_policy_that_gives_up_ends_the_episode_with_its_reason() -> None:
    r = Rollout(load_contract("franka_droid"), Broken(), latency=0.1, settings=SMALL)
    episode = r.run("touch the red block", 5.0)
    assert episode.error == "no weights" and not episode.success
    assert episode.simulated_seconds < 1.0
    r.close()


def test_an_instruction_nobody_understands_ends_the_episode(rollout: Rollout) -> None:
    episode = rollout.run("make me a coffee", 3.0)
    assert "cannot understand" in episode.error and not episode.success


def test_what_cannot_be_run_is_refused_with_its_name(rollout: Rollout) -> None:
    with pytest.raises(ValueError, match="deadline"):
        rollout.run(SAY, 0.0)
    odd = Rollout(
        load_contract("franka_droid"), HoldPolicy(), settings=Settings(control_rate=333.0)
    )
    with pytest.raises(ValueError, match="333"):
        odd.run("touch the red block", 1.0)
    with pytest.raises(ValueError, match="cadence"):
        Rollout(load_contract("franka_droid"), HoldPolicy(), cadence="often").run("x", 1.0)


def test_small_views_come_from_a_contract_with_a_small_view() -> None:
    contract = dataclasses.replace(load_contract("franka_droid"), view_width=64, view_height=36)
    r = Rollout(contract, HoldPolicy(), latency=0.05, settings=SMALL)
    ear = Everything()
    r.run("touch the red block", 0.5, [ear])
    r.close()
    assert {len(v) for v in ear.views} == {len(contract.cameras) * 64 * 36 * 3}
