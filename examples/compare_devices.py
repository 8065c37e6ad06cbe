"""What one network would cost on several devices, operation by operation. Without a file: the network of a default run.

python examples/compare_devices.py runs/NAME/architecture.json --devices jetson raspberry-pi-4 zc706
"""

import argparse
from pathlib import Path

import cosearch

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architecture", nargs="?", default=Path(__file__).with_name("architecture.json"))
    parser.add_argument("--devices", nargs="+", default=["jetson", "raspberry-pi-4"])
    asked = parser.parse_args()

    found = {device: cosearch.predict(asked.architecture, device) for device in asked.devices}
    print(f"{'':24}" + "".join(f"{device:>20}" for device in found))
    first = next(iter(found.values()))
    for number, operation in enumerate(first.operations):
        cells = (f"{prediction.operations[number].latency_s * 1e6:17.1f} us" for prediction in found.values())
        print(f"{operation.name:24}" + "".join(cells))
    print(f"{'fixed part':24}" + "".join(f"{prediction.overhead_s * 1e6:17.1f} us" for prediction in found.values()))
    print(f"{'whole network':24}" + "".join(f"{prediction.latency_s * 1e6:17.1f} us" for prediction in found.values()))
    print(f"{'':24}" + "".join(f"{prediction.provenance:>20}" for prediction in found.values()))
