"""Rank 1: the process that runs the unconditional branch. Started by `distributed.Pair`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from wam_ros.wam.branches import Prefill, Step
from wam_ros.wam.distributed import READY, BranchRank
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.head import apply_savings
from wam_ros.wam.savings import Savings
from wam_ros.wam.wire import Kind, Link, Message, PeerError

# A robot may rest for as long as it likes; if rank 0 dies, the connection closes at once.
_FOREVER_S = 365 * 24 * 3600.0


def checkpoint_dit(
    folder: str,
    base: str | None = None,
    device: str = "cpu",
    dtype: str = "bfloat16",
    precision: str = "bf16",
) -> CausalDiT:
    """The transformer of a checkpoint, without the encoders."""
    from pathlib import Path

    from wam_ros.wam.checkpoint.load import build, fill
    from wam_ros.wam.checkpoint.survey import survey
    from wam_ros.wam.precision import prepare

    found = survey(Path(folder), Path(base) if base else None)
    found.raise_if_bad()
    dit = build(found.config).dit
    prepare(dit, precision)
    fill(found, {"dit": dit}, device, getattr(torch, dtype))
    return dit


@torch.no_grad()
def serve(dit: CausalDiT, savings: Savings, link: Link) -> None:
    """Do what rank 0 asks until it says stop or goes away."""
    rank = BranchRank(dit, savings)
    while True:
        try:
            message = link.receive(_FOREVER_S)
        except PeerError:
            return
        if message.kind == Kind.STOP:
            return
        try:
            answer = _handle(rank, message)
        except Exception as error:
            text = f"{type(error).__name__}: {error}".encode()
            link.send(Kind.FAILED, (torch.tensor(list(text), dtype=torch.uint8),))
            raise
        if answer is not None:
            link.send(Kind.ANSWER, (answer,))


def _handle(rank: BranchRank, message: Message) -> torch.Tensor | None:
    """Run one request; returns what is to be answered."""
    first, second = message.numbers
    if message.kind == Kind.CONDITION:
        text, clip = message.tensors[:2]
        assert text is not None and clip is not None
        rank.condition(lambda: text, clip)
    elif message.kind == Kind.RESET:
        rank.cache.clear()
    elif message.kind == Kind.PREFILL:
        x, y, t = message.tensors[:3]
        assert x is not None and t is not None
        rank.prefill(Prefill(x, y, t, first))
    elif message.kind == Kind.DENOISE:
        x, y, t, action, t_action, state = message.tensors
        assert x is not None and t is not None and action is not None
        assert t_action is not None and state is not None
        step = Step(x, y, t, action, t_action, state, first)
        video, velocity = rank.denoise(step, bool(second))
        # Without a video there is nothing rank 0 could use, but it waits for an answer.
        return video if video is not None else velocity
    elif message.kind == Kind.PAST:
        return rank.cache.past(first)
    return None


def _end_with(parent: int) -> None:
    """Exit as soon as the process that started us is gone, also in the midst of loading."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(argument: str) -> int:
    """Load the model, join rank 0, serve."""
    spec = json.loads(argument)
    threading.Thread(target=_end_with, args=(spec["parent"],), daemon=True).start()
    torch.set_num_threads(spec["threads"])
    module, _, name = spec["factory"].partition(":")
    dit = getattr(importlib.import_module(module), name)(**spec["arguments"])
    savings = Savings(**{**spec["savings"], "batched_cfg": False})
    apply_savings(dit, savings)
    limit = timedelta(seconds=spec["startup_s"])
    store = dist.TCPStore("127.0.0.1", spec["port"], 2, False, limit)
    store.set(READY, "1")
    dist.init_process_group("gloo", store=store, rank=1, world_size=2, timeout=limit)
    serve(dit, savings, Link(0, dit.patch_embedding.weight.device))
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
