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
from wam_ros.contract.data import CADENCES
from wam_ros.policy.registry import BACKENDS, REMOTE, SYNC_ONLY
from wam_ros.resources import shipped_model


class BringupError(ValueError):
    """Arguments that cannot be launched; names the argument and the fix."""


@dataclass(frozen=True)
class Argument:
    """One launch argument; every value is text, as launch has it."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


_BOOL = ("true", "false")
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
ARGUMENTS = (
    Argument("sim", "true", "simulate the robot in MuJoCo instead of talking to hardware", _BOOL),
    Argument(
        "policy",
        "auto",
        "policy backend; auto: the shipped small model if there is one, else scripted",
        ("auto", *BACKENDS),
    ),
    Argument("cadence", "async", "when the policy is asked for the next chunk", CADENCES),
    Argument("latency", "0.1", "seconds the scripted policy takes per chunk, as a model would"),
    Argument("period", "0.143", "seconds between calls in the sliding cadence"),
    Argument("replay_file", "", "recording for policy:=replay (.npz)"),
    Argument(
        "checkpoint",
        "",
        "policy:=wam: checkpoint folder in the released layout; empty: the shipped model",
    ),
    Argument("base", "", "policy:=wam: what a LoRA checkpoint was trained on"),
    Argument("tokenizer", "", "policy:=wam: tokenizer folder; empty: beside the weights"),
    Argument("device", "auto", "policy:=wam: auto, cuda, cuda:1, cpu; two for two ranks"),
    Argument(
        "precision",
        "auto",
        "policy:=wam: auto takes bf16 on a GPU, fp32 without; fp8 halves the transformer",
        ("auto", "bf16", "fp16", "fp32", "fp8", "int8", "nvfp4"),
    ),
    Argument("ranks", "1", "policy:=wam: 2 splits guidance over two GPUs", ("1", "2")),
    Argument(
        "imagined_video",
        "auto",
        "policy:=wam: publish what the model expects to see; auto: where that is nearly free",
        ("auto", *_BOOL),
    ),
    Argument(
        "imagined_every",
        "auto",
        "seconds after which one such video may delay a call; auto: 1 in simulation; 0: never",
    ),
    Argument(
        "model_python",
        "",
        "policy:=wam: Python with torch that runs the model; empty: the one the nodes run in",
    ),
    Argument("server", "", "address for a remote policy: ws://, wss:// or, for gr00t, tcp://"),
    Argument("server_timeout", "10", "seconds after which a request to the server has failed"),
    Argument("server_wait", "60", "seconds to wait for a server that is not up yet"),
    Argument("server_token_file", "", "file with the token that the server asks for"),
    Argument("server_ca", "", "certificate authority (PEM) for wss://; empty: the system's"),
    Argument("server_names", "", "contract names the server calls otherwise: ours=theirs,..."),
    Argument(
        "server_actions",
        "auto",
        "what an openpi server's joint actions are; auto: as announced, else velocity",
        ("auto", "position", "velocity"),
    ),
    Argument("server_channels", "", "lingbot_va: the channel of each contract action, 0,1,..."),
    Argument(
        "stall_after",
        "10",
        "seconds without motion or progress that end a run_instruction; 0: never",
    ),
    Argument("armed", "true", "arm at start; honoured in simulation only", _BOOL),
    Argument("namespace", "wam", "namespace of all topics and services of this package"),
    Argument("record", "false", "record an episode for every instruction (MCAP)", _BOOL),
    Argument("record_dir", "episodes", "folder for recorded episodes"),
    Argument(
        "use_sim_time",
        "false",
        "follow /clock (the simulation publishes it) instead of the system clock",
        _BOOL,
    ),
    Argument("seed", "1", "placement of the objects in simulation"),
    Argument("gl", "osmesa", "how the simulation renders without a display", ("osmesa", "egl")),
    Argument(
        "rt_priority",
        "auto",
        "SCHED_FIFO priority of the executor; auto: 50 on hardware where allowed; 0: ordinary",
    ),
    Argument("smoothing", "0.1", "executor: time constant (s) of the path through a chunk's rows"),
    Argument("fade", "0.0", "executor: seconds over which an offset at a splice fades away"),
    Argument("ensemble", "0.0", "executor: share (0 to 1) of earlier chunks that is mixed in"),
    Argument("savgol", "false", "executor: smooth rows first as DreamZero's paper does", _BOOL),
    Argument("reanchor_cap", "0.6", "executor: refuse a chunk this far (rad) from the reference"),
    Argument(
        "slowest", "1.0", "executor: least pace (0.2 to 1) while rows run short; 1: never slows"
    ),
    Argument(
        "deadman", "0.0", "executor: stop after so many s without `heartbeat`; 0: as the contract"
    ),
)


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
