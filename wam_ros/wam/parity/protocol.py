"""The bytes of the wire protocol, and which frames a server hands to the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.wam.parity.golden import find, need, read_json
from wam_ros.wam.parity.result import Result


def _same(name: str, ours: Any, reference: Any) -> Result:
    ok = bool(ours == reference)
    return Result(name, 0.0 if ok else 1.0, 0.0, ok, "" if ok else f"{ours!r:.80}")


def _bytes(name: str, ours: bytes, reference: bytes) -> Result:
    differing = sum(a != b for a, b in zip(ours, reference)) + abs(len(ours) - len(reference))
    detail = f"{len(reference)} bytes, exact"
    return Result(name, float(differing), 0.0, differing == 0, detail)


def case_wire(golden: Path) -> Iterator[Result]:
    """Every recorded message read and written again, and those known by heart from scratch."""
    from wam_ros.serving.codec import packb, unpackb
    from wam_ros.serving.config import DROID_14B, ServerConfig

    for path in find(golden, "wire/*.bin"):
        recorded = path.read_bytes()
        yield _bytes(f"wire/{path.stem}", packb(unpackb(recorded)), recorded)
    scratch: dict[str, Any] = {
        "handshake_default": ServerConfig().to_wire(),
        "handshake_droid14b": DROID_14B.to_wire(),
        "request_reset": {"endpoint": "reset"},
        "noncontiguous": np.arange(12, dtype=np.int16).reshape(3, 4).T,
        "scalar": {"a": np.float32(1.5), "b": np.int64(-3), "c": np.bool_(True)},
    }
    for name, value in scratch.items():
        recorded = need(golden, f"wire/{name}.bin").read_bytes()
        yield _bytes(f"wire/{name} from scratch", packb(value), recorded)
    for name in ("request_infer_single", "request_infer_four"):
        recorded = need(golden, f"wire/{name}.bin").read_bytes()
        yield _bytes(f"wire/{name} from scratch", packb(_request(unpackb(recorded))), recorded)


def _request(recorded: dict[str, Any]) -> dict[str, Any]:
    """The recorded request with its pictures computed anew: flat value i is (7 i + k) mod 256."""
    from wam_ros.serving.codec import packb, unpackb

    request = unpackb(packb(recorded))
    views = [name for name, value in recorded.items() if getattr(value, "dtype", None) == np.uint8]
    first = 1 if recorded[views[0]].ndim == 3 else 4
    for k, name in enumerate(views, start=first):
        flat = (7 * np.arange(recorded[name].size) + k) % 256
        request[name] = flat.astype(np.uint8).reshape(recorded[name].shape)
    return dict(request)


def case_server_frames(golden: Path) -> Iterator[Result]:
    """The recorded sequence of requests through our queues, a frame being its number."""
    from wam_ros.serving.frames import CameraQueues

    log = read_json(golden, "server_frames.json")["log"]
    cameras = tuple(next(e["model_video"] for e in log if e["op"] == "infer"))
    # The recording starts at the first frame of its first call, per camera.
    start = {c: log[0]["model_video"][c][-1] - log[0]["frames_sent"] + 1 for c in cameras}
    queues = CameraQueues(cameras)
    sent = 0
    for i, entry in enumerate(log):
        if entry["op"] == "reset":
            queues.reset()
            continue
        queues.enter(entry["session_id"])
        for camera in cameras:
            numbers = start[camera] + sent + np.arange(entry["frames_sent"])
            frames = numbers.astype(np.uint8)[:, None, None, None] * np.ones((1, 1, 3), np.uint8)
            queues.push(camera, frames)
        sent += entry["frames_sent"]
        taken = queues.take()
        for camera in cameras:
            ours = taken[camera][:, 0, 0, 0].tolist()
            expected = [n % 256 for n in entry["model_video"][camera]]
            yield _same(f"server_frames/{i} {camera}", ours, expected)
