"""What makes up a running robot: the one description behind `ros2 launch` and `wam launch`."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wam_ros import dds, model_server
from wam_ros.contract import Contract, load_contract
from wam_ros.launch_arguments import ARGUMENTS
from wam_ros.policy.registry import REMOTE, SYNC_ONLY
from wam_ros.resources import shipped_model


class BringupError(ValueError):
    """Arguments that cannot be launched; names the argument and the fix."""


MODEL_ARGUMENTS = ("checkpoint", "base", "tokenizer", "device", "precision", "ranks")
_NUMBERS: dict[str, type[int] | type[float]] = {
    "latency": float,
    "period": float,
    "stall_after": float,
    "server_timeout": float,
    "server_wait": float,
    "seed": int,
    "rt_priority": int,
    "imagined_every": float,
    "smoothing": float,
    "fade": float,
    "ensemble": float,
    "reanchor_cap": float,
    "slowest": float,
    "deadman": float,
}
_TUNED = ("smoothing", "fade", "ensemble", "reanchor_cap", "slowest")
_AUTO = ("rt_priority", "imagined_every")
"""Numbers that depend on whether the robot is simulated unless they are given."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process: ``python -m wam_ros.nodes.<name>_node`` or ``lib/wam_ros/<name>_node``."""

    name: str
    namespace: str
    parameters: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    respawn_delay: float = 1.0
    argv: tuple[str, ...] = ()
    """The whole command line of a process that is no node of ours."""

    @property
    def executable(self) -> str:
        """Name under ``lib/wam_ros``."""
        return f"{self.name}_node"

    @property
    def module(self) -> str:
        """Module to run with ``python -m``."""
        return f"wam_ros.nodes.{self.name}_node"


def resolve(given: dict[str, str]) -> dict[str, str]:
    """Fill in defaults and check names and choices.

    Raises
    ------
    BringupError
        Unknown argument, or a value that is not one of its choices.
    """
    known = {a.name: a for a in ARGUMENTS}
    for name, value in given.items():
        if name not in known:
            raise BringupError(f"unknown argument '{name}'; there are {', '.join(known)}")
        choices = known[name].choices
        if choices and value not in choices:
            raise BringupError(f"{name}:={value} is not one of {', '.join(choices)}")
    values = {a.name: given.get(a.name, a.default) for a in ARGUMENTS}
    if values["record"] == "true" and importlib.util.find_spec("mcap") is None:
        raise BringupError("record:=true needs the package mcap: pip install 'wam_ros[record]'")
    if values["policy"] == "replay" and not values["replay_file"]:
        raise BringupError("policy:=replay needs replay_file:=FILE.npz")
    if values["model_python"] and values["policy"] != "wam":
        raise BringupError("model_python:= is for policy:=wam")
    if values["policy"] in REMOTE and not values["server"]:
        raise BringupError(f"policy:={values['policy']} needs server:=ws://HOST:PORT")
    if values["policy"] in SYNC_ONLY and values["cadence"] != "sync":
        raise BringupError(
            f"policy:={values['policy']} reports what was executed; start it with cadence:=sync"
        )
    if values["policy"] == "scripted" and values["sim"] == "false":
        raise BringupError(
            "policy:=scripted needs the simulation's true object poses; on hardware choose replay"
        )
    if values["policy"] == "auto" and values["sim"] == "false":
        raise BringupError(
            "policy:=auto is for the simulation; on hardware say what shall move the robot, for "
            "example policy:=wam checkpoint:=FOLDER"
        )
    if values["policy"] == "wam" and values["sim"] == "false" and not values["checkpoint"]:
        raise BringupError(
            "policy:=wam needs checkpoint:=FOLDER on hardware; a model that comes with the package "
            "has seen nothing but the simulation"
        )
    for name, kind in _NUMBERS.items():
        if name in _AUTO and values[name] == "auto":
            continue
        try:
            number = kind(values[name])
        except ValueError as err:
            raise BringupError(f"{name}:={values[name]} is not a number") from err
        if name in ("imagined_every", "deadman") and not 0.0 <= number < math.inf:
            raise BringupError(f"{name}:={values[name]} s must not be negative")
    if any(name in given for name in _TUNED):  # else the import is not worth its time
        from wam_ros.execution import Settings

        try:
            Settings(savgol=False, **{n: float(values[n]) for n in _TUNED})
        except ValueError as err:
            raise BringupError(str(err)) from err
    return values


def default_policy(robot: str) -> str:
    """What ``policy:=auto`` stands for: ``wam`` where its model and PyTorch are there."""
    ready = shipped_model(robot) is not None and importlib.util.find_spec("torch") is not None
    return "wam" if ready else "scripted"


