"""``python -m latency_tables``: make, check, look at and compare the latency tables of devices."""

from latency_tables.commands import main

if __name__ == "__main__":
    main()
