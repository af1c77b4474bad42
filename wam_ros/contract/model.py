"""What a robot is, as typed values. `load.py` builds these from YAML and `check.py` validates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wam_ros.contract.data import Kind

AlignPolicy = Literal["hold", "asof", "drop"]
Timeline = Literal["header", "receive"]
Status = Literal["known", "community", "unknown"]
Origin = Literal["human", "policy", "executor"]


@dataclass(frozen=True)
class Limits:
    """Motion limits of one joint: rad or m, and their time derivatives per second.

    ``following_error`` is the largest allowed distance between reference and measurement.
    """

    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    following_error: float


@dataclass(frozen=True)
class Joint:
    """One controlled degree of freedom.

    ``name`` is the name on the driver's topics and in the state and action vectors. ``urdf`` maps
    it onto the model: each ``(joint, scale, offset)`` gives ``q_urdf = scale * q + offset``.
    A gripper joint is the normalised data value 0..1 with several URDF joints (its fingers).
    """

    name: str
    limits: Limits
    urdf: tuple[tuple[str, float, float], ...]
    home: float = 0.0


@dataclass(frozen=True)
class JointGroup:
    """Joints that belong together: an arm, a gripper, the head, the waist, the base."""

    name: str
    role: Literal["arm", "gripper", "head", "waist", "base"]
    joints: tuple[Joint, ...]
    tip_link: str | None = None
    """Link whose origin is the tool centre (arms only)."""
    open_value: float | None = None
    """Grippers only: the data value that means open (0 for G1 and DROID, 1 for YAM)."""
    closed_value: float | None = None


@dataclass(frozen=True)
class VectorKey:
    """A named slice of the state or action vector, in the order the model was trained with."""

    key: str
    joints: tuple[str, ...]
    start: int
    relative: bool = False
    kind: Kind = "position"
    enabled: bool = True
    timeout: float = 0.2
    """Velocity keys return to zero after this many seconds without a fresh target."""

    @property
    def stop(self) -> int:
        """One past the last index of the slice."""
        return self.start + len(self.joints)


@dataclass(frozen=True)
class StateSource:
    """A topic that brings joint positions.

    ``field`` is a path into the message that yields positions, for example ``position`` or
    ``motor_states[].position``; ``names_field`` yields names, empty when the message has none and
    ``joints`` gives their order. ``value = scale * raw + offset`` turns raw into contract units.
    In simulation, vendor types that are not installed are replaced by sensor_msgs/msg/JointState
    on the same topic with the same raw units.
    """

    name: str
    topic: str
    type: str
    joints: tuple[str, ...]
    field: str = "position"
    names_field: str = "name"
    scale: float = 1.0
    offset: float = 0.0
    timeline: Timeline = "header"
    policy: AlignPolicy = "hold"
    tolerance: float = 0.1
    timeout: float = 0.5
    status: Status = "known"


@dataclass(frozen=True)
class ActionSource(StateSource):
    """A topic that says where the joints were told to go; needed for recordings only.

    ``origin`` tells who commands: ``human`` (leader arms, a teleoperation topic), ``policy``, or
    ``executor`` for a command topic the executor shares with the vendor's own teleoperation: such
    a row is the policy's while the executor is armed, a person's otherwise.
    """

    origin: Origin = "human"


@dataclass(frozen=True)
class Camera:
    """One view: where it comes from and where it goes in the model's picture.

    ``width``/``height`` are native pixels; ``fov_y`` (rad), ``parent``, ``xyz`` (m) and ``rpy``
    (rad, ROS optical frame: x right, y down, z forward) place it in simulation.
    """

    name: str
    topic: str
    type: str
    model_key: str
    slot: str
    width: int
    height: int
    rate: float
    fov_y: float
    parent: str
    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    timeline: Timeline = "header"
    policy: AlignPolicy = "asof"
    tolerance: float = 0.1
    timeout: float = 0.5
    status: Status = "known"
    pose_status: Status = "known"


@dataclass(frozen=True)
class Output:
    """A command topic.

    ``raw = scale * value + offset`` turns contract units into the driver's; a negative scale turns
    a gripper's direction round. ``window`` (s) is the stretch of motion that a JointTrajectory
    carries; ``max_effort`` goes into a GripperCommand (0: the driver's own). ``max_step`` bounds
    the distance from the *measured* position (G1: 0.2618 rad). ``status: unknown`` outputs are
    not sent on hardware; in simulation they are, as sensor_msgs/msg/JointState.
    """

    name: str
    topic: str
    type: str
    joints: tuple[str, ...]
    rate: float
    scale: float = 1.0
    offset: float = 0.0
    max_step: float | None = None
    window: float = 0.15
    max_effort: float = 0.0
    status: Status = "known"
    enabled: bool = True


@dataclass(frozen=True)
class Safety:
    """What the executor's gate watches beyond joint limits.

    ``clearance`` (m) must remain between the arms, and between arms and body. ``workspace`` is a
    box (lower, upper corner, m, root frame) that tool centres may not leave; None is no box.
    ``deadman`` (s) is the age of the last heartbeat beyond which the arm stops and disarms; 0
    needs no heartbeat.
    """

    clearance: float = 0.005
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    deadman: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Action rows per second, rows per chunk, video stride in rows, control loop rate (Hz)."""

    action: float
    horizon: int
    video_stride: int
    control: float = 500.0

    @property
    def step_period(self) -> float:
        """Seconds between action rows."""
        return 1.0 / self.action


@dataclass(frozen=True)
class Contract:
    """Everything the software knows about one robot."""

    robot: str
    display_name: str
    embodiment: str
    urdf: str
    root_link: str
    groups: tuple[JointGroup, ...]
    state: tuple[VectorKey, ...]
    action: tuple[VectorKey, ...]
    sources: tuple[StateSource, ...]
    cameras: tuple[Camera, ...]
    outputs: tuple[Output, ...]
    rates: Rates
    view_width: int
    view_height: int
    max_skew: float
    prompt: str
    safety: Safety = Safety()
    path: str = ""
    action_sources: tuple[ActionSource, ...] = ()
    """Commands that do not come from the outputs; they go before those derived from outputs."""

    @property
    def joints(self) -> dict[str, Joint]:
        """Every joint by name, in group order."""
        return {j.name: j for g in self.groups for j in g.joints}

    def group(self, name: str) -> JointGroup:
        """Return the group called `name`; KeyError names the groups there are."""
        for g in self.groups:
            if g.name == name:
                return g
        raise KeyError(
            f"{self.robot} has no group '{name}'; it has {[g.name for g in self.groups]}"
        )

    def group_of(self, joint: str) -> JointGroup:
        """Return the group that holds the joint called `joint`."""
        for g in self.groups:
            if any(j.name == joint for j in g.joints):
                return g
        raise KeyError(f"{self.robot} has no joint '{joint}'")

    @property
    def inputs(self) -> tuple[Camera | StateSource, ...]:
        """Everything perception listens to: cameras first, then joint-state sources."""
        return (*self.cameras, *self.sources)

    @property
    def command_sources(self) -> tuple[ActionSource, ...]:
        """Where recorded actions come from: `action_sources`, then every output, read back."""
        return (*self.action_sources, *(_read_back(o) for o in self.outputs if o.enabled))

    @property
    def state_names(self) -> tuple[str, ...]:
        """Name of each element of the state vector."""
        return tuple(n for k in self.state for n in k.joints)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Name of each element of the action vector (base speeds included)."""
        return tuple(n for k in self.action for n in k.joints)

    @property
    def action_kinds(self) -> tuple[Kind, ...]:
        """Kind of each element of the action vector."""
        return tuple(k.kind for k in self.action for _ in k.joints)

    @property
    def control_names(self) -> tuple[str, ...]:
        """Joints the executor drives: enabled position keys of the action vector, in order."""
        return tuple(n for k in self.action if k.enabled and k.kind == "position" for n in k.joints)


_COMMAND_FIELDS = {
    "trajectory_msgs/msg/JointTrajectory": ("points[0].positions", "joint_names", "receive"),
    "std_msgs/msg/Float64MultiArray": ("data", "", "receive"),
}


def _read_back(output: Output) -> ActionSource:
    """The command topic of an output as a source, in contract units.

    An output of unknown type is JointState, as the simulation has it.
    """
    field, names, timeline = _COMMAND_FIELDS.get(output.type, ("position", "name", "header"))
    known = output.type if output.type != "unknown" else "sensor_msgs/msg/JointState"
    return ActionSource(
        name=f"command:{output.name}",
        topic=output.topic,
        type=known,
        joints=output.joints,
        field=field,
        names_field=names,
        scale=1.0 / output.scale,
        offset=-output.offset / output.scale,
        timeline="header" if timeline == "header" else "receive",
        tolerance=max(0.1, 2.0 / output.rate),
        status=output.status,
        origin="executor",
    )
