"""Which rows and frames a training window takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam_ros.training.episodes import Episode
from wam_ros.training.latents import Latents
from wam_ros.training.windows import Choice, Windows, anchors

HORIZON = 24


@st.composite
def episodes(draw: st.DrawFn) -> tuple[str, ...]:
    runs = draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 90)), min_size=1, max_size=5)
    )
    return tuple(t for t, n in runs for _ in range(n))


@given(episodes(), st.data(), st.integers(1, 5))
def test_anchors_stay_inside_and_say_one_thing(
    text: tuple[str, ...], data: st.DataObject, most: int
) -> None:
    row = data.draw(st.integers(0, len(text) - 1))
    found = anchors(text, row, HORIZON, most)
    assert len(found) <= most
    if row + HORIZON >= len(text):
        assert found == ()
        return
    assert row in found
    assert np.all(np.diff(found) == HORIZON)
    assert found[0] >= 0
    assert found[-1] + HORIZON < len(text)
    assert {text[s] for s in found} == {text[row]}


@given(episodes(), st.data())
def test_a_window_is_only_shorter_for_a_reason(text: tuple[str, ...], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(text) - 1))
    found = anchors(text, row, HORIZON, 4)
    if not found or len(found) == 4:
        return
    for s in (found[0] - HORIZON, found[-1] + HORIZON):
        assert not (s >= 0 and s + HORIZON < len(text) and text[s] == text[row])


def test_blocks_are_added_before_first() -> None:
    assert anchors("a" * 200, 100, HORIZON, 2) == (76, 100)
    assert anchors("a" * 200, 100, HORIZON, 3) == (76, 100, 124)
    assert anchors("a" * 200, 5, HORIZON, 3) == (5, 29, 53)


class _Numbers:
    """Leaves everything as it is, so that rows can be recognised."""

    def state(self, raw: np.ndarray) -> np.ndarray:
        return raw.astype(np.float32)

    def actions(self, raw: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return (raw - reference).astype(np.float32)


def _windows(
    rows: int,
    phase: int,
    text: tuple[str, ...],
    *shares: float,
    whole: bool = False,
    excluded: frozenset[int] = frozenset(),
) -> Windows:
    count = -(-rows // 3)
    frames = np.zeros((count, 2, 2, 3), np.uint8)
    clock = np.arange(rows, dtype=np.float64)[:, None]
    groups = (count - phase - 1) // 4
    # Latents say which frame they close with; singles are negative to tell them apart.
    closing = (phase + 4 * np.arange(groups + 1)).astype(np.float16)
    blocks = np.stack([closing[1:-1], closing[2:]], axis=1)
    z = Latents(phase, -closing[:, None, None, None] - 1, blocks[:, :, None, None, None])
    episode = Episode(frames, clock, clock + 0.5, text, excluded=excluded)
    tokens = np.zeros((groups + 1, 1, 1), np.float32)
    known = {t: np.zeros((1, 1), np.float32) for t in set(text)}
    parts = ([episode], [z], _Numbers(), known, [tokens])
    return Windows(*parts, HORIZON, 2, 4, Choice(*shares, whole=whole))  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", range(4))
def test_latents_actions_and_states_belong_together(phase: int) -> None:
    windows = _windows(150, phase, ("a",) * 150)
    for place in (p for places in windows.places.values() for p in places):
        w = windows.of(place)
        frame = phase + 4 * place.group
        row = 3 * frame
        assert w.latents.shape == (1, 1 + 2 * place.blocks, 1, 1)
        assert w.latents[0, 0, 0, 0] == -frame - 1
        np.testing.assert_array_equal(
            w.latents[0, 1:, 0, 0], frame + 4 * np.arange(1, 1 + 2 * place.blocks)
        )
        for j in range(place.blocks):
            start = row + HORIZON * j
            assert w.states[j, 0] == start
            np.testing.assert_allclose(
                w.actions[HORIZON * j : HORIZON * (j + 1), 0], np.arange(HORIZON) + 0.5
            )
            # The block's second latent closes with the frame of the row behind its last.
            assert 3 * w.latents[0, 2 + 2 * j, 0, 0] == start + HORIZON


def test_no_window_crosses_into_another_instruction() -> None:
    text = ("a",) * 60 + ("b",) * 60
    windows = _windows(120, 0, text)
    for place in (p for places in windows.places.values() for p in places):
        row = 12 * place.group
        said = {text[row + HORIZON * j] for j in range(place.blocks)}
        assert len(said) == 1


def test_whole_blocks_say_one_thing_to_their_last_row() -> None:
    text = ("a",) * 66 + ("b",) * 66
    windows = _windows(132, 0, text, whole=True)
    rows = {12 * p.group for p in windows.places[1]}
    assert {48, 60} & {12 * p.group for p in _windows(132, 0, text).places[1]} == {48, 60}
    assert rows == {0, 12, 24, 36, 72, 84, 96}
    for p in (p for places in windows.places.values() for p in places):
        row = 12 * p.group
        assert len(set(text[row : row + HORIZON * p.blocks])) == 1


def test_a_block_in_which_something_else_is_said_for_a_while_is_not_whole() -> None:
    text = ("a",) * 52 + ("b",) * 8 + ("a",) * 60
    rows = {12 * p.group for p in _windows(120, 0, text, whole=True).places[1]}
    assert not rows & {36, 48} and {0, 12, 24, 60, 72} <= rows


def test_no_block_of_a_window_begins_at_an_excluded_row() -> None:
    gap = frozenset(range(30, 50))
    windows = _windows(150, 0, ("a",) * 150, excluded=gap)
    starts = {
        12 * p.group + HORIZON * j
        for places in windows.places.values()
        for p in places
        for j in range(p.blocks)
    }
    assert not starts & gap and {0, 12, 24, 60} <= starts


def test_drawn_windows_have_one_length() -> None:
    windows = _windows(200, 0, ("a",) * 200)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        lengths = {w.latents.shape[1] for w in windows.draw(rng, 5)}
        assert len(lengths) == 1
        seen |= lengths
    assert seen == {3, 5, 7, 9}


def test_single_blocks_are_drawn_as_often_as_told() -> None:
    windows = _windows(200, 0, ("a",) * 200, 0.0, 0.75)
    rng = np.random.default_rng(0)
    blocks = [(windows.draw(rng, 1)[0].latents.shape[1] - 1) // 2 for _ in range(400)]
    count = np.bincount(blocks, minlength=5)
    assert 270 < count[1] < 330
    assert all(15 < n < 55 for n in count[2:])


def test_windows_near_the_end_of_an_instruction_are_drawn_more_often() -> None:
    """The clock stands still for the last 40 rows: from there the end is no way off."""
    clock = np.minimum(np.arange(200.0), 160.0)[:, None]

    def share(near: float) -> float:
        windows = _windows(200, 0, ("a",) * 200, near, 1.0)
        e = replace(windows._episodes[0], state=clock, action=clock)
        parts = ([e], windows._latents, _Numbers(), windows._text, windows._image)
        windows = Windows(*parts, HORIZON, 2, 4, Choice(near, 1.0))  # type: ignore[arg-type]
        assert windows.near[1] == [p for p in windows.places[1] if 12 * p.group >= 160]
        rng = np.random.default_rng(0)
        drawn = [w for _ in range(40) for w in windows.draw(rng, 10)]
        return float(np.mean([w.states[0, 0] >= 160 for w in drawn]))

    assert share(0.0) < 0.15
    assert 0.5 < share(0.5) < 0.65


def test_too_short_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="no window of 24 rows"):
        _windows(20, 0, ("a",) * 20)
