"""What our nodes want of Fast DDS: a larger shared-memory segment for images, or none at all.

Fast DDS's default shared-memory segment holds about half a megabyte, less than one VGA image, and
loses best-effort frames on a small machine. Only the publisher's profile matters. The variable has
to be set before rclpy starts.
"""

from __future__ import annotations

import os

from wam_ros.resources import share

_TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
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


def leave_shared_memory() -> None:
    """Have this process speak UDP only, unless the user has chosen transports or a profile.

    A process that is killed while its receiver holds the lock of its shared-memory port leaves the
    lock behind. Whoever publishes to it then waits a second per message, interpreter lock and all,
    until the middleware gives the dead process up (20 s). A control loop must not share that fate.
    With ``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST`` rmw_fastrtps adds shared memory by itself, and
    nothing can be done here.
    """
    if os.environ.get(VARIABLE) == profile_path():  # meant for the camera drivers of this shell
        del os.environ[VARIABLE]
    if VARIABLE not in os.environ:
        os.environ.setdefault(_TRANSPORTS, "UDPv4")
