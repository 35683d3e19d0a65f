"""The same operations in Numba, with the innermost loops of convolution and fully connected layers in LLVM IR.

Numba is imported here first. Its settings are environment variables: one that it cannot use costs a line, no traceback.
"""

import os
import sys
import warnings

from minicnn.system.terminal import any_text, lasting


def _import_numba() -> list[str]:
    """Import Numba; returns a line for each of its environment variables that is ignored."""
    ignored, threads = [], os.environ.get("NUMBA_NUM_THREADS", "")
    if threads.lstrip("-").isdecimal() and int(threads) < 1:            # Numba refuses to be imported
        del os.environ["NUMBA_NUM_THREADS"]
        ignored.append(f"NUMBA_NUM_THREADS={threads} is ignored: expected 1 or more; minicnn takes --threads")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import numba  # noqa: F401
    for entry in caught:
        text = str(entry.message)
        if text.startswith("Environment variable"):                     # the traceback follows on further lines
            ignored.append(f"{text.splitlines()[0].rstrip('.')}; Numba uses its default")
        else:
            warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
    return ignored


with any_text(), lasting("stderr"):
    for line in _import_numba():
        print(line, file=sys.stderr)
