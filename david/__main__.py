"""``python -m david``, or ``torchrun ... -m david``: see ``david.runs.command``."""

import sys

from torch.distributed.elastic.multiprocessing.errors import record

from david.runs.command import main

if __name__ == "__main__":
    sys.exit(record(main)())  # under torchrun, its last lines are then the error of the rank that failed first
