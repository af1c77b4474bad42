"""Collect demonstrations: the teacher through many rollouts, each into a bag of its own."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wam_ros.contract import load_contract
from wam_ros.jsonfile import write_json
from wam_ros.nodes.bag_observer import BagObserver, Options, verdict_of
from wam_ros.recording import metadata
from wam_ros.recording.bag import OPEN
from wam_ros.rollout import Rollout, Settings
from wam_ros.rollout.body import steps_of
from wam_ros.rollout.plan import BLOCK, EpisodePlan, plan_episode
from wam_ros.rollout.policies import teacher
from wam_ros.sim.language import Split
from wam_ros.sim.variation import Randomisation, Scenes
from wam_ros.workers import worker_pool

ARGUMENTS = "collect.json"
"""File in the collection's folder that says how it was made."""


class CollectError(ValueError):
    """A collection that cannot go on; says which argument differs."""


@dataclass(frozen=True)
class Collection:
    """What is collected and how; everything that decides an episode's content is here.

    ``latency`` (s) is what the teacher's calls cost, ``width`` the pictures' width in pixels,
    ``deadline`` the longest episode and ``linger`` how long one goes on after its success (s).
    """

    robot: str = "agibot_g1"
    seed: int = 0
    split: Split = "train"
    tasks: tuple[str, ...] = ("touch",)
    mishaps: float = 0.0
    nudges: float = 0.0
    chain: float = 0.0
    cadence: str = "async"
    latency: float = 0.1
    width: int = 128
    pictures: str = "raw"
    compression: str = "zstd"
    camera_rate: float | None = None
    state_rate: float = 60.0
    control_rate: float | None = None
    deadline: float = 12.0
    linger: float = 0.3
    randomise: bool = True


class Collector:
    """Runs episodes of a collection, one after another, in this process."""

    def __init__(self, collection: Collection, out: Path) -> None:
        self._c, self._out = collection, out
        c = collection
        self.contract = load_contract(c.robot)
        how = None if c.randomise else Randomisation.none()
        self._scenes = Scenes(self.contract, how)
        settings = Settings(
            camera_rate=c.camera_rate,
            state_rate=c.state_rate,
            render_width=c.width,
            linger=c.linger,
            control_rate=c.control_rate,
        )
        self._teacher = teacher(c.latency)
        self.rollout = Rollout(
            self.contract,
            self._teacher,
            cadence=c.cadence,
            latency=c.latency,
            settings=settings,
            scenes=self._scenes,
        )

    def plan(self, index: int) -> EpisodePlan:
        """What episode ``index`` is about."""
        c = self._c
        return plan_episode(
            self.contract,
            c.split,
            c.seed,
            index,
            c.tasks,
            c.mishaps,
            chain=c.chain,
            nudges=c.nudges,
        )

    def episode(self, index: int) -> dict[str, Any]:
        """Record episode ``index`` unless it is there; returns its summary."""
        plan = self.plan(index)
        folder = self._out / folder_name(plan)
        there = finished(folder)
        if there is not None:
            return {"index": index, "verdict": there, "skipped": True, "seconds": 0.0, "wall": 0.0}
        shutil.rmtree(folder, ignore_errors=True)  # what an interruption left
        options = Options(self._c.pictures, self._c.compression)
        mishap = "disturbed" if plan.mishap or plan.nudge else ""
        self._teacher.play_seed = plan.seed
        found = self.rollout.run(
            plan.instruction,
            self._c.deadline,
            [BagObserver(folder, options, mishap)],
            seed=plan.seed,
            then=plan.then,
            disturbances=plan.disturbances(self.contract, self._scenes),
        )
        return {
            "index": index,
            "verdict": verdict_of(found, self.contract),
            "skipped": False,
            "seconds": found.simulated_seconds,
            "wall": found.wall_seconds,
            "error": found.error or found.stopped,
        }


