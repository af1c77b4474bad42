"""`wam status`: both states in one terminal view."""

from __future__ import annotations

from typing import Any

_COLOURS = {"tracking": "green", "holding": "cyan", "running": "green", "ready": "cyan"}


def table(client: Any) -> Any:
    """A rich table of the newest policy, executor and simulation states."""
    from rich.table import Table

    p, e, s = client.policy, client.executor, client.sim
    view = Table(show_header=False, box=None, padding=(0, 2))
    view.add_row("policy", _mark(p.state_name), p.reason)
    view.add_row(
        "", f"{p.backend}, {p.cadence}", f"instruction: {p.instruction or '(none: holding)'}"
    )
    view.add_row(
        "", f"{p.chunks} chunks", f"{p.chunk_rate:.1f} Hz, p95 {p.latency_p95 * 1e3:.0f} ms"
    )
    view.add_row("executor", _mark(e.mode_name), e.reason)
    view.add_row(
        "", f"chunk {e.chunk_sequence}", f"row {e.row_progress:.0f}, {e.buffer_margin:.2f} s left"
    )
    late = f"late p99 {e.lateness_p99 * 1e6:.0f} us, {e.missed_ticks} of {e.ticks} ticks missed"
    view.add_row("", "armed" if e.armed else "[bold red]disarmed[/]", late)
    if s is not None:
        goal = f"{s.distance * 100:.1f} cm to go" if s.task else "no task"
        view.add_row(
            "simulation", f"x{s.real_time_factor:.2f}", "[green]done[/]" if s.success else goal
        )
    return view


def _mark(name: str) -> str:
    return f"[{_COLOURS.get(name, 'yellow')}]{name}[/]"


def render(client: Any) -> None:
    """Print the view once."""
    from rich.console import Console

    Console().print(table(client))


def live(client: Any) -> None:
    """Show the view until Ctrl-C."""
    from rich.live import Live

    with Live(table(client), refresh_per_second=5) as view:
        while True:
            client.spin(0.2)
            view.update(table(client))


def as_json(client: Any) -> dict[str, Any]:
    """The states as plain values, without the header and the joint vectors."""
    result: dict[str, Any] = {}
    for name in ("policy", "executor", "sim"):
        message = getattr(client, name)
        if message is not None:
            fields = message.get_fields_and_field_types()
            values = {f: getattr(message, f) for f in fields}
            result[name] = {
                f: v for f, v in values.items() if isinstance(v, (bool, int, float, str))
            }
    return result
