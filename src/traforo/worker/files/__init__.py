"""Files and trees of sandboxes, worked on inside with the rights of their users. What comes from there is hostile."""
