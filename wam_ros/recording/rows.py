"""Line a recording up on the action clock: one row per action period."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import ActionSource, Contract
from wam_ros.perception.assemble import vector
from wam_ros.perception.sync import Picked, SampleStatus, pick, verdict
from wam_ros.recording.series import Recording, Series

_PHASES = 16


@dataclass
class Rows:
    """``N`` rows at the action rate; row ``i`` is at ``t[0] + i * step_period``.

    ``frames`` holds the number of the picture per camera and row, ``state`` is ``(N, S)``,
    ``action`` ``(N, A)`` in absolute contract units. ``problems`` says for every row that live
    perception would have withheld, or that nobody commanded, why; such a row repeats the last good
    one. ``human`` tells who commanded, ``held`` whether a sample was older than its tolerance.
    """

    t: FloatArray
    frames: dict[str, NDArray[np.int64]]
    state: FloatArray
    action: FloatArray
    human: NDArray[np.bool_]
    held: NDArray[np.bool_]
    skew: FloatArray
    ages: dict[str, FloatArray]
    language: list[str]
    problems: dict[int, str]
    uncommanded: tuple[str, ...]
    trimmed: float
    """Seconds of the recording before the first and after the last row."""


class RowsError(ValueError):
    """A recording without a single usable row; names the source that is missing."""


def build_rows(recording: Recording, instruction: str) -> Rows:
    """Resample by the rule that runs live (`wam_ros.perception.sync`).

    Raises
    ------
    RowsError
        A camera or joint source brought nothing, or they never overlap.
    """
    contract = recording.contract
    named = {**recording.cameras, **recording.sources}
    silent = [n for n, s in named.items() if not s.stamps]
    if silent:
        raise RowsError(f"no usable sample from {', '.join(silent)} in the whole recording")
    commands = [(c, s) for c, s in recording.commands if s.stamps]
    grid = _grid(recording, commands)
    uncommanded = _uncommanded(contract, commands)
    width = len(contract.action_names)
    n = len(grid)
    rows = Rows(
        t=grid,
        frames={c: np.zeros(n, np.int64) for c in recording.cameras},
        state=np.full((n, len(contract.state_names)), np.nan),
        action=np.full((n, width), np.nan),
        human=np.zeros(n, bool),
        held=np.zeros(n, bool),
        skew=np.zeros(n),
        ages={name: np.full(n, np.nan) for name in named},
        language=_language(grid, recording, instruction),
        problems={},
        uncommanded=tuple(j for j in uncommanded if j in contract.state_names),
        trimmed=max(0.0, recording.end - recording.start - n * contract.rates.step_period),
    )
    used: dict[str, float] = {}
    for i, t in enumerate(grid.tolist()):
        _observe(rows, i, t, named, used, contract)
        _command(rows, i, t, commands, uncommanded, recording, contract)
    return _drop_ends(rows)


def pick_all(
    named: dict[str, Series], t: float, used: dict[str, float] | None = None
) -> dict[str, Picked]:
    """The samples live perception would choose for reference time ``t`` (s)."""
    last = used or {}
    return {
        n: pick(s.spec, s.stamps, s.values, t, t, last.get(n, float("-inf")))
        for n, s in named.items()
    }


def _observe(
    rows: Rows,
    i: int,
    t: float,
    named: dict[str, Series],
    used: dict[str, float],
    contract: Contract,
) -> None:
    picked = pick_all(named, t, used)
    rows.skew[i], reason = verdict(picked, contract.max_skew)
    for name, p in picked.items():
        rows.ages[name][i] = t - p.stamp
    if reason:
        rows.problems[i] = reason
        if i:
            rows.state[i] = rows.state[i - 1]
            for frames in rows.frames.values():
                frames[i] = frames[i - 1]
        return
    used.update({n: p.stamp for n, p in picked.items()})
    rows.held[i] = any(p.status is SampleStatus.HELD for p in picked.values())
    joints: dict[str, float] = {}
    for source in contract.sources:
        joints.update(picked[source.name].value)
    rows.state[i] = vector(contract, contract.state_names, joints)
    for name, frames in rows.frames.items():
        frames[i] = picked[name].value


def _command(
    rows: Rows,
    i: int,
    t: float,
    commands: list[tuple[ActionSource, Series]],
    uncommanded: dict[str, float | None],
    recording: Recording,
    contract: Contract,
) -> None:
    """Fill in the action: per joint the first source, in the contract's order, with a sample."""
    values: dict[str, float] = {}
    human = False
    for source, series in commands:
        p = pick(series.spec, series.stamps, series.values, t, t)
        if p.status is SampleStatus.MISSING:
            continue
        fresh = [j for j in p.value if j not in values]
        values.update({j: p.value[j] for j in fresh})
        human = human or (bool(fresh) and _by_human(source, t, recording))
    state = dict(zip(contract.state_names, rows.state[i].tolist(), strict=True))
    for joint, fixed in uncommanded.items():
        values[joint] = state[joint] if fixed is None else fixed
    missing = [j for j in contract.action_names if j not in values]
    rows.human[i] = human
    if missing:
        rows.problems.setdefault(i, f"no command for {', '.join(missing)}")
        if i:
            rows.action[i] = rows.action[i - 1]
        return
    rows.action[i] = vector(contract, contract.action_names, values)


