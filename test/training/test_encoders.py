"""Keypoints and the stage that teaches them."""

from __future__ import annotations

import numpy as np
import torch

from wam_ros.training.episodes import Episode, settled
from wam_ros.training.grounding import HindsightLoss, Readout, embed, pointing_loss
from wam_ros.wam.config import KeypointConfig, T5Config
from wam_ros.wam.keypoints import KeypointEncoder, Looks
from wam_ros.wam.text import TextEncoder

CONFIG = KeypointConfig(points=4, features=16, text_dim=16, hidden=32, dim=16, waves=3)
T5 = T5Config(8, 16, 16, 32, 2, 1)
RED, BLUE = (220, 30, 30), (30, 30, 220)


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a red and a blue square, and where they are, x and y in [-1, 1]."""
    image = np.full((1, 48, 48, 3), 120, np.uint8)
    places = []
    for side, colour in ((0, RED), (24, BLUE)):
        x, y = side + int(rng.integers(0, 18)), int(rng.integers(0, 42))
        image[0, y : y + 6, x : x + 6] = colour
        places.append(((x + 3) / 24 - 1, (y + 3) / 24 - 1))
    return image, np.array(places, np.float32)


class _Numbers:
    state_width = 2

    def state(self, raw: np.ndarray) -> np.ndarray:
        return raw.astype(np.float32)


def _episodes(count: int, seed: int) -> list[Episode]:
    """Episodes that go to the square which the sentence names, and rest there."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        image, places = _scene(rng)
        which = int(rng.integers(2))
        state = np.repeat(places[which][None], 9, 0)
        state[0] = 0.0
        out.append(Episode(image.repeat(3, 0), state, state, (("red", "blue")[which],) * 9))
    return out


def _tokens(text: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[{"red": 3, "blue": 4}[text], 1, 0]])
    return ids, (ids > 0).long()


def test_encoders_learn_which_place_a_word_means_without_being_told() -> None:
    torch.manual_seed(0)
    text, image = TextEncoder(T5), KeypointEncoder(CONFIG)
    readout = Readout(CONFIG.dim, 2, 32)
    train, fresh = (
        HindsightLoss(text, image, readout, e, _Numbers(), _tokens, batch=32, drop=0.0)  # type: ignore[arg-type]
        for e in (_episodes(400, 0), _episodes(64, 1))
    )
    modules = torch.nn.ModuleList([text, image, readout])
    optimizer = torch.optim.AdamW(modules.parameters(), 4e-3)
    for step in range(250):
        optimizer.zero_grad()
        train(step)["loss"].backward()
        optimizer.step()
    moments = fresh.draw(np.random.default_rng(0), 128)
    with torch.no_grad():
        error = (fresh.predict(moments)[0] - torch.from_numpy(moments.end)).norm(dim=1)
    # Squares of one colour are 0.75 apart in the mean; not knowing the word leaves 0.5 and more.
    assert error.median() < 0.15


def test_pointing_is_least_where_the_mean_of_the_look_is_the_place() -> None:
    """One view of 2 x 3 cells, its scores fitted to a place between the cells' centres."""
    scores = torch.zeros(1, 1, 1, 6, requires_grad=True)
    where = torch.tensor([[[0.2, -0.1]]])
    blank = torch.zeros(0)
    optimizer = torch.optim.Adam([scores], 0.1)
    for _ in range(400):
        loss = pointing_loss(Looks(scores, blank, blank, blank, blank, (2, 3)), where)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = scores.detach().flatten().softmax(0).reshape(2, 3)
    x = (weights.sum(0) * torch.tensor([-2 / 3, 0.0, 2 / 3])).sum()
    y = (weights.sum(1) * torch.tensor([-0.5, 0.5])).sum()
    torch.testing.assert_close(torch.stack((x, y)), where[0, 0], atol=0.02, rtol=0.0)


def test_a_view_that_does_not_show_the_place_is_not_asked() -> None:
    scores, blank = torch.randn(2, 3, 4, 6, requires_grad=True), torch.zeros(0)
    looks = Looks(scores, blank, blank, blank, blank, (2, 3))
    where = torch.full((2, 4, 2), torch.nan)
    assert pointing_loss(looks, where) == 0
    where[1, 2] = 0.3
    pointing_loss(looks, where).backward()
    assert scores.grad is not None
    touched = scores.grad.abs().sum(-1) > 0
    assert touched[1, 0, 2] and touched.sum() == 1


def test_kept_instructions_are_those_that_are_read() -> None:
    torch.manual_seed(0)
    text, image = TextEncoder(T5), KeypointEncoder(CONFIG)
    loss = HindsightLoss(
        text,
        image,
        Readout(CONFIG.dim, 2, 32),
        _episodes(8, 0),
        _Numbers(),
        _tokens,
        drop=0.0,  # type: ignore[arg-type]
    )
    moments = loss.draw(np.random.default_rng(0), 6)
    with torch.no_grad():
        before = loss.predict(moments, np.random.default_rng(1))[0]
        loss.keep_text()
        after = loss.predict(moments, np.random.default_rng(1))[0]
    torch.testing.assert_close(before, after)
    loss(0)["loss"].backward()
    assert all(p.grad is None for p in text.parameters())


def test_tokens_depend_on_picture_and_words() -> None:
    torch.manual_seed(0)
    encoder = KeypointEncoder(CONFIG)
    frames, text = torch.rand(2, 3, 48, 48), torch.randn(2, 5, 16)
    with torch.no_grad():
        tokens = encoder.encode(frames, text)
        other = encoder.encode(frames, text.flip(0))
        places = encoder.look(frames, text)
    assert tokens.shape == (2, CONFIG.tokens, CONFIG.dim)
    assert not torch.allclose(tokens, other)
    assert places.shape == (2, 4, 4, 2)
    assert places.abs().max() <= 1


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = KeypointEncoder(CONFIG)
    frames, text = torch.rand(1, 3, 48, 48), torch.randn(1, 5, 16)
    longer = torch.cat((text, torch.zeros(1, 7, 16)), 1)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode(frames, text), encoder.encode(frames, longer))


def test_a_batch_embeds_as_its_rows_do() -> None:
    torch.manual_seed(0)
    text = TextEncoder(T5)
    ids = torch.tensor([[3, 4, 5, 1, 0, 0], [3, 1, 0, 0, 0, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        both = embed(text, ids, mask)
        for row in range(2):
            alone = text(ids[row : row + 1], mask[row : row + 1])
            torch.testing.assert_close(both[row : row + 1], alone)


def test_settled() -> None:
    still = np.zeros((10, 3))
    assert settled(still)
    assert not settled(still[:4])
    moving = still + np.linspace(0, 1, 10)[:, None]
    assert not settled(moving)
