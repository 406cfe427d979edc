"""What the pages do beyond reading: each action is a `nas` command in a process of its own."""
