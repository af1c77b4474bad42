"""The teacher in the physics: bowl, mishaps, play; and the judges of what it did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import Window
from wam_ros.policy.scripted import ScriptedPolicy
from wam_ros.sim.disturbance import Disturbance, draw_disturbance
from wam_ros.sim.hindsight import Stretch, stretches
from wam_ros.sim.judge import BowlJudge, judge_for
from wam_ros.sim.plant import TIMESTEP, Plant
from wam_ros.sim.scene import BOWL_HEIGHT, BOWL_RADIUS
from wam_ros.sim.tasks import BowlTask, PlayTask, TouchTask, arms, parse_instruction
from wam_ros.sim.variation import Scenes


@pytest.fixture(scope="module", params=["agibot_g1", "franka_droid", "yam"])
def plant(request) -> Plant:
    return Plant(load_contract(request.param))


def carry_out(
    plant: Plant, seed: int, text: str, limit: float, each: Callable[[], object] = lambda: None
) -> bool:
    """Let the teacher drive the servos from a drawn scene; whether the judge is content."""
    contract = plant.contract
    plant.apply(Scenes(contract).draw(seed))
    plant.step(50)
    teacher = ScriptedPolicy(latency=0.0, sleep=lambda _: None, clock=lambda: 0.0)
    teacher.configure(contract)
    teacher.reset(text)
    judge = judge_for(parse_instruction(text, contract), plant)
    sent = plant.time
    while plant.time < limit and not judge.success:
        measured = plant.positions()
        state = np.array([measured[n] for n in contract.state_names])
        seen = Observation(plant.time, {}, state)
        chunk = teacher.infer(Window((seen,), plant.objects(), cadence="async"))
        for row in chunk.actions[: contract.rates.horizon // 3]:
            drives = zip(chunk.names, row.tolist(), strict=True)
            plant.set_targets({n: v for n, v in drives if contract.joints[n].urdf})
            sent += contract.rates.step_period
            plant.step(max(1, round((sent - plant.time) / TIMESTEP)))
            judge.watch(plant)
            each()
    return judge.success


def hand(plant: Plant, index: int) -> str:
    names = arms(plant.contract)
    return f" with the {names[index].partition('_')[0]} hand" if len(names) > 1 else ""


@pytest.mark.parametrize("seed", [0, 2])
def test_a_block_goes_into_the_bowl_and_nothing_else_moves(plant: Plant, seed: int) -> None:
    blocks = Scenes(plant.contract).draw(seed).blocks
    text = f"put the green block in the bowl{hand(plant, seed // 2)}"
    assert carry_out(plant, seed, text, 12.0)
    for name in ("red_block", "blue_block"):
        assert np.linalg.norm(plant.objects()[name] - blocks[name]) < 0.01


def test_a_block_that_is_moved_is_followed(plant: Plant) -> None:
    blocks = Scenes(plant.contract).draw(4).blocks
    # Early: later on the hand is at the block, which is then left alone.
    draws = (
        draw_disturbance(plant.contract, blocks, seed, target="red_block", window=(0.2, 0.4))
        for seed in range(20)
    )
    mishap = next(d for d in draws if d.kind == "move")
    text = f"touch the red block{hand(plant, 0)}"
    assert carry_out(plant, 4, text, 8.0, lambda: mishap.apply(plant))
    assert mishap.happened_at is not None
    place = mishap.vector
    assert np.linalg.norm(plant.objects()["red_block"] - place) < 0.01


def test_a_push_is_got_over(plant: Plant) -> None:
    mishap = Disturbance(
        "push", 0.8, arms(plant.contract)[0], np.array([0.0, plant.scene.push[1], 0])
    )
    text = f"touch the blue block{hand(plant, 0)}"
    assert carry_out(plant, 6, text, 8.0, lambda: mishap.apply(plant))
    assert mishap.happened_at is not None


def test_play_wanders_above_the_table_and_gets_words(plant: Plant) -> None:
    times: list[float] = []
    tips: dict[str, list] = {a: [] for a in arms(plant.contract)}
    blocks: dict[str, list] = {n: [] for n in plant.objects() if n != "bowl"}

    def keep() -> None:
        times.append(plant.time)
        for arm, track in tips.items():
            track.append(plant.tip(arm))
        for name, track in blocks.items():
            track.append(plant.objects()[name])

    assert not carry_out(plant, 8, "move around", 14.0, keep)
    for track in tips.values():
        assert np.ptp(track, axis=0).max() > 0.05
        assert np.min(track, axis=0)[2] > plant.scene.top + 0.02
    for track in blocks.values():
        assert np.ptp(track, axis=0).max() < 0.01
    found = stretches(
        np.array(times),
        {a: np.array(t) for a, t in tips.items()},
        {n: np.array(t) for n, t in blocks.items()},
    )
    assert found[0].begin == times[0] and found[-1].end == times[-1]


def test_hindsight_by_hand() -> None:
    times = np.arange(0.0, 5.0, 0.5)
    far = np.ones((10, 3))
    tip, block = far.copy(), np.zeros((10, 3))
    tip[3:5] = 0.0  # there from 1.5 to 2.0 s
    found = stretches(times, {"left_arm": tip, "right_arm": far}, {"red_block": block})
    assert found == [
        Stretch(0.0, 1.5, TouchTask("red_block", "left_arm")), Stretch(1.5, 4.5, PlayTask())
    ]  # fmt: skip
    assert stretches(times, {"left_arm": far}, {"red_block": block}) == [
        Stretch(0.0, 4.5, PlayTask())
    ]


def test_bowl_judge_wants_the_block_inside_below_the_rim_and_let_go() -> None:
    bowl, tip = np.zeros(3), np.array([0.3, 0.0, 0.1])
    inside = np.array([0.01, 0.0, 0.028])

    def judge(block: np.ndarray, hand: np.ndarray, opening: float) -> BowlJudge:
        found = BowlJudge(BowlTask("red_block", "arm"), "gripper", (1.0, 0.0))
        found.update(0.0, tip, np.array([0.3, 0.0, 0.02]), bowl, 1.0)
        for t in (1.0, 1.4, 1.6):
            found.update(t, hand, block, bowl, opening)
        return found

    held, away = inside + np.array([0.0, 0.0, 0.01]), np.array([0.0, 0.0, 0.15])
    assert judge(inside, away, 1.0).success and judge(inside, away, 0.0).success
    assert judge(inside, held, 0.6).success and not judge(inside, held, 0.4).success
    rim = np.array([0.0, 0.0, BOWL_HEIGHT + 0.001])
    beside = np.array([BOWL_RADIUS + 0.001, 0.0, 0.028])
    assert not judge(rim, away, 1.0).success and not judge(beside, away, 1.0).success
    assert judge(inside, away, 1.0).progress == 1.0
    assert 0.7 < judge(inside, held, 0.0).progress < 1.0
    short = BowlJudge(BowlTask("red_block", "arm"), "gripper", (1.0, 0.0))
    for t in (0.0, 0.2, 0.45):
        short.update(t, away, inside, bowl, 1.0)
    assert not short.success
