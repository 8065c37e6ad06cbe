"""Several agents from one search: their folders, begun when it ends, and the record that shows them side by side."""