def folder_name(plan: EpisodePlan) -> str:
    """Folder of an episode, sorted by number: ``ep000007_touch_the_red_block``."""
    words = "_".join(re.findall(r"[a-z0-9]+", plan.instruction.lower()))[:48].strip("_")
    return f"ep{plan.index:06d}_{words}"


def finished(folder: Path) -> str | None:
    """Verdict of a bag that was written to its end; None when there is none."""
    custom = metadata.read(folder).get("custom_data") or {}
    if not custom or OPEN in custom:
        return None
    return str(custom.get("wam_verdict", "none"))


_worker: Collector | None = None


def _begin(collection: Collection, out: Path) -> None:
    global _worker
    _worker = Collector(collection, out)


def _episode(index: int) -> dict[str, Any]:
    assert _worker is not None
    return _worker.episode(index)


def collect(
    collection: Collection,
    episodes: int,
    out: Path,
    jobs: int = 1,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Record ``episodes`` episodes into bags under ``out``, going on where an earlier run ended.

    ``progress`` is called with every episode's summary as it ends.

    Raises
    ------
    CollectError
        An argument is out of range, or ``out`` holds a collection made with others; names them.
    """
    _check(collection, episodes)
    _agree(collection, out)
    if jobs <= 1:
        worker = Collector(collection, out)
        summaries = []
        for index in range(episodes):
            summaries.append(worker.episode(index))
            progress(summaries[-1])
        worker.rollout.close()
        return summaries
    summaries = []
    with worker_pool(jobs, _begin, (collection, out)) as pool:
        for done in as_completed([pool.submit(_episode, i) for i in range(episodes)]):
            summaries.append(done.result())
            progress(summaries[-1])
    return sorted(summaries, key=lambda s: s["index"])


def _check(collection: Collection, episodes: int) -> None:
    """Refuse what no episode can be planned from, before the folder says that it was collected."""
    if collection.seed < 0:
        raise CollectError(f"--seed {collection.seed}: seeds start at 0")
    if episodes > BLOCK:
        raise CollectError(f"--episodes {episodes}: a seed has {BLOCK}; use several")
    for name in ("mishaps", "nudges", "chain"):
        share = getattr(collection, name)
        if not 0.0 <= share <= 1.0:
            raise CollectError(f"--{name} {share:g}: a share of the episodes, 0 to 1")
    for name in ("deadline", "state_rate", "camera_rate", "control_rate", "width"):
        value = getattr(collection, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise CollectError(f"--{name.replace('_', '-')} {value:g}: must be above 0")
    for name in ("latency", "linger"):
        value = getattr(collection, name)
        if not (math.isfinite(value) and value >= 0):
            raise CollectError(f"--{name} {value:g}: must not be negative")
    contract = load_contract(collection.robot)
    try:
        steps_of(collection.control_rate or contract.rates.control)
    except ValueError as err:
        whose = "--control-rate" if collection.control_rate else f"{contract.robot}, rates.control"
        raise CollectError(f"{whose}: {err}") from err
    for task in collection.tasks:
        try:
            plan_episode(contract, collection.split, collection.seed, 0, (task,))
        except ValueError as err:
            raise CollectError(str(err)) from err


def _agree(collection: Collection, out: Path) -> None:
    file = out / ARGUMENTS
    mine = json.loads(json.dumps(asdict(collection)))
    if file.is_file():
        # What an older version did not know yet it did as the defaults say.
        try:
            theirs = {**asdict(Collection()), **json.loads(file.read_text(encoding="utf-8"))}
        except ValueError as err:
            raise CollectError(
                f"{file} cannot be read ({err}): remove it if nothing was collected there"
            ) from err
        differ = [k for k in mine if theirs.get(k) != mine[k]]
        if differ:
            said = ", ".join(f"{k} {theirs.get(k)} there, {mine[k]} now" for k in differ)
            raise CollectError(f"{out} was collected otherwise ({said}); choose another folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, mine)
