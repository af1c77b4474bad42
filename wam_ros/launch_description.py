"""The bring-up list as a `launch` description; imported by launch/*.launch.py only."""

from __future__ import annotations

from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from wam_ros.bringup import processes, unknowns
from wam_ros.contract import load_contract
from wam_ros.launch_arguments import ARGUMENTS


def describe(robot: str) -> LaunchDescription:
    """Launch description of one robot, with every argument of `launch_arguments`."""
    declared = [
        DeclareLaunchArgument(
            a.name, default_value=a.default, description=a.description, choices=a.choices or None
        )
        for a in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes, args=[robot])])


def _nodes(context: Any, robot: str) -> list[Any]:
    given = {a.name: LaunchConfiguration(a.name).perform(context) for a in ARGUMENTS}
    specs = processes(robot, given)
    actions: list[Any] = [
        ExecuteProcess(
            cmd=list(spec.argv),
            name=spec.name,
            additional_env=spec.environment,
            respawn=True,
            respawn_delay=spec.respawn_delay,
            output="screen",
        )
        for spec in specs
        if spec.argv
    ]
    actions += [
        Node(
            package="wam_ros",
            executable=spec.executable,
            name=spec.name,
            namespace=spec.namespace,
            parameters=[spec.parameters],
            additional_env=spec.environment,
            respawn=True,
            respawn_delay=spec.respawn_delay,
            output="screen",
        )
        for spec in specs
        if not spec.argv
    ]
    if given["sim"] == "false":
        lines = unknowns(load_contract(robot))
        actions += [LogInfo(msg=f"not known, not used: {line}") for line in lines]
        actions.append(LogInfo(msg="disarmed: call the `arm` service when the robot may move"))
    return actions
