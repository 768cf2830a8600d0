"""`python3 -m portslice`."""

import sys

from portslice.cli.main import main

sys.exit(main())
