"""Prompts, cleaning, tokenising, and the padding of the text encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wam_ros.wam.presets import tiny
from wam_ros.wam.prompts import DEFAULT_INSTRUCTION, clean_text, prompt
from wam_ros.wam.text import TextEncoder, Tokenizer


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("Open the DOOR", "open the door"),
        ("['First', 'Second']", "first"),
        ("7", "7"),
        ("2.50", "2.5"),
        ("[]", "[]"),
        ("('a', 'b')", "('a', 'b')"),
        ("<LAPA>wave<COTRAIN>", "wave"),
        ("", ""),
        (None, DEFAULT_INSTRUCTION.lower()),
        ("use {p} and {braces}", "use {p} and {braces}"),
        ("f(", "f("),
    ],
)
def test_instruction_in_the_prompt(instruction: str | None, said: str) -> None:
    assert prompt(instruction, "gr1_unified") == f"A single view video shows that a human {said}"


def test_robot_prompts_say_it_twice() -> None:
    for tag in ("oxe_droid", "agibot", "xdof", "yam"):
        text = prompt("lift the pot", tag)
        assert text.count("robot lift the pot") == 2
        assert "  " not in text
        assert "\n" not in text


def test_embodiments_without_a_prompt_are_refused() -> None:
    with pytest.raises(ValueError, match="'lapa' has no prompt; those with one are oxe_droid"):
        prompt("x", "lapa")
    with pytest.raises(ValueError, match="no embodiment 'h1'; known are oxe_droid"):
        prompt("x", "h1")


def test_cleaning() -> None:
    assert clean_text("  a\t b\n\u00a0c ") == "a b c"
    assert clean_text("salt &amp;amp; pepper") == "salt & pepper"
    assert clean_text("the \u201cred\u201d cup") == 'the "red" cup'
    assert clean_text("caf\u00c3\u00a9") == "caf\u00e9"


def _encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(tiny().t5).requires_grad_(False)


def test_padding_is_zero_and_changes_nothing() -> None:
    encoder = _encoder()
    ids = torch.tensor([[5, 6, 7, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0]])
    out = encoder(ids, mask)
    assert torch.equal(out[:, 3:], torch.zeros_like(out[:, 3:]))
    torch.testing.assert_close(out[:, :3], encoder(ids[:, :3], mask[:, :3]))
    ids[:, 3:] = 9
    torch.testing.assert_close(encoder(ids, mask), out)


def test_in_a_batch_the_shortest_text_cuts_all() -> None:
    encoder = _encoder()
    ids = torch.tensor([[5, 6, 7, 8], [9, 1, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    out = encoder(ids, mask)
    assert torch.equal(out[:, 2:], torch.zeros_like(out[:, 2:]))
    assert bool((out[:, :2] != 0).all())


def _tokenizer_folder(folder: Path) -> Path:
    """A word tokenizer in the files that google/umt5-xxl has."""
    from tokenizers import Tokenizer as Core
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", "lift", "the", "red", "&", "pot"]
    core = Core(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(str(folder))
    return folder


def test_tokenizer_cleans_pads_and_cuts(tmp_path: Path) -> None:
    tokenizer = Tokenizer(_tokenizer_folder(tmp_path), length=6)
    ids, mask = tokenizer("  lift\n the  pot ")
    assert ids.tolist() == [[3, 4, 7, 1, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0]]
    assert tokenizer("red &amp; red")[0].tolist() == [[5, 6, 5, 1, 0, 0]]
    ids, mask = tokenizer(["the the the the the the the the", "red"])
    assert ids.tolist() == [[4, 4, 4, 4, 4, 1], [5, 1, 0, 0, 0, 0]]
    assert ids.dtype == mask.dtype == torch.int64


def test_absent_tokenizer_names_the_folder_and_the_download(tmp_path: Path) -> None:
    folder = tmp_path / "umt5"
    with pytest.raises(FileNotFoundError, match="google/umt5-xxl") as caught:
        Tokenizer(folder)
    assert str(folder) in str(caught.value)
