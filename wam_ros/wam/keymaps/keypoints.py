"""The keypoint encoder: its module carries the stored names itself."""

from __future__ import annotations

from wam_ros.wam.config import KeypointConfig
from wam_ros.wam.keymaps import Entry


def entries(config: KeypointConfig) -> list[Entry]:
    """All tensors, names below `action_head.image_encoder.model.visual.`."""
    c, f, h = config, config.features, config.hidden
    views = c.tiles[0] * c.tiles[1]
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("conv1", (f, 3, 3, 3)),
        ("conv2", (f, f, 3, 3)),
        ("conv3", (f, f, 3, 3)),
        ("ask", (c.points, c.text_dim)),
        ("query.0", (h, c.points * c.text_dim)),
        ("query.2", (c.points * (f + 3), h)),
        ("token.0", (h, views * (f + 3 + 4 * c.waves + 2))),
        ("token.2", (c.dim, h)),
        ("summary.0", (2 * h, c.points * (c.dim + c.text_dim))),
        ("summary.2", (h, 2 * h)),
        ("summary.4", (c.dim, h)),
    ]
    out = [
        Entry("kind", (c.points, c.dim), ("kind",)),
        Entry("scale", (1,), ("scale",)),
        Entry("usual", (c.points, c.text_dim), ("usual",)),
        Entry("contrast", (c.points, c.text_dim), ("contrast",)),
    ]
    for name, shape in shapes:
        out.append(Entry(f"{name}.weight", shape, (f"{name}.weight",)))
        out.append(Entry(f"{name}.bias", shape[:1], (f"{name}.bias",)))
    return out
