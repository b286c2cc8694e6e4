"""Checks that any component, lavie's or a plugin's, keeps the contract of its kind.

from lavie.testing import check_component

def test_my_layer() -> None:
    check_component(MyLayerSpec())
"""

from lavie.testing.contract import SITE, check_component

__all__ = ["SITE", "check_component"]
