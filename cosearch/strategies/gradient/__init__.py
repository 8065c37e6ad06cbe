"""Methods whose architecture logits learn from gradients while the shared weights do, one file a method."""
