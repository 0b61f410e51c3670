"""What commands do about mistakes and signals."""

import sys
from collections.abc import Callable

import torch

from utils.errors import UserError
from utils.stop_signals import SIGNALS, Stopped


def exit_status(work: Callable[[], int], interrupted: str) -> int:
    """Do a command's work; returns its status.

    A mistake, or what disk or GPU refuse, is one line and status 2. After a signal `interrupted`
    says what stays, and the status is the signal's.
    """
    try:
        with SIGNALS.handled():
            return work()
    except UserError as error:
        why = str(error)
    except OSError as error:  # a full disk, rights, a bucket
        why = " ".join(str(error).split())
    except torch.cuda.OutOfMemoryError:
        why = "out of GPU memory; use --device cpu, or smaller batches"
    except Stopped as stop:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return stop.status
    print(f"error: {why}", file=sys.stderr)
    return 2
