"""The client that openpi publishes on PyPI against our server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wam_ros.serving import codec

VERSION = "0.1.2"


@pytest.fixture(scope="module")
def openpi_client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package itself. It pins NumPy 1, so it is not installed but read from its wheel.

    `make test` has put the wheel beside the environment; without, it is fetched.
    """
    name = f"openpi_client-{VERSION}-*.whl"
    wheels = list((Path(sys.prefix) / "share" / "wheels").glob(name))
    if not wheels:
        folder = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(folder), f"openpi-client=={VERSION}"],
            capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        wheels = list(folder.glob(name))
    if not wheels:
        pytest.skip(f"openpi-client cannot be fetched here: {done.stderr.strip()[-200:]}")
    sys.path.insert(0, str(wheels[0]))
    try:
        from openpi_client import msgpack_numpy, websocket_client_policy

        assert Path(websocket_client_policy.__file__).is_relative_to(wheels[0])
        yield msgpack_numpy, websocket_client_policy.WebsocketClientPolicy
    finally:
        sys.path.remove(str(wheels[0]))


def observation() -> dict[str, Any]:
    names = ("exterior_image_0_left", "exterior_image_1_left", "wrist_image_left")
    return {
        **{f"observation/{n}": np.full((180, 320, 3), i, np.uint8) for i, n in enumerate(names)},
        "observation/joint_position": np.linspace(-0.5, 0.5, 7),
        "observation/gripper_position": np.array([0.75]),
        "prompt": "put the cup away",
        "session_id": "s",
        "endpoint": "infer",
    }


def test_it_talks_to_our_server(openpi_client: Any, serve: Callable[..., str]) -> None:
    client = openpi_client[1](serve(token="secret"), api_key="secret")
    assert client.get_server_metadata()["image_resolution"] == [180, 320]
    said = observation()
    for _ in range(3):
        actions = client.infer(said)
        assert actions.shape == (24, 8) and actions.dtype == np.float32
        np.testing.assert_allclose(actions[0, :7], said["observation/joint_position"], rtol=1e-6)
        assert actions[-1, 7] == 0.75


def test_it_is_told_of_an_error(openpi_client: Any, serve: Callable[..., str]) -> None:
    client = openpi_client[1](serve())
    with pytest.raises(RuntimeError, match="'endpoint' is missing"):
        client.infer({"prompt": "x"})


def test_both_codecs_write_the_same(openpi_client: Any) -> None:
    theirs = openpi_client[0]
    said = observation() | {"scalar": np.float32(0.1), "list": [1, None, True, b"x", {"a": 2.5}]}
    assert codec.packb(said) == theirs.packb(said)
    back = codec.unpackb(theirs.packb(said))
    assert back.keys() == said.keys()
    np.testing.assert_array_equal(
        theirs.unpackb(codec.packb(said))["observation/wrist_image_left"],
        back["observation/wrist_image_left"],
    )
