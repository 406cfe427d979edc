"""Processes and signals: when one takes effect, and children that do not outlive their parent."""
