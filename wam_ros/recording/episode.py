"""What a bag says about its episode, apart from the messages."""

from __future__ import annotations

import json
import platform
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from wam_ros.contract import Contract, load_contract

Verdict = Literal["success", "failure", "discard", "none", "interrupted"]
VERDICTS: tuple[Verdict, ...] = ("success", "failure", "discard")
"""The order of StopEpisode's constants. A bag may also have ``none`` or ``interrupted``."""
EPISODE_RECORD = "wam_ros.episode"
VERDICT_RECORD = "wam_ros.verdict"
_PACKAGES = ("wam_ros", "ros-rclpy", "ros-fastrtps", "numpy", "mcap")


def versions() -> dict[str, str]:
    """Versions of what recorded."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@lru_cache(maxsize=16)
def _contract(robot: str, text: str) -> Contract:
    """Hundreds of episodes share one contract; reading it takes longer than some episodes do."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{robot}.yaml"
        path.write_text(text, encoding="utf-8")
        return load_contract(path)


@dataclass(frozen=True)
class Episode:
    """Robot, contract (the YAML itself), instruction and verdict of one bag."""

    robot: str
    contract_text: str
    instruction: str = ""
    verdict: Verdict = "none"
    note: str = ""
    simulated: bool = False
    started: str = ""
    """Local time with offset, ISO 8601."""
    versions: dict[str, str] = field(default_factory=versions)

    def contract(self) -> Contract:
        """The contract that was in force while recording.

        Raises
        ------
        ContractError
            The text in the bag does not fit this version's schema.
        """
        return _contract(self.robot, self.contract_text)

    def as_record(self) -> dict[str, str]:
        """As an MCAP metadata record (text to text)."""
        return {
            "robot": self.robot,
            "contract": self.contract_text,
            "instruction": self.instruction,
            "simulated": str(self.simulated).lower(),
            "started": self.started,
            "versions": json.dumps(self.versions, sort_keys=True),
        }

    def as_custom_data(self) -> dict[str, str]:
        """As ``custom_data`` of metadata.yaml, without the long parts."""
        return {
            "wam_robot": self.robot,
            "wam_instruction": self.instruction,
            "wam_verdict": self.verdict,
            "wam_note": self.note,
        }


def from_records(
    episode: dict[str, str], verdict: dict[str, str], custom: dict[str, str]
) -> Episode:
    """Put an Episode together from a bag's records and the ``custom_data`` of its metadata.yaml.

    ``custom_data`` wins: a verdict given later is written there, the MCAP stays as it is.
    """
    given = custom.get("wam_verdict") or verdict.get("verdict") or "none"
    return Episode(
        robot=episode.get("robot", ""),
        contract_text=episode.get("contract", ""),
        instruction=episode.get("instruction", ""),
        verdict=given,  # type: ignore[arg-type]
        note=custom.get("wam_note", verdict.get("note", "")),
        simulated=episode.get("simulated") == "true",
        started=episode.get("started", ""),
        versions=json.loads(episode.get("versions", "{}")),
    )
