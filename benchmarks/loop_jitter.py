"""Lateness of the executor's 500 Hz loop beside a bare absolute-sleep loop in the same run.

Both loops run in processes of their own at the same time. The bare loop only sleeps to absolute
deadlines; the other advances the real execution core (20 joints of the G1) on a chunk stream.
DDS is left out: this measures the loop, not the transport.
"""

from __future__ import annotations

import gc
import multiprocessing as mp
import time
from typing import Any

import numpy as np
from common import arguments, finish, spread

RATE = 500.0


def loop(seconds: float, work: Any) -> tuple[list[float], int]:
    """Run ``work(tick, now)`` on absolute deadlines; returns lateness (s) and missed ticks."""
    gc.collect()
    gc.freeze()
    gc.disable()
    period, late, missed = 1.0 / RATE, [], 0
    deadline = time.monotonic() + period
    end = deadline + seconds
    tick = 0
    while deadline < end:
        delay = deadline - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        now = time.monotonic()
        late.append(now - deadline)
        work(tick, now)
        tick += 1
        deadline += period
        behind = int((time.monotonic() - deadline) / period)
        if behind > 0:
            missed += behind
            deadline += behind * period
    return late, missed


def bare(seconds: float, queue: Any) -> None:
    """The loop with nothing in it."""
    queue.put(("bare", loop(seconds, lambda *_: None)))


def executor(seconds: float, queue: Any, seed: int) -> None:
    """The loop around the execution core, with a new chunk every 143 ms."""
    from wam_ros.contract import load_contract
    from wam_ros.contract.data import ActionChunk
    from wam_ros.execution import Executor

    contract = load_contract("agibot_g1")
    core = Executor(contract)
    home = np.array([contract.joints[n].home for n in core.names])
    core.set_measured(dict(zip(core.names, home)), time.monotonic())
    core.arm(time.monotonic())
    phase = np.random.default_rng(seed).uniform(0, 6.28, len(home))

    def work(tick: int, now: float) -> None:
        core.set_measured(dict(zip(core.names, core.reference)), now)
        if tick % 71 == 0:
            times = now + np.arange(24) / 30
            rows = np.zeros((24, len(contract.action_names)))
            rows[:, : len(home)] = home + 0.2 * (
                np.sin(times[:, None] + phase) - np.sin(now + phase)
            )
            core.submit(
                ActionChunk(now, 1 / 30, rows, contract.action_names, contract.action_kinds), now
            )
        core.tick(now)

    queue.put(("executor", loop(seconds, work)))


def main() -> None:
    """Run both at once and print a table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    seconds = 10.0 if options.quick else options.seconds
    queue: Any = mp.Queue()
    children = [
        mp.Process(target=bare, args=(seconds, queue)),
        mp.Process(target=executor, args=(seconds, queue, options.seed)),
    ]
    for child in children:
        child.start()
    found = dict(queue.get() for _ in children)
    for child in children:
        child.join()
    result: dict[str, Any] = {"seconds": seconds, "rate_hz": RATE}
    print(f"lateness in us over {seconds:.0f} s at {RATE:.0f} Hz")
    for name in ("bare", "executor"):
        late, missed = found[name]
        result[name] = {**spread(late, 1e6), "missed": missed}
        print(f"  {name:9s}" + "  ".join(f"{k} {v}" for k, v in result[name].items()))
    result["p99_ratio"] = round(result["executor"]["p99"] / result["bare"]["p99"], 2)
    print(f"  p99 of the executor's loop is {result['p99_ratio']} times the bare loop's")
    finish(options, result)


if __name__ == "__main__":
    main()
