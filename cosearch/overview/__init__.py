"""Many run folders read together, finished or not: the page on which an agent is picked, and SQL over what they hold."""
