"""Run a robot, its simulation and a policy in lockstep, on a virtual clock."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Camera, Contract, StateSource
from wam_ros.execution import Executor
from wam_ros.execution.outputs import Channel
from wam_ros.policy.base import Policy
from wam_ros.policy.cadence import Latency
from wam_ros.rollout.body import Body, space_of
from wam_ros.rollout.episode import ChunkRecord, Episode, Segment
from wam_ros.rollout.log import Log
from wam_ros.rollout.observer import Observer
from wam_ros.rollout.scoring import Score
from wam_ros.rollout.sensors import Cameras, Perception, Picture
from wam_ros.rollout.settings import Settings
from wam_ros.rollout.turns import LatencyModel, Turns
from wam_ros.sim.disturbance import Disturbance
from wam_ros.sim.plant import Plant
from wam_ros.sim.variation import Scenes

Event = Callable[[Plant], None]
_LOOK = 0.01
"""Seconds between two looks of the policy's timer, the judge and the trace."""


class Rollout:
    """Plant, cameras, perception, policy and executor in one process and one thread.

    What runs is what runs live: `perception.sync` and `assemble`, `policy.cadence` and `frames`,
    `execution.Executor` at the contract's control rate, commands through the contract's outputs.
    Left out are the nodes and the transport: a message is there the moment it is sent.

    With a fixed ``latency`` an episode depends on its seed alone, bit for bit. With ``"measured"``
    the wall time of every call of the policy is charged: the chunk arrives that much later while
    the world goes on.

    Parameters
    ----------
    contract
        The robot. Views have its view size; use `dataclasses.replace` for smaller ones.
    policy
        A backend; it is configured and warmed up here.
    seed
        Of the next episode, unless `run` is given one.
    cadence, latency
        See `policy.cadence` and `turns.LatencyModel`.
    settings
        Rates and sizes.
    scenes
        Draws the scene of every seed; None places the blocks by the seed and leaves pose, light
        and cameras nominal.
    """

    def __init__(
        self,
        contract: Contract,
        policy: Policy,
        *,
        seed: int = 0,
        cadence: str = "async",
        latency: LatencyModel = "measured",
        settings: Settings | None = None,
        scenes: Scenes | None = None,
    ) -> None:
        self.settings = settings or Settings()
        if self.settings.control_rate is not None:
            rates = replace(contract.rates, control=self.settings.control_rate)
            contract = replace(contract, rates=rates)
        self.contract, self.policy, self.cadence = contract, policy, cadence
        self.seed, self.latency = seed, latency
        self.plant = Plant(contract, seed)
        self.cameras = Cameras(self.plant, self.settings.render_width)
        self._scenes = scenes
        self._space = space_of(contract)
        self._known = Latency()
        self._run: _Run
        policy.configure(contract)
        policy.warm_up()

    def run(
        self,
        instruction: str,
        deadline: float,
        observers: Sequence[Observer] = (),
        *,
        seed: int | None = None,
        then: Sequence[tuple[float | None, str]] = (),
        events: Sequence[tuple[float, Event]] = (),
        disturbances: Sequence[Disturbance] = (),
        patience: float = math.inf,
    ) -> Episode:
        """Run one episode.

        Parameters
        ----------
        instruction
            Said after the settling time.
        deadline
            Seconds from the first instruction after which the episode ends at the latest; it ends
            earlier when everything asked for has been done.
        observers
            See `Observer`.
        then
            Further instructions: ``(seconds after the first one, text)``, or None in place of the
            time to say it as soon as the one before was carried out.
        events
            ``(seconds after the first instruction, function)``: what happens to the plant.
        disturbances
            Mishaps; their time counts from the start of the simulation, `Settings.settle` earlier.
        patience
            Seconds after which an instruction that was not carried out ends the episode.

        Raises
        ------
        ValueError
            The cadence is unknown, or ``deadline`` is not positive.
        """
        if deadline <= 0.0:
            raise ValueError(f"deadline {deadline} s must be positive")
        if seed is not None:
            self.seed = seed
        ordered = sorted(events, key=lambda e: e[0])
        self._run = _Run(self, observers, list(then), ordered, disturbances, patience)
        return self._run.go(instruction, deadline)

    @property
    def core(self) -> Executor:
        """The executor of the episode under way, or of the last one."""
        return self._run.body.core

    @property
    def segments(self) -> list[Segment]:
        """The instructions of that episode so far, with their scores."""
        return self._run.score.segments

    def close(self) -> None:
        """Free the GL contexts and the policy."""
        self.cameras.close()
        self.policy.close()


