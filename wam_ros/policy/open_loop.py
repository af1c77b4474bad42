"""What a backend would have done at recorded moments, beside what was done.

The recording goes on as it went, whatever the backend says: every call sees recorded observations
and is taken to have been carried out as recorded. That measures prediction. It does not measure
success: errors do not add up as they would on the robot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Policy, PolicyError, Window, frame_rows
from wam_ros.policy.frames import FrameBuffer
from wam_ros.recording.rows import Rows

BASELINES = ("hold the state", "hold the command", "recorded states")
"""What the backend's error is to be read against: stay where the arm is; repeat the command before
the call; and where the joints really were, which no command matches because joints lag behind."""


class Recorded(Protocol):
    """A recording on the action clock (`wam_ros.recording.playback.Playback`)."""

    contract: Contract
    rows: Rows

    def observations(self) -> Iterator[Observation]:
        """One observation per row."""


@dataclass(frozen=True)
class Cadence:
    """How far apart calls are, in rows.

    Parameters
    ----------
    name
        ``sync`` calls when a chunk has run out, ``async`` one ``latency`` (s) earlier, ``sliding``
        every ``period`` (s).
    """

    name: str = "sync"
    latency: float = 0.2
    period: float = 1.0 / 7.0

    def stride(self, contract: Contract) -> int:
        """Rows from call to call; PolicyError when the latency leaves none."""
        step, horizon = contract.rates.step_period, contract.rates.horizon
        if self.name == "sync":
            return horizon
        if self.name == "sliding":
            return min(max(1, round(self.period / step)), horizon)
        rows = horizon - math.ceil(self.latency / step - 1e-9)
        if rows < 1:
            raise PolicyError(
                f"a latency of {self.latency:g} s is as long as a chunk of {horizon * step:g} s; "
                "async cannot be played with it"
            )
        return rows


@dataclass
class Calls:
    """What was predicted in one recording.

    Attributes
    ----------
    rows
        Row of the recording at which each of ``N`` calls was made.
    predicted
        ``(N, H, D)`` absolute actions in the contract's order; NaN for a column without prediction.
    wanted
        ``(N, H, D)`` recorded actions; NaN beyond the end, where nobody commanded, and where a row
        of the recording is not usable.
    baselines
        The same shape, by the names in `BASELINES`.
    seconds
        Time of each call, and ``surprise`` where the backend knows it.
    """

    name: str
    instruction: str
    t: FloatArray
    action: FloatArray
    rows: list[int] = field(default_factory=list)
    predicted: list[FloatArray] = field(default_factory=list)
    wanted: list[FloatArray] = field(default_factory=list)
    baselines: dict[str, list[FloatArray]] = field(
        default_factory=lambda: {n: [] for n in BASELINES}
    )
    seconds: list[float] = field(default_factory=list)
    surprise: list[float] = field(default_factory=list)


def check(policy: Policy) -> None:
    """Raise PolicyError for a backend that a recording cannot serve."""
    if policy.needs_objects:
        raise PolicyError(
            f"policy {policy.name} looks at the simulation's true object poses, which a recording "
            "does not hold; choose a backend that looks at the cameras"
        )


def play(
    recorded: Recorded,
    policy: Policy,
    cadence: Cadence,
    name: str = "",
    task: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calls:
    """Show a configured backend a recording, call by call.

    Parameters
    ----------
    task
        Instruction instead of the recorded one.

    Raises
    ------
    PolicyError
        No instruction is known, or a call failed; names the row.
    """
    contract, rows = recorded.contract, recorded.rows
    stride, period = cadence.stride(contract), contract.rates.step_period
    action = _commanded(contract, rows)
    calls = Calls(name, task or rows.language[0], rows.t - rows.t[0], action)
    buffer = FrameBuffer(period * contract.rates.video_stride)
    offsets = [row * period for row in frame_rows(policy)]
    total = -(-len(rows.t) // stride)
    said, last = "", -1
    for k, observation in enumerate(recorded.observations()):
        buffer.push(observation)
        if k % stride:
            continue
        instruction = task or rows.language[k]
        if not instruction:
            raise PolicyError(f"{name}: the recording holds no instruction; give one with --task")
        executed = 0.0 if last < 0 else float(k - last)
        window = Window(buffer.at(offsets), {}, executed, cadence.name)
        try:
            if instruction != said:
                policy.reset(instruction)
            begin = time.monotonic()
            chunk = policy.infer(window)
        except (PolicyError, ValueError) as err:
            raise PolicyError(f"{name}, row {k} ({calls.t[k]:.2f} s): {err}") from err
        calls.seconds.append(time.monotonic() - begin)
        thought = getattr(policy, "imagine", lambda: None)()
        calls.surprise.append(math.nan if thought is None else thought.surprise())
        said, last = instruction, k
        _note(calls, contract, rows, k, _ordered(chunk, contract))
        progress(len(calls.rows), total)
    return calls


def _commanded(contract: Contract, rows: Rows) -> FloatArray:
    """Recorded actions ``(N, D)`` with NaN where they were made up to fill a gap."""
    action = rows.action.copy()
    action[:, [n in rows.uncommanded for n in contract.action_names]] = np.nan
    action[sorted(rows.problems)] = np.nan
    return action


def _ordered(chunk: ActionChunk, contract: Contract) -> FloatArray:
    """A chunk's ``(H, D)`` in the contract's order; PolicyError for columns the contract lacks."""
    order = {n: i for i, n in enumerate(contract.action_names)}
    surplus = [n for n in chunk.names if n not in order]
    if surplus:
        raise PolicyError(
            f"the backend gives {', '.join(surplus)}, which the contract of {contract.robot} lacks"
        )
    out = np.full((chunk.horizon, len(order)), np.nan)
    out[:, [order[n] for n in chunk.names]] = chunk.actions
    return out


def _note(calls: Calls, contract: Contract, rows: Rows, k: int, predicted: FloatArray) -> None:
    horizon = predicted.shape[0]
    calls.rows.append(k)
    calls.predicted.append(predicted)
    calls.wanted.append(_ahead(calls.action, k, horizon))
    state = np.full(rows.action.shape, np.nan)
    places = {n: i for i, n in enumerate(contract.state_names)}
    for column, (joint, kind) in enumerate(zip(contract.action_names, contract.action_kinds)):
        if kind == "position" and joint in places:
            state[:, column] = rows.state[:, places[joint]]
    still = np.where(np.array(contract.action_kinds) == "velocity", 0.0, state[k])
    before = calls.action[k - 1] if k else calls.action[k]
    calls.baselines["hold the state"].append(np.tile(still, (horizon, 1)))
    calls.baselines["hold the command"].append(np.tile(before, (horizon, 1)))
    calls.baselines["recorded states"].append(_ahead(state, k, horizon))


def _ahead(values: FloatArray, k: int, count: int) -> FloatArray:
    """Rows ``k`` to ``k + count``, NaN beyond the end."""
    out = np.full((count, values.shape[1]), np.nan)
    found = values[k : k + count]
    out[: len(found)] = found
    return out


def stacked(calls: Sequence[Calls]) -> dict[str, FloatArray]:
    """Predicted minus recorded, ``(N, H, D)`` over all calls, of ``policy`` and every baseline."""
    wanted = np.concatenate([np.stack(c.wanted) for c in calls])
    found = {"policy": np.concatenate([np.stack(c.predicted) for c in calls]) - wanted}
    for name in BASELINES:
        found[name] = np.concatenate([np.stack(c.baselines[name]) for c in calls]) - wanted
    return found
