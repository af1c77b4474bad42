"""The quality report: report.html for a person, report.json for a program."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from wam_ros.recording import svg
from wam_ros.recording.rules import Limits

_STYLE = Path(__file__).with_name("report.css")
DETAILED = 100
"""Episodes in detail on the page: each takes 0.15 MB, and a page of thousands nobody can open."""
_HIDDEN = ("thumbnails", "series", "contract", "folder", "pixels")


def write_report(summaries: Sequence[dict[str, Any]], out: Path, limits: Limits) -> None:
    """Write both files into ``out``; the page needs nothing else, not even a network."""
    plain = [{k: v for k, v in s.items() if k not in _HIDDEN} for s in summaries]
    value = {"total": totals(summaries), "episodes": plain}
    (out / "report.json").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (out / "report.html").write_text(page(summaries, out.name, limits), encoding="utf-8")


def totals(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all bags; seconds and rows of accepted episodes only."""
    kept = [s for s in summaries if not s["refused"]]
    figures = [s["figures"] for s in kept]
    seconds = sum(f["duration_s"] for f in figures)
    return {
        "bags": len(summaries),
        "accepted": len(kept),
        "refused": len(summaries) - len(kept),
        "success": sum(s.get("verdict") == "success" for s in kept),
        "seconds": round(seconds, 1),
        "rows": sum(f["rows"] for f in figures),
        "tasks": len({t for s in kept for t in s.get("tasks", ())}),
        "flagged": sum(bool(f["flags"]) for f in figures),
        "excluded_anchors": sum(len(s["excluded"]) for s in kept),
        "idle_share": _weighted(figures, "idle_share", seconds),
        "human_share": _weighted(figures, "human_share", seconds),
    }


def _weighted(figures: list[dict[str, Any]], key: str, seconds: float) -> float:
    if not seconds:
        return 0.0
    return round(sum(f[key] * f["duration_s"] for f in figures) / seconds, 4)


def page(summaries: Sequence[dict[str, Any]], title: str, limits: Limits) -> str:
    """The whole page as text."""
    t = totals(summaries)
    tiles = (
        (t["accepted"], f"of {t['bags']} recordings accepted"),
        (t["success"], "judged a success"),
        (f"{t['seconds'] / 60:.1f} min", f"{t['rows']} rows"),
        (t["tasks"], "instructions"),
        (f"{t['idle_share']:.0%}", "idle"),
        (f"{t['human_share']:.0%}", "commanded by a person"),
        (t["flagged"], "episodes with flags"),
    )
    robots = ", ".join(sorted({s["robot"] for s in summaries if "robot" in s}))
    boxes = "".join(f'<div class="tile"><b>{v}</b><small>{k}</small></div>' for v, k in tiles)
    shown = chosen(summaries)
    horizon = next((s["horizon"] for s in summaries if "horizon" in s), 24)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Quality of {escape(title)}</title>"
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        f'<h1>Quality of {escape(title)}</h1><div class="soft">{escape(robots)}</div>'
        f'<div class="tiles">{boxes}</div>'
        '<details class="rules"><summary>When is an episode refused, and what do flags mean?'
        f"</summary><pre>{escape(limits.text(horizon))}</pre></details>"
        f"{_left_out(len(summaries), len(shown))}{_table(summaries, shown)}"
        f"{''.join(_episode(i, summaries[i]) for i in sorted(shown))}"
        "</main></body></html>"
    )


