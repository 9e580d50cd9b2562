"""How large the long tests are: a tenth of what is promised by default, all of it with CONVOSTORE_TEST_SCALE=10."""

import os

SCALE = float(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))


def scaled(full: int) -> int:
    """Return so much of a full size as this run is to take."""
    return max(1, round(full * min(SCALE, 10) / 10))
