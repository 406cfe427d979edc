"""The FFN layers: a selection picks experts, they compute, a stack adds depth.

These modules and `search_space.spec` are copied into every exported model, so they
import torch and the standard library only.
"""
