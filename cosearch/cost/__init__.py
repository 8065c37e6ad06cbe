"""What the architectures of a space cost on a device: exactly, and expected under path weights with gradients.

``table_cost`` reads a device's table; ``accel_cost`` asks the ``accelerator`` that is searched together with the network;
``constraint`` joins a cost to its upper bound, ``objective`` turns that into a penalty. Nothing here knows networks or learning.
"""
