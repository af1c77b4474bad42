"""Training on several devices with torch's FSDP.

Every rank loads the checkpoint and keeps its share of every parameter, gradient and optimizer
state. All draw the same batch and compute their part of it, so that the result is that of one
device, up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from wam_ros.training.flow import TeacherForcing
from wam_ros.training.ranks import Ranks
from wam_ros.wam.dit import CausalDiT


def shard(dit: CausalDiT, ranks: Ranks) -> TeacherForcing:
    """Split a loaded transformer among the ranks; what is trained is kept in float32.

    On GPUs it computes in bfloat16, and blocks are computed again in the backward pass instead of
    being remembered.
    """
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    cuda = ranks.device.type == "cuda"
    how: dict[str, Any] = {"mesh": mesh}
    if cuda:
        how["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    for i, block in enumerate(dit.blocks):
        assert isinstance(block, nn.Module)
        block.float()
        # Keys and values of the context are computed before the block itself is called.
        cross: Any = block.cross_attn
        fully_shard(cross, **how)
        register_fsdp_forward_method(cross, "keys_values")
        if cuda:
            block = checkpoint_wrapper(block)
            dit.blocks[i] = block
        fully_shard(block, **how)
    whole = TeacherForcing(dit)
    for parameter in whole.parameters():
        if not isinstance(parameter, DTensor):
            parameter.data = parameter.data.float()
    fully_shard(whole, **how)
    return whole


def gather(dit: CausalDiT, ranks: Ranks) -> None:
    """Give the first rank whole parameters again, on the CPU; every rank has to call it."""
    for i, block in enumerate(dit.blocks):
        dit.blocks[i] = getattr(block, "_checkpoint_wrapped_module", block)
    for owner in dit.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if not isinstance(parameter, DTensor):
                continue
            whole = parameter.full_tensor().detach()
            if ranks.first:
                setattr(owner, name, nn.Parameter(whole.cpu(), parameter.requires_grad))
