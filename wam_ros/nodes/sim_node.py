"""The simulated robot: speaks exactly the hardware side of the contract.

Joint states and images go out, and commands come in, on the same topics and in the same raw units
as on the real robot. Vendor message types that are not installed are replaced by JointState.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, cast

from wam_ros import dds

dds.use_profile()  # images need our shared-memory segment; must precede rclpy

import numpy as np  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from rcl_interfaces.msg import SetParametersResult  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray, String  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from wam_ros.contract import ContractError, load_contract  # noqa: E402
from wam_ros.contract.model import Output  # noqa: E402
from wam_ros.execution.metrics import Window  # noqa: E402
from wam_ros.msg import PolicyState, SimState  # noqa: E402
from wam_ros.nodes.convert import image_msg, to_stamp  # noqa: E402
from wam_ros.nodes.lifecycle import AutostartNode, run  # noqa: E402
from wam_ros.nodes.mailbox import Mailbox, Unspun  # noqa: E402
from wam_ros.nodes.parameters import declare  # noqa: E402
from wam_ros.nodes.qos import LATCHED, RELIABLE  # noqa: E402
from wam_ros.nodes.states import simulated_joints  # noqa: E402
from wam_ros.nodes.words import Words  # noqa: E402
from wam_ros.sim.disturbance import KINDS, Disturbance, Kind, draw_disturbance  # noqa: E402
from wam_ros.sim.judge import TaskJudge, judge_for  # noqa: E402
from wam_ros.sim.plant import TIMESTEP, Plant, Views  # noqa: E402
from wam_ros.sim.scene import BLOCK_HALF, COLOURS  # noqa: E402
from wam_ros.sim.tasks import InstructionError, Task, parse_instruction  # noqa: E402

_COMMANDS = {
    "std_msgs/msg/Float64MultiArray": Float64MultiArray,
    "trajectory_msgs/msg/JointTrajectory": JointTrajectory,
}
_FAULTS = ("drop_camera", "jam_joint", "disturb")
_BATCH = 5  # physics steps between two looks at the clock


class SimNode(AutostartNode):
    """Physics in one thread, rendering in another, subscriptions in the ROS executor.

    Inactive, time stands still and nothing is published, as if robot and cameras were off.
    """

    def __init__(self) -> None:
        super().__init__("sim")
        defaults: dict[str, Any] = {
            "robot": "agibot_g1", "seed": 0, "gl": "osmesa", "state_rate": 50.0,
            "camera_rate": 15.0, "render_width": 320, "drop_camera": "", "jam_joint": "",
            "disturb": "", "publish_clock": False,
        }  # fmt: skip
        p = declare(self, defaults, _FAULTS)
        self.contract = load_contract(p["robot"])
        self.plant = Plant(self.contract, int(p["seed"]), str(p["gl"]))
        self._camera_rate = float(p["camera_rate"])
        self._width = int(p["render_width"])
        self._judge: TaskJudge | None = None
        self._task = ""
        self._wanted: Task | None = None
        self._mishap: Disturbance | None = None
        self._mishaps = 0
        self._clock_out = (
            self.create_publisher(Clock, "/clock", 10) if bool(p["publish_clock"]) else None
        )
        self._stop = threading.Event()
        self._factor, self._render_ms = 1.0, Window(30)
        self._sources = [
            (s, self.create_publisher(JointState, s.topic, qos_profile_sensor_data))
            for s in self.contract.sources
        ]
        self._images = {
            c.name: self.create_publisher(Image, c.topic, qos_profile_sensor_data)
            for c in self.contract.cameras
        }
        self._state = self.create_publisher(SimState, "sim/state", 10)
        self._objects = self.create_publisher(MarkerArray, "sim/objects", 10)
        group = Unspun()
        self._commands = [
            (
                Mailbox(self, group, _COMMANDS.get(o.type, JointState), o.topic, RELIABLE),
                self._handler(o),
            )
            for o in self.contract.outputs
        ]
        self._words = Words()
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        self.create_subscription(PolicyState, "policy_state", self._on_policy, LATCHED)
        for fault in _FAULTS:
            reason = self._break(fault, str(p[fault]))
            if reason:
                raise LookupError(reason)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(1.0 / float(p["state_rate"]), self._publish_joints)
        self.create_timer(0.1, self._publish_state)
        self._threads = [
            threading.Thread(target=f, daemon=True) for f in (self._physics, self._render)
        ]
        for thread in self._threads:
            thread.start()

    # ---- hardware side -------------------------------------------------------------------------

    def _handler(self, output: Output) -> Any:
        def apply(message: Any) -> None:
            names = list(output.joints)
            if isinstance(message, JointTrajectory):
                names = list(message.joint_names)
                # A rolling window: its first point is due now, the rest is what may follow.
                values = message.points[0].positions if message.points else []
            elif isinstance(message, JointState):
                names, values = list(message.name) or names, message.position
            else:
                values = message.data
            known = self.contract.joints
            fits = len(values) == len(names) and all(n in known for n in names)
            if not fits or not np.all(np.isfinite(values)):
                self.get_logger().error(
                    f"{output.topic}: expected {len(output.joints)} finite values for "
                    f"{', '.join(output.joints)}; command ignored",
                    throttle_duration_sec=2.0,
                )
                return
            targets = {
                n: (float(v) - output.offset) / output.scale
                for n, v in zip(names, values, strict=True)
            }
            self.plant.set_targets(targets)

        return apply

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            reason = self._break(parameter.name, parameter.value)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _break(self, fault: str, name: str) -> str:
        """Check one of the faults, jam a joint or disturb the scene at once; why not, or ''."""
        if fault == "drop_camera":  # the drawing thread looks at the parameter
            known = [c.name for c in self.contract.cameras]
            if name and name not in known:
                return f"drop_camera: no camera '{name}'; there are {', '.join(known)}"
        elif fault == "jam_joint":
            known = list(self.plant.positions())
            if name and name not in known:
                return f"jam_joint: no joint '{name}'; there are {', '.join(known)}"
            self.plant.jam(name)
        elif fault == "disturb" and name:
            return self._disturb(name)
        return ""

    def _disturb(self, kind: str) -> str:
        """Disturb what the instruction is about, or the light; why not, or ''."""
        if kind not in KINDS:
            return f"disturb: '{kind}' is none of {', '.join(KINDS)}"
        if self._wanted is None:
            return "disturb: no instruction has been given that says which block and arm"
        if self._mishap is not None and self._mishap.under_way:
            return "disturb: a push is under way"
        objects = self.plant.objects()
        now = self.plant.time
        self._mishaps += 1
        mishap = draw_disturbance(
            self.contract,
            {n: p for n, p in objects.items() if n != "bowl"},
            int(self.get_parameter("seed").value) + 1000 * self._mishaps,
            target=getattr(self._wanted, "object", None),
            group=getattr(self._wanted, "group", None),
            window=(now, now),
            kind=cast(Kind, kind),
        )
        if mishap.kind != kind:
            return "disturb: there is no other place for the block"
        if not mishap.apply(self.plant):
            return f"disturb: a hand or a block is too near to where {mishap.target} is or would go"
        self._mishap = mishap
        said = {"move": "{} was moved", "push": "{} was pushed", "dark": "the light went down"}
        self.get_logger().info(said[kind].format(mishap.target))
        return ""

    def _stamp(self) -> Time:
        """Simulated time while we publish /clock, else the system's."""
        if self._clock_out is None:
            return self.get_clock().now().to_msg()
        return to_stamp(self.plant.time)

    def _publish_joints(self) -> None:
        if not self._active:
            return
        positions = self.plant.positions()
        stamp = self._stamp()
        for source, publisher in self._sources:
            publisher.publish(simulated_joints(source, positions, stamp))

    # ---- threads -------------------------------------------------------------------------------

    def _physics(self) -> None:
        """Keep simulated time at wall time; time lost to a busy machine is not caught up."""
        period = _BATCH * TIMESTEP
        deadline = start = time.monotonic()
        begun = self.plant.time
        while not self._stop.is_set():
            if not self._active:
                self._stop.wait(0.02)
                deadline = start = time.monotonic()
                begun = self.plant.time
                continue
            for box, apply in self._commands:  # between two steps: what came before counts no more
                message = box.take()
                if message is not None:
                    apply(message)
            self.plant.step(_BATCH)
            mishap = self._mishap
            if mishap is not None and mishap.under_way:
                mishap.apply(self.plant)  # a push ends
            if self._clock_out is not None:
                self._clock_out.publish(Clock(clock=self._stamp()))
            deadline += period
            now = time.monotonic()
            if deadline > now:
                time.sleep(deadline - now)
            elif now - deadline > 0.1:
                deadline = now
            if now - start >= 1.0:
                self._factor = (self.plant.time - begun) / (now - start)
                start, begun = now, self.plant.time

    def _render(self) -> None:
        views = Views(self.plant, self._width)  # made in the thread that draws: EGL insists
        period = 1.0 / self._camera_rate
        deadline = time.monotonic()
        while not self._stop.is_set():
            if not self._active:
                self._stop.wait(0.02)
                continue
            begin = time.perf_counter()
            stamp = self._stamp()
            dropped = self.get_parameter("drop_camera").value
            for camera in self.contract.cameras:
                if camera.name != dropped:
                    picture = views.render(camera.name)
                    self._images[camera.name].publish(image_msg(picture, stamp, camera.name))
            self._render_ms.add((time.perf_counter() - begin) * 1e3)
            deadline = max(deadline + period, time.monotonic() - period)
            self._stop.wait(max(0.0, deadline - time.monotonic()))
        views.close()

    # ---- what only a simulation can know -------------------------------------------------------

    def _on_instruction(self, message: Any, info: dict[str, int]) -> None:
        self._begin(self._words.said(message, info["source_timestamp"]))

    def _on_policy(self, message: Any) -> None:
        self._begin(self._words.echoed(message))

    def _begin(self, text: str | None) -> None:
        """From now on, judge what was said; None is no news."""
        if text is None:
            return
        try:
            task = parse_instruction(text, self.contract) if text else None
        except InstructionError as err:
            self.get_logger().warning(str(err))
            task = None
        self._task, self._wanted = (text, task) if task else ("", None)
        self._judge = judge_for(task, self.plant) if task else None

    def _publish_state(self) -> None:
        if not self._active:
            return
        objects = self.plant.objects()
        stamp = self._stamp()
        msg = SimState(real_time_factor=self._factor, task=self._task, distance=float("nan"))
        msg.header.stamp = stamp
        msg.render_ms = self._render_ms.percentiles(50)[0]
        judge = self._judge
        if judge is not None:
            judge.watch(self.plant)
            msg.success, msg.distance = judge.success, judge.distance
            msg.progress = judge.progress
        self._state.publish(msg)
        markers = []
        for name, position in objects.items():
            marker = Marker(ns=name, type=Marker.CUBE)
            marker.header.stamp, marker.header.frame_id = stamp, self.contract.root_link
            point = marker.pose.position
            point.x, point.y, point.z = map(float, position)
            marker.scale.x = marker.scale.y = marker.scale.z = 2.0 * BLOCK_HALF
            colour = COLOURS.get(name, (0.9, 0.9, 0.9, 1.0))
            marker.color.r, marker.color.g, marker.color.b, marker.color.a = colour
            markers.append(marker)
        self._objects.publish(MarkerArray(markers=markers))

    def shut_down(self) -> None:
        """End both threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2.0)


def main() -> int:
    """Run until interrupted; 2 when the robot cannot be simulated."""
    return run(SimNode, "sim", (ContractError, LookupError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
