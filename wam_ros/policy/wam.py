"""The World-Action Model in this process; torch is imported when it is configured."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Afterthought, PolicyError, Window, device_lost
from wam_ros.policy.fit import differences

CONTEXT_RESET = 1
_QUANTISED = ("fp8", "int8", "nvfp4")
_PRECISIONS = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"} | dict.fromkeys(
    _QUANTISED, "bfloat16"
)
"""What is kept in which type; of the quantised ones, all but the transformer's large linears."""


def wants_video(options: Any) -> bool:
    """Whether imagining the video to its end is cheap: one forward in ten of a call, at most.

    Actions need no unconditional pass in the last step (none at all in one-step operation), the
    video does: 1 forward on top of 17 with 8 transformer steps, 2 on top of 2 with one. A schedule
    that leaves noise on the video shows nothing worth the work.

    Parameters
    ----------
    options
        The `CallOptions` of a call.
    """
    from wam_ros.wam.skipping import static_steps

    if options.final_noise > 0.0:
        return False
    if options.guidance == 1.0 or options.dynamic:
        return True
    n = len(static_steps(options.steps, options.dit_steps))
    without = 1 + n + (n if n > 1 else 0)  # prefills and denoising forwards
    return 2 * (n + 1) - without <= 0.1 * without


def _out_of_memory(err: BaseException) -> bool:
    return type(err).__name__ == "OutOfMemoryError" and not device_lost(err)


def _line(err: BaseException) -> str:
    return (str(err).splitlines() or [""])[0]


