"""Subscriptions that a control loop, or the simulation's physics, reads itself.

Messages that reach the loop through rclpy's executor cost several hundred microseconds each in
another thread, during which the loop waits for the interpreter. Asking an empty subscription costs
two. The middleware keeps the newest message (depth 1), so a flood is dropped outside Python;
the e-stop's keeps more, see `Mailbox.take_all`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile


class Unspun(CallbackGroup):  # type: ignore[misc]
    """Keeps the ROS executor from taking messages of its subscriptions."""

    def can_execute(self, entity: Any) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing began."""


class Mailbox:
    """One topic, read by polling."""

    def __init__(
        self, node: Node, group: Unspun, message: Any, topic: str, qos: QoSProfile
    ) -> None:
        self._subscription = node.create_subscription(
            message, topic, lambda _: None, qos, callback_group=group
        )

    def take(self) -> Any | None:
        """The next message, or None; never waits."""
        found = self.take_stamped()
        return None if found is None else found[0]

    def take_stamped(self) -> tuple[Any, int] | None:
        """The same with the wall clock at its sender, ns since 1970."""
        subscription = self._subscription
        with subscription.handle:
            found = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        return None if found is None else (found[0], int(found[1]["source_timestamp"]))

    def take_all(self) -> Iterator[Any]:
        """Every message that waits, oldest first: for topics of which none may be overlooked."""
        while (message := self.take()) is not None:
            yield message
