"""Parameters: in which shape each is stored, where its bytes lie, and in how many bits."""
