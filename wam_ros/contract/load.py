"""Read a robot contract from YAML.

The YAML is first checked against a JSON schema (`contract.schema.json`), which catches misspelt
keys and wrong types, and then by rules the schema cannot express (`check.py`). Every problem names
the file, the key and the fix, and all problems are reported together.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from wam_ros.contract import check
from wam_ros.contract.model import (
    ActionSource,
    Camera,
    Contract,
    Joint,
    JointGroup,
    Limits,
    Output,
    Rates,
    Safety,
    StateSource,
    VectorKey,
)
from wam_ros.resources import share

SCHEMA = Path(__file__).with_name("contract.schema.json")
LIMIT_KEYS = ("velocity", "acceleration", "jerk", "following_error")


class ContractError(ValueError):
    """A contract that cannot be used; the message names file, key and fix."""


def robots() -> list[str]:
    """Names of the robots that ship with the package."""
    return sorted(p.stem for p in (share() / "config" / "robots").glob("*.yaml"))


def load_contract(name_or_path: str | Path) -> Contract:
    """Load a robot contract.

    Parameters
    ----------
    name_or_path
        A shipped robot (``"agibot_g1"``) or the path of a YAML file.

    Raises
    ------
    ContractError
        Unknown robot, unreadable YAML, or any violated rule; lists every problem found.
    """
    path = _find(str(name_or_path))
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise ContractError(f"{path.name}: cannot be read as YAML: {err}") from err
    if not isinstance(raw, dict):
        raise ContractError(f"{path.name}: must be a mapping with the keys robot, groups, state, …")
    _raise(path, _schema_problems(raw))
    _raise(path, check.references(raw))
    contract = _build(raw, path)
    _raise(path, check.rules(contract))
    return contract


def _find(name: str) -> Path:
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ContractError(f"{name}: no such contract file")
        return path
    path = share() / "config" / "robots" / f"{name}.yaml"
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, robots(), n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    known = ", ".join(robots())
    raise ContractError(
        f"unknown robot '{name}'.{hint} Known robots: {known}; or give the path of a contract file."
    )


def _raise(path: Path, problems: Iterable[str]) -> None:
    problems = list(problems)
    if problems:
        raise ContractError("\n".join(f"{path.name}: {p}" for p in problems))


def _schema_problems(raw: dict[str, Any]) -> list[str]:
    import jsonschema

    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    errors = sorted(validator.iter_errors(raw), key=lambda e: list(map(str, e.absolute_path)))
    return [check.describe_schema_error(e) for e in errors]


def _build(raw: dict[str, Any], path: Path) -> Contract:
    groups = tuple(_group(g) for g in raw["groups"])
    members = {g.name: tuple(j.name for j in g.joints) for g in groups}

    def expand(names: str | list[str]) -> tuple[str, ...]:
        listed = [names] if isinstance(names, str) else names
        return tuple(j for n in listed for j in members.get(n, (n,)))

    view = raw["view"]
    return Contract(
        robot=raw["robot"],
        display_name=raw["display_name"],
        embodiment=raw["embodiment"],
        urdf=raw["urdf"],
        root_link=raw["root_link"],
        groups=groups,
        state=_vector(raw["state"], expand),
        action=_vector(raw["action"], expand),
        sources=tuple(StateSource(**{**s, "joints": expand(s["joints"])}) for s in raw["sources"]),
        cameras=tuple(
            Camera(**{**c, "xyz": tuple(c["xyz"]), "rpy": tuple(c["rpy"])}) for c in raw["cameras"]
        ),
        outputs=tuple(Output(**{**o, "joints": expand(o["joints"])}) for o in raw["outputs"]),
        rates=Rates(**raw["rates"]),
        view_width=view["width"],
        view_height=view["height"],
        max_skew=raw["max_skew"],
        prompt=raw["prompt"],
        safety=_safety(raw.get("safety", {})),
        path=str(path),
        action_sources=tuple(
            ActionSource(**{**s, "joints": expand(s["joints"])})
            for s in raw.get("action_sources", ())
        ),
    )


def _safety(raw: dict[str, Any]) -> Safety:
    box = raw.get("workspace")
    corners = None if box is None else (tuple(box["lower"]), tuple(box["upper"]))
    return Safety(**{**raw, "workspace": corners})


def _group(raw: dict[str, Any]) -> JointGroup:
    return JointGroup(
        name=raw["name"],
        role=raw["role"],
        joints=tuple(_joint(j, raw.get("limits", {})) for j in raw["joints"]),
        tip_link=raw.get("tip_link"),
        open_value=raw.get("open_value"),
        closed_value=raw.get("closed_value"),
    )


def _joint(raw: dict[str, Any], shared: dict[str, float]) -> Joint:
    limits = {**shared, **raw.get("limits", {})}
    urdf = raw.get("urdf")
    if isinstance(urdf, str):
        urdf = [{"joint": urdf}]
    return Joint(
        name=raw["name"],
        limits=Limits(lower=raw["lower"], upper=raw["upper"], **{k: limits[k] for k in LIMIT_KEYS}),
        urdf=tuple(
            (u["joint"], float(u.get("scale", 1.0)), float(u.get("offset", 0.0)))
            for u in urdf or ()
        ),
        home=raw.get("home", 0.0),
    )


def _vector(raw: list[dict[str, Any]], expand: Any) -> tuple[VectorKey, ...]:
    keys: list[VectorKey] = []
    start = 0
    for entry in raw:
        key = VectorKey(**{**entry, "joints": expand(entry["joints"]), "start": start})
        keys.append(key)
        start = key.stop
    return tuple(keys)
