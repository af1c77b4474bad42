"""Networks whose weights are stored under the names of the original Wan code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wam_ros.wam.keymaps import Entry, split, to_stored


class StoredNetwork(nn.Module):
    """A network of diffusers or transformers (`net`) and the table of its stored tensors.

    Built under ``torch.device("meta")`` it costs no memory until `place` fills it tensor by tensor.
    """

    net: Any

    def __init__(self, entries: list[Entry]) -> None:
        super().__init__()
        self.entries = entries
        # Stored by the release, never used; kept on the CPU so that a saved model is complete.
        self.unused: dict[str, Tensor] = {}

    def place(self, entry: Entry, tensor: Tensor) -> None:
        """Put one stored tensor where it belongs; its device and dtype become the parameter's."""
        if not entry.targets:
            self.unused[entry.name] = tensor.cpu()
        for target, part in split(entry, tensor).items():
            place(self.net, target, part)

    def load_stored(self, state: Mapping[str, Tensor]) -> None:
        """Load a whole state by its stored names, copies taken.

        Raises
        ------
        KeyError
            If a tensor that the network uses is missing.
        ValueError
            If one has another shape than the configuration asks for.
        """
        for entry in self.entries:
            if entry.name not in state and not entry.targets:
                continue
            tensor = state[entry.name]
            if tuple(tensor.shape) != entry.shape:
                raise ValueError(
                    f"{entry.name} has shape {tuple(tensor.shape)}, expected {entry.shape}"
                )
            self.place(entry, tensor.detach().clone())

    def stored_state(self) -> dict[str, Tensor]:
        """All tensors under their stored names."""
        named = {**dict(self.net.named_parameters(remove_duplicate=False))}
        return {**to_stored(self.entries, named), **self.unused}

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(p.dtype for p in self.net.parameters())

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(p.device for p in self.net.parameters())


def place(module: nn.Module, target: str, tensor: Tensor) -> None:
    """Replace the parameter `target` (dotted name) of `module` by `tensor`, without a copy.

    A quantised layer (`precision.prepare`) takes its weight through ``place_weight`` instead.

    Raises
    ------
    ValueError
        If the parameter has another shape.
    AttributeError
        If there is no such parameter.
    """
    path, _, leaf = target.rpartition(".")
    parent = module.get_submodule(path)
    if leaf == "weight" and hasattr(parent, "place_weight"):
        parent.place_weight(tensor)
        return
    old = parent.get_parameter(leaf)
    if old.numel() != tensor.numel():
        raise ValueError(f"{target} has shape {tuple(old.shape)}, given {tuple(tensor.shape)}")
    shaped = tensor.reshape(old.shape)
    setattr(parent, leaf, nn.Parameter(shaped, requires_grad=False))
