"""Bring up agibot_g1; see `ros2 launch wam_ros agibot_g1.launch.py --show-args`."""

from wam_ros.launch_description import describe


def generate_launch_description():
    return describe("agibot_g1")
