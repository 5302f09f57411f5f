"""``python -m unlearn_core``."""

import sys

from .job.cli import main

sys.exit(main())
