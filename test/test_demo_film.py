"""The demo's picture of what was imagined beside what was seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from wam_ros.demo.film import Film, draw
from wam_ros.demo.mishap import Mishap

BEGIN = 1000.0


def film(shift: float = 0.0) -> Film:
    """Two seconds seen at 15 Hz; every moment is imagined 0.2 s and 0.6 s before."""
    made = Film()
    for i in range(30):
        t = BEGIN + i / 15
        view = np.full((96, 160, 3), 8 * i, np.uint8)
        made.seen.append((t, dict.fromkeys(("top_head", "hand_left", "hand_right"), view)))
        for lead in (0.2, 0.6):
            picture = np.full((96, 160, 3), 8 * i + round(10 * lead), np.uint8)
            made.imagined.append((t + shift, lead, picture))
        made.surprise.append((t, 0.5 + 0.01 * i))
    return made


def test_a_moment_is_shown_as_it_was_imagined_first() -> None:
    pairs = film().pairs()
    assert len(pairs) == 6
    for stamp, lead, imagined, views in pairs:
        assert lead == 0.6
        i = round((stamp - BEGIN) * 15)
        assert views["top_head"][0, 0, 0] == 8 * i
        assert imagined[0, 0, 0] == 8 * i + 6
    assert film(shift=5.0).pairs() == [], "nobody saw what was imagined"


def test_the_picture_is_drawn_only_when_there_is_something(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert not draw(tmp_path / "none.png", Film(), "agibot", "nothing")
    assert not (tmp_path / "none.png").exists()
    assert draw(tmp_path / "film.png", film(), "agibot", '"touch the red block"')
    picture = cv2.imread(str(tmp_path / "film.png"))
    assert picture.shape[1] > 1000 and picture.std() > 20
    marked = film()
    marked.marks.append((BEGIN + 1.0, "the block was moved"))
    assert draw(tmp_path / "marked.png", marked, "agibot", '"touch the red block"')
    assert np.any(cv2.imread(str(tmp_path / "marked.png")) != picture)
    begun = film()
    begun.begin = BEGIN - 3.0
    assert draw(tmp_path / "begun.png", begun, "agibot", '"touch the red block"')
    assert np.any(cv2.imread(str(tmp_path / "begun.png")) != picture), "times count from there"


class _Simulation:
    """Lets the scene be disturbed at the third request."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def set_parameter(self, node: str, name: str, value: str) -> str:
        self.asked.append((node, name, value))
        return "" if len(self.asked) == 3 else "a hand is too near"


def test_a_mishap_is_tried_until_it_happens_once() -> None:
    simulation, mishap = _Simulation(), Mishap("move", 0.5)
    assert not mishap.happen(simulation, 0.4)
    assert simulation.asked == []
    assert mishap.summary() == {"kind": "move", "at_s": None, "refused": ""}
    happened = [mishap.happen(simulation, t) for t in (0.5, 0.6, 0.7, 0.8)]
    assert happened == [False, False, True, False]
    assert simulation.asked == 3 * [("sim", "disturb", "move")]
    assert mishap.summary() == {"kind": "move", "at_s": 0.7, "refused": ""}
    assert Mishap("", 0.0).summary() is None
    assert not Mishap("", 0.0).happen(simulation, 9.0)
