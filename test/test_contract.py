"""The contract: shipped robots say what the fact sheets say, and mistakes are named."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from wam_ros.contract import Contract, ContractError, load_contract, robots
from wam_ros.resources import share

RAW = yaml.safe_load((share() / "config" / "robots" / "agibot_g1.yaml").read_text())


def load_changed(tmp_path: Path, change) -> Contract:
    raw = copy.deepcopy(RAW)
    change(raw)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return load_contract(path)


def test_three_robots_ship() -> None:
    assert robots() == ["agibot_g1", "franka_droid", "yam"]


@pytest.mark.parametrize(
    ("robot", "state", "action", "period"),
    [("agibot_g1", 20, 22, 1 / 30), ("franka_droid", 8, 8, 1 / 15), ("yam", 14, 14, 1 / 30)],
)
def test_vector_sizes_and_rates(robot: str, state: int, action: int, period: float) -> None:
    c = load_contract(robot)
    assert len(c.state_names) == state
    assert len(c.action_names) == action == len(c.action_kinds)
    assert c.rates.step_period == pytest.approx(period)
    assert c.rates.horizon == 24


def test_gripper_direction_differs_between_robots() -> None:
    assert load_contract("agibot_g1").group("left_gripper").open_value == 0.0
    assert load_contract("franka_droid").group("gripper").open_value == 0.0
    assert load_contract("yam").group("left_gripper").open_value == 1.0


@pytest.mark.parametrize("robot", ["agibot_g1", "franka_droid", "yam"])
def test_open_gripper_means_spread_fingers(robot: str) -> None:
    """Whatever the data convention, "open" must put both fingers of the model apart."""
    c = load_contract(robot)
    for g in (g for g in c.groups if g.role == "gripper"):
        for _, scale, offset in g.joints[0].urdf:
            assert g.open_value is not None and g.closed_value is not None
            assert scale * g.open_value + offset > 0.04
            assert scale * g.closed_value + offset == pytest.approx(0.0)


def test_raw_gripper_of_the_g1_maps_35_to_open_and_120_to_closed() -> None:
    source = next(s for s in load_contract("agibot_g1").sources if s.name == "left_ee")
    assert 35 * source.scale + source.offset == pytest.approx(0.0)
    assert 120 * source.scale + source.offset == pytest.approx(1.0)


def test_relative_keys_follow_training() -> None:
    g1, droid, yam = (load_contract(r) for r in robots())
    assert {k.key for k in g1.action if not k.relative} == {"robot_velocity"}
    assert {k.key for k in droid.action if not k.relative} == {"gripper_position"}
    assert all(k.relative for k in yam.action)


def test_a_base_is_off_by_default() -> None:
    c = load_contract("agibot_g1")
    assert "base_vx" in c.action_names
    assert "base_vx" not in c.control_names
    assert c.action_kinds[-2:] == ("velocity", "velocity")


def test_g1_arm_output_respects_the_vendor_step() -> None:
    arms = next(o for o in load_contract("agibot_g1").outputs if o.name == "arms")
    assert arms.max_step == 0.2618
    assert arms.rate == 100


def test_unknown_robot_suggests_the_nearest() -> None:
    with pytest.raises(ContractError, match="Did you mean 'agibot_g1'"):
        load_contract("agibot_g2")


def test_missing_file_is_named() -> None:
    with pytest.raises(ContractError, match=r"nowhere\.yaml: no such contract file"):
        load_contract("./nowhere.yaml")


def test_broken_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("robot: [unclosed")
    with pytest.raises(ContractError, match=r"broken\.yaml: cannot be read as YAML"):
        load_contract(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(prmopt="x"), "did you mean 'prompt'"),
        (lambda r: r.pop("cameras"), "add the missing key cameras"),
        (lambda r: r["sources"][0].update(policy="guess"), "not one of hold, asof, drop"),
        (lambda r: r["state"][0].update(joints="left_amr"), "did you mean 'left_arm'"),
        (lambda r: r["groups"][0]["limits"].pop("jerk"), "no limit for jerk"),
        (lambda r: r["groups"][0]["joints"][0].update(home=9.0), "home 9.0 is outside"),
        (lambda r: r["groups"][0].pop("tip_link"), "an arm needs tip_link"),
        (lambda r: r["groups"][2].pop("open_value"), "needs open_value and closed_value"),
        (lambda r: r["sources"].pop(0), "no source brings joint 'left_arm_joint1'"),
        (lambda r: r["outputs"].pop(0), "no output drives joint 'left_arm_joint1'"),
        (lambda r: r["action"][0].update(enabled=False), "which no enabled action key moves"),
        (lambda r: r["groups"][0]["limits"].update(jerk=9e5), "lower the jerk"),
        (lambda r: r["outputs"][0].update(rate=1000), "above the control loop's 500"),
        (lambda r: r["outputs"][0].update(type="unknown"), "its status must be unknown too"),
        (lambda r: r.update(prompt="do it"), "must contain {instruction}"),
        (lambda r: r["cameras"][1].update(slot="top_left"), "used by two cameras"),
        (lambda r: r["action"][0].update(kind="velocity"), "a base moves by velocity"),
        (lambda r: r["rates"].update(action="fast"), "rates.action"),
    ],
)
def test_mistakes_are_named_with_file_key_and_fix(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(ContractError) as err:
        load_changed(tmp_path, change)
    assert message in str(err.value)
    assert "mine.yaml: " in str(err.value)


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    def change(raw) -> None:
        raw["groups"][0]["joints"][0]["home"] = 9.0
        raw["prompt"] = "no placeholder"

    with pytest.raises(ContractError) as err:
        load_changed(tmp_path, change)
    assert "home 9.0" in str(err.value)
    assert "{instruction}" in str(err.value)
