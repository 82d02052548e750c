"""What a host has, what sandboxes may take of it, and what they use."""
