"""The queue and the hands. `SHELF` holds pipelines for these tests, `INSIDE` starts a resident process with them."""

import sys
from pathlib import Path

SHELF = str(Path(__file__).parent / "shelf")
INSIDE = (sys.executable, "-m", "tests.work.inside")
