"""Tables for readers: pictures, and what the commands print."""
