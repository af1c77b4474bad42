"""A small client of a running graph, for the command line and the demo."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from wam_ros.msg import ExecutorState, Observation, PolicyState, SimState
from wam_ros.nodes.qos import LATCHED

_ASK_AGAIN = 1.5
"""Seconds without an answer after which a request that may be made twice is repeated."""


class GraphClient:
    """Listens to the states of one graph and speaks to it.

    ``policy``, ``executor``, ``sim`` and ``observation`` hold the newest message, or None;
    ``diagnostics`` maps a component of this graph to ``(level, message)``, level 0 ok, 1 warning,
    2 error.
    """

    def __init__(self, namespace: str = "wam", observations: bool = False) -> None:
        rclpy.init()
        self._node = rclpy.create_node("wam_client", namespace=f"/{namespace.strip('/')}")
        self._spin = SingleThreadedExecutor()
        self._spin.add_node(self._node)
        self.policy: Any = None
        self.executor: Any = None
        self.sim: Any = None
        self.observation: Any = None
        self.diagnostics: dict[str, tuple[int, str]] = {}
        self._parameters: dict[str, AsyncParameterClient] = {}
        self._prefix = f"{namespace.strip('/')}: "
        self._listen(PolicyState, "policy_state", "policy", LATCHED)
        self._listen(ExecutorState, "executor_state", "executor", LATCHED)
        self._listen(SimState, "sim/state", "sim", 10)
        if observations:
            self._listen(Observation, "observation", "observation", qos_profile_sensor_data)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._say = self._node.create_publisher(String, "instruction", 10)
        self._estop = self._node.create_publisher(Bool, "estop", LATCHED)

    def _listen(self, cls: Any, topic: str, name: str, qos: Any) -> None:
        self._node.create_subscription(cls, topic, lambda m: setattr(self, name, m), qos)

    def _on_diagnostics(self, message: Any) -> None:
        for entry in message.status:
            if entry.name.startswith(self._prefix):
                name = entry.name[len(self._prefix) :]
                self.diagnostics[name] = (int.from_bytes(entry.level, "big"), entry.message)

    def on(self, cls: Any, topic: str, heard: Callable[[Any], None], qos: Any = None) -> None:
        """Call ``heard`` with every message on ``topic``, best effort unless ``qos`` says more."""
        self._node.create_subscription(cls, topic, heard, qos or qos_profile_sensor_data)

    def spin(self, seconds: float) -> None:
        """Process messages for ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._spin.spin_once(timeout_sec=max(0.0, end - time.monotonic()))

    def wait_for_graph(self, seconds: float = 15.0) -> bool:
        """Whether policy and executor were heard within ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self.policy is None or self.executor is None):
            self.spin(0.1)
        return self.policy is not None and self.executor is not None

    def say(self, instruction: str, seconds: float = 5.0) -> bool:
        """Publish an instruction; True once the policy says that it heard it.

        A simulation that has not discovered this process yet hears of it from the policy.
        """
        end = time.monotonic() + seconds
        # The same words may be in force already; being said again, they have a new stamp.
        before: Any = None
        while time.monotonic() < end:
            if self.policy is not None and self._say.get_subscription_count() > 0:
                before = before or self.policy.instruction_stamp
                self._say.publish(String(data=instruction))
                self.spin(0.7)
                heard = self.policy.instruction_stamp != before
                if heard and self.policy.instruction == instruction.strip():
                    self._wait_for_the_judge(instruction.strip())
                    return True
            else:
                self.spin(0.1)
        return False

    def _wait_for_the_judge(self, instruction: str) -> None:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            begun = self.sim is None or self.sim.task == instruction
            if begun or "cannot understand" in self.policy.reason:
                return
            self.spin(0.05)

    def tell(self, instruction: str) -> None:
        """Publish an instruction and wait for nothing: for a graph that has listened before."""
        self._say.publish(String(data=instruction))

    def estop(self, seconds: float = 5.0) -> bool:
        """Press the e-stop; True once the executor reports it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._estop.publish(Bool(data=True))
            self.spin(0.05)
            if self.executor is not None and self.executor.mode_name == "estopped":
                return True
        return False

    def arm(self, on: bool, seconds: float = 5.0) -> tuple[bool, str]:
        """Arm or disarm; returns whether it worked and what the executor said."""
        return self._call(SetBool, "arm", SetBool.Request(data=on), seconds)

    def reset(self, seconds: float = 5.0) -> tuple[bool, str]:
        """Release a latched e-stop; the arm stays disarmed."""
        # The latched topic would press the e-stop again on every executor that starts later.
        self._estop.publish(Bool(data=False))
        end = time.monotonic() + seconds
        while True:  # topic and service are two ways; and the arm may still be coming to rest
            done, message = self._call(Trigger, "reset", Trigger.Request(), seconds)
            if done or "still" not in message or time.monotonic() > end:
                return done, message
            self.spin(0.1)

    def confirm(self, seconds: float = 5.0) -> tuple[bool, str]:
        """Say that the instruction being run has succeeded."""
        return self._call(Trigger, "confirm_success", Trigger.Request(), seconds, once=True)

    def set_parameter(self, node: str, name: str, value: str, seconds: float = 5.0) -> str:
        """Set a parameter of a node of this graph; why that was refused, or ''."""
        if node not in self._parameters:
            self._parameters[node] = AsyncParameterClient(self._node, node)
        parameters, end = self._parameters[node], time.monotonic() + seconds
        while not parameters.services_are_ready() and time.monotonic() < end:
            self.spin(0.02)
        call = self._asked(lambda: parameters.set_parameters([Parameter(name, value=value)]), end)
        if not call.done():
            return f"the node '{node}' did not answer in {seconds:.0f} s"
        (result,) = call.result().results
        return "" if result.successful else str(result.reason)

    def _asked(self, ask: Callable[[], Any], end: float, again: float = _ASK_AGAIN) -> Any:
        """The future of a request; asked again while no answer comes.

        A server that has not discovered this client's reader yet drops its answer.
        """
        while True:
            call, retry = ask(), min(end, time.monotonic() + again)
            while not call.done() and time.monotonic() < retry:
                self.spin(0.02)
            if call.done() or time.monotonic() >= end:
                return call

    def _call(
        self, cls: Any, name: str, request: Any, seconds: float, once: bool = False
    ) -> tuple[bool, str]:
        client = self._node.create_client(cls, name)
        try:
            end = time.monotonic() + seconds
            while not client.service_is_ready() and time.monotonic() < end:
                self.spin(0.05)
            again = seconds if once else _ASK_AGAIN
            call = self._asked(lambda: client.call_async(request), end, again)
            if not call.done():
                return False, f"the service '{name}' did not answer in {seconds:.0f} s"
            return bool(call.result().success), str(call.result().message)
        finally:
            self._node.destroy_client(client)

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_node()
        rclpy.try_shutdown()
