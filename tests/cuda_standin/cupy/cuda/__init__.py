"""cupy.cuda: one GPU, its memory and its streams."""

from . import nvrtc, runtime
from .memory import Device, MemoryPool, alloc_pinned_memory, set_allocator, using_allocator
from .stream import Event, Stream, get_current_stream, get_elapsed_time

__all__ = ["Device", "Event", "MemoryPool", "Stream", "alloc_pinned_memory", "get_current_stream", "get_elapsed_time",
           "nvrtc", "runtime", "set_allocator", "using_allocator"]
