"""``experiment_cfg/conf.yaml``: how the training prepared its data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wam_ros.wam.checkpoint.errors import CheckpointError

_REFERENCE = re.compile(r"\$\{([\w.\-]+)\}")


@dataclass(frozen=True)
class EmbodimentSetup:
    """Key orders, normalisation modes and rate of one embodiment.

    Keys come without their ``video.``, ``state.`` and ``action.`` prefixes. `fps` is the rate of
    the dataset and with it of the action rows, in Hz; None where the file does not say.
    """

    video: tuple[str, ...]
    state: tuple[str, ...]
    action: tuple[str, ...]
    modes: dict[str, dict[str, str]]
    fps: float | None

    def mode(self, kind: str, key: str) -> str:
        """Normalisation mode of a ``state`` or ``action`` key; q99 where not named."""
        return self.modes.get(kind, {}).get(key, "q99")


@dataclass(frozen=True)
class Experiment:
    """What ``conf.yaml`` says."""

    embodiments: dict[str, EmbodimentSetup]
    relative_action: bool
    relative_action_keys: tuple[str, ...]
    relative_action_per_horizon: bool

    @property
    def relative(self) -> tuple[str, ...]:
        """Action keys that are relative to the state; none when the switch is off."""
        on = self.relative_action or self.relative_action_per_horizon
        return self.relative_action_keys if on else ()


def read_experiment(path: Path) -> Experiment:
    """Read a ``conf.yaml``, plain or with ``${a.b}`` references as Hydra leaves them.

    Raises
    ------
    CheckpointError
        If the file is missing or malformed, or a reference leads nowhere.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; it holds key orders and modes") from None
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path}: not valid YAML ({error})") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path}: expected a mapping")
    try:
        configs = _resolve(data.get("modality_configs") or {}, data)
        transforms = _resolve(data.get("transforms") or {}, data)
        fps = _resolve(data.get("fps") or {}, data)
        return Experiment(
            {tag: _setup(c, transforms.get(tag) or {}, fps, tag) for tag, c in configs.items()},
            bool(_resolve(data.get("relative_action", False), data)),
            tuple(_resolve(data.get("relative_action_keys") or (), data)),
            bool(_resolve(data.get("relative_action_per_horizon", False), data)),
        )
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def experiment_to_conf(experiment: Experiment) -> dict[str, Any]:
    """The inverse of `read_experiment`, ready to be written as YAML."""
    configs, transforms, fps = {}, {}, {}
    for tag, e in experiment.embodiments.items():
        kinds = {"video": e.video, "state": e.state, "action": e.action}
        configs[tag] = {
            kind: {"modality_keys": [f"{kind}.{key}" for key in keys]}
            for kind, keys in kinds.items()
        }
        steps = [
            {
                "apply_to": [f"{kind}.{key}" for key in keys],
                "normalization_modes": {f"{kind}.{key}": e.mode(kind, key) for key in keys},
            }
            for kind, keys in kinds.items()
            if kind != "video"
        ]
        transforms[tag] = {"transforms": steps}
        if e.fps is not None:
            fps[tag] = e.fps
    return {
        "relative_action": experiment.relative_action,
        "relative_action_per_horizon": experiment.relative_action_per_horizon,
        "relative_action_keys": list(experiment.relative_action_keys),
        "fps": fps,
        "modality_configs": configs,
        "transforms": transforms,
    }


def _setup(config: Mapping[str, Any], transform: Any, fps: Any, tag: str) -> EmbodimentSetup:
    keys = {kind: _keys(config, kind) for kind in ("video", "state", "action")}
    modes: dict[str, dict[str, str]] = {}
    for step in transform.get("transforms", ()) if isinstance(transform, Mapping) else ():
        # Steps that need the model's own transform are references that nobody resolves here.
        for name, mode in (step.get("normalization_modes") or {}).items() if _is(step) else ():
            kind, _, key = name.partition(".")
            modes.setdefault(kind, {})[key] = str(mode)
    rate = fps.get(tag) if isinstance(fps, Mapping) else fps
    return EmbodimentSetup(**keys, modes=modes, fps=float(rate) if rate else None)


def _keys(config: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    names = (config.get(kind) or {}).get("modality_keys") or ()
    return tuple(str(name).removeprefix(f"{kind}.") for name in names)


def _is(step: Any) -> bool:
    return isinstance(step, Mapping)


def _resolve(value: Any, root: Mapping[str, Any], depth: int = 0) -> Any:
    """Replace whole-value references by what they point to; unknown ones stay as text."""
    if depth > 32:
        raise ValueError("references go round in a circle")
    if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
        target: Any = root
        for part in match[1].split("."):
            if not isinstance(target, Mapping) or part not in target:
                return value
            target = target[part]
        return _resolve(target, root, depth + 1)
    if isinstance(value, Mapping):
        return {k: _resolve(v, root, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(v, root, depth + 1) for v in value]
    return value
