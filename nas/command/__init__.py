"""The command `nas`: what it reads, what it prints, how it ends."""
