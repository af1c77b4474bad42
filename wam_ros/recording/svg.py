"""Small line and bar plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

COLOURS = ("#2563a8", "#c2571a", "#2d8a4e", "#8b3fa0", "#a6811c", "#c0334d", "#3a8f96", "#666")
_W, _H, _LEFT, _BOTTOM, _TOP = 360, 150, 40, 20, 6


def lines(t: Sequence[float], joints: Sequence[dict[str, Any]], title: str) -> str:
    """State (solid) and action (dashed) of a few joints over time in seconds."""
    values = [v for j in joints for k in ("state", "action") for v in j[k]]
    if len(t) < 2 or not values:
        return ""
    low, high = min(values), max(values)
    pad = max(0.06 * (high - low), 0.5 * (0.05 - (high - low)))  # noise must not fill the plot
    low, high = low - pad, high + pad

    def points(data: Sequence[float]) -> str:
        x = [(a - t[0]) / (t[-1] - t[0]) * (_W - _LEFT - 6) + _LEFT for a in t]
        y = [_TOP + (high - v) / (high - low) * (_H - _BOTTOM - _TOP) for v in data]
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    parts = [_frame(low, high, t[-1] - t[0])]
    for i, joint in enumerate(joints):
        colour = COLOURS[i % len(COLOURS)]
        name = escape(joint["name"])
        for kind, style in (("action", 'stroke-dasharray="3 2" opacity="0.65"'), ("state", "")):
            parts.append(
                f'<polyline points="{points(joint[kind])}" fill="none" stroke="{colour}" '
                f'stroke-width="1.4" {style}><title>{name}, {kind}</title></polyline>'
            )
    legend = "".join(
        f'<span><i style="background:{COLOURS[i % len(COLOURS)]}"></i>{escape(j["name"])}</span>'
        for i, j in enumerate(joints)
    )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_W} {_H}" '
        f'role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )


def _frame(low: float, high: float, seconds: float) -> str:
    parts = []
    for k in range(3):
        y = _TOP + k / 2 * (_H - _BOTTOM - _TOP)
        value = high - k / 2 * (high - low)
        parts.append(f'<line x1="{_LEFT}" x2="{_W - 6}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{value:.2f}</text>')
    for k in range(3):
        x = _LEFT + k / 2 * (_W - _LEFT - 6)
        anchor = ("start", "middle", "end")[k]
        parts.append(
            f'<text x="{x:.1f}" y="{_H - 6}" text-anchor="{anchor}">{k / 2 * seconds:.1f} s</text>'
        )
    return "".join(parts)


def ranges(joints: Sequence[dict[str, Any]]) -> str:
    """Measured range of every joint within its limits, one bar each."""
    rows = []
    for j in joints:
        span = j["upper"] - j["lower"]
        a = max(0.0, min(1.0, (j["state_min"] - j["lower"]) / span))
        b = max(0.0, min(1.0, (j["state_max"] - j["lower"]) / span))
        room = min(j["state_min"] - j["lower"], j["upper"] - j["state_max"])
        near = room < 0.02 * span and j["role"] != "gripper"  # those live at their ends
        text = (
            f"{j['joint']}: {j['state_min']:.3f} to {j['state_max']:.3f}, "
            f"limits {j['lower']:.3f} to {j['upper']:.3f}"
        )
        width = max(0.8, 100 * (b - a))
        rows.append(
            f'<div class="range" title="{escape(text)}"><span>{escape(j["joint"])}</span>'
            f'<div class="track"><div class="{"near" if near else "in"}" '
            f'style="left:{min(100 * a, 99.2):.1f}%;width:{width:.1f}%"></div></div>'
            f"<small>{j['state_min']:.2f} … {j['state_max']:.2f}</small></div>"
        )
    return "".join(rows)
