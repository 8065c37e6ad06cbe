"""Many runs of one request: strategies by seeds, in processes of this machine, and the page that sets them side by side."""
