"""One stage of learning: rollouts and updates of a supernet, of a candidate or of one network, until its steps are used up.

It knows a plan and ends with weights; which stage follows is the concern of ``pipeline``.
"""
