"""Everything that can die dies again and again while studies come and results leave: `python -m tests.chaos`."""