def _shipped(robot: str) -> Path:
    folder = shipped_model(robot)
    if folder is None:
        raise BringupError(
            f"policy:=wam needs checkpoint:=FOLDER; no model for {robot} comes with the package"
        )
    return folder


def _rt_priority(given: str, sim: bool) -> int:
    if given != "auto":
        return int(given)
    # A simulated arm shares the machine: pushed aside by the loop, it could not follow it.
    return 0 if sim else -1


def _imagined_every(given: str, sim: bool) -> float:
    if given != "auto":
        return float(given)
    return 1.0 if sim else 0.0


def _threads() -> dict[str, str]:
    """A model on the CPU leaves half of the cores to the graph, unless the user says otherwise.

    On two cores the small model took 200 ms per call with two threads, which waited for each other
    while the rest of the graph had a core, and 78 ms with one.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}


def processes(robot: str, given: dict[str, str] | None = None) -> list[ProcessSpec]:
    """Processes of ``robot`` (a shipped name or a contract file), in start order.

    Raises
    ------
    BringupError, ContractError
        Arguments or contract that cannot be used.
    """
    contract = load_contract(robot)
    v = resolve(given or {})
    if v["policy"] == "auto":
        v["policy"] = default_policy(contract.robot)
    if v["policy"] == "wam" and not v["checkpoint"]:
        v["checkpoint"] = str(_shipped(contract.robot))
    sim = v["sim"] == "true"
    shared = {"robot": robot, "use_sim_time": v["use_sim_time"] == "true"}
    images = {dds.VARIABLE: dds.profile_path()}
    executor = {
        **shared,
        "sim": sim,
        "armed": sim and v["armed"] == "true",
        "rt_priority": _rt_priority(v["rt_priority"], sim),
        "savgol": v["savgol"] == "true",
        "deadman": float(v["deadman"]),
        **{n: float(v[n]) for n in _TUNED},
    }
    policy = {
        **shared,
        "policy": v["policy"],
        "cadence": v["cadence"],
        "latency": float(v["latency"]),
        "period": float(v["period"]),
        "stall_after": float(v["stall_after"]),
        "replay_file": v["replay_file"],
        **{n: v[n] for n in MODEL_ARGUMENTS},
        "imagined_video": v["imagined_video"],
        "imagined_every": _imagined_every(v["imagined_every"], sim),
        "ranks": int(v["ranks"]),
        **{n: value for n, value in v.items() if n.startswith("server") and n not in _NUMBERS},
        "server_timeout": float(v["server_timeout"]),
        "server_wait": float(v["server_wait"]),
    }
    model = []
    if v["model_python"]:
        reason = model_server.unfit(v["model_python"])
        if reason:
            raise BringupError(f"model_python:={v['model_python']} cannot run the model: {reason}")
        port, served = model_server.free_port(), (*MODEL_ARGUMENTS, "imagined_video")
        model.append(
            ProcessSpec(
                "model",
                v["namespace"],
                {},
                model_server.environment(),
                argv=model_server.command(v["model_python"], robot, port, v, served),
            )
        )
        policy |= {
            "policy": "wam_serve",
            "server": f"ws://127.0.0.1:{port}",
            "server_wait": max(float(v["server_wait"]), model_server.LOADING),
        }
    specs = [
        *model,
        ProcessSpec("executor", v["namespace"], executor),
        ProcessSpec("perception", v["namespace"], {**shared, "sim": sim}, images),
        ProcessSpec("policy", v["namespace"], policy, _threads()),
    ]
    if v["record"] == "true":
        recorder = {**shared, "sim": sim, "out": os.path.abspath(v["record_dir"]), "auto": True}
        specs.append(ProcessSpec("recorder", v["namespace"], recorder))
    if sim:
        plant = {
            "robot": robot,
            "seed": int(v["seed"]),
            "gl": v["gl"],
            "publish_clock": v["use_sim_time"] == "true",
        }
        gl = {"MUJOCO_GL": v["gl"]}
        specs.insert(0, ProcessSpec("sim", v["namespace"], plant, {**images, **gl}))
    return specs


def unknowns(contract: Contract) -> list[str]:
    """What is not known about a robot and therefore not used on hardware, a line each."""
    lines = [f"output '{o.name}' on {o.topic}" for o in contract.outputs if o.status == "unknown"]
    lines += [f"mount of camera '{c.name}'" for c in contract.cameras if c.pose_status == "unknown"]
    lines += [f"source '{s.name}' on {s.topic}" for s in contract.inputs if s.status == "unknown"]
    return lines
