"""Bring up franka_droid; see `ros2 launch wam_ros franka_droid.launch.py --show-args`."""

from wam_ros.launch_description import describe


def generate_launch_description():
    return describe("franka_droid")
