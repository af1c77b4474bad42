"""The World-Action Model that comes with the package really drives its robot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch

from wam_ros.bringup import default_policy
from wam_ros.contract import load_contract
from wam_ros.resources import shipped_model
from wam_ros.rollout.evaluate import Condition, Evaluator
from wam_ros.wam.checkpoint.load import load

SCENES = 6
LEAST = 4
"""Of `SCENES` new scenes; the model's card has the success rate over 200."""


@pytest.fixture(scope="module")
def folder() -> Path:
    found = shipped_model("agibot_g1")
    assert found is not None
    return found


def test_it_is_small_and_says_where_it_comes_from(folder: Path) -> None:
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 15e6
    loaded = load(folder, dtype=torch.float32)
    assert loaded.metadata is not None and loaded.metadata["agibot"].resolution == (160, 90)
    facts = json.loads((folder / "training.json").read_text())
    assert facts["settings"]["video_weight"] > 0.0, "it is a WAM, not the baseline"
    card = (folder / "README.md").read_text()
    for word in ("episodes", "seed", "Limits", "scripts/small_wam"):
        assert word in card
    assert default_policy("agibot_g1") == "wam"
    assert default_policy("yam") == "scripted"


@pytest.mark.parametrize("cadence", ["sliding", "async", "sync"])
def test_it_touches_what_it_is_told_in_scenes_it_has_not_seen(folder: Path, cadence: str) -> None:
    """A fixed latency, so that the same machine always gives the same episodes."""
    condition = Condition(
        "small", "wam", cadence, options={"checkpoint": str(folder)}, latency=0.1, seed=1
    )
    evaluator = Evaluator(condition)
    records = [evaluator.episode(i)[0] for i in range(SCENES)]
    evaluator.close()
    assert len({r.seed for r in records}) == SCENES
    assert sum(r.success for r in records) >= LEAST, [r.final_distance for r in records]


def test_it_does_what_was_said_and_not_what_is_near(folder: Path) -> None:
    """The same scene, another colour: another block is touched."""
    contract = load_contract("agibot_g1")
    condition = Condition(
        "small", "wam", "sliding", options={"checkpoint": str(folder)}, latency=0.1
    )
    evaluator = Evaluator(condition)
    reached = 0
    for seed in (1_000_001, 1_000_003):
        for colour in ("red", "green", "blue"):
            found = evaluator.rollout.run(
                f"touch the {colour} block with the left hand", 10.0, seed=seed
            )
            tip = found.trace.tips["left_arm"][-1]
            blocks = {n: p[-1] for n, p in found.trace.objects.items() if n != "bowl"}
            nearest = min(blocks, key=lambda n: float(((blocks[n] - tip) ** 2).sum()))
            reached += nearest == f"{colour}_block"
    evaluator.close()
    assert contract.robot == "agibot_g1"
    assert reached >= 5
