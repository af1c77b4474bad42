"""A bag as a sequence of observations and actions on the action clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wam_ros.contract import Contract, load_contract
from wam_ros.contract.data import Observation
from wam_ros.perception.images import Rgb, decode, fit
from wam_ros.recording.reader import BagError, BagReader
from wam_ros.recording.rows import build_rows
from wam_ros.recording.series import read_recording


class Playback:
    """Reads a bag once for its rows; `observations` reads the pictures as they are needed.

    Parameters
    ----------
    bag
        Folder or .mcap file.
    robot
        Contract, for a bag that carries none.

    Raises
    ------
    BagError, RowsError
        The bag cannot be read, or has no usable row.
    """

    def __init__(self, bag: Path, robot: str = "") -> None:
        self._bag = bag
        reader = BagReader(bag)
        for _ in reader.messages():
            break
        episode = reader.episode()
        if episode is None and not robot:
            raise BagError(f"{bag} names no robot: give its contract")
        self.contract: Contract = load_contract(robot) if robot else episode.contract()  # type: ignore[union-attr]
        self.instruction = episode.instruction if episode else ""
        self.rows = build_rows(read_recording(reader, self.contract), self.instruction)

    def observations(self) -> Iterator[Observation]:
        """One observation per row, views at the model's size; ``t0`` is the recorded time."""
        c, rows = self.contract, self.rows
        views: dict[str, dict[int, Rgb]] = {x.name: {} for x in c.cameras}
        by_topic = {x.topic: x.name for x in c.cameras}
        seen = {x.name: 0 for x in c.cameras}
        wanted = {n: set(f.tolist()) for n, f in rows.frames.items()}
        newest = {x.name: -1 for x in c.cameras}
        reader = BagReader(self._bag)
        row = 0
        for raw in reader.messages():
            name = by_topic.get(raw.topic)
            if name is None:
                continue
            number = seen[name]
            seen[name] += 1
            if number not in wanted[name]:
                continue
            picture = decode(reader.decoder(raw.topic)(raw.data))
            views[name][number] = fit(picture, c.view_width, c.view_height)
            newest[name] = number
            while row < len(rows.t) and all(newest[n] >= f[row] for n, f in rows.frames.items()):
                yield self._observation(row, views)
                row += 1
                for n, f in rows.frames.items():
                    first = f[row] if row < len(rows.t) else 0
                    for old in [k for k in views[n] if k < first]:
                        del views[n][old]

    def _observation(self, row: int, views: dict[str, dict[int, Rgb]]) -> Observation:
        rows = self.rows
        return Observation(
            t0=float(rows.t[row]),
            views={n: views[n][int(f[row])] for n, f in rows.frames.items()},
            state=rows.state[row],
            ages={n: float(a[row]) for n, a in rows.ages.items()},
            skew=float(rows.skew[row]),
            sequence=row,
        )
