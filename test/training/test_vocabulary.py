"""The small model's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from wam_ros.training.vocabulary import unknown_words, words, write_tokenizer
from wam_ros.wam.text import Tokenizer

TEXTS = ["touch the red block", "touch the blue block, now"]


def test_words_become_ids_and_strange_words_unknown(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path, TEXTS)
    assert size == 3 + 7
    tokenizer = Tokenizer(tmp_path, 8)
    ids, mask = tokenizer("Touch the GREEN block")
    assert ids.shape == mask.shape == (1, 8)
    assert mask[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    known, _ = tokenizer("touch the red block")
    assert (ids != known)[0].tolist() == [False, False, True, False, False, False, False, False]
    assert ids[0, 2] == 2
    assert ids[0, 4] == 1  # end of text
    assert unknown_words(tmp_path, "touch the green block") == ["green"]


def test_the_order_of_texts_does_not_matter(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "a", TEXTS)
    write_tokenizer(tmp_path / "b", TEXTS[::-1])
    a, b = ((tmp_path / n / "tokenizer.json").read_text() for n in "ab")
    assert a == b


def test_the_rarest_words_are_left_out() -> None:
    assert words(TEXTS, 3 + 3) == ["block", "the", "touch"]
    with pytest.raises(ValueError, match="no room"):
        words(TEXTS, 3)


def test_long_texts_are_cut(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, TEXTS)
    ids, mask = Tokenizer(tmp_path, 4)("touch the red block now")
    assert ids.shape == (1, 4)
    assert mask.sum() == 4
