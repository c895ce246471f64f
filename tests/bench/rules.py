"""What rules cost: a condition on facts already read, a large rulebook's import, a back-test of 10 000 studies.

`python -m tests.bench.rules` prints a table and JSON. Every result is verified against slow and simple counting.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from pipelines import catalog
from router import backtest, revise, rulebook
from router.db import revisions
from router.db.engine import connect, reading, writing
from router.db.migrate import upgrade
from router.db.revisions import Kind
from router.domain.classify import describe
from router.domain.rules import judge
from router.starter import chest_ct
from tests.rules import past
from tests.rules.test_backtest import brute_force

RULES, STUDIES = 200, 10_000


def timed(call: Callable[[], Any], turns: int = 1) -> tuple[float, Any]:
    """CPU seconds of one call, and what it gave."""
    begun = time.process_time()
    for _ in range(turns):
        made = call()
    return (time.process_time() - begun) / turns, made


def adds_s() -> float:
    """CPU seconds in which this machine counts to five million: what the other figures are to be compared with."""
    return timed(lambda: sum(1 for _ in range(5_000_000)))[0]


def rule_us() -> float:
    """Microseconds in which the first rule of a new node (nine comparisons, five patterns) is judged in full.

    The median of ten rounds over the facts of 500 different series, which have been read.
    """
    (rule,) = rulebook.rules([chest_ct()])
    random = Random(1)
    series = [describe(past.headers(random)) for _ in range(500)]
    rounds = [timed(lambda: sum(judge(rule, facts) is not None for facts in series))[0] for _ in range(10)]
    return median(rounds) / len(series) * 1e6


def import_s(folder: Path) -> float:
    """Seconds in which 200 rules are read, checked and put in force."""
    engine = connect(f"sqlite:///{folder / 'import.db'}")
    upgrade(engine)
    body = [{**chest_ct(), "name": f"rule {number}"} for number in range(RULES)]
    text = rulebook.write(Kind.RULES, body)
    with writing(engine) as connection:
        revisions.add(connection, Kind.DESTINATIONS, [{"name": "pacs", "kind": "folder", "path": "/tmp"}], author="b")
        took, made = timed(lambda: revise.import_(connection, text, "rules.yaml", author="bench"))
    assert len(made.body) == RULES
    engine.dispose()
    return took


def backtest_s(folder: Path) -> tuple[float, float]:
    """Seconds of a back-test of 10 000 studies (median of three), and of brute force on the same."""
    engine = connect(f"sqlite:///{folder / 'past.db'}")
    upgrade(engine)
    with writing(engine) as connection:
        made = past.fill(connection, STUDIES)
    new, old = rulebook.rules(past.NEW), rulebook.rules(past.OLD)

    def once() -> backtest.Backtest:
        with reading(engine) as connection:
            return backtest.run(connection, new, old, days=30, examples=STUDIES)

    runs = [timed(once) for _ in range(3)]
    slow, (different, more, fewer) = timed(lambda: brute_force(made, past.OLD, past.NEW))
    for _, found in runs:
        assert {one.study_instance_uid for one in found.examples} == different
        assert (found.studies, sum(found.more.values()), sum(found.fewer.values())) == (STUDIES, more, fewer)
    engine.dispose()
    return median(took for took, _ in runs), slow


def main() -> None:
    """Measure and print."""
    import tests.rules.conftest as site

    catalog.__path__ = [*catalog.__path__, str(Path(site.__file__).parent / "catalog")]
    with tempfile.TemporaryDirectory() as folder:
        fast, slow = backtest_s(Path(folder))
        found = {
            "adds_s": round(adds_s(), 2),
            "rule_us": round(rule_us(), 1),
            "import_200_rules_s": round(import_s(Path(folder)), 3),
            "backtest_10000_s": round(fast, 2),
            "brute_force_10000_s": round(slow, 2),
        }
    table(found)
    print(json.dumps(found))


def table(found: dict[str, float]) -> None:
    """The figures beside what was promised."""
    limits = {"rule_us": 50, "import_200_rules_s": 1, "backtest_10000_s": 5}
    for name, value in found.items():
        print(f"{name:22} {value:10g}   {f'promised: {limits[name]}' if name in limits else ''}")


if __name__ == "__main__":
    main()
