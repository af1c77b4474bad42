"""One episode of an evaluation, and files of them: one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EpisodeRecord:
    """What is kept of an episode.

    Attributes
    ----------
    policy, cadence, task, split
        What was evaluated; ``task`` is a kind (``touch``, ``bowl``, ``chain``), ``split`` says
        which placements and sentences were used, for example ``held_out``.
    seed
        Fixes scene and sentence; policies are compared on the same seeds.
    progress
        0 at the start, 1 when done; of a chain, the share of its instructions that were done.
    time_to_success
        s from the instruction to the moment it counted as done; None when it never did.
    path_length
        Way of the acting tool centre, m.
    rms_jerk
        Root mean square of the commanded joints' third derivative, rad/s3.
    chunk_latencies
        s from observation to chunk, one per call.
    holds, hold_seconds
        How often, and for how long in all, the executor held because no chunk was there in time.
    final_distance
        What was left at the end, m; NaN where it has no meaning.
    error
        Why the episode was broken off; empty when it ran its course.
    done
        Instructions carried out before the first that was not.
    """

    policy: str
    cadence: str
    task: str
    split: str
    seed: int
    instruction: str
    success: bool
    progress: float
    time_to_success: float | None
    path_length: float
    rms_jerk: float
    chunk_latencies: tuple[float, ...] = field(default=())
    holds: int = 0
    hold_seconds: float = 0.0
    final_distance: float = float("nan")
    error: str = ""
    done: int = 0

    def __post_init__(self) -> None:
        if self.success and self.time_to_success is None:
            raise ValueError(
                f"episode {self.seed} of {self.policy} is a success without a time to success"
            )
        if not 0.0 <= self.progress <= 1.0:
            raise ValueError(
                f"episode {self.seed} of {self.policy}: progress {self.progress} is not in 0..1"
            )


def plain(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def write_records(path: Path, records: Iterable[EpisodeRecord]) -> None:
    """Write one JSON object a line."""
    lines = [json.dumps(plain(asdict(r)), allow_nan=False) for r in records]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_records(path: Path) -> list[EpisodeRecord]:
    """Read what `write_records` wrote; ValueError names the line that cannot be used."""
    known = {f.name for f in fields(EpisodeRecord)}
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
            strange = set(raw) - known
            if strange:
                raise ValueError(f"unknown field {sorted(strange)[0]}")
            if raw.get("final_distance", 0.0) is None:
                raw["final_distance"] = math.nan
            raw["chunk_latencies"] = tuple(raw.get("chunk_latencies", ()))
            found.append(EpisodeRecord(**raw))
        except (ValueError, TypeError) as err:
            raise ValueError(f"{path}, line {number}: {err}") from err
    return found
