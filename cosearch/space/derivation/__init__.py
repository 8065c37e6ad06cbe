"""From scores and costs to architectures.

- ``derive``: the best that meets the targets, exactly; ``shortlist``: the next best ones.
- ``largest``: the free rules; ``pools``: candidates of one device.
- ``counting``: how many architectures meet the targets, and how many different networks they are.
"""
