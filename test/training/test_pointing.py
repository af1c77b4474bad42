"""Where views show the place at which a hand came to rest, against MuJoCo's own camera."""

from __future__ import annotations

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.resources import share
from wam_ros.sim.urdf import expand
from wam_ros.training.episodes import Episode
from wam_ros.training.pointing import Pointing

G1 = load_contract("agibot_g1")
KEYS = tuple(k.key for k in G1.state)
CAMERAS = ("top_head", "hand_left", "hand_right")
ROWS = 30


def _pointing() -> Pointing:
    found = Pointing.find(G1, expand(share() / G1.urdf), KEYS, CAMERAS)
    assert found is not None
    return found


def _episode(moving: dict[str, float], text: str, still: int = 12) -> Episode:
    """From home, the joints ``moving`` by so much, then at rest; grey pictures."""
    names = [n for k in G1.state for n in k.joints]
    home = np.array([G1.joints[n].home for n in names])
    delta = np.array([moving.get(n, 0.0) for n in names])
    way = np.minimum(np.linspace(0.0, ROWS / max(ROWS - still, 1), ROWS), 1.0)
    state = home + way[:, None] * delta
    frames = np.zeros((ROWS // 3, 4, 4, 3), np.uint8)
    return Episode(frames, state, state, (text,) * ROWS)


LEFT = {G1.group("left_arm").joints[i].name: d for i, d in ((1, -0.2), (3, 0.3))}
RIGHT = {G1.group("right_arm").joints[i].name: d for i, d in ((1, 0.2), (3, -0.2))}


def test_the_place_is_where_mujoco_draws_it() -> None:
    """The projection of every view against the plant's cameras at the same joint positions."""
    mujoco = pytest.importorskip("mujoco")
    from wam_ros.sim.plant import Plant

    episode = _episode(LEFT, "touch the red block with the left hand")
    places = _pointing().places(episode)
    names = [n for k in G1.state for n in k.joints]
    plant = Plant(G1)
    data = mujoco.MjData(plant.model)
    tip = None
    for row in (ROWS - 1, 0, 9, 18):
        data.qpos[:] = plant.qpos_at(dict(zip(names, episode.state[row])))
        mujoco.mj_forward(plant.model, data)
        if tip is None:  # the end comes first
            tip = data.body(G1.group("left_arm").tip_link).xpos.copy()
            continue
        seen = 0
        for tile, name in zip((0, 2, 1), CAMERAS):
            camera = data.camera(name)
            x, y, z = camera.xmat.reshape(3, 3).T @ (tip - camera.xpos)
            half = np.tan(np.radians(plant.model.camera(name).fovy[0]) / 2) * 0.95
            native = next(c for c in G1.cameras if c.name == name)
            expected = np.array([x / -z / half * native.height / native.width, -y / -z / half])
            found = places[row // 3, tile]
            if -z > 0.01 and np.abs(expected).max() < 0.999:
                np.testing.assert_allclose(found, expected, atol=1e-4)
                seen += 1
            elif -z < 0 or np.abs(expected).max() > 1.001:
                assert np.isnan(found).all()
        assert seen
    assert np.isnan(places[:, 3]).all()  # the black tile


def test_the_named_hand_counts_and_not_the_one_that_goes_home() -> None:
    pointing = _pointing()
    both = {**LEFT, **{n: 3 * d for n, d in RIGHT.items()}}
    alone = pointing.places(_episode(LEFT, "touch the red block with the left hand"))
    named = pointing.places(_episode(both, "touch the red block with the left hand"))
    np.testing.assert_allclose(named[:, (0, 2)], alone[:, (0, 2)])
    assert np.isfinite(alone[:, 2]).any()


def test_without_a_side_the_hand_that_moved_counts_and_two_are_unclear() -> None:
    pointing = _pointing()
    named = pointing.places(_episode(LEFT, "touch the red block with the left hand"))
    silent = pointing.places(_episode(LEFT, "touch the red block"))
    np.testing.assert_array_equal(silent, named)
    assert np.isnan(pointing.places(_episode({**LEFT, **RIGHT}, "touch the red block"))).all()


def test_an_instruction_that_was_cut_short_points_nowhere() -> None:
    cut = _episode(LEFT, "touch the red block with the left hand", still=0)
    assert np.isnan(_pointing().places(cut)).all()


def test_views_in_another_layout_are_left_alone() -> None:
    droid = load_contract("franka_droid")
    keys = tuple(k.key for k in droid.state)
    assert Pointing.find(droid, "", keys, ("a", "b", "c")) is None
