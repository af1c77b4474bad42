"""The configurations there are: the released ones, the small model, and tiny ones for tests."""

from __future__ import annotations

from wam_ros.wam.config import (
    WAN22_VAE,
    ClipConfig,
    ConfigError,
    DiTConfig,
    HeadConfig,
    KeypointConfig,
    T5Config,
    VaeConfig,
    WamConfig,
)


def preset(name: str) -> WamConfig:
    """Return ``14b``, ``5b`` or ``small``.

    Raises
    ------
    ConfigError
        For any other name.
    """
    if name == "14b":
        return WamConfig()
    if name == "5b":
        dit = DiTConfig(
            dim=3072,
            num_heads=24,
            num_layers=30,
            ffn_dim=14336,
            in_dim=48,
            out_dim=48,
            concat_first_frame_latent=False,
            frame_seqlen=50,
        )
        head = HeadConfig(video_height=160, video_width=320, resize_input=True)
        return WamConfig(dit, head, vae=WAN22_VAE, name="dreamzero-5b")
    if name == "small":
        return small()
    raise ConfigError(f"no preset '{name}'; there are 14b, 5b and small")


def small(vocab: int = 256) -> WamConfig:
    """The model that runs on a laptop's processor: three views of 80x48 pixels, 24 rows at 30 Hz.

    Like the 5B it has the residual VAE and no conditioning latents; unlike it, keypoints instead of
    CLIP and patches of 4x4 latents, so that a latent frame has 15 tokens.
    """
    z = 8
    dit = DiTConfig(
        dim=128,
        num_heads=4,
        num_layers=6,
        ffn_dim=384,
        freq_dim=64,
        in_dim=z,
        out_dim=z,
        concat_first_frame_latent=False,
        patch_size=(1, 4, 4),
        text_dim=64,
        text_len=96,
        image_dim=64,
        image_tokens=9,
        hidden_size=256,
        max_chunk_size=2,
        frame_seqlen=15,
    )
    head = HeadConfig(
        num_frames=17,
        # Its actions are the mean of what may follow; more steps scatter them (docs/small_wam.md).
        num_inference_steps=1,
        dit_steps=1,
        cfg_scale=1.0,
        frames_per_call=9,
        sliding_history=0,
        blocks_alone=True,
        video_height=96,
        video_width=160,
    )
    t5 = T5Config(vocab, 64, 64, 128, 4, 2)
    vae = VaeConfig(
        kind="wan2.2",
        base_dim=16,
        decoder_base_dim=16,
        z_dim=z,
        dim_mult=(1, 2, 2),
        num_res_blocks=1,
        temporal_downsample=(True, True),
        latents_mean=(0.0,) * z,
        latents_std=(1.0,) * z,
    )
    return WamConfig(dit, head, t5, KeypointConfig(), vae, name="wam-small")


def tiny(
    *,
    kind: str = "wan2.1",
    dim: int = 64,
    num_heads: int = 2,
    num_layers: int = 2,
    z_dim: int = 4,
    action_rows: int = 6,
    latent: tuple[int, int] = (4, 6),
    max_chunk_size: int = 4,
    num_frames: int = 33,
) -> WamConfig:
    """A configuration of the same structure that runs on a CPU in milliseconds, for tests."""
    concat = kind == "wan2.1"
    stride = 8 if concat else 16
    dit = DiTConfig(
        dim=dim,
        num_heads=num_heads,
        num_layers=num_layers,
        ffn_dim=2 * dim,
        freq_dim=32,
        in_dim=2 * z_dim + 4 if concat else z_dim,
        out_dim=z_dim,
        concat_first_frame_latent=concat,
        text_dim=32,
        text_len=16,
        image_dim=48,
        action_dim=8,
        max_state_dim=12,
        hidden_size=20,
        num_action_per_block=action_rows,
        max_chunk_size=max_chunk_size,
        frame_seqlen=latent[0] * latent[1] // 4,
    )
    head = HeadConfig(
        num_frames=num_frames,
        action_horizon=action_rows,
        video_height=latent[0] * stride,
        video_width=latent[1] * stride,
        resize_input=not concat,
    )
    t5 = T5Config(120, 32, 32, 48, 4, 2, 8)
    clip = ClipConfig(dim=48, out_dim=16, num_heads=2, num_layers=3)
    flat = (0.0,) * z_dim, (1.0,) * z_dim
    vae = VaeConfig(kind, 8, 8, z_dim, latents_mean=flat[0], latents_std=flat[1])
    return WamConfig(dit, head, t5, clip, vae, name=f"tiny-{kind}")
