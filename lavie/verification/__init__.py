"""Comparison with recorded numbers of the official implementation, file by file."""

from lavie.verification.run import DTypeName, Result, conditions, verify_file

__all__ = ["DTypeName", "Result", "conditions", "verify_file"]
