"""Our clients against servers written from each protocol: fields, cameras, numbers, sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protocol_servers import DreamZero, Gr00t, LingBotVa, OpenPi, VllmOmni, window

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.registry import make
from wam_ros.policy.remote.backend import RemotePolicy
from wam_ros.policy.remote.driver import RemoteError
from wam_ros.policy.remote.openpi import integrate
from wam_ros.serving.codec import packb, unpackb

DROID, G1, YAM = (load_contract(r) for r in ("franka_droid", "agibot_g1", "yam"))
Fake = Callable[[Any], str]


@pytest.fixture
def ready() -> Iterator[Callable[..., RemotePolicy]]:
    """``ready(name, url, contract, **options)``: a configured backend, closed with the test."""
    opened: list[Any] = []

    def start(name: str, url: str, contract: Any = DROID, **options: Any) -> Any:
        given = {"server": url, "server_timeout": 2.0, "server_wait": 0.0, **options}
        backend = make(name, given)
        opened.append(backend)
        backend.configure(contract)
        return backend

    yield start
    for backend in opened:
        backend.close()


# ---- RoboArena: DreamZero and vLLM-Omni --------------------------------------------------------


@pytest.mark.parametrize("kind", [DreamZero, VllmOmni])
def test_roboarena_fields_and_frames(fake: Fake, ready: Any, kind: type[DreamZero]) -> None:
    rows = np.linspace(0, 1, 192).reshape(24, 8).astype(np.float32)
    server = kind(rows, size=(180, 320))
    backend = ready("roboarena", fake(server))
    backend.reset("pick up the cup")
    look = window(DROID)
    chunk = backend.infer(look)
    for start in (110.0, 110.2):
        backend.infer(window(DROID, start=start))
    np.testing.assert_array_equal(chunk.actions, rows.astype(float))
    assert chunk.names == DROID.action_names and chunk.t0 == look.newest.t0
    first, later, overlapping = server.infers
    # Three of the four frames of the last call were sent before.
    assert overlapping["observation/exterior_image_0_left"].shape == (180, 320, 3)
    assert first["observation/exterior_image_0_left"].shape == (180, 320, 3)
    assert later["observation/exterior_image_0_left"].shape == (4, 180, 320, 3)
    assert first["prompt"] == "pick up the cup" and first["session_id"] == later["session_id"]
    np.testing.assert_array_equal(first["observation/joint_position"], look.newest.state[:7])
    assert server.seen[0] == {"endpoint": "reset"}


def test_roboarena_cameras_keep_their_identity(fake: Fake, ready: Any) -> None:
    """Its exterior image 0 is the model's exterior image 1 (specification, section 4.2)."""
    server = DreamZero(size=None)
    backend = ready("roboarena", fake(server))
    backend.reset("x")
    shade = {"exterior_1": 10, "exterior_2": 20, "wrist": 30}
    views = {c: np.full((176, 320, 3), v, np.uint8) for c, v in shade.items()}
    backend.infer(Window((Observation(0.0, views, np.zeros(8)),)))
    sent = {k.split("/")[1]: int(v[0, 0, 0]) for k, v in server.infers[0].items() if "image" in k}
    assert sent == {
        "exterior_image_0_left": 10, "exterior_image_1_left": 20, "wrist_image_left": 30,
    }  # fmt: skip


def test_roboarena_request_has_the_recorded_bytes(fake: Fake, ready: Any, golden: Path) -> None:
    recorded = unpackb((golden / "wire" / "request_infer_four.bin").read_bytes())
    del recorded["observation/cartesian_position"]  # ignored by DreamZero, and not sent
    server = DreamZero(size=None)
    backend = ready("roboarena", fake(server))
    backend.reset("x")
    state = np.append(
        recorded["observation/joint_position"], recorded["observation/gripper_position"]
    )
    wire = {
        "exterior_1": "observation/exterior_image_0_left",
        "exterior_2": "observation/exterior_image_1_left",
        "wrist": "observation/wrist_image_left",
    }
    frames = tuple(
        Observation(float(i), {c: recorded[n][i] for c, n in wire.items()}, state) for i in range(4)
    )
    before = Observation(-1.0, frames[0].views, state)
    backend._driver.infer(Window((before,)), recorded["prompt"], 2.0)
    backend._driver._session = recorded["session_id"]
    backend._driver.infer(Window(frames), recorded["prompt"], 2.0)
    assert server.raw[-1] == packb(recorded)
    assert server.raw[0] == (golden / "wire" / "request_reset.bin").read_bytes()


def test_every_reset_is_a_new_session(fake: Fake, ready: Any) -> None:
    server = DreamZero()
    backend = ready("roboarena", fake(server))
    for instruction in ("one", "two"):
        backend.reset(instruction)
        backend.infer(window(DROID))
    first, second = server.infers
    assert first["session_id"] != second["session_id"]
    assert second["observation/wrist_image_left"].ndim == 3  # one frame again


