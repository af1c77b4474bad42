"""Which rows and frames make up a training window (SPEC section 4.3), and their tensors.

A block is ``horizon`` rows. A window is a run of blocks whose anchors carry one instruction; block
``j`` anchored at row ``s`` uses the frames ``s, s + 3, .. s + 21`` and closes with ``s + 24``.

`anchors` is the released sampler's rule. `Windows` draws the row it starts from among those where
latents were encoded, every fourth frame, and how many blocks there shall be at most. It can be told
to come back more often to where an instruction is nearly carried out: that is a small part of a
motion, and decides whether it succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wam_ros.training.episodes import Array, Episode, Numbers
from wam_ros.training.latents import Latents
from wam_ros.wam.vae import FRAMES_PER_LATENT


def anchors(text: Sequence[str], row: int, horizon: int, most: int) -> tuple[int, ...]:
    """Anchor rows of the window around ``row``.

    Blocks are added by turns before and behind, as long as the instruction at the anchor is the
    same and the block's rows and closing frame lie inside the episode, up to ``most``. Empty where
    not even the block at ``row`` fits.
    """

    def fits(s: int) -> bool:
        return s >= 0 and s + horizon < len(text) and text[s] == text[row]

    if not fits(row):
        return ()
    found = [row]
    before, behind = True, True
    while len(found) < most and (before or behind):
        if before:
            before = fits(found[0] - horizon)
            if before:
                found.insert(0, found[0] - horizon)
        if behind and len(found) < most:
            behind = fits(found[-1] + horizon)
            if behind:
                found.append(found[-1] + horizon)
    return tuple(found)


@dataclass(frozen=True)
class Window:
    """Arrays of one window, see `flow.Batch`."""

    latents: Array
    actions: Array
    states: Array
    text: Array
    image: Array
    opening: Array


@dataclass(frozen=True)
class Place:
    """Where a window of ``blocks`` blocks opens: episode and group of its `Latents`."""

    episode: int
    group: int
    blocks: int


@dataclass(frozen=True)
class Choice:
    """Which windows are drawn, and how often; the default is the released rule.

    Attributes
    ----------
    near_share
        Of the windows drawn, how many are drawn from `Windows.near` alone; the others from all.
    single_share
        How often windows of one block are drawn; the longer ones share the rest evenly. None takes
        all lengths alike.
    whole
        Leave out blocks in which another instruction begins. The released rule only looks at
        anchors; where a hand rests for less than a block between two instructions, it teaches to
        leave what was just reached.
    """

    near_share: float = 0.0
    single_share: float | None = None
    whole: bool = False


RELEASED = Choice()


class Windows:
    """All windows of a set of episodes.

    Parameters
    ----------
    text
        Embedding float32 [L, text_dim] of every instruction.
    image
        Per episode, tokens float32 [groups + 1, tokens, image_dim] of the opening frames, with the
        row's own instruction.
    most
        Blocks in a window at most.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        latents: Sequence[Latents],
        numbers: Numbers,
        text: dict[str, Array],
        image: Sequence[Array],
        horizon: int,
        frames_per_block: int,
        most: int,
        choice: Choice = RELEASED,
    ) -> None:
        self._choice = choice
        self._episodes, self._latents, self._numbers = episodes, latents, numbers
        self._text, self._image = text, image
        self._horizon, self._k = horizon, frames_per_block
        self._states = [numbers.state(e.state) for e in episodes]
        self.places: dict[int, list[Place]] = {}
        self.near: dict[int, list[Place]] = {}
        """Those of `places` whose last block opens close to where its instruction ends."""
        for i, e in enumerate(episodes):
            close = _close_to_the_end(e, self._states[i])
            for g in range(len(latents[i].single)):
                for blocks, place in self._around(e, i, g, most).items():
                    self.places.setdefault(blocks, []).append(place)
                    last = self._row(e, latents[i], place.group) + horizon * (blocks - 1)
                    if close[last]:
                        self.near.setdefault(blocks, []).append(place)
        if not self.places:
            raise ValueError(
                f"no window of {horizon} rows can be drawn: episodes are shorter, change their "
                "instruction too soon, or all their rows are excluded"
            )

    def _around(self, e: Episode, episode: int, group: int, most: int) -> dict[int, Place]:
        """Windows around the row of ``group`` by their number of blocks."""
        row = self._row(e, self._latents[episode], group)
        out = {}
        for blocks in range(1, most + 1):
            found = anchors(e.text, row, self._horizon, blocks)
            if any(start in e.excluded for start in (row, *found)):
                continue
            if len(found) == blocks and (not self._choice.whole or self._one_text(e, found)):
                before = (row - found[0]) // self._horizon
                out[blocks] = Place(episode, group - self._k * before, blocks)
        return out

    def _one_text(self, e: Episode, found: Sequence[int]) -> bool:
        return all(len(set(e.text[s : s + self._horizon])) == 1 for s in found)

    @staticmethod
    def _row(e: Episode, z: Latents, g: int) -> int:
        return (z.phase + FRAMES_PER_LATENT * g) * e.stride

    def of(self, place: Place) -> Window:
        """The window at ``place``."""
        blocks = place.blocks
        e, z = self._episodes[place.episode], self._latents[place.episode]
        row = self._row(e, z, place.group)
        starts = [row + self._horizon * j for j in range(blocks)]
        actions = [
            self._numbers.actions(e.action[s : s + self._horizon], e.state[s]) for s in starts
        ]
        return Window(
            z.window(place.group, blocks),
            np.concatenate(actions),
            self._states[place.episode][starts],
            self._text[e.text[row]],
            self._image[place.episode][place.group],
            np.asarray(e.frames[z.phase + FRAMES_PER_LATENT * place.group]),
        )

    def draw(self, rng: np.random.Generator, count: int) -> list[Window]:
        """``count`` random windows of one random length, which all of them have."""
        blocks = self._length(rng)
        places, near = self.places[blocks], self.near.get(blocks, [])
        share = self._choice.near_share
        some = int(rng.binomial(count, share)) if near and share else 0
        picked = [near[int(i)] for i in rng.integers(len(near), size=some)] if some else []
        picked += [places[int(i)] for i in rng.integers(len(places), size=count - some)]
        return [self.of(place) for place in picked]

    def _length(self, rng: np.random.Generator) -> int:
        lengths = sorted(self.places)
        longer = [n for n in lengths if n > 1]
        single = self._choice.single_share
        if single is not None and 1 in lengths and longer:
            if rng.random() < single:
                return 1
            lengths = longer
        return lengths[int(rng.integers(len(lengths)))]


def _close_to_the_end(e: Episode, state: Array, tolerance: float = 0.3) -> NDArray[np.bool_]:
    """Rows whose normalised state [T, width] is near that in which their instruction ended."""
    found = np.zeros(len(state), bool)
    for start, stop in e.segments():
        away = np.abs(state[start:stop] - state[stop - 1]).max(axis=1)
        found[start:stop] = away < tolerance
    return found
