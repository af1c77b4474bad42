"""A relay in user space between two TCP ends: it delays, stalls, cuts and pulls the cable.

A lost packet shows itself to TCP as a stall until it was sent again, so that is what it plays.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any


class Relay:
    """Listens on a port of its own and passes bytes to ``port`` on this machine.

    Attributes
    ----------
    delay
        Seconds added to everything, each way.
    loss
        Probability that a piece waits another 0.2 s, as one that had to be sent again.
    stalled
        While true nothing moves, and no connection closes.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self._port = port
        self.delay, self.loss, self.stalled, self._down = 0.0, 0.0, False, False
        self._random = random.Random(seed)
        self._writers: set[Any] = set()
        self._frozen: set[Any] = set()
        self.port = 0
        self.connections = 0

    async def start(self) -> None:
        """Listen."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection and refuse new ones until `mend`."""
        self._down = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def freeze(self) -> None:
        """Pull the cable of every connection there is: for good, and neither end is told.

        New ones go through.
        """
        self._frozen |= self._writers

    async def mend(self) -> None:
        """Let everything through again."""
        self._down = self.stalled = False

    async def _accept(self, reader: Any, writer: Any) -> None:
        if self._down:
            writer.transport.abort()
            return
        self.connections += 1
        there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, there[1]}
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
        self._writers -= {writer, there[1]}

    async def _pump(self, reader: Any, writer: Any) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._deliver(under_way, writer))
        due = 0.0
        try:
            while data := await reader.read(1 << 20):
                late = 0.2 if self._random.random() < self.loss else 0.0
                due = max(due, loop.time() + self.delay + late)  # bytes do not overtake
                under_way.put_nowait((due, data))
            under_way.put_nowait((due, b""))
            await arriving
        except OSError:
            pass
        finally:
            arriving.cancel()
            writer.close()

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            while self.stalled or writer in self._frozen:
                await asyncio.sleep(0.02)
            if not data:
                return
            writer.write(data)
            await writer.drain()