def test_vllm_error_map_ends_the_session(fake: Fake, ready: Any) -> None:
    server = VllmOmni()
    backend = ready("roboarena", fake(server))
    backend.reset("x")
    backend.infer(window(DROID))
    server.fail_next = True
    with pytest.raises(RemoteError, match=r"infer with 4 frames: answered: Internal inference"):
        backend.infer(window(DROID, start=110.0))
    assert backend.infer(window(DROID, start=111.0)).context_flags & 1
    assert server.connections == 2


def test_wrong_server_is_named(fake: Fake, ready: Any) -> None:
    with pytest.raises(RemoteError, match="no RoboArena server; try policy:=openpi"):
        ready("roboarena", fake(OpenPi(np.zeros((10, 8)))))
    with pytest.raises(RemoteError, match="wam serve --dialect native"):
        ready("wam_serve", fake(DreamZero()))
    server = DreamZero()
    server.hello["action_space"] = "cartesian_position"
    with pytest.raises(RemoteError, match="only joint_position"):
        ready("roboarena", fake(server))
    with pytest.raises(PolicyError, match="agibot_g1 has the state keys"):
        ready("roboarena", fake(DreamZero()), G1)
    server = DreamZero()
    server.hello["n_external_cameras"] = 3
    with pytest.raises(RemoteError, match="wants observation/exterior_image_2_left"):
        ready("roboarena", fake(server))


# ---- openpi ------------------------------------------------------------------------------------


def test_openpi_fields_and_integrated_velocities(fake: Fake, ready: Any) -> None:
    velocity = np.zeros((10, 8), np.float32)
    velocity[:, 2], velocity[:, 7] = 0.5, 0.9
    server = OpenPi(velocity)
    backend = ready("openpi", fake(server))
    look = window(DROID)
    backend.reset("fold the cloth")
    chunk = backend.infer(look)
    start = look.newest.state
    np.testing.assert_allclose(chunk.actions[:, 2], start[2] + 0.1 * np.arange(1, 11), atol=1e-7)
    np.testing.assert_allclose(chunk.actions[:, 0], start[0])
    np.testing.assert_allclose(chunk.actions[:, 7], 0.9, atol=1e-7)
    said = server.seen[-1]
    assert sorted(said) == [
        "observation/exterior_image_1_left", "observation/gripper_position",
        "observation/joint_position", "observation/wrist_image_left", "prompt",
    ]  # fmt: skip
    picture = said["observation/exterior_image_1_left"]
    assert picture.shape == (224, 224, 3)
    assert not picture[:49].any() and not picture[175:].any() and picture[49:175].any()


@pytest.mark.parametrize(
    ("options", "metadata"),
    [({"server_actions": "position"}, {}), ({}, {"action_space": "joint_position"})],
)
def test_openpi_positions_are_taken_as_they_are(
    fake: Fake, ready: Any, options: dict[str, str], metadata: dict[str, str]
) -> None:
    rows = np.full((10, 8), 0.3)
    backend = ready("openpi", fake(OpenPi(rows, metadata)), **options)
    backend.reset("x")
    np.testing.assert_array_equal(backend.infer(window(DROID)).actions, rows)


