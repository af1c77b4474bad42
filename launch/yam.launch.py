"""Bring up yam; see `ros2 launch wam_ros yam.launch.py --show-args`."""

from wam_ros.launch_description import describe


def generate_launch_description():
    return describe("yam")
