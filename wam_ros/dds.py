"""The Fast DDS profile our image publishers load.

Fast DDS's default shared-memory segment holds about half a megabyte, less than one VGA image, and
loses best-effort frames on a small machine. Only the publisher's profile matters. The variable has
to be set before rclpy starts.
"""

from __future__ import annotations

import os

from wam_ros.resources import share

VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def profile_path() -> str:
    """Path of the shipped profile."""
    return str(share() / "config" / "fastdds.xml")


def environment_line() -> str:
    """What a camera driver's shell needs, ready to paste."""
    return f"export {VARIABLE}={profile_path()}"


def use_profile() -> None:
    """Load our profile in this process unless the user has chosen one."""
    os.environ.setdefault(VARIABLE, profile_path())
