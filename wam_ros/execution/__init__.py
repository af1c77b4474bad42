"""Action chunks in, 500 Hz joint commands out. NumPy, SciPy and Ruckig, no ROS."""

from wam_ros.execution.executor import Executor, Mode, Settings
from wam_ros.execution.offline import execute

__all__ = ["Executor", "Mode", "Settings", "execute"]
