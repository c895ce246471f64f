"""What a node costs that has nothing to do: `python -m tests.bench.idle [--seconds 60]`.

CPU of every process of a whole node, all roles, after it has settled, as a share of one core. The promise: at most 1 %.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from tests.bench.receivers import cpu_of
from tests.servers import RunningNode, node

MOST_PERCENT = 1.0


def spent(ours: RunningNode) -> dict[str, float]:
    """CPU seconds of each role so far."""
    return {role: sum(cpu_of(pid)[0] for pid in pids) for role, pids in ours.processes().items()}


def main() -> int:
    """Print the JSON; 1 where it is more than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=20.0, help="seconds before the clock starts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, node(Path(name) / "node", "NONE@127.0.0.1:9") as ours:
        time.sleep(options.settle)
        begun, before = time.monotonic(), spent(ours)
        time.sleep(options.seconds)
        after, lasted = spent(ours), time.monotonic() - begun
    percent = {role: round(100 * (after[role] - before.get(role, 0.0)) / lasted, 3) for role in after}
    total = round(sum(percent.values()), 2)
    print(json.dumps({"percent_of_a_core": total, "by_role": percent, "most": MOST_PERCENT, "load": os.getloadavg()}))
    return int(total > MOST_PERCENT)


if __name__ == "__main__":
    raise SystemExit(main())
