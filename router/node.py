"""What every role of this node shares: settings, database, store and bell; made in one place by `compose`."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from router.config import Settings
from router.store import Store
from router.wake import Bell


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One Isocenter on one machine, as a role sees it. Paths in `settings` are absolute by now."""

    node_id: str
    settings: Settings
    engine: Engine
    store: Store
    bell: Bell

    @property
    def wake_folder(self) -> Path:
        """Where the bell's sockets lie."""
        return self.settings.run_path / "wake"
