"""Where the small transformer's training sets out from: noise passes through.

A velocity is noise minus data, and at the noise levels that matter most it is nearly all noise. A
network of 128 channels with random weights needs thousands of steps to let through what it is
given. Weights that do so from the first step on leave training with what there is to be learned:
the data. Large models have room and time for both and need none of this.
"""

from __future__ import annotations

import math

import torch

from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.embodiment import ActionEncoder, CategoryLinear, CategoryMLP


@torch.no_grad()
def pass_noise(dit: CausalDiT) -> None:
    """Set weights so that the velocities are about the noisy input itself.

    Of an action token the first ``action_dim`` channels are the noisy action; a video token is its
    patch, rotated where it has more channels than the patch has numbers. Blocks begin silent: their
    gates are zero (adaLN-Zero, Peebles and Xie 2023, "Scalable diffusion models ..."),
    and so is what cross-attention, which has no gate, gives out. Other weights are drawn anew, from
    torch's generator, at a scale that fits their number of inputs.

    Raises
    ------
    ValueError
        If a token is too narrow for what it has to carry.
    """
    c = dit.config
    patch = c.patch_size[0] * c.patch_size[1] * c.patch_size[2] * c.out_dim
    if 2 * c.action_dim > min(c.dim, c.hidden_size) or patch > c.dim or c.in_dim != c.out_dim:
        raise ValueError(
            f"{c.dim} channels do not carry patches of {patch} numbers and twice "
            f"{c.action_dim} action values"
        )
    _encoder(dit.action_encoder, c.action_dim)
    _decoder(dit.action_decoder, c.action_dim)
    for layer in (dit.state_encoder.layer1, dit.state_encoder.layer2):
        _spread(layer)
    # An isometry of the patch, and its inverse behind the head's norm.
    turn = torch.linalg.qr(torch.randn(c.dim, patch)).Q
    dit.patch_embedding.weight.copy_(turn.view_as(dit.patch_embedding.weight))
    dit.patch_embedding.bias.zero_()
    # The head's numbers are ordered by place first, then by latent channel. Its norm divides by the
    # deviation over all channels, of which only the patch's are filled.
    back = turn.T.view(c.out_dim, -1, c.dim).transpose(0, 1).reshape(patch, c.dim)
    dit.head.head.weight.copy_(back * math.sqrt(patch / c.dim))
    dit.head.head.bias.zero_()
    dit.head.modulation.zero_()
    gates = dit.time_projection[-1]
    for part in (gates.weight, gates.bias):
        part.view(6, c.dim, -1)[[2, 5]] = 0.0
    for block in dit.blocks:
        block.modulation[:, [2, 5]] = 0.0
        block.cross_attn.o.weight.zero_()
        block.cross_attn.o.bias.zero_()


def _spread(layer: CategoryLinear) -> None:
    layer.W.normal_(std=1.0 / math.sqrt(layer.W.shape[1]))
    layer.b.zero_()


def _encoder(net: ActionEncoder, actions: int) -> None:
    """``swish(a) - swish(-a) = a``: two hidden units pass one value, whatever their shape."""
    for layer in (net.W1, net.W2, net.W3):
        _spread(layer)
    one = torch.eye(actions)
    net.W1.W[:, :, :actions] = one
    net.W2.W[:, :, : 2 * actions] = 0.0
    net.W2.W[:, :actions, :actions] = one
    net.W2.W[:, :actions, actions : 2 * actions] = -one
    net.W3.W[:, :, :actions] = 0.0
    net.W3.W[:, :actions, :actions] = one
    net.W3.W[:, actions : 2 * actions, :actions] = -one


def _decoder(net: CategoryMLP, actions: int) -> None:
    """``relu(a) - relu(-a) = a``."""
    for layer in (net.layer1, net.layer2):
        _spread(layer)
    one = torch.eye(actions)
    net.layer1.W[:, :, : 2 * actions] = 0.0
    net.layer1.W[:, :actions, :actions] = one
    net.layer1.W[:, :actions, actions : 2 * actions] = -one
    net.layer2.W.zero_()
    net.layer2.W[:, :actions, :] = one
    net.layer2.W[:, actions : 2 * actions, :] = -one
