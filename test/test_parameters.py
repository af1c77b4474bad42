"""Parameters of a node: read once they cannot be set later; 2 will do where 2.0 is meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")


@pytest.fixture
def started(domain_id: int) -> Iterator[Any]:
    nodes = []

    def start(**given: str) -> Any:
        rclpy.init(args=["--ros-args", *(w for k, v in given.items() for w in ("-p", f"{k}:={v}"))])
        nodes.append(rclpy.create_node("tuned"))
        return nodes[-1]

    yield start
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


def declared(node: Any) -> dict[str, Any]:
    from wam_ros.nodes.parameters import declare

    defaults = {"gain": 0.5, "count": 3, "fault": "", "video": "auto"}
    return declare(node, defaults, changeable=("fault",), loose=("video",))


def test_values_have_the_type_of_their_default(started: Any) -> None:
    assert declared(started(gain="2", video="true")) == {
        "gain": 2.0, "count": 3, "fault": "", "video": True,
    }  # fmt: skip


def test_what_is_no_number_is_named(started: Any) -> None:
    with pytest.raises(ValueError, match="parameter gain is 'much', which is not a number"):
        declared(started(gain="much"))


def test_only_what_is_looked_at_again_can_be_set(started: Any) -> None:
    from rclpy.parameter import Parameter

    node = started()
    declared(node)
    refused, taken = node.set_parameters(
        [Parameter("gain", value=1.0), Parameter("fault", value="left")]
    )
    assert not refused.successful and "read-only" in refused.reason
    assert taken.successful and node.get_parameter("fault").value == "left"
    assert node.get_parameter("gain").value == 0.5
