"""What the demo has go wrong on the way: a moved block, a pushed arm, or less light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SAID = {
    "move": "the block was moved",
    "push": "the arm was pushed",
    "dark": "the light went down",
}


@dataclass
class Mishap:
    """One disturbance, tried again until the simulation lets it happen.

    Attributes
    ----------
    kind
        One of `sim.disturbance.KINDS`, or empty for none.
    after
        Seconds after which it is due.
    at
        When it happened.
    refused
        Why the simulation last did not let it.
    """

    kind: str
    after: float
    at: float | None = field(default=None)
    refused: str = ""

    @property
    def what(self) -> str:
        """For a person."""
        return _SAID[self.kind]

    def happen(self, client: Any, t: float) -> bool:
        """Ask the simulation when it is due; True at the moment at which it takes place."""
        if not self.kind or self.at is not None or t < self.after:
            return False
        self.refused = client.set_parameter("sim", "disturb", self.kind)
        if not self.refused:
            self.at = t
        return not self.refused

    def summary(self) -> dict[str, Any] | None:
        """For the report; None when none was wanted."""
        if not self.kind:
            return None
        at = None if self.at is None else round(self.at, 2)
        return {"kind": self.kind, "at_s": at, "refused": self.refused}
