"""The arguments of `ros2 launch` and `wam launch`, alike for every robot."""

from __future__ import annotations

from dataclasses import dataclass

from wam_ros.contract.data import CADENCES
from wam_ros.policy.registry import BACKENDS


@dataclass(frozen=True)
class Argument:
    """One launch argument; every value is text, as launch has it."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


_BOOL = ("true", "false")
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
