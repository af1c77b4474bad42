"""The text encoder (umt5) as a policy call uses it, and the cleaning and tokenising before it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wam_ros.wam.config import T5Config
from wam_ros.wam.keymaps import t5 as keymap
from wam_ros.wam.prompts import clean_text
from wam_ros.wam.stored import StoredNetwork


class TextEncoder(StoredNetwork):
    """`transformers.UMT5EncoderModel` with the padding of its output zeroed."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(keymap.entries(config))
        from transformers import UMT5Config, UMT5EncoderModel

        self.config = config
        self.net = UMT5EncoderModel(
            UMT5Config(
                vocab_size=config.vocab,
                d_model=config.dim,
                d_kv=config.dim_attn // config.num_heads,
                d_ff=config.dim_ffn,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                relative_attention_num_buckets=config.num_buckets,
                relative_attention_max_distance=config.max_distance,
                layer_norm_epsilon=config.eps,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
                # Rounds in bf16 where the reference does; fused attention differs by one per cent.
                attn_implementation="eager",
            )
        ).eval()
        # One embedding under both names, so that filling one fills the other.
        self.net.encoder.set_input_embeddings(self.net.shared)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode token ids.

        Parameters
        ----------
        ids, mask
            [B, L] integers; the mask is 1 on tokens and 0 on padding.

        Returns
        -------
        Tensor
            [B, L, dim]. From the shortest sample's length on, all samples of the batch are zero:
            so the reference does it, and with one sample per call it is just the padding.
        """
        hidden = self.net(input_ids=ids, attention_mask=mask).last_hidden_state
        shortest = mask.gt(0).sum(dim=1).min()
        padding = torch.arange(ids.shape[1], device=ids.device) >= shortest
        return hidden.masked_fill(padding[None, :, None], 0.0)


class Tokenizer:
    """google/umt5-xxl's tokenizer from a local folder.

    Parameters
    ----------
    folder
        Holds ``tokenizer.json`` or ``spiece.model`` and ``tokenizer_config.json``.
    length
        Tokens per text; longer texts are cut, shorter ones padded.

    Raises
    ------
    FileNotFoundError
        If the folder has no tokenizer. Nothing is downloaded.
    """

    FILES = ("tokenizer.json", "spiece.model")

    def __init__(self, folder: str | Path, length: int = 512) -> None:
        folder = Path(folder)
        if not any((folder / name).is_file() for name in self.FILES):
            raise FileNotFoundError(
                f"no tokenizer in {folder.resolve()} (looked for {' or '.join(self.FILES)}); "
                "download it once with: hf download google/umt5-xxl --include 'tokenizer*' "
                f"'spiece.model' 'special_tokens_map.json' --local-dir {folder}"
            )
        from transformers import AutoTokenizer

        self.length, self._folder = length, folder
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)

    @classmethod
    def beside(cls, checkpoint: Path) -> Path:
        """Folder of the tokenizer that lies in a checkpoint's folder.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        for folder in (checkpoint / "tokenizer", checkpoint / "umt5-xxl", checkpoint):
            if any((folder / name).is_file() for name in cls.FILES):
                return folder
        raise FileNotFoundError(
            f"no tokenizer beside the weights in {checkpoint}: name the folder of the one they "
            "were trained with (google/umt5-xxl's for the released models)"
        )

    def copy_to(self, folder: Path) -> None:
        """Put the tokenizer's files into ``folder``, so that a checkpoint is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*self.FILES, "tokenizer_config.json", "special_tokens_map.json"):
            file = self._folder / name
            if file.is_file() and file.resolve() != (folder / name).resolve():
                shutil.copyfile(file, folder / name)

    def __call__(self, texts: str | list[str]) -> tuple[Tensor, Tensor]:
        """Clean and tokenise; return ids and mask, both int64 [B, length]."""
        texts = [texts] if isinstance(texts, str) else texts
        out = self._tokenizer(
            [clean_text(t) for t in texts],
            padding="max_length",
            truncation=True,
            max_length=self.length,
            add_special_tokens=True,
            return_tensors="pt",
        )
        return out["input_ids"], out["attention_mask"]
