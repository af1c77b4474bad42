"""`wam collect`: the same seed, the same bags; it goes on where it stopped; failures are marked."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from wam_ros.cli import main
from wam_ros.contract import load_contract
from wam_ros.nodes.bag_observer import BagObserver, Options, verdict_of
from wam_ros.nodes.collector import CollectError, Collection, collect, finished
from wam_ros.perception.images import decode
from wam_ros.recording import metadata
from wam_ros.recording.bags import find_bags
from wam_ros.recording.reader import BagReader
from wam_ros.rollout.episode import Episode, Segment
from wam_ros.rollout.plan import BLOCK, plan_episode
from wam_ros.sim.disturbance import NUDGE_WINDOW
from wam_ros.sim.seeds import split_of
from wam_ros.sim.variation import Scenes

SMALL = Collection(robot="franka_droid", width=48, deadline=1.0, latency=0.05)


def messages(bag: Path) -> list[tuple[str, int, str]]:
    """Every message; by field, because the middleware leaves garbage in the bytes between."""
    reader, decoders = BagReader(bag), {}
    found = []
    for m in reader.messages():
        decoder = decoders.setdefault(m.topic, reader.decoder(m.topic))
        found.append((m.topic, m.log_ns, _written_out(decoder(m.data))))
    return found


def _written_out(value: object) -> str:
    """All fields; a picture comes as a view of memory, whose repr is its address."""
    if isinstance(value, memoryview | bytes | bytearray):
        return repr(bytes(value))
    if hasattr(value, "__dict__"):
        return repr({k: _written_out(v) for k, v in vars(value).items()})
    return repr(value)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("three")
    collect(SMALL, 3, out)
    return out


def test_the_same_seed_gives_the_same_messages_in_one_process_or_two(three, tmp_path) -> None:
    collect(SMALL, 3, tmp_path / "two", jobs=2)
    bags, again = find_bags([three]), find_bags([tmp_path / "two"])
    assert [b.name for b in bags] == [b.name for b in again] and len(bags) == 3
    for one, other in zip(bags, again, strict=True):
        assert messages(one) == messages(other)
    other = dataclasses.replace(SMALL, seed=1)
    collect(other, 1, tmp_path / "other")
    assert messages(find_bags([tmp_path / "other"])[0]) != messages(bags[0])


def test_an_interrupted_collection_goes_on(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(three, out)
    bags = find_bags([out])
    shutil.rmtree(bags[0])
    # What a kill leaves: a bag that is still marked as open.
    metadata.amend(bags[1], {"wam_open": "true"})
    kept = next(bags[2].glob("*.mcap")).stat().st_mtime_ns
    told: list[dict] = []
    summaries = collect(SMALL, 4, out, progress=told.append)
    assert [s["skipped"] for s in summaries] == [False, False, True, False]
    assert told == summaries
    assert next(bags[2].glob("*.mcap")).stat().st_mtime_ns == kept
    for one, other in zip(find_bags([three]), find_bags([out])):
        assert messages(one) == messages(other)


def test_a_folder_of_another_collection_is_refused(three: Path) -> None:
    with pytest.raises(CollectError, match=r"latency 0\.05 there, 0\.2 now"):
        collect(dataclasses.replace(SMALL, latency=0.2), 3, three)
    command = ["collect", "--robot", "yam", "--episodes", "1", "--jobs", "1", "--out", str(three)]
    assert main(command) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": ("toch",)}, "unknown task 'toch'"),
        ({"seed": -1}, "seeds start at 0"),
        ({"tasks": ("touch", "fold")}, "unknown task 'fold'"),
        ({"mishaps": 15.0}, "--mishaps 15: a share of the episodes, 0 to 1"),
        ({"deadline": 0.0}, "--deadline 0: must be above 0"),
        ({"width": -4}, "--width -4: must be above 0"),
        ({"linger": -0.1}, "--linger -0.1: must not be negative"),
        ({"control_rate": 300.0}, "--control-rate: 300 Hz does not divide the physics rate"),
    ],
)
def test_a_typing_error_leaves_no_trace(tmp_path: Path, given: dict, said: str) -> None:
    out = tmp_path / "bags"
    with pytest.raises(CollectError, match=said):
        collect(Collection(**given), 1, out)
    assert not out.exists()


def test_a_broken_note_of_a_collection_is_named(tmp_path: Path) -> None:
    (tmp_path / "collect.json").write_text("")
    with pytest.raises(CollectError, match=r"collect\.json cannot be read"):
        collect(Collection(), 1, tmp_path)


def test_verdict_and_arguments_are_in_the_bag(three: Path, tmp_path: Path) -> None:
    bag = find_bags([three])[0]
    assert finished(bag) == "failure"  # nobody is there after one second
    reader = BagReader(bag)
    list(reader.messages())
    episode = reader.episode()
    assert episode is not None and episode.simulated and episode.verdict == "failure"
    assert "48 px" in episode.versions["rollout"] and "seed 0" in episode.versions["rollout"]
    summary = collect(dataclasses.replace(SMALL, deadline=10.0), 1, tmp_path / "long")[0]
    assert summary["verdict"] == "success"
    assert finished(find_bags([tmp_path / "long"])[0]) == "success"


@pytest.mark.parametrize(("kind", "close"), [("png", 0.0), ("jpeg", 6.0)])
def test_compressed_pictures_show_the_same(three: Path, tmp_path: Path, kind: str, close: float):
    collect(dataclasses.replace(SMALL, pictures=kind), 1, tmp_path)
    pictures = []
    camera = load_contract("franka_droid").cameras[0]
    for bag in (find_bags([three])[0], find_bags([tmp_path])[0]):
        reader = BagReader(bag)
        raw = next(m for m in reader.messages() if m.topic == camera.topic)
        pictures.append(decode(reader.decoder(camera.topic)(raw.data)).astype(float))
    assert np.mean(np.abs(pictures[0] - pictures[1])) <= close
    with pytest.raises(ValueError, match="gif"):
        BagObserver(tmp_path / "x", Options(pictures="gif"))


def test_plans_keep_training_and_held_out_scenes_apart() -> None:
    contract = load_contract("agibot_g1")
    seen = {}
    for split in ("train", "held_out"):
        plans = [plan_episode(contract, split, 2, i, ("touch", "bowl"), 0.3) for i in range(200)]
        assert {split_of(p.seed) for p in plans} == {split}
        assert len({p.seed for p in plans}) == 200
        assert min(p.seed for p in plans) >= 2 * 2 * BLOCK
        seen[split] = {p.instruction for p in plans}
        assert len(seen[split]) > 20
        assert 30 < sum(p.mishap for p in plans) < 90
        assert {type(p.task).__name__ for p in plans} == {"TouchTask", "BowlTask"}
    assert not seen["train"] & seen["held_out"]
    with pytest.raises(ValueError, match="juggle"):
        plan_episode(contract, "train", 0, 0, ("juggle",))


def test_nudges_are_drawn_by_their_share_and_change_nothing_else() -> None:
    contract = load_contract("agibot_g1")
    scenes = Scenes(contract)
    plain = [plan_episode(contract, "train", 0, i, mishaps=0.2) for i in range(100)]
    nudged = [plan_episode(contract, "train", 0, i, mishaps=0.2, nudges=0.5) for i in range(100)]
    assert 30 < sum(p.nudge for p in nudged) < 70
    for a, b in zip(plain, nudged):
        assert dataclasses.replace(b, nudge=False) == a
        before, after = a.disturbances(contract, scenes), b.disturbances(contract, scenes)
        assert len(after) - len(before) == b.nudge
        if b.nudge:
            push = after[-1]
            low, high = NUDGE_WINDOW
            assert push.kind == "push" and push.target == b.task.group  # type: ignore[union-attr]
            assert low <= push.time <= high


@pytest.mark.parametrize(
    ("sentences", "verdict"),
    [
        ([("touch the red block", False), ("touch the blue block", True)], "success"),
        ([("touch the red block", True), ("touch the blue block", False)], "failure"),
        ([("touch the red block", True), ("play around", False)], "none"),
        ([("sing", False)], "failure"),
    ],
)
def test_the_verdict_is_about_the_last_sentence(
    sentences: list[tuple[str, bool]], verdict: str
) -> None:
    segments = [Segment(text, float(i), success=done) for i, (text, done) in enumerate(sentences)]
    episode = Episode("franka_droid", 0, "sync", segments, None)  # type: ignore[arg-type]
    assert verdict_of(episode, load_contract("franka_droid")) == verdict
