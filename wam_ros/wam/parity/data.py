"""Parity of what surrounds the networks: views, prompts, numbers, metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.wam.actions import split_actions, squeeze, state_vector, to_absolute
from wam_ros.wam.checkpoint.metadata import metadata_to_json, read_metadata
from wam_ros.wam.embodiments import EMBODIMENTS, embodiment
from wam_ros.wam.images import prepare_view
from wam_ros.wam.normalize import MODES, Statistics, denormalize, normalize
from wam_ros.wam.parity.golden import arrays, as_tensor, find, need, read_json
from wam_ros.wam.parity.result import Result, close, exact
from wam_ros.wam.prompts import DEFAULT_INSTRUCTION, NEGATIVE, clean_text, prompt
from wam_ros.wam.views import compose

# Elementwise arithmetic in the recorded dtype; only the order of operations could differ.
NUMBERS = 1e-7
DOUBLES = 1e-12


def case_views(golden: Path) -> Iterator[Result]:
    """Raw camera frames to the composite picture, byte for byte."""
    for path in find(golden, "views_*.npz"):
        tag = path.stem[len("views_") :]
        data = arrays(path)
        expected = data["out.composite"]
        names = sorted(k for k in data if re.match(r"in\.view\d+\.", k))
        factor = 2 if len(names) > 1 else 1
        size = (expected.shape[1] // factor, expected.shape[2] // factor)
        views = [prepare_view(as_tensor(data[name]), size) for name in names]
        yield exact(f"views/{tag}", compose(views, tag), as_tensor(expected))


def case_prompts(golden: Path) -> Iterator[Result]:
    """Instructions to the text the tokenizer gets, byte for byte."""
    data = read_json(golden, "prompts.json")
    for tag, entries in data.items():
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            continue
        for i, entry in enumerate(entries):
            ours = clean_text(prompt(entry["instruction"], tag))
            yield _same(f"prompts/{tag} {i}", ours, entry["text"])
    if "negative" in data:
        negative = data["negative"]
        yield _same("prompts/negative", [NEGATIVE], [negative] if _is_text(negative) else negative)
    if "default_instruction" in data:
        yield _same("prompts/default", DEFAULT_INSTRUCTION, data["default_instruction"])
    for tag, number in data.get("embodiment_ids", {}).items():
        known = EMBODIMENTS[tag].number if tag in EMBODIMENTS else None
        yield _same(f"prompts/id of {tag}", known, number)


def case_normalizer_modes(golden: Path) -> Iterator[Result]:
    """Every normalisation mode forwards and, where it has one, backwards."""
    data = arrays(need(golden, "normalizer_modes.npz"))
    # The recorded run held its statistics in float32; the policy's own are float64 (case_actions).
    stats = {k[5:]: v.astype(np.float32) for k, v in data.items() if k.startswith("stat.")}
    statistics = Statistics(**stats)
    for mode in MODES:
        for way, function in (("forward", normalize), ("inverse", denormalize)):
            if (name := f"{mode}.{way}") in data:
                ours = as_tensor(function(data["x"], statistics, mode))
                yield close(f"normalizer_modes/{name}", ours, as_tensor(data[name]), DOUBLES)


def case_actions(golden: Path) -> Iterator[Result]:
    """State vector in; actions out: split, in raw units, absolute, squeezed."""
    metadata = read_metadata(need(golden, "metadata.json"))
    for path in find(golden, "actions_*.npz"):
        tag = path.stem[len("actions_") :]
        data, known, stats = arrays(path), embodiment(tag), metadata[tag]
        state = {k[len("in.state.") :]: v for k, v in data.items() if k.startswith("in.state.")}
        padded = data["out.state_padded"]
        keys = [key for key, _ in known.state]
        ours = state_vector(state, keys, stats.state_statistics, padded.shape[-1])
        yield _numbers(f"actions/{tag} state", ours.reshape(padded.shape), padded)
        keys = [key for key, _ in known.action]
        raw = split_actions(data["in.normalized_action"], keys, stats.action_statistics)
        absolute = to_absolute(raw, state, known.relative)
        stages = {"unnormalized": raw, "absolute": absolute, "squeezed": squeeze(absolute)}
        for stage, values in stages.items():
            for key in keys:
                expected = data[f"out.{stage}.action.{key}"]
                yield _numbers(f"actions/{tag} {stage} {key}", values[key], expected)


def case_metadata(golden: Path) -> Iterator[Result]:
    """Statistics and modalities survive being read and written."""
    path = need(golden, "metadata.json")
    ours = metadata_to_json(read_metadata(path))
    for tag, entry in json.loads(path.read_text()).items():
        yield _same(f"metadata/{tag}", ours[tag], entry)


def _numbers(name: str, ours: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> Result:
    if ours.dtype != expected.dtype:
        detail = f"dtype {ours.dtype}, expected {expected.dtype}"
        return Result(name, float("inf"), 0.0, False, detail)
    limit = DOUBLES if expected.dtype == np.float64 and "state" in name else NUMBERS
    return close(name, as_tensor(ours), as_tensor(expected), limit)


def _same(name: str, ours: object, expected: object) -> Result:
    ok = ours == expected
    detail = "exact" if ok else f"{_short(ours)}, expected {_short(expected)}"
    return Result(name, 0.0 if ok else 1.0, 0.0, ok, detail)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
