"""Comparison with recorded numbers of the official implementation, file by file."""

from lavie.verification.run import DTypeName, Result, verify_file

__all__ = ["DTypeName", "Result", "verify_file"]
