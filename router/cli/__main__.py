"""`python -m router.cli` is `isocenter`."""

from router.cli import main

main()
