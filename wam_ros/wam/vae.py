"""The video VAE: frames to normalised latents and back, at once or as frames arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from wam_ros.wam.config import VaeConfig
from wam_ros.wam.keymaps import vae as keymap
from wam_ros.wam.stored import StoredNetwork
from wam_ros.wam.vae_on_cpu import normalize, planar_on_cpu

# The encoder looks at the first frame alone and then at four frames at a time.
FRAMES_PER_LATENT = 4


class VideoVae(StoredNetwork):
    """Wan2.1 or Wan2.2 VAE (`diffusers.AutoencoderKLWan`) with DreamZero's latent scaling.

    Latents are the posterior mean, normalised per channel: ``z = (mu - mean) * (1 / std)``, where
    ``1 / std`` is rounded to the latent dtype as the reference does.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__(keymap.entries(config))
        from diffusers import AutoencoderKLWan

        residual = config.kind == "wan2.2"
        channels = 3 * config.patch_size**2
        self.config = config
        self.net = AutoencoderKLWan(
            base_dim=config.base_dim,
            decoder_base_dim=config.decoder_base_dim,
            z_dim=config.z_dim,
            dim_mult=list(config.dim_mult),
            num_res_blocks=config.num_res_blocks,
            temperal_downsample=list(config.temporal_downsample),
            latents_mean=list(config.latents_mean),
            latents_std=list(config.latents_std),
            is_residual=residual,
            in_channels=channels,
            out_channels=channels,
            patch_size=config.patch_size if residual else None,
            scale_factor_temporal=config.temporal_stride,
            scale_factor_spatial=config.spatial_stride,
        ).eval()
        _norm_in_own_precision(self.net)
        planar_on_cpu(self.net)
        self._scales: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def configure(self, config: VaeConfig) -> None:
        """Take over other latent statistics; nothing else may differ."""
        self.config = config
        self._scales.clear()

    def encode(self, video: Tensor) -> Tensor:
        """Encode whole clips.

        Parameters
        ----------
        video
            [B, 3, T, H, W] in [-1, 1]; H and W multiples of the spatial stride. Of T frames the
            first 1 + 4 n count, as in the reference.

        Returns
        -------
        Tensor
            [B, z, 1 + (T - 1) // 4, H / stride, W / stride], normalised.
        """
        return self.stream().push(video)

    def stream(self) -> VaeStream:
        """Start a clip whose frames arrive one after another."""
        return VaeStream(self)

    def decode(self, latents: Tensor, clamp: bool = True) -> Tensor:
        """Decode normalised latents [B, z, T', h, w] to video [B, 3, 1 + 4 (T' - 1), H, W].

        The first latent becomes one frame, every other four. Values are in [-1, 1] when `clamp`.
        """
        return torch.cat(list(self.decode_parts(latents, clamp)), dim=2)

    def decode_parts(self, latents: Tensor, clamp: bool = True) -> Iterator[Tensor]:
        """The same, latent by latent: [B, 3, 1, H, W], then [B, 3, 4, H, W] each."""
        mean, inverse_std = self._scale(latents)
        z = (latents / inverse_std + mean).to(self.dtype)
        x = self.net.post_quant_conv(z)
        cache = self._empty_cache(self.net.decoder)
        for i in range(x.shape[2]):
            latent, first = x[:, :, i : i + 1], i == 0
            part = self.net.decoder(latent, feat_cache=cache, feat_idx=[0], first_chunk=first)
            video = _shuffle(part, self.config.patch_size)
            yield video.clamp(-1.0, 1.0) if clamp else video

    def _encode_chunk(self, frames: Tensor, cache: list[Any]) -> Tensor:
        """One latent frame from the next 1 or 4 frames; `cache` carries the past."""
        x = _unshuffle(frames, self.config.patch_size)
        mu, _ = self.net.quant_conv(self.net.encoder(x, feat_cache=cache, feat_idx=[0])).chunk(2, 1)
        mean, inverse_std = self._scale(mu)
        return (mu - mean) * inverse_std

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._scales:
            shape = (1, -1, 1, 1, 1)
            mean = torch.tensor(self.config.latents_mean, dtype=torch.float32).view(shape)
            std = torch.tensor(self.config.latents_std, dtype=torch.float32).view(shape)
            self._scales[key] = (mean.to(*key), (1.0 / std).to(*key))
        return self._scales[key]

    @staticmethod
    def _empty_cache(side: torch.nn.Module) -> list[Any]:
        # One slot per causal convolution is what the network's running index can reach.
        return [None] * sum(isinstance(m, torch.nn.Conv3d) for m in side.modules())


