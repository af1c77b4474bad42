"""Every saving returns the plain path's actions, over calls that fill and restart a window."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from wam_ros.wam import cli, savings_report
from wam_ros.wam.attention import attention_backend
from wam_ros.wam.cache import StaticCache
from wam_ros.wam.head import CallOptions, CallResult
from wam_ros.wam.presets import tiny
from wam_ros.wam.random_model import random_networks
from wam_ros.wam.savings import Savings
from wam_ros.wam.savings_report import (
    CHAIN,
    MODES,
    TOLERANCE,
    build_head,
    compare,
    run_chain,
    switches,
)

CONFIGS = {
    "wan2.1": tiny(latent=(2, 4), num_frames=17),
    "wan2.2": tiny(kind="wan2.2", latent=(2, 4)),
    "48 rows": tiny(latent=(2, 4), action_rows=48, dim=48, num_heads=3),
}
FEW = {name: MODES[name] for name in ("4 steps", "1 step")}
SEED = 3


@lru_cache
def networks(kind: str):  # type: ignore[no-untyped-def]
    """Random networks of a configuration, shared by the heads of these tests."""
    return random_networks(CONFIGS[kind], SEED)


def chain(kind: str, savings: Savings, options: CallOptions, idle: bool = True) -> list[CallResult]:
    return run_chain(build_head(CONFIGS[kind], networks(kind), savings, SEED), options, SEED, idle)


@lru_cache
def plain(kind: str, options: CallOptions) -> list[CallResult]:
    """The plain path, computed once per way of sampling."""
    return chain(kind, Savings.none(), options)


def test_the_chain_goes_through_every_reset() -> None:
    results = plain("wan2.1", MODES["1 step"])
    assert len(results) == len(CHAIN) >= 6
    reasons = [r.reset for r in results]
    assert reasons == ["first call", "", "", "", "window full", "", "new instruction", ""]


@pytest.mark.parametrize("video", [True, False], ids=["video", "no video"])
@pytest.mark.parametrize("mode", FEW)
@pytest.mark.parametrize("name", switches())
def test_switch(name: str, mode: str, video: bool) -> None:
    options = dataclasses.replace(FEW[mode], want_video=video)
    savings = switches()[name]
    reference = plain("wan2.1", dataclasses.replace(options, want_video=True))
    found = compare(chain("wan2.1", savings, options), reference)
    assert found.relative <= TOLERANCE
    assert not video or found.video <= TOLERANCE
    saves = savings.dead_uncond and not video
    assert found.forwards == ((2 if mode == "1 step" else 1) if saves else 0)


@pytest.mark.parametrize("kind", ["wan2.2", "48 rows"])
@pytest.mark.parametrize("video", [True, False], ids=["video", "no video"])
def test_all_on_other_shapes(kind: str, video: bool) -> None:
    options = CallOptions(steps=2, want_video=video)
    found = compare(chain(kind, Savings.all(), options), plain(kind, CallOptions(steps=2)))
    assert found.relative <= TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        CallOptions(steps=16, dit_steps=5),
        CallOptions(steps=16, dynamic=True, guidance=2.0),
        CallOptions(steps=4, final_noise=0.8),
    ],
    ids=["5 of 16", "dynamic", "decoupled"],
)
def test_all_with_other_ways_of_sampling(options: CallOptions) -> None:
    lean = chain(
        "wan2.1", Savings.all(), dataclasses.replace(options, want_video=False), idle=False
    )
    found = compare(lean, plain("wan2.1", options))
    assert found.relative <= TOLERANCE
    assert [r.timesteps for r in lean] == [r.timesteps for r in plain("wan2.1", options)]


def test_video_wanted_only_now_and_then() -> None:
    # Unconditional prefills that waited have to be caught up with, in order, in any of the calls.
    options = [
        dataclasses.replace(MODES["1 step"], want_video=i in (2, 5)) for i in range(len(CHAIN))
    ]
    for savings in (Savings.only("dead_uncond"), Savings.all()):
        head = build_head(CONFIGS["wan2.1"], networks("wan2.1"), savings, SEED)
        ours = run_chain(head, options, SEED)
        found = compare(ours, plain("wan2.1", MODES["1 step"]))
        assert found.relative <= TOLERANCE
        assert found.video <= TOLERANCE
        assert [r.video is not None for r in ours] == [o.want_video for o in options]
        assert [r.prefills[1] + r.denoises[1] for r in ours] == [0, 0, 4, 0, 0, 3, 0, 0]


def test_a_cache_that_is_not_emptied_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    options = MODES["1 step"]
    reference = plain("wan2.1", options)
    monkeypatch.setattr(StaticCache, "clear", lambda self: None)
    found = compare(chain("wan2.1", Savings.only("static_cache"), options), reference)
    assert found.relative > 100 * TOLERANCE


def test_heads_may_follow_one_another_on_the_same_weights() -> None:
    # Fused and split projections hold the same numbers.
    options = MODES["1 step"]
    chain("wan2.1", Savings.all(), options)
    found = compare(chain("wan2.1", Savings.none(), options), plain("wan2.1", options))
    assert found.relative <= 1e-6


def test_batched_guidance_needs_its_buffer() -> None:
    with pytest.raises(ValueError, match="batched_cfg needs static_cache"):
        Savings(batched_cfg=True)


def test_the_other_attention_kernels_agree() -> None:
    head = build_head(CONFIGS["wan2.1"], networks("wan2.1"), Savings.all(), SEED)
    head.dit.attend = attention_backend("math")
    try:
        found = compare(run_chain(head, FEW["1 step"], SEED), plain("wan2.1", FEW["1 step"]))
    finally:
        head.dit.attend = attention_backend("sdpa")
    assert found.relative <= TOLERANCE
    with pytest.raises(ValueError, match="'paged' is unknown; there are sdpa"):
        attention_backend("paged")


def test_report_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("dead_uncond", "staged_vae", "all")
    monkeypatch.setattr(savings_report, "MODES", {"1 step": MODES["1 step"]})
    monkeypatch.setattr(savings_report, "report_config", lambda: CONFIGS["wan2.1"])
    monkeypatch.setattr(savings_report, "switches", lambda: {n: switches()[n] for n in few})
    out = tmp_path / "savings.json"
    assert cli.main(["savings-report", "--seed", "5", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = {row["switch"]: row for row in found["rows"]}
    printed = capsys.readouterr().out
    assert tuple(rows) == few
    assert all(name in printed for name in few)
    assert found["ok"] and "MISS" not in printed
    # One step: the unconditional branch is half of everything.
    half = found["plain_tflop"]["1 step"] / 2
    assert rows["dead_uncond"]["saved"]["1 step"]["tflop"] == pytest.approx(half)
    assert rows["staged_vae"]["encoder_tflop_early"] > 0
    rows["all"]["ok"] = found["ok"] = False
    monkeypatch.setattr(savings_report, "report", lambda seed: found)
    assert cli.main(["savings-report"]) == 1
    assert "MISS" in capsys.readouterr().out


def test_fused_and_plain_tensors_are_of_the_same_dtype() -> None:
    head = build_head(CONFIGS["wan2.1"], networks("wan2.1"), Savings.all(), SEED)
    assert {p.dtype for p in head.dit.parameters()} == {torch.float32}