def chosen(summaries: Sequence[dict[str, Any]], most: int = DETAILED) -> set[int]:
    """Indices of the episodes to show in detail: refused, flagged, and a sample of the others.

    Refused ones come first, then flagged ones; what room is left is spread evenly over the rest.
    """
    groups: tuple[list[int], ...] = ([], [], [])
    for i, s in enumerate(summaries):
        flagged = bool((s.get("figures") or {}).get("flags"))
        groups[0 if s["refused"] else 1 if flagged else 2].append(i)
    found: set[int] = set()
    for group in groups:
        room = min(most - len(found), len(group))
        found.update(group[k * len(group) // room] for k in range(room))
    return found


def _left_out(total: int, shown: int) -> str:
    if shown == total:
        return ""
    return (
        f'<p class="soft">Pictures and curves of {shown} of {total} recordings: refused and '
        "flagged ones first, then an even sample of the others. The figures of all are in "
        "report.json.</p>"
    )


def _table(summaries: Sequence[dict[str, Any]], shown: set[int]) -> str:
    heads = (
        ("", "episode", ""), ("", "instruction", ""), ("", "verdict", "who or what judged it"),
        ("n", "duration", "of the rows"), ("n", "idle", "share of the time without motion"),
        ("n", "spikes", "steps of an action beyond 1.5 times the velocity limit"),
        ("n", "jerk p95", "of the measured joints, rad/s\u00b3"),
        ("n", "skew p99", "newest minus oldest sample of a row"),
        ("n", "gaps", "runs of rows without a usable observation or command"),
        ("n", "lag", "from a command to the motion it causes"), ("", "outcome", ""),
    )  # fmt: skip
    rows = []
    for i, s in enumerate(summaries):
        f = s.get("figures")
        cells = ["–"] * 7
        if f:
            lag = f["command_lag_ms"]
            cells = [
                f"{f['duration_s']:.1f} s", f"{f['idle_share']:.0%}", str(len(f["spikes"])),
                f"{f['jerk_p95']:.0f}", f"{f['skew_p99_ms']:.0f} ms", str(len(f["gaps"])),
                f"{lag:.0f} ms" if lag is not None else "–",
            ]  # fmt: skip
        numbers = "".join(f'<td class="n">{c}</td>' for c in cells)
        name = _name(s["bag"])
        name = f'<a href="#e{i}">{name}</a>' if i in shown else name
        rows.append(
            f'<tr><td class="wide">{name}</td>'
            f'<td class="wide">{escape(s.get("instruction", ""))}</td>'
            f"<td>{_tag(s.get('verdict', 'none'))}</td>{numbers}<td>{_outcome(s)}</td></tr>"
        )
    head = "".join(f'<th class="{c}" title="{escape(t)}">{h}</th>' for c, h, t in heads)
    return (
        f'<section><div class="scroll"><table id="episodes"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _name(bag: str) -> str:
    """A bag's name that may break after its underscores instead of inside a word."""
    return escape(bag).replace("_", "_<wbr>")


def _tag(kind: str, text: str = "") -> str:
    return f'<span class="tag {escape(kind)}">{escape(text or kind)}</span>'


def _outcome(s: dict[str, Any]) -> str:
    if s["refused"]:
        return _tag("refused")
    flags = (s.get("figures") or {}).get("flags", ())
    label = f"{len(flags)} flag{'s' if len(flags) != 1 else ''}"
    return _tag("accepted") + (f" {_tag('flags', label)}" if flags else "")


def _episode(number: int, s: dict[str, Any]) -> str:
    f = s.get("figures")
    index = s.get("episode_index")
    where = f"episode {index}" if index is not None else "not in the data set"
    parts = [
        f'<section id="e{number}"><div class="head"><h2>{_name(s["bag"])}</h2>'
        f"{_tag(s.get('verdict', 'none'))}{_outcome(s)}<small>{where}</small></div>"
        f"<div>“{escape(s.get('instruction', ''))}”"
        f"{'  <small>' + escape(s['note']) + '</small>' if s.get('note') else ''}</div>"
    ]
    parts += [f'<div class="flag no"><b>Refused: {escape(r)}</b></div>' for r in s["refused"]]
    parts += [f'<div class="flag">{escape(r)}</div>' for r in _remarks(s)]
    if not f:
        return "".join(parts) + "</section>"
    parts += [
        f'<div class="flag"><b>{escape(x["what"])}</b>{escape(x["why"])} '
        f"<i>{escape(x['todo'])}</i></div>"
        for x in f["flags"]
    ]
    shots = [x for x in s.get("thumbnails", ()) if x]
    step = f["duration_s"] / max(1, len(shots) - 1)
    parts.append(
        '<div class="strip">'
        + "".join(
            f'<figure><img alt="views at {i * step:.1f} s" src="data:image/jpeg;base64,{x}">'
            f"<figcaption>{i * step:.1f} s</figcaption></figure>"
            for i, x in enumerate(shots)
        )
        + "</div>"
    )
    series = s.get("series") or {"t": [], "groups": []}
    plots = [svg.lines(series["t"], g["joints"], g["name"]) for g in series["groups"]]
    parts.append(
        "<h3>Joints: measured (solid) and commanded (dashed); rad, m, grippers 0 to 1</h3>"
    )
    parts.append(f'<div class="plots">{"".join(plots)}</div>')
    parts.append("<h3>Range used, within the limits of the contract (amber: next to a limit)</h3>")
    parts.append(f'<div class="ranges">{svg.ranges(f["joints"])}</div>')
    parts.append(_sources(f))
    return "".join(parts) + "</section>"


def _remarks(s: dict[str, Any]) -> list[str]:
    """Remarks of the rules; a gap has its own flag and is not said twice."""
    return [r for r in s["remarks"] if not re.match(r"\d+ short gaps?, longest", r)]


def _sources(f: dict[str, Any]) -> str:
    heads = (
        "source", "messages", "rate", "mean rate", "longest gap", "jitter p95", "delay", "old",
    )  # fmt: skip
    rows = []
    for name, s in {**f["sources"], **f["commands"]}.items():
        gap = s["longest_gap_s"]
        cells = (
            s["messages"], f"{s['rate_hz']:.1f} Hz", f"{s.get('mean_rate_hz', 0):.1f} Hz",
            f"{gap * 1e3:.0f} ms" if gap is not None else "–",
            f"{s.get('jitter_p95_ms', 0):.1f} ms", f"{s.get('delay_p50_ms', 0):.1f} ms",
            s.get("out_of_order", 0),
        )  # fmt: skip
        numbers = "".join(f'<td class="n">{c}</td>' for c in cells)
        rows.append(f"<tr><td>{escape(name)}</td>{numbers}</tr>")
    head = "".join(f'<th class="{"n" if i else ""}">{h}</th>' for i, h in enumerate(heads))
    return (
        "<details><summary>Sources: rates, gaps, delays</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div></details>"
    )
