"""A checkpoint behind the policy interface: in process, and over both dialects of `wam serve`."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch
from random_checkpoint import write_checkpoint

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import PolicyError, Window, device_lost
from wam_ros.policy.registry import make
from wam_ros.policy.wam import WamPolicy, wants_video
from wam_ros.serving.codec import packb, unpackb
from wam_ros.wam import prompts
from wam_ros.wam.adapter import Adapter
from wam_ros.wam.checkpoint.load import load
from wam_ros.wam.head import CallOptions, PolicyHead
from wam_ros.wam.savings import Savings
from wam_ros.wam.text import Tokenizer

DROID = load_contract("franka_droid")
PROMPT = "pick up the cup"
SIZE = (180, 320)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def frame(i: int) -> Observation:
    """What is seen at row ``i`` of the run: noise, so that no two frames are alike."""
    rng = np.random.default_rng(i)
    views = {c.name: rng.integers(0, 256, (*SIZE, 3), np.uint8) for c in DROID.cameras}
    home = np.array([DROID.joints[n].home for n in DROID.state_names])
    return Observation(i * DROID.rates.step_period, views, home + 0.001 * i)


def schedule() -> list[tuple[int, ...]]:
    """Rows of the frames of five calls, as DreamZero's test client sends them."""
    return [(0,), *((24 * k + 1, 24 * k + 8, 24 * k + 16, 24 * k + 24) for k in range(4))]


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[Any]:
    """Actions of the calls of `schedule`, by the model's own parts alone."""
    loaded = load(checkpoint, dtype=torch.float32)
    adapter = Adapter.of(loaded.config, loaded.metadata or {}, "oxe_droid", None)
    tokenizer = Tokenizer(checkpoint / "tokenizer", loaded.config.dit.text_len)
    n = loaded.networks
    head = PolicyHead(loaded.config, n.dit, n.text, n.image, n.vae, tokenizer(prompts.NEGATIVE))
    options = dataclasses.replace(CallOptions.of(loaded.config.head), want_video=False)
    names = {c.name: c.model_key.removeprefix("video.") for c in DROID.cameras}
    results = []
    for rows in schedule():
        seen = [frame(i) for i in rows]
        pictures = {
            k: torch.from_numpy(np.stack([s.views[c] for s in seen])) for c, k in names.items()
        }
        state = {k.key: seen[-1].state[k.start : k.stop][None] for k in DROID.state}
        result = head.call(
            adapter.composite(pictures)[None], *tokenizer(adapter.prompt(PROMPT)),
            torch.from_numpy(adapter.state(state)), options,
        )  # fmt: skip
        results.append(adapter.chunk(result.action.numpy(), state))
    return results


def options(checkpoint: Path) -> dict[str, Any]:
    return {"checkpoint": str(checkpoint), "device": "cpu"}


def opened(checkpoint: Path) -> WamPolicy:
    """A backend that has seen the first frame."""
    policy = WamPolicy(options(checkpoint))
    policy.configure(DROID)
    policy.reset(PROMPT)
    policy.infer(Window((frame(0),)))
    return policy


def run(policy: Any, rows_seen: Callable[[tuple[int, ...]], list[int]]) -> list[Any]:
    """Chunks of a run in which every chunk is carried out to its end."""
    policy.reset(PROMPT)
    chunks = []
    for rows in schedule():
        frames = tuple(frame(i) for i in rows_seen(rows))
        chunks.append(policy.infer(Window(frames, executed_rows=24.0 if rows[-1] else 0.0)))
    return chunks


def close(ours: list[Any], reference: list[Any]) -> None:
    assert len(ours) == len(reference) == 5
    for a, b in zip(ours, reference):
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)
    spread = np.ptp([np.asarray(a)[0] for a in ours], axis=0)
    assert spread.max() > 1e-4, "the calls must differ, or the comparison shows nothing"


def test_in_process_equals_the_model_alone(checkpoint: Path, expected: list[Any]) -> None:
    policy = make("wam", options(checkpoint))
    policy.configure(DROID)
    policy.warm_up()
    # It is offered every row, and picks those of the reference's client.
    chunks = run(policy, lambda rows: list(range(max(rows[-1] - 23, 0), rows[-1] + 1)))
    close([c.actions for c in chunks], expected)
    assert chunks[0].names == DROID.action_names
    flags = [c.context_flags & 1 for c in chunks]
    assert flags == [1, 0, 0, 0, 1]  # the window of nine latent frames is full
    policy.close()


