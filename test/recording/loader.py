"""A reader of DreamZero data sets, written from the format's description alone.

It knows nothing of the writer: file names come from info.json, columns from modality.json, and
what must hold is asserted. Training windows are drawn as the sharded trainer draws them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

HORIZON, STRIDE, BLOCKS = 24, 3, 4


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in path.read_text().splitlines() if x]


@dataclass
class Window:
    """One training window: blocks of HORIZON steps, their frames, states and relative actions."""

    frames: list[int]
    anchors: list[int]
    states: np.ndarray
    actions: np.ndarray


def anchors_of(index: int, languages: list[Any], most: int = BLOCKS) -> list[int]:
    """Anchors of the blocks around step ``index``, added backwards and forwards in turn.

    A block needs its 24 steps and one closing frame inside the episode, and the same language at
    its anchor as at ``index``.
    """
    length = len(languages)

    def fits(a: int) -> bool:
        return a >= 0 and a + HORIZON < length and languages[a] == languages[index]

    first = index
    while not fits(first):
        first -= HORIZON
        if first < 0:
            return []
    return _grow(first, fits, most)


def _grow(first: int, fits: Any, most: int) -> list[int]:
    anchors, back, ahead = [first], first - HORIZON, first + HORIZON
    go_back = go_ahead = True
    while len(anchors) < most and (go_back or go_ahead):
        go_back = go_back and fits(back)
        if go_back:
            anchors.append(back)
            back -= HORIZON
        if len(anchors) >= most:
            break
        go_ahead = go_ahead and fits(ahead)
        if go_ahead:
            anchors.append(ahead)
            ahead += HORIZON
    return sorted(anchors)


class Dataset:
    """Opens a data set and checks every statement of the format while doing so."""

    def __init__(self, root: Path) -> None:
        self.root, meta = root, root / "meta"
        self.info = json.loads((meta / "info.json").read_text())
        self.modality = json.loads((meta / "modality.json").read_text())
        self.tag = json.loads((meta / "embodiment.json").read_text())["embodiment_tag"]
        self.stats = json.loads((meta / "stats.json").read_text())
        self.relative = json.loads((meta / "relative_stats_dreamzero.json").read_text())
        self.tasks = {r["task_index"]: r["task"] for r in lines(meta / "tasks.jsonl")}
        self.episodes = lines(meta / "episodes.jsonl")
        excluded = meta / "step_filter.jsonl"
        self.excluded = {
            r["episode_index"]: set(r["step_indices"])
            for r in (lines(excluded) if excluded.exists() else [])
        }
        self.tables = [self._table(e) for e in self.episodes]
        self._check()

    def _path(self, template: str, episode: int, **more: str) -> Path:
        chunk = episode // self.info["chunks_size"]
        name = self.info[template].format(episode_chunk=chunk, episode_index=episode, **more)
        path = self.root / name
        assert path.is_file(), path
        return path

    def _table(self, episode: dict[str, Any]) -> dict[str, list[Any]]:
        table = pq.read_table(self._path("data_path", episode["episode_index"]))
        assert table.num_rows == episode["length"]
        return table.to_pydict()

    def _check(self) -> None:
        assert self.info["codebase_version"] in ("v2.0", "v2.1")
        assert self.info["total_episodes"] == len(self.episodes)
        assert self.info["total_frames"] == sum(e["length"] for e in self.episodes)
        features = self.info["features"]
        expected = 0
        for number, (episode, t) in enumerate(zip(self.episodes, self.tables, strict=True)):
            n = episode["length"]
            assert episode["episode_index"] == number
            assert t["frame_index"] == list(range(n))
            assert set(t["episode_index"]) == {number}
            assert t["index"] == list(range(expected, expected + n))
            expected += n
            assert np.allclose(t["timestamp"], np.arange(n) / self.info["fps"], atol=1e-5)
            assert {self.tasks[i] for i in t["task_index"]} == set(episode["tasks"])
            for column, spec in features.items():
                if spec["dtype"] != "video":
                    assert column in t, column
        for kind in ("state", "action"):
            for key, m in self.modality[kind].items():
                spec = features[m["original_key"]]
                assert spec["dtype"] == m["dtype"] and m["dtype"].startswith("float")
                assert 0 <= m["start"] < m["end"] <= spec["shape"][0], key
                assert m["absolute"] is True and m["rotation_type"] is None and m["range"] is None
        shapes = {
            tuple(features[v["original_key"]]["shape"]) for v in self.modality["video"].values()
        }
        assert len(shapes) == 1, "all cameras must share one resolution"

    def vector(self, kind: str, key: str, episode: int) -> np.ndarray:
        m = self.modality[kind][key]
        return np.asarray(self.tables[episode][m["original_key"]])[:, m["start"] : m["end"]]

    def language(self, key: str, episode: int) -> list[str]:
        column = self.tables[episode][self.modality["annotation"][key]["original_key"]]
        return [x if isinstance(x, str) else self.tasks[x] for x in column]

    def frames(self, key: str, episode: int) -> list[np.ndarray]:
        """All frames, fetched by the nearest timestamp to each row's."""
        original = self.modality["video"][key]["original_key"]
        path = self._path("video_path", episode, video_key=original)
        shape = self.info["features"][original]["shape"]
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            decoded = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        assert all(list(f.shape) == shape for _, f in decoded)
        times = np.array([t for t, _ in decoded])
        found = []
        for t in self.tables[episode]["timestamp"]:
            k = int(np.argmin(np.abs(times - t)))
            assert abs(times[k] - t) < 0.5 / self.info["fps"]
            found.append(decoded[k][1])
        return found

    def window(self, episode: int, step: int, language: str, relative: list[str]) -> Window | None:
        assert step not in self.excluded.get(episode, set())
        anchors = anchors_of(step, self.language(language, episode))
        if not anchors:
            return None
        frames = [a + k for a in anchors for k in range(0, HORIZON, STRIDE)]
        frames.append(anchors[-1] + HORIZON)
        states = {k: self.vector("state", k, episode) for k in self.modality["state"]}
        parts = []
        for key in self.modality["action"]:
            a = self.vector("action", key, episode)
            rows = np.stack([a[x : x + HORIZON] for x in anchors])
            if key in relative:
                rows = rows - np.stack([states[key][x][None] for x in anchors])
            parts.append(rows)
        return Window(
            frames,
            anchors,
            np.stack([np.concatenate([s[x] for s in states.values()]) for x in anchors]),
            np.concatenate(parts, axis=-1),
        )
