"""The program; on its own it finds no package, so it says where this one is."""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))

from portslice.executor.main import main

if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