def test_frames_seen_before_the_chunk_began_are_not_fed(
    checkpoint: Path, expected: list[Any]
) -> None:
    """In sync the arm waits for one inference; those frames belong to no block."""
    policy = opened(checkpoint)
    waited = [dataclasses.replace(frame(900 + i), t0=0.01 * (i + 1)) for i in range(5)]
    late = 10 * DROID.rates.step_period
    block = [dataclasses.replace(frame(i), t0=frame(i).t0 + late) for i in range(1, 25)]
    chunk = policy.infer(Window((*waited, *block), executed_rows=24.0))
    assert np.linalg.norm(chunk.actions - expected[1]) < 1e-5 * np.linalg.norm(expected[1])


def test_frames_seen_while_the_arm_rested_after_its_rows_are_not_taken_for_motion(
    checkpoint: Path, expected: list[Any]
) -> None:
    """The call comes a while after the last row; what was seen then shows the end of the block."""
    policy = opened(checkpoint)
    block = [frame(i) for i in range(1, 25)]
    rested = [dataclasses.replace(frame(24), t0=frame(24 + i).t0) for i in range(1, 6)]
    rows = (*np.arange(1.0, 25.0), *[24.0] * 5)
    chunk = policy.infer(Window((*block, *rested), executed_rows=24.0, rows=rows))
    assert np.linalg.norm(chunk.actions - expected[1]) < 1e-5 * np.linalg.norm(expected[1])
    policy.reset(PROMPT)
    policy.infer(Window((frame(0),)))
    counted_back = policy.infer(Window((*block, *rested), executed_rows=24.0))
    assert np.linalg.norm(counted_back.actions - chunk.actions) > 0.0


@pytest.mark.parametrize("cadence", ["async", "sliding"])
def test_other_cadences_give_finite_chunks(checkpoint: Path, cadence: str) -> None:
    policy = WamPolicy(options(checkpoint))
    policy.configure(DROID)
    policy.reset(PROMPT)
    for newest in (0, 16, 32):
        seen = tuple(frame(i) for i in range(max(newest - 23, 0), newest + 1))
        chunk = policy.infer(Window(seen, cadence=cadence))
        assert chunk.actions.shape == (24, 8) and np.isfinite(chunk.actions).all()
    assert 0.0 < policy.context_fill <= 1.0


