"""Work that can be left out without changing the actions, each behind a switch of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Savings:
    """Switches; all off is the plain path, which computes what the reference computes.

    Attributes
    ----------
    dead_uncond
        Leave out unconditional forwards that cannot reach an action: guidance touches the video
        only, so the last computed step's never does unless the video is wanted. An unconditional
        prefill waits until something needs it; in one-step operation nothing ever does.
    cache_context
        Keep the embeddings of prompts seen before, and compute the projections of prompt and image
        and their cross-attention keys and values once per window.
    shared_time
        Embed each distinct timestep once (video, actions) instead of once per token.
    static_cache
        Write keys and values into a buffer allocated once, instead of concatenating.
    real_rope
        float32 cosine and sine tables instead of float64 ones. The only switch that changes
        rounding noticeably: about 1e-7 relative in float32.
    fused_qkv
        One linear for queries, keys and values.
    staged_vae
        Encode the frames of an observation as they arrive; only the last four remain for the call.
    lazy_conditioning
        At a reset encode only as much of the grey-padded clip as the next forwards look at. The
        rest is done when it is needed, or in idle time.
    batched_cfg
        Both guidance branches in one forward of batch 2. Needs ``static_cache``.
    dead_outputs
        Stop a prefill at the last layer's keys and values, and compute no video velocity in a last
        step whose video nobody wants.
    """

    dead_uncond: bool = False
    cache_context: bool = False
    shared_time: bool = False
    static_cache: bool = False
    real_rope: bool = False
    fused_qkv: bool = False
    staged_vae: bool = False
    lazy_conditioning: bool = False
    batched_cfg: bool = False
    dead_outputs: bool = False

    def __post_init__(self) -> None:
        if self.batched_cfg and not self.static_cache:
            raise ValueError("batched_cfg needs static_cache: the branches share one buffer")

    @staticmethod
    def none() -> Savings:
        """The plain path."""
        return Savings()

    @staticmethod
    def all() -> Savings:
        """Everything on."""
        return Savings(**dict.fromkeys(Savings.names(), True))

    @staticmethod
    def names() -> tuple[str, ...]:
        """The switches, in order."""
        return tuple(f.name for f in dataclasses.fields(Savings))

    @staticmethod
    def only(name: str) -> Savings:
        """One switch on, with those it needs."""
        needed = {"static_cache": True} if name == "batched_cfg" else {}
        return Savings(**{name: True, **needed})
