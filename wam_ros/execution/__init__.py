"""Action chunks in, 500 Hz joint commands out. NumPy and Ruckig, no ROS."""

from wam_ros.execution.executor import Executor, Mode, Settings

__all__ = ["Executor", "Mode", "Settings"]