def _norm_in_own_precision(net: torch.nn.Module) -> None:
    """Have the VAE's norms compute in the precision of their input, as the reference does.

    diffusers computes them in float32, which is no better for weights that were trained and run the
    other way, and in bfloat16 gives latents that differ by one to two per cent. Where rounding is
    nobody's business, on a CPU in float32 or under autocast, they take a faster form.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm

    class Norm(WanRMS_norm):
        def forward(self, x: Tensor) -> Tensor:
            dim = 1 if self.channel_first else -1
            fast = x.is_cpu and (x.dtype == torch.float32 or torch.is_autocast_enabled("cpu"))
            x = normalize(x, dim) if fast else torch.nn.functional.normalize(x, dim=dim)
            return x * self.scale * self.gamma + self.bias

    for module in net.modules():
        if type(module) is WanRMS_norm:
            module.__class__ = Norm


class VaeStream:
    """A clip being encoded while its frames arrive.

    The encoder is causal in time: what it has seen of a clip fits into the last two inputs of every
    convolution. Feeding frames singly or together gives the same latents as `VideoVae.encode`.
    """

    def __init__(self, vae: VideoVae) -> None:
        self._vae = vae
        self._cache = vae._empty_cache(vae.net.encoder)
        self._waiting: Tensor | None = None
        self._started = False

    @property
    def waiting(self) -> int:
        """Frames received that do not fill a latent yet (0 to 3)."""
        return 0 if self._waiting is None else int(self._waiting.shape[2])

    def push(self, frames: Tensor) -> Tensor:
        """Add frames [B, 3, n, H, W] in [-1, 1]; return the latents [B, z, m, h, w] they complete.

        m may be 0. The first frame completes a latent by itself, every later one takes four.

        Raises
        ------
        ValueError
            If the frames do not fit the VAE or the frames pushed before.
        """
        self._check(frames)
        frames = frames.to(self._vae.device, self._vae.dtype)
        if self._waiting is not None:
            frames = torch.cat([self._waiting, frames], dim=2)
        done = []
        while frames.shape[2] >= (need := FRAMES_PER_LATENT if self._started else 1):
            done.append(self._vae._encode_chunk(frames[:, :, :need], self._cache))
            self._started = True
            frames = frames[:, :, need:]
        self._waiting = frames
        if done:
            return torch.cat(done, dim=2)
        b, _, _, height, width = frames.shape
        stride = self._vae.config.spatial_stride
        shape = (b, self._vae.config.z_dim, 0, height // stride, width // stride)
        return frames.new_zeros(shape)

    def fork(self) -> VaeStream:
        """Continue the same clip in two ways; neither disturbs the other."""
        twin = VaeStream(self._vae)
        # The network replaces the tensors of its cache and never writes into them.
        twin._cache, twin._waiting, twin._started = list(self._cache), self._waiting, self._started
        return twin

    def _check(self, frames: Tensor) -> None:
        stride = self._vae.config.spatial_stride
        shape = tuple(frames.shape)
        if frames.dim() != 5 or shape[1] != 3 or shape[3] % stride or shape[4] % stride:
            raise ValueError(
                f"frames have shape {shape}; the VAE takes [B, 3, T, H, W] with H and W "
                f"multiples of {stride}"
            )
        if self._waiting is not None:
            b, _, _, height, width = self._waiting.shape
            if (shape[0], *shape[3:]) != (b, height, width):
                raise ValueError(f"frames {shape} do not continue a clip of {b}x{height}x{width}")


def _unshuffle(x: Tensor, p: int) -> Tensor:
    """Space to channels in the order of Wan2.2: colour, column offset, row offset."""
    if p == 1:
        return x
    b, c, t, h, w = x.shape
    x = x.reshape(b, c, t, h // p, p, w // p, p).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, c * p * p, t, h // p, w // p)


def _shuffle(x: Tensor, p: int) -> Tensor:
    """Inverse of `_unshuffle`."""
    if p == 1:
        return x
    b, c, t, h, w = x.shape
    x = x.reshape(b, c // (p * p), p, p, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(b, c // (p * p), t, h * p, w * p)
