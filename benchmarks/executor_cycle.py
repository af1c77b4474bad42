"""What the core of the executor costs: a control cycle, a check of distances, a chunk; no ROS.

The G1's 20 joints follow chunks of 24 rows, one every 140 ms, with joint states at 50 Hz.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, spread

PERIOD = 0.002
CHUNK_EVERY, STATE_EVERY = 70, 10


def timed(call: Callable[[], Any], into: list[float]) -> Any:
    """Run ``call`` and note the seconds it took."""
    begin = time.perf_counter()
    result = call()
    into.append(time.perf_counter() - begin)
    return result


def main() -> None:
    """Time all three and print them."""
    options = arguments(__doc__ or "").parse_args()
    from wam_ros.contract import load_contract
    from wam_ros.contract.data import ActionChunk
    from wam_ros.execution import Executor
    from wam_ros.execution.clearance import Space
    from wam_ros.resources import share
    from wam_ros.sim.urdf import expand

    contract = load_contract("agibot_g1")
    core = Executor(contract)
    home = {n: contract.joints[n].home for n in core.names}
    core.set_measured(home, 0.0, resting=True)
    if reason := core.arm(0.0):
        raise RuntimeError(reason)
    base = np.array([contract.joints[n].home for n in contract.action_names])
    arm = np.array([contract.group_of(n).role == "arm" for n in contract.action_names])
    rows, step = contract.rates.horizon, contract.rates.step_period

    def chunk(t0: float, number: int) -> ActionChunk:
        t = t0 + step * np.arange(rows)[:, None]
        actions = base + arm * 0.08 * (1 - np.cos(1.5 * t))
        names, kinds = contract.action_names, contract.action_kinds
        return ActionChunk(t0, step, actions, names, kinds, sequence=number, cadence="async")

    cycles: list[float] = []
    chunks: list[float] = []
    count = 3000 if options.quick else 30000
    for k in range(1, count + 1):
        now = k * PERIOD
        if k % CHUNK_EVERY == 1:
            made = chunk(now - 0.001, k)
            if reason := timed(lambda made=made, now=now: core.submit(made, now), chunks):
                raise RuntimeError(reason)
        if k % STATE_EVERY == 0:
            core.set_measured(dict(zip(core.names, map(float, core.reference), strict=True)), now)
        timed(lambda now=now: core.tick(now), cycles)
    path = Path(contract.urdf)
    space = Space(contract, expand(path if path.is_absolute() else share() / path))
    rng, checks = np.random.default_rng(options.seed), []
    middle = np.array([home[n] for n in core.names])
    space.restart(middle)
    for _ in range(count // 30):
        here = middle + rng.normal(0.0, 0.1, len(middle))
        timed(lambda here=here: space.check(here, here + 0.01), checks)
    found = {"cycle": cycles[500:], "distances": checks, "chunk": chunks[5:]}
    result = {name: spread(np.array(values), 1e6) for name, values in found.items()}
    for name, s in result.items():
        print(f"{name:10s} p50 {s['p50']:6.0f}  p99 {s['p99']:6.0f} us  (n {s['n']})")
    finish(options, {"us": result})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