class _Run:
    """One episode under way."""

    def __init__(
        self,
        rollout: Rollout,
        observers: Sequence[Observer],
        then: list[tuple[float | None, str]],
        events: list[tuple[float, Event]],
        disturbances: Sequence[Disturbance],
        patience: float,
    ) -> None:
        self._rollout, self._observers = rollout, observers
        self._then, self._events, self._disturbances = then, events, disturbances
        contract, settings = rollout.contract, rollout.settings
        rollout.cameras.episode += 1
        if rollout._scenes is None:
            rollout.plant.reset(rollout.seed)
        else:
            rollout.plant.apply(rollout._scenes.draw(rollout.seed))
        self.body = Body(rollout.plant, settings.executor, rollout._space)
        rng = np.random.default_rng([rollout.seed, 7])
        self._turns = Turns(
            contract, rollout.policy, rollout.cadence, settings.period, rollout.latency,
            rollout._known, rng,
        )  # fmt: skip
        self._perception = Perception(contract)
        self.score = Score(contract, rollout.plant)
        self.log = Log(self.body)
        self._patience = patience
        self._on_the_way: deque[tuple[float, float, Camera, Picture]] = deque()
        self._begin = 0.0
        hears_dreams = [o for o in observers if type(o).on_imagined is not Observer.on_imagined]
        self._dreamers = hears_dreams

    def go(self, instruction: str, deadline: float) -> Episode:
        started = time.perf_counter()
        rollout, settings = self._rollout, self._rollout.settings
        body, period = self.body, self.body.period
        rate = settings.camera_rate
        states = _Timer(1.0 / settings.state_rate)
        cameras = {
            c.name: _Timer(1.0 / (c.rate if rate is None else rate))
            for c in rollout.contract.cameras
        }
        ticks = _Timer(rollout.contract.rates.step_period)
        looks = _Timer(_LOOK)
        origin = rollout.plant.time
        body.read(origin, resting=True)
        refused = body.core.arm(origin)
        if refused:
            raise RuntimeError(f"{rollout.contract.robot} cannot be armed: {refused}")
        self._begin = origin + settings.settle
        for observer in self._observers:
            observer.on_start(rollout, instruction, self._begin)
        self._then.insert(0, (0.0, instruction))
        number = 0
        while True:
            now = origin + number * period
            if states.due(now - origin):
                body.read(now, self._joints)
            self._shoot(now, now - origin, cameras)
            if ticks.due(now - origin):
                self._look(now)
            look = looks.due(now - origin)
            if look:
                self._happen(now)
                self._turn(now)
                self.score.update(now)
            self._deliver(now)
            for disturbance in self._disturbances:
                disturbance.apply(rollout.plant)
            body.tick(number, now, self._command)
            if look:
                self.log.add(now)
                for observer in self._observers:
                    observer.on_tick(now, rollout)
                if self._over(now, deadline):
                    break
            number += 1
        self.score.finish(now)
        episode = self._episode(time.perf_counter() - started)
        for observer in self._observers:
            observer.on_end(episode)
        return episode

    # ---- what happens at a tick ----------------------------------------------------------------

    def _joints(self, now: float, source: StateSource, raw: list[float]) -> None:
        self._perception.push(source.name, now, Body.values(source, raw))
        for observer in self._observers:
            observer.on_joints(now, source, raw)

    def _shoot(self, now: float, elapsed: float, timers: dict[str, _Timer]) -> None:
        due = [name for name, timer in timers.items() if timer.due(elapsed)]
        if due:
            pictures = self._rollout.cameras.shoot()
            arrival = now + self._rollout.settings.camera_delay
            for camera in self._rollout.contract.cameras:
                if camera.name in due:
                    self._on_the_way.append((arrival, now, camera, pictures[camera.name]))
        while self._on_the_way and self._on_the_way[0][0] <= now + 1e-9:
            _, stamp, camera, picture = self._on_the_way.popleft()
            self._perception.push(camera.name, stamp, picture)
            for observer in self._observers:
                observer.on_picture(stamp, camera, picture)

    def _look(self, now: float) -> None:
        observation = self._perception.look(now)
        if observation is None:
            return
        self._turns.see(observation)
        for observer in self._observers:
            observer.on_observation(now, observation)
        self._turn(now)

    def _happen(self, now: float) -> None:
        """Say what is to be said now, and let happen what is to happen."""
        after = now - self._begin + 1e-9
        while self._events and self._events[0][0] <= after:
            self._events.pop(0)[1](self._rollout.plant)
        if not self._then or after < 0.0:
            return
        when, text = self._then[0]
        if when > after if when is not None else not self.score.success:
            return
        self._then.pop(0)
        self._turns.say(text)
        self.score.say(text, now)
        if text:
            self.body.core.resume()
        else:
            self.body.core.pause("instruction is empty")
        for observer in self._observers:
            observer.on_instruction(now, text)

    def _turn(self, now: float) -> None:
        core = self.body.core
        self._turns.tick(now, self._resting, core.progress(now), self._rollout.plant.objects)
        if self._turns.error:
            self.score.give_up(self._turns.error)

    @property
    def _resting(self) -> bool:
        return self.body.core.mode.name in ("HOLDING", "DISARMED")

    def _deliver(self, now: float) -> None:
        answer = self._turns.take(now, self._resting)
        if answer is None:
            return
        core, chunk = self.body.core, answer.chunk
        refused = core.submit(chunk, now)
        self.log.chunks.append(
            ChunkRecord(
                t0=chunk.t0,
                called=answer.called,
                delivered=now,
                latency=answer.latency,
                cadence=chunk.cadence,
                rows=chunk.horizon,
                frames=len(answer.call.window.frames),
                delay_rows=0.0 if refused else core.counters.delay_rows,
                surprise=float("nan") if answer.thought is None else answer.thought.surprise(),
                instruction=chunk.instruction,
                refused=refused,
            )
        )
        for observer in self._observers:
            observer.on_chunk(now, chunk, refused)
        if self._dreamers and answer.thought is not None:
            frames = list(answer.thought.frames)
            for observer in self._dreamers:
                observer.on_imagined(now, frames)

    def _command(self, now: float, channel: Channel, values: FloatArray) -> None:
        for observer in self._observers:
            observer.on_command(now, channel, values)

    def _over(self, now: float, deadline: float) -> bool:
        if now - self._begin >= deadline - 1e-9:
            return True
        if now < self._begin:
            return False
        if self.score.gave_up or self.body.core.mode.name in ("DISARMED", "ESTOPPED"):
            return True
        if not self.score.success and now - self.score.segments[-1].start >= self._patience:
            return True
        done = not self._then and self.score.success
        return done and now - self.score.since >= self._rollout.settings.linger - 1e-9

    def _episode(self, wall: float) -> Episode:
        core = self.body.core
        armed = core.mode.name not in ("DISARMED", "ESTOPPED")
        first = self.log.chunks[0].delivered if self.log.chunks else np.inf
        trace = self.log.trace()
        holds, seconds = self.log.holds(trace, first)
        return Episode(
            robot=self._rollout.contract.robot,
            seed=self._rollout.seed,
            cadence=self._rollout.cadence,
            segments=self.score.segments,
            trace=trace,
            chunks=self.log.chunks,
            holds=holds,
            hold_seconds=seconds,
            wall_seconds=wall,
            stopped="" if armed else f"{core.mode.name.lower()}: {core.reason}",
        )


class _Timer:
    """Due at multiples of a period, at the first tick at or after each."""

    def __init__(self, period: float) -> None:
        self._period, self._count = period, 0

    def due(self, elapsed: float) -> bool:
        if elapsed + 1e-9 < self._count * self._period:
            return False
        self._count = int((elapsed + 1e-9) / self._period) + 1
        return True
