"""The small model's tokenizer: whole words, in the files that transformers reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_WORD = re.compile(r"\w+|[^\w\s]")


def words(texts: Iterable[str], limit: int) -> list[str]:
    """The most frequent words of ``texts``.

    Raises
    ------
    ValueError
        If ``limit`` leaves no room for a word.
    """
    room = limit - 3
    if room < 1:
        raise ValueError(f"a vocabulary of {limit} has no room for words beside {PAD} {END}")
    count = Counter(w for text in texts for w in _WORD.findall(text.lower()))
    # Frequency first, then the alphabet, so that the order of the texts does not matter.
    return [w for w, _ in sorted(count.items(), key=lambda item: (-item[1], item[0]))][:room]


def write_tokenizer(folder: Path, texts: Iterable[str], limit: int = 256) -> int:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``; returns the size of the vocabulary.

    Texts are lower-cased and split into words and signs; a word outside the vocabulary becomes
    ``<unk>``, and ``</s>`` ends every text, as umt5's tokenizer has it.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = [PAD, END, UNKNOWN, *words(texts, limit)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD.pattern), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, known.index(END))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(str(folder))
    return len(known)


def unknown_words(folder: Path, text: str) -> list[str]:
    """Words of ``text`` that the tokenizer in ``folder`` does not know."""
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return [w for w in _WORD.findall(text.lower()) if w not in known]
