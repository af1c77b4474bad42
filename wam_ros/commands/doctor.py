"""`wam doctor`: this machine and a running graph."""

from __future__ import annotations

import argparse
import time
from typing import Any

from wam_ros.commands.graph import namespace


def add_parser(sub: Any) -> None:
    """Add doctor."""
    p = sub.add_parser("doctor", help="what is installed, what is missing, what to type")
    p.add_argument("--json", metavar="FILE", help="write the findings to FILE")
    namespace(p)


def _diagnostics(namespace: str) -> dict[str, tuple[int, str]] | None:
    """What a running graph says about itself within three seconds; None without rclpy."""
    try:
        from wam_ros.nodes.client import GraphClient
    except ImportError:
        return None
    client = GraphClient(namespace)
    try:
        end = time.monotonic() + 3.0
        while time.monotonic() < end and len(client.diagnostics) < 3:
            client.spin(0.1)
        return client.diagnostics
    finally:
        client.close()


def run(args: argparse.Namespace) -> int:
    """Report; 1 when something is missing or a running part reports a fault."""
    from wam_ros.doctor import BAD, as_json, examine, graph_findings, report

    findings = examine() + graph_findings(args.namespace, _diagnostics(args.namespace))
    print(report(findings))
    if args.json:
        from wam_ros.jsonfile import write_json

        write_json(args.json, as_json(findings))
    return 1 if any(f.level in BAD for f in findings) else 0
