"""A made-up dataset in the layout that `wam dataset` writes, trained on in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pa = pytest.importorskip("pyarrow")
av = pytest.importorskip("av")

import pyarrow.parquet as pq  # noqa: E402

from wam_ros.recording.gear import write_gear_metadata  # noqa: E402
from wam_ros.recording.video import VideoWriter  # noqa: E402
from wam_ros.training.gear import GearDataset  # noqa: E402

torch.set_num_threads(1)

WIDTH, HEIGHT, FPS = 64, 36, 30.0
STATE = {
    "left_arm_joint_position": (0, 7),
    "right_arm_joint_position": (7, 14),
    "left_effector_position": (14, 15),
    "right_effector_position": (15, 16),
    "head_position": (16, 18),
    "waist_position": (18, 20),
}
VIEWS = ("top_head", "hand_left", "hand_right")
TASKS = ["touch the red block with the left hand", "touch the blue block with the right hand"]


def motion(rows: int, task: int, rng: np.random.Generator) -> np.ndarray:
    """States [rows, 20]: one arm goes somewhere and rests; the other joints stand still."""
    start = rng.uniform(-0.5, 0.5, 20)
    start[16:] = (0.0, 0.4, 0.5, 0.3)
    goal = start.copy()
    goal[7 * task : 7 * task + 7] += rng.uniform(-0.4, 0.4, 7)
    share = np.clip(np.arange(rows) / (0.7 * rows), 0.0, 1.0)[:, None]
    return start + (3 * share**2 - 2 * share**3) * (goal - start)


def picture(view: int, row: int, task: int) -> np.ndarray:
    """A view [HEIGHT, WIDTH, 3] with a square that moves, in the task's colour."""
    image = np.full((HEIGHT, WIDTH, 3), 90 + 30 * view, np.uint8)
    x = 4 + (row // 2) % (WIDTH - 16)
    image[10:20, x : x + 10] = (220, 30, 30) if task == 0 else (30, 30, 220)
    return image


def write_dataset(root: Path, episodes: int = 4, rows: int = 90, seed: int = 0) -> Path:
    """Write ``episodes`` episodes, every other one with an instruction that changes half-way."""
    rng = np.random.default_rng(seed)
    features = {
        "observation.state": {"dtype": "float32", "shape": [20]},
        "action": {"dtype": "float32", "shape": [20]},
        "annotation.language.action_text": {"dtype": "int64", "shape": [1]},
        **{
            f"observation.images.{v}": {"dtype": "video", "shape": [HEIGHT, WIDTH, 3]}
            for v in VIEWS
        },
    }
    info = {
        "codebase_version": "v2.0",
        "robot_type": "agibot",
        "fps": FPS,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    (root / "data" / "chunk-000").mkdir(parents=True)
    for n in range(episodes):
        halves = [n % 2, (n + 1) % 2 if n % 2 else n % 2]
        parts = [motion(rows // 2, t, rng) for t in halves]
        state = np.concatenate(parts)
        action = np.concatenate([state[1:], state[-1:]])
        task = np.repeat(halves, rows // 2)
        table = pa.table(
            {
                "observation.state": list(state.astype(np.float32)),
                "action": list(action.astype(np.float32)),
                "timestamp": np.arange(rows) / FPS,
                "episode_index": np.full(rows, n),
                "annotation.language.action_text": task,
            }
        )
        pq.write_table(table, root / "data" / "chunk-000" / f"episode_{n:06d}.parquet")
        for i, v in enumerate(VIEWS):
            folder = root / "videos" / "chunk-000" / f"observation.images.{v}"
            folder.mkdir(parents=True, exist_ok=True)
            writer = VideoWriter(folder / f"episode_{n:06d}.mp4", WIDTH, HEIGHT, FPS)
            for row in range(rows):
                writer.add(picture(i, row, int(task[row])))
            writer.close()
    relative = tuple(STATE)
    write_gear_metadata(root, "agibot", STATE, STATE, relative, tasks=TASKS)
    return root


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> GearDataset:
    """Four episodes of 3 s."""
    return GearDataset.open(write_dataset(tmp_path_factory.mktemp("gear") / "data"))
