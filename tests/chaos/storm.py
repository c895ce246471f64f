"""What happens to the node and its PACS, in an order and at moments that the seed decides."""

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.scene import Feeder, Scene
from tests.disk import BALLAST, CannotPretend, cut_power, fill, mount, unmount

TARGETS = ("listen", "decide", "infer", "build", "deliver", "tick", "web", "pipeline")
NODE_EVERY, SUPERVISOR_EVERY = 20, 45
"""Of so many kills one is the whole node's, or its supervisor's alone."""

AWAY_S = 8.0
FULL_S = 8.0
LOCKED_S = 5.0
Say = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Storm:
    """What is to happen, and what has."""

    made: Scene
    feeder: Feeder
    chance: random.Random
    say: Say
    killed: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)
    not_here: list[str] = field(default_factory=list)
    """What this machine does not let us do."""

    def rage(self, kills: int) -> None:
        """Kill so often; the other things happen at moments in between."""
        others = [self.fill_disk, self.lose_power, self.lose_pacs, self.lock_database, self.lose_pacs]
        self.chance.shuffle(others)
        moments = dict(zip(sorted(self.chance.sample(range(1, kills), len(others))), others, strict=True))
        for number, target in enumerate(self.targets(kills)):
            self.feeder.due = 1 + number * len(self.made.studies) // kills
            time.sleep(self.chance.uniform(0.0, 1.5))  # the moment is what is tested, not a wait for something
            if number in moments:
                moments[number]()
            self.kill(target)
            if number % 10 == 9:
                self.say(f"{number + 1} of {kills} kills, {len(self.feeder.sent)} studies sent: {dict(self.killed)}")
        self.feeder.due = len(self.made.studies)

    def targets(self, kills: int) -> Iterator[str]:
        """Whom to kill, in turns whose order is shuffled, so that nobody is spared."""
        turn: list[str] = []
        for number in range(1, kills + 1):
            if number % SUPERVISOR_EVERY == 0:
                yield "supervisor"
            elif number % NODE_EVERY == 0:
                yield "node"
            else:
                if not turn:
                    turn = self.chance.sample(TARGETS, len(TARGETS))
                yield turn.pop()

    def kill(self, target: str) -> None:
        """Kill it as soon as it lives."""
        if target == "node":
            self.made.kill_node()
            self.made.node.start()
        elif target == "supervisor":
            self.made.kill_supervisor()
            self.made.node.start()
        else:
            self.made.node.kill_one(target)
        self.killed[target] += 1

    def lose_pacs(self) -> None:
        """The PACS goes away and comes back."""
        self.note("the PACS goes away")
        self.made.pacs.stop()
        time.sleep(AWAY_S)
        self.made.pacs.start()

    def lock_database(self) -> None:
        """Somebody else holds the database's write lock."""
        self.note("the database is locked")
        held = threading.Event()

        def lock() -> None:
            connection = sqlite3.connect(self.made.node.folder / "isocenter.db", timeout=60, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            held.set()
            time.sleep(LOCKED_S)
            connection.execute("ROLLBACK")
            connection.close()

        threading.Thread(target=lock, daemon=True).start()
        held.wait(90)

    def fill_disk(self) -> None:
        """Not a byte is left on the node's disk, for a while."""
        if self.made.image is None:
            self.not_here.append("the disk cannot be filled: this machine mounts none of its own")
            return
        self.note("the disk is full")
        ballast = fill(self.made.disk)
        try:
            time.sleep(FULL_S)
        finally:
            ballast.unlink()

    def lose_power(self) -> None:
        """The plug is pulled: what was not on the disk is gone."""
        if self.made.image is None:
            self.not_here.append("the power cannot be cut: this machine mounts no disk of its own")
            return
        self.note("the power is cut")
        try:
            cut_power(self.made.disk)
        except CannotPretend as error:
            self.not_here.append(str(error))
        self.made.kill_node()
        unmount(self.made.disk)
        mount(self.made.image, self.made.disk)
        (self.made.disk / BALLAST).unlink(missing_ok=True)  # that it was removed may be among what is lost
        self.made.node.start()

    def note(self, what: str) -> None:
        """Say it and keep it."""
        self.events.append(what)
        self.say(what)
