"""Tables that nobody measured: a roofline from public constants, fitted and compared with published latencies."""
