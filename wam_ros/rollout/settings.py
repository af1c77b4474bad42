"""Rates, sizes and delays of a rollout."""

from __future__ import annotations

from dataclasses import dataclass, field

from wam_ros.execution import Settings as ExecutorSettings


@dataclass(frozen=True)
class Settings:
    """How a rollout runs.

    Attributes
    ----------
    camera_rate
        Pictures per second and camera; None takes the contract's. The simulation's node draws at
        15 Hz because it shares two cores with everything else.
    camera_delay
        Seconds from the moment a picture shows until perception has it. Live it is about 0.05 with
        the simulation's node: drawing, transport, and the wait for perception's next tick.
    state_rate
        Joint states per second. An observation is as old as the slowest source: a multiple of the
        camera rate keeps pictures and joints at the same moments.
    render_width
        Pixels; pictures keep the camera's aspect.
    period
        Seconds between calls in the ``sliding`` cadence.
    settle
        Virtual seconds before the first instruction, during which the executor holds.
    linger
        Virtual seconds that an episode goes on after its last success.
    control_rate
        Control periods per second; None takes the contract's. 250 Hz costs half of 500 Hz.
    """

    camera_rate: float | None = None
    camera_delay: float = 0.0
    state_rate: float = 60.0
    render_width: int = 320
    period: float = 1.0 / 7.0
    settle: float = 0.3
    linger: float = 0.0
    control_rate: float | None = None
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
