import pytest
from lavie.testing import check_component
from lavie_dwconv import DepthwiseConvSpec


@pytest.mark.parametrize("reach", [1, 3])
def test_depthwise_convolution_keeps_the_contract_of_temporal_layers(reach: int) -> None:
    check_component(DepthwiseConvSpec(reach=reach))