def test_velocities_are_clipped_as_in_droid() -> None:
    path = integrate(np.array([[2.0, -3.0], [0.5, 0.0]]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(path, [[1.2, 0.8], [1.3, 0.8]])


# ---- LingBot-VA --------------------------------------------------------------------------------


def test_lingbot_is_told_what_was_executed_and_seen(fake: Fake, ready: Any) -> None:
    server = LingBotVa(channels=14, frames=3, steps=8)
    backend = ready("lingbot_va", fake(server), YAM)
    backend.reset("stack the cups")
    look = window(YAM, count=12, rows=16.0)
    first = backend.infer(look)
    assert first.actions.shape == (16, 14)  # frame 0 of the first answer is the past
    np.testing.assert_allclose(first.actions[0], np.arange(14) * 0.024 + 0.008, atol=1e-6)
    second = backend.infer(look)
    assert second.actions.shape == (24, 14)
    reset, ask, commit, _ = server.seen
    assert reset == {"reset": True, "prompt": "stack the cups"}
    assert set(ask) == {"obs", "prompt"}
    assert set(ask["obs"]) == {
        "observation.images.cam_high", "observation.images.cam_left_wrist",
        "observation.images.cam_right_wrist", "observation.state",
    }  # fmt: skip
    assert commit["compute_kv_cache"] is True and commit["imagine"] is False
    assert len(commit["obs"]) == 8  # four key frames for each of two action frames
    assert commit["state"].shape == (14, 3, 8)
    assert server.memory == 3


def test_lingbot_reports_whole_frames_only_and_the_frames_of_their_time(
    fake: Fake, ready: Any
) -> None:
    server = LingBotVa(channels=14, frames=3, steps=8)
    backend = ready("lingbot_va", fake(server), YAM)
    backend.reset("x")
    backend.infer(window(YAM, rows=0.0))
    period = YAM.rates.step_period
    base = window(YAM, count=1).newest
    frames = tuple(
        Observation(base.t0 + r * period, base.views, np.full(14, float(r))) for r in range(13)
    )
    backend.infer(Window(frames, executed_rows=12.0))
    commit = server.seen[2]
    assert commit["state"].shape == (14, 2, 8)  # the past and one whole frame of the 12 rows
    assert [k["observation.state"][0] for k in commit["obs"]] == [2, 4, 6, 8]


def test_lingbot_refuses_other_cadences_and_pose_channels(fake: Fake, ready: Any) -> None:
    backend = ready("lingbot_va", fake(LingBotVa(channels=14)), YAM)
    backend.reset("x")
    with pytest.raises(RemoteError, match="cadence:=sync"):
        backend.infer(window(YAM, cadence="async"))
    backend = ready("lingbot_va", fake(LingBotVa(channels=7)), YAM)
    backend.reset("x")
    with pytest.raises(RemoteError, match="7 channels came, but 14 are used; set server_channels"):
        backend.infer(window(YAM))


# ---- GR00T -------------------------------------------------------------------------------------

MODALITIES = {
    "video": {"modality_keys": ["ego", "left"], "delta_indices": [-6, 0]},
    "state": {"modality_keys": ["joint_position", "gripper_position"], "delta_indices": [0]},
    "action": {"modality_keys": ["joint_position", "hand"], "delta_indices": list(range(16))},
    "language": {"modality_keys": ["annotation.human.task_description"], "delta_indices": [0]},
}
NAMES = "exterior_1=ego,wrist=left,gripper_position=hand"


@pytest.fixture
def gr00t() -> Iterator[Gr00t]:
    actions = {
        "joint_position": np.full((1, 16, 7), 0.2, np.float32),
        "hand": np.full((1, 16, 1), 0.6, np.float32),
    }
    state = {"modality_keys": ["joint_position", "hand"], "delta_indices": [0]}
    server = Gr00t({**MODALITIES, "state": state}, actions, token="secret")
    yield server
    server.stop()


@pytest.fixture
def token(tmp_path: Path) -> str:
    (tmp_path / "token").write_text("secret\n")
    return str(tmp_path / "token")


def test_gr00t_fields(gr00t: Gr00t, ready: Any, token: str) -> None:
    backend = ready("gr00t", gr00t.url, server_names=NAMES, server_token_file=token)
    backend.warm_up()
    backend.reset("open the drawer")
    look = window(DROID)
    chunk = backend.infer(look)
    assert chunk.actions.shape == (16, 8)
    np.testing.assert_allclose(chunk.actions[:, :7], 0.2, rtol=1e-6)
    np.testing.assert_allclose(chunk.actions[:, 7], 0.6, rtol=1e-6)
    said = gr00t.seen[-1]["data"]
    video = said["observation"]["video"]
    assert sorted(video) == ["ego", "left"]
    assert video["ego"].shape == (1, 2, 180, 320, 3) and video["ego"].dtype == np.uint8
    np.testing.assert_array_equal(video["left"][0, 1], look.newest.views["wrist"])
    state = said["observation"]["state"]
    assert state["hand"].shape == (1, 1, 1) and state["joint_position"].dtype == np.float32
    language = said["observation"]["language"]
    assert language == {"annotation.human.task_description": [["open the drawer"]]}
    assert backend.frame_rows == (-6, 0)
    assert {s["endpoint"] for s in gr00t.seen} == {"get_modality_config", "reset", "get_action"}


def test_gr00t_socket_is_made_anew_after_a_lost_reply(gr00t: Gr00t, ready: Any, token: str) -> None:
    backend = ready(
        "gr00t", gr00t.url, server_names=NAMES, server_token_file=token, server_timeout=0.3
    )
    backend.reset("x")
    gr00t.drop = 1
    with pytest.raises(RemoteError, match=r"get_action: no answer within 0.3 s"):
        backend.infer(window(DROID))
    seen = len(gr00t.seen)
    assert backend.infer(window(DROID)).context_flags & 1
    again = [s["endpoint"] for s in gr00t.seen[seen:]]
    assert again == ["get_modality_config", "reset", "get_action"]


def test_gr00t_garbage_missing_keys_and_tokens(gr00t: Gr00t, ready: Any, token: str) -> None:
    with pytest.raises(RemoteError, match="server_token_file"):
        ready("gr00t", gr00t.url, server_names=NAMES)
    with pytest.raises(RemoteError, match="wants the video keys ego"):
        ready("gr00t", gr00t.url, server_token_file=token)
    backend = ready("gr00t", gr00t.url, server_names=NAMES, server_token_file=token)
    backend.reset("x")
    gr00t.raw_reply = b"\xc1\xc1"
    with pytest.raises(RemoteError, match="answered with something else"):
        backend.infer(window(DROID))
    gr00t.actions["hand"] = np.full((1, 16, 1), np.nan, np.float32)
    with pytest.raises(RemoteError, match="'hand': actions hold values that are not numbers"):
        backend.infer(window(DROID))
