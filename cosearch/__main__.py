"""``python -m cosearch``."""

import sys

from cosearch.cli.app import main

sys.exit(main())
