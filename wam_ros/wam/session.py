"""One robot's conversation with the model: frames go in as they come, chunks come out on demand.

The three cadences differ in what a call is shown. When to call is the caller's business.

* ``sync``: the frames seen while the last chunk was executed, one block of them; frames seen while
  the arm held are not counted. The reference's semantics.
* ``async``: the same, but the call comes before the rows have run out, so that the block is shorter
  than the one the model imagined.
* ``sliding``: every call opens a window of its own, zero or one block of history ending at the
  newest frame; nothing is carried from call to call.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from wam_ros.wam import frames as timing
from wam_ros.wam.conditioning import StagedClip
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead, Tokens

CADENCES = ("sync", "async", "sliding")


@dataclass(frozen=True)
class Chunk:
    """What a call gave.

    Attributes
    ----------
    stamp
        Time of the newest observation, in seconds as `Session.observe` was told: row 0 is due then.
    actions
        [actions, action_dim], normalised, float32 on the CPU.
    imagined
        Latents of the frames the model expects, [1, z, K, h, w]; None when not wanted.
    surprise
        Relative distance between what the last call imagined and what was seen instead; NaN where
        the two do not describe the same frames (`surprise`).
    reset
        Why the window started over, or empty.
    context
        Latent frames in the cache, and the most it holds.
    fed
        Positions of the frames that were fed, in rows since the last call.
    seconds
        Time per stage, of this call alone.
    result
        Everything else.
    """

    stamp: float
    actions: torch.Tensor
    imagined: torch.Tensor | None
    surprise: float
    reset: str
    context: tuple[int, int]
    fed: tuple[float, ...]
    seconds: dict[str, float]
    result: CallResult = field(repr=False)


@dataclass(frozen=True)
class _Seen:
    image: torch.Tensor  # uint8 [1, 1, H, W, 3]
    stamp: float
    row: float


def surprise(imagined: torch.Tensor, observed: torch.Tensor) -> float:
    """``||imagined - observed|| / ||observed||`` over normalised latents of the same block."""
    a, b = imagined.float(), observed.float()
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


class Session:
    """A policy head with a frame buffer and a cadence.

    Parameters
    ----------
    head
        The model; the session owns its state.
    tokenize
        Instruction to token ids and mask, each [1, text_len]; prompt templates included.
    cadence
        One of `CADENCES`; may be set between calls.
    frames_per_call
        Frames a continuing call is fed: 4 (the reference's client), 8 or 9 for K = 2.
    history
        Blocks of history of a sliding call, 0 or 1.
    step_period
        Seconds per row, by which a sliding call finds its history.
    options
        How calls sample.

    `observe` may be called from another thread while `chunk` runs.
    """

    def __init__(
        self,
        head: PolicyHead,
        tokenize: Callable[[str], Tokens],
        *,
        cadence: str = "sync",
        frames_per_call: int = 4,
        history: int = 1,
        step_period: float = 1.0 / 15.0,
        options: CallOptions | None = None,
    ) -> None:
        if history not in (0, 1):
            raise ValueError(f"history is {history}, expected 0 or 1 block")
        self.head, self._tokenize = head, tokenize
        self.frames_per_call, self.history = frames_per_call, history
        self.step_period = step_period
        self.options = options or CallOptions.of(head.config.head)
        self.horizon = head.config.head.action_horizon
        head.stage(frames_per_call)  # raises for a number of frames without a rule
        self._tokens: Tokens | None = None
        self.instruction = ""
        self.cadence = cadence
        self.reset()

    @property
    def cadence(self) -> str:
        """How the next call is fed."""
        return self._cadence

    @cadence.setter
    def cadence(self, value: str) -> None:
        if value not in CADENCES:
            raise ValueError(f"cadence '{value}' is not one of {', '.join(CADENCES)}")
        self._cadence = value

    def reset(self) -> None:
        """Forget everything but the instruction."""
        self.head.restart()
        self._newest: _Seen | None = None
        self._seen: list[_Seen] = []
        self._past: deque[_Seen] = deque()
        self._last: CallResult | None = None
        self._rows = float(self.horizon)
        self._staged: StagedClip | None = None
        self._picked: list[int] = []
        self._busy = False

    def instruct(self, text: str) -> None:
        """Set the instruction; the next call then starts a window."""
        if text != self.instruction or self._tokens is None:
            self._tokens = self._tokenize(text)
            self.instruction = text
            self._staged = None

    # ------------------------------------------------------------------ observations

    def observe(
        self, image: torch.Tensor, stamp: float, row: float | None = None, executing: bool = True
    ) -> None:
        """Take in a composite.

        Parameters
        ----------
        image
            uint8 [H, W, 3] composite at the model's size.
        stamp
            Seconds, increasing; an image not newer than the last is ignored.
        row
            Rows of the last chunk carried out since its observation. None counts one row per
            call, for callers that observe once per executed row.
        executing
            False while the arm holds: such a frame can start a window, but does not continue one.
        """
        if self._newest is not None and stamp <= self._newest.stamp:
            return
        if row is None:
            row = (self._seen[-1].row if self._seen else 0.0) + 1.0
        seen = _Seen(image[None, None], stamp, row)
        self._newest = seen
        self._past.append(seen)
        span = (self.horizon + 1) * self.step_period
        while len(self._past) > 2 and stamp - self._past[1].stamp > span:
            self._past.popleft()
        if executing:
            self._seen.append(seen)
            if not self._busy:
                self._stage()

    def _stage(self) -> None:
        """Encode the frames that fill the next slots of the block, as far as they have come."""
        if not self.head.savings.staged_vae or self.cadence == "sliding" or self._will_reset():
            return
        wanted = self._slots()
        if self._staged is None:
            self._staged = self.head.stage(self.frames_per_call)
            self._picked = []
        with torch.no_grad():
            for slot in wanted[len(self._picked) :]:
                rows = [seen.row for seen in self._seen]
                if not timing.due(slot, rows[-1]):
                    break
                (index,) = timing.pick(rows, (slot,))
                self._staged.push(self.head.prepare(self._seen[index].image))
                self._picked.append(index)

    def _slots(self) -> tuple[float, ...]:
        k = self.head.dit.config.num_frame_per_block
        return timing.slots(self.frames_per_call, self._rows, k)

    def _will_reset(self) -> str:
        if self._tokens is None:
            return "no instruction"
        return self.head.will_reset(self._tokens[0], self.frames_per_call)

    def idle(self) -> bool:
        """Do a little of the work that a later call would have to; True while more remains."""
        return self.head.finish_conditioning(1) > 0

    # ------------------------------------------------------------------ calls

    def chunk(self, state: torch.Tensor, rows: float | None = None) -> Chunk:
        """Ask for the next chunk.

        Parameters
        ----------
        state
            Normalised, padded state at the newest observation, [1, states, max_state_dim].
        rows
            Rows of the coming chunk that will be carried out before the next call; the frames of
            its block are spread over them. The whole chunk by default; in ``async`` it is shorter.

        Raises
        ------
        RuntimeError
            Without an instruction or an observation.
        """
        if self._tokens is None:
            raise RuntimeError("no instruction yet: call instruct() first")
        if self._newest is None:
            raise RuntimeError("no observation yet: call observe() first")
        now = self._newest
        seen, staged, picked = self._seen, self._staged, tuple(self._picked)
        wanted = self._slots()
        # From here on frames belong to the next block; the newest is its row 0.
        self._seen = [_Seen(now.image, now.stamp, 0.0)]
        self._staged, self._picked = None, []
        self._rows = float(self.horizon if rows is None else rows)
        last, self._last = self._last, None
        why = "" if self.cadence == "sliding" else self._will_reset()
        self._busy = True
        try:
            if self.cadence == "sliding":
                result, fed, seconds = self._sliding(state, now, list(self._past))
            elif why or len(seen) < 2:
                # A window starts from one frame, the newest: it fits the state of this call.
                result = self._call(now.image, state)
                fed, seconds = (now.row,), result.seconds
            else:
                index = timing.pick([s.row for s in seen], wanted)
                images = torch.cat([seen[i].image for i in index], dim=1)
                ready = staged is not None and staged.complete and picked == index
                latents = staged.latents() if staged is not None and ready else None
                result = self._call(images, state, latents)
                fed, seconds = tuple(seen[i].row for i in index), result.seconds
        finally:
            self._busy = False
        self._last = result
        self._stage()
        c = self.head.dit.config
        return Chunk(
            now.stamp,
            result.action[0].float().cpu(),
            result.video,
            self._surprise(last, result, fed),
            why or result.reset,
            (result.cached_tokens // c.frame_seqlen, self.head.dit.window_tokens // c.frame_seqlen),
            fed,
            seconds,
            result,
        )

    def _call(
        self, images: torch.Tensor, state: torch.Tensor, staged: torch.Tensor | None = None
    ) -> CallResult:
        assert self._tokens is not None
        return self.head.call(images, *self._tokens, state, self.options, staged=staged)

    def _sliding(
        self, state: torch.Tensor, now: _Seen, past: list[_Seen]
    ) -> tuple[CallResult, tuple[float, ...], dict[str, float]]:
        """Open a window one block ago where history is wanted and reaches that far back."""
        assert self._tokens is not None
        rows = [self.horizon + (s.stamp - now.stamp) / self.step_period for s in past]
        if not self.history or rows[0] > 0.5:
            result = self._call(now.image, state)
            return result, (float(self.horizon),), result.seconds
        k = self.head.dit.config.num_frame_per_block
        wanted = timing.slots(self.frames_per_call, float(self.horizon), k)
        first = max(i for i, row in enumerate(rows) if row <= 0.5)
        index = timing.pick(rows[first:], wanted)
        opening = self.head.open_window(past[first].image, *self._tokens)
        result = self._call(torch.cat([past[first + i].image for i in index], dim=1), state)
        seconds = dict(result.seconds)
        for name, value in opening.items():
            seconds[name] = seconds.get(name, 0.0) + value
        return result, tuple(rows[first + i] for i in index), seconds

    def _surprise(
        self, last: CallResult | None, result: CallResult, fed: tuple[float, ...]
    ) -> float:
        """Defined when the block just seen is the one imagined: whole, and denoised to the end."""
        whole = self.cadence != "sliding" and abs(fed[-1] - self.horizon) <= 1.0
        if last is None or last.video is None or result.reset or not whole:
            return math.nan
        if self.options.final_noise > 0.0:
            return math.nan
        return surprise(last.video[:, :, -result.observed.shape[2] :], result.observed)
