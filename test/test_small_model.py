"""The World-Action Model that comes with the package, in scenes it has not been trained on.

What it can do is measured by `wam evaluate` over hundreds of scenes (docs/small_wam.md). Few are
run here, with room for chance.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest

from wam_ros.resources import shipped_model
from wam_ros.rollout.evaluate import Condition, Evaluator, evaluate
from wam_ros.sim.seeds import episode_seed

ROBOT = "agibot_g1"
FOLDER = shipped_model(ROBOT)
SCENES = 5

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch: make model"
)


def condition(cadence: str, split: str = "placements") -> Condition:
    """Unseen scenes of a seed that no record uses."""
    options = {"checkpoint": str(FOLDER)}
    return Condition("small", "wam", cadence, split=split, seed=7, options=options, latency=0.1)


def test_it_is_small_and_says_where_it_comes_from() -> None:
    assert FOLDER is not None
    size = sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file())
    assert size < 15e6
    card = (FOLDER / "README.md").read_text()
    for word in ("episodes", "seed", "Limits", "scripts/small_wam"):
        assert word in card, word
    assert (FOLDER / "model.safetensors").stat().st_mode & 0o044, "everybody may read it"
    told = json.loads((FOLDER / "training.json").read_text())
    assert told["dataset"]["episodes"] > 1000


@needs_torch
@pytest.mark.parametrize("cadence", ["sliding", "async", "sync"])
def test_it_touches_named_blocks_in_new_scenes(cadence: str) -> None:
    records = evaluate([condition(cadence)], SCENES)
    assert sum(r.success for r in records) >= 3, [r.final_distance for r in records]


@needs_torch
def test_it_understands_sentences_it_has_not_seen() -> None:
    records = evaluate([condition("sliding", split="paraphrases")], 4)
    assert sum(r.success for r in records) >= 2, [r.final_distance for r in records]


@needs_torch
def test_told_otherwise_on_the_way_it_obeys() -> None:
    evaluator = Evaluator(condition("sliding"))
    told = [(0.6, "touch the blue block with the right hand")]
    obeyed = 0
    for i in range(3):
        found = evaluator.rollout.run(
            "touch the red block with the left hand",
            12.0,
            seed=episode_seed("held_out", 700 + i),
            then=told,
        )
        assert [s.instruction for s in found.segments][-1] == told[0][1]
        # The other hand is at the other block, if not always within its 3 cm.
        obeyed += found.final_distance < 0.06
    evaluator.close()
    assert obeyed >= 2


@needs_torch
@pytest.mark.parametrize(
    ("cadence", "camera_rate"), [("sliding", None), ("sliding", 15.0), ("async", None)]
)
def test_every_call_but_the_first_says_how_surprised_it_is(
    cadence: str, camera_rate: float | None
) -> None:
    options = {"checkpoint": str(FOLDER), "imagined_video": "true"}
    given = replace(condition(cadence), options=options, camera_rate=camera_rate)
    evaluator = Evaluator(given)
    found = evaluator.rollout.run(
        "touch the red block with the left hand", 1.6, seed=episode_seed("held_out", 800)
    )
    evaluator.close()
    # A latent covers 0.4 s: what was imagined before has by then been seen.
    late = [c.surprise for c in found.chunks if c.called > found.chunks[0].called + 0.5]
    assert len(late) >= 2
    assert all(0.0 < s < 2.0 for s in late), late
