"""Small search spaces for tests of strategies: one stage on small frames."""

from cosearch.space.kinds.chain import ChainConfig, chain_space


def small_space(*candidates, cells=2):
    """So many cells with these candidates each, on 12 x 12 x 3 frames with four actions."""
    config = ChainConfig(
        stem_channels=4,
        stem_kernel=3,
        stage_channels=(4,),
        stage_repeats=(cells,),
        stage_strides=(1,),
        candidates=candidates,
        hidden=8,
    )
    return chain_space(config, (12, 12, 3), 4)