def test_it_tells_what_it_imagined_and_how_wrong_that_was(
    checkpoint: Path, expected: list[Any]
) -> None:
    policy = WamPolicy({**options(checkpoint), "imagined_video": "true"})
    policy.configure(DROID)
    policy.reset(PROMPT)
    assert policy.imagine() is None
    kept = []
    for rows in schedule()[:3]:
        seen = tuple(frame(i) for i in range(max(rows[-1] - 23, 0), rows[-1] + 1))
        chunk = policy.infer(Window(seen, executed_rows=24.0 if rows[-1] else 0.0))
        kept.append((chunk, policy.imagine(), policy._session._last))
    # Wanting the video changes no action.
    for (chunk, _, _), same in zip(kept, expected):
        assert np.linalg.norm(chunk.actions - same) < 1e-5 * np.linalg.norm(same)
    head = policy._session.head
    # An afterthought stays with its chunk, whatever was called since.
    for chunk, thought, result in kept:
        assert thought is not None
        found = list(thought.frames)
        times = [chunk.t0 + 3 * (i + 1) * DROID.rates.step_period for i in range(8)]
        np.testing.assert_allclose([t for t, _ in found], times)
        whole = head.decode(result.video, result.observed)[0].permute(1, 2, 3, 0)
        exact = ((whole + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        assert np.array_equal(np.stack([rgb for _, rgb in found]), exact)
    values = [thought.surprise() for _, thought, _ in kept if thought is not None]
    assert np.isnan(values[0]) and all(v > 0 for v in values[1:])


def test_auto_imagines_where_that_is_nearly_free(checkpoint: Path) -> None:
    rule = CallOptions()
    assert wants_video(rule)  # 8 of 16 steps: one forward more than 17
    assert not wants_video(dataclasses.replace(rule, steps=4))
    assert not wants_video(dataclasses.replace(rule, steps=1))
    assert wants_video(dataclasses.replace(rule, steps=1, guidance=1.0))
    assert not wants_video(dataclasses.replace(rule, final_noise=0.8))
    with pytest.raises(PolicyError, match="imagined_video:=often is not"):
        make("wam", {"checkpoint": "x", "imagined_video": "often"})
    policy = opened(checkpoint)
    thought = policy.imagine()
    assert thought is not None and list(thought.frames) == [] and np.isnan(thought.surprise())


@pytest.mark.parametrize(("steps", "guidance"), [(1, 5.0), (4, 5.0), (16, 5.0), (4, 1.0)])
def test_the_rule_counts_the_forwards_that_really_run(
    checkpoint: Path, steps: int, guidance: float
) -> None:
    loaded = load(checkpoint, dtype=torch.float32)
    n = loaded.networks
    tokens = Tokenizer(checkpoint / "tokenizer", loaded.config.dit.text_len)
    made = []
    for video in (False, True):
        head = PolicyHead(
            loaded.config, n.dit, n.text, n.image, n.vae, tokens(prompts.NEGATIVE),
            dataclasses.replace(Savings.all(), batched_cfg=False),
        )  # fmt: skip
        given = CallOptions(steps, 8, guidance=guidance, want_video=video)
        h, c = loaded.config.head, loaded.config.dit
        images = torch.zeros(1, 1, h.video_height, h.video_width, 3, dtype=torch.uint8)
        state = torch.zeros(1, c.num_state_per_block, c.max_state_dim)
        result = head.call(images, *tokens("a"), state, given)
        made.append(sum(result.prefills) + sum(result.denoises))
    assert wants_video(given) == (made[1] - made[0] <= 0.1 * made[0])


@pytest.fixture
def served(checkpoint: Path) -> Iterator[str]:
    """Address of `wam serve` in a Python that cannot import ROS."""
    blocked = "import sys; sys.modules['rclpy'] = None; from wam_ros.serving.cli import main; "
    line = ["serve", "franka_droid", "--policy", "wam", "--dialect", "roboarena", "--port", "0"]
    for name, value in options(checkpoint).items():
        line += ["--option", f"{name}={value}"]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{blocked} sys.exit(main({line!r}))"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    yield next(w for w in process.stdout.readline().split() if "://" in w)
    process.terminate()
    assert process.wait(15) == 0


def test_roboarena_client_gets_the_models_actions(served: str, expected: list[Any]) -> None:
    from websockets.sync.client import connect

    wire = {
        "exterior_1": "exterior_image_0_left", "exterior_2": "exterior_image_1_left",
        "wrist": "wrist_image_left",
    }  # fmt: skip
    replies = []
    with connect(served, compression=None, max_size=None, proxy=None) as socket:
        assert unpackb(socket.recv())["image_resolution"] == [180, 320]
        for rows in schedule():
            seen = [frame(i) for i in rows]
            said: dict[str, Any] = {
                f"observation/{n}": np.stack([s.views[c] for s in seen]) for c, n in wire.items()
            }
            said["observation/joint_position"] = seen[-1].state[:7]
            said["observation/gripper_position"] = seen[-1].state[7:]
            said |= {"prompt": PROMPT, "session_id": "s", "endpoint": "infer"}
            socket.send(packb(said))
            replies.append(unpackb(socket.recv(timeout=60)))
    close(replies, expected)


def test_native_dialect_equals_in_process_imagination_included(
    serve: Callable[..., str], checkpoint: Path
) -> None:
    dreaming = {**options(checkpoint), "imagined_video": "true"}
    hosted = WamPolicy(dreaming)
    hosted.configure(DROID)
    url = serve("franka_droid", hosted, "native", loaded=True)
    policy = make("wam_serve", {"server": url, "server_timeout": 60.0, "server_wait": 5.0})
    policy.configure(DROID)
    offsets = getattr(policy, "frame_rows")  # noqa: B009
    assert {-23, -16, -8, 0} <= set(offsets) and len(offsets) == 11

    here = WamPolicy(dreaming)
    here.configure(DROID)
    for each in (here, policy):
        each.reset(PROMPT)
    older = None
    for rows in schedule()[:3]:
        frames = tuple(frame(rows[-1] + o) for o in offsets if rows[-1] + o >= 0)
        window = Window(frames, executed_rows=24.0 if rows[-1] else 0.0)
        chunk, same = policy.infer(window), here.infer(window)
        np.testing.assert_allclose(chunk.actions, same.actions, rtol=1e-6, atol=1e-7)
        assert chunk.context_flags == same.context_flags
        far, near = policy.imagine(), here.imagine()
        np.testing.assert_allclose(far.surprise(), near.surprise(), rtol=1e-5)
        if older is not None:  # another chunk's imagination is not mistaken for it
            assert np.isnan(older.surprise()) and list(older.frames) == []
        older = far
        if rows[-1]:
            continue  # left half asked for: the next call does not mind
        for (t, rgb), (t_near, rgb_near) in zip(far.frames, near.frames, strict=True):
            assert t == pytest.approx(t_near)
            assert np.abs(rgb.astype(int) - rgb_near).max() <= 1
    policy.close()


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_quantised_transformer_is_hosted(
    checkpoint: Path, expected: list[Any], precision: str
) -> None:
    from wam_ros.wam.precision import describe

    policy = WamPolicy({**options(checkpoint), "precision": precision})
    policy.configure(DROID)
    dit = policy._session.head.branches.dit
    assert any(layer.precision == precision for layer in describe(dit).layers)
    assert policy.precision == precision
    plain = WamPolicy({**options(checkpoint), "precision": "bf16"})
    plain.configure(DROID)
    first = Window((frame(0),))
    for each in (policy, plain):
        each.reset(PROMPT)
    ours, theirs = policy.infer(first).actions, plain.infer(first).actions
    size = np.abs(theirs - theirs.mean(0)).mean()
    assert 0.0 < np.abs(ours - theirs).mean() < 0.2 * size


def test_what_does_not_fit_is_named_with_both_values(checkpoint: Path, tmp_path: Path) -> None:
    policy = WamPolicy(options(checkpoint))
    rates = dataclasses.replace(DROID.rates, horizon=48, action=30.0)
    with pytest.raises(PolicyError, match=r"gives 24 rows a chunk.*is 48; .*15 rows.*is 30"):
        policy.configure(dataclasses.replace(DROID, rates=rates))
    keys = (dataclasses.replace(DROID.action[0], relative=False), DROID.action[1])
    with pytest.raises(PolicyError, match=r"relative action keys are joint_position.* and none"):
        policy.configure(dataclasses.replace(DROID, action=keys))
    with pytest.raises(PolicyError, match="has no statistics for 'xdof'"):
        policy.configure(dataclasses.replace(DROID, embodiment="xdof"))


def test_missing_pieces_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="checkpoint:=FOLDER"):
        make("wam", {})
    with pytest.raises(PolicyError, match="precision:=int4 is not"):
        make("wam", {"checkpoint": "x", "precision": "int4"})
    with pytest.raises(PolicyError, match="no tokenizer beside the weights"):
        WamPolicy({"checkpoint": str(tmp_path)}).configure(DROID)
    (tmp_path / "tokenizer.json").write_text(json.dumps({}))
    with pytest.raises(PolicyError, match=r"config\.json"):
        WamPolicy({"checkpoint": str(tmp_path)}).configure(DROID)


def test_lack_of_memory_is_reported_and_the_next_call_starts_over(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = opened(checkpoint)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    # Wherever it strikes: while frames are encoded, in the prefill, in the midst of the denoising.
    head = policy._session.head
    for k, (owner, name) in enumerate(
        ((head.vae, "stream"), (head.branches, "prefill"), (head.branches, "denoise"))
    ):
        at = 24 + 9 * k
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(PolicyError, match=r"out of GPU memory: .*2 GiB\. Free the GPU"):
                policy.infer(Window((frame(at - 1), frame(at)), executed_rows=24.0))
        assert policy.infer(Window((frame(at + 1),), executed_rows=1.0)).context_flags & 1
    said = policy.diagnostics()
    assert {"vae (ms)", "prefill (ms)", "denoise (ms)"} <= set(said), said


def test_a_lost_device_is_left_to_a_new_process(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = WamPolicy(options(checkpoint))
    policy.configure(DROID)
    policy.reset(PROMPT)

    def gone(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(policy._session.head.branches, "denoise", gone)
    with pytest.raises(torch.AcceleratorError) as found:
        policy.infer(Window((frame(0),)))
    assert device_lost(found.value) and not isinstance(found.value, PolicyError)
    assert not device_lost(torch.OutOfMemoryError("CUDA error: out of memory"))


def test_a_model_that_does_not_fit_is_refused_by_name(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wam_ros.wam.checkpoint import load as loading

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 28 GiB.\nmore")

    monkeypatch.setattr(loading, "fill", full)
    with pytest.raises(PolicyError, match=r"does not fit on cpu in fp32: .*28 GiB\. Free the GPU"):
        WamPolicy(options(checkpoint)).configure(DROID)
