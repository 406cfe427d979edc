"""The Pareto dashboard."""
