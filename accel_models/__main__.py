"""``python -m accel_models``."""

from accel_models.cli import main

if __name__ == "__main__":
    main()
