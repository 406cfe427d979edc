"""The parts of the page that says why: knobs, designs, cost."""
