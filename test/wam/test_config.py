"""Configurations: presets, the released file's structure, contradictions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam_ros.wam.config import ConfigError, DiTConfig, WamConfig
from wam_ros.wam.config_io import from_released, read_config, to_released, write_config
from wam_ros.wam.presets import preset, tiny


@pytest.mark.parametrize("name", ["14b", "5b"])
def test_preset_survives_the_released_structure(name: str, tmp_path: Path) -> None:
    for config in (preset(name), preset(name).with_action_rows(48)):
        write_config(config, tmp_path)
        assert read_config(tmp_path) == config


@given(
    kind=st.sampled_from(["wan2.1", "wan2.2"]),
    rows=st.integers(1, 60),
    latent=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    chunks=st.integers(1, 6),
    frames=st.integers(1, 10),
)
def test_any_small_configuration_round_trips(
    kind: str, rows: int, latent: tuple[int, int], chunks: int, frames: int
) -> None:
    config = tiny(
        kind=kind,
        action_rows=rows,
        latent=(2 * latent[0], 2 * latent[1]),
        max_chunk_size=chunks,
        num_frames=4 * frames + 1,
    )
    assert from_released(json.loads(json.dumps(to_released(config)))) == config


def test_reads_a_released_file_that_names_no_encoder_sizes() -> None:
    dit = {"dim": 5120, "num_heads": 40, "num_layers": 40, "ffn_dim": 13824, "in_dim": 36}
    head = {"num_frames": 33, "action_horizon": 48, "diffusion_model_cfg": dit}
    config = from_released({"action_horizon": 48, "action_head_cfg": {"config": head}})
    assert config == preset("14b").with_action_rows(48)


def test_window_of_the_released_models() -> None:
    assert preset("14b").dit.local_attn_size == 9
    assert preset("14b").dit.local_attn_size * preset("14b").dit.frame_seqlen == 7920
    assert preset("5b").latent_size == (10, 20)


def test_contradictions_name_the_field() -> None:
    with pytest.raises(ConfigError, match="in_dim 20"):
        DiTConfig(in_dim=20)
    with pytest.raises(ConfigError, match="frame_seqlen 50"):
        WamConfig(DiTConfig(frame_seqlen=50))
    with pytest.raises(ConfigError, match="no section 'action_head_cfg'"):
        from_released({})
    data = to_released(tiny())
    data["action_head_cfg"]["config"]["diffusion_model_cfg"]["dim"] = "wide"
    with pytest.raises(ConfigError, match="dim is 'wide'"):
        from_released(data)


def test_package_imports_without_torch() -> None:
    code = "import sys, wam_ros.wam.config_io; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
