"""No plugin that happens to be installed on this machine may take part in the tests; no test depends on its speed."""

import os

from hypothesis import settings

os.environ["LAVIE_PLUGINS"] = ""
os.environ.pop("LAVIE_PLUGINS_STRICT", None)

settings.register_profile("untimed", deadline=None)  # the first example of a test pays for imports
settings.load_profile("untimed")
