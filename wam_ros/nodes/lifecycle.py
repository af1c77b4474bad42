"""Lifecycle nodes that start themselves, unless a lifecycle manager is to drive them."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from wam_ros.children import stop_with_supervisor

_PATIENCE = 1.0
"""Seconds between two looks at whether to stop, should a signal be missed."""


class AutostartNode(LifecycleNode):  # type: ignore[misc]
    """Configures and activates itself when the parameter ``autostart`` is true (the default).

    It does so once spinning, also after a respawn; with ``autostart:=false`` any lifecycle manager
    drives the transitions. ``_active`` says whether the node may publish what it is there for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._active = False
        if self.declare_parameter("autostart", True).value:
            # The steady clock also runs while nobody publishes /clock.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._autostart_timer = self.create_timer(0.1, self._autostart, clock=steady)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish from now on."""
        self._active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall silent."""
        self._active = False
        return super().on_deactivate(state)

    def _autostart(self) -> None:
        self.destroy_timer(self._autostart_timer)
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()


@contextlib.contextmanager
def _woken_by_signals(executor: SingleThreadedExecutor) -> Iterator[None]:
    """A signal ends the executor's waiting, which Python's own handlers cannot do.

    The executor sets its wait set up anew after every wait: a millisecond in which it often holds
    the interpreter. Looking every few milliseconds whether to stop would cost more than the node.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        while heard.recv(64):
            executor.wake()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()  # ends the listener
        listener.join()
        heard.close()


def run(make: Callable[[], Any], name: str, refusals: tuple[type[Exception], ...]) -> int:
    """Spin the node that ``make`` returns until SIGINT or SIGTERM; then let it shut down.

    Returns 2 when ``make`` raises one of ``refusals``: the configuration cannot be used, and
    starting again would not help. The node's ``shut_down()`` is called if it has one.
    """
    # rclpy's own handler would end the context before the node has shut down.
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop_with_supervisor()
    try:
        node = make()
    except refusals as err:
        print(f"{name}: {err}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with _woken_by_signals(executor):
            while not stop.is_set():
                executor.spin_once(timeout_sec=_PATIENCE)
    finally:  # an error in a callback must not end the process in the middle of a motion
        # A terminal's Ctrl-C comes twice under `ros2 launch`, and Python restores the default
        # handler while it ends: the second one would kill us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(node, "shut_down"):
            node.shut_down()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0
