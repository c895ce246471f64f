"""The learned entry of the catalogue imports MONAI, which warns of its own future; that is heard once, and here not."""

import tests.bundles.conftest  # noqa: F401
