"""`wam demo`: launch the simulated graph, say one sentence, and report what happened."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wam_ros.bringup import processes
from wam_ros.demo.film import Film
from wam_ros.demo.mishap import Mishap
from wam_ros.demo.trace import Trace
from wam_ros.supervisor import ChildFailed, Supervisor


@dataclass(frozen=True)
class DemoOptions:
    """What to run; times in seconds.

    With ``then`` the robot is told something else ``then_after`` the first sentence, and has
    succeeded when it has done that. With ``disturb`` the simulation moves the block, pushes the
    arm or turns down the light (`sim.disturbance.KINDS`) ``disturb_after`` the first sentence, or
    as soon after as it can.
    """

    robot: str = "agibot_g1"
    instruction: str = "touch the red block with the left hand"
    policy: str = "scripted"
    checkpoint: str = ""
    cadence: str = "async"
    latency: float = 0.1
    then: str = ""
    then_after: float = 1.0
    disturb: str = ""
    disturb_after: float = 0.3
    seed: int = 1
    deadline: float = 60.0
    out: Path = Path("demo_out")
    gl: str = "osmesa"


def run(options: DemoOptions, say: Any = print) -> dict[str, Any]:
    """Run the demo; returns the summary that is also written to ``out/summary.json``.

    Raises
    ------
    BringupError, ContractError
        The options cannot be launched.
    RuntimeError
        The graph did not come up; the message names the log.
    """
    from wam_ros.demo.report import write_report

    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "graph.log"
    log.unlink(missing_ok=True)
    # A domain of its own, so that a demo never meets another graph on this network.
    os.environ["ROS_DOMAIN_ID"] = str(os.environ.get("WAM_DEMO_DOMAIN", 80 + os.getpid() % 20))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    given = {
        "policy": options.policy,
        "checkpoint": options.checkpoint,
        "cadence": options.cadence,
        "latency": str(options.latency),
        "seed": str(options.seed),
        "gl": options.gl,
    }
    specs = processes(options.robot, given)
    say(f"starting {', '.join(s.name for s in specs)} (log: {log})")
    supervisor = Supervisor(specs, log=log, say=say)
    try:
        summary, trace, film = _watch(options, supervisor, say)
    except ChildFailed as err:
        raise RuntimeError(f"{err}:\n{_tail(log)}") from err
    finally:
        supervisor.stop()
    summary["restarts"] = supervisor.restarts
    write_report(options.out, summary, trace, film)
    return summary


def _watch(
    options: DemoOptions, supervisor: Supervisor, say: Any
) -> tuple[dict[str, Any], Trace, Film]:
    from wam_ros.nodes.client import GraphClient

    client = GraphClient(observations=True)
    trace, film = Trace(), Film()
    try:
        if options.policy == "wam":
            film.watch(client)
        _wait_ready(client, supervisor, say)
        if options.disturb:
            client.set_parameter("sim", "disturb", "")  # so that the node is known when it counts
        # Let a few observations pass, so that the first frame of the report is a real one.
        client.spin(1.0)
        say(f'saying: "{options.instruction}"')
        begin = time.monotonic()
        film.start()
        if options.disturb:  # `say` waits for an echo, and the hand would be there by then
            client.tell(options.instruction)
        elif not client.say(options.instruction):
            raise RuntimeError("the policy node did not take the instruction")
        reached, refused, then = None, "", options.then
        mishap = Mishap(options.disturb, options.disturb_after)
        next_line = 0.0
        while time.monotonic() - begin < options.deadline:
            client.spin(0.05)
            supervisor.poll()
            t = time.monotonic() - begin
            trace.record(client, t)
            if then and t >= options.then_after:
                say(f'{t:5.1f} s  saying: "{then}"')
                client.tell(then)
                film.mark(f'told: "{then}"')
                then = ""
            if mishap.happen(client, t):
                film.mark(mishap.what)
                say(f"{t:5.1f} s  {mishap.what}")
            judged = options.then or options.instruction
            if client.sim.success and client.sim.task == judged:
                reached = t
                break
            refused = _given_up(client)
            if refused:
                break
            if t >= next_line:
                next_line = t + 1.0
                say(_progress_line(t, client))
        client.spin(0.5)
        trace.record(client, time.monotonic() - begin)
        elapsed = time.monotonic() - begin
        summary = _summary(options, client, trace, reached, refused, elapsed)
        return {**summary, "disturbed": mishap.summary()}, trace, film
    finally:
        client.close()


def _wait_ready(client: Any, supervisor: Supervisor, say: Any) -> None:
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        client.spin(0.1)
        supervisor.poll()
        ready = client.policy is not None and client.policy.state_name in ("ready", "running")
        armed = client.executor is not None and client.executor.armed
        if ready and armed and client.sim is not None and client.observation is not None:
            say("policy ready, executor armed, three views in step")
            return
    seen = {n: getattr(client, n) is not None for n in ("policy", "executor", "sim", "observation")}
    silent = ", ".join(n for n, ok in seen.items() if not ok) or "readiness"
    raise RuntimeError(f"the graph did not come up in 60 s (waiting for {silent}); see graph.log")


def _given_up(client: Any) -> str:
    """Why waiting longer is of no use; empty while there is hope."""
    policy, executor = client.policy, client.executor
    if policy.state_name == "error" or "cannot understand" in policy.reason:
        return str(policy.reason)
    if not executor.armed:
        return f"executor {executor.mode_name}: {executor.reason}"
    return ""


def _progress_line(t: float, client: Any) -> str:
    filled = round(20 * float(client.sim.progress))
    bar = "#" * filled + "." * (20 - filled)
    return (
        f"{t:5.1f} s  [{bar}]  {client.sim.distance * 100:5.1f} cm   "
        f"executor {client.executor.mode_name:9s} policy {client.policy.state_name:8s} "
        f"{client.policy.chunk_rate:4.1f} chunks/s"
    )


def _summary(
    options: DemoOptions,
    client: Any,
    trace: Trace,
    reached: float | None,
    refused: str,
    elapsed: float,
) -> dict[str, Any]:
    p, e, s = client.policy, client.executor, client.sim
    return {
        "robot": options.robot,
        "instruction": options.instruction,
        "then": options.then,
        "policy": p.backend,
        "policy_kind": "scripted, not vision" if p.backend == "scripted" else "World-Action Model",
        "model": p.model,
        "seed": options.seed,
        "success": reached is not None,
        "time_to_success_s": round(reached, 2) if reached is not None else None,
        "elapsed_s": round(elapsed, 2),
        "final_distance_m": round(float(s.distance), 4),
        "refused": refused,
        "cadence": p.cadence,
        "requested_cadence": p.requested_cadence,
        "cadence_reason": p.reason,
        "chunks": int(p.chunks),
        "chunk_rate_hz": round(float(p.chunk_rate), 2),
        "latency_p50_s": round(float(p.latency_p50), 4),
        "latency_p95_s": round(float(p.latency_p95), 4),
        "chunks_accepted": int(e.chunks_accepted),
        "chunks_rejected": int(e.chunks_rejected),
        "tick_rate_hz": round(trace.tick_rate, 1),
        "ticks": int(e.ticks),
        "missed_ticks": int(e.missed_ticks),
        "lateness_p50_us": round(float(e.lateness_p50) * 1e6),
        "lateness_p99_us": round(float(e.lateness_p99) * 1e6),
        "lateness_max_us": round(float(e.lateness_max) * 1e6),
        "limiter_ticks": int(e.limiter_ticks),
        "seam_jump_max_rad": float(f"{e.seam_jump_max:.3g}"),
        "observation_to_command_p50_s": round(float(e.observation_to_command_p50), 4),
        "observation_to_command_p95_s": round(float(e.observation_to_command_p95), 4),
        "real_time_factor": round(float(s.real_time_factor), 3),
        "render_ms": round(float(s.render_ms), 1),
        "pictures": ["views.png", "joints.png"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
