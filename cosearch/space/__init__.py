"""Search spaces: one record that network, sampler, cost and derivation all read.

``space`` is the record and its architectures; ``kinds`` and ``cells`` make the kinds of space there are;
``operations`` and ``network`` turn blocks into torch modules; ``supernet`` and ``widths`` share weights among the architectures,
``derive`` picks one and takes its weights out; ``groups`` and ``counting`` know which architectures are legal and how many there
are; ``factors`` sums what several choice points decide together. Nothing here knows how an architecture is trained or what it
costs.
"""
