"""Search spaces: one record that network, sampler, cost and derivation all read.

``space`` is the record and its architectures; ``chain``, ``mlp`` and ``cells`` make the kinds of space there are; ``operations``
and ``network`` turn blocks into torch modules; ``supernet`` shares weights among the architectures, ``derive`` picks one and
takes its weights out; ``groups`` and ``counting`` know which architectures are legal and how many there are. Nothing here knows
how an architecture is trained or what it costs.
"""
