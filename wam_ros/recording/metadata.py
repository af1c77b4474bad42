"""rosbag2's metadata.yaml, as Jazzy writes it (version 9)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE = "metadata.yaml"
# Ten times as fast where libyaml is there, and it is with every common build of PyYAML.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FOREVER = {"sec": 9223372036, "nsec": 854775807}


@dataclass
class Topic:
    """One recorded topic; ``qos`` holds the profiles its publishers offered."""

    name: str
    type: str
    qos: list[dict[str, Any]] = field(default_factory=list)
    type_hash: str = ""
    count: int = 0


def qos_profile(reliability: str, durability: str, depth: int) -> dict[str, Any]:
    """A profile as metadata.yaml spells it, for example ``("reliable", "volatile", 10)``."""
    return {
        "history": "keep_last",
        "depth": depth,
        "reliability": reliability,
        "durability": durability,
        "deadline": dict(_FOREVER),
        "lifespan": dict(_FOREVER),
        "liveliness": "automatic",
        "liveliness_lease_duration": dict(_FOREVER),
        "avoid_ros_namespace_conventions": False,
    }


def qos_text(profiles: list[dict[str, Any]]) -> str:
    """The same profiles as the MCAP channel metadata carries them."""
    return yaml.dump(profiles, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Writes repeated values out: rosbag2's reader takes no YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(
    folder: Path,
    mcap: str,
    topics: list[Topic],
    start_ns: int,
    end_ns: int,
    custom: dict[str, str],
) -> None:
    """Write metadata.yaml of a bag with one MCAP file, replacing it in one step."""
    total = sum(t.count for t in topics)
    duration = {"nanoseconds": max(0, end_ns - start_ns)}
    begin = {"nanoseconds_since_epoch": start_ns}
    info = {
        "version": 9,
        "storage_identifier": "mcap",
        "duration": duration,
        "starting_time": begin,
        "message_count": total,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": t.name,
                    "type": t.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": t.qos,
                    "type_description_hash": t.type_hash,
                },
                "message_count": t.count,
            }
            for t in topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [mcap],
        "files": [
            {"path": mcap, "starting_time": begin, "duration": duration, "message_count": total}
        ],
        "custom_data": custom,
        "ros_distro": "jazzy",
    }
    _replace(folder, {"rosbag2_bagfile_information": info})


def read(folder: Path) -> dict[str, Any]:
    """The ``rosbag2_bagfile_information`` of a bag; empty when there is none that can be read."""
    try:
        value = yaml.load((folder / FILE).read_text(encoding="utf-8"), Loader=_LOADER)
        return dict(value["rosbag2_bagfile_information"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}


def amend(folder: Path, custom: dict[str, str]) -> None:
    """Change entries of ``custom_data``; FileNotFoundError without a readable metadata.yaml."""
    info = read(folder)
    if not info:
        raise FileNotFoundError(f"{folder / FILE} cannot be read; run `wam record --repair` on it")
    info["custom_data"] = {**(info.get("custom_data") or {}), **custom}
    _replace(folder, {"rosbag2_bagfile_information": info})


def _replace(folder: Path, value: dict[str, Any]) -> None:
    draft = folder / f".{FILE}"
    draft.write_text(yaml.dump(value, Dumper=_Plain, sort_keys=False), encoding="utf-8")
    os.replace(draft, folder / FILE)
