"""Record ten episodes in simulation and turn them into a data set: the commands of a day's work.

    python scripts/ten_episodes.py --out ten

starts `wam launch` and `wam record`, gives ten instructions (three colours, both hands), then runs
`wam dataset`. The scripted policy knows where the blocks are; it stands in for a person with
leader arms.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WAM = [sys.executable, "-m", "wam_ros.cli"]
HANDS, COLOURS = ("left", "right"), ("red", "green", "blue")


def instructions(robot: str, count: int) -> list[str]:
    """``touch the COLOUR block with the HAND hand``, in turn; DROID has one hand."""
    hands = ("",) if robot == "franka_droid" else tuple(f" with the {h} hand" for h in HANDS)
    pairs = itertools.cycle(itertools.product(COLOURS, hands))
    return [f"touch the {c} block{h}" for c, h in itertools.islice(pairs, count)]


def attempt(client: Any, text: str, deadline: float) -> str:
    """Give one instruction and take it back; returns what kept it from success, or nothing."""
    end = time.monotonic() + deadline
    while not client.executor.armed:
        armed, why = client.arm(True)
        if not armed and time.monotonic() > end:
            raise SystemExit(f"the arm cannot be armed again: {why}")
        client.spin(0.5)
    end = time.monotonic() + deadline
    if not client.say(text):
        raise SystemExit(f"the policy did not take '{text}'")
    trouble = f"not there after {deadline:.0f} s"
    while time.monotonic() < end:
        client.spin(0.1)
        if client.sim and client.sim.task == text and client.sim.success:
            trouble = ""
            break
        if not client.executor.armed:
            trouble = f"disarmed, {client.executor.reason}"
            break
    client.say("")
    client.spin(1.5)
    return trouble


def run_all(texts: list[str], deadline: float, tries: int = 3) -> int:
    """Give the instructions one after the other; returns how many succeeded.

    What fails is tried again, as a person would: arm, say it once more. Its episode stays, judged
    a failure.
    """
    from wam_ros.nodes.client import GraphClient

    client = GraphClient()
    done = 0
    try:
        if not client.wait_for_graph(120.0):
            raise SystemExit("the graph did not come up")
        client.spin(4.0)  # the recorder has its own start
        for text in texts:
            for _ in range(tries):
                trouble = attempt(client, text, deadline)
                print(f"{text}: {trouble or 'done'}", flush=True)
                if not trouble:
                    break
            done += not trouble
    finally:
        client.close()
    return done


def main() -> int:
    """Launch, record, instruct, convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robot", default="agibot_g1")
    parser.add_argument("--out", type=Path, default=Path("ten"))
    parser.add_argument("--policy", default="scripted", help="who demonstrates; auto: as launched")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds per episode")
    parser.add_argument("--sim-time", action="store_true", help="run on the simulation's clock")
    options = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    episodes, data = options.out / "episodes", options.out / "dataset"
    options.out.mkdir(parents=True, exist_ok=True)
    log = (options.out / "launch.log").open("w")
    # On the simulation's clock a busy machine makes it slow, not jerky.
    clock = ["use_sim_time:=true"] if options.sim_time else []
    graph = [options.robot, f"policy:={options.policy}", *clock]
    record = [*WAM, "record", options.robot, *clock, "--sim", "--auto", "--out", str(episodes)]
    started = [
        subprocess.Popen([*WAM, "launch", *graph], stdout=log, stderr=log),
        subprocess.Popen(record, stdout=log, stderr=log, stdin=subprocess.DEVNULL),
    ]
    try:
        done = run_all(instructions(options.robot, options.count), options.deadline)
    finally:
        for process in reversed(started):  # the recorder first: it finishes its bag
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    print(f"{done} of {options.count} succeeded", flush=True)
    return subprocess.call([*WAM, "dataset", str(episodes), "--out", str(data)])


if __name__ == "__main__":
    sys.exit(main())
