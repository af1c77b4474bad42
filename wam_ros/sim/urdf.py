"""Expansion of the robots' xacro files to plain URDF."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr
from pathlib import Path
from xml.etree import ElementTree

import xacro


class UrdfError(ValueError):
    """A URDF or xacro file is missing or malformed."""


def expand(path: str | os.PathLike[str]) -> str:
    """Plain URDF text of a ``.urdf.xacro`` (or already plain ``.urdf``) file.

    Parameters
    ----------
    path : path
        File to read; its includes are found relative to it.

    Raises
    ------
    UrdfError
        The file is missing, xacro rejects it, or the result is not a ``<robot>`` with links.
    """
    file = Path(path)
    if not file.is_file():
        raise UrdfError(f"no URDF at '{file}'; check 'urdf:' in the robot's contract")
    try:
        # xacro explains some errors on stderr only; the cause is in the exception as well.
        with redirect_stderr(io.StringIO()):
            text: str = xacro.process_file(str(file)).toprettyxml(indent="  ")
        robot = ElementTree.fromstring(text)
    except Exception as error:  # xacro raises many unrelated types
        raise UrdfError(f"cannot expand '{file}': {type(error).__name__}: {error}") from error
    if robot.tag != "robot" or robot.find("link") is None:
        raise UrdfError(f"'{file}' expands to <{robot.tag}>; need a <robot> with <link> elements")
    return text