class WamPolicy:
    """Hosts a checkpoint.

    Parameters
    ----------
    options
        ``checkpoint`` (folder in the released layout), ``base`` (for LoRA checkpoints),
        ``tokenizer`` (folder; the checkpoint's own by default), ``device`` (``auto``, ``cuda``,
        ``cuda:1``, ``cpu``), ``precision`` (``bf16``, ``fp32``, ``fp16``, or the transformer in
        ``fp8``, ``int8`` or ``nvfp4`` and the rest in bf16; ``auto`` takes bf16 on a GPU and fp32
        on a CPU), ``frames`` (per call: 4, 8 or 9; 0: the checkpoint's), ``steps`` (0: the
        checkpoint's), ``ranks`` (2: guidance on two devices, the second in a child process;
        ``device`` may name both with a comma), ``imagined_video`` (``true``, ``false``, or
        ``auto``: see `wants_video`; false by default).
    """

    name = "wam"
    needs_objects = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        if not options.get("checkpoint"):
            raise PolicyError("policy wam needs checkpoint:=FOLDER")
        self._folder = Path(str(options["checkpoint"])).expanduser()
        self._base = str(options.get("base", "")) or None
        self._tokenizer_folder = str(options.get("tokenizer", ""))
        self._device = str(options.get("device", "auto") or "auto")
        self.precision = str(options.get("precision", "auto") or "auto")
        if self.precision not in ("auto", *_PRECISIONS):
            known = ", ".join(_PRECISIONS)
            raise PolicyError(f"precision:={self.precision} is not auto, {known}")
        self._frames = int(options.get("frames", 0) or 0)
        self._steps = int(options.get("steps", 0))
        self._ranks_wanted = int(options.get("ranks", 1) or 1)
        self._ranks: Any = None
        self._video = str(options.get("imagined_video", "false") or "false").lower()
        if self._video not in ("auto", "true", "false"):
            raise PolicyError(f"imagined_video:={self._video} is not auto, true or false")
        self.model = self._folder.name
        self.frame_rows: tuple[int, ...] = (0,)
        self.view_size: tuple[int, int] | None = None
        """(height, width) that the checkpoint takes every camera at."""
        self.context_fill = 0.0
        self.seconds: dict[str, float] = {}
        self._session: Any = None
        self._thought: Afterthought | None = None
        self._last_t0 = -math.inf
        self._rows = 0.0

    # ---- loading -------------------------------------------------------------------------------

    def configure(self, contract: Contract) -> None:
        """Load the checkpoint and compare it with the contract.

        Raises
        ------
        PolicyError
            torch is missing, the checkpoint is damaged, or contract and checkpoint differ; names
            both values of everything that differs.
        """
        try:
            import torch

            from wam_ros.wam.adapter import Adapter
            from wam_ros.wam.savings import Savings
        except ImportError as err:
            raise PolicyError(
                f"policy wam needs {err.name}, which this Python does not have; "
                "pip install 'wam_ros[wam]', or run `wam serve` in an environment that has it"
            ) from err
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.precision == "auto":
            self.precision = "fp32" if device.startswith("cpu") else "bf16"
        savings = dataclasses.replace(Savings.all(), batched_cfg=False)
        try:
            tokenizer = self._tokenizer()
            loaded = self._load(device, savings)
            adapter = Adapter.of(
                loaded.config, loaded.metadata or {}, contract.embodiment, loaded.experiment
            )
        except (ValueError, OSError) as err:
            raise PolicyError(f"{self._folder}: {err}") from err
        except RuntimeError as err:
            if not _out_of_memory(err):
                raise
            raise PolicyError(
                f"{self._folder.name} does not fit on {device} in {self.precision}: "
                f"{_line(err)} Free the GPU of other programs{self._smaller()}"
            ) from err
        found = differences(contract, adapter)
        if found:
            raise PolicyError(
                f"{self._folder.name} does not fit the contract of {contract.robot}: "
                + "; ".join(found)
            )
        self._contract, self._adapter, self._torch = contract, adapter, torch
        self._begin(loaded, tokenizer, savings)

    def _load(self, device: str, savings: Any) -> Any:
        """The checkpoint; with two ranks the other one loads its part at the same time."""
        import torch

        from wam_ros.policy.ranks import Ranks, devices
        from wam_ros.wam.checkpoint.load import load

        own, *others = devices(device, self._ranks_wanted)
        dtype = _PRECISIONS[self.precision]
        precision = self.precision if self.precision in _QUANTISED else "bf16"

        def work() -> Any:
            return load(self._folder, self._base, own, getattr(torch, dtype), precision=precision)

        if not others:
            return work()
        arguments = {
            "folder": str(self._folder), "base": self._base, "device": others[0], "dtype": dtype,
            "precision": precision,
        }  # fmt: skip
        self._ranks = Ranks(arguments, savings, own)
        return self._ranks.alongside(work)

    def _smaller(self) -> str:
        """A way out of lacking memory, where there is one."""
        return "" if self.precision in _QUANTISED else ", or load the model with precision:=fp8"

    def _tokenizer(self) -> Any:
        from wam_ros.wam.text import Tokenizer

        if self._tokenizer_folder:
            return lambda length: Tokenizer(self._tokenizer_folder, length)
        try:
            folder = Tokenizer.beside(self._folder)
        except FileNotFoundError as err:
            raise FileNotFoundError(f"{err}, with tokenizer:=FOLDER") from err
        return lambda length: Tokenizer(folder, length)

    def _begin(self, loaded: Any, make_tokenizer: Any, savings: Any) -> None:
        from wam_ros.wam import prompts
        from wam_ros.wam.head import CallOptions, PolicyHead
        from wam_ros.wam.session import Session

        adapter, n = self._adapter, loaded.networks
        tokenizer = make_tokenizer(loaded.config.dit.text_len)
        branches = self._ranks.branches(n.dit) if self._ranks else None
        negative = tokenizer(prompts.NEGATIVE)
        head = PolicyHead(loaded.config, n.dit, n.text, n.image, n.vae, negative, savings, branches)
        options = CallOptions.of(loaded.config.head)
        if self._steps:
            options = dataclasses.replace(options, steps=self._steps)
        video = wants_video(options) if self._video == "auto" else self._video == "true"
        options = dataclasses.replace(options, want_video=video)
        self._session = Session(
            head,
            lambda text: tokenizer(adapter.prompt(text)),
            frames_per_call=self._frames or loaded.config.head.frames_per_call,
            history=loaded.config.head.sliding_history,
            step_period=self._contract.rates.step_period,
            options=options,
        )
        horizon = adapter.horizon
        self.frame_rows = tuple(range(-horizon + 1, 1))
        if adapter.metadata.resolution is not None:
            width, height = adapter.metadata.resolution
            self.view_size = (height, width)

    def warm_up(self) -> None:
        """A first and a continuing call on grey pictures at the home pose."""
        contract = self._contract
        grey = np.full((contract.view_height, contract.view_width, 3), 128, np.uint8)
        home = np.array([contract.joints[n].home for n in contract.state_names])
        period, horizon = contract.rates.step_period, contract.rates.horizon
        views = {c.name: grey for c in contract.cameras}
        self.reset("stay where you are")
        self.infer(Window((Observation(0.0, views, home),)))
        block = tuple(Observation(i * period, views, home) for i in range(1, horizon + 1))
        self.infer(Window(block, executed_rows=float(horizon)))
        thought = self.imagine()
        if thought is not None:
            thought.surprise()
            deque(thought.frames, maxlen=0)
        self._session.reset()

    # ---- calls ---------------------------------------------------------------------------------

    def reset(self, instruction: str) -> None:
        """Forget what was seen; the next call opens a window for ``instruction``."""
        self._session.reset()
        self._thought = None
        self._session.instruct(instruction)
        self._last_t0, self._rows = -math.inf, 0.0

    def infer(self, window: Window) -> ActionChunk:
        """Feed the frames since the last call, then ask for a chunk.

        Raises
        ------
        PolicyError
            Frames or state do not fit the model, or it ran out of memory; the next call starts a
            window.
        """
        session, newest = self._session, window.newest
        session.cadence = window.cadence
        state = self._state(newest.state)
        try:
            self._observe(window)
            normalised = self._torch.from_numpy(self._adapter.state(state))
            rows = self._rows if window.cadence == "async" and self._rows >= 1.0 else None
            with self._ranks.call(session) if self._ranks else nullcontext():
                chunk = session.chunk(normalised, rows)
        except ValueError as err:
            session.reset()
            raise PolicyError(f"{self.model}: {err}") from err
        except Exception as err:
            session.reset()
            if not _out_of_memory(err):
                raise
            self._torch.cuda.empty_cache()
            raise PolicyError(
                f"{self.model}: out of GPU memory: {_line(err)} Free the GPU of "
                f"other programs{self._smaller()}; starting a new window"
            ) from err
        self._last_t0 = newest.t0
        self.context_fill = chunk.context[0] / max(chunk.context[1], 1)
        self.seconds = dict(chunk.seconds)
        self._thought = self._think(chunk)
        actions = self._adapter.chunk(chunk.actions.numpy()[None], state)
        by_key = {k.key: k for k in self._contract.action}
        keys = [by_key[k] for k in self._adapter.action_keys]
        return ActionChunk(
            t0=newest.t0,
            step_period=self._contract.rates.step_period,
            actions=np.asarray(actions, dtype=np.float64),
            names=tuple(n for k in keys for n in k.joints),
            kinds=tuple(k.kind for k in keys for _ in k.joints),
            anchor_state=newest.state.copy(),
            context_flags=CONTEXT_RESET if chunk.reset else 0,
        )

    def imagine(self) -> Afterthought | None:
        """What the last call imagined, and how wrong the one before it was."""
        return self._thought

    def _think(self, chunk: Any) -> Afterthought:
        from wam_ros.wam import imagined

        head, period = self._session.head, self._contract.rates.step_period

        def surprise() -> float:
            return math.nan if chunk.judgement is None else float(chunk.judgement.value(head))

        def frames() -> Iterator[tuple[float, Any]]:
            for row, frame in imagined.frames(head, chunk.result, chunk.opening):
                yield chunk.stamp + row * period, frame.numpy()

        return Afterthought(surprise, frames())

    def _observe(self, window: Window) -> None:
        """Tell the session what was seen at which row of the last chunk.

        A frame from before row 0 was seen while the arm waited for the chunk and belongs to no
        block.
        """
        newest, rows = window.newest, self._rows_of(window)
        self._rows = rows[-1]
        sliding = window.cadence == "sliding"
        # A window is opened with the newest frame alone. In sliding without history every call
        # opens one, and the others serve only to judge what was imagined.
        opens = not self._session.history if sliding else not math.isfinite(self._last_t0)
        for frame, row in zip(window.frames, rows, strict=True):
            if frame.t0 <= self._last_t0:
                continue
            last = frame is newest
            if opens and not last:
                if sliding and self._session.options.want_video:
                    self._session.observe(self._composite(frame), frame.t0, executing=False)
                continue
            self._session.observe(
                self._composite(frame), frame.t0, row, executing=row > 0.5 or last
            )

    def _rows_of(self, window: Window) -> tuple[float, ...]:
        """Rows of the last chunk consumed at each frame, at most all."""
        period, newest = self._contract.rates.step_period, window.newest
        done, rows = window.executed_rows, window.rows
        if (
            done <= 0.0 and window.cadence != "sync"
        ):  # not heard of yet: each row is due at its stamp
            done = (newest.t0 - self._last_t0) / period if math.isfinite(self._last_t0) else 0.0
            rows = ()
        rows = rows or tuple(done - (newest.t0 - f.t0) / period for f in window.frames)
        return tuple(min(row, float(self._adapter.horizon)) for row in rows)

    def _composite(self, frame: Observation) -> Any:
        from wam_ros.policy.remote.fields import resize

        pictures = {}
        for camera in self._contract.cameras:
            view = resize(frame.views[camera.name], self.view_size)
            key = camera.model_key.removeprefix("video.")
            pictures[key] = self._torch.from_numpy(np.array(view))[None]
        return self._adapter.composite(pictures)[0]

    def _state(self, state: FloatArray) -> dict[str, FloatArray]:
        return {k.key: state[k.start : k.stop][None] for k in self._contract.state}

    def diagnostics(self) -> dict[str, str]:
        """Time per stage of the last call, and GPU memory, as text for `/diagnostics`."""
        said = {f"{k} (ms)": f"{v * 1e3:.0f}" for k, v in self.seconds.items()}
        if self._session is not None and self._session.head.device.type == "cuda":
            device = self._session.head.device
            used = self._torch.cuda.memory_allocated(device) / 2**30
            peak = self._torch.cuda.max_memory_allocated(device) / 2**30
            said |= {"GPU memory (GiB)": f"{used:.1f}", "GPU memory, most (GiB)": f"{peak:.1f}"}
        return said | (self._ranks.diagnostics() if self._ranks else {})

    @property
    def notice(self) -> str:
        """What people should know while it lasts, for `policy_state`."""
        return str(self._ranks.notice) if self._ranks else ""

    def close(self) -> None:
        """Let the weights go, and the other rank."""
        if self._ranks:
            self._ranks.close()
        self._session = self._thought = None
        torch = getattr(self, "_torch", None)
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
