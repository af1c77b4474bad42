"""Dimensions of the World-Action Model, as frozen dataclasses.

The numbers of the presets are those of the public DreamZero releases: 14B on Wan2.1-I2V-14B and
5B on Wan2.2-TI2V-5B. `config_io` reads and writes the released ``config.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


class ConfigError(ValueError):
    """A configuration contradicts itself or lacks a value; the message names the field."""


@dataclass(frozen=True)
class DiTConfig:
    """The causal-chunk diffusion transformer.

    ``in_dim`` counts the channels of the patch embedding: noisy latent, and with
    ``concat_first_frame_latent`` also 4 mask channels and the conditioning latent.
    """

    dim: int = 5120
    num_heads: int = 40
    num_layers: int = 40
    ffn_dim: int = 13824
    freq_dim: int = 256
    in_dim: int = 36
    out_dim: int = 16
    concat_first_frame_latent: bool = True
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 4096
    text_len: int = 512
    image_dim: int = 1280
    image_tokens: int = 257
    eps: float = 1e-6
    action_dim: int = 32
    max_state_dim: int = 64
    hidden_size: int = 1024
    num_frame_per_block: int = 2
    num_action_per_block: int = 24
    num_state_per_block: int = 1
    max_chunk_size: int = 4
    frame_seqlen: int = 880

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ConfigError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head dim {self.head_dim} is odd; RoPE turns pairs of channels")
        if self.num_action_per_block % self.num_state_per_block:
            raise ConfigError(
                f"num_action_per_block {self.num_action_per_block} is not a multiple of "
                f"num_state_per_block {self.num_state_per_block}"
            )
        latent = self.in_dim
        if self.concat_first_frame_latent:
            latent = self.in_dim - 4 - self.out_dim
        if latent != self.out_dim:
            raise ConfigError(
                f"in_dim {self.in_dim} does not fit out_dim {self.out_dim}: expected "
                f"{2 * self.out_dim + 4 if self.concat_first_frame_latent else self.out_dim}"
            )

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.dim // self.num_heads

    @property
    def local_attn_size(self) -> int:
        """Latent frames of the context window; -1 when there is no limit."""
        if self.max_chunk_size == -1:
            return -1
        return self.max_chunk_size * self.num_frame_per_block + 1

    @property
    def register_len(self) -> int:
        """Action and state tokens of one block."""
        return self.num_action_per_block + self.num_state_per_block


@dataclass(frozen=True)
class HeadConfig:
    """The policy head: sampling, guidance and sizes of a call.

    ``frames_per_call`` frames continue a window (the release's client sends 4, its training saw 8
    and the one before them), and a call in the sliding cadence looks back ``sliding_history``
    blocks. ``blocks_alone`` says that the transformer was trained on blocks whose latents were
    encoded from their own opening frame, as a call encodes them; the release's come from a stream
    over the whole window (SPEC section 4.3). ``video_height`` x ``video_width`` is the composite
    that the VAE encodes, in pixels. With ``resize_input`` a composite of another size is resized
    to it (bilinear), as the 5B does.
    """

    num_frames: int = 33
    action_horizon: int = 24
    num_inference_steps: int = 16
    dit_steps: int = 8
    dynamic_skip: bool = False
    sigma_shift: float = 5.0
    cfg_scale: float = 5.0
    noise_seed: int = 1140
    decouple_inference_noise: bool = False
    video_inference_final_noise: float = 0.8
    video_height: int = 352
    video_width: int = 640
    resize_input: bool = False
    frames_per_call: int = 4
    sliding_history: int = 1
    blocks_alone: bool = False
    train_architecture: str = "full"
    lora_rank: int = 4
    lora_alpha: int = 4
    lora_target_modules: str = "q,k,v,o,ffn.0,ffn.2"


@dataclass(frozen=True)
class T5Config:
    """The umt5 text encoder (per-layer relative position bias)."""

    vocab: int = 256384
    dim: int = 4096
    dim_attn: int = 4096
    dim_ffn: int = 10240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6


@dataclass(frozen=True)
class ClipConfig:
    """The CLIP image tower; all but the last of ``num_layers`` run."""

    image_size: int = 224
    patch_size: int = 14
    dim: int = 1280
    mlp_ratio: int = 4
    out_dim: int = 1024
    num_heads: int = 16
    num_layers: int = 32
    eps: float = 1e-5

    @property
    def tokens(self) -> int:
        """Patches plus the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class KeypointConfig:
    """The small model's image encoder (`keypoints.KeypointEncoder`), in place of CLIP.

    ``points`` queries over ``features`` channels in each of the views, which lie in a grid of
    ``tiles`` (rows, columns); ``waves`` frequencies encode a position.
    """

    points: int = 8
    features: int = 16
    tiles: tuple[int, int] = (2, 2)
    text_dim: int = 64
    hidden: int = 128
    dim: int = 64
    waves: int = 5

    @property
    def tokens(self) -> int:
        """One per query and their summary."""
        return self.points + 1


