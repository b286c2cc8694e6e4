"""No plugin that happens to be installed on this machine may take part in the tests."""

import os

os.environ["LAVIE_PLUGINS"] = ""
os.environ.pop("LAVIE_PLUGINS_STRICT", None)
