"""What a precision costs: errors per layer on the reference's inputs, and of the actions.

The reference runs the calls of one window. While it does, every linear that would be quantised is
quantised on the spot and its output compared, on the inputs it really gets. Then the same model is
cast and quantised in place and the calls are repeated: each call's action error holds what the
layers add up to and what came through the cache from the calls before. No second copy of the model
is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wam_ros.wam import synthetic
from wam_ros.wam.checkpoint.load import Networks
from wam_ros.wam.conditioning import Stream, Vae
from wam_ros.wam.config import WamConfig
from wam_ros.wam.flops import window_calls
from wam_ros.wam.head import CallOptions, PolicyHead, seeded_noise
from wam_ros.wam.precision.apply import apply_precision
from wam_ros.wam.precision.fp8 import Fp8Linear
from wam_ros.wam.precision.int8 import Int8Linear
from wam_ros.wam.precision.nvfp4 import torchao_config
from wam_ros.wam.precision.sensitive import reason_to_keep
from wam_ros.wam.savings import Savings

_KINDS: dict[str, Any] = {"fp8": Fp8Linear, "int8": Int8Linear}
# Fused projections have no names of their own; batches of two would be seen as twice the tokens.
_SAVINGS = replace(Savings.all(), fused_qkv=False, batched_cfg=False)


class _CastingVae:
    """A VAE in its own precision whose latents come in the transformer's."""

    def __init__(self, vae: Vae, dtype: torch.dtype) -> None:
        self._vae, self._dtype = vae, dtype

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return self._vae.encode(video).to(self._dtype)

    def decode_parts(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        return self._vae.decode_parts(latents)

    def stream(self) -> _CastingStream:
        return _CastingStream(self._vae.stream(), self._dtype)


class _CastingStream:
    def __init__(self, stream: Stream, dtype: torch.dtype) -> None:
        self._stream, self._dtype = stream, dtype

    def push(self, frames: torch.Tensor) -> torch.Tensor:
        return self._stream.push(frames).to(self._dtype)


@dataclass(frozen=True)
class Difference:
    """Relative L2 distance to the reference, and cosine similarity with it."""

    relative: float
    cosine: float

    @staticmethod
    def of(ours: torch.Tensor, reference: torch.Tensor) -> Difference:
        """Compare two tensors of one shape, in float64."""
        a, b = ours.double().flatten(), reference.double().flatten()
        norm = b.norm().clamp_min(1e-300)
        cosine = torch.dot(a, b) / (a.norm().clamp_min(1e-300) * norm)
        return Difference(float((a - b).norm() / norm), float(cosine))


@dataclass
class AccuracyReport:
    """Errors and sizes.

    Attributes
    ----------
    cached_frames
        Latent frames in the cache during the calls.
    layers
        Layer -> cached frames -> error of its output. The keys and values of prompt and image are
        computed once per window and stand at the first position.
    actions, video
        Precision -> cached frames -> error of the call; ``bf16`` has unquantised weights.
    bytes
        Precision -> bytes of the transformer.
    """

    model: str
    precision: str
    reference: str
    cached_frames: tuple[int, ...]
    layers: dict[str, dict[int, Difference]] = field(default_factory=dict)
    actions: dict[str, dict[int, Difference]] = field(default_factory=dict)
    video: dict[str, dict[int, Difference]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    replaced: int = 0
    kept: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class _Watch:
    """Compares linears with their quantised selves while the reference runs."""

    def __init__(self, dit: nn.Module, precision: str, tokens: int, found: AccuracyReport) -> None:
        self._tokens, self._found, self._kind = tokens, found, _KINDS.get(precision)
        self.position = 0
        self._hooks = [
            module.register_forward_hook(self._hook(name))
            for name, module in dit.named_modules()
            if isinstance(module, nn.Linear)
            and reason_to_keep(name, module.in_features, module.out_features) is None
        ]

    def _hook(self, name: str) -> Callable[..., None]:
        once = name.rpartition(".")[2] in ("k", "v", "k_img", "v_img") and "cross" in name

        def compare(module: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            x, seen = inputs[0], self._found.layers.setdefault(name, {})
            wanted = not seen if once else x.shape[1] == self._tokens
            if not wanted or self.position in seen:
                return
            if self._kind is not None:
                ours = self._kind.of(module).to(x.dtype)(x)
            else:
                low = [t.to(torch.bfloat16) for t in (x, *module.parameters())]
                ours = F.linear(*low)
            seen[self.position] = Difference.of(ours, out)

        return compare

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def accuracy(
    config: WamConfig,
    networks: Networks,
    precision: str,
    options: CallOptions,
    seed: int = 0,
) -> AccuracyReport:
    """Compare a precision with the model as given, which is changed in place.

    Parameters
    ----------
    networks
        The model in the reference precision (float32 where the memory allows it). Encoders may be
        the stand-ins of `synthetic`; they keep their precision throughout.
    precision
        One of `PRECISIONS`; layers of ``nvfp4`` are compared end to end only.
    """
    dit, positions = networks.dit, window_calls(config.dit)
    if precision == "nvfp4":
        torchao_config(dit.patch_embedding.weight.device)
    reference = str(dit.patch_embedding.weight.dtype).removeprefix("torch.")
    found = AccuracyReport(config.name, precision, reference, positions)
    found.bytes["reference"] = sum(p.nbytes for p in dit.parameters())
    tokens = config.dit.num_frame_per_block * config.dit.frame_seqlen + config.dit.register_len
    watch = _Watch(dit, precision, tokens, found) if precision != "nvfp4" else None
    truth = _window(config, networks, options, seed, watch)
    if watch:
        watch.close()
    for name in dict.fromkeys(("bf16", precision)):
        if name == "bf16":
            dit.to(torch.bfloat16)
            found.bytes[name] = sum(p.nbytes for p in dit.parameters())
        else:
            report = apply_precision(dit, name)
            found.bytes[name], found.replaced = report.bytes, len(report.replaced)
            found.kept = {x.name: str(x.kept) for x in report.kept}
        ours = _window(config, networks, options, seed, None)
        for where, index in ((found.actions, 0), (found.video, 1)):
            where[name] = {
                p: Difference.of(a[index], b[index]) for p, a, b in zip(positions, ours, truth)
            }
    return found


def _window(
    config: WamConfig, networks: Networks, options: CallOptions, seed: int, watch: _Watch | None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Actions and imagined latents of the calls of one window, on the CPU."""
    negative = synthetic.prompt(config, seed + 1)
    dit = networks.dit
    vae = _CastingVae(networks.vae, dit.patch_embedding.weight.dtype)
    head = PolicyHead(config, dit, networks.text, networks.image, vae, negative, _SAVINGS)
    c, device = config.dit, head.device
    # Drawn in float32 for all, because a generator gives other numbers in another precision.
    draw = seeded_noise(config.head.noise_seed + seed)
    k = c.num_frame_per_block
    video_shape = (1, c.out_dim, k, *config.latent_size)
    noise_video = draw(video_shape, torch.float32, device)
    noise_action = draw((1, c.num_action_per_block, c.action_dim), torch.float32, device)
    out = []
    for call, position in enumerate(window_calls(c)):
        if watch:
            watch.position = position
        frames = 4 * k if call else 1
        result = head.call(
            synthetic.clip(config, frames, call * 4 * k, seed),
            *synthetic.prompt(config, seed + 2),
            synthetic.state(config, seed + call),
            options,
            noise_video=noise_video,
            noise_action=noise_action,
        )
        assert result.video is not None
        out.append((result.action.cpu(), result.video[:, :, -k:].cpu()))
    return out
