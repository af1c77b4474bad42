"""Recorded reference data and tiny models for the tests of the World-Action Model (no ROS)."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from wam_ros.wam.checkpoint.load import Networks  # noqa: E402
from wam_ros.wam.clip import ImageEncoder  # noqa: E402
from wam_ros.wam.config import WamConfig  # noqa: E402
from wam_ros.wam.dit import CausalDiT  # noqa: E402
from wam_ros.wam.presets import tiny  # noqa: E402
from wam_ros.wam.text import TextEncoder  # noqa: E402
from wam_ros.wam.vae import VideoVae  # noqa: E402

# The tensors are tiny: threads would only wait for each other.
torch.set_num_threads(1)

GOLDEN = Path(__file__).resolve().parent.parent / "data" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the recorded reference data."""
    return GOLDEN


def random_networks(config: WamConfig, seed: int = 0) -> Networks:
    """All four networks with random weights, so that no two tensors are alike."""
    networks = Networks(
        CausalDiT(config.dit),
        TextEncoder(config.t5),
        ImageEncoder(config.clip),
        VideoVae(config.vae),
    )
    generator = torch.Generator().manual_seed(seed)
    for module in networks.by_component().values():
        module.eval().requires_grad_(False)
        for p in module.parameters():
            p.normal_(0.0, 0.2, generator=generator)
    for entry in networks.image.entries:
        if not entry.targets:
            networks.image.unused[entry.name] = torch.randn(entry.shape, generator=generator)
    return networks


@pytest.fixture(scope="session", params=["wan2.1", "wan2.2"])
def tiny_model(request: pytest.FixtureRequest) -> tuple[WamConfig, Networks]:
    """A tiny model of each of the two layouts."""
    config = tiny(kind=request.param)
    return config, random_networks(config)
