"""Guidance branches on two ranks: same actions, and a lost rank is an error, not a hang."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wam_ros.wam import synthetic
from wam_ros.wam.distributed import Pair
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead
from wam_ros.wam.savings import Savings
from wam_ros.wam.wire import PeerError

FACTORY = "wam_ros.wam.synthetic:random_dit"
HANG_S = 240  # far above any deadline used here, on a busy machine too: only a hang gets there


@pytest.fixture
def bounded() -> Iterator[None]:
    """Turn a hang of a test into a failure."""

    def expire(*_: object) -> None:
        raise AssertionError("hung")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pair(savings: Savings, **arguments: object) -> Pair:
    return Pair(FACTORY, {"size": "tiny", **arguments}, savings, threads=1)


def head(savings: Savings, peers: Pair | None = None) -> PolicyHead:
    config = synthetic.config_of("tiny")
    text, image, vae = synthetic.random_encoders(config, torch.float32)
    dit = synthetic.random_dit("tiny")
    branches = peers.branches(dit, savings) if peers else None
    negative = synthetic.prompt(config, 1)
    return PolicyHead(config, dit, text, image, vae, negative, savings, branches)


def unbatched(savings: Savings) -> Savings:
    """In a batch of two the sums may run in another order; two ranks run batches of one."""
    return dataclasses.replace(savings, batched_cfg=False)


def call(policy: PolicyHead, k: int, options: CallOptions, prompt: int = 2) -> CallResult:
    c = policy.config
    images = synthetic.clip(c, 8 if k else 1, 8 * k)
    return policy.call(images, *synthetic.prompt(c, prompt), synthetic.state(c, k), options)


@pytest.mark.parametrize("name", ["none", "all"])
def test_two_ranks_give_the_actions_of_one_bit_for_bit(name: str, bounded: None) -> None:
    savings = getattr(Savings, name)()
    one = head(unbatched(savings))
    with pair(savings) as peers:
        two = head(savings, peers)
        for k in range(6):  # a whole window, its reset, and a new instruction
            prompt = 2 if k < 5 else 3
            options = CallOptions(4, 4, want_video=k % 2 == 0)
            a, b = call(one, k, options, prompt), call(two, k, options, prompt)
            assert torch.equal(a.action, b.action), k
            assert a.reset == b.reset
            if a.video is not None:
                assert b.video is not None
                assert torch.equal(a.video, b.video)
            assert torch.equal(one.branches.past(1, True), two.branches.past(1, True))
    # Both are gone without force, and nothing stands in the way of the next pair.
    assert peers.process.returncode == 0
    assert not torch.distributed.is_initialized()
    peers.close()


def test_guidance_comes_from_the_other_rank_and_only_what_changed_travels(bounded: None) -> None:
    savings = Savings.all()
    with pair(savings, seed=1) as peers:
        two = head(savings, peers)
        sizes = []
        for k, steps in enumerate((1, 1, 4)):
            before = peers.link.sent_bytes
            call(two, k, CallOptions(steps, want_video=False))
            sizes.append(peers.link.sent_bytes - before)
        c = two.config.dit
        # Prompt and image features travel with a new window only.
        context = 4 * (c.text_len * c.text_dim + c.image_tokens * c.image_dim)
        assert sizes[0] > context > sizes[1]
        # One step needs no unconditional forward: a prefill is all that is sent. Of four, three do.
        latents = 4 * c.num_frame_per_block * c.out_dim * 4 * c.frame_seqlen
        assert 3 * latents < sizes[2] - sizes[1] < 8 * latents
        # The other rank was given other weights here; the actions of a first step cannot tell.
        one = head(unbatched(savings))
        a, b = (call(h, 0, CallOptions(1)) for h in (one, two))
        assert torch.equal(a.action, b.action)
        assert not torch.equal(a.video, b.video)


def test_a_killed_rank_is_a_named_error(bounded: None) -> None:
    savings = Savings.all()
    with pair(savings) as peers:
        two = head(savings, peers)
        branches: Any = two.branches
        call(two, 0, CallOptions(2, 2))
        original, count = branches._own.denoise, [0]

        def kill_during_the_second(*args: object) -> object:
            count[0] += 1
            if count[0] == 2:
                os.kill(peers.process.pid, signal.SIGKILL)
                peers.process.wait()
            return original(*args)  # type: ignore[arg-type]

        branches._own.denoise = kill_during_the_second
        with pytest.raises(PeerError, match=r"rank 1 .*killed by signal 9"):
            for k in range(1, 3):
                call(two, k, CallOptions(4, 4))
        with pytest.raises(PeerError, match="close and restart"):
            call(two, 3, CallOptions(4, 4))


def test_a_stuck_rank_is_an_error_within_the_deadline(bounded: None) -> None:
    savings = Savings.all()
    with pair(savings) as peers:
        two = head(savings, peers)
        branches: Any = two.branches
        call(two, 0, CallOptions(2, 2))
        branches.deadline_s = 0.5
        os.kill(peers.process.pid, signal.SIGSTOP)
        with pytest.raises(PeerError, match=r"rank 1 did not .*within 0\.5 s; .*still alive"):
            call(two, 1, CallOptions(2, 2))


def test_a_failing_rank_says_why(bounded: None) -> None:
    savings = Savings.all()
    with pair(savings, layers=1) as peers:
        two = head(savings, peers)
        branches: Any = two.branches
        call(two, 0, CallOptions(2, 2))
        with pytest.raises(PeerError, match="rank 1 failed: IndexError"):
            branches.past(1, uncond=True)


def test_a_child_that_cannot_start_says_why(bounded: None) -> None:
    with pytest.raises(PeerError, match=r"rank 1 did not start.*no size 'huge'"):
        pair(Savings.all(), size="huge")


def test_a_child_that_takes_too_long_is_given_up(bounded: None) -> None:
    with pytest.raises(PeerError, match=r"rank 1 did not start within 0\.2 s; .*still alive"):
        Pair(FACTORY, {"size": "tiny"}, Savings.all(), startup_s=0.2)


PARENT = """
import os
from wam_ros.wam.distributed import Pair
from wam_ros.wam.savings import Savings
if __name__ == "__main__":
    pair = Pair("wam_ros.wam.synthetic:random_dit", {"size": "tiny"}, Savings.all(), threads=1)
    print(pair.process.pid, flush=True)
    os._exit(9)
"""


def test_the_child_does_not_outlive_its_parent(bounded: None) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.run(
        [sys.executable, "-c", PARENT], env=environment, capture_output=True, text=True
    )
    assert parent.returncode == 9, parent.stderr
    status = Path(f"/proc/{int(parent.stdout)}/status")
    while status.exists() and "State:\tZ" not in status.read_text():
        time.sleep(0.05)  # until gone or, at worst, until the test is stopped
