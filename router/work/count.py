"""Asking a source how many instances of a study it has, beside everything else that decide does (C-FIND, SERIES)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

from dicom_sr.problem import Problem
from router.db import evidence, studies
from router.db.engine import now, reading, writing
from router.domain.counting import counted, restore
from router.domain.query import Level
from router.domain.study import Study
from router.node import Node
from router.query.scu import Peer, find

log = structlog.get_logger()

AT_ONCE = 4
"""Sources are asked about so many studies at once."""


class Counter:
    """Asks sources in threads of its own; each answer is kept in the study's row, and decide is woken."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="count")
        self.asking: set[str] = set()
        self.lock = threading.Lock()

    def ask(self, study: Study, peer: Peer) -> None:
        """Have the peer's count of this study asked for, unless that is going on already."""
        with self.lock:
            if study.study_instance_uid in self.asking:
                return
            self.asking.add(study.study_instance_uid)
        self.pool.submit(self.answer, study, peer)

    def answer(self, study: Study, peer: Peer) -> None:
        """Ask, keep the answer, wake decide."""
        uid = study.study_instance_uid
        try:
            instances: int | None = count_at(self.node, study, peer)
        except Problem as problem:
            log.warning("count.failed", study=uid, problem=type(problem).__name__, reason=str(problem))
            instances = None
        at = now()
        said = counted(
            restore(study.announced),
            by=f"C-FIND at {peer.ae_title}",
            instances=instances,
            at=at,
            last_at=study.last_instance_at,
        )
        with writing(self.node.engine) as connection:
            studies.announce(connection, uid, said.as_json(), at)
        with self.lock:
            self.asking.discard(uid)
        self.node.bell.ring("decide")

    def close(self) -> None:
        """Wait for the answers that are still to come."""
        self.pool.shutdown()


def count_at(node: Node, study: Study, peer: Peer) -> int:
    """How many instances of the study the peer has, our own results left out.

    Raises:  PeerUnreachable, PeerRefuses
    """
    with reading(node.engine) as connection:
        own = evidence.own_series(connection, study.study_instance_uid)
    keys = {"StudyInstanceUID": study.study_instance_uid, "SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
    return sum(
        int(one.get("NumberOfSeriesRelatedInstances") or 0)
        for one in find(peer, keys, Level.SERIES)
        if one.get("SeriesInstanceUID") not in own
    )
