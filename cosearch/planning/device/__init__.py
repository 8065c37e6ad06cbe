"""What the agent runs on: table or accelerator, the bounds on its costs there, and the form of the file that is deployed."""
