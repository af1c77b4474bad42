"""One training loop for all stages: AdamW, warm-up and cosine, EMA, curves, stop and go on."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wam_ros.training.ranks import Ranks, local, put

Losses = dict[str, Tensor]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how fast.

    Attributes
    ----------
    steps
        Optimizer steps in all.
    rate
        Peak learning rate; it rises over ``warm_up`` steps, then falls by a cosine to ``floor``
        of it.
    clip
        Largest gradient norm.
    ema
        Decay of the averaged weights, approached as ``(1 + step) / (10 + step)``; 0 keeps none.
    minutes
        Stop after this time, the rate having fallen by then; 0 goes by steps alone.
    save_every
        Steps between saves of the whole state.
    bf16
        Whether forwards run under bfloat16 autocast.
    """

    steps: int
    rate: float = 1e-3
    warm_up: int = 100
    floor: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    minutes: float = 0.0
    log_every: int = 50
    save_every: int = 500
    bf16: bool = False


class Trainer:
    """Trains some parameters of some modules with a loss.

    Parameters
    ----------
    name
        Of the stage; names its files in ``folder``: ``<name>.pt`` (everything needed to go on) and
        ``<name>.jsonl`` (one line per log).
    modules
        What is trained; parameters without gradient are left alone.
    loss
        Called with the step's number; returns named losses, of which ``loss`` is minimised. It must
        draw from generators seeded by the step, so that a resumed run sees what it would have seen.
    ranks
        The processes that train together, or None; the first one logs, each saves its own share.
    upstream
        `digest` of the weights that this stage builds on. A saved state that was built on others is
        not gone on with.
    """

    def __init__(
        self,
        name: str,
        modules: Iterable[nn.Module],
        loss: Callable[[int], Losses],
        plan: Plan,
        folder: Path,
        say: Say = print,
        ranks: Ranks | None = None,
        upstream: str = "",
    ) -> None:
        self._ranks, self._upstream = ranks, upstream
        self.name, self.plan, self.folder, self._say = name, plan, folder, say
        self._modules = list(modules)
        self._loss = loss
        self.parameters = [p for m in self._modules for p in m.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"{name}: nothing to train")
        decay = [p for p in self.parameters if p.ndim > 1]
        plain = [p for p in self.parameters if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": plan.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=plan.rate,
            betas=(0.9, 0.99),
        )
        self.average = [p.detach().clone() for p in self.parameters] if plan.ema else []
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []

    # ------------------------------------------------------------------ running

    def run(self) -> None:
        """Train to the end of the plan, from the saved state if there is one.

        Raises
        ------
        FloatingPointError
            If loss or gradient are not finite; the last saved state stays.
        """
        self._resume()
        sums: dict[str, float] = {}
        count, began = 0, time.monotonic() - self.seconds
        while not self._done():
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate()
            device = self.parameters[0].device.type
            cast = torch.autocast(device, torch.bfloat16) if self.plan.bf16 else nullcontext()
            with cast:
                losses = self._loss(self.step)
            told = {k: self._mean(float(v.detach())) for k, v in losses.items()}
            value = told["loss"]
            if not math.isfinite(value):
                raise self._lost("loss", value)
            self._optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.plan.clip))
            if not math.isfinite(norm):
                raise self._lost("gradient", norm)
            self._optimizer.step()
            self._follow()
            self.step += 1
            self.seconds = self._agree(time.monotonic() - began)
            for key, item in told.items():
                sums[key] = sums.get(key, 0.0) + item
            count += 1
            if self.step % self.plan.log_every == 0 or self._done():
                self._log({k: v / count for k, v in sums.items()})
                sums, count = {}, 0
            if self.step % self.plan.save_every == 0:
                self.save()
        self.save()

    def _lost(self, what: str, value: float) -> FloatingPointError:
        return FloatingPointError(
            f"{self.name}: {what} {value} at step {self.step}; a lower --rate may help, the same "
            f"command goes on from the last saved state in {self.folder}"
        )

    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        with torch.no_grad():
            for p, a in zip(self.parameters, self.average):
                p.copy_(a)

    def _mean(self, value: float) -> float:
        return value if self._ranks is None else self._ranks.mean(value)

    def _agree(self, value: float) -> float:
        """The first rank's clock decides, or some would stop a step before the others."""
        return value if self._ranks is None else self._ranks.agree(value)

    def _progress(self) -> float:
        share = self.step / self.plan.steps
        if self.plan.minutes:
            share = max(share, self.seconds / (60.0 * self.plan.minutes))
        return min(share, 1.0)

    def _done(self) -> bool:
        return self._progress() >= 1.0

    def _rate(self) -> float:
        p = self.plan
        if self.step < p.warm_up:
            return p.rate * (self.step + 1) / p.warm_up
        return p.rate * (p.floor + (1 - p.floor) * 0.5 * (1 + math.cos(math.pi * self._progress())))

    @torch.no_grad()
    def _follow(self) -> None:
        if not self.average:
            return
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    # ------------------------------------------------------------------ files

    @property
    def state_file(self) -> Path:
        """Where the state is saved; with several ranks, this one's share of it."""
        share = "" if self._ranks is None else f".{self._ranks.rank}of{self._ranks.world}"
        return self.folder / f"{self.name}{share}.pt"

    def _log(self, means: dict[str, float]) -> None:
        if self._ranks is not None and not self._ranks.first:
            return
        line: dict[str, float] = {"step": self.step, "seconds": round(self.seconds, 1), **means}
        self.curve.append(line)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{self.name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        shown = "  ".join(f"{k} {v:.4g}" for k, v in means.items())
        pace = self.step / max(self.seconds, 1e-9)
        share = f"{100 * self._progress():3.0f} %"
        self._say(f"{self.name:10s} {share}  step {self.step}  {shown}  ({pace:.1f} steps/s)")

    def save(self) -> None:
        """Write the whole state; a killed run goes on from here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        optimizer = self._optimizer.state_dict()
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "upstream": self._upstream,
            "parameters": [local(p.detach()) for p in self.parameters],
            "average": [local(a) for a in self.average],
            "optimizer": {**optimizer, "state": _each(optimizer["state"], lambda x, _: local(x))},
        }
        part = self.state_file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.state_file)

    def _resume(self) -> None:
        if not self.state_file.is_file():
            others = sorted(p.name for p in self.folder.glob(f"{self.name}.*of*.pt"))
            if self._ranks is not None and others:
                raise ValueError(
                    f"{self.folder} holds {others[0]}: go on with as many processes, "
                    "or choose another folder"
                )
            return
        state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        before = state.get("upstream", "")
        if before and self._upstream and before != self._upstream:
            self._say(f"{self.name}: what it builds on was trained on since; it begins anew")
            (self.folder / f"{self.name}.jsonl").unlink(missing_ok=True)
            return
        shapes = [tuple(p.shape) for p in state["parameters"]]
        if shapes != [tuple(local(p).shape) for p in self.parameters]:
            raise ValueError(
                f"{self.state_file} was written by a model of another shape; "
                "remove it or choose another folder"
            )
        with torch.no_grad():
            for p, saved in zip(self.parameters, state["parameters"]):
                local(p).copy_(saved)
            for a, saved in zip(self.average, state["average"]):
                local(a).copy_(saved)
        optimizer = state["optimizer"]
        order = self._in_order
        optimizer["state"] = _each(optimizer["state"], lambda x, i: put(x, order[i]))
        self._optimizer.load_state_dict(optimizer)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._say(f"{self.name}: going on at step {self.step}")

    @property
    def _in_order(self) -> list[Tensor]:
        """Parameters as the optimizer numbers them."""
        return [p for group in self._optimizer.param_groups for p in group["params"]]


def digest(*modules: nn.Module) -> str:
    """Short name of the modules' weights."""
    known = hashlib.blake2b(digest_size=8)
    for module in modules:
        for value in module.state_dict().values():
            known.update(value.detach().float().cpu().numpy().tobytes())
    return known.hexdigest()


def _each(
    state: Mapping[int, Mapping[str, Any]], change: Callable[[Tensor, int], Tensor]
) -> dict[int, dict[str, Any]]:
    """An optimizer's state with every tensor changed."""
    return {
        i: {k: change(v, i) if isinstance(v, Tensor) else v for k, v in entry.items()}
        for i, entry in state.items()
    }
