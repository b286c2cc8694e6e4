"""Speed and memory of the library's parts, measured as README.md in this folder says."""
