"""Rules a contract must keep, beyond what the JSON schema says."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from wam_ros.contract.model import Contract

_SWELL = 0.001
"""Share of its limit by which a joint's speed may rise between two control cycles."""
LIMIT_KEYS = ("velocity", "acceleration", "jerk", "following_error")


def describe_schema_error(error: Any) -> str:
    """Turn a jsonschema error into "key: what is wrong; what to do"."""
    key = ".".join(str(p) for p in error.absolute_path) or "(top level)"
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        extra = [k for k in error.instance if k not in allowed]
        hints = []
        for name in extra:
            close = difflib.get_close_matches(name, allowed, n=1)
            hints.append(
                f"unknown key '{name}'" + (f", did you mean '{close[0]}'?" if close else "")
            )
        return f"{key}: {'; '.join(hints)} Allowed: {', '.join(allowed)}"
    if error.validator == "required":
        missing = [k for k in error.validator_value if k not in error.instance]
        return f"{key}: add the missing key {', '.join(missing)}"
    if error.validator == "enum":
        return (
            f"{key}: {error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
        )
    return f"{key}: {error.message}"


def references(raw: dict[str, Any]) -> Iterator[str]:
    """Check names and limits on the raw YAML, before typed values are built."""
    groups = [g["name"] for g in raw["groups"]]
    joints = [j["name"] for g in raw["groups"] for j in g["joints"]]
    for name in sorted({n for n in joints if joints.count(n) > 1}):
        yield f"groups: joint '{name}' appears twice; give each joint one group"
    for g in raw["groups"]:
        for j in g["joints"]:
            have = {**g.get("limits", {}), **j.get("limits", {})}
            missing = [k for k in LIMIT_KEYS if k not in have]
            if missing:
                yield (
                    f"groups.{g['name']}.{j['name']}: no limit for {', '.join(missing)}; "
                    "set it under the group's or the joint's `limits`"
                )
    known = {*groups, *joints}
    for section in ("state", "action", "sources", "outputs", "action_sources"):
        for entry in raw.get(section, ()):
            listed = entry["joints"]
            for name in [listed] if isinstance(listed, str) else listed:
                if name not in known:
                    label = entry.get("key") or entry.get("name")
                    close = difflib.get_close_matches(name, sorted(known), n=1)
                    hint = f"; did you mean '{close[0]}'?" if close else ""
                    yield f"{section}.{label}: no group or joint called '{name}'{hint}"


def rules(c: Contract) -> Iterator[str]:
    """Check the typed contract: limits, home pose, vectors, sources, outputs, rates."""
    yield from _limits(c)
    yield from _vectors(c)
    yield from _actions(c)
    yield from _outputs(c)
    slots = [cam.slot for cam in c.cameras]
    for slot in sorted({s for s in slots if slots.count(s) > 1}):
        yield f"cameras: slot '{slot}' is used by two cameras; each view needs its own"
    names = [x.name for x in (*c.inputs, *c.action_sources)]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"cameras, sources, action_sources: '{name}' names two of them; rename one"
    if "{instruction}" not in c.prompt:
        yield "prompt: must contain {instruction}, the place of the language command"


def _limits(c: Contract) -> Iterator[str]:
    for group in c.groups:
        for j in group.joints:
            lim = j.limits
            where = f"groups.{group.name}.{j.name}"
            if lim.lower >= lim.upper:
                yield f"{where}: lower {lim.lower} must be below upper {lim.upper}"
            elif not lim.lower <= j.home <= lim.upper:
                yield f"{where}: home {j.home} is outside [{lim.lower}, {lim.upper}]"
            swell = lim.jerk / c.rates.control**2 / 8.0
            if group.role != "base" and swell > _SWELL * lim.velocity:
                yield (
                    f"{where}: with jerk {lim.jerk} its speed may rise by {swell:.2g} between two "
                    f"cycles at {c.rates.control} Hz, much beside its velocity of {lim.velocity}; "
                    "lower the jerk"
                )
        if group.role == "gripper" and None in (group.open_value, group.closed_value):
            yield f"groups.{group.name}: a gripper needs open_value and closed_value"
        if group.role == "arm" and not group.tip_link:
            yield f"groups.{group.name}: an arm needs tip_link, the URDF link of its tool centre"


def _vectors(c: Contract) -> Iterator[str]:
    sourced = [j for s in c.sources for j in s.joints]
    for key in c.state:
        for j in key.joints:
            if j not in sourced:
                yield f"state.{key.key}: no source brings joint '{j}'; add it under `sources`"
    for j in sorted({j for j in sourced if sourced.count(j) > 1}):
        yield f"sources: joint '{j}' comes from two sources; keep one"
    state_joints = set(c.state_names)
    for key in c.action:
        role = {c.group_of(j).role for j in key.joints}
        if key.relative and not set(key.joints) <= state_joints:
            yield f"action.{key.key}: relative needs the same joints in `state`"
        if (role == {"base"}) != (key.kind == "velocity"):
            yield f"action.{key.key}: kind '{key.kind}' does not fit; a base moves by velocity"


def _actions(c: Contract) -> Iterator[str]:
    wanted = set(c.action_names)
    for s in c.action_sources:
        for j in s.joints:
            if j not in wanted:
                yield f"action_sources.{s.name}: joint '{j}' is in no action key; leave it out"


def _outputs(c: Contract) -> Iterator[str]:
    covered = [j for o in c.outputs for j in o.joints]
    velocity = [j for k in c.action if k.enabled and k.kind == "velocity" for j in k.joints]
    for j in c.control_names:
        if j not in covered:
            yield f"outputs: no output drives joint '{j}'; add one or disable its action key"
    for o in c.outputs:
        known = [j for j in o.joints if j in (*c.control_names, *velocity)]
        if known and len(known) < len(o.joints):
            idle = ", ".join(j for j in o.joints if j not in known)
            yield f"outputs.{o.name}: drives {idle} too, which no enabled action key moves"
        if o.rate > c.rates.control:
            loop = c.rates.control
            yield f"outputs.{o.name}: rate {o.rate} Hz is above the control loop's {loop}"
        if o.status != "unknown" and o.type == "unknown":
            yield f"outputs.{o.name}: type is unknown, so its status must be unknown too"
        if o.scale == 0.0:
            yield f"outputs.{o.name}: scale 0 would send the same value always"
