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
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from wam_ros.wam import frames as timing
from wam_ros.wam.conditioning import StagedClip, check_images
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead, Tokens
from wam_ros.wam.imagined import Judgement, judge, undefined

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
        Relative distance between what an earlier call imagined and what was seen instead
        (`imagined.surprise`), where it costs nothing because this call encoded the same frames;
        NaN otherwise.
    judgement
        The same where frames have to be encoded for it: `Judgement.value`, at leisure. None where
        nothing imagined has been seen yet.
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
    opening
        The newest composite, uint8 [1, 1, H, W, 3]: what is imagined follows it.
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
    opening: torch.Tensor = field(repr=False)
    judgement: Judgement | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Seen:
    image: torch.Tensor  # uint8 [1, 1, H, W, 3]
    stamp: float
    row: float


@dataclass(frozen=True)
class Frozen:
    """What a call is to be fed, taken at one moment (`Session.freeze`)."""

    now: _Seen
    seen: list[_Seen]
    past: list[_Seen]
    staged: StagedClip | None
    picked: tuple[int, ...]
    wanted: tuple[float, ...]
    last: CallResult | None


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
        # Staging and the hand-over of frames to a call must not interleave.
        self._lock = threading.RLock()
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
        c = self.head.dit.config
        needed = 1 + 2 * c.num_frame_per_block
        if value == "sliding" and self.history and c.local_attn_size < needed:
            raise ValueError(
                f"sliding with a block of history needs a window of {needed} latent frames; this "
                f"model's has {c.local_attn_size}; use history=0"
            )
        self._cadence = value

    @property
    def newest_stamp(self) -> float | None:
        """Time of the newest observation; None before the first."""
        return None if self._newest is None else self._newest.stamp

    def reset(self) -> None:
        """Forget everything but the instruction."""
        self.head.restart()
        self._newest: _Seen | None = None
        self._seen: list[_Seen] = []
        self._past: deque[_Seen] = deque()
        self._last: CallResult | None = None
        self._imagined: deque[tuple[float, CallResult]] = deque()
        self._rows = float(self.horizon)
        self._staged: StagedClip | None = None
        self._picked: list[int] = []
        self._busy = False

    def instruct(self, text: str) -> None:
        """Set the instruction; the next call then starts a window."""
        if text != self.instruction or self._tokens is None:
            tokens = self._tokenize(text)
            with self._lock:
                self._tokens, self.instruction, self._staged = tokens, text, None

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

        Raises
        ------
        ValueError
            For an image of another type or size.
        """
        h = self.head.config.head
        size = None if h.resize_input else (h.video_height, h.video_width)
        check_images(image[None, None], size)
        with self._lock:
            self._observe(image, stamp, row, executing)

    def _observe(self, image: torch.Tensor, stamp: float, row: float | None, moving: bool) -> None:
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
        if moving:
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
        return self.finish(self.freeze(rows), state)

    def freeze(self, rows: float | None = None) -> Frozen:
        """First half of `chunk`: from here on frames belong to the next block.

        Apart for callers that must take frame and state at one moment; `finish` has to follow.
        """
        with self._lock:
            if self._tokens is None:
                raise RuntimeError("no instruction yet: call instruct() first")
            if self._newest is None:
                raise RuntimeError("no observation yet: call observe() first")
            now, picked = self._newest, tuple(self._picked)
            wanted, past = self._slots(), list(self._past)
            frozen = Frozen(now, self._seen, past, self._staged, picked, wanted, self._last)
            # The newest frame is row 0 of the next block.
            self._seen = [_Seen(now.image, now.stamp, 0.0)]
            self._staged, self._picked, self._last = None, [], None
            self._rows = float(self.horizon if rows is None else rows)
            self._busy = True
        return frozen

    def finish(self, frozen: Frozen, state: torch.Tensor) -> Chunk:
        """Second half of `chunk`."""
        now, seen, staged = frozen.now, frozen.seen, frozen.staged
        why = "" if self.cadence == "sliding" else self._will_reset()
        try:
            if self.cadence == "sliding":
                result, fed, seconds = self._sliding(state, now, frozen.past)
            elif why or len(seen) < 2:
                # A window starts from one frame, the newest: it fits the state of this call.
                result = self._call(now.image, state)
                fed, seconds = (now.row,), result.seconds
            else:
                index = timing.pick([s.row for s in seen], frozen.wanted)
                images = torch.cat([seen[i].image for i in index], dim=1)
                ready = staged is not None and staged.complete and frozen.picked == index
                latents = staged.latents() if staged is not None and ready else None
                result = self._call(images, state, latents)
                fed, seconds = tuple(seen[i].row for i in index), result.seconds
        finally:
            self._busy = False
        judgement = self._judge(frozen, result, fed)
        with self._lock:
            self._last = result
            self._stage()
        c = self.head.dit.config
        free = judgement is not None and judgement.observed is not None
        return Chunk(
            now.stamp,
            result.action[0].float().cpu(),
            result.video,
            judgement.value(self.head) if judgement is not None and free else math.nan,
            why or result.reset,
            (result.cached_tokens // c.frame_seqlen, self.head.dit.window_tokens // c.frame_seqlen),
            fed,
            seconds,
            result,
            now.image,
            judgement,
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

    def _judge(
        self, frozen: Frozen, result: CallResult, fed: tuple[float, ...]
    ) -> Judgement | None:
        """Set what was imagined beside what came.

        In ``sync`` and ``async`` that is the last call's block, as far as it was carried out; in
        ``sliding``, whose calls overlap, the newest block of which a latent has been seen whole.
        """
        if self.cadence != "sliding":
            last = frozen.last
            if last is None or undefined(last, self.options.final_noise):
                return None
            seen = frozen.seen
            latents = None if result.reset else result.observed
            return self._pair(last, seen, [s.row for s in seen], fed, latents)
        now, past = frozen.now.stamp, frozen.past
        found = None
        for stamp, earlier in reversed(self._imagined):
            rows = [(s.stamp - stamp) / self.step_period for s in past]
            found = self._pair(earlier, past, rows, (), None)
            if found is not None:
                break
        if not undefined(result, self.options.final_noise):
            self._imagined.append((now, result))
        oldest = now - (self.horizon + 1) * self.step_period
        while self._imagined and self._imagined[0][0] < oldest:
            self._imagined.popleft()
        return found

    def _pair(
        self,
        imagined: CallResult,
        seen: list[_Seen],
        rows: list[float],
        fed: tuple[float, ...],
        latents: torch.Tensor | None,
    ) -> Judgement | None:
        assert imagined.video is not None
        video = imagined.video[:, :, -self.head.dit.config.num_frame_per_block :]
        return judge(video, self.horizon, [s.image for s in seen], rows, fed, latents)