WAN21_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
WAN21_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
WAN22_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
    *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
    *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
    *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
    *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
WAN22_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
    *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
    *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
    *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
    *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)


@dataclass(frozen=True)
class VaeConfig:
    """The video VAE. ``kind`` is ``wan2.1`` (14B) or ``wan2.2`` (5B, residual, unshuffled by 2).

    Latents are normalised as ``(mu - latents_mean) / latents_std``; both have ``z_dim`` entries.
    """

    kind: str = "wan2.1"
    base_dim: int = 96
    decoder_base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = WAN21_MEAN
    latents_std: tuple[float, ...] = WAN21_STD

    def __post_init__(self) -> None:
        if self.kind not in ("wan2.1", "wan2.2"):
            raise ConfigError(f"VAE kind '{self.kind}' is neither wan2.1 nor wan2.2")
        if not len(self.latents_mean) == len(self.latents_std) == self.z_dim:
            raise ConfigError(
                f"latents_mean ({len(self.latents_mean)}) and latents_std "
                f"({len(self.latents_std)}) must have z_dim = {self.z_dim} entries"
            )

    @property
    def patch_size(self) -> int:
        """Pixel unshuffle before the encoder; 1 means none."""
        return 2 if self.kind == "wan2.2" else 1

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent column and row."""
        return int(self.patch_size * 2 ** (len(self.dim_mult) - 1))

    @property
    def temporal_stride(self) -> int:
        """Frames per latent after the first."""
        return int(2 ** sum(self.temporal_downsample))


WAN22_VAE = VaeConfig("wan2.2", 160, 256, 48, latents_mean=WAN22_MEAN, latents_std=WAN22_STD)


@dataclass(frozen=True)
class WamConfig:
    """The whole model: transformer, policy head, text and image encoders, video VAE."""

    dit: DiTConfig = field(default_factory=DiTConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    t5: T5Config = field(default_factory=T5Config)
    clip: ClipConfig | KeypointConfig = field(default_factory=ClipConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    name: str = "dreamzero-14b"

    def __post_init__(self) -> None:
        d, h, v = self.dit, self.head, self.vae
        if d.out_dim != v.z_dim:
            raise ConfigError(f"dit.out_dim {d.out_dim} differs from vae.z_dim {v.z_dim}")
        if d.text_dim != self.t5.dim:
            raise ConfigError(f"dit.text_dim {d.text_dim} differs from t5.dim {self.t5.dim}")
        if d.image_dim != self.clip.dim:
            raise ConfigError(f"dit.image_dim {d.image_dim} differs from clip.dim {self.clip.dim}")
        if isinstance(self.clip, KeypointConfig) and self.clip.text_dim != self.t5.dim:
            raise ConfigError(
                f"image encoder text_dim {self.clip.text_dim} differs from t5.dim {self.t5.dim}"
            )
        if h.action_horizon != d.num_action_per_block:
            raise ConfigError(
                f"action_horizon {h.action_horizon} differs from num_action_per_block "
                f"{d.num_action_per_block}; one call returns one block"
            )
        rows, columns = self.latent_size
        if rows * v.spatial_stride != h.video_height or columns * v.spatial_stride != h.video_width:
            raise ConfigError(
                f"video {h.video_height}x{h.video_width} is no multiple of the VAE's stride "
                f"{v.spatial_stride}"
            )
        tokens = (rows // d.patch_size[1]) * (columns // d.patch_size[2])
        if tokens != d.frame_seqlen:
            raise ConfigError(
                f"frame_seqlen {d.frame_seqlen} does not fit video {h.video_height}x"
                f"{h.video_width}: that is {tokens} tokens per latent frame"
            )

    @property
    def latent_size(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        stride = self.vae.spatial_stride
        return self.head.video_height // stride, self.head.video_width // stride

    @property
    def window_latents(self) -> int:
        """Latent frames of the first-frame conditioning."""
        return (self.head.num_frames - 1) // self.vae.temporal_stride + 1

    def with_action_rows(self, rows: int) -> WamConfig:
        """The same model with ``rows`` actions per call (24 or 48); no weight depends on it."""
        return replace(
            self,
            dit=replace(self.dit, num_action_per_block=rows),
            head=replace(self.head, action_horizon=rows),
        )
