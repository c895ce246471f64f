"""The resident process of the product, with the shelf of the benchmarks beside its catalogue."""

import sys
from multiprocessing.connection import Connection
from pathlib import Path

from pipelines import catalog
from router.work.inside import main

SHELF = str(Path(__file__).parent / "shelf")

if __name__ == "__main__":
    catalog.__path__.append(SHELF)
    main(Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