def _by_human(source: ActionSource, t: float, recording: Recording) -> bool:
    if source.origin != "executor":
        return source.origin == "human"
    times = [a[0] for a in recording.armed]
    k = bisect.bisect_right(times, t) - 1
    # Nobody heard an executor: then whoever sent the command was not ours.
    return not recording.armed or not recording.armed[max(k, 0)][1]


def _uncommanded(
    contract: Contract, commands: list[tuple[ActionSource, Series]]
) -> dict[str, float | None]:
    """Joints nobody commanded in the whole recording, and the action they get.

    A position joint stays where it is measured (None); a velocity joint stands still (0).
    """
    commanded = {j for source, _ in commands for j in source.joints}
    state = set(contract.state_names)
    result: dict[str, float | None] = {}
    for key in contract.action:
        for joint in key.joints:
            if joint in commanded:
                continue
            if key.kind == "velocity":
                result[joint] = 0.0
            elif joint in state:
                result[joint] = None
    return result


def _grid(recording: Recording, commands: list[tuple[ActionSource, Series]]) -> FloatArray:
    """Times of the rows: where every source has samples, at the phase with the youngest pictures.

    Camera stamps come at about the action period; a grid that starts just after them spares the
    pictures an age of up to one period.
    """
    period = recording.contract.rates.step_period
    observed = [*recording.cameras.values(), *recording.sources.values()]
    # A joint is commanded from its first source's first message on, whoever takes over later.
    commanded: dict[str, float] = {}
    for source, series in commands:
        for joint in source.joints:
            commanded[joint] = min(series.stamps[0], commanded.get(joint, np.inf))
    begin = max([*(s.stamps[0] for s in observed), *commanded.values()])
    end = min(s.stamps[-1] for s in observed)
    if end - begin < period:
        raise RowsError(
            f"the sources overlap for {max(0.0, end - begin):.2f} s only; nothing to line up"
        )
    best, least = begin, float("inf")
    for phase in np.arange(_PHASES) * period / _PHASES:
        grid = np.arange(begin + phase, end, period)
        ages = [
            grid - np.asarray(s.stamps)[np.searchsorted(s.stamps, grid, side="right") - 1]
            for s in recording.cameras.values()
        ]
        age = float(np.mean(ages))
        if age < least - 1e-6:
            best, least = begin + float(phase), age
    count = int(np.floor((end - best) / period + 1e-9)) + 1
    return np.asarray(best + np.arange(count) * period, dtype=np.float64)


def _language(grid: FloatArray, recording: Recording, instruction: str) -> list[str]:
    times = [t for t, _ in recording.instructions]
    texts = [text for _, text in recording.instructions]
    found = []
    for t in grid.tolist():
        k = bisect.bisect_right(times, t) - 1
        found.append(texts[k] if k >= 0 else instruction or (texts[0] if texts else ""))
    return found


def _drop_ends(rows: Rows) -> Rows:
    """Leave out unusable rows at both ends: before the first good one nothing can be repeated."""
    good = [i for i in range(len(rows.t)) if i not in rows.problems]
    if not good:
        why = next(iter(rows.problems.values()), "no rows")
        raise RowsError(f"no row is usable: {why}")
    a, b = good[0], good[-1] + 1
    return Rows(
        t=rows.t[a:b],
        frames={k: v[a:b] for k, v in rows.frames.items()},
        state=rows.state[a:b],
        action=rows.action[a:b],
        human=rows.human[a:b],
        held=rows.held[a:b],
        skew=rows.skew[a:b],
        ages={k: v[a:b] for k, v in rows.ages.items()},
        language=rows.language[a:b],
        problems={i - a: p for i, p in rows.problems.items() if a <= i < b},
        uncommanded=rows.uncommanded,
        trimmed=rows.trimmed + (len(rows.t) - (b - a)) * float(np.diff(rows.t[:2]).sum() or 0.0),
    )
