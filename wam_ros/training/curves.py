"""Draw how a training went, from the lines that its stages wrote."""

from __future__ import annotations

import json
from pathlib import Path

STAGES = ("vae", "words", "places", "dit", "lora")
_SHOWN = ("loss", "held_out", "error", "pointing", "action", "video")


def read(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Lines of every stage in ``folder``, by stage; a stage that was begun anew counts once."""
    found = {}
    for stage in STAGES:
        file = folder / f"{stage}.jsonl"
        if not file.is_file():
            continue
        lines: dict[float, dict[str, float]] = {}
        for text in file.read_text().splitlines():
            line = json.loads(text)
            lines[line["step"]] = line
        found[stage] = [lines[k] for k in sorted(lines)]
    return found


def draw(folder: Path, picture: Path) -> Path | None:
    """One panel per stage; None when there is nothing to draw."""
    curves = read(folder)
    if not curves:
        return None
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        1, len(curves), figsize=(4.2 * len(curves), 3.4), constrained_layout=True, squeeze=False
    )
    for axis, (stage, lines) in zip(axes[0], curves.items()):
        for name in _SHOWN:
            points = [(x["step"], x[name]) for x in lines if name in x]
            if points:
                axis.plot(*zip(*points), label=name.replace("_", " "), linewidth=1.0)
        axis.set_yscale("log")
        axis.set_xlabel("step")
        axis.set_title(f"{stage}, {lines[-1]['seconds'] / 60:.0f} min", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.3)
    fig.savefig(picture, dpi=110)
    plt.close(fig)
    return picture
