"""Where the server's script lies."""
