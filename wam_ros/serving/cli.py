"""``wam serve``: offer a policy to another process or machine.

It needs no ROS: ``python -m wam_ros.serving.cli serve franka_droid --policy wam …`` works in an
environment that has torch and none of it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import ipaddress
import logging
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from wam_ros.children import stop_with_supervisor

DIALECTS = ("native", "roboarena")
_NEEDS = {
    "websockets": "websockets>=15",
    "msgpack": "msgpack",
    "yaml": "pyyaml",
    "numpy": "numpy",
    "jsonschema": "jsonschema",
    "cv2": "opencv-python-headless",
}


def add_parser(sub: Any) -> None:
    """Add the sub-command; imports nothing heavy."""
    p = sub.add_parser("serve", help="offer a policy over a WebSocket; needs no ROS")
    p.add_argument("robot", help="a shipped robot or a contract file")
    p.add_argument("--policy", default="hold", help="backend to host (default: hold)")
    p.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="launch argument of the backend, for example replay_file=run.npz (repeatable)",
    )
    p.add_argument(
        "--dialect",
        choices=DIALECTS,
        default="native",
        help="native serves every robot; roboarena is what DreamZero's evaluators speak (DROID)",
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this one)")
    p.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    p.add_argument("--token-file", type=Path, help="clients must send the token in this file")
    p.add_argument("--cert", type=Path, help="TLS certificate (PEM); with --key serves wss://")
    p.add_argument("--key", type=Path, help="TLS private key (PEM)")
    p.add_argument(
        "--allow-anyone",
        action="store_true",
        help="listen beyond this machine without a token: whoever reaches the port uses the model",
    )
    p.add_argument("--max-mib", type=float, default=64.0, help="largest request (default: 64)")
    p.add_argument("--call-timeout", type=float, default=60.0, help="s per request (default: 60)")
    p.add_argument(
        "--idle-timeout", type=float, default=0.0, help="s without a request (default: no limit)"
    )
    p.add_argument(
        "--keep-alive",
        type=_positive,
        default=15.0,
        metavar="S",
        help="a client that vanished without a word is noticed within S seconds (default: 15)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; 0 then, 1 when the model failed, 2 on wrong usage."""
    missing = [n for n in _NEEDS if importlib.util.find_spec(n) is None]
    if missing:
        names = " ".join(f"'{_NEEDS[n]}'" for n in missing)
        return _wrong(f"{', '.join(missing)} not installed here; type: pip install {names}")
    from wam_ros.contract import ContractError, load_contract
    from wam_ros.policy.base import PolicyError
    from wam_ros.policy.registry import make

    try:
        contract = load_contract(args.robot)
        options = dict(_pair(o) for o in args.option)
        token, tls = _token(args), _tls(args)
        policy = make(args.policy, options)
    except (ContractError, PolicyError, ValueError, OSError) as err:
        return _wrong(str(err))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(args, policy, contract, token, tls))
    except OSError as err:
        return _wrong(f"cannot listen on {args.host}:{args.port}: {err}")
    except Exception as err:
        print(f"wam serve: {type(err).__name__}: {err}", file=sys.stderr)
        return 1
    finally:
        # A terminal's Ctrl-C comes twice under `ros2 launch`; asyncio took its handler back.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        policy.close()
    return 0


async def _serve(
    args: argparse.Namespace, policy: Any, contract: Any, token: str, tls: Any
) -> None:
    from wam_ros.policy.fit import view_note
    from wam_ros.serving.dialect import Dialect
    from wam_ros.serving.native import NativeDialect
    from wam_ros.serving.roboarena import RoboArenaDialect, announced
    from wam_ros.serving.server import Limits, PolicyServer

    max_bytes = int(args.max_mib * 1024 * 1024)

    def load() -> Any:
        policy.configure(contract)
        note = view_note(contract, getattr(policy, "view_size", None))
        if note and args.dialect == "native":  # the other dialect announces the model's own size
            logging.getLogger("wam.serve").warning(note)
        dialect: Dialect
        if args.dialect == "roboarena":
            dialect = RoboArenaDialect(policy, contract, announced(policy), max_bytes)
        else:
            dialect = NativeDialect(policy, contract, max_bytes)
        policy.warm_up()
        return dialect

    limits = Limits(
        max_bytes=max_bytes,
        call=args.call_timeout,
        idle=args.idle_timeout,
        keep_alive=args.keep_alive,
    )
    server = PolicyServer(load, limits, token, tls)
    loop = asyncio.get_running_loop()
    for received in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(received, server.stop)
    stop_with_supervisor()

    def ready(running: PolicyServer) -> None:
        scheme = "wss" if tls else "ws"
        print(
            f"ready: {scheme}://{args.host}:{running.port} serves {policy.model} for "
            f"{contract.robot} in the {args.dialect} dialect, one session at a time",
            flush=True,
        )

    await server.run(args.host, args.port, ready)
    if server.busy:  # Python would wait for the model's thread, and loading may take minutes
        logging.getLogger("wam.serve").info("ended while the model was at work")
        os._exit(0)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0 seconds")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--option {text}: write NAME=VALUE")
    return name, value


def _token(args: argparse.Namespace) -> str:
    """The token; ValueError when the server would be open to others without one."""
    if args.token_file is None:
        if not _loopback(args.host) and not args.allow_anyone:
            raise ValueError(
                f"--host {args.host} lets other machines in: add --token-file FILE, "
                "or --allow-anyone on a network you trust"
            )
        return ""
    token = str(args.token_file.read_text(encoding="utf-8")).strip()
    if not token:
        raise ValueError(f"--token-file {args.token_file} is empty")
    return token


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.cert is None and args.key is None:
        return None
    if args.cert is None or args.key is None:
        raise ValueError("TLS needs both --cert and --key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.cert, args.key)
    return context


def _wrong(message: str) -> int:
    print(f"wam serve: {message}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Entry point without the rest of the package's commands."""
    top = argparse.ArgumentParser(prog="python -m wam_ros.serving.cli", description=__doc__)
    add_parser(top.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return run(top.parse_args(argv))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # torch takes seconds to take itself apart; `ros2 launch` kills what has not ended after five.
    os._exit(code)
