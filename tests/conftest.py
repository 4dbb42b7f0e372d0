"""How hypothesis draws examples: always the same ones by default, new ones in every run with `CGC_EXPLORE=1`.

CI must say the same of the same commit. `make test-all` explores.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("explore" if os.environ.get("CGC_EXPLORE") else "same")
