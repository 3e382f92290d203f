"""The persistent kernel on graphics processors, written in Triton."""
