"""``python -m davidbook``: see ``davidbook.build``."""

import sys

from davidbook.build import main

try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit("interrupted: the pages that are whole are kept, and the same command continues")
