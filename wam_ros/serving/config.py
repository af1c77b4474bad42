"""What a RoboArena server says first: the views it wants and the actions it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

ACTION_SPACES = (
    "joint_position",
    "joint_velocity",
    "cartesian_position",
    "cartesian_velocity",
)


@dataclass(frozen=True)
class ServerConfig:
    """The first message of protocols B and C; the defaults are RoboArena's own.

    ``image_resolution`` is ``(height, width)``, or None when views are wanted as the camera has
    them. The order of the fields is their order on the wire.
    """

    image_resolution: tuple[int, int] | None = (224, 224)
    needs_wrist_camera: bool = True
    n_external_cameras: int = 1
    needs_stereo_camera: bool = False
    needs_session_id: bool = False
    action_space: str = "joint_position"

    def __post_init__(self) -> None:
        if self.action_space not in ACTION_SPACES:
            raise ValueError(
                f"action space {self.action_space!r} is not one of {', '.join(ACTION_SPACES)}"
            )

    def to_wire(self) -> dict[str, Any]:
        """The map that is sent."""
        return asdict(self)

    @staticmethod
    def matches(found: Mapping[Any, Any]) -> bool:
        """Whether a first message is of this kind (openpi and LingBot-VA send others)."""
        return "action_space" in found or "n_external_cameras" in found

    @classmethod
    def from_wire(cls, found: Mapping[Any, Any]) -> ServerConfig:
        """Read a first message; unknown keys are left out, ValueError names a wrong value."""
        known = {k: v for k, v in found.items() if k in cls.__dataclass_fields__}
        size = known.get("image_resolution")
        if size is not None:
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise ValueError(f"image_resolution {size!r} is not (height, width)")
            known["image_resolution"] = (int(size[0]), int(size[1]))
        return cls(**known)


DROID_14B = ServerConfig(image_resolution=(180, 320), n_external_cameras=2, needs_session_id=True)
"""What DreamZero's 14B server for DROID says."""
