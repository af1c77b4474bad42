"""A policy node whose teacher loses its GPU, once, during its first chunk (test_device_loss)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# As `python -m` from the checkout would: its sources, not an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wam_ros.nodes import policy_node
from wam_ros.policy import registry
from wam_ros.policy.scripted import ScriptedPolicy


class Lossy(ScriptedPolicy):
    """Leaves a note, so that the process that comes after it works."""

    calls = 0

    def infer(self, window: Any) -> Any:
        chunk = super().infer(window)
        self.calls += 1
        note = Path(os.environ["WAM_TEST_NOTE"])
        if self.calls == 2 and not note.exists():
            note.touch()
            raise RuntimeError("CUDA error: unspecified launch failure")
        return chunk


registry._FACTORIES["scripted"] = lambda options: Lossy(latency=0.1)
if __name__ == "__main__":
    sys.exit(policy_node.main())
