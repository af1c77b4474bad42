"""`wam demo`: launch the simulated graph, say one sentence, report what happened."""

from wam_ros.demo.run import DemoOptions, run

__all__ = ["DemoOptions", "run"]
