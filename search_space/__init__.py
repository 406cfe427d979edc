"""What is searched and what it costs: pure declarations, standard library only.

Nothing in this package imports torch, triton, ray, optuna or sqlalchemy, so a
driver, a dashboard and an exported model can all use it at no cost.
"""
