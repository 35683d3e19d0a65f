"""Networks and weights from other programs, and back: `read(path)`, `write(net, path)`.

    file -> formats/: tensors, or a neutral graph -> graph/: folded, recognised, lowered to our layers -> Net and Report
"""

from minicnn.interop.read import read
from minicnn.interop.report import Report
from minicnn.interop.write import write

__all__ = ["Report", "read", "write"]
